"""One attempt: what is sent, what a response becomes, its limits of size and time, what interrupts it.

Time is virtual here: nothing waits for real, except for the few limits of sockets themselves.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from wires import AT_ONCE, KEY, ONCE, RawServer, http, in_virtual_time, job, transport

from _http.sender import CANCEL, CREATE, OK, OVERLOADED, READ, between, failure
from together_batches import (
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
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
)
from together_batches._http.client_state import CallState, ClientState
from together_batches._http.transport import Transport
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.jobs import Request
from together_batches.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from wires import Reply


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


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 1)


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
        lambda: http(200, (17 << 20) * b" "),
        lambda: http(200, _packed((17 << 20) * b" "), headers={"Content-Encoding": "gzip"}),
        lambda: http(200, _packed((17 << 20) * b" "), headers={"Content-Encoding": "x-gzip"}),
    ],
    ids=["plain", "compressed", "compressed twice named"],
)
def test_an_answer_has_a_limit(reply: Callable[[], Reply]) -> None:
    """The limit is 16 MB, decoded, or 256 MB for a list; the error names it, and the call is not retried."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply(), retry=AT_ONCE) as (sender, server):
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
        lambda: http(403, "<title>No</title>" + (3 << 20) * "x", headers={"Content-Type": "text/html"}),
        lambda: (http(403, "<title>No</title>" + 100_000 * "x", length=1 << 40), asyncio.Event()),
        lambda: http(403, _packed(b"<title>No</title>" + bytes(30 << 20)), headers={"Content-Encoding": "gzip"}),
        lambda: http(403, _packed(b"<title>No</title>" + bytes(30 << 20)), headers={"Content-Encoding": "x-gzip"}),
    ],
    ids=["long", "endless", "compressed", "compressed under an old name"],
)
def test_a_refusal_keeps_an_excerpt(reply: Callable[[], Reply]) -> None:
    """A refusal keeps its first 64 KB, from which its message is taken, and no more is read."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply()) as (sender, server):
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


# --- time limits ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_silence_is_limited() -> None:
    """``read`` limits the time between two arrivals of data."""
    async with between((asyncio.Event(),), retry=ONCE, timeout=Timeout(read=3, total=60)) as (sender, server):
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert isinstance(error, TimeoutError)
        assert error.request_sent
        assert str(error) == f"no data came from 127.0.0.1:{server.port} for 3 s"
        assert 3 <= asyncio.get_running_loop().time() <= 3.5


@in_virtual_time
async def test_a_slow_drip_is_limited_in_all() -> None:
    """A response whose bytes keep arriving is limited by ``total``."""
    drip = [step for byte in OK[:-1] for step in (0.5, bytes([byte]))]
    limits = Timeout(read=3, total=20)
    async with between((*drip,), retry=ONCE, timeout=limits) as (sender, server):
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert str(error) == f"no data came from 127.0.0.1:{server.port} for 3 s"  # of the answer: half a header
    head, _, body = OK.partition(b"\r\n\r\n")
    drip = [step for byte in body for step in (1.0, bytes([byte]))]
    async with between((head + b"\r\n\r\n", *drip), retry=ONCE, timeout=limits) as (sender, server):
        began = asyncio.get_running_loop().time()
        error = await failure(sender, READ)
        assert type(error) is APITimeoutError
        assert str(error) == f"no complete response from 127.0.0.1:{server.port} within 20 s"
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
