"""The token bucket over a clock that is passed in."""

from __future__ import annotations

import pytest

from together_batches.emulator._limits import RateLimit, TokenBucket


def test_a_full_bucket_allows_a_burst_and_then_the_rate() -> None:
    """A full bucket allows a burst of three at once, then one each half second."""
    bucket = TokenBucket(RateLimit(2, 3), 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.25) == pytest.approx(0.25)
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) == pytest.approx(0.5)


def test_many_small_steps_make_a_whole_token() -> None:
    """Many small steps add up to a whole token: rounding does not cost a client its turn."""
    bucket = TokenBucket(RateLimit(1, 1), 0.0)
    bucket.take(0.0)
    for step in range(1, 10):
        assert bucket.take(step * 0.1) > 0
    assert bucket.take(1.0) == 0


def test_the_bucket_never_holds_more_than_its_burst() -> None:
    """The bucket never holds more than its burst, even after an hour without requests."""
    bucket = TokenBucket(RateLimit(10, 2), 0.0)
    assert [bucket.take(3600.0) for _ in range(3)] == [0, 0, 0.1]


def test_the_advice_is_in_whole_seconds_and_never_zero() -> None:
    """The advised wait is in whole seconds, rounded up, so that a client that obeys is accepted."""
    limit = RateLimit(0.4, 1)
    bucket = TokenBucket(limit, 0.0)
    assert [bucket.headers(wait)["Retry-After"] for wait in (0.01, 1.0, 2.5)] == ["1", "1", "3"]
    assert bucket.headers(2.5) == {
        "Retry-After": "3",
        "x-ratelimit-limit": "0.4",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "2.500",
    }


def test_a_silent_limit_gives_no_advice() -> None:
    """A silent limit adds no header."""
    assert TokenBucket(RateLimit(1, 1, retry_after=False), 0.0).headers(1.0) == {}


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_senseless_limits_are_refused(per_second: float, burst: int) -> None:
    """Invalid limits are refused: a rate of zero would never accept a request."""
    with pytest.raises(ValueError, match="must be"):
        RateLimit(per_second, burst)
