"""Limits of a service, and a simulation of the calls that a client sends to it, in virtual time."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Protocol

import attrs

from together_batches._http import retry
from together_batches._http.rate_limiter import AdaptiveRateLimiter
from together_batches._protocol.jobs import Request
from together_batches.config import RetryPolicy
from together_batches.errors import APIConnectionError, APIError, InternalServerError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable


class Limiter(Protocol):
    """The limit of a service: whether it accepts a call now, and its advice otherwise."""

    def allow(self, now: float) -> bool: ...
    def retry_after(self, now: float) -> float | None: ...


class Bucket:
    """A bucket of tokens with a rate and a maximum burst; the rate may change at given times."""

    def __init__(self, rate: float, burst: float, *changes: tuple[float, float], advises: bool = False) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0
        self.changes = deque(changes)
        self.advises = advises

    def allow(self, now: float) -> bool:
        while self.changes and self.changes[0][0] <= now:
            at, rate = self.changes.popleft()
            self._fill(at)
            self.rate = rate
        self._fill(now)
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True

    def _fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now

    def retry_after(self, now: float) -> float | None:
        return max(1.0, math.ceil((1 - self.tokens) / self.rate)) if self.advises else None

    def best(self, calls: int, *changes: tuple[float, float]) -> float:
        """Return the seconds of a perfect sender, which uses the whole limit from the start."""
        left, since, rate = calls - self.burst, 0.0, self.rate
        for at, changed in changes:
            if left <= (at - since) * rate:
                break
            left, since, rate = left - (at - since) * rate, at, changed
        return since + max(0.0, left) / rate


class Window:
    """A fixed number of calls in each window of time, counted again in the next one."""

    def __init__(self, limit: int, seconds: float, *, advises: bool = False) -> None:
        self.limit, self.seconds, self.advises = limit, seconds, advises
        self.window, self.used = -1, 0

    def allow(self, now: float) -> bool:
        window = int(now / self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        self.used += 1
        return self.used <= self.limit

    def retry_after(self, now: float) -> float | None:
        return (int(now / self.seconds) + 1) * self.seconds - now if self.advises else None


class Shut:
    """A limit that refuses every call."""

    def allow(self, now: float) -> bool:
        return False

    def retry_after(self, now: float) -> float | None:
        return None


class Open(Shut):
    """A limit that accepts every call."""

    def allow(self, now: float) -> bool:
        return True


@attrs.define
class Run:
    """The result of a simulation, in virtual seconds."""

    done: int = 0
    lost: int = 0
    refused: int = 0
    failed: int = 0
    sent_at: list[float] = attrs.Factory(list)
    seconds: float = 0.0


_POLICY = RetryPolicy()
_REQUEST = Request("POST", "/batches/x/cancel", repeatable=True)


@attrs.define(eq=False)
class _Caller:
    began: float
    attempts: int = 0


class Simulation:
    """The callers of one client, scheduled as by the transport: they wait for a permit, are sent, and are retried.

    An answer takes ``latency`` seconds, a fifth more or less; timers fire a millisecond late. Of the calls that the
    limiter accepts, the share ``failing`` is answered with 500, and the share ``losing`` not at all.
    """

    def __init__(
        self, limiter: Limiter, *, latency: float, seed: int, failing: float = 0.0, losing: float = 0.0
    ) -> None:
        self.limiter = limiter
        self.latency = latency
        self.failing = failing
        self.losing = losing
        self.random = random.Random(seed)
        self.client = AdaptiveRateLimiter()
        self.budget = retry.Budget(100)
        self.queue: deque[_Caller] = deque()
        self.timer = math.inf
        self.todo = 0
        self.run_ = Run()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    def at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def run(self, calls: int, in_flight: int, *, until: float = float("inf")) -> Run:
        self.todo = calls
        for _ in range(in_flight):
            self.at(0.0, self.next_call)
        while self._events and self._events[0][0] <= until:
            time, _, event = heapq.heappop(self._events)
            event(time)
        return self.run_

    def next_call(self, now: float) -> None:
        if self.todo:
            self.todo -= 1
            self.enter(now, _Caller(now))

    def enter(self, now: float, caller: _Caller) -> None:
        if not self.client.is_active:
            self.send(now, caller)
            return
        if not self.queue:
            wait = self.client.try_acquire(now)
            if wait == 0:
                self.send(now, caller)
                return
            self.wake_at(now + wait + 0.001)
        self.queue.append(caller)

    def wake_at(self, when: float) -> None:
        self.timer = when
        self.at(when, lambda now: self.let_in(now) if self.timer == when else None)

    def let_in(self, now: float) -> None:
        while self.queue:
            wait = self.client.try_acquire(now)
            if wait > 0:
                self.wake_at(now + wait + 0.001)
                return
            self.send(now, self.queue.popleft())

    def send(self, now: float, caller: _Caller) -> None:
        caller.attempts += 1
        self.run_.sent_at.append(now)
        half = self.latency / 2 * self.random.uniform(0.8, 1.2)

        def arrive(arrived_at: float) -> None:
            allowed = self.limiter.allow(arrived_at)
            advice = None if allowed else self.limiter.retry_after(arrived_at)
            luck = self.random.random()
            error: APIError | None = None
            if not allowed:
                error = RateLimitError("slow down")
            elif luck < self.failing:
                error = InternalServerError("out of order", status=500)
            elif luck < self.failing + self.losing:
                error = APIConnectionError("lost", request_sent=True)
            self.at(arrived_at + half, lambda back: self.answered(back, caller, now, error, advice))

        self.at(now + half, arrive)

    def answered(
        self, now: float, caller: _Caller, sent_at: float, error: APIError | None, advice: float | None
    ) -> None:
        self.run_.seconds = now
        if isinstance(error, RateLimitError):
            self.run_.refused += 1
            self.client.on_refused(now, sent_at=sent_at, retry_after=advice)
        elif isinstance(error, APIConnectionError):
            self.client.on_unanswered()
        else:
            self.client.on_accepted(now, sent_at=sent_at)
        self.let_in(now)
        if error is None:
            self.budget.succeeded()
            self.run_.done += 1
            self.next_call(now)
            return
        self.run_.failed += not isinstance(error, RateLimitError)
        wait = retry.wait_before_retry(
            _REQUEST,
            error,
            {} if advice is None else {"Retry-After": str(advice)},
            attempt=caller.attempts,
            policy=_POLICY,
            seconds_left=caller.began + _POLICY.max_elapsed - now,
            budget=self.budget,
            chance=self.random.random,
        )
        if wait is None:
            self.run_.lost += 1
            self.next_call(now)
        else:
            self.at(now + wait, lambda later: self.enter(later, caller))


def simulate(limiter: Limiter, calls: int, in_flight: int, *, latency: float = 0.005, seed: int = 1) -> Run:
    """Run all ``calls``, with at most ``in_flight`` under way."""
    return Simulation(limiter, latency=latency, seed=seed).run(calls, in_flight)
