"""A rate limit: a token bucket over a clock that is passed in."""

from __future__ import annotations

import math

from attrs import field, frozen, validators

__all__ = ["RateLimit", "TokenBucket"]


@frozen
class RateLimit:
    """At most `per_second` requests a second in the long run, and up to `burst` at once after a quiet time.

    Requests over the limit are answered with 429; with `retry_after`, the answer says in `Retry-After` and
    `x-ratelimit-*` when to come back. Raises ValueError for a rate that is not above zero and for a burst
    below one.
    """

    per_second: float = field(validator=validators.gt(0))
    burst: int = field(validator=validators.ge(1))
    retry_after: bool = field(default=True)


class TokenBucket:
    """The limit at work. It starts full."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token: 0 if there was one, otherwise the seconds until there will be one."""
        elapsed = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(float(self._limit.burst), self._tokens + elapsed * self._limit.per_second)
        # Ten steps of 0.1 s at ten a second add up to a hair less than one token, which must count as one.
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return 0
        return (1 - self._tokens) / self._limit.per_second

    def headers(self, wait: float) -> dict[str, str]:
        """What a refusal says about the limit; nothing if it was told to keep silent."""
        if not self._limit.retry_after:
            return {}
        return {
            # Whole seconds, never zero: some clients take zero for "no advice".
            "Retry-After": str(max(1, math.ceil(wait))),
            "x-ratelimit-limit": f"{self._limit.per_second:g}",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": f"{wait:.3f}",
        }
