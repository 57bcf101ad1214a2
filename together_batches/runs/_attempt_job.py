"""The job of an attempt: it is recorded, followed to its end, and read again in doubt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from together_batches._jobs.patience import until_found
from together_batches.errors import APIError, APIResponseValidationError, NotFoundError, ResultsUnavailableError
from together_batches.models import BatchJobStatus
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from together_batches._jobs.create import Created, Listing
    from together_batches.models import BatchJob
    from together_batches.runs._attempt import AttemptContext
    from together_batches.runs._records import Attempt

_BETWEEN_LOOKS_SECONDS = 30.0
_USELESS = frozenset({BatchJobStatus.FAILED, BatchJobStatus.EXPIRED, BatchJobStatus.CANCELLED})


def results_of(job: BatchJob | Attempt) -> tuple[str, str | None, str | None]:
    """Return what a job shows of its end and its results, or what is recorded of them."""
    return str(job.status), job.output_file_id, job.error_file_id


class AttemptJob:
    """The job of an attempt: which one it is, and its state. Each change is recorded."""

    def __init__(self, context: AttemptContext) -> None:
        self.context = context

    async def list_jobs(self) -> Listing:
        """Return the list, to search it for a job of the attempt."""
        return await self.context.until_answered(
            "search for the job",
            self.context.api.list_jobs,
            # A response that is not a list counts against patience, and is not waited out as an outage.
            is_over=lambda error: isinstance(error, APIResponseValidationError),
        )

    # --- which job ------------------------------------------------------------------------------------------------

    async def note_job(self, created: Created, **changes: Any) -> None:
        """Record the job of the attempt, with other ``changes``, and report it."""
        attempt, job = self.context.attempt, created.job
        now = self.context.time.now()
        await self.context.save(
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
        self.context.emit(kind, message, job.id)

    async def take_up(self, other: Created) -> None:
        """Assign the attempt the second job of the previous attempt's file."""
        self.context.api.know(other.job)
        attempt = self.context.attempt
        file_id = other.job.input_file_id
        former = (
            attempt.former_file_ids if attempt.file_id == file_id else attempt.former_file_ids_with(attempt.file_id)
        )
        # In one save: with the file alone, and the job not listed for a moment, all its rows would be sent again.
        await self.note_job(other, file_id=file_id, former_file_ids=former, marked=True)

    async def other_job(self) -> Created | None:
        """Return a second job of the attempt's file if its create may have made two; it may answer more rows."""
        attempt = self.context.attempt
        if not (attempt.marked and (attempt.posts > 1 or attempt.found)):
            return None
        try:
            listing = await self.context.until_answered(
                "look for other jobs", self.context.api.list_jobs, is_over=lambda _: True
            )
        except APIError:
            return None
        return self.context.lost_job(
            [job for job in listing.jobs if job.status not in _USELESS or job.output_file_id]
        )

    async def _has_other_job(self) -> bool:
        """Adopt another job of the attempt's own file in place of an absent one; return whether one exists.

        The response to a create may have the id of a job that does not exist.
        """
        if not self.context.attempt.marked:
            return False
        try:
            listing = await self.list_jobs()
        except APIError:
            return False
        found = self.context.lost_job(listing.jobs)
        if found is None:
            return False
        self.context.api.know(found.job)
        await self.note_job(found)
        return True

    # --- its state ------------------------------------------------------------------------------------------------

    async def end(self, ended: Callable[[str], Awaitable[BatchJob]]) -> BatchJob | None:
        """Wait by ``ended`` until the job has finished, and return it; None if its end is already recorded."""
        if self.context.attempt.ended_at is not None:
            return None
        job = await self._present(ended)
        await self.note_state(job)
        why = f": {job.error}" if job.error else ""
        self.context.emit(RunEventKind.ENDED, f"job {job.id} is {job.status}{why}", job.id)
        return job

    async def read(self) -> BatchJob:
        """Return the job in its present state."""
        return await self._present(self._found)

    async def _found(self, job_id: str, what: str = "look-up of the job") -> BatchJob:
        read = partial(self.context.until_answered, what, partial(self.context.api.retrieve, job_id))
        return await until_found(read, patience=self.context.patience, sleep=self.context.time.sleep)

    async def _present(self, read: Callable[[str], Awaitable[BatchJob]]) -> BatchJob:
        """Return what ``read`` returns for the job, or for another job of its file if it is absent."""
        attempt = self.context.attempt
        job_id = attempt.job_id or ""
        try:
            return await read(job_id)
        except NotFoundError as error:
            if await self._has_other_job():
                return await self._present(read)
            seen = "" if self.context.attempt.status else ", and was never seen since its create was answered"
            patience = self.context.patience
            absent = f"has been absent for {patience:g} s" if patience else "is absent"
            message = f"job {job_id} of shard {attempt.shard} {absent}{seen} ({error.message})"
            raise ResultsUnavailableError(message, job_id=job_id) from error

    async def look_again(self, job: BatchJob) -> BatchJob:
        """Read an ended job again after half a minute; if it is absent, return it unchanged.

        An inconsistent service may show a false end for a moment.
        """
        await self.context.time.sleep(min(_BETWEEN_LOOKS_SECONDS, self.context.patience))
        try:
            found = await self._found(job.id, "second look at the job")
        except NotFoundError:
            return job
        await self.note_state(found)
        return found

    async def note_if_changed(self, job: BatchJob) -> bool:
        """Record the state of the job, unless its end and its files are recorded; return whether it has ended."""
        attempt = self.context.attempt
        if attempt.ended_at is None or results_of(job) != results_of(attempt):
            return await self.note_state(job)
        return job.is_terminal

    async def note_state(self, job: BatchJob) -> bool:
        """Record the state of the job, with its files, and return whether it has ended.

        Its progress is the maximum seen, because rows that were done are paid for, whatever the job shows at its end.
        """
        seen = [progress for progress in (self.context.attempt.progress, job.progress) if progress is not None]
        await self.context.save(
            status=str(job.status),
            progress=max(seen, default=None),
            ended_at=self.context.time.now() if job.is_terminal else None,
            error=job.error,
            output_file_id=job.output_file_id,
            error_file_id=job.error_file_id,
        )
        return job.is_terminal
