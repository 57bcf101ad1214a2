"""Transport: one request out, one response or one typed error back.

Retries are here and not in an aiohttp middleware, because whether a request may be repeated depends on the call,
which a middleware does not know. Apart from the emulator, only this package imports aiohttp.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from yarl import URL

from together_batches._http import network_errors, retry
from together_batches._http.client_state import BulkContext, CallState, ClientState
from together_batches._http.exchange import Exchange, RequestFailure
from together_batches._http.permit_queue import PermitQueue
from together_batches._http.rate_limiter import FixedRate, Permit
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol import refusals
from together_batches._protocol.jobs import Answer, Request
from together_batches.errors import APIConnectionError, APIError, RateLimitError
from together_batches.events import RequestFinished, RetryScheduled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    import aiohttp

    from together_batches.config import Config

    Attempt = Callable[[aiohttp.ClientSession, Request], Awaitable[Answer | RequestFailure[APIError]]]
    """One attempt: an answer, or why there is none."""

_log = logging.getLogger("together_batches")

_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_SILENT_SECONDS = 5.0
"""Seconds of silence from a service that has never answered before a warning is logged."""
_GOOD = range(200, 300)
_PERHAPS_THE_PROXY = frozenset({403, 502, 503, 504})
"""Statuses that a proxy may send in its own name over plain HTTP, indistinguishable from the service's."""


class Transport:
    """Sends requests under one configuration over the connections of a client, with retries."""

    def __init__(self, config: Config, state: ClientState) -> None:
        self.config = config
        self.state = state
        self.exchange: Exchange = Exchange(config, state)

    def with_config(self, config: Config) -> Self:
        """Return a transport with another configuration over the same connection."""
        return type(self)(config, self.state)

    def bulk(self, rate: float | None) -> BulkContext:
        """Return a new bulk of calls, with its own cap on sends a second if ``rate`` is given."""
        self.state.check()
        return BulkContext(None if rate is None else PermitQueue(FixedRate(rate), self.state.clock))

    def send(self, request: Request, call: CallState) -> Coroutine[Any, Any, Answer]:
        """Send ``request`` and return its successful response (2xx).

        Retries as the policy and the budget allow. A call outside a bulk takes one of the client's slots. Raises an
        :class:`APIError` of the matching kind, or a :class:`UsageError` if the client cannot be used here and now.
        """
        if call.bulk is not None:
            return self._send(request, call, self.exchange.send, _GOOD)
        return self.send_alone(request, call, self.exchange.send)

    async def send_alone(
        self, request: Request, call: CallState, make_attempt: Attempt, good: range = _GOOD
    ) -> Answer:
        """Send ``request`` and return an answer whose status is in ``good``; ``make_attempt`` makes one attempt.

        Takes one of the client's slots meanwhile; retries and raises as :meth:`send` does.
        """
        self.state.session()  # raises its own error before the semaphore raises asyncio's
        async with self.state.slots:
            return await self._send(request, call, make_attempt, good)

    async def _send(self, request: Request, call: CallState, make_attempt: Attempt, good: range) -> Answer:
        state, bulk = self.state, call.bulk
        attempt = shortages = 0
        deadline = state.clock() + self.config.retry.max_elapsed
        while True:
            session = state.session() if bulk is None else state.session_of(bulk)
            limited = bulk is not None and bulk.limited
            if limited or (state.limiter.is_active and not state.queue.try_acquire()):
                deadline += await self._wait_for_rate_limit(call, deadline)
            attempt += 1
            outcome = await self._attempt(session, request, call, make_attempt, good, attempt)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.out_of_connections:
                # Nothing was sent, and the service is not involved: not an attempt.
                attempt -= 1
                shortages += 1
                await self._wait_for_connections(outcome.error, deadline, shortages)
                continue
            if attempt == call.max_attempts:
                raise outcome.error
            await self.pause(request, outcome.error, outcome.headers, attempt=attempt, deadline=deadline)
            call.waited = 0.0

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        request: Request,
        call: CallState,
        make_attempt: Attempt,
        good: range,
        number: int,
    ) -> Answer | RequestFailure[APIError]:
        """Make an attempt that has its permit; return its answer if the status is in ``good``, otherwise the failure.

        What it shows of the service is reported to all that depend on it, and what it means for the call to ``call``.
        """
        state, limiter = self.state, self.state.limiter
        with Permit(limiter, state.clock()) as permit:
            call.attempts += 1
            if call.attempts == 1:
                call.requested_at = state.now()
            if not state.has_answered:
                state.timeouts.on_silence = self._note_silence
            outcome = await make_attempt(session, request)
            now = state.clock()
            call.seconds = now - permit.sent_at
            if state.capacity is not None:
                state.capacity.leave(answered=isinstance(outcome, Answer))
            if state.emitter.callbacks:
                self._emit_finished(request, outcome, number, call.seconds)
            if isinstance(outcome, Answer):
                state.has_answered = True
                if outcome.status in good:
                    if limiter.is_active:
                        self._note_accepted(outcome, permit, now)
                    state.budget.succeeded()
                    return outcome
                error = self._error_for_answer(outcome, permit, now, call.bulk)
                outcome = RequestFailure(error, headers=outcome.headers)
        error = outcome.error
        if outcome.out_of_connections:
            call.attempts -= 1
            if not call.attempts:
                call.requested_at = None
            return outcome
        if refusals.may_have_been_taken(error):
            call.may_have_been_taken = True
        if not state.has_answered and isinstance(error, APIConnectionError) and error.is_transient:
            self._check_first_contact(error, permit.sent_at)
        return outcome

    async def pause(
        self, request: Request, failure: APIError, headers: Mapping[str, str], *, attempt: int, deadline: float
    ) -> None:
        """Wait until the request may be sent again; raise ``failure`` if it may not, or not before ``deadline``."""
        state = self.state
        wait = retry.wait_before_retry(
            request,
            failure,
            headers,
            attempt=attempt,
            policy=self.config.retry,
            seconds_left=deadline - state.clock(),
            budget=state.budget,
            chance=state.chance,
        )
        if wait is None:
            raise failure
        if state.emitter.callbacks:
            self._emit_retry(request, failure, attempt, wait)
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

    # --- events -----------------------------------------------------------------------------------------------

    def _emit_finished(
        self, request: Request, outcome: Answer | RequestFailure[APIError], attempt: int, seconds: float
    ) -> None:
        if isinstance(outcome, Answer):
            answer, error = outcome, None
            host, path = self._place(request, None if self.is_ours(outcome.url) else _host_of(outcome.url))
        elif outcome.out_of_connections:
            return  # nothing was sent
        else:
            answer, error = None, outcome.error
            host, path = self._place(request, None if outcome.host == self.exchange.host else outcome.host)
        about = error if answer is None else answer
        try:
            self.state.emitter.emit(
                RequestFinished(
                    method=request.method,
                    host=host,
                    path=path,
                    status=getattr(about, "status", None),
                    seconds=seconds,
                    attempt=attempt,
                    request_id=getattr(about, "request_id", None),
                    error=None if error is None else type(error).__name__,
                )
            )
        except BaseException:
            if answer is not None:
                answer.close()
            raise

    def _emit_retry(self, request: Request, failure: APIError, attempt: int, wait: float) -> None:
        host, path = self._place(request, None)
        self.state.emitter.emit(
            RetryScheduled(
                method=request.method,
                host=host,
                path=path,
                status=getattr(failure, "status", None),
                attempt=attempt,
                cause=type(failure).__name__,
                wait=wait,
            )
        )

    def _emit_rate(self, now: float) -> None:
        state = self.state
        if state.emitter.callbacks:
            limiter = state.limiter
            state.emitter.rate(limiter.rate, limiter.blocked_for(now), is_blocked=limiter.is_blocked)

    def _place(self, request: Request, storage: str | None) -> tuple[str, str | None]:
        """Return the host and the path of a request for an event; ``storage`` is the host of one that took part."""
        if storage is None and request.target is not None:
            storage = _host_of(request.target)
        if storage is not None:
            return storage, None
        return self.exchange.host, request.path.partition("?")[0]

    def _note_silence(self, seconds: float) -> None:
        """Warn once of silence from a service that has never answered: its first time limit may be far away."""
        state, silence = self.state, self.state.silence
        if state.has_answered or silence.is_reported:
            state.timeouts.on_silence = None
        elif seconds >= _SILENT_SECONDS:
            silence.is_reported = True
            _log.warning(
                "no answer yet from %s, and nothing for %.0f s; still waiting",
                self.config.base_url,
                seconds,
                extra={"base_url": self.config.base_url, "first_contact": self.config.retry.first_contact},
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
                attempts = self.config.retry.max_attempts
                _log.warning(
                    "no answer yet from %s (%s); each call is tried up to %d time%s, for up to %g s",
                    self.config.base_url,
                    failure,
                    attempts,
                    "s" * (attempts > 1),
                    limit,
                    extra={"base_url": self.config.base_url, "first_contact": limit},
                )
            return
        where, what = self.config.base_url, "the base URL, the network and the proxy"
        failure.message += f"; {where} has not answered this client once in {limit:g} s: check {what}"
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
        return url.startswith(self.config.base_url)

    def _note_accepted(self, answer: Answer, permit: Permit, now: float) -> None:
        """Report an accepted call to the limiter. A storage does not count in the rate of the service."""
        if self.is_ours(answer.url):
            permit.accepted(now)
        else:
            permit.unanswered()
        self.state.queue.release_permitted()
        try:
            self._emit_rate(now)
        except BaseException:
            answer.close()
            raise

    def _error_for_answer(self, answer: Answer, permit: Permit, now: float, bulk: BulkContext | None) -> APIError:
        """Return the error for an answer, and report the answer to the limiter."""
        proxy = self.exchange.proxy if answer.url.startswith("http:") else None
        if proxy is not None and answer.status == 407:
            message = network_errors.refused_by_proxy(f"the proxy {proxy.host_port_subcomponent}", 407)
            return self.exchange.error_without_answer(answer.request, message, sent=False, transient=False)
        keep = None if bulk is None else bulk.keep(len(answer.body))
        if answer.status == 429:
            advised = retry.retry_after(answer.headers)
            if self.is_ours(answer.url):
                permit.refused(now, retry_after=advised, limit=retry.limit(answer.headers))
                self._emit_rate(now)
            return refusals.error_of(answer, retry_after=advised, keep=keep)
        self._note_accepted(answer, permit, now)
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


def _host_of(url: str) -> str:
    return URL(url, encoded=True).host_port_subcomponent or ""


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
