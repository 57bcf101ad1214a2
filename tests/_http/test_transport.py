"""Sending with retries: what is repeated and when, what all calls share, and what stops them.

Time is virtual here: nothing waits for real, except for the few limits of sockets themselves.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from wires import AT_ONCE, KEY, ONCE, RawServer, http, in_virtual_time, job, transport

from _http.sender import CANCEL, CREATE, OK, OVERLOADED, READ, TOO_MANY, between, failure
from together_batches import (
    APIConnectionError,
    AuthenticationError,
    RateLimitError,
    RetryPolicy,
)
from together_batches._http.client_state import CallState, ClientState
from together_batches._http.retry import Budget
from together_batches._http.transport import Transport
from together_batches.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wires import Reply

    from together_batches._protocol.jobs import Request


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


@in_virtual_time
async def test_a_call_may_be_sent_once_whatever_the_policy_says() -> None:
    """A call with a limit of its own is not retried either."""
    async with between(OVERLOADED) as (sender, server):
        call = CallState()
        call.max_attempts = 1
        error = await failure(sender, READ, call)
        assert len(server.requests) == 1
        assert error.message == "overloaded"


@pytest.mark.parametrize(("reply", "expected"), [(TOO_MANY, False), (OVERLOADED, True), (b"", True)])
def test_what_an_earlier_attempt_may_have_done_is_known(reply: Reply, expected: bool) -> None:
    """A call knows whether one of its failed attempts may have had its effect."""

    @in_virtual_time
    async def run() -> None:
        async with between(reply, OK, retry=AT_ONCE) as (sender, _):
            call = CallState()
            await sender.send(CANCEL, call)
            assert (call.attempts, call.may_have_been_taken) == (2, expected)

    run()


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
        assert (call.attempts, call.requested_at) == (0, None)
        assert f"no connection to 127.0.0.1:{server.port}: Too many open files; " in str(error)
        assert "lower max_concurrency" in str(error)
        assert "within max_elapsed (20 s)" in str(error)
        assert 19 <= asyncio.get_running_loop().time() <= 20


# --- a service that has never answered -------------------------------------------------------------------------


@asynccontextmanager
async def out_of_reach(**options: Any) -> AsyncIterator[Transport]:
    """Yield a transport to a port without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        sender = transport(f"http://127.0.0.1:{found.getsockname()[1]}/v1", **options)
        try:
            yield sender
        finally:
            await sender.state.close()


@pytest.mark.parametrize(("attempts", "times"), [(5, "5 times"), (1, "1 time")])
def test_the_first_silence_is_reported(caplog: pytest.LogCaptureFixture, attempts: int, times: str) -> None:
    """The first failed attempt is logged once, at once, and with stable field names."""

    @in_virtual_time
    async def play() -> None:
        async with out_of_reach(retry=RetryPolicy(max_attempts=attempts)) as sender:
            for _ in range(2):
                assert (await failure(sender, READ)).is_transient
            (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert vars(warning)["base_url"] == sender.config.base_url
            assert warning.getMessage().startswith(f"no answer yet from {sender.config.base_url} (")
            assert warning.getMessage().endswith(f"each call is tried up to {times}, for up to 60 s")

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
