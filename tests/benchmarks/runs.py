"""A whole run, against an emulator in another process, and one step of it: results are put in order.

One run: ``python -m tests.benchmarks.runs ROWS``. A small run goes first: that loads modules, and the size of the
process after it is the idle size. ``emulator_cpu`` is the CPU time of the emulator, and ``json_cpu`` that of
``json.loads`` of the lines of the output.

One step: ``python -m tests.benchmarks.runs --arrange``. The results of a job of 50,000 rows, in any order, are put in
order, against ``json.loads`` and ``orjson.loads`` of the same lines.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks._client import peak_mb, tell
from tests.benchmarks._measure import Bar, Case, Line, Plan, Sample, Samples, in_turn, lines, run_module
from tests.benchmarks.results import write_output
from together_batches import AsyncBatches, BatchMissing
from together_batches._local.atomic_file import AtomicFile
from together_batches.emulator import Emulator, Timing
from together_batches.runs._joining import arrange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_KEY = "key"
_SMALL = 1_000
_ROWS_OF_A_JOB = 50_000
_ROWS = (50_000, 250_000, 1_000_000)


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


async def _run(batches: AsyncBatches, directory: Path, rows: int) -> Mapping[str, float]:
    source, output = directory / f"{rows}.jsonl", directory / f"{rows}.answers.jsonl"
    write_input(source, rows)
    cpu, wall = time.process_time(), time.perf_counter()
    report = await batches.run(source, output, poll_interval=0.2)
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak": peak_mb()}
    assert report.succeeded == rows, report
    lines = output.read_bytes().splitlines()
    ledger = sum(file.stat().st_size for file in report.directory.glob("ledger*"))
    return {
        **figures,
        "json_cpu": least_cpu(lambda: [json.loads(line) and None for line in lines]),
        "ledger_per_mb": ledger / source.stat().st_size * 1e6,
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
        write_output(source, len(ids), 255)  # lines of 600 bytes
        lines = source.read_bytes().splitlines()
        random.Random(1).shuffle(lines)
        source.write_bytes(b"\n".join([*lines, b""]))

        def work() -> None:
            with AtomicFile(Path(directory, "piece"), fsync=True, hashed=True) as piece:
                arrange(
                    ids, source, None, piece, completed=True, absent=BatchMissing, raise_if_cancelled=lambda: None
                )
                piece.commit()

        figures = {"cpu": least_cpu(work, 7), "bytes": sum(map(len, lines)) / len(lines)}
    for name in ("json", "orjson"):
        with suppress(ModuleNotFoundError):
            loads = importlib.import_module(name).loads
            figures[f"{name}_cpu"] = least_cpu(lambda loads=loads: [loads(line) and None for line in lines], 7)
    return figures


async def _measured(base_url: str, rows: int) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncBatches(_KEY, base_url=base_url) as batches:
            idle = await _run(batches, Path(directory), _SMALL)
            figures = await _run(batches, Path(directory), rows)
            return {**figures, "peak": figures["peak"] - idle["peak"]}


def _measure(plan: Plan) -> Iterator[Sample]:
    for rows in in_turn(plan.few, _ROWS[:1] if plan.quick else _ROWS):
        yield Sample("ours", {"rows": rows}, run_module("tests.benchmarks.runs", rows))


def _judge(samples: Samples) -> list[Line]:
    judged: list[Line] = []
    for rows in samples.settings("rows"):
        of = samples.of("ours", rows=rows).values
        per_row, wall = ([1e6 * value / rows for value in of(name)] for name in ("cpu", "wall"))
        what = f"{rows:,.0f} rows"
        judged += lines(
            (f"{what}: CPU of a row", per_row, "µs", None),
            (f"{what}: CPU / json.loads of its line of output", _quotients(of, "json_cpu"), "×", Bar("≤", 1.6)),
            (f"{what}: CPU / that of the emulator", _quotients(of, "emulator_cpu"), "×", None),
            (f"{what}: time of a row", wall, "µs", None),
            (f"{what}: memory above idle", of("peak"), "MB", Bar("≤", 48, each=True)),
            (f"{what}: ledger for each MB of input", of("ledger_per_mb"), "B", None),
        )
    return judged


def _quotients(of: Callable[[str], list[float]], name: str) -> list[float]:
    return [ours / other for ours, other in zip(of("cpu"), of(name), strict=True)]


def _measure_arranging(plan: Plan) -> Iterator[Sample]:
    for _ in range(plan.rounds):
        yield Sample("ours", {}, run_module("tests.benchmarks.runs", "--arrange"))


def _judge_arranging(samples: Samples) -> list[Line]:
    of = samples.values
    judged = lines(
        ("CPU of a row", [1e6 * cpu / _ROWS_OF_A_JOB for cpu in of("cpu")], "µs", None),
        ("CPU / json.loads of the same lines", _quotients(of, "json_cpu"), "×", None),
    )
    if of("orjson_cpu"):
        judged += lines(("CPU / orjson.loads of the same lines", _quotients(of, "orjson_cpu"), "×", Bar("≤", 3)))
    return judged


RUN = Case("run", "a run of chat requests, in jobs of 50,000 rows", _measure, _judge)
ARRANGE = Case("arrange", "put the results of 50,000 rows in order", _measure_arranging, _judge_arranging)


def main() -> None:
    """Run the measurement and print its figures."""
    if sys.argv[1] == "--serve":
        asyncio.run(_serve())
        return
    if sys.argv[1] == "--arrange":
        tell(_arrange())
        return
    command = [sys.executable, "-m", "tests.benchmarks.runs", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        figures = asyncio.run(_measured(service.stdout.readline().strip(), int(sys.argv[1])))
        emulator_cpu, _ = service.communicate()
    tell({**figures, "emulator_cpu": float(emulator_cpu)})


if __name__ == "__main__":
    main()
