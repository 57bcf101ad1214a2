"""Jobs that do not move while a command follows them, from the events of its client."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from together_batches._jobs.progress_tracker import JobProgressTracker
from together_batches.cli._notifications import job_stuck
from together_batches.events import JobChanged, JobCreated, RequestFinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.cli._notifications import Notification
    from together_batches.events import ClientEvent


class StuckJobs:
    """Jobs of which a client reports events, and which of them are stuck.

    A job is stuck only if it was read again: during an outage nothing is known of it.
    """

    def __init__(self, stuck_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = JobProgressTracker(stuck_after)
        self._clock = clock
        self._jobs: dict[str, JobChanged] = {}
        self._read_at: dict[str, float] = {}
        self._listed_at = -1.0
        self._reported: set[str] = set()

    def see(self, event: ClientEvent) -> None:
        """Take an event of the client."""
        now = self._clock()
        if isinstance(event, JobCreated):  # the state in which a job was created is not reported
            self._tracker.see(event.job_id, None, None, now)
            created = JobChanged(
                job_id=event.job_id,
                status=None,
                model_id=event.model_id,
                endpoint=event.endpoint,
                input_file_id=event.input_file_id,
            )
            self._jobs[event.job_id] = created
        elif isinstance(event, JobChanged):
            # By the clock of the service: if that of this machine is ahead, a new job would seem old.
            created_at, seen_at = event.created_at, event.seen_at or datetime.now(UTC)
            age = None if created_at is None else (seen_at - created_at).total_seconds()
            self._tracker.see(event.job_id, event.status, event.progress, now, age=age)
            if event.status is not None and event.status.is_terminal:
                self._jobs.pop(event.job_id, None)
            else:
                self._jobs[event.job_id] = event
        elif isinstance(event, RequestFinished) and event.method == "GET" and event.status == 200 and event.path:
            if event.path == "/batches":
                self._listed_at = now
            elif event.path.startswith("/batches/"):
                self._read_at[event.path.removeprefix("/batches/")] = now

    def take(self) -> list[Notification]:
        """Return the jobs that have become stuck."""
        found: list[Notification] = []
        for job_id, job in self._jobs.items():
            read_at = max(self._listed_at, self._read_at.get(job_id, -1.0))
            if job_id not in self._reported and self._tracker.is_stuck(job_id, read_at):
                self._reported.add(job_id)
                found.append(job_stuck(job, self._tracker.quiet_seconds(job_id, read_at) or 0.0))
        return found
