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
from together_batches.runs._attempt import results_of

if TYPE_CHECKING:
    from together_batches.runs._attempt import AttemptWork
    from together_batches.runs._joining import Arranged


class UnavailableError(Exception):
    """Results are absent, incomplete or foreign; the text says what is wrong. They may still appear."""


@attrs.frozen
class Observation:
    """A job at one moment, and the sizes of its output and its error file in bytes, None if not given."""

    job: BatchJob = attrs.field(eq=results_of)
    sizes: tuple[int | None, ...]


class Evidence:
    """What the service shows of the job of an attempt, and of its results."""

    def __init__(self, work: AttemptWork) -> None:
        self._work = work

    async def check_omitted(self, arranged: Arranged) -> BatchJob | None:
        """Read the job twice; return it at once if it differs from its record, None if the readings agree.

        Raises :class:`UnavailableError` if the omitted rows may still appear.
        """
        wait = rules.second_look_delay(self._work.attempt, self._work.patience)
        first: Observation | None = None
        while True:
            seen = await self._observe()
            if self.differs(seen.job):
                return seen.job
            file_ids, sizes = results_of(seen.job)[1:], (arranged.output_bytes, arranged.error_bytes)
            for file_id, said, size in zip(file_ids, seen.sizes, sizes, strict=True):
                if file_id and size is not None and (not said or said != size):
                    message = f"{file_id} has {format_count(size)} bytes, and its metadata says {said or 'nothing'}"
                    raise UnavailableError(message)
            if seen == first or not wait:
                return None
            first = seen
            await self._work.time.sleep(wait)

    async def _observe(self) -> Observation:
        """Read the job and the metadata of its files once; raise :class:`UnavailableError` if one is absent."""
        job = await self.job()
        if job is None:
            message = f"job {self._work.attempt.job_id} is absent"
            raise UnavailableError(message)
        sizes: list[int | None] = [None, None]
        for number, file_id in enumerate((job.output_file_id, job.error_file_id)):
            if file_id:
                read = partial(self._work.api.file, file_id)
                found = await self._work.if_present("look-up of the results", read)
                if found is None:
                    message = f"the metadata of {file_id}, which holds results of job {job.id}, is absent"
                    raise UnavailableError(message)
                sizes[number] = found.bytes
        return Observation(job, tuple(sizes))

    async def job(self) -> BatchJob | None:
        """Return the job in its present state; None if it is absent."""
        job_id = self._work.attempt.job_id or ""
        return await self._work.if_present("look-up of the job", partial(self._work.api.retrieve, job_id))

    def differs(self, job: BatchJob) -> bool:
        """Return whether the job differs from its record."""
        return results_of(job) != results_of(self._work.attempt)

    async def is_as_collected(self, *, look_once: bool = False) -> bool:
        """Read the job and its files once more before rows are sent again; return False if they differ.

        Then the attempt is to be collected again. If they stay absent, nothing contradicts the evidence with which
        they were collected. With ``look_once``, their absence is a :class:`ResultsUnavailableError` at once.
        """
        attempt = self._work.attempt
        seen = None if attempt.job_id is None else await self._last_look(look_once=look_once)
        if seen is None:
            return True
        # A size that the metadata omits proves nothing: then the files are read once more.
        output_bytes, error_bytes = (said or 0 for said in seen.sizes)
        if not self.differs(seen.job) and all(
            noted in {None, said}
            for noted, said in ((attempt.output_bytes, output_bytes), (attempt.error_bytes, error_bytes))
        ):
            return True
        # These sizes are kept when it is collected again, so that it is not collected for ever if they are
        # permanently wrong, or not given at all.
        await self._work.save(collected_at=None, outcomes=b"", output_bytes=output_bytes, error_bytes=error_bytes)
        await self._work.note_state(seen.job)
        return False

    async def _last_look(self, *, look_once: bool) -> Observation | None:
        """Read the job and its files once more; return None if they stay absent."""
        absence = Absence(min(self._work.patience, rules.RECHECK_SECONDS))
        while True:
            try:
                return await self._observe()
            except UnavailableError as error:
                if look_once:
                    raise ResultsUnavailableError(str(error), job_id=self._work.attempt.job_id) from None
                pause = absence.pause()
                if pause is None:
                    return None
                await self._work.wait("a last look at the results", str(error), pause)
