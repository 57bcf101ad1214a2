"""Retries: which requests, when, and at what cost. Pure: clocks and randomness are passed in."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from together_batches._protocol.jobs import date_of
from together_batches.errors import APIConnectionError, APIError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from together_batches._protocol.jobs import Request
    from together_batches.config import RetryPolicy

_REPEATED_STATUSES = frozenset({408, 429, *range(500, 600)})


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that an answer asks to wait, or None if it has none, or an invalid value.

    ``Retry-After`` is a number of seconds or a date; a date is compared with the service's own ``Date``, so that a
    wrong local clock does no harm. ``now`` is the local clock, for answers without one. Without a ``Retry-After``,
    the time until an exhausted limit is reset counts as one.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    until = date_of(value)
    if until is None:
        return _exhausted(headers)
    since = date_of(headers.get("Date"))
    return max(0.0, until.timestamp() - (since.timestamp() if since else now()))


# Documented for inference in real time, with a twin each for the limit that follows the load; whether the batch
# endpoints send them is not documented. So they are only advice: https://docs.together.ai/docs/rate-limits
_TWINS = ("", "-dynamic")
_LONGEST_RESET_SECONDS = 3_600.0
"""Maximum of a reset in seconds: other services send the moment itself here, as seconds since 1970."""


def _exhausted(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until more is allowed, if an answer says that nothing remains; otherwise None."""
    resets = [
        _seconds(headers.get(f"x-ratelimit-reset{twin}"))
        for twin in _TWINS
        if _seconds(headers.get(f"x-ratelimit-remaining{twin}")) == 0
    ]
    return max((reset for reset in resets if reset is not None and reset <= _LONGEST_RESET_SECONDS), default=None)


def limit(headers: Mapping[str, str]) -> float | None:
    """Return the allowed requests a second that an answer names, if any; the lower of two."""
    limits = [_seconds(headers.get(f"x-ratelimit-limit{twin}")) for twin in _TWINS]
    return min((limit for limit in limits if limit), default=None)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


class Budget:
    """A budget for retries: every retry takes a token, every success returns part of one.

    Without it an outage of the service multiplies the load by ``max_attempts``. The idea is gRPC's retry throttling:
    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs
    """

    def __init__(self, size: int, *, refill: float = 0.2) -> None:
        self._size = float(size)
        self._left = float(size)
        self._refill = refill

    def succeeded(self) -> None:
        """Record a successful call."""
        if self._left < self._size:
            self._left = min(self._size, self._left + self._refill)

    def spend(self) -> bool:
        """Take the cost of one retry; return False if too little is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def wait_before_retry(
    request: Request,
    error: APIError,
    headers: Mapping[str, str],
    *,
    attempt: int,
    policy: RetryPolicy,
    seconds_left: float,
    budget: Budget,
    chance: Callable[[], float],
) -> float | None:
    """Return the seconds to wait before the same request is sent again, or None if it is not retried.

    ``attempt`` counts from 1, ``headers`` are those of the refusal, ``chance`` returns numbers from 0 to 1. If a
    retry would be right but a limit forbids it, the error's message names the limit.
    """
    if not _repeatable(request, error, headers):
        return None
    if attempt >= policy.max_attempts:
        if policy.max_attempts > 1:
            error.message += f"; given up after {attempt} attempts"
        return None
    # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    wait = chance() * min(policy.max_delay, policy.base_delay * 2.0 ** min(attempt - 1, 60))
    advised = retry_after(headers)
    if advised is not None:
        wait = max(wait, advised)
    if wait >= seconds_left:
        cause = f"the service asks for {advised:g} s" if advised == wait else f"the next attempt is {wait:.1f} s away"
        error.message += f"; not retried: {cause}, more than is left of max_elapsed ({policy.max_elapsed:g} s)"
        return None
    if not isinstance(error, RateLimitError) and not budget.spend():
        error.message += "; not retried: the retry budget of this client is used up, because too many requests fail"
        return None
    return wait


def _repeatable(request: Request, error: APIError, headers: Mapping[str, str]) -> bool:
    if isinstance(error, APIConnectionError):
        return error.is_transient and (request.repeatable or not error.request_sent)
    status = getattr(error, "status", 0)
    advice = headers.get("x-should-retry", "").strip().lower()
    # A conflict is an answer; for a cancel it says that the job has finished: a retry changes nothing.
    if advice == "false" or status == 409:
        return False
    # A 429 was refused before anything was done. After any other answer only a repeatable request is sent again,
    # whatever the service advises: the job of a create is looked up instead.
    if not request.repeatable:
        return status == 429
    return advice == "true" or status in _REPEATED_STATUSES
