"""``results`` of both clients, against the emulator: from the id of a job to its rows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import attrs
import msgspec
import pytest
from wires import AT_ONCE, KEY, RawServer, clocked, http, in_virtual_time, job

from together_batches import (
    AsyncBatches,
    Batches,
    BatchFailure,
    BatchInvalid,
    BatchJob,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
    NotFoundError,
    ResultsUnavailableError,
    Usage,
    UsageError,
    failed_requests,
)
from together_batches.emulator import Emulator, Fault

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
GONE = http(404, {"error": "not found"})
IN_ORDER = [(BatchSuccess, "a"), (BatchFailure, "b"), (BatchSuccess, "c"), (BatchMissing, "d"), (BatchStray, "x")]


@pytest.fixture
async def batches(emulator: Emulator) -> AsyncIterator[AsyncBatches]:
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as client:
        yield client


@pytest.fixture
def threaded() -> Iterator[Emulator]:
    """Run a call of the blocking client in a thread."""
    with Emulator(api_key=KEY).running_in_thread() as running:
        yield running


def finished(emulator: Emulator, status: str = "COMPLETED") -> str:
    """A finished job with an output file and an error file."""
    return emulator.add_job(
        status=status,
        output_file_id=emulator.add_file(OUTPUT, filename="output.jsonl"),
        error_file_id=emulator.add_file(ERRORS, filename="errors.jsonl"),
    )


def kinds_and_ids(rows: Iterable[BatchResult[Any]]) -> list[tuple[type[BatchResult[Any]], str | None]]:
    return [(type(row), row.custom_id) for row in rows]


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED", "EXPIRED"])
async def test_the_rows_of_a_job(batches: AsyncBatches, emulator: Emulator, status: str) -> None:
    """All rows of a job are returned, however it ended: output, errors, strays and missing ones."""
    job_id = finished(emulator, status)
    rows = [row async for row in batches.results(job_id, requests=REQUESTS)]
    assert kinds_and_ids(rows) == EXPECTED
    job = await batches.retrieve(job_id)
    assert kinds_and_ids([row async for row in batches.results(job, requests=REQUESTS, order="input")]) == IN_ORDER


async def test_what_a_row_says(batches: AsyncBatches, emulator: Emulator) -> None:
    """A row gives the text of a chat response, and the results the total number of tokens."""
    rows = [row async for row in batches.results(finished(emulator)) if isinstance(row, BatchSuccess)]
    assert [row.text for row in rows] == ["cc", "xx", "aa"]
    assert sum((row.usage for row in rows if row.usage), Usage()) == Usage(9, 6, 15)


async def test_the_rows_to_send_again(batches: AsyncBatches, emulator: Emulator, tmp_path: Path) -> None:
    """The requests to send again can be built from results."""
    rows = [row async for row in batches.results(finished(emulator), requests=REQUESTS)]
    assert list(failed_requests(REQUESTS, rows)) == [REQUESTS[1], REQUESTS[3]]


# --- a schema -----------------------------------------------------------------------------------------------------


@attrs.frozen
class City:
    name: str


def _line(name: str, text: str, finish_reason: str = "stop") -> bytes:
    choice = {"message": {"content": text}, "finish_reason": finish_reason}
    body = {"choices": [choice], "usage": {"total_tokens": 5}}
    return msgspec.json.encode({"custom_id": name, "response": {"status_code": 200, "body": body}}) + b"\n"


FITS = '{"name": "Prague"}'
SCHEMED = b"".join(
    [
        _line("b", "no JSON"),
        _line("a", FITS),
        _line("c", '{"name": 7}'),
        _line("c", FITS),
        _line("d", FITS, "length"),
        _line("d", "also no JSON"),
        _line("a", "no JSON"),
    ]
)


@pytest.mark.parametrize("order", ["file", "input"])
async def test_answers_that_are_read_by_a_schema(
    batches: AsyncBatches, emulator: Emulator, order: Literal["file", "input"]
) -> None:
    """Answers that fit are values; others are invalid, and come later, because another answer of their row may fit.

    An invalid answer outweighs an error. Of several answers, the first that fits counts, or the first.
    """
    job_id = emulator.add_job(
        status="COMPLETED",
        output_file_id=emulator.add_file(SCHEMED),
        error_file_id=emulator.add_file(ERRORS + ERRORS.replace(b'"b"', b'"e"')),
    )
    rows = [row async for row in batches.results(job_id, requests=list("abcdef"), order=order, schema=City)]
    found = {row.custom_id: row for row in rows if not isinstance(row, BatchStray)}
    assert [found[name] for name in "ac"] == [row for row in rows if isinstance(row, BatchSuccess)]
    assert [type(found[name]) for name in "bdef"] == [BatchInvalid, BatchInvalid, BatchFailure, BatchMissing]
    parsed = [row.parsed for row in rows if isinstance(row, BatchSuccess)]
    assert parsed == [City("Prague"), City("Prague")]
    invalid = {name: (row.text, row.error) for name, row in found.items() if isinstance(row, BatchInvalid)}
    assert invalid == {
        "b": ("no JSON", "the answer is not JSON"),
        "d": (FITS, "the answer was cut off (finish_reason is length): allow more max_tokens"),
    }
    strays = [row for row in rows if isinstance(row, BatchStray)]
    lines = SCHEMED.decode().splitlines()
    assert sorted(row.raw for row in strays) == sorted([lines[2], lines[5], lines[6], ERRORS.decode().strip()])
    if order == "file":
        assert [row.custom_id for row in rows][:2] == ["a", "c"]
    else:
        assert [row.custom_id for row in rows][:6] == list("abcdef")


async def test_invalid_answers_are_not_sent_again(batches: AsyncBatches, emulator: Emulator) -> None:
    """An invalid answer was paid for: its request is not among those to send again."""
    job_id = emulator.add_job(status="COMPLETED", output_file_id=emulator.add_file(_line("a", "no JSON")))
    rows = [row async for row in batches.results(job_id, requests=REQUESTS[:2], schema=City)]
    assert kinds_and_ids(rows) == [(BatchInvalid, "a"), (BatchMissing, "b")]
    assert list(failed_requests(REQUESTS, rows)) == [REQUESTS[1]]


async def test_a_schema_that_is_none(batches: AsyncBatches, emulator: Emulator) -> None:
    """What cannot be a schema is refused before any request, and the answers of another endpoint have none."""
    with pytest.raises(UsageError, match="a schema is a pydantic model"):
        batches.results("a", schema=int)
    job_id = emulator.add_job(status="COMPLETED", endpoint="/v1/audio/transcriptions")
    with pytest.raises(UsageError, match="a schema is for answers of /v1/chat/completions"):
        await anext(batches.results(job_id, schema=City))


def test_a_schema_without_async(threaded: Emulator) -> None:
    """The blocking client reads answers by a schema in the same way."""
    with Batches(KEY, base_url=threaded.base_url) as client:
        job_id = threaded.add_job(status="COMPLETED", output_file_id=threaded.add_file(SCHEMED))
        with client.results(job_id, schema=City) as rows:
            assert [row.parsed for row in rows if isinstance(row, BatchSuccess)] == [City("Prague")] * 2


async def test_a_job_that_runs(batches: AsyncBatches, emulator: Emulator) -> None:
    """A running job has no results yet."""
    job_id = emulator.add_job(status="IN_PROGRESS", ends_as="IN_PROGRESS")
    with pytest.raises(UsageError, match=f"job {job_id} is IN_PROGRESS and has no results yet"):
        await anext(batches.results(job_id))


async def test_a_job_that_is_none(batches: AsyncBatches) -> None:
    """A nonexistent job is an error of the service; an invalid id is refused locally, at once."""
    with pytest.raises(NotFoundError):
        await anext(batches.results("nowhere"))
    with pytest.raises(UsageError, match="invalid job id"):
        batches.results("..")


async def test_a_file_that_is_gone(batches: AsyncBatches, emulator: Emulator) -> None:
    """If a file is gone, the rows before it are yielded and an error names it: its rows are unknown, not missing."""
    job_id = emulator.add_job(
        status="COMPLETED", output_file_id=emulator.add_file(OUTPUT), error_file_id="file-deleted"
    )
    rows = batches.results(job_id, requests=REQUESTS, patience=0)
    assert kinds_and_ids([await anext(rows) for _ in range(3)]) == EXPECTED[:3]
    with pytest.raises(ResultsUnavailableError, match="file-deleted") as caught:
        await anext(rows)
    assert (caught.value.job_id, caught.value.file_ids) == (job_id, ("file-deleted",))


@pytest.mark.parametrize("order", ["file", "input"])
async def test_a_whole_result_costs_no_further_request(
    batches: AsyncBatches, emulator: Emulator, order: Literal["file", "input"]
) -> None:
    """A complete result reads only the job and its files, and a job passed in as finished is not read."""
    job_id = finished(emulator)
    assert len([row async for row in batches.results(job_id, requests=list("abcx"), order=order)]) == 4
    assert emulator.requests[0].path == f"/v1/batches/{job_id}"
    assert (emulator.count("retrieve"), emulator.count("content")) == (1, 2)
    assert len(emulator.requests) == 3
    job = await batches.retrieve(job_id)
    assert len([row async for row in batches.results(job, requests=list("abcx"), order=order)]) == 4
    assert len(emulator.requests) == 3 + 1 + 2


# --- absence, in virtual time ----------------------

JOB = job("a", "COMPLETED", output_file_id="file-o")
ROWS = b'{"custom_id":"a","response":{"status_code":200,"body":{}}}\n{"custom_id":"b","error":"no"}\n'


def content(body: bytes) -> bytes:
    return http(200, body, headers={"ETag": '"1"'})


def metadata(size: int) -> bytes:
    return http(200, {"id": "file-o", "bytes": size})


async def rows_of(batches: AsyncBatches, wanted: str | BatchJob, **options: Any) -> list[str | None]:
    return [row.custom_id async for row in batches.results(wanted, **options)]


@in_virtual_time
async def test_an_id_that_was_never_seen_is_a_404_at_once() -> None:
    """A 404 for an id that was never seen is raised at once, after one request and no pause."""
    async with RawServer(GONE) as server, clocked(server.base_url) as batches:
        with pytest.raises(NotFoundError):
            await rows_of(batches, "a")
        assert server.lines == ["GET /v1/batches/a"]


@pytest.mark.parametrize("known", ["seen", "passed as a job"])
@in_virtual_time
async def test_a_job_that_is_known_is_looked_for(known: str) -> None:
    """A known job is searched for by id and in the list; its absence is raised when patience is over."""
    unfinished = job("a", "IN_PROGRESS")
    wanted: str | BatchJob = "a" if known == "seen" else BatchJob(id="a", status="IN_PROGRESS")
    seen = [http(200, unfinished)] if known == "seen" else []
    for end in ([http(200, JOB)], [GONE, http(200, [JOB])]):
        replies = [*seen, *[GONE, http(200, [])] * 3, *end, content(ROWS), metadata(len(ROWS))]
        async with RawServer(*replies) as server, clocked(server.base_url) as batches:
            if seen:
                await batches.retrieve("a")
            assert await rows_of(batches, wanted) == ["a", "b"]
            assert len(server.lines) == len(replies)
    async with RawServer(*seen, GONE) as server, clocked(server.base_url) as batches:
        if seen:
            await batches.retrieve("a")
        with pytest.raises(NotFoundError, match="has been absent for 60 s"):
            await rows_of(batches, wanted)


@in_virtual_time
async def test_results_that_come_late() -> None:
    """File ids, then content, then the rest of it may arrive late; each row is yielded once."""
    bare = http(200, job("a", "COMPLETED"))
    replies = [bare, bare, http(200, JOB), GONE, GONE, content(ROWS[:50])]
    rest = [metadata(len(ROWS)), content(ROWS[:70]), metadata(len(ROWS)), content(ROWS)]
    async with RawServer(*replies, *rest) as server, clocked(server.base_url) as batches:
        assert await rows_of(batches, "a") == ["a", "b"]
        assert len(server.lines) == len(replies) + len(rest)
        assert 5 < asyncio.get_running_loop().time() < 60


@in_virtual_time
async def test_results_that_stay_away() -> None:
    """Results that stay absent raise an error with the job and what is absent; no request counts as missing."""
    bare = http(200, job("a", "COMPLETED"))
    cut = [http(200, JOB), content(ROWS[:50]), *[metadata(len(ROWS)), content(ROWS[:50])] * 9]
    for replies, file_ids in (([bare], ()), ([http(200, JOB), GONE], ("file-o",)), (cut, ("file-o",))):
        async with RawServer(*replies) as server, clocked(server.base_url) as batches:
            began = asyncio.get_running_loop().time()
            with pytest.raises(ResultsUnavailableError) as caught:
                await rows_of(batches, "a", order="file")
            assert (caught.value.job_id, caught.value.file_ids) == ("a", file_ids)
            # A tick of the timeout monitor passes whenever a response takes a moment of real time.
            assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=2)


async def test_a_file_that_a_job_names_exists(batches: AsyncBatches, emulator: Emulator, tmp_path: Path) -> None:
    """A 404 for a file that a job names is retried, and one for another file is not."""
    job_id = finished(emulator)
    output = (await batches.retrieve(job_id)).output_file_id
    assert output
    emulator.fail(Fault(on="content", status=404))
    path = await batches.files.download(output, tmp_path / "out", patience=0.01)
    assert path.read_bytes() == OUTPUT
    assert emulator.count("content") == 2
    with pytest.raises(NotFoundError):
        await batches.files.download("file-x", tmp_path / "other", patience=0.01)
    assert emulator.count("content") == 3


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), "60", True, None])
async def test_a_patience_that_cannot_be(batches: AsyncBatches, emulator: Emulator, patience: Any) -> None:
    """An invalid patience is refused when it is passed in."""
    with pytest.raises(UsageError, match="patience must be a number, zero or more; it is"):
        batches.results("a", patience=patience)
    assert len(emulator.requests) == 0


def test_the_client_that_blocks(threaded: Emulator) -> None:
    """The blocking client returns the same rows."""
    with Batches(KEY, base_url=threaded.base_url, retry=AT_ONCE) as batches:
        job_id = finished(threaded)
        assert kinds_and_ids(batches.results(job_id, requests=REQUESTS)) == EXPECTED
        with batches.results(job_id, requests=REQUESTS, order="input") as rows:
            assert kinds_and_ids(rows) == IN_ORDER
        with pytest.raises(UsageError, match="needs the input"):
            batches.results(job_id, order="input")
        bare = threaded.add_job(status="COMPLETED", output_file_id=None)
        with pytest.raises(ResultsUnavailableError):
            list(batches.results(bare, patience=0))


async def test_a_job_that_is_not_there_fails_at_the_door(batches: AsyncBatches, emulator: Emulator) -> None:
    """A nonexistent job fails on entering ``with``, not at the first row."""
    entered = False
    with pytest.raises(NotFoundError):
        async with batches.results("nope"):
            entered = True
    assert not entered


def test_a_job_that_is_not_there_fails_at_the_door_of_the_sync_client() -> None:
    """In the sync client too, a nonexistent job fails on entering ``with``; otherwise all rows come, or none."""
    with Emulator().running_in_thread() as emulator, Batches(emulator.api_key, base_url=emulator.base_url) as batches:
        entered = False
        with pytest.raises(NotFoundError), batches.results("nope"):
            entered = True
        assert not entered
        output = emulator.add_file(OUTPUT)
        job_id = emulator.add_job(status="COMPLETED", output_file_id=output)
        with batches.results(job_id) as rows:
            assert len(list(rows)) == 3
        nothing = emulator.add_job(status="CANCELLED")
        with batches.results(nothing) as rows:
            assert list(rows) == []
