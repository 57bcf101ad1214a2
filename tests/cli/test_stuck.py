"""Jobs that are stuck, from the events of a client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from together_batches import BatchJobStatus
from together_batches.cli._stuck import StuckJobs
from together_batches.events import JobChanged, JobCreated, RequestFinished

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


class Watched:
    """Stuck jobs on a clock that is set, after 60 seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._jobs = StuckJobs(60.0, lambda: self.now)

    def changed(
        self, job_id: str, progress: float, status: BatchJobStatus = BatchJobStatus.IN_PROGRESS, **times: datetime
    ) -> None:
        self._jobs.see(JobChanged(job_id=job_id, status=status, progress=progress, **times))

    def created(self, job_id: str) -> None:
        self._jobs.see(JobCreated(job_id=job_id, input_file_id="file-1", endpoint="/v1/chat/completions"))

    def read(self, path: str, status: int | None = 200, method: str = "GET") -> None:
        self._jobs.see(RequestFinished(method=method, host="h", path=path, status=status, seconds=0.1, attempt=1))

    def stuck(self) -> list[str]:
        return [each.subject for each in self._jobs.take()]


@pytest.fixture
def watched() -> Watched:
    found = Watched()
    found.changed("job-1", 5)
    found.changed("job-2", 5)
    return found


def test_a_job_that_does_not_move(watched: Watched) -> None:
    """A job that is read again, and has not moved for so long, is stuck; it is reported once."""
    watched.now += 59
    watched.read("/batches")
    assert watched.stuck() == []
    watched.changed("job-2", 6)
    watched.now += 2
    watched.read("/batches")
    assert watched.stuck() == ["job-1"]
    watched.now += 60
    watched.read("/batches/job-1")
    watched.read("/batches/job-2")
    assert watched.stuck() == ["job-2"]
    assert watched.stuck() == []


def test_an_outage(watched: Watched) -> None:
    """A job that could not be read is not stuck: nothing is known of it."""
    watched.now += 600
    watched.read("/batches/job-1", None)
    watched.read("/batches/job-1", 503)
    watched.read("/batches", method="POST")
    watched.read("/models")
    assert watched.stuck() == []
    watched.read("/batches/job-2")
    assert watched.stuck() == ["job-2"]


def test_a_job_that_was_created(watched: Watched) -> None:
    """A job that stays as it was created is stuck."""
    watched.created("job-3")
    watched.now += 61
    watched.read("/batches/job-3")
    assert watched.stuck() == ["job-3"]


def test_the_clock_of_the_service(watched: Watched) -> None:
    """The age of a job is by the clock of the service, because that of this machine may be wrong by hours."""
    for job_id, age in {"job-3": 59, "job-4": 60}.items():
        watched.changed(job_id, 0, created_at=NOON, seen_at=NOON + timedelta(seconds=age))
    watched.read("/batches")
    assert watched.stuck() == ["job-4"]


def test_a_job_that_has_finished(watched: Watched) -> None:
    """A job that has finished is never stuck."""
    watched.changed("job-1", 5, BatchJobStatus.FAILED)
    watched.changed("job-2", 100, BatchJobStatus.COMPLETED)
    watched.now += 600
    watched.read("/batches")
    assert watched.stuck() == []
