"""Reading the rows of a long output.

One run: ``python -m tests.benchmarks.results CANDIDATE NAME SMALL_NAME BASE_URL``. The server uses the name of a file
on its disk as the id of a job and a file. The small one is read first: that loads modules, and the size of the
process after it is the idle size.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks._client import forget_peak, pauses_noted, peak_mb, tell
from tests.benchmarks._measure import (
    NGINX,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    ratios,
    run_module,
)
from tests.benchmarks._server import fast_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 50_000
"""The maximum of a job."""


def write_output(path: Path, rows: int, row_bytes: int) -> None:
    """Write an output file as the service does: chat answers with characters of one and more bytes."""
    words = "Die Elbe entspringt im Riesengebirge\nund mündet bei Cuxhaven in die Nordsee. "
    text = words * (row_bytes // len(words.encode()))
    usage = {"prompt_tokens": 70, "completion_tokens": 900, "total_tokens": 970}
    message: dict[str, object] = {"role": "assistant", "content": text, "reasoning": None, "tool_calls": []}
    choices = [{"index": 0, "finish_reason": "stop", "logprobs": None, "seed": None, "message": message}]
    body = {
        "id": "o1",
        "object": "chat.completion",
        "model": "openai/gpt-oss-20b",
        "choices": choices,
        "usage": usage,
    }
    with path.open("wb") as file:
        for number in range(rows):
            answer = {"status_code": 200, "body": body}
            file.write(
                msgspec.json.encode({"id": f"br_{number}", "custom_id": f"row-{number}", "response": answer}) + b"\n"
            )


async def bare(name: str, base_url: str) -> None:
    """Copy to the disk without looking at the content."""
    import aiohttp

    headers = {"Authorization": "Bearer key"}
    with tempfile.TemporaryFile() as file:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{base_url}/files/{name}/content") as response,
        ):
            async for chunk in response.content.iter_chunked(1 << 20):
                file.write(chunk)


async def ours(name: str, base_url: str) -> None:
    """Decode every row once."""
    from together_batches import AsyncBatches, BatchSuccess

    async with AsyncBatches("key", base_url=base_url) as batches, batches.results(name) as rows:
        async for row in rows:
            assert isinstance(row, BatchSuccess), row


async def ordered(name: str, base_url: str) -> None:
    """Decode every row in the order of the input, which differs."""
    from together_batches import AsyncBatches, BatchSuccess

    ids = [f"row-{number}" for number in reversed(range(ROWS))]
    async with (
        AsyncBatches("key", base_url=base_url) as batches,
        batches.results(name, requests=ids, order="input") as rows,
    ):
        count = sum([isinstance(row, BatchSuccess) async for row in rows])
    assert count in {ROWS, 10}, count


def _measure(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # nginx reads as another user if root starts it
        write_output(Path(directory, "long"), ROWS, 2_000 if plan.quick else 20_000)
        write_output(Path(directory, "short"), 10, 20_000)
        size = Path(directory, "long").stat().st_size / 1e6
        with fast_server(Path(directory)) as base_url:
            for rounds, names in ((plan.rounds, ["ours", "bare"]), (plan.few, ["ordered"])):
                for name in in_turn(rounds, names):
                    figures = run_module("tests.benchmarks.results", name, "long", "short", base_url)
                    yield Sample(name, {"megabytes": size}, figures)


def _judge(samples: Samples) -> list[Line]:
    orders = {"ours": "as they come", "ordered": "in the order of the input"}
    memory = [
        (f"memory above idle, {how}", samples.of(name).values("memory"), "MB", Bar("≤", 64, each=True))
        for name, how in orders.items()
    ]
    pauses = [
        (
            f"longest pause of the loop, {how}",
            [1e3 * pause for pause in samples.of(name).values("pause")],
            "ms",
            Bar("≤", 50, each=True),
        )
        for name, how in orders.items()
    ]
    return lines(
        ("seconds, ours", samples.of("ours").values("wall"), "s", None),
        ("seconds, ours / a copy to the disk", ratios(samples, "ours", "bare", "wall"), "×", Bar("≤", 1.43)),
        *memory,
        *pauses,
    )


CASE = Case("results", f"read the {ROWS:,} rows of an output of 1 GB", _measure, _judge, [NGINX])


async def _run(candidate: str, name: str, small: str, base_url: str) -> dict[str, float]:
    read = {"bare": bare, "ours": ours, "ordered": ordered}[candidate]
    await read(small, base_url)
    figures: dict[str, float] = {}
    async with pauses_noted(figures):
        idle = forget_peak()
        cpu, wall = time.process_time(), time.perf_counter()
        await read(name, base_url)
        figures |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "memory": peak_mb() - idle}
    return figures


def main() -> None:
    """Run one candidate and print its figures."""
    tell(asyncio.run(_run(*sys.argv[1:])))


if __name__ == "__main__":
    main()
