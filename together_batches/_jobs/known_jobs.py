"""What a client knows of the jobs and files of its account, from its own requests.

A 404 for a known job may be a transient inconsistency, and a job that was known before a create is not its job.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from together_batches._fields import LONG_AGO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from together_batches.models import BatchJob

_log = logging.getLogger("together_batches")

_MOST_REMEMBERED = 10_000
UNKNOWN_TIME = datetime.max.replace(tzinfo=UTC)
"""Creation time of a job that does not state one, later than all others."""


class KnownJobs:
    """The jobs that this client has seen, and since when; those with the oldest creation time are dropped first.

    All views of a client share it, together with the locks of the files that jobs are being created from.
    """

    def __init__(self) -> None:
        # Two plain mappings, because a pair for each job would be one more object for the garbage collector to visit.
        self._seen: dict[str, int] = {}
        self._created: dict[str, datetime] = {}
        self._forgotten = LONG_AGO
        self._count = 0
        self._files: dict[str, None] = {}
        self._single: dict[str, tuple[str, Callable[[BatchJob], bool]]] = {}
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    def note(self, job: BatchJob) -> BatchJob:
        """Remember a job; one that was seen before keeps its position."""
        created = job.created_at or UNKNOWN_TIME
        if created >= self._forgotten and job.id not in self._seen:
            self._count += 1
            self._seen[job.id] = self._count
            self._created[job.id] = created
            if len(self._seen) > _MOST_REMEMBERED:
                # Only a recent job can be mistaken for a new one, and a list has no defined order.
                oldest_first = sorted(self._created, key=self._created.__getitem__)
                self._forgotten = self._created[oldest_first[_MOST_REMEMBERED // 2]]
                for seen in oldest_first[: _MOST_REMEMBERED // 2]:
                    del self._seen[seen], self._created[seen]
        if job.output_file_id or job.error_file_id:
            self.note_files(job.output_file_id, job.error_file_id)
        if self._single and job.input_file_id in self._single:
            self._warn_of_second(job)
        return job

    def note_all(self, newest_first: Sequence[BatchJob]) -> None:
        """Remember the jobs of a list. In a long list the oldest are skipped: they would be dropped anyway."""
        for job in reversed(newest_first[:_MOST_REMEMBERED]):
            self.note(job)
        for job in newest_first[_MOST_REMEMBERED:]:
            if job.created_at is None or (self._single and job.input_file_id in self._single):
                self.note(job)

    def knows(self, job_id: str) -> bool:
        """Return True if the service has shown this job, so that a 404 for it may be a transient inconsistency."""
        return job_id in self._seen or job_id.lower() in self._seen

    def note_files(self, *file_ids: str | None) -> None:
        """Remember files that exist: uploaded by this client, or named by a job."""
        for file_id in file_ids:
            if file_id:
                self._files[file_id] = None
        if len(self._files) > _MOST_REMEMBERED:
            for file_id in list(self._files)[: _MOST_REMEMBERED // 2]:
                del self._files[file_id]

    def forget_file(self, file_id: str) -> None:
        """Note that a file was deleted, so that its absence is final."""
        self._files.pop(file_id, None)

    def knows_file(self, file_id: str) -> bool:
        """Return True if this file exists as far as is known."""
        return file_id in self._files

    def expect_one(self, file_ids: Iterable[str], job_id: str, is_second: Callable[[BatchJob], bool]) -> None:
        """Warn once if a second job of the same create appears: its response was lost, or it was posted twice."""
        for file_id in file_ids:
            self._single[file_id] = job_id, is_second

    def expect_further(self, file_ids: Iterable[str]) -> None:
        """Accept a further job of these files, because another create is about to be sent."""
        for file_id in file_ids:
            self._single.pop(file_id, None)

    def _warn_of_second(self, job: BatchJob) -> None:
        file_id = job.input_file_id or ""
        first, is_second = self._single[file_id]
        if job.id != first and is_second(job):
            del self._single[file_id]
            _log.warning(
                "two jobs were created from %s: %s is used, and %s has shown since; cancel it if it still runs",
                file_id,
                first,
                job.id,
                extra={"job_id": first, "job_ids": [job.id], "input_file_id": file_id},
            )

    @property
    def now(self) -> int:
        """A mark that separates the jobs seen before from those seen after."""
        return self._count

    def seen_before(self, mark: int, job: BatchJob) -> bool:
        """Return True if the job was known when the mark was made."""
        return self._seen.get(job.id, mark + 1) <= mark

    @asynccontextmanager
    async def turn(self, input_file_id: str) -> AsyncGenerator[None]:
        """Hold the lock for creates from one file, which lives as long as it has a holder or a waiter."""
        lock = self._turns.setdefault(input_file_id, asyncio.Lock())
        async with lock:
            yield
