"""Results: two files as one stream of rows, and every row of the input in exactly one bucket."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from together_batches import jsonl
from together_batches._jobs import results as _results
from together_batches._jobs import row_store
from together_batches._jobs.results import Order, ResultsApi, failed_requests, results
from together_batches._protocol import result_lines
from together_batches._protocol.result_lines import read_row
from together_batches._stream import Stream
from together_batches.errors import (
    APIConnectionError,
    APIResponseValidationError,
    BatchesError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ResultsUnavailableError,
    UsageError,
    ValidationError,
)
from together_batches.models import BatchJob, BatchJobStatus, FileObject
from together_batches.rows import BatchFailure, BatchMissing, BatchRequest, BatchResult, BatchStray, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

TERMINAL = [status for status in BatchJobStatus if status.is_terminal]
BACK_OFF = [1, 2, 4, 8, 16, 29]
"""Seconds between reads of an absent object, with a patience of 60 s."""


ORDERS: list[Order] = ["file", "input"]
in_both_orders = pytest.mark.parametrize("order", ORDERS)

# --- fakes --------------------------------------------------------------------------------------------------------


def answer(custom_id: str, body: object = None, status_code: int = 200) -> bytes:
    """Return a line of an output file."""
    body = {"choices": [{"message": {"content": custom_id.upper()}}]} if body is None else body
    return msgspec.json.encode(
        {"id": "br_1", "custom_id": custom_id, "response": {"status_code": status_code, "body": body}}
    )


def refusal(custom_id: str) -> bytes:
    """Return a line of an error file."""
    return msgspec.json.encode({"custom_id": custom_id, "error": {"code": "batch_client_error", "message": "no"}})


def lines(*rows: bytes) -> bytes:
    return b"".join(row + b"\n" for row in rows)


class Account:
    """A job and its two files, which arrive in chunks of ``size`` bytes and break off after ``breaks`` of them.

    ``shown`` contains what reads return before the last one, by ``"job"`` or the id of a file; an error is raised.
    ``metadata`` contains the service's metadata of the files, each without ``bytes`` by default. ``requests``
    contains every request, and ``slept`` every pause between them.
    """

    def __init__(
        self,
        output: bytes | None = None,
        errors: bytes | None = None,
        *,
        status: str = "COMPLETED",
        size: int = 7,
        breaks: int | None = None,
        shown: dict[str, list[Any]] | None = None,
        metadata: dict[str, int | BatchesError | None] | None = None,
    ) -> None:
        self.job = BatchJob(
            id="job-1",
            status=status,
            output_file_id=None if output is None else "file-output",
            error_file_id=None if errors is None else "file-errors",
        )
        self.files = {"file-output": output or b"", "file-errors": errors or b""}
        self.size = size
        self.breaks = breaks
        self.shown = shown or {}
        self.metadata = metadata or {}
        self.requests: list[str] = []
        self.slept: list[float] = []
        self.open = 0

    @property
    def api(self) -> ResultsApi:
        return ResultsApi(retrieve=self.retrieve, content=self.content, file=self.file, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _look(self, what: str, last: Any) -> Any:
        earlier = self.shown.get(what)
        found = earlier.pop(0) if earlier else last
        if isinstance(found, BatchesError):
            raise found
        return found

    async def retrieve(self, job_id: str) -> BatchJob:
        self.requests.append(f"job {job_id}")
        job: BatchJob = self._look("job", self.job)
        return job

    async def file(self, file_id: str) -> FileObject:
        self.requests.append(f"metadata {file_id}")
        size = self.metadata.get(file_id)
        if isinstance(size, BatchesError):
            raise size
        return FileObject(id=file_id, bytes=size)

    async def _content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        self.requests.append(f"content {file_id}")
        self.open += 1
        try:
            file: bytes = self._look(file_id, self.files[file_id])
            for count, start in enumerate(range(0, len(file), self.size)):
                if count == self.breaks:
                    message = "the connection broke"
                    raise APIConnectionError(message)
                yield file[start : start + self.size]
        finally:
            self.open -= 1

    def content(self, file_id: str) -> Stream[bytes]:
        return Stream(self._content(file_id))

    def results(self, job: str | BatchJob = "job-1", **options: Any) -> AsyncGenerator[BatchResult, None]:
        return results(self.api, job, **{"patience": 60, **options})

    async def rows(self, job: str | BatchJob = "job-1", **options: Any) -> list[BatchResult]:
        return [row async for row in self.results(job, **options)]


def gone() -> NotFoundError:
    return NotFoundError("no such thing", status=404)


def names(rows: Iterable[BatchResult]) -> list[tuple[str, str | None]]:
    return [(type(row).__name__.removeprefix("Batch").lower(), row.custom_id) for row in rows]


# --- two files ----------------------------------------------------------------------------------------------------


async def test_both_files_are_one_stream() -> None:
    """Both files are one stream: the output first, then the errors, each in its own order."""
    account = Account(lines(answer("c"), answer("a")), lines(refusal("b")))
    assert names(await account.rows()) == [("success", "c"), ("success", "a"), ("failure", "b")]


async def test_a_failure_may_be_in_the_output_and_an_answer_among_the_errors() -> None:
    """The row decides if it is a failure, not its file; failures come last, because a success may follow them."""
    account = Account(lines(answer("a", {"error": "x"}, 500)), lines(answer("b")))
    assert names(await account.rows()) == [("success", "b"), ("failure", "a")]


@pytest.mark.parametrize("status", TERMINAL)
async def test_partial_results_are_kept(status: str) -> None:
    """The rows of the files are returned, however the job ended."""
    account = Account(lines(answer("a")), None, status=status)
    rows = await account.rows(requests=["a", "b"])
    assert names(rows) == [("success", "a"), ("missing", "b")]


@pytest.mark.parametrize("status", ["FAILED", "EXPIRED", "CANCELLED"])
async def test_a_job_without_files(status: str) -> None:
    """A job without files has no rows, and every request is missing."""
    account = Account(status=status)
    assert await account.rows() == []
    assert await account.rows(requests=["a", "b"]) == [BatchMissing("a"), BatchMissing("b")]
    assert await account.rows(requests=["a", "b"], order="input") == [BatchMissing("a"), BatchMissing("b")]
    assert account.slept == []


@pytest.mark.parametrize("order", ["file", "input"])
@pytest.mark.parametrize(
    "output", [b"", b"\n\n", answer("a"), b"\r\n" + answer("a") + b"\r\n \n", b"\xef\xbb\xbf" + answer("a")]
)
async def test_odd_files(output: bytes, order: str) -> None:
    """Empty files, blank lines, CRLF, a byte order mark and a missing last line end are accepted."""
    found = await Account(output, b"").rows(requests=["a"], order=order)
    assert names(found) == [("success", "a") if b"custom_id" in output else ("missing", "a")]


async def test_lines_end_where_json_lines_do() -> None:
    """Lines end only where JSON lines do; U+2028 and similar characters are text."""
    text = "a\u2028b\u0085c\x0bd\re"
    account = Account(lines(answer("a", {"text": text})).replace(b"\\u000b", b"\\u000b"))
    (row,) = await account.rows()
    assert isinstance(row, BatchSuccess)
    assert row.text == text


async def test_a_very_long_row() -> None:
    """A row has no length limit of its own."""
    account = Account(lines(answer("a", {"text": "x" * 12_000_000}), answer("b")), size=1 << 16)
    rows = await account.rows()
    assert names(rows) == [("success", "a"), ("success", "b")]


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("order", ["file", "input"])
async def test_a_row_without_an_end(order: str, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line above the memory limit is a failure with its beginning and its id; the other rows are returned."""
    monkeypatch.setattr(result_lines, "LONGEST_LINE_BYTES", 2_000)
    account = Account(lines(answer("b"), answer("a", {"text": "x" * 3_000})).removesuffix(b"\n") + end)
    rows = await account.rows(requests=["a", "b"], order=order)
    assert sorted(names(rows)) == [("failure", "a"), ("success", "b")]
    (failure,) = [row for row in rows if isinstance(row, BatchFailure)]
    assert failure.message == "the line has more than 2 000 bytes; this is its beginning"
    assert failure.raw.startswith('{"id":"br_1","custom_id":"a"')


async def test_a_file_that_is_both_is_read_once() -> None:
    """A file that is both output and errors is read once; otherwise its rows would be strays of themselves."""
    account = Account(lines(answer("a")))
    account.job = BatchJob(id="job-1", status="COMPLETED", output_file_id="file-output", error_file_id="file-output")
    assert names(await account.rows()) == [("success", "a")]


async def test_rows_before_a_break_are_yielded() -> None:
    """The rows before a broken stream are yielded, and then its error is raised: it never ends silently."""
    account = Account(lines(answer("a"), answer("b")), size=len(answer("a")) + 1, breaks=1)
    stream = account.results(requests=["a", "b"])
    assert names([await anext(stream)]) == [("success", "a")]
    with pytest.raises(APIConnectionError):
        await anext(stream)


# --- one result for each request ----------------------------------------------------------------------------------


async def test_a_repeated_row_is_a_stray() -> None:
    """Only the first row of an id counts and the others are strays, without requests too."""
    again = refusal("a")
    rows = await Account(lines(answer("a")), lines(again)).rows()
    assert names(rows) == [("success", "a"), ("stray", "a")]
    assert rows[1] == BatchStray("a", "a row with this custom_id came before", again.decode())


async def test_a_foreign_row_is_a_stray() -> None:
    """A row of another job is a stray, each time it occurs."""
    rows = await Account(lines(answer("x"), answer("x"))).rows(requests=["a"])
    assert rows[0] == BatchStray("x", "its custom_id is not among the requests", answer("x").decode())
    assert names(rows) == [("stray", "x"), ("stray", "x"), ("missing", "a")]


@pytest.mark.parametrize("way", ["path", "text", "bytes", "file", "rows", "ids", "generator"])
async def test_requests_come_in_many_ways(way: str, tmp_path: Path) -> None:
    """Requests are accepted in several forms; missing ones are yielded last, in the order of the input."""
    content = lines(*[msgspec.json.encode({"custom_id": name, "body": {"model": "m"}}) for name in "cab"])
    file = tmp_path / "requests.jsonl"
    file.write_bytes(content)
    requests: Any = {
        "path": file,
        "text": str(file),
        "bytes": content,
        "file": io.BytesIO(content),
        "rows": [BatchRequest(name, {}) for name in "cab"],
        "ids": list("cab"),
        "generator": (BatchRequest(name, {}) for name in "cab"),
    }[way]
    rows = await Account(lines(answer("a"))).rows(requests=requests)
    assert names(rows) == [("success", "a"), ("missing", "c"), ("missing", "b")]


async def test_requests_are_not_read_from_a_pipe_by_its_name(tmp_path: Path) -> None:
    """A pipe is refused: opening it could wait for ever, and so would the end of the interpreter after a Ctrl-C."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=f"cannot read {pipe}: it is not a file"):
        await asyncio.wait_for(Account(lines(answer("a"))).rows(requests=pipe), 1)


async def test_requests_with_the_same_id() -> None:
    """Requests with the same id are refused, because their answers could not be assigned."""
    account = Account(lines(answer("a")))
    with pytest.raises(ValidationError, match="rows 1 and 3 have the same custom_id 'a', and 1 more") as caught:
        await account.rows(requests=["a", "b", "a", "b"])
    assert len(caught.value.problems) == 2
    assert account.requests == []


async def test_requests_that_are_none() -> None:
    """Invalid requests are reported before anything is sent."""
    account = Account()
    with pytest.raises(UsageError, match="requests are a path, bytes, a binary file, or an iterable, not int"):
        account.results(requests=7)
    with pytest.raises(UsageError, match="requests are BatchRequests or ids, not int"):
        await account.rows(requests=[7])
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        await account.rows(requests="nowhere.jsonl")
    assert account.requests == []


# --- unusual rows -------------------------------------------------------------------------------------------------

ODD_BODIES = {
    "half a pair": b'{"x": "\\ud83d"}',
    "beyond floats": b'{"x": 1e999, "y": -0.0}',
    "a long integer": b'{"x": 1234567890123456789012345678901234567890}',
    "deep": b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}",
    "too deep": b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "NaN": b'{"x": NaN}',
    "minus infinity": b'{"x": -Infinity}',
    "half a character": b'{"x": "\xf0\x9f\x98"}',
    "a raw control character": b'{"x": "\x01"}',
}
NO_JSON = {
    "a stray brace": b'{"x": }',
    "a bare quote": b'{"x": "a"b"}',
    "cut and glued": b'{"x": "a',
    "deep": b"[" * 9_999,
}


def row_with(custom_id: str, body: bytes) -> bytes:
    return b'{"custom_id": "%b", "response": {"status_code": 200, "body": %b}}' % (custom_id.encode(), body)


@in_both_orders
@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
async def test_an_odd_answer_is_an_answer(body: bytes, order: str) -> None:
    """An unusual response is in one bucket with the others; if no JSON library reads it, ``raw`` has its line."""
    line = row_with("b", body)
    rows = await Account(lines(answer("a"), line, answer("c"))).rows(requests=list("abc"), order=order)
    assert names(rows) == [("success", name) for name in "abc"]
    odd = rows[1]
    assert isinstance(odd, BatchSuccess)
    is_json = body in [*ODD_BODIES.values()][:4]
    assert odd.raw == ("" if is_json else line.decode("utf-8", "backslashreplace"))
    if body != ODD_BODIES["too deep"]:
        assert "x" in odd.body
    assert list(failed_requests([BatchRequest(name, {}) for name in "abc"], rows)) == []


@in_both_orders
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
async def test_a_line_that_cannot_be_read_is_of_the_row_that_it_names(body: bytes, order: str) -> None:
    """An unreadable line belongs to the row that it names: that was answered and paid for, and is not sent again."""
    line = row_with("b", body)
    rows = await Account(lines(answer("a"), line, answer("c"))).rows(requests=list("abc"), order=order)
    assert sorted(names(rows)) == [("failure", "b"), ("success", "a"), ("success", "c")]
    (failure,) = [row for row in rows if isinstance(row, BatchFailure)]
    assert failure == BatchFailure("b", None, "the line is invalid JSON", raw=line.decode())
    assert list(failed_requests([BatchRequest(name, {}) for name in "abc"], rows)) == []


@in_both_orders
@pytest.mark.parametrize("other", [answer("b"), refusal("b")], ids=["an answer", "an error"])
async def test_a_row_with_a_line_that_can_be_read_has_no_other(other: bytes, order: str) -> None:
    """An unreadable line is without an id if its row has a readable one, or belongs to another job."""
    broken = [row_with(name, NO_JSON["a stray brace"]) for name in "bx"]
    rows = await Account(lines(*broken), lines(answer("a"), other)).rows(requests=list("ab"), order=order)
    found = [("success", "a"), ("success" if b"response" in other else "failure", "b")]
    assert sorted(names(rows), key=str) == sorted([("failure", None)] * 2 + found, key=str)


@in_both_orders
async def test_a_second_line_that_cannot_be_read(order: str) -> None:
    """A second unreadable line of a row is without an id, because a row has only one."""
    account = Account(lines(*[row_with("a", NO_JSON["a stray brace"])] * 2))
    assert names(await account.rows(requests=["a"], order=order)) == [("failure", "a"), ("failure", None)]


@in_both_orders
@pytest.mark.parametrize(
    ("output", "errors"),
    [
        (lines(answer("a")), lines(refusal("a"))),
        (lines(refusal("a")), lines(answer("a"))),
        (lines(refusal("a"), answer("a")), b""),
        (lines(answer("a"), refusal("a")), b""),
    ],
    ids=["in two files", "the other way round", "after it", "before it"],
)
async def test_an_answer_beats_an_error(output: bytes, errors: bytes, order: str) -> None:
    """The success of a row takes precedence over its error, whatever their order; the error is a stray."""
    for options in ({}, {"requests": ["a"]}):
        if order == "input" and not options:
            continue
        rows = await Account(output, errors).rows(**options, order=order)
        assert names(rows) == [("success", "a"), ("stray", "a")]
        assert rows[1] == BatchStray("a", "a row with this custom_id came before", refusal("a").decode())


async def test_many_failures_wait_on_the_disk(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many failures are kept on the disk, and are yielded in the order in which they were read."""
    monkeypatch.setattr(row_store, "_PIECE_BYTES", 500)
    ids = [f"row-{number}" for number in range(100)]
    account = Account(lines(answer("first")), lines(*map(refusal, ids)), size=300)
    stream = account.results()
    assert names([await anext(stream)]) == [("success", "first")]
    assert names([await anext(stream)]) == [("failure", "row-0")]
    assert len(files_open_in(temporary)) == 1
    assert names([row async for row in stream]) == [("failure", name) for name in ids[1:]]
    assert files_open_in(temporary) == []


PAGE = b"<html>\n<body>Sorted out soon.</body>\n</html>\n"


@in_both_orders
@pytest.mark.parametrize("which", ["file-output", "file-errors"])
@pytest.mark.parametrize("page", [PAGE, b"[]\n", b"\x1f\x8b\x08\n", lines(answer("a")).decode().encode("utf-16")])
async def test_a_page_in_place_of_a_file(page: bytes, which: str, order: str) -> None:
    """If a page replaces a file, absent rows raise an error: reported as missing, they would be paid for again."""
    files = {"file-output": lines(answer("a")), "file-errors": lines(refusal("b")), which: page}
    account = Account(files["file-output"], files["file-errors"])
    with pytest.raises(ResultsUnavailableError, match=f"{which} has lines, and none is about a row") as caught:
        await account.rows(requests=list("abc"), order=order)
    assert caught.value.file_ids == (which,)


@in_both_orders
@pytest.mark.parametrize("requests", [["b"], None])
async def test_a_page_in_place_of_answers(requests: list[str] | None, order: str) -> None:
    """If a page replaces the output, it may hide answers, even if the error file has errors of all rows."""
    account = Account(PAGE, lines(refusal("b")))
    with pytest.raises(ResultsUnavailableError, match="file-output has lines"):
        await account.rows(requests=requests, **({} if requests is None else {"order": order}))


async def test_a_page_beside_a_whole_result() -> None:
    """A page beside a complete result is harmless, because no row is absent."""
    assert len(await Account(lines(answer("a")), PAGE).rows(requests=["a"])) == 1 + PAGE.count(b"\n")


# --- the job ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*[status for status in BatchJobStatus if not status.is_terminal], "PAUSED", None])
async def test_a_job_that_is_not_finished(status: str | None) -> None:
    """A job that has not finished is misuse, and the message names its status."""
    account = Account(lines(answer("a")))
    account.job = BatchJob(id="job-1", status=status)
    with pytest.raises(UsageError, match=f"job job-1 is {status or 'of no status'} and has no results yet: wait"):
        await account.rows()


async def test_a_job_is_read_anew_unless_it_has_finished() -> None:
    """A job that was passed in is read again unless it has finished, because a finished one does not change."""
    account = Account(lines(answer("a")))
    assert len(await account.rows(BatchJob(id="job-1", status="IN_PROGRESS"))) == 1
    assert account.requests.count("job job-1") == 1
    assert len(await account.rows(account.job)) == 1
    assert account.requests.count("job job-1") == 1


async def test_invalid_arguments_are_reported_at_once() -> None:
    """Invalid arguments are reported before the iteration begins."""
    account = Account()
    with pytest.raises(UsageError, match="a job id is empty"):
        account.results(" ")
    with pytest.raises(UsageError, match="order is 'file' or 'input'; it is 'output'"):
        account.results(order="output")
    with pytest.raises(UsageError, match="order='input' needs the input"):
        account.results(order="input")


# --- absence ------------------------------------------------------------------------------------------------------

ABC = lines(answer("a"), answer("b"), answer("c"))


async def read_all(account: Account, job: str | BatchJob = "job-1", **options: Any) -> list[tuple[str, str | None]]:
    """Return the rows before the final error, and the class of that error."""
    found: list[tuple[str, str | None]] = []
    try:
        async for row in account.results(job, **options):
            found += names([row])
    except BatchesError as error:
        found.append((type(error).__name__, None))
    return found


async def test_a_whole_result_costs_no_further_request() -> None:
    """A complete result costs no further request, even if the last line has no end: no row is absent."""
    for output in (ABC, ABC[:-1]):
        for options in ({"requests": list("abcx")}, {"requests": list("abcx"), "order": "input"}):
            account = Account(output, lines(refusal("x"))[:-1], metadata={"file-output": 10_000})
            assert len(await account.rows(**options)) == 4
            assert account.requests == ["job job-1", "content file-output", "content file-errors"]
            assert account.slept == []


async def test_a_finished_job_that_is_passed_in_is_not_read() -> None:
    """A finished job that is passed in is not read again, because it has the ids of its files."""
    account = Account(ABC)
    assert len(await account.rows(account.job, requests=list("abc"))) == 3
    assert account.requests == ["content file-output"]


@in_both_orders
@pytest.mark.parametrize("passed", [False, True])
async def test_a_completed_job_whose_files_are_late(order: Order, passed: bool) -> None:
    """A completed job is read until it names a file; an unfinished status afterwards is outdated, and is ignored."""
    bare, early = BatchJob(id="job-1", status="COMPLETED"), BatchJob(id="job-1", status="IN_PROGRESS")
    account = Account(ABC, shown={"job": [bare, bare, early]})
    assert len(await account.rows(bare if passed else "job-1", requests=list("abc"), order=order)) == 3
    assert account.slept == BACK_OFF[:3]
    assert account.requests == ["job job-1"] * 4 + ["content file-output"]


@pytest.mark.parametrize(("patience", "slept"), [(60, BACK_OFF), (2.5, [1, 1.5]), (0, [])])
async def test_a_completed_job_that_never_names_a_file(patience: float, slept: list[float]) -> None:
    """A completed job that never names a file is an error, because the state of its rows is unknown."""
    account = Account()
    for job in ("job-1", account.job):
        account.slept.clear()
        with pytest.raises(ResultsUnavailableError, match="job job-1 is COMPLETED and names no file") as caught:
            await account.rows(job, requests=list("abc"), patience=patience)
        assert (caught.value.job_id, caught.value.file_ids) == ("job-1", ())
        assert slept == account.slept
    assert account.requests == ["job job-1"] * 2 * (len(slept) + 1)


@in_both_orders
@pytest.mark.parametrize("which", ["file-output", "file-errors"])
async def test_a_content_that_is_absent_for_a_while(which: str, order: Order) -> None:
    """Content that is absent for a while is requested again, and each row is yielded once."""
    account = Account(lines(answer("a")), lines(refusal("b")), shown={which: [gone(), gone()]})
    assert await read_all(account, requests=["a", "b"], order=order) == [("success", "a"), ("failure", "b")]
    assert account.slept == BACK_OFF[:2]
    assert account.requests.count(f"content {which}") == 3
    assert account.open == 0


@pytest.mark.parametrize(("patience", "slept"), [(60, BACK_OFF), (0, [])])
async def test_a_content_that_stays_absent(patience: float, slept: list[float]) -> None:
    """If content stays absent, the rows before it are yielded, then an error names job and file; none is missing."""
    account = Account(lines(answer("a")), b"", shown={"file-errors": [gone()] * 9})
    stream = account.results(requests=["a", "b"], patience=patience)
    assert names([await anext(stream)]) == [("success", "a")]
    with pytest.raises(ResultsUnavailableError, match="results of job job-1 in file-errors are absent") as caught:
        await anext(stream)
    assert (caught.value.job_id, caught.value.file_ids) == ("job-1", ("file-errors",))
    assert ("absent for 60 s" in str(caught.value)) == (patience == 60)
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert slept == account.slept
    assert account.open == 0


async def test_an_outage_is_no_absence() -> None:
    """An outage is not an absence: the client retries it, and its final error is raised regardless of patience."""
    account = Account(lines(answer("a")), shown={"file-output": [InternalServerError("in trouble", status=503)]})
    with pytest.raises(InternalServerError):
        await account.rows()
    assert account.slept == []


CUTS = {
    "within a line": len(ABC) - 10,
    "before the end of the last line": len(ABC) - 1,
    "at the end of a line": len(lines(answer("a"))),
    "at the end of a line, without it": len(answer("a")),
    "at the beginning": 0,
}


@in_both_orders
@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_file_that_is_cut_is_read_on(cut: int, size: int, order: Order) -> None:
    """A truncated file is read on from its end, and each row is yielded once, wherever the cut was."""
    shown = {"file-output": [ABC[:cut], ABC[:cut]]}
    account = Account(ABC, lines(refusal("d")), size=size, shown=shown, metadata={"file-output": len(ABC)})
    rows = await read_all(account, requests=list("abcd"), order=order)
    assert sorted(rows) == [("failure", "d"), *[("success", name) for name in "abc"]]
    whole = cut == len(ABC) - 1
    assert account.slept == ([] if whole else BACK_OFF[:2])
    assert account.requests.count("content file-output") == (1 if whole else 3)
    assert account.open == 0


@in_both_orders
async def test_a_file_that_grows(order: Order) -> None:
    """Patience restarts with each byte that arrives, because it is meant for files that do not grow."""
    grown = [ABC[:size] for size in range(0, len(ABC), 20)]
    account = Account(ABC, shown={"file-output": grown}, metadata={"file-output": len(ABC)})
    rows = await read_all(account, requests=list("abc"), order=order, patience=1)
    assert rows == [("success", name) for name in "abc"]
    assert set(account.slept) == {1}
    assert len(account.slept) >= len(grown) - 1


@pytest.mark.parametrize(("patience", "slept"), [(60, BACK_OFF), (0, [])])
async def test_a_file_that_stays_cut(patience: float, slept: list[float]) -> None:
    """A file that stays truncated raises an error that names it, after its rows; absent rows are not missing."""
    account = Account(lines(answer("a")), lines(refusal("b")), metadata={"file-output": 1_000, "file-errors": 0})
    stream = account.results(requests=list("abc"), patience=patience)
    assert names([await anext(stream)]) == [("success", "a")]  # an answer to b may still come
    with pytest.raises(ResultsUnavailableError, match=r"job-1 are not whole: file-output has \d+ bytes") as caught:
        await anext(stream)
    assert (caught.value.job_id, caught.value.file_ids) == ("job-1", ("file-output",))
    assert slept == account.slept
    assert account.requests.count("content file-output") == len(slept) + 1


@in_both_orders
@pytest.mark.parametrize(
    "metadata",
    [
        None,
        0,
        -1,
        1,
        len(lines(answer("a"))),
        gone(),
        PermissionDeniedError("no", status=403),
        APIResponseValidationError("text instead of a whole number", expected="a file"),
    ],
    ids=["none", "zero", "negative", "smaller", "equal", "404", "403", "unreadable"],
)
async def test_metadata_that_says_nothing(metadata: Any, order: Order) -> None:
    """If the metadata has no size, zero or a smaller one, the file is complete and absent rows are missing."""
    account = Account(lines(answer("a")), metadata={"file-output": metadata})
    rows = await read_all(account, requests=["a", "b"], order=order)
    assert rows == [("success", "a"), ("missing", "b")]
    assert account.slept == []
    assert account.requests == [
        "job job-1",
        "content file-output",
        "job job-1",
        "metadata file-output",
    ]


async def test_metadata_that_cannot_be_had() -> None:
    """If the metadata cannot be read, no row is reported as missing, because more may follow."""
    account = Account(lines(answer("a")), metadata={"file-output": InternalServerError("in trouble", status=503)})
    assert await read_all(account, requests=["a", "b"]) == [("success", "a"), ("InternalServerError", None)]


@pytest.mark.parametrize("cut", [len(ABC) - 10, ABC.index(b"\n") + 1], ids=["within a line", "at the end of a line"])
async def test_without_requests_a_file_that_is_cut_is_read_on(cut: int) -> None:
    """Without requests, absent rows are unknown, so the size in the output's metadata shows if it is truncated."""
    shown = {"file-output": [ABC[:cut]]}
    account = Account(ABC, lines(refusal("d")), shown=shown, metadata={"file-output": len(ABC)})
    assert sorted(names(await account.rows())) == [("failure", "d"), *[("success", name) for name in "abc"]]
    assert account.requests.count("metadata file-output") == 1
    assert "metadata file-errors" not in account.requests


async def test_without_requests_a_whole_result_costs_one_further_request() -> None:
    """Without requests, a complete result costs one read of metadata: of the output, else of the errors.

    Metadata without a size causes no wait.
    """
    for size in (None, 0, len(ABC), gone()):
        account = Account(ABC, lines(refusal("d")), metadata={"file-output": size})
        assert len(await account.rows()) == 4
        assert account.requests == ["job job-1", "content file-output", "content file-errors", "metadata file-output"]
        assert account.slept == []
    account = Account(None, lines(refusal("d")))
    assert names(await account.rows()) == [("failure", "d")]
    assert account.requests == ["job job-1", "content file-errors", "metadata file-errors"]


async def test_without_requests_a_file_that_stays_cut() -> None:
    """Without requests, a file that stays truncated is an error after its rows."""
    account = Account(lines(answer("a")), metadata={"file-output": 1_000})
    assert await read_all(account) == [("success", "a"), ("ResultsUnavailableError", None)]
    assert account.slept == BACK_OFF


async def test_a_line_that_is_cut_for_good() -> None:
    """A truncated last line is a failure without an id, with its text, if nothing indicates that more follows."""
    account = Account(ABC[:-10])
    rows = await account.rows(requests=list("abc"))
    assert names(rows) == [("success", "a"), ("success", "b"), ("failure", None), ("missing", "c")]


@in_both_orders
@pytest.mark.parametrize("passed", [False, True])
async def test_a_file_whose_id_is_late(passed: bool, order: Order) -> None:
    """If rows are absent, the job is read once more, because it may name one file later than the other."""
    account = Account(ABC, lines(refusal("d")))
    early = attrs.evolve(account.job, output_file_id=None)
    account.shown = {"job": [] if passed else [early]}
    rows = await read_all(account, early if passed else "job-1", requests=list("abcd"), order=order)
    assert sorted(rows) == [("failure", "d"), *[("success", name) for name in "abc"]]
    assert account.requests.count("content file-errors") == 1


@pytest.mark.parametrize("error", [gone(), PermissionDeniedError("no", status=403)])
async def test_a_job_that_is_gone_when_rows_are_left_out(error: BatchesError) -> None:
    """If that read of the job fails, the result stands, because the failure says nothing about files."""
    account = Account(lines(answer("a")))
    account.shown = {"job": [error]}
    assert await read_all(account, account.job, requests=["a", "b"]) == [("success", "a"), ("missing", "b")]


@in_both_orders
async def test_a_file_that_changed_while_it_was_read(order: Order) -> None:
    """A file that changes while it is read is an error: rows of two versions are never mixed."""
    other = lines(answer("x"), answer("b"), answer("c"))
    shown = {"file-output": [ABC[:40]]}
    account = Account(other, shown=shown, metadata={"file-output": len(ABC)})
    with pytest.raises(
        ResultsUnavailableError, match="file file-output of job job-1 changed while it was read"
    ) as caught:
        await account.rows(requests=list("abc"), order=order)
    assert (caught.value.job_id, caught.value.file_ids) == ("job-1", ("file-output",))
    assert account.open == 0


async def test_a_file_that_shrank_while_it_was_read() -> None:
    """A file that shrinks while it is read is still truncated, and the rows that were read remain."""
    shown = {"file-output": [ABC[:60], ABC[:20], ABC[:30]]}
    account = Account(ABC, shown=shown, metadata={"file-output": len(ABC)})
    assert await read_all(account, requests=list("abc")) == [("success", name) for name in "abc"]


@settings(deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(ABC)), max_size=6).map(sorted),
    size=st.integers(1, 200),
    order=st.sampled_from(ORDERS),
)
def test_however_a_file_grows_each_row_comes_once(cuts: list[int], size: int, order: Order) -> None:
    """However a file grows, each row is yielded once, whatever the reads return and in whatever chunks."""
    shown = {"file-output": [ABC[:cut] for cut in cuts]}
    account = Account(ABC, size=size, shown=shown, metadata={"file-output": len(ABC)})
    rows = asyncio.run(read_all(account, requests=list("abc"), order=order))
    assert rows == [("success", name) for name in "abc"]


# --- the order of the input ---------------------------------------------------------------------------------------


async def test_in_the_order_of_the_input() -> None:
    """In input order, missing rows are at their place; rows outside the input follow in the order of the files."""
    output = lines(answer("c"), b"broken", answer("x"), answer("a"), answer("a"))
    account = Account(output, lines(refusal("b")))
    rows = await account.rows(requests=list("abdc"), order="input")
    expected = [("success", "a"), ("failure", "b"), ("missing", "d"), ("success", "c")]
    assert names(rows) == [*expected, ("failure", None), ("stray", "x"), ("stray", "a")]
    assert Counter(rows) == Counter(await account.rows(requests=list("abdc")))


async def test_many_rows_in_the_order_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the input is kept for chunks of many rows and rows of many chunks."""
    monkeypatch.setattr(row_store, "_PIECE_BYTES", 1_000)
    monkeypatch.setattr(row_store, "_PIECE_ROWS", 7)
    ids = [f"row-{number}" for number in range(500)]
    rows = [answer(name, {"text": name * (300 if name.endswith("77") else 1)}) for name in reversed(ids)]
    found = await Account(lines(*rows), size=900).rows(requests=ids, order="input")
    assert [row.text for row in found if isinstance(row, BatchSuccess)] == [
        name * (300 if name.endswith("77") else 1) for name in ids
    ]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files_open_in(directory: Path) -> list[str]:
    """Return the files of this process in a directory, including those without a name."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return [name for name in found if name.startswith(str(directory))]


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


@pytest.mark.parametrize("end", ["end", "left", "broken", "cancelled", "cancelled twice", "dropped"])
async def test_nothing_is_left_on_the_disk(end: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary file remains, however the iteration ends."""
    monkeypatch.setattr(row_store, "_PIECE_BYTES", 100)
    account = Account(lines(*[answer(name) for name in "abc"]), size=50, breaks=3 if end == "broken" else None)
    stream = account.results(requests=list("abc"), order="input")
    if end == "broken":
        with pytest.raises(APIConnectionError):
            await anext(stream)
    elif end.startswith("cancelled"):
        waiting = asyncio.Event()

        async def content(file_id: str) -> AsyncGenerator[bytes, None]:
            yield lines(answer("a")) * 2 * (1_000_000 // len(answer("a")))
            waiting.set()
            await asyncio.Event().wait()

        api = attrs.evolve(account.api, content=lambda file_id: Stream(content(file_id)))
        stream = results(api, "job-1", requests=["a"], order="input")
        task = asyncio.ensure_future(anext(stream))
        await waiting.wait()
        assert len(files_open_in(temporary)) == 1
        task.cancel()
        if end == "cancelled twice":
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert names([await anext(stream)]) == [("success", "a")]
        assert len(files_open_in(temporary)) == 1
        if end == "end":
            assert len([row async for row in stream]) == 2
        elif end == "left":
            await stream.aclose()
        else:
            del stream
            gc.collect()
            async with asyncio.timeout(10):
                while files_open_in(temporary):  # noqa: ASYNC110  # the loop closes it without a notification
                    await asyncio.sleep(0)
    assert files_open_in(temporary) == []
    assert files_in(temporary) == []
    assert account.open == 0


@in_both_orders
async def test_a_disk_that_is_full(order: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk raises an error that says what to do."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(row_store, "_PIECE_BYTES", 10)
    account = Account(lines(answer("a")), lines(refusal("b")))
    with pytest.raises(UsageError, match=f"cannot be kept in {temporary}: No space left on device; name another"):
        await account.rows(requests=["a", "b"], order=order)


async def test_few_rows_need_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of less than a megabyte are held in memory until they are returned."""
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    account = Account(lines(answer("b")), lines(refusal("a")))
    assert names(await account.rows(requests=["a", "b"], order="input")) == [("failure", "a"), ("success", "b")]


# --- the event loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["file", "input"])
async def test_others_get_their_turn(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks run between rows once a time slice is used up, even if all rows are ready."""
    monkeypatch.setattr(_results, "_SECONDS_BETWEEN_PAUSES", 0)
    monkeypatch.setattr(row_store, "_PIECE_ROWS", 1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    account = Account(lines(*[answer(str(number)) for number in range(50)]), size=1 << 20)
    assert len(await account.rows(requests=[str(number) for number in range(100)], order=order)) == 100
    assert turns >= 100
    task.cancel()


async def test_leaving_stops_the_download() -> None:
    """Leaving the iteration closes the download behind it."""
    account = Account(lines(answer("a"), answer("b")))
    stream = account.results()
    assert names([await anext(stream)]) == [("success", "a")]
    assert account.open == 1
    await stream.aclose()
    assert account.open == 0


# --- every row in one bucket --------------------------------------------------------------------------------------

IDS = st.text(alphabet="abcdé\u2028", min_size=1, max_size=3)
LINES = st.one_of(
    IDS.map(answer),
    IDS.map(refusal),
    IDS.map(lambda name: answer(name, {"error": "x"}, 500)),
    st.sampled_from([b"", b"{", b"[]", b"\xff", b" \r", b'{"error": 1}']),
)


@settings(deadline=None)
@given(
    requests=st.lists(IDS, unique=True, max_size=8),
    output=st.none() | st.lists(LINES, max_size=8).map(b"\n".join),
    errors=st.none() | st.lists(LINES, max_size=8).map(b"\n".join),
    status=st.sampled_from(TERMINAL),
    size=st.integers(1, 100),
)
def test_every_row_is_in_one_bucket(
    requests: list[str], output: bytes | None, errors: bytes | None, status: str, size: int
) -> None:
    """For every final state of a job, each request has one result and every line of the files is yielded."""
    # A completed job without files is a matter of patience, and not of rows.
    output = b"" if output is None and errors is None and status == "COMPLETED" else output
    account = Account(output, errors, status=status, size=size)

    async def run() -> tuple[list[BatchResult], list[BatchResult]]:
        return await account.rows(requests=requests), await account.rows(requests=requests, order="input")

    try:
        by_file, by_input = asyncio.run(run())
    except ResultsUnavailableError:
        assert _is_page(output, at_errors=False) or _is_page(errors, at_errors=True)
        return
    for rows in (by_file, by_input):
        _account_for_all(rows, requests, (output or b"").split(b"\n") + (errors or b"").split(b"\n"))
    assert Counter(by_file) == Counter(by_input)
    assert requests == [row.custom_id for row in by_input if not isinstance(row, BatchStray)][: len(requests)]


def _is_page(file: bytes | None, *, at_errors: bool) -> bool:
    """Return if a file has lines and none of them is about a row."""
    lines = [line for line in (file or b"").split(b"\n") if line.strip()]
    return bool(lines) and not any(b"custom_id" in line or (at_errors and b"error" in line) for line in lines)


def _account_for_all(rows: Sequence[BatchResult], requests: list[str], lines: list[bytes]) -> None:
    buckets = Counter(row.custom_id for row in rows if not isinstance(row, BatchStray) and row.custom_id is not None)
    assert buckets == Counter(requests)
    assert sum(bool(line.strip()) for line in lines) == sum(not isinstance(row, BatchMissing) for row in rows)


# --- the rows to send again ---------------------------------------------------------------------------------------

REQUESTS = [BatchRequest(name, {"model": "m", "n": number}) for number, name in enumerate("abcd")]


def test_failed_and_missing_requests_are_sent_again() -> None:
    """Failed and missing requests are sent again in the order of the input, not of the results."""
    rows = [BatchMissing("d"), BatchSuccess("a", {}), BatchFailure("b", None, "x"), BatchSuccess("c", {})]
    assert list(failed_requests(REQUESTS, rows)) == [REQUESTS[1], REQUESTS[3]]


def test_a_request_is_sent_again_once() -> None:
    """A request is sent again once, however often it failed; strays and lines without an id are ignored."""
    rows = [
        BatchFailure("b", None, "x"),
        BatchMissing("b"),
        BatchStray("a", "came before"),
        BatchFailure(None, None, "x"),
    ]
    assert list(failed_requests([*REQUESTS, *REQUESTS], rows)) == [REQUESTS[1]]


def test_what_was_answered_is_not_sent_again() -> None:
    """A request that any of several jobs answered is not sent again, because it would be paid for twice."""
    assert list(failed_requests(REQUESTS, [BatchFailure("b", None, "x"), BatchSuccess("b", {})])) == []


@pytest.mark.parametrize(
    ("line", "is_sent"),
    [
        (refusal("b"), True),
        (answer("b", {"error": "x"}, 500), True),
        (answer("b", "text"), False),
        (answer("b", 7), False),
        (b'{"custom_id":"b"}', False),
    ],
)
def test_a_row_is_sent_again_on_evidence(line: bytes, is_sent: bool) -> None:
    """A row is sent again only after an explicit error; any other line may be a paid answer."""
    assert list(failed_requests(REQUESTS, [read_row(line)])) == [REQUESTS[1]] * is_sent


def test_a_request_is_sent_again_as_it_was_written() -> None:
    """The body of a request is sent again byte for byte."""
    line = b'{"custom_id":"a","body":{"model": "m",\t"x": 1.50, "y": 12345678901234567890123, "z": "\\u00e9"}}\n'
    (request,) = failed_requests(line, [BatchMissing("a")])
    assert jsonl.encode(request) == line


def test_requests_to_send_again_may_be_in_a_file(tmp_path: Path) -> None:
    """Requests to send again may be in a file: a path, or its bytes."""
    content = lines(*[msgspec.json.encode({"custom_id": row.custom_id, "body": row.body}) for row in REQUESTS])
    file = tmp_path / "requests.jsonl"
    file.write_bytes(content)
    for requests in (file, str(file), content):
        assert list(failed_requests(requests, [BatchMissing("c")])) == [REQUESTS[2]]


def test_a_file_of_requests_that_is_none(tmp_path: Path) -> None:
    """An invalid file of requests raises an error that names it."""
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        list(failed_requests(tmp_path / "nowhere.jsonl", [BatchMissing("a")]))
