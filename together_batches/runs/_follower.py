"""What is seen of a run's jobs, each awaited by the task of its attempt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from together_batches.models import BatchJobStatus
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.models import BatchJob
    from together_batches.runs._context import RunContext
    from together_batches.runs._records import Key

_CANCELLED = frozenset({BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED})


class JobFollower:
    """Waits for the jobs of a run, and records what it sees of them.

    ``on_seen`` is called each time that a job was read.
    """

    def __init__(self, run: RunContext, *, on_seen: Callable[[Key, BatchJob], None]) -> None:
        self._run = run
        self._on_seen = on_seen
        self._running = set[str]()
        self._not_cancelled = set[str]()

    def saw_running(self, job_id: str) -> bool:
        """Return whether the job was seen before its end in this call."""
        return job_id in self._running

    def cancelled_meanwhile(self, job: BatchJob) -> bool:
        """Return whether the job was cancelled while it was followed, and not before, or is being cancelled."""
        return job.status in _CANCELLED and job.id in self._not_cancelled

    async def ended(self, key: Key, job_id: str) -> BatchJob:
        """Wait until the job has finished, and return it; raise an error because of which it cannot be followed."""
        return await self._run.api.ended(job_id, on_update=partial(self._see, key))

    def _see(self, key: Key, job: BatchJob) -> None:
        before = self._run.store.at(key)
        if job.status not in _CANCELLED:
            self._not_cancelled.add(job.id)
        if not job.is_terminal:
            self._running.add(job.id)
        running = job.status == BatchJobStatus.IN_PROGRESS and before.running_at is None
        status = str(job.status) if job.status else None
        changed = self._run.store.change(
            key,
            status=status,
            progress=before.progress if job.progress is None else job.progress,
            created_at=job.created_at or before.created_at,
            running_at=self._run.time.now() if running else before.running_at,
        )
        self._on_seen(key, job)
        if changed:
            at = "" if job.progress is None else f" at {job.progress:g} %"
            self._run.emit(RunEventKind.PROGRESSED, f"job {job.id} is {status}{at}", key, job.id)
