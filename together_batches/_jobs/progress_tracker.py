"""When each of many jobs last moved, and how fast it moves. Pure: states and times are arguments."""

from __future__ import annotations

from collections import deque

import attrs

from together_batches.models import BatchJobStatus

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


class JobProgressTracker:
    """Jobs that have not finished: when each last moved, how fast it progresses, and which are stuck.

    A job moves if its progress grows, or if it enters a status that it was not in before: an older state, which a
    late response may show, is no movement. It is stuck if it did not move for ``stuck_after`` seconds. Times are
    seconds of any one clock; progress is in percent.
    """

    def __init__(self, stuck_after: float) -> None:
        self.stuck_after = stuck_after
        self._tracks: dict[str, _Track] = {}

    def see(
        self,
        job_id: str,
        status: BatchJobStatus | None,
        progress: float | None,
        now: float,
        *,
        age: float | None = None,
    ) -> None:
        """Take the state of a job as read at ``now``; one that has finished is forgotten.

        ``age`` is the seconds since the creation of the job. A job that is seen for the first time, and has not
        progressed yet, last moved when it was created.
        """
        if status is not None and status.is_terminal:
            self.forget(job_id)
            return
        track = self._tracks.get(job_id)
        if track is None:
            created_at = None if age is None else now - max(0.0, age)
            self._tracks[job_id] = _first(status, progress or 0.0, now, created_at)
            return
        last = track.points[-1][1]
        if progress is not None and progress > last:
            if not track.was_observed:
                track.points, track.was_observed = deque([(track.seen_at, last)], _POINTS), True
            track.points.append((now, progress))
            track.moved_at = now
        if status not in track.statuses:
            track.statuses.add(status)
            track.moved_at = now
        track.seen_at = now

    def forget(self, job_id: str) -> None:
        """Follow a job no longer."""
        self._tracks.pop(job_id, None)

    def quiet_seconds(self, job_id: str, now: float) -> float | None:
        """Return the seconds since the job last moved; None for a job that is not followed."""
        track = self._tracks.get(job_id)
        return None if track is None else now - track.moved_at

    def is_stuck(self, job_id: str, now: float) -> bool:
        """Return whether the job is stuck."""
        quiet = self.quiet_seconds(job_id, now)
        return quiet is not None and quiet >= self.stuck_after

    def stuck(self, now: float) -> dict[str, float]:
        """Return the jobs that are stuck, each with the seconds since it last moved."""
        quiet = {job_id: now - track.moved_at for job_id, track in self._tracks.items()}
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


def _first(status: BatchJobStatus | None, progress: float, now: float, created_at: float | None) -> _Track:
    """Return what is known of a job that is seen for the first time."""
    points = deque([(now, progress)], _POINTS)
    if created_at is None:
        return _Track({status}, now, now, points)
    if progress:
        points.appendleft((created_at, 0.0))
    # A job that drains after a cancel is shown without progress, and has just moved, as far as is known.
    has_not_moved = not progress and status in _BEFORE_PROGRESS
    return _Track({status}, created_at if has_not_moved else now, now, points)
