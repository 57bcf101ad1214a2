"""A rate limit: a token bucket over a clock that is passed in."""

from __future__ import annotations

import math

from attrs import field, frozen, validators

__all__ = ["RateLimit", "TokenBucket"]


@frozen
class RateLimit:
    """At most ``per_second`` requests per second in the long run, and up to ``burst`` at once after an idle time.

    Requests above the limit get a 429; with ``retry_after``, its headers ``Retry-After`` and ``x-ratelimit-*``
    contain the time until the next request is allowed. Raises ValueError for a rate that is not above zero and for a
    burst below one.
    """

    per_second: float = field(validator=validators.gt(0))
    burst: int = field(validator=validators.ge(1))
    retry_after: bool = field(default=True)


class TokenBucket:
    """The state of a limit. It starts full."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token: return 0 if there was one, otherwise the seconds until the next one."""
        elapsed = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(float(self._limit.burst), self._tokens + elapsed * self._limit.per_second)
        # Ten steps of 0.1 s at ten a second add up to a hair less than one token, which must count as one.
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return 0
        return (1 - self._tokens) / self._limit.per_second

    def headers(self, wait: float) -> dict[str, str]:
        """Return the headers of a refusal; none without ``retry_after``."""
        if not self._limit.retry_after:
            return {}
        return {
            # Whole seconds, never zero, because some clients treat zero as no advice.
            "Retry-After": str(max(1, math.ceil(wait))),
            "x-ratelimit-limit": f"{self._limit.per_second:g}",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": f"{wait:.3f}",
        }
