"""Polling of a run's jobs: one poller for all, each job awaited by the task of its attempt."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from together_batches.models import BatchJobStatus
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from together_batches.errors import BatchesError
    from together_batches.models import BatchJob
    from together_batches.runs._context import RunContext
    from together_batches.runs._records import Key

__all__ = ["JobFollower"]

_CANCELLED = frozenset({BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED})


class JobFollower:
    """Follower of jobs: :meth:`run` polls them, :meth:`ending` waits for one of them."""

    def __init__(self, run: RunContext, *, on_status: Callable[[Key, str | None], None]) -> None:
        self._run = run
        self._on_status = on_status
        self._requested: asyncio.Queue[str | None] = asyncio.Queue()
        self._waiting: dict[str, tuple[Key, asyncio.Future[BatchJob | BatchesError]]] = {}
        self._cancelled_before = set[str]()
        self._seen = set[str]()
        self._running = set[str]()

    def saw_running(self, job_id: str) -> bool:
        """Return whether the job was seen before its end in this call."""
        return job_id in self._running

    def cancelled_meanwhile(self, job: BatchJob) -> bool:
        """Return whether the job was cancelled while it was followed, and not before."""
        return job.status == BatchJobStatus.CANCELLED and job.id not in self._cancelled_before

    async def ending(self, key: Key, job_id: str) -> BatchJob | BatchesError:
        """Wait until the job has finished and return it, or the error because of which it cannot be followed."""
        ending: asyncio.Future[BatchJob | BatchesError] = asyncio.get_running_loop().create_future()
        self._waiting[job_id.lower()] = key, ending
        self._requested.put_nowait(job_id)
        return await ending

    def stop(self) -> None:
        """Accept no more jobs."""
        self._requested.put_nowait(None)

    async def run(self) -> None:
        """Follow all requested jobs until stopped."""
        finished = self._run.api.follow(self._job_ids(), on_update=self._see, on_refused=self._end)
        async with aclosing(finished):
            async for job in finished:
                self._end(job.id, job)

    async def _job_ids(self) -> AsyncIterator[str]:
        while (job_id := await self._requested.get()) is not None:
            yield job_id

    def _end(self, job_id: str, ended: BatchJob | BatchesError) -> None:
        _, ending = self._waiting.pop(job_id.lower())
        if not ending.done():  # done if its waiter was cancelled
            ending.set_result(ended)

    def _see(self, job: BatchJob) -> None:
        key, _ = self._waiting[job.id.lower()]
        before = self._run.store.at(key)
        if job.status not in _CANCELLED:
            self._cancelled_before.discard(job.id)
        elif job.id not in self._seen:
            self._cancelled_before.add(job.id)
        self._seen.add(job.id)
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
        self._on_status(key, status)
        if changed:
            at = "" if job.progress is None else f" at {job.progress:g} %"
            self._run.emit(RunEventKind.PROGRESSED, f"job {job.id} is {status}{at}", key, job.id)
