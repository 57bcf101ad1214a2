"""What is repeated, when, and what that may cost. Pure: clocks and chance are passed in."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from together_batches.errors import APIConnectionError, APIError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from together_batches._protocol.jobs import Request
    from together_batches.config import RetryPolicy

_REPEATED_STATUSES = frozenset({408, 429, *range(500, 600)})


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """The seconds that an answer asks us to wait, or None where it does not say, or says nonsense.

    ``Retry-After`` is a number of seconds or a date; a date is read against the service's own ``Date``, so that a
    local clock which is wrong does no harm. ``now`` is the local clock, for answers without one. Where there is no
    ``Retry-After``, the time until a limit that is used up begins anew counts as one.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is None:
        return _exhausted(headers)
    since = _date(headers.get("Date"))
    return max(0.0, until.timestamp() - (since.timestamp() if since else now()))


# Documented for inference in real time, with a twin each for the limit that follows the load; whether the batch
# endpoints send them is not. So they are advice: https://docs.together.ai/docs/rate-limits
_TWINS = ("", "-dynamic")
_LONGEST_RESET_SECONDS = 3_600.0
"""What is longer is no number of seconds: other services send the moment itself here, as seconds since 1970."""


def _exhausted(headers: Mapping[str, str]) -> float | None:
    """The seconds until more is allowed, where an answer says that nothing remains; None where it does not."""
    resets = [
        _seconds(headers.get(f"x-ratelimit-reset{twin}"))
        for twin in _TWINS
        if _seconds(headers.get(f"x-ratelimit-remaining{twin}")) == 0
    ]
    return max((reset for reset in resets if reset is not None and reset <= _LONGEST_RESET_SECONDS), default=None)


def limit(headers: Mapping[str, str]) -> float | None:
    """The requests a second that an answer says are allowed, if it says so; the lower of two."""
    limits = [_seconds(headers.get(f"x-ratelimit-limit{twin}")) for twin in _TWINS]
    return min((limit for limit in limits if limit), default=None)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


class Budget:
    """What repeating may cost in all: every repetition takes a token, every success gives a part of one back.

    Without it an outage of the service meets ``max_attempts`` times the load. The idea is gRPC's retry throttling:
    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs
    """

    def __init__(self, size: int, *, refill: float = 0.2) -> None:
        self._size = float(size)
        self._left = float(size)
        self._refill = refill

    def succeeded(self) -> None:
        """A call came back well."""
        if self._left < self._size:
            self._left = min(self._size, self._left + self._refill)

    def spend(self) -> bool:
        """Take what one repetition costs; False where there is not enough left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def delay(
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
    """The seconds to wait before the same request is sent again, or None: it is not.

    ``attempt`` counts from 1, ``headers`` are those of the refusal, ``chance`` gives numbers from 0 to 1. Where
    repeating would be right and a limit forbids it, the error's message says which.
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
        error.message += f"; not repeated: {cause}, more than is left of max_elapsed ({policy.max_elapsed:g} s)"
        return None
    if not isinstance(error, RateLimitError) and not budget.spend():
        error.message += "; not repeated: this client's budget for repeating is used up, too much fails just now"
        return None
    return wait


def _repeatable(request: Request, error: APIError, headers: Mapping[str, str]) -> bool:
    if isinstance(error, APIConnectionError):
        return error.is_transient and (request.repeatable or not error.request_sent)
    status = getattr(error, "status", 0)
    advice = headers.get("x-should-retry", "").strip().lower()
    # A conflict is an answer, to a cancel the one that says that the job has finished: asking again changes nothing.
    if advice == "false" or status == 409:
        return False
    # A 429 was refused before anything was done. After any other answer only a request that may be done twice is
    # sent again, whatever the service advises: a create is looked for instead.
    if not request.repeatable:
        return status == 429
    return advice == "true" or status in _REPEATED_STATUSES
