"""A table of the answers of a run, as a Parquet file.

One run: ``python -m tests.benchmarks.parquet CANDIDATE FILE``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks._client import peak_mb, tell
from tests.benchmarks._measure import (
    ARRO3,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    present,
    ratios,
    run_module,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 1_000_000
_BYTES_READ = 1 << 20


def write_answers(path: Path, rows: int) -> None:
    """Write an output of a run with chat answers of a few sentences; one row in a hundred failed."""
    words = "The Elbe rises in the Giant Mountains and flows into the North Sea near Cuxhaven. "
    with path.open("wb") as file:
        for number in range(rows):
            row: dict[str, object] = {"custom_id": f"row-{number}", "result": "failure", "message": "too slow"}
            if number % 100:
                message = {
                    "role": "assistant",
                    "content": f"{number}: {words * 3}",
                    "reasoning": None,
                    "tool_calls": [],
                }
                choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "seed": number, "message": message}
                usage = {"prompt_tokens": number % 97, "completion_tokens": 60, "total_tokens": number % 97 + 60}
                body = {
                    "id": f"o{number}",
                    "object": "chat.completion",
                    "created": 1,
                    "choices": [choice],
                    "usage": usage,
                }
                row = {"custom_id": f"row-{number}", "result": "success", "body": body, "status_code": 200}
            file.write(msgspec.json.encode(row) + b"\n")


def ours(source: str, target: str) -> None:
    """Write the columns of all answers."""
    from together_batches import tables

    tables.read(source).write_parquet(target)


def with_pyarrow(source: str, target: str) -> None:
    """Do the same with the other library."""
    sys.modules["arro3.core"] = None  # type: ignore[assignment]
    ours(source, target)


def polars(source: str, target: str) -> None:
    """Write the columns that are in most lines, as polars streams them."""
    import polars as pl

    choice = pl.col("body").struct.field("choices").list.first()
    usage = pl.col("body").struct.field("usage")
    pl.scan_ndjson(source).select(
        "custom_id",
        "result",
        choice.struct.field("message").struct.field("content").alias("text"),
        choice.struct.field("finish_reason"),
        usage.struct.field("prompt_tokens"),
        usage.struct.field("completion_tokens"),
    ).sink_parquet(target, compression="zstd", compression_level=1)


def _measure(plan: Plan) -> Iterator[Sample]:
    rows = 100_000 if plan.quick else ROWS
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "answers.jsonl")
        write_answers(path, rows)
        size = path.stat().st_size / 1e6
        for rounds, names in ((plan.rounds, ["ours"]), (plan.few, present("pyarrow", "polars"))):
            for name in in_turn(rounds, names):
                figures = run_module("tests.benchmarks.parquet", name, path)
                yield Sample(name, {"megabytes": size, "rows": rows}, figures)


def _judge(samples: Samples) -> list[Line]:
    each = {name: samples.of(name) for name in ("ours", "pyarrow", "polars")}
    microseconds = {
        name: [1e6 * sample.figures["cpu"] / float(sample.setting["rows"]) for sample in found.all]
        for name, found in each.items()
    }
    return lines(
        ("CPU microseconds a row, ours with arro3", microseconds["ours"], "µs", Bar("≤", 10)),
        ("CPU microseconds a row, ours with pyarrow", microseconds["pyarrow"], "µs", None),
        ("CPU time, ours / polars", ratios(samples, "ours", "polars", "cpu"), "×", None),
        ("memory, ours with arro3", each["ours"].values("peak_mb"), "MB", Bar("≤", 150, each=True)),
        ("memory, ours with pyarrow", each["pyarrow"].values("peak_mb"), "MB", None),
        ("memory, polars", each["polars"].values("peak_mb"), "MB", None),
    )


CASE = Case("parquet", f"write {ROWS:,} answers of a run as Parquet", _measure, _judge, [ARRO3])


def main() -> None:
    """Run one candidate and print its figures."""
    candidate = {"ours": ours, "pyarrow": with_pyarrow, "polars": polars}[sys.argv[1]]
    path = Path(sys.argv[2])
    with path.open("rb") as file:  # so that no figure includes the disk
        while file.read(_BYTES_READ):
            pass
    target = path.with_name(f"{sys.argv[1]}.parquet")
    cpu, wall = time.process_time(), time.perf_counter()
    candidate(str(path), str(target))
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak_mb": peak_mb()}
    target.unlink()
    tell(figures)


if __name__ == "__main__":
    main()
