"""When each of many jobs last moved, and how fast it moves. Pure: states and times are arguments."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from together_batches.models import BatchJobStatus

if TYPE_CHECKING:
    from datetime import datetime

    from together_batches.models import BatchJob

_POINTS = 8
"""Maximum number of points from which a rate is taken: it is that of late."""
_BEFORE_PROGRESS = frozenset({None, BatchJobStatus.VALIDATING, BatchJobStatus.IN_PROGRESS})


@attrs.define(eq=False)
class _Track:
    """What is known of one job. ``points`` are times, each with the progress that was first seen then."""

    statuses: set[BatchJobStatus | None]
    moved_at: float
    seen_at: float
    points: deque[tuple[float, float]]
    was_observed: bool = False
    """Whether the job progressed while it was followed, so that its average since creation no longer matters."""
    was_reported: bool = False
    """Whether it was reported as stuck."""

    @property
    def quiet_seconds(self) -> float:
        """The seconds from its last movement until it was last read: what it did since then is not known."""
        return self.seen_at - self.moved_at

    def see(self, job: BatchJob, now: float) -> None:
        """Take a later state of the job."""
        last = self.points[-1][1]
        if job.progress is not None and job.progress > last:
            if not self.was_observed:
                self.points, self.was_observed = deque([(self.seen_at, last)], _POINTS), True
            self.points.append((now, job.progress))
            self.moved_at = now
        if job.status not in self.statuses:
            self.statuses.add(job.status)
            self.moved_at = now
        self.seen_at = now


class JobProgressTracker:
    """Jobs that have not finished: when each last moved, how fast it progresses, and which are stuck.

    A job moves if its progress grows, or if it enters a status that it was not in before: an older state, which a
    late response may show, is no movement. It is stuck if it did not move for ``stuck_after`` seconds, and was read
    after that: an outage makes no job stuck. Times are seconds of any one clock; progress is in percent.
    """

    def __init__(self, stuck_after: float) -> None:
        self.stuck_after = stuck_after
        self._tracks: dict[str, _Track] = {}

    def see(self, job: BatchJob, now: float, at: datetime) -> float | None:
        """Take a job as read at ``now``, or ``at`` by the clock of the service; one that has finished is forgotten.

        Return the seconds without movement when the job is found to be stuck for the first time, otherwise None. A
        job that is seen for the first time, and has not progressed yet, last moved when it was created.
        """
        if job.is_terminal:
            self.forget(job.id)
            return None
        track = self._tracks.get(job.id)
        if track is None:
            track = self._tracks[job.id] = _first(job, now, at)
        else:
            track.see(job, now)
        if track.was_reported or track.quiet_seconds < self.stuck_after:
            return None
        track.was_reported = True
        return track.quiet_seconds

    def forget(self, job_id: str) -> None:
        """Follow a job no longer."""
        self._tracks.pop(job_id, None)

    def quiet_seconds(self, job_id: str) -> float | None:
        """Return the seconds for which the job had not moved when it was last read; None if it is not followed."""
        track = self._tracks.get(job_id)
        return None if track is None else track.quiet_seconds

    def is_stuck(self, job_id: str) -> bool:
        """Return whether the job is stuck."""
        quiet = self.quiet_seconds(job_id)
        return quiet is not None and quiet >= self.stuck_after

    def stuck(self) -> dict[str, float]:
        """Return the jobs that are stuck, each with the seconds for which it had not moved."""
        quiet = {job_id: track.quiet_seconds for job_id, track in self._tracks.items()}
        return {job_id: seconds for job_id, seconds in quiet.items() if seconds >= self.stuck_after}

    def rate(self, job_id: str) -> float | None:
        """Return the percent per second, of late if the job has progressed while it was followed; None if unknown."""
        track = self._tracks.get(job_id)
        if track is None:
            return None
        (began, first), last = track.points[0], track.points[-1][1]
        return (last - first) / (track.seen_at - began) if last > first and track.seen_at > began else None

    def seconds_left(self, job_id: str, now: float) -> float | None:
        """Return an estimate of the seconds until the job has finished; None if its rate is unknown."""
        rate = self.rate(job_id)
        if not rate:
            return None
        track = self._tracks[job_id]
        return max(0.0, (100 - track.points[-1][1]) / rate - (now - track.seen_at))


def _first(job: BatchJob, now: float, at: datetime) -> _Track:
    """Return what is known of a job that is seen for the first time."""
    progress = job.progress or 0.0
    points = deque([(now, progress)], _POINTS)
    if job.created_at is None:
        return _Track({job.status}, now, now, points)
    created_at = now - max(0.0, (at - job.created_at).total_seconds())
    if progress:
        points.appendleft((created_at, 0.0))
    # A job that drains after a cancel is shown without progress, and has just moved, as far as is known.
    has_not_moved = not progress and job.status in _BEFORE_PROGRESS
    return _Track({job.status}, created_at if has_not_moved else now, now, points)
