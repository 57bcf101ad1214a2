"""The command ``together-batches demo``: a bulk cancel against a local emulator."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from together_batches.cli._command import command, option
from together_batches.cli._exits import Exit
from together_batches.cli._loop import in_loop, last_words
from together_batches.cli._numbers import at_least_one, zero_or_more
from together_batches.cli._progress import bar
from together_batches.cli._report import print_table
from together_batches.cli._text import PROGRAM, can_redraw, count_of, escape, format_count, print_err, table
from together_batches.errors import APIError
from together_batches.outcomes import CancelReport

if TYPE_CHECKING:
    from together_batches.emulator import Emulator, Fault
    from together_batches.outcomes import CancelOutcome

__all__ = ["demo"]

_KEY = "demo-key"
_STRAY_IDS = ("no-such-job", "odd id/with?#", "..")
"""Two ids that the service does not know, and one that cannot be sent."""


@command("demo")
@option("--jobs N", "how many jobs (1000)", type=at_least_one, default=1_000)
@option("--seed N", "another number, other fates (0)", type=zero_or_more, default=0)
def demo(jobs: int, seed: int) -> Exit:
    """Start a stand-in for the service on this machine, fill it with jobs of mixed
    fates, and cancel them all while some requests fail, get lost or are refused.
    It needs no key and no network, and ignores the environment's TOGETHER_*.

    examples:
      together-batches demo
      together-batches demo --jobs 10000
    """
    seen: dict[str, CancelOutcome] = {}

    def state() -> str:
        report = CancelReport(seen.values())
        return f"{count_of(len(seen), 'id')} answered: {report}; the jobs were the emulator's own"

    with last_words(state):
        _demonstrate(jobs, seed, seen)
    return Exit.DONE


@in_loop
async def _demonstrate(jobs: int, seed: int, seen: dict[str, CancelOutcome]) -> None:
    from together_batches.cli._demo_jobs import populate
    from together_batches.client import AsyncBatches
    from together_batches.emulator import Emulator, RateLimit, Timing

    emulator = Emulator(
        api_key=_KEY,
        seed=seed,
        timing=Timing(canceling=1.0),
        # Low enough to be reached, and high enough to finish within seconds.
        rate_limit=RateLimit(per_second=max(100.0, jobs / 2), burst=max(50, jobs // 4)),
        faults=_faults(jobs),
    )
    # The key and the address are passed, so that nothing of the user's environment is used.
    async with emulator, AsyncBatches(_KEY, base_url=emulator.base_url) as batches:
        ids = [*populate(emulator, jobs, seed), *_STRAY_IDS]
        print_err(f"An emulator of the service runs on this machine, with {count_of(jobs, 'job')} of mixed fates.")
        print_err(f"Cancelling them and {len(_STRAY_IDS)} stray ids, 100 at once, until they have really stopped:")
        began = time.monotonic()
        ended = failed = 0
        with bar(len(ids), shown=can_redraw(sys.stderr)) as show:

            def on_outcome(outcome: CancelOutcome) -> None:
                nonlocal ended, failed
                seen[outcome.job_id] = outcome
                if outcome.event == "ended":
                    ended += 1
                    failed += not outcome.ok
                stopping = len(seen) - ended
                show(ended, failed, f"{format_count(stopping)} accepted and stopping" if stopping else "")

            report = await batches.cancel_many(ids, wait=True, on_outcome=on_outcome)
        elapsed = time.monotonic() - began
    _show(report, elapsed, emulator)


def _faults(jobs: int) -> list[Fault]:
    """Return the faults, in proportion to the number of jobs, and the latency of every response."""
    from together_batches.emulator import Fault

    some = max(1, jobs // 100)
    return [
        Fault(on="cancel", chance=0.05, times=some, status=500),
        Fault(on="cancel", chance=0.02, times=max(1, some // 3), lose="answer"),
        Fault(on="cancel", chance=0.3, times=None, delay=0.25),
        Fault(on="cancel", times=None, delay=0.1),
    ]


def _show(report: CancelReport, elapsed: float, emulator: Emulator) -> None:
    print()
    print_table(report)
    print()
    strays = [(failure.job_id, failure.result.words, _reason(failure)) for failure in report.failures]
    for line in table(("STRAY ID", "RESULT", "WHY"), strays):
        print(line)
    print()
    # The table above does not show the faults on the way, which are the point of the demo, so they are printed here.
    statuses = Counter(request.status for request in emulator.requests)
    print(
        f"{format_count(len(report))} ids in {elapsed:.1f} s, each accounted for once. "
        f"On the way, of {format_count(statuses.total())} requests,\n"
        f"{format_count(statuses[429])} were refused for their rate, {format_count(statuses[500])} failed, "
        f"{format_count(statuses[None])} got no answer; all were repeated."
    )
    print()
    print("Next, with your own jobs (this only looks; without --dry-run there is a prompt):")
    print("  export TOGETHER_API_KEY=...")
    print(f"  {PROGRAM} cancel --all --dry-run")


def _reason(failure: CancelOutcome) -> str:
    error = failure.error
    return escape(error.message if isinstance(error, APIError) else str(error))
