"""Unusual responses: each id ends in the right bucket with one clear sentence, and the key is never revealed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from aiohttp.abc import AbstractResolver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wires import AT_ONCE, KEY, ONCE, RawServer, clocked, http, in_virtual_time, job, shown_text

from together_batches import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncBatches,
    AuthenticationError,
    BadRequestError,
    Batches,
    BatchesError,
    CancelResult,
    ConflictError,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Timeout,
    UnprocessableEntityError,
)
from together_batches.config import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from wires import Reply

SAMPLES = Path(__file__).parent / "samples"

CANCELLED = CancelResult.CANCELLED
CANCELING = CancelResult.CANCELING
FINISHED = CancelResult.ALREADY_FINISHED
NOT_FOUND = CancelResult.NOT_FOUND
DENIED = CancelResult.DENIED
FAILED = CancelResult.FAILED

HTML_1010 = b"<html><head><title>Access denied | api used Cloudflare</title></head><body>1010</body></html>"
HTML_502 = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502</h1></body>\r\n</html>"
HTML = {"Content-Type": "text/html; charset=UTF-8"}
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
JOB = msgspec.json.encode(job())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that is logged meanwhile, at debug level, by this package, aiohttp and asyncio."""
    caplog.set_level(logging.DEBUG)
    for name in ("together_batches", "aiohttp", "aiohttp.client", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield lambda: "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records)
    assert KEY not in caplog.text


def client_of(base_url: str, **options: Any) -> AsyncBatches:
    """A client that retries without pauses and has short timeouts."""
    return clocked(base_url, **{"retry": AT_ONCE, "timeout": Timeout(read=1, total=3), **options})


# --- each response to a cancel: bucket, error, attempts -------------------------------------------------------

GOOD: list[tuple[str, Reply, CancelResult]] = [
    ("canceling", http(200, job()), CANCELING),
    ("cancelled", http(200, job(status="CANCELLED")), CANCELLED),
    ("201", http(201, job()), CANCELING),
    ("still in progress", http(200, job(status="IN_PROGRESS")), CANCELING),
    ("still validating", http(200, job(status="VALIDATING")), CANCELING),
    ("two Ls", http(200, job(status="CANCELLING")), CANCELING),
    ("an unknown status", http(200, job(status="PAUSED")), CANCELING),
    ("no status", http(200, {"id": "job-1"}), CANCELING),
    ("completed", http(200, job(status="COMPLETED")), FINISHED),
    ("failed", http(200, job(status="FAILED", error="why [not]")), FINISHED),
    ("expired", http(200, job(status="EXPIRED")), FINISHED),
    (
        "nulls",
        http(200, job(status="CANCELLED", completed_at=None, output_file_id=None, error_file_id="")),
        CANCELLED,
    ),
    ("zero time", http(200, job(status="CANCELLED", completed_at="0001-01-01T00:00:00Z")), CANCELLED),
    ("unknown fields", http(200, job(project_id="p", request_count=0, nested={"a": [1]})), CANCELING),
    ("no content type", http(200, JOB, headers={"Content-Type": ""}), CANCELING),
    ("called text", http(200, JOB, headers={"Content-Type": "text/plain"}), CANCELING),
    ("wrapped job", http(200, {"job": job()}), CANCELING),
    ("id in another case", http(200, job("JOB-1")), CANCELING),
    ("white space", http(200, b"\r\n  " + JOB + b"\n\n"), CANCELING),
    ("unknown coding", http(200, JOB, headers={"Content-Encoding": "rot13"}), CANCELING),
    ("gzip", http(200, gzip.compress(JOB), headers={"Content-Encoding": "gzip"}), CANCELING),
    ("chunks", CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(JOB), JOB), CANCELING),
    ("HTTP 1.0, no length", b"HTTP/1.0 200 OK\r\n\r\n" + JOB, CANCELING),
    ("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, job()), CANCELING),
    ("103 first", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http(200, job()), CANCELING),
    ("in single bytes", tuple(bytes([byte]) for byte in http(200, job())), CANCELING),
]


@pytest.mark.parametrize(("reply", "result"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good_answers(reply: Reply, result: CancelResult) -> None:
    """The job's state in a 2xx decides, in any form of body; one request, no error."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(reply) as server, client_of(server.base_url) as batches:
            report = await batches.cancel_many(["job-1"])
            outcome = report["job-1"]
            assert (outcome.result, outcome.error, outcome.attempts) == (result, None, 1)
            assert outcome.job is not None
            assert outcome.job.id.lower() == "job-1"
            assert outcome.accepted
            assert server.lines == ["POST /v1/batches/job-1/cancel"]

    run()


NO_ANSWER = APIResponseValidationError
BAD: list[tuple[str, Reply, CancelResult, type[BatchesError], int, str]] = [
    ("400", http(400, {"error": "bad"}), FAILED, BadRequestError, 1, "bad"),
    ("401 text", http(401, {"error": "Unauthorized"}), DENIED, AuthenticationError, 1, "Unauthorized"),
    (
        "401 object",
        http(401, {"error": {"message": "Invalid API key provided", "type": "invalid_request_error", "param": None}}),
        DENIED,
        AuthenticationError,
        1,
        "Invalid API key provided",
    ),
    ("402", http(402, {"error": {"message": "pay", "code": None}}), FAILED, APIStatusError, 1, "pay"),
    ("403", http(403, {"error": "forbidden"}), DENIED, PermissionDeniedError, 1, "forbidden"),
    ("403 page", http(403, HTML_1010, headers=HTML), DENIED, PermissionDeniedError, 1, "Access denied"),
    ("403 text", http(403, "error code: 1010"), DENIED, PermissionDeniedError, 1, "error code: 1010"),
    ("404", http(404, {"error": "Job not found", "request_id": "oJ3x"}), NOT_FOUND, NotFoundError, 1, "oJ3x"),
    (
        "404 object",
        http(404, {"error": {"message": "gone", "type": "not_found"}}),
        NOT_FOUND,
        NotFoundError,
        1,
        "gone",
    ),
    ("404 page", http(404, b"<h1>nothing here</h1>", headers=HTML), NOT_FOUND, NotFoundError, 1, "nothing here"),
    ("404 empty", http(404), NOT_FOUND, NotFoundError, 1, "Not Found"),
    ("429", http(429, {"error": "too many requests"}), FAILED, RateLimitError, 5, "given up after 5 attempts"),
    (
        "429 object",
        http(429, {"error": {"message": "slow", "type": "rate_limit"}, "error_type": "dynamic_request_limited"}),
        FAILED,
        RateLimitError,
        5,
        "slow",
    ),
    ("500", http(500, {"error": "internal error"}), FAILED, InternalServerError, 5, "internal error"),
    ("500 empty", http(500), FAILED, InternalServerError, 5, "Internal Server Error"),
    (
        "500 RPC",
        http(500, {"code": 13, "message": "m", "details": [{"detail": "d"}]}),
        FAILED,
        InternalServerError,
        5,
        "m; d",
    ),
    ("500 null", http(500, None), FAILED, InternalServerError, 5, "Internal Server Error"),
    ("500 list", http(500, [1]), FAILED, InternalServerError, 5, "Internal Server Error"),
    ("500 binary", http(500, b"\xff\xfe\x00"), FAILED, InternalServerError, 5, "500"),
    ("502 page", http(502, HTML_502, headers=HTML), FAILED, InternalServerError, 5, "502 Bad Gateway"),
    ("503 page", http(503, b"<html>busy</html>", headers=HTML), FAILED, InternalServerError, 5, "busy"),
    (
        "524 page",
        http(524, b"<title>A timeout occurred</title>"),
        FAILED,
        InternalServerError,
        5,
        "A timeout occurred",
    ),
    ("999", http(999), FAILED, InternalServerError, 1, "no reason given"),
    (
        "XML",
        http(500, b"<?xml version='1.0'?><Error><Code>Slow</Code></Error>"),
        FAILED,
        InternalServerError,
        5,
        "Slow",
    ),
    ("another job", http(200, job("job-2")), FAILED, NO_ANSWER, 1, "it is about job 'job-2'"),
    ("no id", http(200, {"status": "CANCELLED"}), FAILED, NO_ANSWER, 1, "no id"),
    ("empty id", http(200, {"id": "", "status": "CANCELLED"}), FAILED, NO_ANSWER, 1, "no id"),
    ("null id", http(200, {"id": None}), FAILED, NO_ANSWER, 1, "no id"),
    ("number for an id", http(200, {"id": 1}), FAILED, NO_ANSWER, 1, "$.id"),
    ("200 error", http(200, {"error": "internal error"}), FAILED, NO_ANSWER, 1, "no id"),
    ("204", http(204), FAILED, NO_ANSWER, 1, "an empty body"),
    ("200 empty", http(200), FAILED, NO_ANSWER, 1, "an empty body"),
    ("200 null", http(200, None), FAILED, NO_ANSWER, 1, "null"),
    ("200 list", http(200, []), FAILED, NO_ANSWER, 1, "a list"),
    ("200 text", http(200, "OK"), FAILED, NO_ANSWER, 1, "invalid JSON"),
    ("200 page", http(200, HTML_502, headers=HTML), FAILED, NO_ANSWER, 1, "invalid JSON"),
    ("200 broken", http(200, JOB[:-1]), FAILED, NO_ANSWER, 1, "invalid JSON"),
    ("200 two values", http(200, JOB + JOB), FAILED, NO_ANSWER, 1, "invalid JSON"),
    ("200 not UTF-8", http(200, b'{"id": "\xff"}'), FAILED, NO_ANSWER, 1, "it is about job"),
    ("304", http(304), FAILED, NO_ANSWER, 1, "304"),
    (
        "101",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        FAILED,
        NO_ANSWER,
        1,
        "101",
    ),
    ("cut", http(200, JOB, length=500), FAILED, APIConnectionError, 5, "broke off"),
    ("cut error", http(404, JOB, length=500), FAILED, APIConnectionError, 5, "broke off"),
    ("cut chunk", CHUNKED + b"50\r\n{", FAILED, APIConnectionError, 5, "broke off"),
    ("no last chunk", CHUNKED + b"%x\r\n%s\r\n" % (len(JOB), JOB), FAILED, APIConnectionError, 5, "broke off"),
    ("bad chunk", CHUNKED + b"ZZ\r\n{}\r\n", FAILED, APIConnectionError, 5, "is not HTTP"),
    # aiohttp's reader is not woken by what its parser rejects in the middle of a body; our timeout ends the wait.
    ("late bad chunk", (CHUNKED, 0.1, b"ZZ\r\n{}\r\n"), FAILED, APITimeoutError, 5, "no data came"),
    ("no gzip", http(200, JOB, headers={"Content-Encoding": "gzip"}), FAILED, APIConnectionError, 5, "broke off"),
    ("closed", b"", FAILED, APIConnectionError, 5, "closed the connection without an answer"),
    ("closed unread", ("unread",), FAILED, APIConnectionError, 5, "127.0.0.1"),
    ("reset", ("reset",), FAILED, APIConnectionError, 5, "127.0.0.1"),
    ("reset unread", ("unread", "reset"), FAILED, APIConnectionError, 5, "127.0.0.1"),
    ("100 and no more", b"HTTP/1.1 100 Continue\r\n\r\n", FAILED, APIConnectionError, 5, "without an answer"),
    ("half a status", b"HTTP/1.1 20", FAILED, APIConnectionError, 5, "127.0.0.1"),
    ("half headers", b"HTTP/1.1 200 OK\r\nContent-Ty", FAILED, APIConnectionError, 5, "without an answer"),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n", FAILED, APIConnectionError, 5, "is not HTTP: Bad status line"),
    ("binary", b"\x00\x01\xff\xfe\r\n\r\n", FAILED, APIConnectionError, 5, "is not HTTP"),
    ("just JSON", JOB, FAILED, APIConnectionError, 5, "is not HTTP"),
    ("HTTP 2", b"HTTP/2 200 OK\r\n\r\n" + JOB, FAILED, APIConnectionError, 5, "is not HTTP"),
    ("status 1000", b"HTTP/1.1 1000 OK\r\n\r\n", FAILED, APIConnectionError, 5, "is not HTTP"),
    ("odd length", http(200, headers={"Content-Length": "many"}), FAILED, APIConnectionError, 5, "is not HTTP"),
    (
        "two lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        FAILED,
        APIConnectionError,
        5,
        "is not HTTP",
    ),
    (
        "endless header",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        FAILED,
        APIConnectionError,
        1,
        "has a header of more than 64 KB",
    ),
    ("NUL in a header", b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", FAILED, APIConnectionError, 5, "is not HTTP"),
    ("silence", (asyncio.Event(),), FAILED, APITimeoutError, 5, "no data came from 127.0.0.1"),
    ("silence half way", (http(200, JOB)[:-5], asyncio.Event()), FAILED, APITimeoutError, 5, "no data came"),
]


def error_is_looked_up(error: BatchesError | None) -> bool:
    """Return if an error is a refusal or leaves open if the cancel was accepted."""
    if isinstance(error, APIStatusError):
        return error.status in {400, 402, 408} or not 400 <= error.status < 500
    if isinstance(error, APIConnectionError):
        return error.request_sent and error.is_transient
    return isinstance(error, NO_ANSWER)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("reply", "result", "kind", "attempts", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_answers_that_are_errors_or_none(
    reply: Reply, result: CancelResult, kind: type[BatchesError], attempts: int, says: str, log: Callable[[], str]
) -> None:
    """Each bad response has its bucket, class and number of attempts, and one clear sentence without the key."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(reply) as server, client_of(server.base_url) as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
            assert (outcome.result, type(outcome.error), outcome.job) == (result, kind, None)
            # The lookup does not count as an attempt.
            assert outcome.attempts == attempts == server.connections - error_is_looked_up(outcome.error)
            assert outcome.error is not None
            assert says in str(outcome.error)
            assert "\n" not in str(outcome.error)
            assert len(str(outcome.error)) < 600
            assert KEY not in shown_text(outcome.error)
            assert KEY not in repr(outcome)

    run()
    assert KEY not in log()


# --- a cancel that comes too late -----------------------------------------------------------------------------

TOO_LATE = {"error": "Cannot cancel job - already in terminal state: COMPLETED"}


@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("COMPLETED", FINISHED), ("FAILED", FINISHED), ("EXPIRED", FINISHED), ("CANCELLED", CANCELLED)],
)
def test_a_conflict_is_an_answer(status: int, state: str, expected: CancelResult) -> None:
    """A conflict takes one POST and a read of the final state, which decides; so does the 400 of the reference."""

    @in_virtual_time
    async def run() -> None:
        replies = http(status, TOO_LATE), http(200, job(status=state))
        async with RawServer(*replies) as server, client_of(server.base_url) as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
            assert (outcome.result, outcome.error, outcome.attempts) == (expected, None, 1)
            assert outcome.job is not None
            assert outcome.job.status == state
            assert server.lines == ["POST /v1/batches/job-1/cancel", "GET /v1/batches/job-1"]

    run()


@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.parametrize(
    ("second", "requests"),
    [(http(404), 2), (http(500), 6), (b"", 6), (http(200, job("job-2")), 2), (http(401), 2)],
    ids=["404", "500", "closed", "another job", "401"],
)
def test_a_conflict_whose_job_cannot_be_read(status: int, second: Reply, requests: int) -> None:
    """If the job of a conflict cannot be read, it has finished with unknown status, and the error is kept."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(http(status, TOO_LATE), second) as server, client_of(server.base_url) as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
            assert (outcome.result, outcome.job, outcome.attempts) == (FINISHED, None, 1)
            assert server.connections == requests
            assert type(outcome.error) is {409: ConflictError, 400: BadRequestError}[status]
            assert outcome.ok

    run()


@in_virtual_time
async def test_a_400_that_says_something_else_is_no_conflict() -> None:
    """Only a 400 whose text is about a terminal state is a conflict."""
    async with RawServer(http(400, {"error": "no such field"})) as server, client_of(server.base_url) as batches:
        outcome = (await batches.cancel_many(["job-1"]))["job-1"]
        assert (outcome.result, outcome.attempts) == (FAILED, 1)


@pytest.mark.parametrize(
    ("status", "kind"), [(409, ConflictError), (400, BadRequestError), (422, UnprocessableEntityError)]
)
def test_a_refusal_over_a_job_that_goes_on_is_a_failure(status: int, kind: type[BatchesError]) -> None:
    """A refusal for a job that continues is a failure: in bulk it is in the outcome, and alone it is raised."""

    @in_virtual_time
    async def run() -> None:
        refusal = {"error": "batches cannot be cancelled once processing begins"}
        replies = http(status, refusal), http(200, job(status="IN_PROGRESS"))
        async with RawServer(*replies, *replies) as server, client_of(server.base_url) as batches:
            report = await batches.cancel_many(["job-1"])
            outcome = report["job-1"]
            assert (outcome.result, type(outcome.error), report.ok, outcome.accepted) == (FAILED, kind, False, False)
            assert outcome.job is not None
            assert outcome.job.status == "IN_PROGRESS"
            assert "once processing begins" in str(outcome.error)
            with pytest.raises(kind, match="once processing begins"):
                await batches.cancel("job-1")

    run()


@pytest.mark.parametrize(
    "answer", [http(204), http(200), http(200, {}), http(200, {"status": "CANCELING"}), http(200, HTML_502)], ids=repr
)
def test_a_good_answer_without_a_job_is_looked_up(answer: bytes) -> None:
    """A 2xx without a job is looked up, in bulk and alone."""

    @in_virtual_time
    async def run() -> None:
        replies = answer, http(200, job()), answer, http(200, job())
        async with RawServer(*replies) as server, client_of(server.base_url) as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
            assert (outcome.result, outcome.error, outcome.attempts) == (CANCELING, None, 1)
            assert outcome.accepted
            assert (await batches.cancel("job-1")).status == "CANCELING"
            assert server.lines == 2 * ["POST /v1/batches/job-1/cancel", "GET /v1/batches/job-1"]

    run()


# --- unusual responses to the other verbs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"null", []),
        (b"[]", []),
        (b'{"data": null}', []),
        (b'{"data": [{"id": "a"}]}', ["a"]),
        (b'[{"id": "a"}, {"id": "b", "status": "WHO_KNOWS"}]', ["a", "b"]),
        (b'[{"id": "a"}, {"id": 7}, null, {"id": "b", "created_at": NaN}]', ["a", "b"]),
    ],
)
async def test_lists(body: bytes, expected: list[str]) -> None:
    """A list may be null for an account without jobs, or an object that contains the list."""
    async with RawServer(http(200, body)) as server, client_of(server.base_url) as batches:
        assert [found.id for found in await batches.list()] == expected


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'"x"', "text"),
        (b"{}", "an object"),
        (b"[null]", "$[0]"),
        (b'[{"id": null}, {"id": 7}]', "$[0].id"),
        (b"", "an empty body"),
    ],
)
async def test_lists_that_are_none(body: bytes, says: str) -> None:
    """The error of an invalid list says where it is invalid."""
    async with RawServer(http(200, body)) as server, client_of(server.base_url) as batches:
        with pytest.raises(APIResponseValidationError) as caught:
            await batches.list()
        assert says in str(caught.value)
        assert KEY not in shown_text(caught.value)


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (http(200, {"job": None, "warning": "over quota"}), JobNotCreatedError, "over quota"),
        (http(201, {"job": None}), JobNotCreatedError, "no reason"),
        (http(400, {"error": "invalid endpoint"}), BadRequestError, "invalid endpoint"),
        (http(401), AuthenticationError, "401"),
        (http(429, headers={"Retry-After": "86400"}), RateLimitError, "86400"),
    ],
    ids=["declined", "declined without a reason", "400", "401", "429"],
)
async def test_creates_that_certainly_made_nothing(reply: Reply, kind: type[BatchesError], says: str) -> None:
    """Errors of creates that certainly made no job are raised unchanged, without a search for a job."""
    async with RawServer(reply) as server, client_of(server.base_url) as batches:
        with pytest.raises(kind) as caught:
            await batches.create("file-1")
        assert says in str(caught.value)
        assert len(server.requests) == 1
        assert KEY not in shown_text(caught.value)


# --- redirects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("verb", ["cancel", "retrieve", "list", "create", "request"])
async def test_the_key_follows_no_redirect_to_another_origin(status: int, verb: str, log: Callable[[], str]) -> None:
    """A redirect to another origin is an error that names it, and nothing at all is sent to it.

    After a create the job is searched for first, because the redirect may come after it was made.
    """
    calls: dict[str, Callable[[AsyncBatches], Awaitable[object]]] = {
        "cancel": lambda batches: batches.cancel("job-1"),
        "retrieve": lambda batches: batches.retrieve("job-1"),
        "list": lambda batches: batches.list(),
        "create": lambda batches: batches.create("file-1", patience=0),
        "request": lambda batches: batches.request("GET", "/models"),
    }
    is_create = verb == "create"
    async with RawServer(http(200, job())) as other:
        target = f"{other.base_url}/batches/job-1/cancel?X-Signature=sesame"
        async with (
            RawServer(http(status, headers={"Location": target})) as server,
            client_of(server.base_url) as batches,
        ):
            with pytest.raises(CreateUnconfirmedError if is_create else APIResponseValidationError) as caught:
                await calls[verb](batches)
            assert f"it is a redirect ({status}) to {other.origin}" in str(caught.value)
            assert "sesame" not in str(caught.value)
            assert KEY not in shown_text(caught.value)
            # A create or a cancel may have succeeded all the same, so one lookup follows.
            assert (other.connections, len(server.requests)) == (0, 2 if verb in {"create", "cancel"} else 1)
    assert KEY not in log()


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.2:{port}/x",
        "https://127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
        "http://a:b@127.0.0.1:{port}/x",
        "ftp://127.0.0.1/x",
        "http://[/",
        "javascript:alert(1)",
        "http://127.0.0.1:{port}1/x",
    ],
    ids=[
        "scheme relative",
        "other scheme",
        "other name",
        "with a login",
        "ftp",
        "broken",
        "no address",
        "other port",
    ],
)
async def test_what_only_looks_like_the_same_origin(location: str) -> None:
    """The same origin means equal scheme, host and port, without a login in the URL."""
    async with RawServer(b"") as server, client_of(server.base_url) as batches:
        server.replies = [http(307, headers={"Location": location.format(port=server.port)})]
        with pytest.raises(APIResponseValidationError, match="redirect"):
            await batches.cancel("job-1")
        assert server.lines == ["POST /v1/batches/job-1/cancel", "GET /v1/batches/job-1"]


@pytest.mark.parametrize("status", [307, 308])
async def test_redirects_within_the_origin_keep_the_request(status: int) -> None:
    """A redirect within the origin keeps method, key and body, and works with percent-encoding."""
    async with (
        RawServer(http(status, headers={"Location": "/v2/batches/a%2Fb/cancel?x=1"}), http(200, job())) as server,
        client_of(server.base_url) as batches,
    ):
        assert (await batches.cancel("job-1")).status == "CANCELING"
        assert server.lines == ["POST /v1/batches/job-1/cancel", "POST /v2/batches/a%2Fb/cancel?x=1"]
        assert server.headers()["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_does_not_repeat_what_must_not_be_repeated(status: int) -> None:
    """A create is not repeated after a redirect: its job is searched for first."""
    redirect = http(status, headers={"Location": "/v2/batches"})
    found = http(200, [job("job-1", input_file_id="file-1", created_at="2999-01-01T00:00:00Z")])
    async with RawServer(redirect, found) as server, client_of(server.base_url) as batches:
        assert (await batches.create("file-1")).id == "job-1"
        assert server.lines == ["POST /v1/batches", "GET /v1/batches"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_read_may_be_sent_elsewhere_within_the_origin_and_a_post_may_not(status: int) -> None:
    """A 301, 302 or 303 within the origin is followed for a read only.

    They turn a POST into a GET, which would cancel nothing. The job's state decides if the cancel was accepted.
    """
    redirect = http(status, headers={"Location": "elsewhere"})
    async with RawServer(redirect, http(200, job())) as server, client_of(server.base_url) as batches:
        await batches.retrieve("job-1")
        assert server.lines == ["GET /v1/batches/job-1", "GET /v1/batches/elsewhere"]
    going_on = http(200, job(status="IN_PROGRESS"))
    async with RawServer(redirect, going_on) as server, client_of(server.base_url) as batches:
        with pytest.raises(APIResponseValidationError, match=f"redirect \\({status}\\)"):
            await batches.cancel("job-1")
        assert server.lines == ["POST /v1/batches/job-1/cancel", "GET /v1/batches/job-1"]


async def test_a_redirect_loop_ends() -> None:
    """A redirect loop ends after five hops, and so does the lookup that follows."""
    loop = http(308, headers={"Location": "/v1/batches/job-1/cancel"})
    async with RawServer(loop) as server, client_of(server.base_url) as batches:
        with pytest.raises(APIResponseValidationError, match="redirect"):
            await batches.cancel("job-1")
        assert len(server.requests) == 6 + 6


async def test_a_redirect_to_nowhere() -> None:
    """A redirect without a Location is an unexpected status."""
    async with RawServer(http(302)) as server, client_of(server.base_url) as batches:
        with pytest.raises(APIResponseValidationError, match="its status is 302"):
            await batches.list()


# --- responses that quote the key -----------------------------------------------------------------------------

ECHOES: dict[str, Reply] = {
    "text": http(401, {"error": f"invalid key {KEY}"}),
    "object": http(400, {"error": {"message": f"{KEY}?", "type": KEY, "param": {KEY: [KEY]}}}),
    "request id in the body": http(404, {"error": "no", "request_id": KEY}),
    "request id": http(500, headers={"x-request-id": KEY}),
    "trace id": http(404, headers={"x-together-traceid": f"for-{KEY}"}),
    "other header": http(403, headers={"X-Echo": f"Bearer {KEY}", "Set-Cookie": f"key={KEY}"}),
    "page": http(502, f"<html><title>{KEY}</title>{KEY}</html>", headers=HTML),
    "retry-after": http(429, headers={"Retry-After": KEY}),
    "location": http(307, headers={"Location": f"http://{KEY.replace('_', '-')}.invalid/{KEY}"}),
    "login in a location": http(307, headers={"Location": f"http://{KEY}:{KEY}@127.0.0.1/"}),
    "no JSON": http(200, f"key={KEY}"),
    "another id": http(200, job(KEY)),
    "a status": http(200, {"id": "job-1", "created_at": KEY}),
    "good answer": http(200, job(error=KEY), headers={"x-request-id": KEY}),
    "cut": http(200, KEY, length=9_000, headers={"X-Echo": KEY}),
    "half headers": b"HTTP/1.1 200 OK\r\nX-Echo: " + KEY.encode() + b"\r\nContent-Ty",
    "no HTTP": KEY.encode() + b"\r\n\r\n",
    "odd header": b"HTTP/1.1 200 OK\r\nX\x00: " + KEY.encode() + b"\r\n\r\n",
    "odd chunk": (CHUNKED, 0.1, KEY.encode() + b"\r\n\r\n"),
    "cut chunk": CHUNKED + b"ff\r\n" + KEY.encode(),
    "no gzip": http(200, KEY, headers={"Content-Encoding": "gzip"}),
    "reason": f"HTTP/1.1 418 {KEY}\r\nContent-Length: 0\r\n\r\n".encode(),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES)
def test_a_key_that_is_quoted_back_is_not_kept(reply: Reply, log: Callable[[], str]) -> None:
    """For every verb, a key in a response is in no text, repr, attribute, cause, traceback, pickle or log."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(reply) as server, client_of(server.base_url) as batches:
            for call in (
                lambda: batches.cancel("job-1"),
                lambda: batches.retrieve("job-1"),
                lambda: batches.list(),
                lambda: batches.create("file-1"),
                lambda: batches.request("GET", "/models"),
            ):
                try:
                    shown = repr(await call())
                except BatchesError as error:
                    shown = shown_text(error)
                assert KEY not in shown
            report = await batches.cancel_many(["job-1"])
            assert KEY not in repr(list(report))

    run()
    assert KEY not in log()


@pytest.mark.parametrize(
    "reply",
    [
        http(400, {"error": {"message": f'bad header "{KEY[::-1]}"', "param": KEY[::-1]}}),
        http(404, headers={"X-Echo": KEY[::-1], "x-request-id": KEY[::-1]}),
        http(200, f"<html>{KEY[::-1]}</html>"),
        http(200, job(KEY[::-1])),
        KEY[::-1].encode() + b"\r\n\r\n",
    ],
    ids=["body", "headers", "excerpt", "problem", "no HTTP"],
)
async def test_a_header_of_ones_own_that_is_quoted_back_is_not_kept(reply: bytes, log: Callable[[], str]) -> None:
    """A custom header in a response is removed too, because it may be the key of a gateway."""
    secret = KEY[::-1]
    async with RawServer(reply) as server, client_of(server.base_url, headers={"X-Gateway-Token": secret}) as batches:
        with pytest.raises(APIError) as caught:
            await batches.cancel("job-1")
        assert secret not in shown_text(caught.value)
        assert server.headers()["x-gateway-token"] == secret
    assert secret not in log()


async def test_a_good_answer_keeps_what_only_looks_like_a_header() -> None:
    """A 2xx keeps a model's name that also occurs in a header, because that is not a secret."""
    reply = http(200, job(model_id="openai/gpt-oss-20b"))
    async with (
        RawServer(reply) as server,
        client_of(server.base_url, headers={"X-M": "openai/gpt-oss-20b"}) as batches,
    ):
        assert (await batches.cancel("job-1")).model_id == "openai/gpt-oss-20b"


async def test_a_place_to_go_to_shows_itself_nowhere() -> None:
    """The URL of a redirect is nowhere, not even in frames or variables of the error, because it may be signed."""
    signed = http(307, headers={"Location": "https://storage.example/x?Signature=sesame"})
    async with RawServer(signed) as server, client_of(server.base_url) as batches:
        for call in (lambda: batches.cancel("job-1"), lambda: batches.files.retrieve("file-1")):
            with pytest.raises(APIResponseValidationError) as caught:
                await call()
            assert "sesame" not in shown_text(caught.value)


async def test_a_client_shows_no_key_in_its_variables() -> None:
    """The variables of a client and its parts do not show the key."""
    async with AsyncBatches(KEY, headers={"X-Gateway": KEY[::-1]}) as batches:
        parts: list[object] = [batches]
        for part in parts:
            assert KEY not in repr(part)
            assert KEY[::-1] not in repr(part)
            if type(part).__module__.startswith("together_batches") and hasattr(part, "__dict__"):
                parts += [value for value in vars(part).values() if value not in parts]
        assert len(parts) > 10


async def test_a_short_key_mutilates_nothing() -> None:
    """A key of a few letters occurs only in tests, and the text of a 2xx is not altered because of it."""
    reply = http(200, job("test-1", status="CANCELLED"))
    async with RawServer(reply) as server, AsyncBatches("test", base_url=server.base_url) as batches:
        assert (await batches.cancel("test-1")).id == "test-1"


# --- the caller's own timeouts --------------------------------------------------------------------------------


@in_virtual_time
async def test_a_cancelled_call_shows_no_key_in_its_frames() -> None:
    """The frames that ``asyncio.timeout`` keeps, aiohttp's included, do not show the key in any variable."""
    async with RawServer((asyncio.Event(),)) as server, client_of(server.base_url) as batches:
        for call in (lambda: batches.cancel("job-1"), lambda: batches.cancel_many(["job-1"])):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(1):
                    await call()
            assert KEY not in shown_text(caught.value)


# --- proxies --------------------------------------------------------------------------------------------------

PASSWORD = "open-sesame-1001"


def through(server: RawServer, base_url: str) -> AsyncBatches:
    return client_of(base_url, proxy=f"http://ali:{PASSWORD}@127.0.0.1:{server.port}", retry=ONCE)


def secrets_in(text: str) -> list[str]:
    login = base64.b64encode(f"ali:{PASSWORD}".encode()).decode().rstrip("=")
    return [secret for secret in (KEY, PASSWORD, login) if secret in text]


@pytest.mark.parametrize(
    "reply",
    [
        http(407, "who are you?"),
        http(403),
        http(502),
        b"",
        ("reset",),
        b"noise\r\n\r\n",
        f"{PASSWORD}\r\n\r\n".encode(),
    ],
    ids=["407", "403", "502", "closed", "reset", "noise", "echo"],
)
async def test_a_proxy_that_refuses(reply: Reply, log: Callable[[], str]) -> None:
    """A proxy that refuses got its own login and never the key; the error is one sentence without either."""
    async with RawServer(reply) as server, through(server, "https://api.together.invalid") as batches:
        with pytest.raises(APIConnectionError) as caught:
            await batches.cancel("job-1")
        requested = server.requests[0].decode()
        assert requested.startswith("CONNECT api.together.invalid:443 ")
        assert KEY not in requested
        login = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
        assert server.headers(0)["proxy-authorization"] == f"Basic {login}"
        assert "\n" not in str(caught.value)
        assert secrets_in(shown_text(caught.value)) == []
    assert secrets_in(log()) == []


@pytest.mark.parametrize(
    ("reply", "says", "attempts"),
    [
        (http(407), "refused the connection with status 407 (Proxy Authentication Required); put its login", 1),
        (http(403), "refused the connection with status 403 (Forbidden)", 1),
        (http(405), "refused the connection with status 405 (Method Not Allowed)", 1),
        (http(429), "refused the connection with status 429 (Too Many Requests)", 5),
        (http(502), "refused the connection with status 502 (Bad Gateway)", 5),
        (http(999), "refused the connection with status 999", 5),
        (b"", "closed the connection without an answer", 5),
        (b"noise\r\n\r\n", "is not HTTP", 5),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no TLS connection to api.together.invalid through the proxy", 5),
        ((60.0,), "no data came from the proxy", 5),
    ],
)
def test_what_a_proxy_does_is_the_proxys(reply: Reply, says: str, attempts: int) -> None:
    """An error of the proxy has its name and status, and is not retried if permanent.

    A create was not sent, so its job is not searched for.
    """

    @in_virtual_time
    async def run() -> None:
        async with RawServer(reply) as server:
            proxy = f"http://127.0.0.1:{server.port}"
            async with client_of("https://api.together.invalid", proxy=proxy) as batches:
                with pytest.raises(APIConnectionError) as caught:
                    await batches.create("file-1")
            assert f"the proxy 127.0.0.1:{server.port}" in str(caught.value)
            assert says in str(caught.value)
            assert not caught.value.request_sent
            assert server.connections == attempts
            assert all(line.startswith("CONNECT ") for line in server.lines)

    run()


async def test_a_proxy_that_makes_no_tunnel_and_wants_a_login() -> None:
    """A 407 only comes from a proxy; what it quotes of the login is removed."""
    echo = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
    async with RawServer(http(407, f"Basic {echo} for ali:{PASSWORD}?")) as server:
        proxy = f"http://ali:{PASSWORD}@127.0.0.1:{server.port}"
        async with client_of("http://127.0.0.2:1", proxy=proxy) as batches:
            with pytest.raises(APIConnectionError, match=r"the proxy 127\.0\.0\.1:\d+ refused .* 407") as caught:
                await batches.create("file-1")
        assert (caught.value.request_sent, len(server.requests)) == (False, 1)
        assert secrets_in(shown_text(caught.value)) == []


@pytest.mark.parametrize("status", [403, 502])
async def test_a_proxy_that_makes_no_tunnel_may_be_what_refused(status: int) -> None:
    """If a proxy's refusal looks like the service's, the error names both, and what it quotes is removed."""
    echo = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
    async with RawServer(http(status, f"{echo} {PASSWORD}")) as server:
        async with through(server, "http://127.0.0.2:1") as batches:
            with pytest.raises(APIStatusError, match=r"perhaps by the proxy 127\.0\.0\.1:\d+") as caught:
                await batches.retrieve("job-1")
        assert secrets_in(shown_text(caught.value)) == []


async def test_a_proxy_without_an_address() -> None:
    """If the proxy's name cannot be resolved, the error says so."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames())) as session,
        AsyncBatches(
            Secret(KEY),
            base_url="https://api.together.invalid",
            session=session,
            retry=ONCE,
            proxy="http://proxy.invalid:3128",
        ) as batches,
    ):
        with pytest.raises(APIConnectionError, match=r"the host name of the proxy proxy\.invalid:3128"):
            await batches.list()


async def test_a_proxy_without_a_login_is_told_nothing() -> None:
    """A proxy without a login receives neither credentials nor the key."""
    async with RawServer(http(407)) as server:
        proxy = f"http://127.0.0.1:{server.port}"
        async with client_of("https://api.together.invalid", proxy=proxy, retry=ONCE) as batches:
            with pytest.raises(APIConnectionError, match=r"the proxy 127.0.0.1:\d+ refused .* status 407"):
                await batches.cancel("job-1")
            assert KEY not in server.requests[0].decode()
            assert "proxy-authorization" not in server.headers(0)


async def test_a_proxy_that_is_not_there() -> None:
    """If the proxy is down, the error says that it is the proxy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        proxy = Secret(f"http://ali:{PASSWORD}@{place}")
        async with client_of("https://api.together.invalid", proxy=proxy, retry=ONCE) as batches:
            with pytest.raises(APIConnectionError) as caught:
                await batches.cancel("job-1")
    assert str(caught.value) == f"no connection to the proxy {place}: Connection refused"
    assert not caught.value.request_sent
    assert secrets_in(shown_text(caught.value)) == []


async def test_a_proxy_for_plain_http_is_logged_in_to_with_each_request() -> None:
    """For plain HTTP a proxy gets its login with each request, because there is no tunnel and it sees all of it."""
    async with RawServer(http(200, job())) as server, through(server, "http://127.0.0.2:1") as batches:
        await batches.cancel("job-1")
        assert server.lines == ["POST http://127.0.0.2:1/v1/batches/job-1/cancel"]
        sent = server.headers()
        assert sent["authorization"] == f"Bearer {KEY}"
        assert base64.b64decode(sent["proxy-authorization"].removeprefix("Basic ")).decode() == f"ali:{PASSWORD}"


@pytest.mark.parametrize("base_url", ["https://api.together.invalid", "http://127.0.0.2:1"], ids=["tunnel", "plain"])
def test_a_call_cut_off_at_a_proxy_shows_no_password(base_url: str) -> None:
    """A call cut off at a proxy shows no password, because aiohttp's frames have the URL without the login."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer((asyncio.Event(),)) as server, through(server, base_url) as batches:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(1):
                    await batches.cancel("job-1")
            assert secrets_in(shown_text(caught.value)) == []

    run()


# --- no connection to the service -----------------------------------------------------------------------------


class NoNames(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        raise OSError(None, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_a_host_without_an_address() -> None:
    """A host without an address raises one sentence that names it."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames())) as session,
        AsyncBatches(Secret(KEY), base_url="https://nowhere.invalid", session=session, retry=ONCE) as batches,
    ):
        outcome = (await batches.cancel_many(["job-1"]))["job-1"]
    assert (outcome.result, outcome.attempts) == (FAILED, 1)
    assert isinstance(outcome.error, APIConnectionError)
    assert str(outcome.error) == "the host name of nowhere.invalid cannot be resolved (is the network up?)"
    assert not outcome.error.request_sent


async def test_a_port_where_nobody_listens() -> None:
    """A closed port is an error in the system's words, without additions."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with client_of(f"http://127.0.0.1:{port}") as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
    assert (outcome.result, outcome.attempts) == (FAILED, 5)
    assert str(outcome.error) == f"no connection to 127.0.0.1:{port}: Connection refused; given up after 5 attempts"
    assert outcome.error is not None
    assert KEY not in shown_text(outcome.error)


async def test_tls_where_plain_http_is_spoken() -> None:
    """TLS to a plain HTTP port raises one sentence, and the key is not sent unencrypted."""
    async with RawServer(("unread", http(400))) as server:
        base_url = server.base_url.replace("http:", "https:")
        async with client_of(base_url) as batches:
            with pytest.raises(APIConnectionError) as caught:
                await batches.cancel("job-1")
        assert server.connections == 1
    assert str(caught.value).startswith(f"127.0.0.1:{server.port} does not speak TLS; use ")
    assert "\n" not in str(caught.value)
    assert not caught.value.request_sent
    assert KEY not in shown_text(caught.value)


@pytest.mark.parametrize("reply", [b"\x15\x03\x01\x00\x02\x02\x46", b"\x15\x03\x03\x00\x02\x02\x50"])
async def test_plain_http_where_tls_is_spoken(reply: bytes) -> None:
    """Plain HTTP to a TLS port returns a TLS alert; the error says which URL to use."""
    async with RawServer(reply) as server, client_of(server.base_url) as batches:
        with pytest.raises(APIConnectionError, match=r"^127\.0\.0\.1:\d+ speaks TLS; use an https:// URL$"):
            await batches.cancel("job-1")
        assert server.connections == 1


def company() -> ssl.SSLContext:
    """A server certificate of a private authority; both lack an Authority Key Identifier."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(SAMPLES / "company-server.pem")
    return tls


async def test_the_authority_of_a_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's authority is trusted by a file of the environment or by a context, for a given session too."""
    authority = str(SAMPLES / "company-authority.pem")
    async with RawServer(http(200, job()), tls=company()) as server:
        context = ssl.create_default_context(cafile=authority)
        async with AsyncBatches(KEY, base_url=server.base_url, ssl=context) as batches:
            assert (await batches.cancel("job-1")).id == "job-1"
        async with aiohttp.ClientSession() as session:
            given = AsyncBatches(KEY, base_url=server.base_url, ssl=context, session=session)
            assert (await given.cancel("job-1")).id == "job-1"
        monkeypatch.setenv("TOGETHER_CA_BUNDLE", authority)
        async with AsyncBatches(KEY, base_url=server.base_url) as batches:
            assert (await batches.cancel("job-1")).id == "job-1"
            assert (await batches.with_options(timeout=5).cancel("job-1")).id == "job-1"

        def synchronously() -> str:
            with Batches(KEY, base_url=server.base_url) as batches:
                return batches.cancel("job-1").id

        assert await asyncio.to_thread(synchronously) == "job-1"


async def test_files_go_to_a_storage_of_the_company_too() -> None:
    """The same certificates are used for the storage of files."""
    context = ssl.create_default_context(cafile=SAMPLES / "company-authority.pem")
    async with RawServer(http(200, b"{}\n"), tls=company()) as storage:
        moved = http(302, headers={"Location": f"{storage.origin}/x"})
        async with (
            RawServer(moved) as server,
            AsyncBatches(KEY, base_url=server.base_url, ssl=context) as batches,
            batches.files.content("file-1") as pieces,
        ):
            assert b"".join([piece async for piece in pieces]) == b"{}\n"


async def test_a_certificate_that_nobody_vouches_for() -> None:
    """An untrusted certificate is an error with the reason, and no request is sent."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(SAMPLES / "self-signed.pem")
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))  # the server's own, about the handshake
    async with RawServer(http(200, job()), tls=tls) as server:
        async with client_of(server.base_url) as batches:
            outcome = (await batches.cancel_many(["job-1"]))["job-1"]
        assert server.requests == []
    assert (outcome.result, outcome.attempts) == (FAILED, 1)
    assert isinstance(outcome.error, APIConnectionError)
    assert str(outcome.error).startswith(f"the certificate of 127.0.0.1:{server.port} is not trusted: ")
    assert "TOGETHER_CA_BUNDLE" in str(outcome.error)


# --- arbitrary bytes ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=30).map(lambda noise: b"HTTP/1.1 200 OK\r\n" + noise + b"\r\n\r\n{}"),
        st.binary(max_size=30).map(lambda body: http(200, body)),
        st.binary(max_size=30).map(lambda body: CHUNKED + body),
        st.tuples(st.integers(100, 999), st.binary(max_size=30)).map(lambda pair: http(*pair)),
        st.text(max_size=20).map(
            lambda text: http(
                307,
                headers={
                    "Location": text.encode("latin-1", "replace")
                    .decode("latin-1")
                    .replace("\r", "")
                    .replace("\n", "")
                },
            )
        ),
    )
)
def test_whatever_comes_is_one_of_our_errors(noise: bytes) -> None:
    """No response of arbitrary bytes makes a bulk cancel raise, or end in the wrong bucket."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(noise) as server, client_of(server.base_url, retry=ONCE, timeout=5) as batches:
            report = await batches.cancel_many(["job-1"])
            error = report["job-1"].error
            assert isinstance(error, APIError)
            assert not report.ok or b" 409 " in noise[:20]

    run()
