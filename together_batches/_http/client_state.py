"""What calls share: the state of a client (session, rate limiter, retry budget), of a bulk, and of one call."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from together_batches._emitter import Emitter
from together_batches._http import retry
from together_batches._http.capacity import Capacity
from together_batches._http.permit_queue import PermitQueue
from together_batches._http.rate_limiter import AdaptiveRateLimiter
from together_batches._http.sessions import Connector, open_session
from together_batches._http.timeouts import TimeoutMonitor
from together_batches._protocol.jobs import EXCERPT_BYTES
from together_batches.errors import AuthenticationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiohttp
    from multidict import CIMultiDict

_SMALLEST_BUDGET = 100
_LONGEST_BREAK_SECONDS = 120.0
"""Seconds without an attempt after which a count of silence restarts: waiting callers retry within a minute."""
_MOST_EXCERPT_BYTES = 16 << 20
_SHORT_EXCERPT_BYTES = 1 << 10


class CallState:
    """The state of a call across its attempts: its bulk, if any, the number of attempts, and the time of the first.

    ``seconds`` is the duration of the last attempt, ``waited`` the seconds that it waited for a permit before.
    ``answer`` is the text of a successful response, for a caller that keeps it. ``may_have_been_taken`` is True if an
    earlier attempt may have had its effect although it failed. ``max_attempts`` is a limit beside that of the policy.
    """

    answer: bytes | None = None
    attempts = 0
    max_attempts: int | None = None
    may_have_been_taken: bool = False
    requested_at: datetime | None = None
    seconds: float = 0.0
    waited: float = 0.0

    def __init__(self, bulk: BulkContext | None = None) -> None:
        self.bulk = bulk


class BulkContext:
    """The shared state of the calls of one bulk: a cap on their rate, and a refused key that stops them all."""

    def __init__(self, queue: PermitQueue | None) -> None:
        self.queue = queue
        self.refusal: AuthenticationError | None = None
        self.limited: bool = queue is not None
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


_utc_now = partial(datetime.now, UTC)


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
    """The state that all views of a client share: session, event loop, rate limiter, retry budget, callbacks."""

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
        self.emitter: Emitter = Emitter()
        self.limiter: AdaptiveRateLimiter = AdaptiveRateLimiter()
        self.queue: PermitQueue = PermitQueue(self.limiter, clock)
        self.timeouts: TimeoutMonitor = TimeoutMonitor(clock)
        self.capacity: Capacity | None = None  # created when the machine runs out of connections for the first time
        self.budget: retry.Budget = retry.Budget(max(_SMALLEST_BUDGET, 5 * max_concurrency))
        self.slots: asyncio.Semaphore = asyncio.Semaphore(max_concurrency)
        self.closed: bool = False
        self.has_answered: bool = False
        self.silence: Silence = Silence()
        self.headers: CIMultiDict[str] | None = None
        self.has_proxy: bool = False
        self._session = session
        self.owns_session: bool = session is None
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
            self._session = open_session(Connector(), headers=self.headers, notes_sends=self.has_proxy)
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
            connector = self.session().connector
            self._keyless = open_session(connector, owns_connector=False, notes_sends=self.has_proxy)
        return self._keyless

    @property
    def lost_session(self) -> bool:
        """True if the session was closed by other code than this client."""
        return self._session is not None and self._session.closed

    def limit_connections(self) -> Capacity:
        """Record that this machine has run out of connections, and return the resulting limit."""
        if self.capacity is None:
            self.capacity = Capacity(lambda: self.timeouts.under_way, self.clock)
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
