"""The evidence on which rows are sent again.

A row that was answered is paid for. So a row is sent again only on one of: an error row, a complete result without
it, a job that ended as a whole without results. Two readings of the service must agree.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from together_batches._jobs.patience import Absence
from together_batches._text import format_count
from together_batches.errors import ResultsUnavailableError
from together_batches.models import BatchJob
from together_batches.runs import rules
from together_batches.runs._attempt_job import results_of

if TYPE_CHECKING:
    from together_batches.runs._attempt_job import AttemptJob
    from together_batches.runs._joining import Arranged


@attrs.frozen
class Unavailable:
    """Results that are absent, incomplete or foreign; ``why`` says what is wrong. They may still appear."""

    why: str


@attrs.frozen
class Changed:
    """A job that differs from its record."""

    job: BatchJob


@attrs.frozen
class Observation:
    """A job at one moment, and the sizes of its output and its error file in bytes, None if not given."""

    job: BatchJob = attrs.field(eq=results_of)
    sizes: tuple[int | None, ...]


class Evidence:
    """What the service shows of the job of an attempt, and of its results."""

    def __init__(self, attempt_job: AttemptJob) -> None:
        self._attempt_job = attempt_job
        self._context = attempt_job.context

    async def doubt(self, arranged: Arranged) -> Unavailable | Changed | None:
        """Return why the omitted rows may still appear; None if two readings agree that they will not."""
        wait = rules.second_look_delay(self._context.attempt, self._context.patience)
        first: Observation | None = None
        while True:
            seen = await self.observe()
            if isinstance(seen, Unavailable):
                return seen
            changed = self.if_changed(seen.job)
            if changed is not None:
                return changed
            file_ids, sizes = results_of(seen.job)[1:], (arranged.output_bytes, arranged.error_bytes)
            for file_id, said, size in zip(file_ids, seen.sizes, sizes, strict=True):
                if file_id and size is not None and (not said or said != size):
                    return Unavailable(
                        f"{file_id} has {format_count(size)} bytes, and its metadata says {said or 'nothing'}"
                    )
            if seen == first or not wait:
                return None
            first = seen
            await self._context.time.sleep(wait)

    async def observe(self) -> Observation | Unavailable:
        """Read the job and the metadata of its files once."""
        job = await self.job()
        if job is None:
            return Unavailable(f"job {self._context.attempt.job_id} is absent")
        sizes: list[int | None] = [None, None]
        for number, file_id in enumerate((job.output_file_id, job.error_file_id)):
            if file_id:
                read = partial(self._context.api.file, file_id)
                found = await self._context.if_present("look-up of the results", read)
                if found is None:
                    return Unavailable(f"the metadata of {file_id}, which holds results of job {job.id}, is absent")
                sizes[number] = found.bytes
        return Observation(job, tuple(sizes))

    async def job(self) -> BatchJob | None:
        """Return the job in its present state; None if it is absent."""
        job_id = self._context.attempt.job_id or ""
        return await self._context.if_present("look-up of the job", partial(self._context.api.retrieve, job_id))

    def if_changed(self, job: BatchJob | None) -> Changed | None:
        """Return a job that differs from its record; None if it does not, or is absent."""
        return None if job is None or results_of(job) == results_of(self._context.attempt) else Changed(job)

    async def is_as_collected(self, *, look_once: bool = False) -> bool:
        """Read the job and its files once more before rows are sent again; return False if they differ.

        If they stay absent, nothing contradicts the evidence with which they were collected. With ``look_once``,
        their absence is a :class:`ResultsUnavailableError` at once.
        """
        context, attempt = self._context, self._context.attempt
        if attempt.job_id is None:
            return True
        absence = Absence(min(context.patience, rules.RECHECK_SECONDS))
        while isinstance(seen := await self.observe(), Unavailable):
            if look_once:
                raise ResultsUnavailableError(seen.why, job_id=attempt.job_id)
            pause = absence.pause()
            if pause is None:
                return True
            await context.wait("a last look at the results", seen.why, pause)
        # A size that the metadata omits proves nothing: then the files are read once more.
        if self.if_changed(seen.job) is None and all(
            noted is None or (said or 0) == noted
            for said, noted in zip(seen.sizes, (attempt.output_bytes, attempt.error_bytes), strict=True)
        ):
            return True
        # These sizes are kept when it is collected again, so that it is not collected for ever if they are
        # permanently wrong, or not given at all.
        output_bytes, error_bytes = (said or 0 for said in seen.sizes)
        await context.save(collected_at=None, outcomes=b"", output_bytes=output_bytes, error_bytes=error_bytes)
        await self._attempt_job.note_state(seen.job)
        return False
