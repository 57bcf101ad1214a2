"""The rules of a run: what is next, what may be spent, which job it was, and every row in one bucket."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import (
    APIConnectionError,
    AuthenticationError,
    BatchesError,
    BatchFailure,
    BatchJob,
    BatchMissing,
    BatchSuccess,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    RateLimitError,
    Usage,
)
from together_batches.runs import _rules
from together_batches.runs._records import Attempt, Shard
from together_batches.runs._rules import Buckets, Limits, Load, Stop

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def _shard(rows: int) -> Shard:
    return Shard(number=1, first_line=1, rows=rows, offset=0, size=10 * rows, sha256="")


def _attempt(number: int = 1, outcomes: bytes | None = None, **facts: Any) -> Attempt:
    """One that was collected, if it has outcomes."""
    if outcomes is not None:
        facts = {"rows": len(outcomes), "collected_at": NOON, "outcomes": _rules.packed(outcomes), **facts}
    return Attempt(**{"shard": 1, "number": number, "rows": 4, "planned_at": NOON, **facts})


# --- what became of a row ---


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (BatchSuccess("a", {}), "s"),
        (BatchMissing("a"), "m"),
        (BatchFailure("a", "batch_client_error", "Internal Server Error"), "a"),
        (BatchFailure("a", None, "no reason"), "a"),
        (BatchFailure("a", "timeout", "too slow"), "a"),
        (BatchFailure("a", None, "in trouble", status_code=503), "a"),
        (BatchFailure("a", None, "too many", status_code=429), "a"),
        (BatchFailure("a", None, "too slow", status_code=408), "a"),
        (BatchFailure("a", "429", "too many"), "a"),
        (BatchFailure("a", None, "context too long", status_code=400), "f"),
        (BatchFailure("a", "404", "no such model"), "f"),
        (BatchFailure("a", "invalid_model", "no such model"), "f"),
        (BatchFailure("a", "invalid_request_error", "four stops at most"), "f"),
    ],
)
def test_what_is_sent_again(result: Any, expected: str) -> None:
    """What a client has to mend is not; a failure without a status, or of the service's own, is."""
    assert chr(_rules.outcome_of(result)) == expected


def test_rows_of_a_job_that_failed_as_a_whole() -> None:
    """For its input: they failed, and would again. For anything else: they are missing, and go again."""
    reason = "input format error: Line 2 (within chunk): Invalid JSON format"
    failed = _rules.absent(_attempt(status="FAILED", error=reason), "a")
    assert failed == BatchFailure("a", "job_failed", reason)
    assert _rules.outcome_of(failed) == _rules.FAILED
    for attempt in (
        _attempt(status="FAILED", error="failed to download input file"),
        _attempt(status="EXPIRED", error=None),
        _attempt(status="CANCELLED", error=reason),
        _attempt(status=None, error="the service knows this job no more"),
    ):
        assert _rules.absent(attempt, "a") == BatchMissing("a")


# --- what is next ---


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], (1, 4)),
        ([_attempt()], (1, 4)),
        ([_attempt(1, b"ssss")], None),
        ([_attempt(1, b"sfff")], None),
        ([_attempt(1, b"sfam")], (2, 2)),
        ([_attempt(1, b"sfam"), _attempt(2, rows=2)], (2, 2)),
        ([_attempt(1, b"sfam"), _attempt(2, b"sa")], (3, 1)),
        ([_attempt(1, b"aaaa"), _attempt(2, b"aaaa"), _attempt(3, b"aaaa")], None),
        ([_attempt(1, b"mmmm", status="CANCELLED"), _attempt(2, b"aaaa"), _attempt(3, b"aaaa")], (4, 4)),
    ],
)
def test_the_next_attempt(attempts: list[Attempt], expected: tuple[int, int] | None) -> None:
    """Goes on with what is not collected, sends again what may succeed, and has three tries, cancelled ones apart."""
    found = _rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON)
    assert (found and (found.number, found.rows)) == expected


def test_which_rows_an_attempt_is_about() -> None:
    """Those that the attempts before left, by their place in the shard."""
    attempts = [_attempt(1, b"sasm"), _attempt(2, b"as")]
    assert list(_rules.rows_of(_shard(4), [])) == [0, 1, 2, 3]
    assert list(_rules.rows_of(_shard(4), attempts[:1])) == [1, 3]
    assert list(_rules.rows_of(_shard(4), attempts)) == [1]


# --- every row in one bucket ---


@given(st.lists(st.lists(st.sampled_from(b"sfam"), min_size=40, max_size=40), max_size=4), st.integers(1, 4))
def test_every_row_is_in_one_bucket(fates: list[list[int]], max_attempts: int) -> None:
    """Whatever became of the attempts, and before, between and after them."""
    shard = _shard(40)
    attempts: list[Attempt] = []
    for fate in [*fates, [0] * 40]:
        following = _rules.next_attempt(shard, attempts, max_attempts=max_attempts, now=NOON)
        stages = [attempts]
        if following is not None:
            stages += [[*attempts, following], [*attempts, attrs.evolve(following, creating_at=NOON)]]
        for stage in stages:
            found = _rules.buckets(shard, stage, max_attempts=max_attempts)
            assert sum(attrs.astuple(found)) == 40
            assert (found.not_sent + found.in_flight == 0) is (following is None)
            expected = len(_rules.rows_of(shard, attempts)) if following is not None else 0
            assert found.not_sent + found.in_flight == expected
        if following is None:
            return
        attempts = [*attempts, _attempt(following.number, bytes(fate[: following.rows]))]


def test_buckets_add_up() -> None:
    """And tokens do."""
    assert Buckets(1, 2, 3, 4, 5) + Buckets(1, 1, 1, 1, 1) == Buckets(2, 3, 4, 5, 6)
    attempts = [_attempt(prompt_tokens=1, completion_tokens=2, total_tokens=3)] * 2
    assert _rules.usage(attempts) == Usage(2, 4, 6)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_numbers_of_lines_are_kept(numbers: list[int]) -> None:
    """As they were, and those of a shard without bad lines are nothing at all."""
    assert list(_rules.unpacked(_rules.packed(numbers))) == numbers
    assert list(_rules.unpacked(b"")) == []


# --- what may be spent ---


@pytest.mark.parametrize(
    ("limits", "load", "expected"),
    [
        (Limits(1), Load(), "now"),
        (Limits(1), Load(jobs=1), "later"),
        (Limits(9, max_enqueued_rows=30), Load(enqueued_rows=20), "now"),
        (Limits(9, max_enqueued_rows=30), Load(enqueued_rows=21), "later"),
        (Limits(9, stop_after_rows=30), Load(sent_rows=20), "now"),
        (Limits(9, stop_after_tokens=30), Load(tokens=29), "now"),
    ],
)
def test_limits(limits: Limits, load: Load, expected: str) -> None:
    """Of what is in flight: a job waits until there is room for all of it."""
    assert _rules.admission(limits, load, 10) == expected


@pytest.mark.parametrize(
    ("limits", "load", "reason"),
    [
        (
            Limits(1, stop_after_rows=30),
            Load(sent_rows=21, jobs=1),
            "21 rows were sent, the next job has 10, and .* 30",
        ),
        (Limits(1, stop_after_tokens=1000), Load(tokens=1000), "1,000 tokens were used, and .* 1,000"),
    ],
)
def test_the_end_of_spending(limits: Limits, load: Load, reason: str) -> None:
    """No job is created beyond it; the reason has the figures."""
    answer = _rules.admission(limits, load, 10)
    assert isinstance(answer, Stop)
    assert re.search(reason, answer.reason)


# --- what may be there already ---

_SENT = _attempt(file_id="file-1", since=NOON, creating_at=NOON)


def _job(job_id: str, seconds: float | None = 1, status: str = "IN_PROGRESS", file_id: str = "file-1") -> BatchJob:
    created = None if seconds is None else NOON + timedelta(seconds=seconds)
    return BatchJob(id=job_id, status=status, input_file_id=file_id, created_at=created)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], None),
        ([_job("x", file_id="file-2")], None),
        ([_job("known")], None),
        ([_job("before", -301)], None),
        ([_job("orphan")], "orphan"),
        ([_job("orphan", -299)], "orphan"),
        ([_job("orphan", 86_400)], "orphan"),
        ([_job("before", -301), _job("known"), _job("orphan")], "orphan"),
        ([_job("orphan", status="CANCELLED")], "orphan"),
        ([_job("orphan"), _job("cancelled", status="CANCELLED"), _job("too", status="CANCELING")], "orphan"),
    ],
)
def test_the_orphan(jobs: list[BatchJob], expected: str | None) -> None:
    """Is of this file, created since by the service's clock, known to nobody, and not one that was cancelled."""
    found = _rules.orphan(_SENT, jobs, known={"known", None})
    assert (found and found.id) == expected


@pytest.mark.parametrize("jobs", [[_job("a"), _job("b")], [_job("a", None)], [_job("a"), _job("b", None)]])
def test_no_guess(jobs: list[BatchJob]) -> None:
    """Where several could be it, or when it was created is not told, the error names them, and what to do."""
    with pytest.raises(
        CreateUnconfirmedError, match=r"shard 1, attempt 1 .*cannot be told: a.*; cancel those"
    ) as raised:
        _rules.orphan(_SENT, jobs, known=())
    assert (raised.value.input_file_id, raised.value.candidates) == ("file-1", tuple(jobs))


def test_a_service_that_does_not_tell_its_clock() -> None:
    """Then any job of the file could be it, since the clock of this machine may have been set since."""
    attempt = attrs.evolve(_SENT, since=None)
    found = _rules.orphan(attempt, [_job("orphan", -86_400)], known=())
    assert found is not None
    with pytest.raises(CreateUnconfirmedError):
        _rules.orphan(attempt, [_job("before", -86_400), _job("orphan")], known=())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIConnectionError("no network"), True),
        (InternalServerError("in trouble", status=503), True),
        (RateLimitError("slow down", status=429), True),
        (AuthenticationError("no", status=401), False),
        (JobNotCreatedError("no"), False),
        (BatchesError("no"), False),
    ],
)
def test_what_waiting_helps(error: BatchesError, expected: bool) -> None:
    """Trouble on the way, and of the service; no refusal."""
    assert _rules.may_pass(error) is expected
