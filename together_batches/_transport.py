"""One request out, one answer or one typed error back: the only room on this side that knows aiohttp.

Retries live here and not in an aiohttp middleware, because whether a request may be repeated is a question about the
call, which a middleware does not know.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from together_batches import _protocol, _retry
from together_batches._gate import Gate
from together_batches._pacing import Brake, Pace
from together_batches._protocol import Answer, Request
from together_batches._version import __version__
from together_batches._watch import Attempt, Watch
from together_batches.config import Config, Secret
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    RateLimitError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from together_batches._watch import Limit

    Exchange = Callable[[aiohttp.ClientSession, Request], Awaitable[Answer | APIConnectionError]]
    """One attempt: an answer, or why there is none."""

__all__ = ["AGENT", "TROUBLES", "Bulk", "Call", "Connection", "Transport"]

_log = logging.getLogger("together_batches")
_log.addHandler(logging.NullHandler())

AGENT = f"together-batches/{__version__} aiohttp/{aiohttp.__version__}"
"""Cloudflare, before the service, turns some libraries' default agents away with a 403."""
_SMALLEST_BUDGET = 100
_SHORTEST_SECRET = 8
"""A shorter key is one of a test, and stands in many an answer by accident."""
_MOST_REDIRECTS = 5
_NO_HEADERS: Mapping[str, str] = {}
_GOOD = range(200, 300)
TROUBLES = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""What aiohttp raises where no answer comes."""


class Call:
    """The side of a call that outlives its attempts: the bulk it is part of, if any, and how often it was sent.

    ``seconds`` is how long the last attempt took, ``waited`` how long it waited for its turn before.
    ``answer`` is the text of a good answer, for whoever keeps it.
    """

    __slots__ = ("answer", "attempts", "bulk", "seconds", "waited")

    def __init__(self, bulk: Bulk | None = None) -> None:
        self.answer: bytes | None = None
        self.attempts = 0
        self.bulk = bulk
        self.seconds = 0.0
        self.waited = 0.0


class Bulk:
    """What the calls of one bulk have in common: a cap on their rate, and a refused key that stops them all."""

    def __init__(self, gate: Gate | None) -> None:
        self.gate = gate
        self.refusal: AuthenticationError | None = None
        self.limited = gate is not None
        self.session: aiohttp.ClientSession | None = None

    def call(self) -> Call:
        """A call of this bulk. Those who make a bulk decide how many of its calls run at once."""
        return Call(self)

    def refuse(self, reason: AuthenticationError) -> None:
        """Let no further call of this bulk be sent, nor wait for its turn."""
        self.refusal = reason
        self.limited = True
        if self.gate is not None:
            self.gate.open()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Connection:
    """What all views of one client share: the session, the loop it belongs to, the brake, the retry budget."""

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
        if session is not None and session.auth is not None:
            message = "the session has a login of its own (auth=), which would take the place of the key"
            raise UsageError(message)
        self.clock = clock
        self.sleep = sleep
        self.chance = chance
        self.now = now
        self.brake = Brake()
        self.gate = Gate(self.brake, clock)
        self.watch = Watch(clock)
        self.budget = _retry.Budget(max(_SMALLEST_BUDGET, 5 * max_concurrency))
        self.slots = asyncio.Semaphore(max_concurrency)
        self.closed = False
        self.headers: CIMultiDict[str] | None = None
        self._session = session
        self.owns_session = session is None
        self._keyless: aiohttp.ClientSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # known since the session was asked for
        self._process = os.getpid()

    def speaks_with(self, headers: CIMultiDict[str]) -> None:
        """Send these ``headers`` with all requests, if the session is ours. The first word on this is the last.

        They are those of the client that its views come from: a view may add to them, and leaves none of them out.
        """
        if self.headers is None and self.owns_session:
            self.headers = headers

    def session(self) -> aiohttp.ClientSession:
        """The session, opened on the loop that runs now; a :class:`UsageError` where it cannot be used here."""
        if self.closed or self._process != os.getpid():
            self.check()
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self._adopt(loop)
        if self._session is not None and self._session.closed:
            message = "the session that this client was given is closed"
            raise UsageError(message)
        if self._session is None:
            # No limit on the pool: how many calls run at once is decided by those who make them. No cookies: the
            # service needs none, and the gateway's would only be carried around.
            self._session = _plain(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), headers=self.headers
                )
            )
        return self._session

    def session_of(self, bulk: Bulk) -> aiohttp.ClientSession:
        """The session, for a call of a bulk. Only the first one looks at where it is used.

        All calls of a bulk are made on one loop, and which loop and process that is, only the system can tell.
        """
        if bulk.session is None or self.closed:
            bulk.session = self.session()
        return bulk.session

    def keyless_session(self) -> aiohttp.ClientSession:
        """A session over the same connections that sends nothing of its own accord: neither a key nor a cookie."""
        if self._keyless is None or self._keyless.closed:
            self._keyless = _plain(
                aiohttp.ClientSession(
                    connector=self.session().connector, connector_owner=False, cookie_jar=aiohttp.DummyCookieJar()
                )
            )
        return self._keyless

    def check(self) -> None:
        """Refuse a closed client, and one in a forked child, which asyncio denies the loop that it is in."""
        if self._process != os.getpid():
            message = "this client was made in another process; make a new one after a fork"
            raise UsageError(message)
        if self.closed:
            message = "this client is closed"
            raise UsageError(message)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is not None:
            message = "this client belongs to another event loop; make one for each loop, inside it"
            raise UsageError(message)
        self.loop = loop

    async def close(self) -> None:
        """Close the session, if it is ours. May be called twice."""
        if self._process != os.getpid():
            return  # a fork shares the sockets, and what its loop waits for: to touch them here would strike there
        self.closed = True
        keyless, self._keyless = self._keyless, None
        session, self._session = self._session, None
        if keyless is not None:
            await keyless.close()
        if session is not None and self.owns_session:
            await session.close()


def _plain(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    # aiohttp would send a GET, PUT or DELETE again by itself when a connection breaks: not its business here.
    session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
    return session


class Transport:
    """Sends requests under one configuration over a shared connection."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self.config = config
        self.connection = connection
        limits = config.timeout
        # Only the limit of connecting is aiohttp's; the others are the watch's.
        self.limits = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect)
        self.proxy, proxy_login = _without_login(config.proxy)
        self.proxy_login = proxy_login
        # A proxy for TLS is told its login when the tunnel is asked for, any other one with each request.
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
        if self.proxy is None:  # aiohttp tells a proxy what it sends with all requests: our key, too
            connection.speaks_with(self._headers)
        self.headers_to_add = None if self._headers is connection.headers else self._headers
        self._key = config.api_key.encode() if len(config.api_key) >= _SHORTEST_SECRET else None
        self._base = config.base_url
        self._root = URL(config.base_url, encoded=True)
        self._path = self._root.raw_path

    def with_config(self, config: Config) -> Self:
        """The same connection under another configuration."""
        return type(self)(config, self.connection)

    def bulk(self, rate: float | None) -> Bulk:
        """A bulk of calls, with a cap of its own on its sends a second if ``rate`` is given."""
        self.connection.check()
        return Bulk(None if rate is None else Gate(Pace(rate), self.connection.clock))

    def send(self, request: Request, call: Call) -> Coroutine[Any, Any, Answer]:
        """The answer to ``request``, which is a good one (2xx).

        Repeats what may be repeated, as the policy and the budget allow. A call that is part of no bulk takes one of
        the client's slots. Raises an :class:`APIError` of the fitting kind, or a :class:`UsageError` where the client
        cannot be used here and now.
        """
        if call.bulk is not None:
            return self._send(request, call, self._exchange, _GOOD)
        return self.send_alone(request, call, self._exchange)

    async def send_alone(self, request: Request, call: Call, exchange: Exchange, good: range = _GOOD) -> Answer:
        """The answer to ``request``, whose status is in ``good``, where ``exchange`` is one attempt at getting it.

        Takes one of the client's slots meanwhile; repeats and raises as :meth:`send` does.
        """
        self.connection.session()  # what cannot be used here says so before its semaphore says it in asyncio's words
        async with self.connection.slots:
            return await self._send(request, call, exchange, good)

    async def _send(self, request: Request, call: Call, exchange: Exchange, good: range) -> Answer:
        there = self.connection
        policy = self.config.retry
        bulk = call.bulk
        attempt = 0
        began = sent_at = there.clock()
        while True:
            session = there.session() if bulk is None else there.session_of(bulk)
            limited = bulk is not None and bulk.limited
            if limited or (there.brake.on and not there.gate.passes()):
                began += await self._turn(call, began + policy.max_elapsed)
                sent_at = there.clock()
            attempt += 1
            call.attempts += 1
            outcome = await exchange(session, request)
            call.seconds = there.clock() - sent_at
            if isinstance(outcome, Answer):
                if outcome.status in good:
                    if self.is_ours(outcome.url):
                        there.brake.accepted()
                    there.budget.succeeded()
                    return outcome
                headers = outcome.headers
                failure = self._refusal(outcome, sent_at)
            else:
                headers = _NO_HEADERS
                failure = outcome
            wait = _retry.delay(
                request,
                failure,
                headers,
                attempt=attempt,
                policy=policy,
                seconds_left=began + policy.max_elapsed - there.clock(),
                budget=there.budget,
                chance=there.chance,
            )
            if wait is None:
                raise failure
            _log.debug(
                "%s %s: attempt %d failed (%s); again in %.2f s", request.method, request.path, attempt, failure, wait
            )
            await there.sleep(wait)
            sent_at = there.clock()
            call.waited = 0.0

    def is_ours(self, url: str) -> bool:
        """True for a URL of the service: what a storage behind it refuses or accepts teaches the brake nothing."""
        return url.startswith(self._base)

    def _refusal(self, answer: Answer, sent_at: float) -> APIError:
        """The error that an answer is, and what the brake learns from it."""
        there = self.connection
        ours = self.is_ours(answer.url)
        if answer.status == 429:
            asked = _retry.retry_after(answer.headers)
            if ours:
                told = _retry.limit(answer.headers)
                there.brake.refused(there.clock(), sent_at=sent_at, retry_after=asked, limit=told)
            return _protocol.error_of(answer, retry_after=asked)
        if ours:
            there.brake.accepted()
        if answer.status >= 400:
            return _protocol.error_of(answer)
        return _protocol.no_answer(answer, "an answer", _instead(answer))

    async def _turn(self, call: Call, deadline: float) -> float:
        """Wait for the caller's own cap and for the shared brake.

        Returns the seconds that the cap took: the caller asked for it, so they are not held against the call.
        """
        there = self.connection
        bulk = call.bulk
        queued = 0.0
        if bulk is not None:
            if bulk.refusal is not None:
                raise bulk.refusal
            if bulk.gate is not None:
                queued = await bulk.gate.enter(None)
                call.waited += queued
        left = deadline + queued - there.clock()
        hold = there.brake.hold(there.clock())
        try:
            if hold > left:
                raise TimeoutError
            call.waited += await there.gate.enter(left)
        except TimeoutError:
            told = (
                f"it asked for {hold:g} s" if hold else f"it allows about {there.brake.rate or 0:.3g} calls a second"
            )
            message = (
                f"the service is refusing calls of this client for their rate, and {told}; "
                f"not sent again within max_elapsed ({self.config.retry.max_elapsed:g} s)"
            )
            raise RateLimitError(message, retry_after=hold or None) from None
        if bulk is not None and bulk.refusal is not None:
            raise bulk.refusal
        return queued

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> Answer | APIConnectionError:
        """One attempt of an ordinary request."""
        url, place, hops = self._base + request.path, self._place(request.path), 0
        attempt = self.begin(self.config.timeout.total)
        trouble: BaseException | None = None
        status: int | None = None
        try:
            while True:
                # Not as a context manager: to have read all of an answer is to have closed it.
                response = await session.request(
                    request.method,
                    place,
                    data=request.body,
                    headers=self.headers_to_add,
                    timeout=self.limits,
                    proxy=self.proxy,
                    proxy_headers=self._proxy_headers,
                    # The key goes where it was told to go and nowhere else, so redirects are looked at first.
                    allow_redirects=False,
                    raise_for_status=False,
                )
                status = response.status
                content = attempt.progress = response.content
                # A short answer is there as a whole when its head is. But a session that we were given may have hooks
                # that read it first, and then only the response still has it.
                whole = self.connection.owns_session and content.is_eof()
                body = content.read_nowait() if whole else await response.read()
                if not response.closed:
                    response.close()  # it switches to another protocol (101), and would hold on to its connection
                answer = self.kept(Answer(request, url, response.status, response.headers, body), response)
                target = _followed(answer) if 300 <= answer.status < 400 and hops < _MOST_REDIRECTS else None
                if target is None:
                    return answer
                url, place, hops, status = target, URL(target, encoded=True), hops + 1, None
        except (asyncio.CancelledError, *TROUBLES) as error:
            trouble = attempt.own(error)
        finally:
            self.connection.watch.end(attempt)
        return self.failure(trouble, request, struck=attempt.struck, place=attempt.place, status=status)

    def begin(self, total: float) -> Attempt:
        """An attempt of this task, under its limits, ``total`` seconds in all; the watch is to be told of its end.

        Why it got no answer is then a :meth:`failure`, returned and not raised, so that it carries none of aiohttp's
        frames: their variables hold the headers, and the headers hold the key.
        """
        there = self.connection
        task = asyncio.current_task(there.loop)
        assert task is not None  # noqa: S101  # a coroutine that runs has one
        attempt = Attempt(task, there.clock(), self.config.timeout.read, total)
        there.watch.begin(attempt)
        return attempt

    def _place(self, path: str) -> URL:
        if "?" in path:
            return URL(self._base + path, encoded=True)
        # Made of the parts of the base, which are known: to split all of it anew takes twice the time.
        return self._root.with_path(self._path + path, encoded=True)

    def kept(self, answer: Answer, response: aiohttp.ClientResponse) -> Answer:
        """The answer without the key: a service may quote it back at us, and what is never kept cannot leak."""
        key = self._key
        if key is not None:
            if key in answer.body:
                answer.body = answer.body.replace(key, b"[secret]")
            for _, text in response.raw_headers:
                if len(text) >= len(key) and key in text:
                    answer.headers = CIMultiDict({name: self._clean(text) for name, text in answer.headers.items()})
                    break
        return answer

    def _clean(self, text: str) -> str:
        return text.replace(self._key.decode(), "[secret]") if self._key else text

    def failure(
        self,
        error: BaseException | None,
        request: Request,
        *,
        struck: Limit | None = None,
        place: str | None = None,
        status: int | None = None,
    ) -> APIConnectionError:
        """Why an attempt got no whole answer, of the service or of another ``place``; ``status`` if one had begun.

        A :class:`UsageError` is raised where it was not the network's fault.
        """
        if self.connection.closed:
            message = "this client was closed while the call was under way"
            raise UsageError(message)
        if isinstance(error, (aiohttp.InvalidURL, RuntimeError)):
            message = f"the request cannot be sent from here: {error}"
            raise UsageError(message)
        kind, message, sent = _explain(error, self.config, struck, place)
        failure = kind(
            self._clean(message),
            method=request.method,
            url=self.config.base_url + request.path,
            request_sent=sent,
            status=status,
        )
        # An error of aiohttp's about another place may quote its whole URL, and a signed one is as good as a key.
        failure.__cause__ = _without_frames(error) if place is None else None
        return failure


def _explain(
    error: BaseException | None, config: Config, struck: Limit | None, place: str | None
) -> tuple[type[APIConnectionError], str, bool]:
    """What happened, in our words: the kind of error, a sentence, and whether the request may have arrived."""
    limits = config.timeout
    host = URL(place or config.base_url, encoded=True).host_port_subcomponent
    if struck == "read":
        return APITimeoutError, f"nothing came from {host} for {limits.read:g} s", True
    if struck == "total":
        return APITimeoutError, f"no whole answer from {host} within {limits.total:g} s", True
    if isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        return APIConnectionError, "the proxy could not be reached, or refused to connect us", False
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError, f"no connection to {host} within {limits.connect:g} s", False
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return APIConnectionError, f"the host name of {host} cannot be resolved (is the network up?)", False
    if isinstance(error, aiohttp.ClientSSLError):
        return APIConnectionError, f"no trusted connection to {host}: {error.os_error}", False
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno  # its text is asyncio's, and reads like code
        return (
            APIConnectionError,
            f"no connection to {host}: {os.strerror(number) if number else error.os_error}",
            False,
        )
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return APIConnectionError, f"{host} closed the connection without an answer", True
    if isinstance(error, aiohttp.ClientPayloadError):
        return APIConnectionError, f"the answer of {host} broke off", True
    if isinstance(error, aiohttp.ClientResponseError):
        # The parser goes on to draw the bytes it met, with an arrow: that is for its own developers.
        problem = re.split(r":?\s*b['\"]", " ".join(error.message.split()))[0]
        return APIConnectionError, f"what {host} sent is not HTTP: {problem}", True
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return APIConnectionError, f"the connection to {host} failed: {reason or type(error).__name__}", True


def _without_frames(error: BaseException | None) -> BaseException | None:
    """The error as a cause that is safe to show, or None where it is not.

    aiohttp's frames hold what was sent, and the errors that are wholly its own hold the request, or what came.
    """
    if not isinstance(error, OSError):
        return None
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _without_login(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """A proxy's URL, and the header that logs in there: a URL would show itself in a dump of aiohttp's frames."""
    if proxy is None:
        return None, {}
    url = URL(proxy)
    if url.user is None and url.password is None:
        return url, {}
    login = base64.b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Proxy-Authorization": Secret(f"Basic {login}")}


def _followed(answer: Answer) -> str | None:
    """Where a redirect leads, if it may be followed: within the same origin, and without changing the request.

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
        return str(target) if target.origin() == here.origin() and target.user is None else None
    except ValueError:
        return None


def _instead(answer: Answer) -> str:
    """What an answer is that is neither good nor an error."""
    location = answer.headers.get("Location")
    if not location:
        return f"its status is {answer.status}"
    # Only the origin: the rest of such a URL may be a signature.
    try:
        origin = str(URL(answer.url, encoded=True).join(URL(location, encoded=True)).origin())
    except ValueError:
        origin = "nowhere"
    return f"it is a redirect ({answer.status}) to {origin}"
