"""When a job last moved, how fast it moves, and whether it is stuck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from together_batches._jobs.progress_tracker import JobProgressTracker
from together_batches.models import BatchJob, BatchJobStatus

VALIDATING, RUNNING = BatchJobStatus.VALIDATING, BatchJobStatus.IN_PROGRESS
CANCELING, COMPLETED = BatchJobStatus.CANCELING, BatchJobStatus.COMPLETED
NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def see(
    tracker: JobProgressTracker,
    job_id: str,
    status: BatchJobStatus | None,
    progress: float | None,
    now: float,
    *,
    age: float | None = None,
) -> float | None:
    created_at = None if age is None else NOON - timedelta(seconds=age)
    return tracker.see(BatchJob(id=job_id, status=status, progress=progress, created_at=created_at), now, NOON)


@pytest.fixture
def tracker() -> JobProgressTracker:
    return JobProgressTracker(stuck_after=60)


def test_progress_is_movement(tracker: JobProgressTracker) -> None:
    """A job is stuck once its progress has not grown for so long, and no longer once it grows again."""
    see(tracker, "a", RUNNING, 10, 0.0)
    see(tracker, "a", RUNNING, 10, 59.0)
    assert not tracker.is_stuck("a")
    see(tracker, "a", RUNNING, 10, 60.0)
    assert tracker.is_stuck("a")
    see(tracker, "a", RUNNING, 10.5, 61.0)
    see(tracker, "a", RUNNING, 10.5, 62.0)
    assert not tracker.is_stuck("a")
    assert tracker.quiet_seconds("a") == 1.0


def test_a_job_is_found_to_be_stuck_once(tracker: JobProgressTracker) -> None:
    """A job is found to be stuck when it is read, and once, also if it moves and then is stuck again."""
    found = [see(tracker, "a", RUNNING, progress, now) for now, progress in ((0, 5), (59, 5), (61, 5), (90, 5))]
    assert found == [None, None, 61, None]
    assert [see(tracker, "a", RUNNING, 6, now) for now in (100, 200)] == [None, None]
    assert tracker.stuck() == {"a": 100}
    assert see(tracker, "b", VALIDATING, 0, 200, age=60) == 60


def test_a_new_status_is_movement(tracker: JobProgressTracker) -> None:
    """A status that the job was not in before is movement; an older one, which a late response shows, is not."""
    see(tracker, "a", VALIDATING, 0, 0.0, age=0.0)
    see(tracker, "a", RUNNING, 0, 50.0)
    assert tracker.quiet_seconds("a") == 0.0
    for at in range(60, 200, 10):
        see(tracker, "a", VALIDATING if at % 20 else RUNNING, 0, at)
    assert tracker.quiet_seconds("a") == 140.0


@pytest.mark.parametrize("progress", [None, 5.0])
def test_a_state_that_goes_back(tracker: JobProgressTracker, progress: float | None) -> None:
    """Progress that is absent, or less than before, is neither movement nor a loss of the rate."""
    see(tracker, "a", RUNNING, 0, 0.0)
    see(tracker, "a", RUNNING, 10, 10.0)
    see(tracker, "a", RUNNING, progress, 20.0)
    assert tracker.quiet_seconds("a") == 10.0
    assert tracker.rate("a") == 0.5


@pytest.mark.parametrize(
    ("status", "progress", "quiet"),
    [(VALIDATING, 0, 3_600), (RUNNING, None, 3_600), (None, None, 3_600), (RUNNING, 1, 0), (CANCELING, None, 0)],
)
def test_first_sight(
    tracker: JobProgressTracker, status: BatchJobStatus | None, progress: float | None, quiet: float
) -> None:
    """A job without any progress has not moved since its creation; when another one last moved is not known."""
    see(tracker, "a", status, progress, 0.0, age=3_600)
    see(tracker, "b", status, progress, 0.0)
    assert tracker.quiet_seconds("a") == quiet
    assert tracker.quiet_seconds("b") == 0.0
    assert list(tracker.stuck()) == (["a"] if quiet else [])


def test_the_rate(tracker: JobProgressTracker) -> None:
    """The rate is the average since creation until the job progresses before one's eyes, and then that of late."""
    see(tracker, "a", RUNNING, 10, 1_000.0, age=1_000)
    assert tracker.rate("a") == 0.01
    see(tracker, "a", RUNNING, 20, 1_010.0)
    assert tracker.rate("a") == 1.0
    for second in range(1, 60):
        see(tracker, "a", RUNNING, 20 + second / 2, 1_010.0 + second)
    assert tracker.rate("a") == 0.5


def test_the_time_left(tracker: JobProgressTracker) -> None:
    """The time left shrinks between two looks, grows with a look that shows no progress, and is never negative."""
    see(tracker, "a", RUNNING, 50, 0.0, age=100)
    assert tracker.seconds_left("a", 0.0) == 100
    assert tracker.seconds_left("a", 10.0) == 90
    assert tracker.seconds_left("a", 1_000.0) == 0
    see(tracker, "a", RUNNING, 50, 100.0)
    assert tracker.seconds_left("a", 100.0) == 200


def test_no_rate(tracker: JobProgressTracker) -> None:
    """Without progress, or without a time since which it grew, there is neither a rate nor a time left."""
    see(tracker, "a", VALIDATING, 0, 0.0, age=100)
    see(tracker, "b", RUNNING, 50, 0.0)
    see(tracker, "c", RUNNING, 50, 0.0, age=0)
    for job_id in "abcd":
        assert (tracker.rate(job_id), tracker.seconds_left(job_id, 1.0)) == (None, None)


def test_the_end(tracker: JobProgressTracker) -> None:
    """A job that has finished, or is not followed any more, is not stuck."""
    for now in (0.0, 60.0):
        see(tracker, "a", RUNNING, 50, now)
        see(tracker, "b", RUNNING, 50, now)
    assert list(tracker.stuck()) == ["a", "b"]
    see(tracker, "a", COMPLETED, 100, 61.0)
    tracker.forget("b")
    assert tracker.stuck() == {}
    assert (tracker.quiet_seconds("a"), tracker.is_stuck("a")) == (None, False)
