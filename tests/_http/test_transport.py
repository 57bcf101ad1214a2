"""Tests of the transport: one request out, one response or one typed error back; what is retried, and what stops it.

Time is virtual here: nothing waits for real, except for the few limits of sockets themselves.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import re
import socket
import sys
import zlib
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from wires import AT_ONCE, KEY, ONCE, RawServer, VirtualLoop, http, in_virtual_time, job, stable, transport

from together_batches import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncBatches,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    Timeout,
    UnprocessableEntityError,
    UsageError,
)
from together_batches._http.client_state import CallState, ClientState
from together_batches._http.retry import Budget
from together_batches._http.transport import Transport
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.jobs import Request
from together_batches.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wires import Reply

READ = Request("GET", "/batches/job-1", repeatable=True)
CANCEL = Request("POST", "/batches/job-1/cancel", repeatable=True)
CREATE = Request("POST", "/batches", repeatable=False, body=b'{"input_file_id":"file-1"}')

OK = http(200, job())
OVERLOADED = http(503, {"error": "overloaded"})
TOO_MANY = http(429, {"error": "too many requests"})


@asynccontextmanager
async def between(*replies: Reply, **options: object) -> AsyncIterator[tuple[Transport, RawServer]]:
    async with RawServer(*replies) as server:
        sender = transport(server.base_url, **options)
        try:
            yield sender, server
        finally:
            await sender.state.close()


async def failure(sender: Transport, request: Request, call: CallState | None = None) -> APIError:
    with pytest.raises(APIError) as caught:
        await sender.send(request, call or CallState())
    return caught.value


# --- requests and responses -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_request_says_who_asks_and_for_what() -> None:
    """A request has the key, a user agent that Cloudflare accepts, JSON both ways, and its body unchanged."""
    async with between(OK, headers={"X-Team": "blue"}) as (sender, server):
        answer = await sender.send(CREATE, CallState())
        assert (answer.status, answer.body) == (200, OK.partition(b"\r\n\r\n")[2])
        assert server.lines == ["POST /v1/batches"]
        assert server.requests[0].endswith(b'\r\n\r\n{"input_file_id":"file-1"}')
        sent = server.headers()
        assert sent["authorization"] == f"Bearer {KEY}"
        assert sent["user-agent"].startswith("together-batches/")
        assert (sent["accept"], sent["content-type"]) == ("application/json", "application/json")
        assert sent["x-team"] == "blue"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, APIStatusError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (408, APIStatusError),
        (409, ConflictError),
        (410, APIStatusError),
        (418, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (451, APIStatusError),
        (500, InternalServerError),
        (502, InternalServerError),
        (503, InternalServerError),
        (524, InternalServerError),
        (599, InternalServerError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[APIStatusError]) -> None:
    """Each status raises exactly its class, with the request, the message, and the request id."""

    @in_virtual_time
    async def run() -> None:
        reply = http(status, {"error": "this is why"}, headers={"x-request-id": "req-7"})
        async with between(reply, retry=ONCE) as (sender, server):
            error = await failure(sender, CANCEL)
            assert type(error) is kind
            assert isinstance(error, APIStatusError)
            assert (error.status, error.message, error.request_id) == (status, "this is why", "req-7")
            assert (error.method, error.url) == ("POST", f"{server.base_url}/batches/job-1/cancel")
            assert str(error) == (
                f"the service answered {status} to POST {server.base_url}/batches/job-1/cancel: "
                "this is why (request id req-7)"
            )

    run()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_good_answer(status: int) -> None:
    """Every 2xx is returned; its meaning is decided elsewhere."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status, b"" if status == 204 else b"{}")) as (sender, _):
            assert (await sender.send(READ, CallState())).status == status

    run()


@pytest.mark.parametrize("status", [300, 304, 305, 399])
def test_what_is_neither_good_nor_an_error_is_no_answer(status: int) -> None:
    """An unexpected status is in the error, which mentions a redirect only if there is a target."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status)) as (sender, server):
            error = await failure(sender, READ)
            assert isinstance(error, APIResponseValidationError)
            assert error.status == status
            assert f"its status is {status}" in str(error)
            assert len(server.requests) == 1

    run()


# --- codings and sizes of responses ------------------------------------------------------------------------------

LONG = b'{"id": "job-1", "error": "' + 100_000 * b"x" + b'"}'


def bare_deflate(content: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(content) + made.flush()


CODED = [
    ("aws-chunked", LONG),
    ("UTF-8", LONG),
    ("none", LONG),
    ("gzip", gzip.compress(LONG)),
    ("x-gzip", gzip.compress(LONG)),
    ("deflate", zlib.compress(LONG)),
    ("deflate", bare_deflate(LONG)),
    ("gzip, aws-chunked", gzip.compress(LONG)),
    ("gzip, deflate", bare_deflate(gzip.compress(LONG))),
]


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
@pytest.mark.parametrize(
    ("coding", "body"), CODED, ids=[f"{number} {coding[0]}" for number, coding in enumerate(CODED)]
)
def test_an_answer_is_what_it_stands_for(coding: str, body: bytes, *, given: bool) -> None:
    """A successful response and a refusal are decoded from any coding, also if the session decodes nothing."""

    @in_virtual_time
    async def run() -> None:
        coded = {"Content-Encoding": coding}
        replies = http(200, body, headers=coded), http(400, body, headers=coded)
        async with RawServer(*replies) as server, aiohttp.ClientSession(auto_decompress=False) as session:
            config = Config.from_env({}, api_key=KEY, base_url=server.base_url, retry=ONCE)
            clock = asyncio.get_running_loop().time
            sender = Transport(config, ClientState(session if given else None, max_concurrency=1, clock=clock))
            assert (await sender.send(READ, CallState())).body == LONG
            error = await failure(sender, READ)
            assert isinstance(error, BadRequestError)
            assert str(error.body).startswith(LONG[:100].decode())
            await sender.state.close()

    run()


@in_virtual_time
async def test_compressions_in_two_headers() -> None:
    """Compressions in two headers count as a list in one."""
    twice = http(200, gzip.compress(gzip.compress(LONG)), headers={"Content-Encoding": "gzip"})
    async with between(twice.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)) as (sender, _):
        assert (await sender.send(READ, CallState())).body == LONG


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "aws-chunked"])
@pytest.mark.parametrize("status", [200, 204, 404])
def test_an_empty_answer_is_empty_under_any_coding(coding: str, status: int) -> None:
    """An empty body is empty under any coding: gateways label bodies that they did not compress."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status, headers={"Content-Encoding": coding})) as (sender, _):
            if status == 404:
                assert (await failure(sender, READ)).message == "Not Found"
            else:
                assert (await sender.send(READ, CallState())).body == b""
            head = Request("HEAD", "/batches/job-1", repeatable=True)
            if status != 404:
                assert (await sender.send(head, CallState())).body == b""

    run()


@in_virtual_time
async def test_an_answer_under_a_coding_that_is_not_undone() -> None:
    """An unrequested coding is named in the error, and not retried, because a retry would not help."""
    async with between(http(200, LONG, headers={"Content-Encoding": "gzip, zstd"})) as (sender, server):
        error = await failure(sender, READ)
        assert isinstance(error, APIResponseValidationError)
        assert "it is encoded as zstd" in str(error)
        assert len(server.requests) == 1
    if find_spec("brotli") is None and find_spec("brotlicffi") is None:
        async with between(http(200, LONG, headers={"Content-Encoding": "br"})) as (sender, server):
            assert "is encoded as br, which was not requested" in str(await failure(sender, READ))
            assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        http(200, (17 << 20) * b" "),
        http(200, gzip.compress((17 << 20) * b" "), headers={"Content-Encoding": "gzip"}),
        http(200, gzip.compress((17 << 20) * b" "), headers={"Content-Encoding": "x-gzip"}),
    ],
    ids=["plain", "compressed", "compressed twice named"],
)
def test_an_answer_has_a_limit(reply: Reply) -> None:
    """The limit is 16 MB, decoded, or 256 MB for a list; the error names it, and the call is not retried."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply, retry=AT_ONCE) as (sender, server):
            error = await failure(sender, READ)
            assert isinstance(error, APIResponseValidationError)
            assert error.status == 200
            assert "is not of 16 MB or less, the limit for this call: it is longer" in str(error)
            assert len(server.requests) == 1
            assert len((await sender.send(job_protocol.list_jobs(), CallState())).body) == 17 << 20

    run()


@pytest.mark.parametrize(
    "reply",
    [
        http(403, "<title>No</title>" + (3 << 20) * "x", headers={"Content-Type": "text/html"}),
        (http(403, "<title>No</title>" + 100_000 * "x", length=1 << 40), asyncio.Event()),
        http(403, gzip.compress(b"<title>No</title>" + bytes(99 << 20)), headers={"Content-Encoding": "gzip"}),
        http(403, gzip.compress(b"<title>No</title>" + bytes(99 << 20)), headers={"Content-Encoding": "x-gzip"}),
    ],
    ids=["long", "endless", "compressed", "compressed under an old name"],
)
def test_a_refusal_keeps_an_excerpt(reply: Reply) -> None:
    """A refusal keeps its first 64 KB, from which its message is taken, and no more is read."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply) as (sender, server):
            error = await failure(sender, READ)
            assert isinstance(error, PermissionDeniedError)
            assert error.message == "No"
            assert len(str(error.body).encode()) == 1 << 16
            assert len(server.requests) == 1

    run()


@in_virtual_time
async def test_the_refusals_of_a_bulk_keep_little() -> None:
    """After 16 MB of refusals in one bulk, each further one keeps 1 KB, because there may be very many."""
    async with between(http(403, 70_000 * "x")) as (sender, _):
        bulk = sender.bulk(None)
        errors = [await failure(sender, READ, bulk.call()) for _ in range(270)]
        sizes = [len(str(error.body)) for error in errors if isinstance(error, PermissionDeniedError)]
        assert sizes == 256 * [1 << 16] + 14 * [1 << 10]


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
def test_long_headers_are_read(*, given: bool) -> None:
    """A header of 64 KB, and many headers, are accepted, because gateways add their own."""

    @in_virtual_time
    async def run() -> None:
        many = {f"X-{number}": "a" for number in range(500)}
        reply = http(200, job(), headers={"X-Long": (1 << 16) * "a", **many})
        async with RawServer(reply) as server, aiohttp.ClientSession() as session:
            config = Config.from_env({}, api_key=KEY, base_url=server.base_url, retry=ONCE)
            clock = asyncio.get_running_loop().time
            sender = Transport(config, ClientState(session if given else None, max_concurrency=1, clock=clock))
            assert len((await sender.send(READ, CallState())).headers["X-Long"]) == 1 << 16
            await sender.state.close()

    run()


# --- which requests are retried -------------------------------------------------------------------------------

BROKEN = (b"",)
REPEATED_STATUSES = [408, 429, 500, 502, 503, 504, 520, 524, 599]
FINAL_STATUSES = [301, 400, 401, 402, 403, 404, 409, 410, 418, 422, 451]


@pytest.mark.parametrize("status", REPEATED_STATUSES)
@pytest.mark.parametrize("request_", [READ, CANCEL], ids=["read", "cancel"])
def test_what_may_be_done_twice_is_repeated_while_the_service_is_in_trouble(request_: Request, status: int) -> None:
    """A repeatable request gets up to five attempts in all, and the error says that it gave up."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status), retry=AT_ONCE) as (sender, server):
            call = CallState()
            error = await failure(sender, request_, call)
            assert len(server.requests) == call.attempts == 5
            assert "given up after 5 attempts" in str(error)

    run()


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_an_answer_is_an_answer(status: int) -> None:
    """A status that a retry cannot change is requested once. A 409 to a cancel is an answer, too."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status), retry=AT_ONCE) as (sender, server):
            call = CallState()
            await failure(sender, CANCEL, call)
            assert len(server.requests) == call.attempts == 1

    run()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        ("unread", "reset"),
        ("reset",),
        b"HTTP/1.1 200 OK\r\nContent-",
        http(200, b"{", length=9),
        b"noise\r\n\r\n",
    ],
    ids=["closed", "reset before it was read", "reset", "half headers", "half a body", "no HTTP"],
)
def test_a_lost_answer_is_asked_for_again(broken: Reply) -> None:
    """A cancel is repeated after a lost answer, because repeating it has no further effect."""

    @in_virtual_time
    async def run() -> None:
        async with between(broken, broken, OK, retry=AT_ONCE) as (sender, server):
            call = CallState()
            assert (await sender.send(CANCEL, call)).status == 200
            assert server.connections == call.attempts == 3

    run()


@pytest.mark.parametrize(
    "reply",
    [b"", ("reset",), http(200, b"{", length=9), http(500), http(503), http(408), http(504), (asyncio.Event(),)],
    ids=["closed", "reset", "half a body", "500", "503", "408", "504", "silence"],
)
def test_a_create_that_may_have_worked_is_never_repeated_here(reply: Reply) -> None:
    """A create that may have worked is sent once, whatever the response."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply, retry=AT_ONCE, timeout=5) as (sender, server):
            error = await failure(sender, CREATE)
            assert server.connections == 1
            assert getattr(error, "request_sent", True)

    run()


@in_virtual_time
async def test_a_create_is_repeated_after_a_429_whatever_the_service_advises() -> None:
    """A 429 is retried, because nothing was done with it; advice to retry a 500 is ignored for a create."""
    async with between(TOO_MANY, TOO_MANY, OK, retry=AT_ONCE) as (sender, server):
        await sender.send(CREATE, CallState())
        assert len(server.requests) == 3
    async with between(http(500, headers={"x-should-retry": "true"}), retry=AT_ONCE) as (sender, server):
        await failure(sender, CREATE)
        assert len(server.requests) == 1


async def test_a_create_that_could_not_be_sent_is_repeated() -> None:
    """A create without a connection is repeated, because it made no job."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, without a listener
        sender = transport(f"http://127.0.0.1:{taken.getsockname()[1]}", retry=AT_ONCE)
        call = CallState()
        error = await failure(sender, CREATE, call)
        await sender.state.close()
    assert call.attempts == 5
    assert isinstance(error, APIConnectionError)
    assert not error.request_sent


@pytest.mark.parametrize(
    ("status", "advice", "expected"),
    [(500, "false", 1), (429, "FALSE", 1), (503, "true", 5), (400, "true", 5), (404, "True", 5), (409, "true", 1)],
)
def test_the_service_may_advise(status: int, advice: str, expected: int) -> None:
    """``x-should-retry`` decides for repeatable requests; a conflict stays an answer."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status, headers={"x-should-retry": advice}), retry=AT_ONCE) as (sender, server):
            await failure(sender, CANCEL)
            assert len(server.requests) == expected

    run()


@in_virtual_time
async def test_one_attempt_means_one() -> None:
    """``max_attempts=1`` retries nothing, and the error does not mention giving up."""
    async with between(OVERLOADED, retry=RetryPolicy(max_attempts=1)) as (sender, server):
        error = await failure(sender, READ)
        assert len(server.requests) == 1
        assert error.message == "overloaded"


# --- the wait before a retry ----------------------------------------------------------------------------------


def gaps(server: RawServer) -> list[float]:
    return [round(after - before, 1) for before, after in zip(server.times, server.times[1:], strict=False)]


@in_virtual_time
async def test_the_waits_double_up_to_a_limit() -> None:
    """Waits with full jitter double up to a limit; here chance returns the maximum of each."""
    policy = RetryPolicy(max_attempts=7, base_delay=0.5, max_delay=8)
    async with between(OVERLOADED, retry=policy) as (sender, server):
        await failure(sender, READ)
        assert gaps(server) == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


@in_virtual_time
async def test_chance_may_draw_no_wait_at_all() -> None:
    """Full jitter includes a wait of zero."""
    async with between(OVERLOADED, chance=0.0) as (sender, server):
        await failure(sender, READ)
        assert gaps(server) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "7.5"}, 7.5),
        ({"retry-after-ms": "2500", "Retry-After": "9"}, 2.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:20 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 20),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:20 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.5),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": "-3"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": "nan"}, 0.5),
        ({"Retry-After": ""}, 0.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "4"}, 4),
        ({"x-ratelimit-remaining": "some", "x-ratelimit-reset": "later"}, 0.5),
    ],
    ids=lambda value: "; ".join(value.values()) or "empty" if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_call_waits_at_least_as_long_as_it_was_asked_to(
    status: int, headers: dict[str, str], expected: float
) -> None:
    """A wait is in seconds, in milliseconds, or until a date by the service's clock; an invalid one is ignored."""

    @in_virtual_time
    async def run() -> None:
        async with between(http(status, headers=headers), OK) as (sender, server):
            await sender.send(READ, CallState())
            assert gaps(server) == [expected]

    run()


@in_virtual_time
async def test_a_wait_of_a_day_is_not_waited_for() -> None:
    """A requested wait of a day raises at once the matching error, which names the wait."""
    async with between(http(429, headers={"Retry-After": "86400"})) as (sender, server):
        error = await failure(sender, READ)
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 86400
        assert "86400 s" in str(error)
        assert "max_elapsed (300 s)" in str(error)
        assert asyncio.get_running_loop().time() < 1
        assert len(server.requests) == 1


@in_virtual_time
async def test_a_call_ends_within_max_elapsed() -> None:
    """Attempts and back-off together end within ``max_elapsed``."""
    policy = RetryPolicy(max_attempts=1000, base_delay=1, max_delay=8, max_elapsed=60)
    async with between(OVERLOADED, retry=policy) as (sender, server):
        error = await failure(sender, READ)
        assert asyncio.get_running_loop().time() <= 60
        assert 8 <= len(server.requests) <= 12
        assert "max_elapsed (60 s)" in str(error)


@in_virtual_time
async def test_a_client_has_a_budget_for_repeating() -> None:
    """If everything fails, a client makes 100 retries and then none, so that the load is not multiplied by five."""
    async with between(OVERLOADED, retry=AT_ONCE, max_concurrency=1) as (sender, server):
        budget = sender.state.budget
        assert [budget.spend() for _ in range(97)] == [True] * 97
        errors = [await failure(sender, READ) for _ in range(5)]
        assert len(server.requests) == 5 + 3
        assert "budget" in str(errors[-1])


@in_virtual_time
async def test_successes_refill_the_budget() -> None:
    """Five successes pay for one retry."""
    replies = [*[OVERLOADED] * 5, *[OK] * 11, OVERLOADED]
    async with between(*replies, retry=AT_ONCE) as (sender, server):
        sender.state.budget = Budget(4)
        await failure(sender, READ)
        assert len(server.requests) == 1 + 4
        for _ in range(11):
            await sender.send(READ, CallState())
        before = len(server.requests)
        await failure(sender, READ)
        assert len(server.requests) - before == 1 + 2


@in_virtual_time
async def test_429s_cost_nothing_of_the_budget() -> None:
    """429s cost nothing of the budget, because the rate limiter handles them."""
    async with between(TOO_MANY, retry=AT_ONCE) as (sender, server):
        sender.state.budget = Budget(0)
        await failure(sender, READ)
        assert len(server.requests) == 5


# --- the shared rate limiter ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_429_slows_everyone() -> None:
    """All calls of a client share one rate limiter: a refusal slows the others, too."""
    async with between(http(429, headers={"Retry-After": "1"}), OK) as (sender, server):
        await asyncio.gather(*(sender.send(READ, CallState()) for _ in range(30)))
        assert len(server.requests) == 31
        one_go = [time for time in server.times if time < 0.02]
        assert len(one_go) == 30  # these were under way
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(sender.send(READ, CallState()) for _ in range(30)))
        assert asyncio.get_running_loop().time() - began > 0.2  # a client without a known limit takes no time


@in_virtual_time
async def test_a_limit_that_the_service_tells_is_where_everyone_begins() -> None:
    """A refusal that names the limit saves the client the search for it."""
    async with between(http(429, headers={"x-ratelimit-limit": "200"}), OK) as (sender, _):
        await sender.send(READ, CallState())
        assert sender.state.limiter.rate == pytest.approx(0.97 * 200)


@in_virtual_time
async def test_a_service_that_always_refuses_is_not_hammered() -> None:
    """Every call ends after no more attempts than the policy allows, at ever longer intervals."""
    async with between(TOO_MANY, retry=RetryPolicy(max_elapsed=60)) as (sender, server):
        calls = [CallState(sender.bulk(None)) for _ in range(80)]
        results = await asyncio.gather(*(sender.send(READ, call) for call in calls), return_exceptions=True)
        assert {type(result) for result in results} == {RateLimitError}
        assert max(call.attempts for call in calls) <= 5
        assert asyncio.get_running_loop().time() <= 60 + 1
        assert len(server.requests) < 180


@in_virtual_time
async def test_while_the_door_is_shut_for_long_others_are_told_at_once() -> None:
    """After two refusals in a row a call that cannot be sent within its time fails at once."""
    async with between(http(429, headers={"Retry-After": "1000"}), retry=ONCE) as (sender, server):
        for _ in range(2):
            await failure(sender, READ)
            await asyncio.sleep(1)
        call = CallState()
        error = await failure(sender, READ, call)
        assert len(server.requests) == 2
        assert call.attempts == 0
        assert isinstance(error, RateLimitError)
        assert error.retry_after
        assert 990 < error.retry_after <= 1000
        assert "all requests are refused" in str(error)
        assert "max_elapsed=300 s" in str(error)


@in_virtual_time
async def test_a_wait_for_a_permit_counts_as_elapsed() -> None:
    """A queue longer than the time of a call ends in an error that says why."""
    async with between(TOO_MANY, OK, retry=RetryPolicy(max_attempts=1, max_elapsed=0.2)) as (sender, server):
        await failure(sender, READ)
        bulk = sender.bulk(None)
        results = await asyncio.gather(*(sender.send(READ, bulk.call()) for _ in range(100)), return_exceptions=True)
        late = [result for result in results if isinstance(result, RateLimitError)]
        assert len(late) + len(server.requests) - 1 == 100
        assert late
        assert "rate limited" in str(late[0])
        assert "would not be sent within max_elapsed=0.2 s" in str(late[0])


# --- the cap of a bulk ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_cap_is_kept() -> None:
    """A cap of ten a second puts a tenth of a second between any two calls."""
    async with between(OK) as (sender, server):
        bulk = sender.bulk(10)
        await asyncio.gather(*(sender.send(READ, bulk.call()) for _ in range(30)))
        assert min(gaps(server)) >= 0.09
        assert asyncio.get_running_loop().time() == pytest.approx(2.9, abs=0.2)


@in_virtual_time
async def test_waiting_for_a_cap_of_ones_own_is_no_failure() -> None:
    """A wait for the caller's own cap may exceed ``max_elapsed`` without an error."""
    async with between(OK, retry=RetryPolicy(max_elapsed=30)) as (sender, server):
        bulk = sender.bulk(1 / 60)
        await asyncio.gather(*(sender.send(READ, bulk.call()) for _ in range(5)))
        assert len(server.requests) == 5
        assert asyncio.get_running_loop().time() == pytest.approx(240, abs=1)


@in_virtual_time
async def test_a_refused_key_lets_nobody_wait_for_a_turn() -> None:
    """Calls that wait at the cap when the key is refused fail with that refusal, and are not sent."""
    async with between(OK) as (sender, server):
        bulk = sender.bulk(0.001)
        calls = [bulk.call() for _ in range(4)]
        tasks = [asyncio.create_task(sender.send(READ, call)) for call in calls]
        given_up = asyncio.create_task(sender.send(READ, bulk.call()))
        await tasks[0]
        given_up.cancel()
        await asyncio.wait([given_up])
        reason = AuthenticationError("no", status=401)
        bulk.refuse(reason)
        assert await asyncio.gather(*tasks[1:], return_exceptions=True) == [reason] * 3
        assert await asyncio.gather(sender.send(READ, bulk.call()), return_exceptions=True) == [reason]
        assert len(server.requests) == 1
        assert [call.attempts for call in calls] == [1, 0, 0, 0]
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_who_gives_up_its_turn_holds_up_nobody() -> None:
    """A cancelled call at the cap is skipped."""
    async with between(OK) as (sender, server):
        bulk = sender.bulk(1)
        tasks = [asyncio.create_task(sender.send(READ, bulk.call())) for _ in range(5)]
        await asyncio.sleep(0.5)
        for task in tasks[1:3]:
            task.cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, True, False, False]
        assert gaps(server) == [1.0, 1.0]


# --- concurrency ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_calls_that_are_no_bulk_share_the_slots_of_the_client() -> None:
    """The calls outside bulks that run at once reach ``max_concurrency``, and never exceed it."""
    async with between((1.0, OK), max_concurrency=3) as (sender, server):
        await asyncio.gather(*(sender.send(READ, CallState()) for _ in range(10)))
        assert server.most_open == 3
        assert asyncio.get_running_loop().time() == pytest.approx(4, abs=0.2)


# --- interrupted responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 500])
@in_virtual_time
async def test_an_answer_that_breaks_off_says_its_status(status: int) -> None:
    """The error has the status if the connection ends or stalls: an accepted create must not be sent again."""
    for reply in ((http(status, b"{", length=9),), (http(status, b"{", length=9), asyncio.Event())):
        async with between(reply, retry=ONCE) as (sender, _):
            assert (await failure(sender, READ)).status == status


@pytest.mark.parametrize(
    "reply", [("reset",), (asyncio.Event(),), (b"HTTP/1.1 20",)], ids=["reset", "silence", "half a head"]
)
@in_virtual_time
async def test_an_answer_that_did_not_begin_has_no_status(reply: Any) -> None:
    """The error has no status if no head arrived, not even after a redirect."""
    async with between(reply, retry=ONCE) as (sender, server):
        assert (await failure(sender, READ)).status is None
        server.replies = [http(307, headers={"Location": "/elsewhere"}), reply]
        assert (await failure(sender, READ)).status is None
        assert len(server.lines) == 3


# --- a machine that runs out of connections --------------------------------------------------------------------


class Crowded(aiohttp.TCPConnector):
    """A connector that opens at most ``most`` connections at once, as a system that has run out of descriptors."""

    def __init__(self, most: int, number: int) -> None:
        super().__init__(limit=0, force_close=True)
        self.most = most
        self.number = number
        self.refused = 0

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        if len(self._acquired) >= self.most:
            self.refused += 1
            raise aiohttp.ClientConnectorError(req.connection_key, OSError(self.number, os.strerror(self.number)))
        return await super().connect(req, traces, timeout)


@asynccontextmanager
async def crowded(most: int, number: int, server: RawServer) -> AsyncIterator[tuple[Transport, Crowded]]:
    connector = Crowded(most, number)
    async with aiohttp.ClientSession(connector=connector) as session:
        config = Config.from_env({}, api_key=KEY, base_url=server.base_url, retry=RetryPolicy(max_elapsed=20))
        clock = asyncio.get_running_loop().time
        yield Transport(config, ClientState(session, max_concurrency=50, clock=clock)), connector


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_out_of_descriptors_or_ports_fewer_calls_run_at_once(number: int) -> None:
    """No call fails, and an attempt without a connection does not count, not even if only one is allowed."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer((0.1, OK)) as server, crowded(10, number, server) as (sender, connector):
            calls = [CallState() for _ in range(50)]
            await asyncio.gather(*(sender.send(CREATE, call) for call in calls))
            assert {call.attempts for call in calls} == {1}
            assert len(server.requests) == 50
            assert connector.refused >= 40
            assert sender.state.capacity is not None
            assert sender.state.capacity.limit is not None
            assert sender.state.capacity.limit <= 12

    run()


@in_virtual_time
async def test_out_of_descriptors_for_good_is_an_error_in_the_end() -> None:
    """A lasting shortage is an error after ``max_elapsed``; nothing was sent, and the message names a remedy."""
    async with RawServer(OK) as server, crowded(0, errno.EMFILE, server) as (sender, _):
        call = CallState()
        error = await failure(sender, READ, call)
        assert isinstance(error, APIConnectionError)
        assert not error.request_sent
        assert call.attempts == 0
        assert f"no connection to 127.0.0.1:{server.port}: Too many open files; " in str(error)
        assert "lower max_concurrency" in str(error)
        assert "within max_elapsed (20 s)" in str(error)
        assert 19 <= asyncio.get_running_loop().time() <= 20


# --- time limits ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_silence_is_limited() -> None:
    """``read`` limits the time between two arrivals of data."""
    async with between((asyncio.Event(),), retry=ONCE, timeout=Timeout(read=3, total=60)) as (sender, server):
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert isinstance(error, TimeoutError)
        assert error.request_sent
        assert str(error) == f"nothing came from 127.0.0.1:{server.port} for 3 s"
        assert 3 <= asyncio.get_running_loop().time() <= 3.5


@in_virtual_time
async def test_a_slow_drip_is_limited_in_all() -> None:
    """A response whose bytes keep arriving is limited by ``total``."""
    drip = [step for byte in OK[:-1] for step in (0.5, bytes([byte]))]
    limits = Timeout(read=3, total=20)
    async with between((*drip,), retry=ONCE, timeout=limits) as (sender, server):
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert str(error) == f"nothing came from 127.0.0.1:{server.port} for 3 s"  # of the answer: half a header
    head, _, body = OK.partition(b"\r\n\r\n")
    drip = [step for byte in body for step in (1.0, bytes([byte]))]
    async with between((head + b"\r\n\r\n", *drip), retry=ONCE, timeout=limits) as (sender, server):
        began = asyncio.get_running_loop().time()
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert str(error) == f"no whole answer from 127.0.0.1:{server.port} within 20 s"
        assert 20 <= asyncio.get_running_loop().time() - began <= 23


@in_virtual_time
async def test_an_answer_that_stops_half_way_is_silence() -> None:
    """The ``read`` limit also applies within the body."""
    async with between((OK[:-5], asyncio.Event()), retry=ONCE, timeout=Timeout(read=3)) as (sender, _):
        error = await failure(sender, READ)
        assert isinstance(error, APITimeoutError)
        assert 3 <= asyncio.get_running_loop().time() <= 4


@in_virtual_time
async def test_limits_are_those_of_one_attempt() -> None:
    """Each attempt has the full time limits."""
    async with between((asyncio.Event(),), (4.0, OK), timeout=5) as (sender, _server):
        call = CallState()
        await sender.send(CANCEL, call)
        assert call.attempts == 2


@in_virtual_time
async def test_the_views_of_a_client_have_their_own_limits() -> None:
    """A short limit of one view is enforced on time although a long one of another was set first."""
    async with between((asyncio.Event(),), retry=ONCE) as (sender, _):
        long = asyncio.create_task(sender.send(READ, CallState()))
        await asyncio.sleep(0.1)
        short = sender.with_config(sender.config.with_options(timeout=1))
        began = asyncio.get_running_loop().time()
        assert isinstance(await failure(short, READ), APITimeoutError)
        assert asyncio.get_running_loop().time() - began < 2
        assert not long.done()
        with pytest.raises(APITimeoutError):
            await long
        assert asyncio.get_running_loop().time() < 35


async def test_a_connection_that_does_not_come_about_is_limited() -> None:
    """``connect`` limits the attempt to connect, and a request that was never sent may be sent again."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        limits = Timeout(connect=0.05, read=5, total=5)
        sender = transport(
            f"http://127.0.0.1:{port}", retry=RetryPolicy(max_attempts=2, base_delay=0), timeout=limits
        )
        call = CallState()
        error = await failure(sender, CREATE, call)
        await sender.state.close()
        for caller in callers:
            caller.close()
    assert type(error) is APITimeoutError
    assert not error.request_sent
    assert call.attempts == 2
    assert str(error) == f"no connection to 127.0.0.1:{port} within 0.05 s; given up after 2 attempts"


@in_virtual_time
async def test_a_limit_of_the_callers_is_the_callers() -> None:
    """An ``asyncio.timeout`` of the caller raises as such, also at the moment when a limit of ours expires."""
    async with between((asyncio.Event(),), retry=ONCE, timeout=2) as (sender, _):
        for limit in (1, 1.75, 2, 2.25):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(limit):
                    await sender.send(READ, CallState())
            assert isinstance(caught.value, APITimeoutError) == (limit > 2)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0


@in_virtual_time
async def test_a_limit_that_strikes_leaves_no_trace_in_the_task() -> None:
    """A task group and a timeout work as usual in a task after a limit has expired in it."""
    async with between((asyncio.Event(),), retry=ONCE, timeout=1) as (sender, _):
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            await failure(sender, READ)
            other = group.create_task(asyncio.sleep(0.5, "done"))
        assert other.result() == "done"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


class ClumsySession:
    """A session that turns a cancellation into an error of its own, as a library may."""

    closed = False
    auth = None

    async def request(self, *_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise aiohttp.ClientPayloadError from error


@in_virtual_time
async def test_a_limit_is_a_limit_whatever_comes_of_it() -> None:
    """The task is left unchanged even if the cancellation surfaced as another error."""
    config = Config.from_env({}, api_key=KEY, base_url="http://127.0.0.1:1", timeout=1, retry=ONCE)
    session: Any = ClumsySession()
    sender = Transport(config, ClientState(session, max_concurrency=1, clock=asyncio.get_running_loop().time))
    assert type(await failure(sender, READ)) is APITimeoutError
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_a_cancelled_call_is_cancelled() -> None:
    """A cancelled call ends at once: under way, in its back-off, at the cap, or waiting for a slot."""
    async with between((asyncio.Event(),), max_concurrency=1) as (sender, server):
        under_way = asyncio.create_task(sender.send(READ, CallState()))
        waiting = asyncio.create_task(sender.send(READ, CallState()))
        await asyncio.sleep(1)
        for task in (waiting, under_way):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.1)
        assert (len(server.requests), server.open) == (1, 0)
    async with between(OVERLOADED) as (sender, server):
        backing_off = asyncio.create_task(sender.send(READ, CallState()))
        await asyncio.sleep(0.1)
        backing_off.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backing_off
        assert len(server.requests) == 1


# --- event loops, processes and closed clients ----------------------------------------------------------------


def test_a_loop_of_another_library_is_refused_in_a_sentence() -> None:
    """Without an asyncio loop, as under trio, a call raises a clear error, whatever runs the coroutine."""
    sender = Transport(Config.from_env({}, api_key=KEY), ClientState(None, max_concurrency=1))
    with pytest.raises(UsageError, match="no asyncio event loop is running here; with trio"):
        sender.send(READ, CallState()).send(None)


def test_trio_is_recognised_where_no_call_is_made_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio is recognised before a bulk creates tasks, for which asyncio would raise its own error."""
    trio = SimpleNamespace(lowlevel=SimpleNamespace(in_trio_run=lambda: True))
    monkeypatch.setitem(sys.modules, "trio", trio)
    connection = ClientState(None, max_concurrency=1)
    with pytest.raises(UsageError, match="with trio or curio, call Batches in a worker thread"):
        connection.check()
    with pytest.raises(UsageError, match="with trio or curio, call Batches in a worker thread"):
        _ = AsyncBatches(KEY).files
    trio.lowlevel.in_trio_run = lambda: False
    connection.check()


@pytest.mark.parametrize("session", ["x", 5, object()], ids=stable)
def test_a_session_is_a_session(session: Any) -> None:
    """An invalid session is refused when the client is created."""
    with pytest.raises(UsageError, match=r"^session must be an aiohttp\.ClientSession"):
        ClientState(session, max_concurrency=1)


def test_a_connection_belongs_to_one_loop() -> None:
    """A connection raises an error on another loop, also when all its slots are taken."""
    sender = Transport(Config.from_env({}, api_key=KEY), ClientState(None, max_concurrency=1))

    async def hold() -> None:
        async with sender.state.slots:
            sender.state.session()
            await sender.state.close()

    async def use() -> None:
        await sender.send(READ, CallState())

    asyncio.run(hold())
    sender.state.closed = False
    with pytest.raises(UsageError, match="belongs to another event loop"):
        asyncio.run(use())

    async def take_a_slot() -> None:
        await sender.state.slots.acquire()

    asyncio.run(take_a_slot())
    with pytest.raises(UsageError, match="belongs to another event loop"):
        asyncio.run(use())


async def test_a_closed_connection_says_so(emulator: object) -> None:
    """A closed connection raises an error, and may be closed twice."""
    sender = transport("http://127.0.0.1:1")
    await sender.state.close()
    await sender.state.close()
    with pytest.raises(UsageError, match="this client is closed"):
        await sender.send(READ, CallState())


@pytest.mark.parametrize("moment", ["under way", "in the back-off"])
def test_closing_ends_what_is_under_way(moment: str) -> None:
    """Closing ends a call with an error that says why, and that is not a failure of the service."""

    @in_virtual_time
    async def run() -> None:
        reply: Reply = (asyncio.Event(),) if moment == "under way" else OVERLOADED
        async with between(reply) as (sender, server):
            task = asyncio.create_task(sender.send(READ, CallState()))
            await asyncio.sleep(0.1)
            await sender.state.close()
            with pytest.raises(UsageError, match="closed"):
                await task
            assert len(server.requests) == 1

    run()


async def test_a_session_that_was_closed_elsewhere() -> None:
    """A session that the caller passed and closed raises an error that says whose it was."""
    session = aiohttp.ClientSession()
    config = Config.from_env({}, api_key=KEY, base_url="http://127.0.0.1:1")
    sender = Transport(config, ClientState(session, max_concurrency=1))
    await session.close()
    with pytest.raises(UsageError, match="the session that this client was given is closed"):
        await sender.send(READ, CallState())


@in_virtual_time
async def test_a_session_that_is_closed_elsewhere_meanwhile() -> None:
    """A session that is closed while a call waits for a permit is not a failure of the service, and not retried."""
    async with RawServer(OK) as server:
        session = aiohttp.ClientSession()
        config = Config.from_env({}, api_key=KEY, base_url=server.base_url)
        clock = asyncio.get_running_loop().time
        sender = Transport(config, ClientState(session, max_concurrency=1, clock=clock))
        bulk = sender.bulk(1)
        await sender.send(READ, bulk.call())
        waiting = asyncio.create_task(sender.send(READ, bulk.call()))
        await asyncio.sleep(0.5)
        await session.close()
        with pytest.raises(UsageError, match="the session that this client was given was closed"):
            await waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a fork precedes any about loops, so that a child with its own loop is not misled."""
    sender = transport_without_loop()
    monkeypatch.setattr(os, "getpid", lambda: -1)

    async def use() -> None:
        with pytest.raises(UsageError, match="made in another process"):
            await sender.send(READ, CallState())
        await sender.state.close()

    asyncio.run(use())


def transport_without_loop() -> Transport:
    async def make() -> Transport:
        sender = transport("http://127.0.0.1:1")
        sender.state.session()
        await sender.state.close()
        sender.state.closed = False
        return sender

    return asyncio.run(make())


def test_time_is_virtual_here() -> None:
    """Time is virtual in these tests, because they would take minutes otherwise."""
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600
    loop.close()


# --- a service that has never answered -------------------------------------------------------------------------


@asynccontextmanager
async def out_of_reach(**options: object) -> AsyncIterator[Transport]:
    """Yield a transport to a port without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        sender = transport(f"http://127.0.0.1:{found.getsockname()[1]}/v1", **options)
        try:
            yield sender
        finally:
            await sender.state.close()


def test_the_first_silence_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The first failed attempt is logged once, at once, and with stable field names."""

    @in_virtual_time
    async def play() -> None:
        async with out_of_reach() as sender:
            for _ in range(2):
                assert (await failure(sender, READ)).is_transient
            (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert vars(warning)["base_url"] == sender.config.base_url
            assert warning.getMessage().startswith(f"no answer yet from {sender.config.base_url} (")
            assert warning.getMessage().endswith("tried again for up to 60 s")

    play()


def test_a_service_that_takes_a_request_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Silence is logged within seconds, before the limit of the attempt, unless the service has answered before."""

    @in_virtual_time
    async def play() -> None:
        async with between((20.0,), http(200, job()), (20.0,), retry=ONCE) as (sender, _):
            for _ in range(3):
                with suppress(APIConnectionError):
                    await sender.send(READ, CallState())
            (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert re.fullmatch(r"no answer yet from http.*, and nothing for [5-6] s; still waiting", warning.message)

    play()


@in_virtual_time
async def test_a_service_that_never_answers_is_given_up() -> None:
    """The error is not transient after ``first_contact`` seconds, so that calls that wait out outages end as well."""
    loop = asyncio.get_running_loop()
    async with out_of_reach(retry=RetryPolicy(max_attempts=3, base_delay=8, first_contact=60)) as sender:
        began = loop.time()
        while (error := await failure(sender, READ)).is_transient:  # noqa: ASYNC110  # a poll is what is tested
            await asyncio.sleep(20)
        assert 60 <= loop.time() - began < 90
        assert "has not answered this client once in 60 s: check the base URL, the network and the proxy" in str(
            error
        )
        await asyncio.sleep(600)
        assert (await failure(sender, READ)).is_transient  # a new attempt after a break has the full time again


@in_virtual_time
async def test_a_service_that_has_answered_is_waited_for() -> None:
    """After any answer from the service an outage may last."""
    policy = RetryPolicy(max_attempts=1, first_contact=5)
    async with between(OVERLOADED, ("reset",), retry=policy) as (sender, _):
        for _ in range(10):
            assert (await failure(sender, READ)).is_transient
            await asyncio.sleep(10)
