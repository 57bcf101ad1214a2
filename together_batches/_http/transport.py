"""Transport: one request out, one response or one typed error back.

Retries are here and not in an aiohttp middleware, because whether a request may be repeated depends on the call,
which a middleware does not know. Apart from the emulator, only this package imports aiohttp.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import os
import random
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from together_batches._http import content_coding, network_errors, retry
from together_batches._http.capacity import Capacity
from together_batches._http.network_errors import NETWORK_ERRORS
from together_batches._http.rate_limit_queue import RateLimitQueue
from together_batches._http.rate_limiter import AdaptiveRateLimiter, FixedRate
from together_batches._http.redaction import Redactor
from together_batches._http.sockets import open_socket
from together_batches._http.timeouts import RequestTimeout, TimeoutMonitor
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol import refusals
from together_batches._protocol.jobs import EXCERPT_BYTES, Answer, Request
from together_batches._version import __version__
from together_batches.config import Config, Secret
from together_batches.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    RateLimitError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import SimpleNamespace

    Exchange = Callable[[aiohttp.ClientSession, Request], Awaitable["Answer | RequestFailure[APIError]"]]
    """One attempt: an answer, or why there is none."""

__all__ = [
    "AGENT",
    "LONGEST_HEADER_BYTES",
    "MOST_HEADERS",
    "BulkContext",
    "CallState",
    "ClientState",
    "RequestFailure",
    "Transport",
]

_log = logging.getLogger("together_batches")

AGENT = f"together-batches/{__version__} aiohttp/{aiohttp.__version__}"
"""User agent: Cloudflare, in front of the service, rejects some libraries' default agents with a 403."""
_SMALLEST_BUDGET = 100
LONGEST_HEADER_BYTES = (1 << 16) + 512
"""Maximum bytes of a header: a 64 KB value and its name. Gateways and login pages far exceed the usual 8 KB."""
MOST_HEADERS = 1_000
_MOST_REDIRECTS = 5
_LONGEST_BREAK_SECONDS = 120.0
"""Seconds without an attempt after which a count of silence restarts: waiting callers retry within a minute."""
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_MOST_EXCERPT_BYTES = 16 << 20
_SHORT_EXCERPT_BYTES = 1 << 10
_NO_HEADERS: Mapping[str, str] = {}
_GOOD = range(200, 300)
_PERHAPS_THE_PROXY = frozenset({403, 502, 503, 504})
"""Statuses that a proxy may send in its own name instead of a tunnel, indistinguishable from the service's."""


E = TypeVar("E", bound=APIError, covariant=True)


@attrs.frozen
class RequestFailure(Generic[E]):
    """The reason why an attempt has no usable answer. Returned and not raised: see :meth:`Transport.begin`."""

    error: E
    out_of_connections: bool = False


class CallState:
    """The state of a call across its attempts: its bulk, if any, and the number of attempts.

    ``seconds`` is the duration of the last attempt, ``waited`` the seconds that it waited for a permit before.
    ``answer`` is the text of a successful response, for a caller that keeps it.
    """

    __slots__ = ("answer", "attempts", "bulk", "seconds", "waited")

    def __init__(self, bulk: BulkContext | None = None) -> None:
        self.answer: bytes | None = None
        self.attempts = 0
        self.bulk = bulk
        self.seconds = 0.0
        self.waited = 0.0


class BulkContext:
    """The shared state of the calls of one bulk: a cap on their rate, and a refused key that stops them all."""

    def __init__(self, queue: RateLimitQueue | None) -> None:
        self.queue = queue
        self.refusal: AuthenticationError | None = None
        self.limited = queue is not None
        self.session: aiohttp.ClientSession | None = None
        self._excerpt_bytes_left = _MOST_EXCERPT_BYTES

    def call(self) -> CallState:
        """Return a new call of this bulk. The creator of a bulk decides how many of its calls run at once."""
        return CallState(self)

    def keep(self, size: int) -> int:
        """Return how many bytes of a refusal of ``size`` its error keeps: a report may hold very many of them."""
        kept = min(size, EXCERPT_BYTES if self._excerpt_bytes_left > 0 else _SHORT_EXCERPT_BYTES)
        self._excerpt_bytes_left -= kept
        return kept

    def refuse(self, reason: AuthenticationError) -> None:
        """Stop all further calls of this bulk, including those that wait for a permit."""
        self.refusal = reason
        self.limited = True
        if self.queue is not None:
            self.queue.release_all()


def _utc_now() -> datetime:
    return datetime.now(UTC)


_SILENT_SECONDS = 5.0
"""Seconds of silence from a service that has never answered before a warning is logged."""


class Silence:
    """The time for which a service that has never answered has been tried in vain, without long breaks."""

    def __init__(self) -> None:
        self.is_reported = False
        self._since = self._last = -math.inf

    def lasts(self, sent_at: float, now: float) -> float:
        """Return the seconds from the first failed attempt to ``now``, when an attempt made at ``sent_at`` failed."""
        if sent_at - self._last > _LONGEST_BREAK_SECONDS:
            self._since = sent_at  # tried again after a break: the cause may be fixed
        self._last = now
        return now - self._since


class ClientState:
    """The state that all views of a client share: the session, its event loop, the rate limiter, the retry budget."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        *,
        max_concurrency: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        if session is not None and not callable(getattr(session, "request", None)):
            message = f"session must be an aiohttp.ClientSession; it is of type {type(session).__name__}"
            raise UsageError(message)
        if session is not None and session.auth is not None:
            message = "the session has a login of its own (auth=), which would take the place of the key"
            raise UsageError(message)
        self.clock = clock
        self.sleep = sleep
        self.chance = chance
        self.now = now
        self.limiter = AdaptiveRateLimiter()
        self.queue = RateLimitQueue(self.limiter, clock)
        self.timeouts = TimeoutMonitor(clock)
        self.capacity: Capacity | None = None  # created when the machine runs out of connections for the first time
        self.budget = retry.Budget(max(_SMALLEST_BUDGET, 5 * max_concurrency))
        self.slots = asyncio.Semaphore(max_concurrency)
        self.closed = False
        self.has_answered = False
        self.silence = Silence()
        self.headers: CIMultiDict[str] | None = None
        self.has_proxy = False
        self._session = session
        self.owns_session = session is None
        self._keyless: aiohttp.ClientSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # set when the session is first used
        self._process = os.getpid()

    def set_default_headers(self, headers: CIMultiDict[str]) -> None:
        """Send these ``headers`` with all requests, if the session is ours. Only the first call has an effect.

        They are those of the client that the views come from: a view may add headers, and omits none of them.
        """
        if self.headers is None and self.owns_session:
            self.headers = headers

    def session(self) -> aiohttp.ClientSession:
        """Return the session, opened on the running loop; raise :class:`UsageError` if it cannot be used here."""
        if self.closed or self._process != os.getpid():
            self.check()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(_NO_LOOP) from None
        if self.loop is not loop:
            self._adopt(loop)
        if self._session is not None and self._session.closed:
            message = "the session that this client was given is closed"
            raise UsageError(message)
        if self._session is None:
            # No limit on the pool: the callers decide how many calls run at once. No cookies: the service needs none,
            # and the gateway's would only add weight.
            connector = aiohttp.TCPConnector(limit=0, socket_factory=open_socket)
            self._session = self._plain_session(connector, owner=True, headers=self.headers)
        return self._session

    def session_of(self, bulk: BulkContext) -> aiohttp.ClientSession:
        """Return the session for a call of a bulk. Only the first call checks where it is used.

        All calls of a bulk are made on one loop, and only a system call returns the current loop and process.
        """
        if bulk.session is None or self.closed:
            bulk.session = self.session()
        return bulk.session

    def keyless_session(self) -> aiohttp.ClientSession:
        """Return a session over the same connections that adds neither a key nor a cookie of its own."""
        if self._keyless is None or self._keyless.closed:
            self._keyless = self._plain_session(self.session().connector, owner=False, headers=None)
        return self._keyless

    def _plain_session(
        self, connector: aiohttp.BaseConnector | None, *, owner: bool, headers: CIMultiDict[str] | None
    ) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=owner,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            # They cost time with each request, and only with a proxy is it unclear whether a request was sent.
            trace_configs=[_notes_what_is_sent()] if self.has_proxy else None,
        )
        # aiohttp itself resends a GET, PUT or DELETE when a connection breaks: retries belong to this module.
        session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        return session

    @property
    def lost_session(self) -> bool:
        """True if the session was closed by other code than this client."""
        return self._session is not None and self._session.closed

    def limit_connections(self) -> Capacity:
        """Record that this machine has run out of connections, and return the resulting limit."""
        if self.capacity is None:
            self.capacity = Capacity(lambda: self.timeouts.under_way)
        self.capacity.ran_out()
        return self.capacity

    def check(self) -> None:
        """Refuse a closed client, and one in a forked child, where asyncio hides the running loop."""
        if self._process != os.getpid():
            message = "this client was made in another process; make a new one after a fork"
            raise UsageError(message)
        if self.closed:
            message = "this client is closed"
            raise UsageError(message)
        self.check_library()

    def check_library(self) -> None:
        """Refuse an event loop other than asyncio's, with a clear message, before asyncio raises its own."""
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise UsageError(_NO_LOOP) from None

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is not None:
            message = "this client belongs to another event loop; make one for each loop, inside it"
            raise UsageError(message)
        self.loop = loop

    async def close(self) -> None:
        """Close the session, if it is ours. May be called twice."""
        if self._process != os.getpid():
            return  # a fork shares the sockets and the selector: closing them here would affect the parent
        self.closed = True
        keyless, self._keyless = self._keyless, None
        session, self._session = self._session, None
        if keyless is not None:
            await keyless.close()
        if session is not None and self.owns_session:
            await session.close()


_NO_LOOP = (
    "AsyncBatches runs on asyncio, and no asyncio event loop is running here; with trio or curio, call Batches in a "
    "worker thread"
)


def _notes_what_is_sent() -> aiohttp.TraceConfig:
    """Return a trace that records on the attempt that the request itself was sent, after the steps of a proxy."""

    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace


class Transport:
    """Sends requests under one configuration over a shared connection."""

    def __init__(self, config: Config, connection: ClientState) -> None:
        self.config = config
        self.state = connection
        limits = config.timeout
        # Only the connect limit is aiohttp's; the timeout monitor enforces the others.
        self.limits = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect)
        self.ssl = True if config.ssl is None else config.ssl
        self.proxy, proxy_login = _without_login(config.proxy)
        self.proxy_login = proxy_login
        # A proxy for TLS gets its login with the request for the tunnel, any other one with each request.
        tunnel = config.base_url.startswith("https:")
        self._proxy_headers = proxy_login if tunnel else None
        self._headers = CIMultiDict(
            {
                "User-Agent": AGENT,
                "Accept": "application/json",
                "Content-Type": "application/json",
                **config.headers,
                **({} if tunnel else proxy_login),
                "Authorization": Secret(f"Bearer {config.api_key}"),
            }
        )
        if self.proxy is None:  # aiohttp sends a proxy the headers of all requests: our key, too
            connection.set_default_headers(self._headers)
        else:
            connection.has_proxy = True
        self.headers_to_add = None if self._headers is connection.headers else self._headers
        self._redactor = redactor = Redactor(config.api_key, {**config.headers, **_logins(config.proxy)})
        self.redact = redactor.text
        self._base = config.base_url
        self._root = URL(config.base_url, encoded=True)
        self._path = self._root.raw_path

    def with_config(self, config: Config) -> Self:
        """Return a transport with another configuration over the same connection."""
        return type(self)(config, self.state)

    def bulk(self, rate: float | None) -> BulkContext:
        """Return a new bulk of calls, with its own cap on sends a second if ``rate`` is given."""
        self.state.check()
        return BulkContext(None if rate is None else RateLimitQueue(FixedRate(rate), self.state.clock))

    def send(self, request: Request, call: CallState) -> Coroutine[Any, Any, Answer]:
        """Send ``request`` and return its successful response (2xx).

        Retries as the policy and the budget allow. A call outside a bulk takes one of the client's slots. Raises an
        :class:`APIError` of the matching kind, or a :class:`UsageError` if the client cannot be used here and now.
        """
        if call.bulk is not None:
            return self._send(request, call, self._exchange, _GOOD)
        return self.send_alone(request, call, self._exchange)

    async def send_alone(self, request: Request, call: CallState, exchange: Exchange, good: range = _GOOD) -> Answer:
        """Send ``request`` and return an answer whose status is in ``good``; ``exchange`` makes one attempt.

        Takes one of the client's slots meanwhile; retries and raises as :meth:`send` does.
        """
        self.state.session()  # raises its own error before the semaphore raises asyncio's
        async with self.state.slots:
            return await self._send(request, call, exchange, good)

    async def _send(self, request: Request, call: CallState, exchange: Exchange, good: range) -> Answer:
        state = self.state
        limiter = state.limiter
        policy = self.config.retry
        bulk = call.bulk
        attempt = shortages = 0
        began = sent_at = state.clock()
        while True:
            session = state.session() if bulk is None else state.session_of(bulk)
            limited = bulk is not None and bulk.limited
            if limited or (limiter.is_active and not state.queue.try_acquire()):
                began += await self._wait_for_rate_limit(call, began + policy.max_elapsed)
                sent_at = state.clock()
            attempt += 1
            call.attempts += 1
            if not state.has_answered:
                state.timeouts.on_silence = self._note_silence
            try:
                outcome = await exchange(session, request)
            except BaseException:
                limiter.on_unanswered()
                raise
            now = state.clock()
            call.seconds = now - sent_at
            if state.capacity is not None:
                state.capacity.leave(answered=isinstance(outcome, Answer))
            if isinstance(outcome, Answer):
                state.has_answered = True
                if outcome.status in good:
                    if limiter.is_active:
                        self._note_accepted(outcome, now, sent_at)
                    state.budget.succeeded()
                    return outcome
                headers = outcome.headers
                failure = self._refusal(outcome, now, sent_at, bulk)
            else:
                limiter.on_unanswered()
                headers = _NO_HEADERS
                failure = outcome.error
                if outcome.out_of_connections:
                    # Nothing was sent, and the service is not involved: not an attempt.
                    attempt -= 1
                    call.attempts -= 1
                    shortages += 1
                    await self._wait_for_connections(failure, began + policy.max_elapsed, shortages)
                    sent_at = state.clock()
                    continue
                if not state.has_answered and isinstance(failure, APIConnectionError) and failure.is_transient:
                    self._check_first_contact(failure, sent_at)
            wait = retry.delay(
                request,
                failure,
                headers,
                attempt=attempt,
                policy=policy,
                seconds_left=began + policy.max_elapsed - state.clock(),
                budget=state.budget,
                chance=state.chance,
            )
            if wait is None:
                raise failure
            _log.debug(
                "%s %s: attempt %d failed (%s); again in %.2f s",
                request.method,
                request.path,
                attempt,
                failure,
                wait,
                extra={"method": request.method, "path": request.path, "attempt": attempt, "wait": wait},
            )
            await state.sleep(wait)
            sent_at = state.clock()
            call.waited = 0.0

    def _note_silence(self, seconds: float) -> None:
        """Warn once of silence from a service that has never answered: its first time limit may be far away."""
        there, silence = self.state, self.state.silence
        if there.has_answered or silence.is_reported:
            there.timeouts.on_silence = None
        elif seconds >= _SILENT_SECONDS:
            silence.is_reported = True
            _log.warning(
                "no answer yet from %s, and nothing for %.0f s; still waiting",
                self._base,
                seconds,
                extra={"base_url": self._base, "first_contact": self.config.retry.first_contact},
            )

    def _check_first_contact(self, failure: APIConnectionError, sent_at: float) -> None:
        """Warn once that a service which has never answered is unreachable, and raise ``failure`` if that lasts.

        A wrong base URL, proxy or network does not repair itself, and all callers would wait in silence.
        """
        silence, limit = self.state.silence, self.config.retry.first_contact
        seconds = silence.lasts(sent_at, self.state.clock())
        if seconds < limit:
            if not silence.is_reported:
                silence.is_reported = True
                _log.warning(
                    "no answer yet from %s (%s); tried again for up to %g s",
                    self._base,
                    failure,
                    limit,
                    extra={"base_url": self._base, "first_contact": limit},
                )
            return
        failure.message += (
            f"; {self._base} has not answered this client once in {limit:g} s: check the base URL, the network and "
            "the proxy"
        )
        failure.is_transient = False
        raise failure

    async def _wait_for_connections(self, failure: APIError, deadline: float, shortages: int) -> None:
        """Wait until fewer attempts are under way; raise ``failure`` if that takes longer than the policy allows."""
        state = self.state
        capacity = state.limit_connections()
        pause = min(_LONGEST_PAUSE_SECONDS, _SHORTEST_PAUSE_SECONDS * 2.0 ** min(shortages, 10))
        try:
            if state.clock() + pause > deadline:
                raise TimeoutError
            await state.sleep(pause)  # minimum: the open connections may belong to another part of the program
            await capacity.enter(max(0.0, deadline - state.clock()))
        except TimeoutError:
            failure.message += f"; none came free within max_elapsed ({self.config.retry.max_elapsed:g} s)"
            raise failure from None

    def is_ours(self, url: str) -> bool:
        """Return True for a URL of the service: the answers of a storage do not concern the rate limiter."""
        return url.startswith(self._base)

    def _note_accepted(self, answer: Answer, now: float, sent_at: float) -> None:
        """Report an accepted call to the limiter. A storage does not count in the rate of the service."""
        there = self.state
        if self.is_ours(answer.url):
            there.limiter.on_accepted(now, sent_at=sent_at)
        else:
            there.limiter.on_unanswered()
        there.queue.look_again()

    def _refusal(self, answer: Answer, now: float, sent_at: float, bulk: BulkContext | None) -> APIError:
        """Return the error for an answer, and report the answer to the limiter."""
        state = self.state
        proxy = self.proxy if answer.url.startswith("http:") else None
        if proxy is not None and answer.status == 407:
            message = network_errors.refused_by_proxy(f"the proxy {proxy.host_port_subcomponent}", 407)
            state.limiter.on_unanswered()
            return self._error_without_answer(answer.request, message, sent=False, transient=False)
        keep = None if bulk is None else bulk.keep(len(answer.body))
        ours = self.is_ours(answer.url)
        if answer.status == 429:
            advised = retry.retry_after(answer.headers)
            if ours:
                limit = retry.limit(answer.headers)
                state.limiter.on_refused(now, sent_at=sent_at, retry_after=advised, limit=limit)
            else:
                state.limiter.on_unanswered()
            return refusals.error_of(answer, retry_after=advised, keep=keep)
        self._note_accepted(answer, now, sent_at)
        if answer.status < 400:
            return job_protocol.invalid_response(answer, "an answer", _describe_unexpected(answer))
        error = refusals.error_of(answer, keep=keep)
        if proxy is not None and answer.status in _PERHAPS_THE_PROXY:
            error.message += f" (perhaps by the proxy {proxy.host_port_subcomponent}, through which it came)"
        return error

    async def _wait_for_rate_limit(self, call: CallState, deadline: float) -> float:
        """Wait for the caller's own cap and for the shared rate limiter.

        Returns the seconds that the cap took: the caller set it, so they do not count against the call.
        """
        state = self.state
        bulk = call.bulk
        queued = 0.0
        if bulk is not None:
            if bulk.refusal is not None:
                raise bulk.refusal
            if bulk.queue is not None:
                queued = await bulk.queue.acquire(None)
                call.waited += queued
        left = deadline + queued - state.clock()
        hold = state.limiter.blocked_for(state.clock())
        try:
            if hold > left:
                raise TimeoutError
            call.waited += await state.queue.acquire(left)
        except TimeoutError:
            rate = state.limiter.rate
            allowed = f"about {rate:.3g} requests/s allowed" if rate else "the allowed rate is not known yet"
            if hold:
                allowed = f"all requests are refused, the next one is sent in {hold:.3g} s"
            elapsed = f"max_elapsed={self.config.retry.max_elapsed:g} s"
            message = f"rate limited ({allowed}); gave up, since this call would not be sent within {elapsed}"
            raise RateLimitError(message, retry_after=hold or None) from None
        if bulk is not None and bulk.refusal is not None:
            state.limiter.on_unanswered()
            raise bulk.refusal
        return queued

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> Answer | RequestFailure[APIError]:
        """Make one attempt of an ordinary request."""
        attempt = self.begin(self.config.timeout.total)
        trouble: BaseException | None = None
        try:
            return await self._hops(session, request, attempt)
        except (asyncio.CancelledError, *NETWORK_ERRORS) as error:
            trouble = attempt.classify(error)
        finally:
            self.state.timeouts.end(attempt)
        return self.failure(trouble, request, attempt)

    async def _hops(
        self, session: aiohttp.ClientSession, request: Request, attempt: RequestTimeout
    ) -> Answer | RequestFailure[APIError]:
        """Return the answer at the end of the redirects, within the origin and up to a maximum number."""
        url, place = self._base + request.path, self._place(request.path)
        hops = 0
        while True:
            # Not as a context manager, because reading an answer to its end closes it.
            response = await session.request(
                request.method,
                place,
                data=request.body,
                headers=self.headers_to_add,
                timeout=self.limits,
                proxy=self.proxy,
                proxy_headers=self._proxy_headers,
                ssl=self.ssl,
                # The key goes to its destination and nowhere else, so redirects are checked first.
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                max_line_size=LONGEST_HEADER_BYTES,
                max_field_size=LONGEST_HEADER_BYTES,
                max_headers=MOST_HEADERS,
                trace_request_ctx=attempt,
            )
            attempt.status = response.status
            content = attempt.progress = response.content
            # A short answer is complete when its head is. But a session that the caller passed may have hooks that
            # read it first, and then only the response still has it.
            whole = self.state.owns_session and content.is_eof()
            body = content.read_nowait() if whole else await self.read(response, request)
            if not response.closed:
                response.close()  # a switch to another protocol (101) would keep its connection open
            answer = self.answer(request, url, response, body)
            if not isinstance(answer, Answer) or not 300 <= answer.status < 400 or hops == _MOST_REDIRECTS:
                return answer
            target = _followed(answer)
            if target is None:
                return answer
            hops += 1
            attempt.status = None
            place = URL(target, encoded=True)
            url = str(place.with_query(None))  # a query may contain a signature
            attempt.place = str(place.origin())

    def begin(self, total: float) -> RequestTimeout:
        """Start an attempt of this task under its limits, ``total`` seconds in all; report its end to the monitor.

        If it has no answer, the reason is a :meth:`failure`, returned and not raised, so that it carries none of
        aiohttp's frames: their variables hold the headers, and the headers hold the key.
        """
        state = self.state
        task = asyncio.current_task(state.loop)
        assert task is not None  # noqa: S101  # a coroutine that runs has one
        attempt = RequestTimeout(task, state.clock(), self.config.timeout.read, total)
        if self.proxy is not None and state.owns_session:
            attempt.sent = False
        state.timeouts.begin(attempt)
        return attempt

    def _place(self, path: str) -> URL:
        if "?" in path:
            return URL(self._base + path, encoded=True)
        # Built from the known parts of the base: parsing the whole URL takes twice the time.
        return self._root.with_path(self._path + path, encoded=True)

    async def read(self, response: aiohttp.ClientResponse, request: Request) -> bytes:
        """Return the body of an answer, or only its beginning, of more than the limit, if it is longer."""
        content = response.content
        if content.at_eof():
            return await response.read()  # empty, or read by a hook of the session, and then kept in the response
        # Not response.read(), which has no limit, and waits until our own body is sent: a refusal may arrive before.
        most = _most(request, response.status)
        parts: list[bytes] = []
        size = 0
        whole = False
        try:
            async for part in content.iter_any():
                parts.append(part)
                size += len(part)
                if size > most:
                    break
            else:
                whole = True
        finally:
            if not whole:
                response.close()
        return b"".join(parts)

    def answer(
        self, request: Request, url: str, response: aiohttp.ClientResponse, body: bytes
    ) -> Answer | RequestFailure[APIError]:
        """Return the response: decoded, of bounded size, without secrets. Data that is not kept cannot leak."""
        headers: Mapping[str, str] = response.headers
        refused = response.status >= 400
        # aiohttp undoes one compression, that of the last header. It leaves lists and unknown labels as they are.
        if body and "Content-Encoding" in headers:
            names = content_coding.compressions(", ".join(response.headers.getall("Content-Encoding")))
            if response.content.total_compressed_bytes is not None:
                names = names[:-1]
            try:
                body = (
                    content_coding.decode(body, names, _most(request, response.status), whole=not refused)
                    if names
                    else body
                )
            except content_coding.CodingError as error:
                if not refused:
                    answer = Answer(request, url, response.status, headers, b"")
                    return RequestFailure(
                        job_protocol.invalid_response(answer, "an answer that can be read", str(error))
                    )
        redactor = self._redactor
        body = redactor.bad_body(body[:EXCERPT_BYTES]) if refused else redactor.good_body(body)
        if redactor.is_in(response.raw_headers):
            headers = CIMultiDict({name: redactor.text(text) for name, text in headers.items()})
        if response.status >= 300 and "Location" in headers:
            headers = CIMultiDict(headers)
            headers["Location"] = Secret(headers["Location"])
        answer = Answer(request, url, response.status, headers, body, self.redact)
        if not refused and len(body) > request.most_bytes:
            size = f"{request.most_bytes >> 20} MB"
            return RequestFailure(
                job_protocol.invalid_response(answer, f"of {size} or less, the limit for this call", "it is longer")
            )
        return answer

    def failure(
        self, error: BaseException | None, request: Request, attempt: RequestTimeout
    ) -> RequestFailure[APIConnectionError]:
        """Return why an attempt has no answer; raise :class:`UsageError` if the network is not the cause."""
        if self.state.closed:
            message = "this client was closed while the call was under way"
            raise UsageError(message)
        if isinstance(error, RuntimeError) and self.state.lost_session:
            message = "the session that this client was given was closed while the call was under way"
            raise UsageError(message)
        if isinstance(error, (aiohttp.InvalidURL, RuntimeError)):
            message = f"the request cannot be sent from here ({type(error).__name__})"
            raise UsageError(message)
        host = URL(attempt.place or self._base, encoded=True).host_port_subcomponent or ""
        found = network_errors.explain(error, attempt, host=host, proxy=self.proxy, timeout=self.config.timeout)
        failure = self._error_without_answer(
            request,
            found.message,
            sent=found.sent,
            transient=found.transient,
            status=attempt.status,
            kind=found.kind,
        )
        # An aiohttp error about another place may quote its whole URL.
        failure.__cause__ = network_errors.without_frames(error) if attempt.place is None else None
        return RequestFailure(failure, found.out_of_connections)

    def _error_without_answer(
        self,
        request: Request,
        message: str,
        *,
        sent: bool,
        transient: bool,
        status: int | None = None,
        kind: type[APIConnectionError] = APIConnectionError,
    ) -> APIConnectionError:
        return kind(
            self._redactor.text(message),
            method=request.method,
            url=self._base + request.path,
            request_sent=sent,
            status=status,
            is_transient=transient,
        )


def _most(request: Request, status: int) -> int:
    return request.most_bytes if status < 400 else EXCERPT_BYTES


def _without_login(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return a proxy's URL, and its login as a header: a URL would show itself in a dump of aiohttp's frames."""
    if proxy is None:
        return None, {}
    url = URL(proxy)
    if url.user is None and url.password is None:
        return url, {}
    login = base64.b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Proxy-Authorization": Secret(f"Basic {login}")}


def _logins(proxy: str | None) -> dict[str, str]:
    """Return the parts of its login that a proxy may echo, in the form of headers."""
    login = _without_login(proxy)[1].get("Proxy-Authorization")
    if proxy is None or login is None:
        return {}
    return {"Proxy-Authorization": login.removeprefix("Basic "), "Proxy-Password": URL(proxy).password or ""}


def _followed(answer: Answer) -> Secret | None:
    """Return the target of a redirect if it may be followed: same origin, unchanged request.

    A request that must not be repeated is not sent a second time, whatever the redirect says.
    """
    location = answer.headers.get("Location")
    same_request = (answer.status in {307, 308} and answer.request.repeatable) or (
        answer.request.method == "GET" and answer.status in {301, 302, 303}
    )
    if not location or not same_request:
        return None
    here = URL(answer.url, encoded=True)
    try:
        target = here.join(URL(location, encoded=True))
        return Secret(target) if target.origin() == here.origin() and target.user is None else None
    except ValueError:
        return None


def _describe_unexpected(answer: Answer) -> str:
    """Describe an answer that is neither successful nor an error."""
    location = answer.headers.get("Location")
    if not location:
        return f"its status is {answer.status}"
    # Only the origin: the rest of such a URL may be a signature.
    try:
        origin = str(URL(answer.url, encoded=True).join(URL(location, encoded=True)).origin())
    except ValueError:
        origin = "nowhere"
    return f"it is a redirect ({answer.status}) to {origin}"
