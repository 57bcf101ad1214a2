"""Reading 100,000 answers by a schema.

One run: ``python -m tests.benchmarks.schemas CANDIDATE FILE``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks._client import pauses_noted, tell
from tests.benchmarks._measure import (
    PYDANTIC,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    run_module,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

ROWS = 100_000


def _model() -> Any:
    import pydantic

    class City(pydantic.BaseModel):
        name: str
        population: int
        rivers: list[str]
        coastal: bool

    return City


def write_output(path: Path) -> None:
    """Write an output file as the service does; the text of each answer is JSON of 80 bytes."""
    import msgspec

    with path.open("wb") as file:
        for number in range(ROWS):
            city = {"name": f"City {number}", "population": number, "rivers": ["Elbe", "Vltava"], "coastal": False}
            message = {"role": "assistant", "content": msgspec.json.encode(city).decode(), "tool_calls": []}
            body = {
                "id": "o1",
                "object": "chat.completion",
                "model": "openai/gpt-oss-20b",
                "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
                "usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100},
            }
            row = {"custom_id": f"row-{number}", "response": {"status_code": 200, "body": body}}
            file.write(msgspec.json.encode(row) + b"\n")


async def _read(path: Path, schema: Any) -> AsyncGenerator[Any, None]:
    """Yield all rows, without a network."""
    from together_batches._jobs.results import ResultsApi, results
    from together_batches._schema.adapters import adapter_of
    from together_batches._stream import Stream
    from together_batches.models import BatchJob, FileObject

    size = path.stat().st_size  # noqa: ASYNC240
    job = BatchJob(id="a", status="COMPLETED", output_file_id="file")

    async def retrieve(_: str) -> BatchJob:
        return job

    async def file(_: str) -> FileObject:
        return FileObject(id="file", bytes=size)

    async def chunks() -> AsyncGenerator[bytes, None]:
        with path.open("rb") as content:
            while chunk := content.read(1 << 16):
                yield chunk

    api = ResultsApi(retrieve=retrieve, content=lambda _: Stream(chunks()), file=file, sleep=asyncio.sleep)
    adapter = None if schema is None else adapter_of(schema)
    async for row in results(api, job, adapter=adapter):
        yield row


async def plain(path: Path) -> None:
    """Read the rows, without a schema."""
    assert sum([1 async for _ in _read(path, None)]) == ROWS


async def ours(path: Path) -> None:
    """Read the rows by a model."""
    assert sum([row.parsed is not None async for row in _read(path, _model())]) == ROWS


def _measure(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "output.jsonl")
        write_output(path)
        for name in in_turn(plan.rounds, ["ours", "plain", "pydantic"]):
            yield Sample(name, {"rows": ROWS}, run_module("tests.benchmarks.schemas", name, path))


def _judge(samples: Samples) -> list[Line]:
    each = {name: samples.of(name).values("cpu") for name in ("ours", "plain", "pydantic")}
    per_row = {name: [1e6 * seconds / ROWS for seconds in values] for name, values in each.items()}
    more = [
        ours - plain - pydantic
        for ours, plain, pydantic in zip(per_row["ours"], per_row["plain"], per_row["pydantic"], strict=True)
    ]
    return lines(
        ("CPU microseconds a row, without a schema", per_row["plain"], "µs", None),
        ("CPU microseconds a row, pydantic alone", per_row["pydantic"], "µs", None),
        ("CPU microseconds a row, ours beyond both", more, "µs", Bar("≤", 3)),
        (
            "longest pause of the loop",
            [1e3 * pause for pause in samples.of("ours").values("pause")],
            "ms",
            Bar("≤", 20, each=True),
        ),
    )


CASE = Case("schemas", f"read {ROWS:,} answers by a pydantic model", _measure, _judge, [PYDANTIC])


async def _run(candidate: str, path: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    if candidate == "pydantic":
        texts = [row.text async for row in _read(path, None)]
        validate = _model().model_validate_json
        begin = time.process_time()
        for text in texts:
            validate(text)
        figures["cpu"] = time.process_time() - begin
    else:
        read = {"ours": ours, "plain": plain}[candidate]
        await read(path)  # loads modules
        async with pauses_noted(figures):
            begin = time.process_time()
            await read(path)
            figures["cpu"] = time.process_time() - begin
    return figures


def main() -> None:
    """Run one candidate and print its figures."""
    tell(asyncio.run(_run(sys.argv[1], Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
