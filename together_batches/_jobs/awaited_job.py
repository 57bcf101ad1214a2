"""What is known of one job that is waited for, and when it is worth another read. Pure: times are arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import attrs

from together_batches._jobs.patience import Absence
from together_batches._jobs.poller import FIRST_DRAIN_SECONDS, longer_drain
from together_batches.errors import NotFoundError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from datetime import datetime

    from together_batches._jobs.status_reader import Found

# The service asks for polls 30 to 60 s apart: https://docs.together.ai/docs/inference/batch/manage. With that
# interval alone, the end of a short job would be noticed late. So the interval is a share of the job's age, and
# reaches 45 s (30 to 60 with the spread) at an age of two minutes. The age decides and not an estimate from the
# progress, because the progress may stay at 0 or 99 % for hours, and an estimated end in one second does not justify
# a request every second.
_SHORTEST_SECONDS = 2.0
_LONGEST_SECONDS = 45.0
_SHARE_OF_AGE = 1 / 3
_QUIET_SECONDS = 3_600.0


@attrs.define(eq=False)
class AwaitedJob:
    """A job that has not finished as far as is known; times are monotonic."""

    job: BatchJob
    """The job as last read; without a status if it was never read."""
    exists: bool
    """Whether it exists as far as is known, so that a 404 may be a transient inconsistency."""
    absence: Absence
    """The absence of the job itself."""
    file_absence: Absence
    """The absence of its files after completion."""
    _began: float
    """The time from which its age is counted."""
    _moved: float
    """The time of the last change."""
    _warn_at: float
    _drain: float | None = None
    """The interval for a job that is draining."""
    _seen: bool = False

    @classmethod
    def of(cls, job: BatchJob, now: float, *, exists: bool, patience: float) -> Self:
        """Return the state of a job that was not read yet."""
        return cls(job, exists, Absence(patience), Absence(patience), now, now, now + _QUIET_SECONDS)

    @property
    def lacks_files(self) -> bool:
        """True if it is completed and names no file of results."""
        job = self.job
        return job.status == BatchJobStatus.COMPLETED and not job.output_file_id and not job.error_file_id

    def ended_despite(self, found: Found) -> bool:
        """Return True if a response lags behind the end of this job, which an earlier one showed."""
        if not self.job.is_terminal:
            return False
        return isinstance(found, NotFoundError) or (isinstance(found, BatchJob) and not found.is_terminal)

    def take(self, found: BatchJob, now: float, utc: datetime) -> bool:
        """Store what was read, and return whether it is news."""
        before = self.job
        if before.progress is not None and (found.progress is None or found.progress < before.progress):
            found = attrs.evolve(found, progress=before.progress)  # progress never decreases
        if not self._seen and found.created_at is not None:
            self._began -= max(0.0, (utc - found.created_at).total_seconds())
        if found.status != BatchJobStatus.CANCELING:
            self._drain = None
        else:  # draining takes seconds, however long the job ran
            self._drain = FIRST_DRAIN_SECONDS if self._drain is None else longer_drain(self._drain)
        if (found.status, found.progress) != (before.status, before.progress):
            self._moved = now
            self._warn_at = now + _QUIET_SECONDS
        is_news = found != before or not self._seen
        self.job = found
        self.exists = self._seen = True
        self.absence.over()
        return is_news

    def interval(self, now: float) -> float:
        """Return the seconds until the next read, for a job of its age; while it drains, as after a cancel."""
        if self._drain is not None:
            return self._drain
        return min(max(_SHORTEST_SECONDS, _SHARE_OF_AGE * (now - self._began)), _LONGEST_SECONDS)

    def quiet_hours(self, now: float) -> float | None:
        """Return the hours without a change, once in each hour; otherwise None."""
        if now < self._warn_at:
            return None
        self._warn_at = now + _QUIET_SECONDS
        return (now - self._moved) / 3_600


def state_of(job: BatchJob) -> str:
    """Return the state of a job as a part of a sentence."""
    if not job.status:
        return "was never seen"
    return f"was {job.status}" if job.progress is None else f"was {job.status} at {job.progress:g} %"
