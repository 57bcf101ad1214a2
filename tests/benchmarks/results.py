"""Read the rows of a long output: ``python -m tests.benchmarks.results CANDIDATE NAME SMALL_NAME BASE_URL``.

What the server calls a job and a file is the name of a file on its disk. The small one is read first: that loads
modules, and what the process weighs then is the idle size.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 50_000
"""As many as a job may have."""
_PULSE_SECONDS = 0.005


def write_output(path: Path, rows: int, row_bytes: int) -> None:
    """An output file as the service writes it: answers of a chat, in text of one and more bytes a letter."""
    words = "Die Elbe entspringt im Riesengebirge\nund mündet bei Cuxhaven in die Nordsee. "
    text = words * (row_bytes // len(words.encode()))
    usage = {"prompt_tokens": 70, "completion_tokens": 900, "total_tokens": 970}
    message = {"role": "assistant", "content": text, "reasoning": None, "tool_calls": []}
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
            file.write(orjson.dumps({"id": f"br_{number}", "custom_id": f"row-{number}", "response": answer}) + b"\n")


async def bare(name: str, base_url: str) -> None:
    """A copy to the disk that looks at nothing."""
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
    """Every row, decoded, once."""
    from together_batches import AsyncBatches, BatchSuccess

    async with AsyncBatches("key", base_url=base_url) as batches, batches.results(name) as rows:
        async for row in rows:
            assert isinstance(row, BatchSuccess), row


async def ordered(name: str, base_url: str) -> None:
    """The same in the order of the input, which is another one."""
    from together_batches import AsyncBatches, BatchSuccess

    ids = [f"row-{number}" for number in reversed(range(ROWS))]
    async with (
        AsyncBatches("key", base_url=base_url) as batches,
        batches.results(name, requests=ids, order="input") as rows,
    ):
        count = sum([isinstance(row, BatchSuccess) async for row in rows])
    assert count in {ROWS, 10}, count


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _measured(candidate: str, name: str, small: str, base_url: str) -> dict[str, float]:
    read = {"bare": bare, "ours": ours, "ordered": ordered}[candidate]
    await read(small, base_url)
    idle = _peak_mb()
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_PULSE_SECONDS)
            longest = max(longest, time.perf_counter() - began - _PULSE_SECONDS)

    heart = asyncio.create_task(beat())
    cpu, wall = time.process_time(), time.perf_counter()
    await read(name, base_url)
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    heart.cancel()
    return {**figures, "peak_mb": _peak_mb() - idle, "pause": longest}


def main() -> None:
    """Run it, and print what it took."""
    print(json.dumps(asyncio.run(_measured(*sys.argv[1:]))))


if __name__ == "__main__":
    main()
