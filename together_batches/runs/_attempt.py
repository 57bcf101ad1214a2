"""One attempt, as the steps that carry it out see it, whether a run or a caller with its own storage drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from together_batches._jobs.patience import until_found
from together_batches.errors import APIError, APIResponseValidationError, NotFoundError, ResultsUnavailableError
from together_batches.models import BatchJobStatus
from together_batches.runs._lost_jobs import lost_job
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from together_batches._jobs.create import Created, Listing
    from together_batches.errors import BatchesError
    from together_batches.models import BatchJob
    from together_batches.runs._context import Clock, RunApi
    from together_batches.runs._joining import Arranged
    from together_batches.runs._lost_jobs import JobSettings
    from together_batches.runs._records import Attempt

_BETWEEN_LOOKS_SECONDS = 30.0
_USELESS = frozenset({BatchJobStatus.FAILED, BatchJobStatus.EXPIRED, BatchJobStatus.CANCELLED})

T = TypeVar("T")


def results_of(job: BatchJob | Attempt) -> tuple[str, str | None, str | None]:
    """Return what a job shows of its end and its results, or what is recorded of them."""
    return str(job.status), job.output_file_id, job.error_file_id


class AttemptWork(ABC):
    """The record of an attempt and its job, the service, the clock, and how an outage is treated.

    ``patience`` is the number of seconds for which something may be absent.
    """

    api: RunApi
    settings: JobSettings
    patience: float

    @property
    def time(self) -> Clock:
        """The clock."""
        return self.api.time

    # --- who drives it --------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def attempt(self) -> Attempt:
        """The attempt as last saved."""

    @abstractmethod
    async def save(self, **changes: Any) -> None:
        """Change the attempt, and return when the change is durable."""

    @property
    @abstractmethod
    def others(self) -> Iterable[Attempt]:
        """The other attempts that are known."""

    @abstractmethod
    async def until_answered(
        self, what: str, call: Callable[[], Awaitable[T]], *, is_over: Callable[[APIError], bool] = lambda _: False
    ) -> T:
        """Return the result of ``call``; an outage is waited out if that is the way here, unless it ``is_over``."""

    @abstractmethod
    async def wait(self, what: str, problem: BatchesError | str, pause: float) -> None:
        """Report a transient failure, and wait."""

    @abstractmethod
    def emit(self, kind: RunEventKind, message: str, job_id: str | None = None) -> None:
        """Report an event."""

    # --- what the service shows -----------------------------------------------------------------------------------

    async def if_present(self, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``call``; None after a 404."""
        try:
            return await self.until_answered(what, call)
        except NotFoundError:
            return None

    async def list_jobs(self) -> Listing:
        """Return the list, to search it for a job of the attempt."""
        return await self.until_answered(
            "search for the job",
            self.api.list_jobs,
            # A response that is not a list counts against patience, and is not waited out as an outage.
            is_over=lambda error: isinstance(error, APIResponseValidationError),
        )

    async def read(self) -> BatchJob:
        """Return the job in its present state."""
        return await self._present(self._found)

    async def _found(self, job_id: str, what: str = "look-up of the job") -> BatchJob:
        read = partial(self.until_answered, what, partial(self.api.retrieve, job_id))
        return await until_found(read, patience=self.patience, sleep=self.time.sleep)

    async def _present(self, read: Callable[[str], Awaitable[BatchJob]]) -> BatchJob:
        """Return what ``read`` returns for the job, or for another job of its file if it is absent."""
        job_id = self.attempt.job_id or ""
        try:
            return await read(job_id)
        except NotFoundError as error:
            if await self._has_other_job():
                return await self._present(read)
            seen = "" if self.attempt.status else ", and was never seen since its create was answered"
            absent = f"has been absent for {self.patience:g} s" if self.patience else "is absent"
            message = f"job {job_id} of shard {self.attempt.shard} {absent}{seen} ({error.message})"
            raise ResultsUnavailableError(message, job_id=job_id) from error

    async def look_again(self, job: BatchJob) -> BatchJob:
        """Read an ended job again after half a minute; if it is absent, return it unchanged.

        An inconsistent service may show a false end for a moment.
        """
        await self.time.sleep(min(_BETWEEN_LOOKS_SECONDS, self.patience))
        try:
            found = await self._found(job.id, "second look at the job")
        except NotFoundError:
            return job
        await self.note_state(found)
        return found

    # --- which job it is ------------------------------------------------------------------------------------------

    def is_of_another(self, job: BatchJob) -> bool:
        """Return whether the job belongs to another attempt."""
        return any(other.job_id == job.id for other in self.others)

    def lost_job(self, jobs: Iterable[BatchJob]) -> Created | None:
        """Return the listed job of the attempt's file that no record names."""
        known = {self.attempt.job_id, *(other.job_id for other in self.others)}
        return lost_job(self.attempt, self.settings, jobs, known=known)

    async def note_job(self, created: Created, **changes: Any) -> None:
        """Record the job of the attempt, with other ``changes``, and report it."""
        attempt, job, now = self.attempt, created.job, self.time.now()
        await self.save(
            job_id=job.id,
            found=created.found,
            creating_at=attempt.creating_at or now,
            posts=max(1, attempt.posts),
            known_at=now,
            created_at=job.created_at,
            warning=job.warning,
            **changes,
        )
        kind = RunEventKind.FOUND if created.found else RunEventKind.CREATED
        message = f"job {job.id} is {'found again' if created.found else 'created'}"
        if created.others:
            ids = ", ".join(other.id for other in created.others)
            message += f"; these were created from its file as well, cancel them if they still run: {ids}"
        self.emit(kind, message, job.id)

    async def take_up(self, other: Created) -> None:
        """Assign the attempt the second job of the previous attempt's file."""
        self.api.know(other.job)
        attempt, file_id = self.attempt, other.job.input_file_id
        former = (
            attempt.former_file_ids if attempt.file_id == file_id else attempt.former_file_ids_with(attempt.file_id)
        )
        # In one save: with the file alone, and the job not listed for a moment, all its rows would be sent again.
        await self.note_job(other, file_id=file_id, former_file_ids=former, marked=True)

    async def other_job(self) -> Created | None:
        """Return a second job of the attempt's file if its create may have made two; it may answer more rows."""
        if not (self.attempt.marked and (self.attempt.posts > 1 or self.attempt.found)):
            return None
        try:
            listing = await self.until_answered("look for other jobs", self.api.list_jobs, is_over=lambda _: True)
        except APIError:
            return None
        return self.lost_job([job for job in listing.jobs if job.status not in _USELESS or job.output_file_id])

    async def _has_other_job(self) -> bool:
        """Adopt another job of the attempt's own file instead of an absent one; return whether one exists.

        The response to a create may have the id of a job that does not exist.
        """
        if not self.attempt.marked:
            return False
        try:
            found = self.lost_job((await self.list_jobs()).jobs)
        except APIError:
            return False
        if found is None:
            return False
        self.api.know(found.job)
        await self.note_job(found)
        return True

    # --- its state ------------------------------------------------------------------------------------------------

    async def end(self, ended: Callable[[str], Awaitable[BatchJob]]) -> BatchJob | None:
        """Wait by ``ended`` until the job has finished, and return it; None if its end is already recorded."""
        if self.attempt.ended_at is not None:
            return None
        job = await self._present(ended)
        await self.note_state(job)
        why = f": {job.error}" if job.error else ""
        self.emit(RunEventKind.ENDED, f"job {job.id} is {job.status}{why}", job.id)
        return job

    async def note_if_changed(self, job: BatchJob) -> bool:
        """Record the state of the job, unless its end and its files are recorded; return whether it has ended."""
        if self.attempt.ended_at is None or results_of(job) != results_of(self.attempt):
            return await self.note_state(job)
        return job.is_terminal

    async def note_state(self, job: BatchJob) -> bool:
        """Record the state of the job, with its files, and return whether it has ended.

        Its progress is the maximum seen, because rows that were done are paid for, whatever the job shows at its end.
        """
        seen = [progress for progress in (self.attempt.progress, job.progress) if progress is not None]
        await self.save(
            status=str(job.status),
            progress=max(seen, default=None),
            ended_at=self.time.now() if job.is_terminal else None,
            error=job.error,
            output_file_id=job.output_file_id,
            error_file_id=job.error_file_id,
        )
        return job.is_terminal


class AttemptResults(Protocol):
    """The place of the results of an attempt."""

    def downloads(self) -> AbstractAsyncContextManager[Sequence[Path]]:
        """Provide paths for the two files of results, and limit how many are downloaded at once."""
        ...

    async def arrange(self, output: Path | None, errors: Path | None) -> Arranged:
        """Put the results in order. Raises :class:`ForeignFileError` for a file that is not of the job."""
        ...

    async def keep(self) -> None:
        """Put the ordered results in their place."""
        ...
