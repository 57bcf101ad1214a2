"""A whole run, against an emulator in another process: ``python -m tests.benchmarks.runs ROWS [ROWS_PER_JOB]``.

Prints its figures as JSON. A small run goes first: that loads modules, and the size of the process after it is the
idle size. ``emulator_cpu`` is the CPU time of the emulator, ``ledger_share`` the size of the ledger relative to the
input's, and ``cpu_ratio`` the CPU time of the run relative to ``json.loads`` of the lines of its output.

``python -m tests.benchmarks.runs --arrange`` measures one step of it: the results of a job of 50,000 rows, in any
order, are put in order, against ``json.loads`` and ``orjson.loads`` (if it is installed) of the same lines.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks.results import write_output
from together_batches import AsyncBatches, BatchMissing
from together_batches.emulator import Emulator, Timing
from together_batches.runs._joining import arrange
from together_batches.runs._partial_file import PartialFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEY = "key"
_SMALL = 1_000
_ROWS_OF_A_JOB = 50_000


def write_input(path: Path, rows: int) -> None:
    """Write chat requests of about 300 bytes each."""
    text = "Say this number, and nothing else beside it, whatever you may think of it at this moment: "
    with path.open("wb") as file:
        for number in range(rows):
            messages = [
                {"role": "system", "content": "You are a careful assistant."},
                {"role": "user", "content": f"{text}{number}"},
            ]
            body = {"model": "openai/gpt-oss-20b", "max_tokens": 100, "messages": messages}
            file.write(msgspec.json.encode({"custom_id": f"row-{number}", "body": body}) + b"\n")


async def _serve() -> None:
    """Serve until stdin ends, and then print the CPU time."""
    async with Emulator(api_key=_KEY, timing=Timing(validating=0, running=0)) as emulator:
        print(emulator.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(time.process_time())


async def _run(batches: AsyncBatches, directory: Path, rows: int, rows_per_job: int) -> Mapping[str, float]:
    source, output = directory / f"{rows}.jsonl", directory / f"{rows}.answers.jsonl"
    write_input(source, rows)
    cpu, wall = time.process_time(), time.perf_counter()
    report = await batches.run(source, output, max_rows_per_job=rows_per_job, poll_interval=0.2)
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    assert report.succeeded == rows, report
    peak = _peak_mb()  # before the output is read for the comparison
    lines = output.read_bytes().splitlines()
    loads = least_cpu(lambda: [json.loads(line) and None for line in lines])
    ledger = sum(file.stat().st_size for file in report.directory.glob("ledger*"))
    return {
        **figures,
        "cpu_ratio": figures["cpu"] / loads,
        "peak_mb": peak,
        "jobs": len(report.job_ids),
        "input_mb": source.stat().st_size / 1e6,
        "ledger_kb": ledger / 1e3,
        "ledger_share": ledger / source.stat().st_size,
    }


def least_cpu(work: Callable[[], object], rounds: int = 3) -> float:
    """Return the minimum CPU time of some rounds, because other load on the machine only adds to it."""

    def once() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return min(once() for _ in range(rounds))


def _arrange() -> dict[str, float]:
    ids = [f"row-{number}" for number in range(_ROWS_OF_A_JOB)]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "output")
        write_output(source, len(ids), 340)  # lines of 600 bytes
        lines = source.read_bytes().splitlines()
        random.Random(1).shuffle(lines)
        source.write_bytes(b"\n".join([*lines, b""]))

        def work() -> None:
            piece = PartialFile(Path(directory, "piece"), "new", hashed=False)
            arrange(ids, source, None, piece, completed=True, absent=BatchMissing, raise_if_cancelled=lambda: None)
            piece.keep()

        cpu = least_cpu(work, 7)
    figures = {"microseconds_a_row": cpu / len(ids) * 1e6, "bytes_a_line": len(lines[0])}
    for name in ("json", "orjson"):
        with suppress(ModuleNotFoundError):
            loads = importlib.import_module(name).loads
            took = least_cpu(lambda loads=loads: [loads(line) and None for line in lines], 7)
            figures[f"ratio_to_{name}"] = cpu / took
    return figures


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _measured(base_url: str, rows: int, rows_per_job: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncBatches(_KEY, base_url=base_url) as batches:
            idle = await _run(batches, Path(directory), _SMALL, rows_per_job)
            figures = await _run(batches, Path(directory), rows, rows_per_job)
            return {**figures, "peak_mb": figures["peak_mb"] - idle["peak_mb"]}


def main() -> None:
    """Run the measurement and print its figures."""
    if sys.argv[1] == "--serve":
        asyncio.run(_serve())
        return
    if sys.argv[1] == "--arrange":
        print(json.dumps(_arrange()))
        return
    rows, rows_per_job = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    command = [sys.executable, "-m", "tests.benchmarks.runs", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        figures = asyncio.run(_measured(service.stdout.readline().strip(), rows, rows_per_job))
        emulator_cpu, _ = service.communicate()
    print(json.dumps({**figures, "emulator_cpu": float(emulator_cpu)}))


if __name__ == "__main__":
    main()
