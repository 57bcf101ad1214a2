"""``python -m tests.benchmarks [--rounds N] [--json FILE]``: every case, as ratios."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.benchmarks import validate
from tests.benchmarks._measure import Comparison, compare, in_process
from tests.benchmarks._server import fast_server, nginx
from tests.benchmarks.results import ROWS, write_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks._measure import Run

_IMPORTS = "import aiohttp, attrs, cattrs, anyio"
_CLIENT = "from together_batches import AsyncBatches; AsyncBatches('key')"


def _command(*command: str) -> Run:
    environment = {**os.environ, "TOGETHER_API_KEY": "key"}
    # What is installed was compiled when it was installed; this package, run from its sources, may be compiled too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, check=True, capture_output=True, env=environment)

    def run() -> Mapping[str, float]:
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return {"wall": time.perf_counter() - began}

    return run


def _fan_out(rounds: int) -> list[tuple[Comparison, Mapping[str, str]]]:
    if nginx() is None:
        print("fan-out: skipped, nginx is not installed (Debian: apt-get install nginx-light)")
        return []
    count, at_once = 20_000, 100
    with fast_server() as base_url:

        def candidate(name: str, ids: int) -> Run:
            return in_process("tests.benchmarks.fan_out", name, ids, at_once, base_url)

        beside_bare = compare(
            "cancel 20,000 jobs, 100 at once, CPU of the client for each",
            "cpu",
            {"ours": candidate("ours", count), "bare": candidate("bare", count)},
            rounds=rounds,
            unit_of=count,
        )
        beside_together = compare(
            "cancel 2,000 jobs, 100 at once, time for each",
            "wall",
            {"ours": candidate("ours", 2_000), "together": candidate("together", 2_000)},
            rounds=max(2, rounds // 2),
            unit_of=2_000,
        )
    return [(beside_bare, {"bare": "1.25"}), (beside_together, {"together": "0.10"})]


def _results(rounds: int) -> list[tuple[Comparison, Mapping[str, str]]]:
    if nginx() is None:
        print("results: skipped, nginx is not installed (Debian: apt-get install nginx-light)")
        return []
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # nginx reads as somebody else, if root starts it
        write_output(Path(directory, "long"), ROWS, 20_000)
        write_output(Path(directory, "short"), 10, 20_000)
        with fast_server(Path(directory)) as base_url:
            runs = {
                name: in_process("tests.benchmarks.results", name, "long", "short", base_url)
                for name in ("ours", "ordered", "bare")
            }
            measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in runs}

            def noted(name: str) -> Run:
                def run() -> Mapping[str, float]:
                    figures = runs[name]()
                    measured[name].append(figures)
                    return figures

                return run

            beside_bare = compare(
                "read the 50,000 rows of a 1 GB output, beside a copy to disk",
                "wall",
                {"ours": noted("ours"), "bare": noted("bare")},
                rounds=rounds,
            )
            noted("ordered")()
    for name, rounds_of in measured.items():
        memory, pause = (max(figures[key] for figures in rounds_of) for key in ("peak_mb", "pause"))
        print(f"results, {name}: at most {memory:.0f} MB above idle (bar: 64), loop held for {pause * 1e3:.0f} ms")
    return [(beside_bare, {"bare": "1.43"})]


def _transfers(rounds: int) -> list[tuple[Comparison, Mapping[str, str]]]:
    if nginx() is None:
        print("transfers: skipped, nginx is not installed (Debian: apt-get install nginx-light)")
        return []
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory() as served, tempfile.TemporaryDirectory() as scratch:
        Path(served).chmod(0o755)  # nginx reads as somebody else, if root starts it
        with Path(served, "file").open("wb") as output:
            output.truncate(1 << 30)  # a hole: the server has nothing to read from the disk
        to_upload, to_write = Path(scratch, "requests.jsonl"), Path(scratch, "file")
        to_upload.write_bytes(os.urandom(100_000_000))
        with fast_server(Path(served)) as base_url:
            for case, path in (("download", to_write), ("upload", to_upload)):
                worst: dict[tuple[str, str], float] = {}

                def noted(
                    name: str, case: str = case, path: Path = path, worst: dict[tuple[str, str], float] = worst
                ) -> Run:
                    once = in_process("tests.benchmarks.transfer", f"{case}-{name}", base_url, path)

                    def run() -> Mapping[str, float]:
                        figures = once()
                        for figure in ("memory", "blocked"):
                            worst[name, figure] = max(worst.get((name, figure), 0), figures[figure])
                        return figures

                    return run

                told = "download 1 GB to the disk" if case == "download" else "upload 100 MB"
                candidates = {name: noted(name) for name in ("ours", "bare")}
                comparisons.append(compare(told, "wall", candidates, rounds=rounds))
                for name in candidates:
                    print(
                        f"{told}, {name}: at most {worst[name, 'memory']:.0f} MB above idle (bar: 64), "
                        f"loop held for {worst[name, 'blocked'] * 1e3:.0f} ms (bar: 50)"
                    )
    return [(comparison, {"bare": "1.43"}) for comparison in comparisons]


def _start_up(rounds: int) -> list[tuple[Comparison, Mapping[str, str]]]:
    tools = Path(sys.executable).parent
    ours, theirs = shutil.which("together-batches", path=tools), shutil.which("tg", path=tools)
    cases = [
        (
            compare(
                "import the package and make a client",
                "wall",
                {
                    "ours": _command(sys.executable, "-c", _CLIENT),
                    "what it builds on": _command(sys.executable, "-c", _IMPORTS),
                },
                rounds=2 * rounds,
            ),
            {"what it builds on": "1.20"},
        )
    ]
    if ours and theirs:
        commands = {"ours": _command(ours, "--help"), "tg": _command(theirs, "--help")}
        cases.append((compare("--help", "wall", commands, rounds=2 * rounds), {"tg": "0.25"}))
    else:
        print("--help: skipped, the command of the official SDK is not installed")
    return cases


def _validate(rounds: int) -> list[tuple[Comparison, Mapping[str, str]]]:
    if find_spec("together") is None:
        print("validate: skipped, the official SDK is not installed")
        return []
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "requests.jsonl")
        validate.write_chats(path)

        def noted(name: str) -> Run:
            once = in_process("tests.benchmarks.validate", name, path)

            def run() -> Mapping[str, float]:
                figures = once()
                peaks[name] = max(peaks.get(name, 0), figures["peak_mb"])
                return figures

            return run

        case = f"check {validate.ROWS:,} chats of {path.stat().st_size / 1e6:.0f} MB"
        comparison = compare(case, "wall", {name: noted(name) for name in ("ours", "together")}, rounds=2 * rounds)
        noted("interpreter")()
    for name in ("ours", "together"):
        print(f"{case}, {name}: at most {peaks[name] - peaks['interpreter']:.0f} MB above the interpreter (bar: 64)")
    return [(comparison, {"together": "0.50"})]


def main() -> None:
    """Run the cases, print them, and write them down where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    cases = [
        *_start_up(options.rounds),
        *_fan_out(options.rounds),
        *_results(options.rounds),
        *_transfers(options.rounds),
        *_validate(options.rounds),
    ]
    for comparison, bar in cases:
        print(*comparison.lines("ours", bar=bar), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([attrs.asdict(comparison) for comparison, _ in cases], indent=1))


if __name__ == "__main__":
    main()
