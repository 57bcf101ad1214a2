"""``results`` of both clients, against the emulator: from a job's id to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from wires import AT_ONCE, KEY

from together_batches import (
    AsyncBatches,
    Batches,
    BatchFailure,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
    NotFoundError,
    Usage,
    UsageError,
    failed_requests,
)
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

REQUESTS = [BatchRequest(name, {"model": "m", "messages": []}) for name in "abcd"]
OUTPUT = b"".join(
    msgspec.json.encode(
        {
            "custom_id": name,
            "response": {
                "status_code": 200,
                "body": {
                    "choices": [{"message": {"content": name * 2}}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
                },
            },
        }
    )
    + b"\n"
    for name in "cxa"
)
ERRORS = b'{"custom_id": "b", "error": {"code": "batch_client_error", "message": "no"}}\n'
EXPECTED = [(BatchSuccess, "c"), (BatchStray, "x"), (BatchSuccess, "a"), (BatchFailure, "b"), (BatchMissing, "d")]
IN_ORDER = [(BatchSuccess, "a"), (BatchFailure, "b"), (BatchSuccess, "c"), (BatchMissing, "d"), (BatchStray, "x")]


@pytest.fixture
async def batches(emulator: Emulator) -> AsyncIterator[AsyncBatches]:
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as client:
        yield client


@pytest.fixture
def threaded() -> Iterator[Emulator]:
    """For the client that blocks."""
    with Emulator(api_key=KEY).running_in_thread() as running:
        yield running


def finished(emulator: Emulator, status: str = "COMPLETED") -> str:
    """A job with both files."""
    return emulator.add_job(
        status=status,
        output_file_id=emulator.add_file(OUTPUT, filename="output.jsonl"),
        error_file_id=emulator.add_file(ERRORS, filename="errors.jsonl"),
    )


def told(rows: Iterable[BatchResult]) -> list[tuple[type[BatchResult], str | None]]:
    return [(type(row), row.custom_id) for row in rows]


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED", "EXPIRED"])
async def test_the_rows_of_a_job(batches: AsyncBatches, emulator: Emulator, status: str) -> None:
    """However it ended: output and errors, strays and missing ones."""
    job_id = finished(emulator, status)
    rows = [row async for row in batches.results(job_id, requests=REQUESTS)]
    assert told(rows) == EXPECTED
    job = await batches.retrieve(job_id)
    assert told([row async for row in batches.results(job, requests=REQUESTS, order="input")]) == IN_ORDER


async def test_what_a_row_says(batches: AsyncBatches, emulator: Emulator) -> None:
    """The text of a chat answer, and the tokens of them all."""
    rows = [row async for row in batches.results(finished(emulator)) if isinstance(row, BatchSuccess)]
    assert [row.text for row in rows] == ["cc", "xx", "aa"]
    assert sum((row.usage for row in rows if row.usage), Usage()) == Usage(9, 6, 15)


async def test_the_rows_to_send_again(batches: AsyncBatches, emulator: Emulator, tmp_path: Path) -> None:
    """From results to requests."""
    rows = [row async for row in batches.results(finished(emulator), requests=REQUESTS)]
    assert list(failed_requests(REQUESTS, rows)) == [REQUESTS[1], REQUESTS[3]]


async def test_a_job_that_runs(batches: AsyncBatches, emulator: Emulator) -> None:
    """Has no results yet."""
    job_id = emulator.add_job(status="IN_PROGRESS", ends_as="IN_PROGRESS")
    with pytest.raises(UsageError, match=f"job {job_id} is IN_PROGRESS and has no results yet"):
        await anext(batches.results(job_id))


async def test_a_job_that_is_none(batches: AsyncBatches) -> None:
    """Is the service's to say; what cannot be an id is said here, and at once."""
    with pytest.raises(NotFoundError):
        await anext(batches.results("nowhere"))
    with pytest.raises(UsageError, match="is no job id"):
        batches.results("..")


async def test_a_file_that_is_gone(batches: AsyncBatches, emulator: Emulator) -> None:
    """The rows before it are told, and then that it is gone."""
    job_id = emulator.add_job(
        status="COMPLETED", output_file_id=emulator.add_file(OUTPUT), error_file_id="file-deleted"
    )
    rows = batches.results(job_id)
    assert told([await anext(rows) for _ in range(3)]) == [(BatchSuccess, name) for name in "cxa"]
    with pytest.raises(NotFoundError):
        await anext(rows)


def test_the_client_that_blocks(threaded: Emulator) -> None:
    """Has the same rows."""
    with Batches(KEY, base_url=threaded.base_url, retry=AT_ONCE) as batches:
        job_id = finished(threaded)
        assert told(batches.results(job_id, requests=REQUESTS)) == EXPECTED
        with batches.results(job_id, requests=REQUESTS, order="input") as rows:
            assert told(rows) == IN_ORDER
        with pytest.raises(UsageError, match="needs the input"):
            batches.results(job_id, order="input")
