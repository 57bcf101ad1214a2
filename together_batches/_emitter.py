"""The callbacks of a client for its events and for the jobs that it reads, and what was last emitted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from together_batches.events import JobChanged, RateChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import TypeAlias

    from together_batches.events import ClientEvent, JobCreated
    from together_batches.models import BatchJob, BatchJobStatus

    Callback: TypeAlias = Callable[[ClientEvent], None]
    Reader: TypeAlias = Callable[[BatchJob, datetime | None], None]
    """Function that receives each job that a wait reads, and the time of the response by the service's clock."""
    _JobState: TypeAlias = tuple[BatchJobStatus | None, float | None]
    """The last status and progress of a job."""

_MOST_REMEMBERED = 10_000


class Emitter:
    """Passes the events of a client to its callbacks; all views of a client share it.

    Code that emits looks at ``callbacks`` first, so that without one nothing is made.
    """

    def __init__(self) -> None:
        self.callbacks: tuple[Callback, ...] = ()
        self.readers: list[Reader] = []
        self.seen_at: datetime | None = None
        """The time of the last response about jobs, by the clock of the service."""
        self._rate: tuple[float | None, bool] = None, False
        self._jobs: dict[str, _JobState] = {}

    def add(self, callback: Callback) -> Callable[[], None]:
        """Add a callback after those that are there, and return a function that removes it."""
        own = partial(callback)  # an object of its own, because the same function may be added twice
        self.callbacks = (*self.callbacks, own)

        def remove() -> None:
            self.callbacks = tuple(other for other in self.callbacks if other is not own)

        return remove

    def emit(self, event: ClientEvent) -> None:
        """Call the callbacks in their order; an exception from one is raised."""
        for callback in self.callbacks:
            callback(event)

    def rate(self, rate: float | None, pause: float, *, is_blocked: bool) -> None:
        """Emit the state of the rate limiter, if it is another one than before."""
        if (rate, is_blocked) != self._rate:
            self._rate = rate, is_blocked
            self.emit(RateChanged(rate=rate, pause=pause))

    def read(self, job: BatchJob) -> None:
        """Pass a job that a wait has read to the readers, whether or not it is news."""
        for reader in self.readers:
            reader(job, self.seen_at)

    def job(self, job: BatchJob) -> None:
        """Emit the state of a job that was read, if it is news."""
        if not self.callbacks:
            return
        before = self._jobs.get(job.id)
        if before is not None and not _is_news(job, before):
            return
        self.note(job)
        self.emit(
            JobChanged(
                job_id=job.id,
                status=job.status,
                before=None if before is None else before[0],
                progress=job.progress,
                model_id=job.model_id,
                endpoint=job.endpoint,
                input_file_id=job.input_file_id,
                created_at=job.created_at,
                completed_at=job.completed_at,
                seen_at=self.seen_at,
            )
        )

    def listed(self, jobs: Iterable[BatchJob]) -> None:
        """Emit the states of those jobs of a list that this client has read before, or created."""
        if self.callbacks:
            for job in jobs:
                if job.id in self._jobs:
                    self.job(job)

    def created(self, job: BatchJob, event: JobCreated) -> None:
        """Emit the creation of a job; its state then is known."""
        self.note(job)
        self.emit(event)

    def note(self, job: BatchJob) -> None:
        """Remember the state of a job."""
        self._jobs.pop(job.id, None)  # the last one that changed is the last one that is dropped
        self._jobs[job.id] = job.status, job.progress
        if len(self._jobs) > _MOST_REMEMBERED:
            for job_id in list(self._jobs)[: _MOST_REMEMBERED // 2]:
                del self._jobs[job_id]


def _is_news(job: BatchJob, before: _JobState) -> bool:
    status, progress = before
    if status is not None and status.is_terminal:  # the first terminal status is final
        return False
    return job.status != status or (job.progress or 0) > (progress or 0)
