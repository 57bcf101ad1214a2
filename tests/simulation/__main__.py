"""``python -m tests.simulation``: many seeds, one seed again, or real kills. See ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .kill import killed
from .play import Outcome, each_step, simulate, simulate_all
from .verdict import WITHOUT

_AT_A_TIME = 20


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 1 if a check fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and print each step")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many to play (2,000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--steps", type=int, default=5, help="how many small runs to kill at each single step (5)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at once (one for each CPU)")
    parser.add_argument("--kill", type=int, metavar="KILLS", help="kill -9 a process so often over one run, for real")
    parser.add_argument("--rows", type=int, default=200_000, help="the rows of that run (200,000)")
    requested = parser.parse_args(arguments)
    if requested.seed is not None:
        return _replay(requested.seed)
    if requested.kill is not None:
        return _kill(requested.kill, requested.rows, requested.first)
    return _many(range(requested.first, requested.first + requested.seeds), requested.steps, requested.processes)


def _replay(seed: int) -> int:
    outcome = simulate(seed, print)
    print(outcome)
    return bool(outcome.failure)


def _kill(kills: int, rows: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        print(killed(Path(directory), rows=rows, kills=kills, rows_per_job=rows // 40, seed=seed, say=_say))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _many(seeds: range, plans: int, processes: int) -> int:
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = [seeds[first : first + _AT_A_TIME] for first in range(0, len(seeds), _AT_A_TIME)]
        for found in pool.map(simulate_all, parts):
            outcomes += found
            _name_the_broken(found)
            _progress(outcomes, len(seeds), began)
        played = len(outcomes)
        for number, found in enumerate(pool.map(each_step, range(plans)), start=1):
            outcomes += found
            _name_the_broken(found)
            _say(f"small run {number} of {plans}: killed before each of its {len(found) - 1} steps")
    seconds = time.monotonic() - began
    return _summary(outcomes, played, seconds)


def _name_the_broken(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.failure:
            _say(f"BROKEN: {outcome.name}: {outcome.failure}")


def _progress(outcomes: list[Outcome], wanted: int, began: float) -> None:
    broken = sum(bool(outcome.failure) for outcome in outcomes)
    rate = len(outcomes) / (time.monotonic() - began)
    _say(f"{len(outcomes)} of {wanted} seeds, {rate:.0f} a second, {broken} broken")


def _summary(outcomes: list[Outcome], seeds: int, seconds: float) -> int:
    broken = [outcome for outcome in outcomes if outcome.failure]
    ends = sum((outcome.ends for outcome in outcomes), Counter[str]())
    _say(
        f"{seeds} seeds and {len(outcomes) - seeds} single steps in {seconds:.0f} s: "
        f"{sum(outcome.rows for outcome in outcomes):,} rows, {sum(outcome.jobs for outcome in outcomes):,} jobs, "
        f"{sum(outcome.days for outcome in outcomes):,.0f} days, {ends.total():,} starts"
    )
    paid = sum((outcome.paid_again for outcome in outcomes), Counter[str]())
    _say(
        "rows paid for again: "
        + ", ".join(f"{paid[why]:,} {why}" for why in (*sorted(set(paid) - {WITHOUT}), WITHOUT))
    )
    _say("how they ended: " + ", ".join(f"{count:,} {end}" for end, count in ends.most_common()))
    _say(f"{len(broken)} broken")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
