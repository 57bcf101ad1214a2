"""Faults on demand, and the rate limit."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from together_batches.emulator import Fault
from together_batches.emulator._faults import FaultPlan, RateLimit, TokenBucket


def plan(*faults: Fault) -> FaultPlan:
    return FaultPlan(faults, Random(1))


def test_a_fault_happens_once_unless_told() -> None:
    """A fault happens once by default; ``times`` counts down; None never ends."""
    once, twice, always = Fault(status=500), Fault(status=502, times=2), Fault(status=503, times=None)
    happening = plan(once, twice, always)
    assert [once, twice, twice, always, always] == [happening.pick("list", None) for _ in range(5)]


def test_a_fault_strikes_its_operation_and_its_job_only() -> None:
    """A fault applies only to its operation and its job; other requests do not use it up."""
    fault = Fault(on="cancel", job_id="a", status=500)
    happening = plan(fault)
    assert happening.pick("retrieve", "a") is None
    assert happening.pick("cancel", "b") is None
    assert happening.pick("cancel", "a") is fault
    assert happening.pick("cancel", "a") is None


def test_chance_comes_from_the_source_that_is_passed_in() -> None:
    """A probability uses the random source that was passed in: about the given share, and the same each time."""
    fault = Fault(status=500, times=None, chance=0.25)
    first = [FaultPlan([fault], random).pick("list", None) for random in [Random(7)] * 1000]
    again = [FaultPlan([fault], random).pick("list", None) for random in [Random(7)] * 1000]
    assert first == again
    assert 200 < sum(hit is fault for hit in first) < 300


def test_clear_forgets_all() -> None:
    """After ``clear`` no request fails."""
    happening = plan(Fault(status=500, times=None))
    happening.add(Fault(status=502))
    happening.clear()
    assert happening.pick("list", None) is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, "does nothing"),
        ({"on": "destroy", "status": 500}, "no operation 'destroy'"),
        ({"on": "list", "job_id": "a", "status": 500}, "about one job"),
        ({"status": 500, "times": 0}, "times"),
        ({"status": 500, "chance": 0.0}, "chance"),
        ({"status": 500, "chance": 1.1}, "chance"),
        ({"status": 101}, "200 to 599"),
        ({"delay": -1.0}, "delay"),
        ({"drip": -1.0}, "drip"),
        ({"cut_after": -1}, "cut_after"),
        ({"lose": "all"}, "'request' or 'answer'"),
        ({"lose": "answer", "status": 500}, "lost request or answer"),
        ({"lose": "request", "body": b"x"}, "lost request or answer"),
        ({"acts": True, "delay": 1.0}, "acts belongs to status"),
        ({"cut_after": 1, "drip": 1.0}, "one of cut_after and drip"),
        ({"headers": {"content-length": "7"}}, "cut_after"),
    ],
)
def test_senseless_faults_are_refused_with_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    """Invalid faults are refused with a message, so that a wrong test cannot pass by accident."""
    with pytest.raises(ValueError, match=sentence):
        Fault(**wrong)


@pytest.mark.parametrize(
    ("fault", "acts"),
    [
        (Fault(status=500), False),
        (Fault(status=500, acts=True), True),
        (Fault(lose="request"), False),
        (Fault(lose="answer"), True),
        (Fault(delay=1), True),
        (Fault(body={"id": "other"}), True),
        (Fault(cut_after=3), True),
    ],
)
def test_a_status_stands_for_not_acting(fault: Fault, acts: bool) -> None:
    """A fault with a status replaces the effect unless ``acts`` is set; one without alters the response."""
    assert fault.acted_upon is acts


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ({"a": 1}, b'{"a":1}', "application/json"),
        ([], b"[]", "application/json"),
        ("é", "é".encode(), "text/plain; charset=utf-8"),
        (b"\xff", b"\xff", "text/plain; charset=utf-8"),
    ],
)
def test_bodies_go_as_they_are_or_as_json(body: object, sent: bytes, content_type: str) -> None:
    """Bytes and text are sent unchanged, other bodies as JSON."""
    fault = Fault(body=body)
    assert (sent, content_type) == (fault.body_bytes(), fault.body_type())


# --- limits


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
