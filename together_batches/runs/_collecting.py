"""The last step of an attempt: its results are downloaded, and the outcome of each row is recorded.

A file that is absent, short or foreign is read again as long as patience allows, and then its rows are left alone.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from together_batches._jobs.patience import Absence
from together_batches._text import count_of, format_count
from together_batches.errors import NotFoundError, ResultsUnavailableError, UsageError
from together_batches.models import BatchJobStatus
from together_batches.runs import rules
from together_batches.runs._context import SHORTEST_PAUSE_SECONDS
from together_batches.runs._evidence import Evidence, UnavailableError
from together_batches.runs._joining import ForeignFileError
from together_batches.runs._records import packed
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from together_batches.models import BatchJob
    from together_batches.runs._attempt import AttemptResults
    from together_batches.runs._attempt_job import AttemptJob
    from together_batches.runs._joining import Arranged


class Collecting:
    """Download and arrangement of the results of an attempt, with the evidence for omitted rows."""

    def __init__(self, attempt_job: AttemptJob, results: AttemptResults) -> None:
        self.attempt_job = attempt_job
        self._context = attempt_job.context
        self._results = results
        self._evidence = Evidence(attempt_job)

    async def collect(self, *, on_wait: Callable[[], None]) -> Arranged | None:
        """Collect the results, and record the outcome of each row; return None if the job has not ended after all.

        ``on_wait`` is called before any wait. Raises :class:`ResultsUnavailableError` if the results stay absent,
        short or foreign beyond patience.
        """
        context = self._context
        absence = Absence(context.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
        most_bytes = 0
        while True:
            try:
                arranged = await self.read()
                if arranged.bytes > most_bytes:
                    most_bytes = arranged.bytes
                    absence.over()  # results that grow are not absent
                job: BatchJob | None = None
                if not arranged.is_whole:
                    on_wait()
                    job = await self._evidence.check_omitted(arranged)
                if job is None:
                    await self._note(arranged)
                    return arranged
            except UnavailableError as error:
                pause = absence.pause()
                if pause is None:
                    attempt = context.attempt
                    raise ResultsUnavailableError(
                        f"the results of job {attempt.job_id} are unavailable: {error}",
                        job_id=attempt.job_id,
                        file_ids=filter(None, (attempt.output_file_id, attempt.error_file_id)),
                    ) from None
                on_wait()
                await context.wait("collecting the results", str(error), pause)
                job = await self._evidence.job()
            if job is not None and self._evidence.differs(job):
                if not await self.attempt_job.note_state(job):
                    return None
                absence.over()

    async def give_up(self, list_jobs: Callable[[], Awaitable[Iterable[BatchJob]]]) -> Arranged | None:
        """Collect the results that can be read now, and count the rest as missing.

        Return None if the job of a create without a job is in the list after all: nothing is given up then. Raises
        :class:`UsageError` if the job has not ended.
        """
        context, attempt_job = self._context, self.attempt_job
        if context.attempt.job_id is None:
            found = context.lost_job(await list_jobs())
            if found is not None:
                await attempt_job.note_job(found)
                return None
            await context.save(ended_at=context.time.now(), error="given up: no job was found")
        else:
            job = await self._evidence.job()
            if job is not None and not await attempt_job.note_if_changed(job):
                message = f"give_up: job {job.id} has not ended ({job.status}); cancel it first, or wait for it"
                raise UsageError(message)
            if job is None and context.attempt.ended_at is None:
                await context.save(ended_at=context.time.now(), error="given up: the job is absent")
        return await self._collect_leniently()

    async def _collect_leniently(self) -> Arranged:
        arranged = await self.read(leniently=True)
        # Without sizes: those in the metadata may be the reason to give up, and would undo that at the last check.
        await self._note(arranged, with_sizes=False)
        attempt = self._context.attempt
        message = (
            f"{format_count(arranged.left)} of {count_of(attempt.rows, 'row')} of "
            f"{attempt.job_id or attempt.file_id} are given up: they count as missing"
        )
        self._context.emit(RunEventKind.GONE, message, attempt.job_id)
        return arranged

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(self, *, leniently: bool = False) -> Arranged:
        """Download and arrange the results. If ``leniently``, omit what is unavailable, and raise nothing for it."""
        attempt, results = self._context.attempt, self._results
        file_ids = [attempt.output_file_id, attempt.error_file_id]
        if attempt.status == BatchJobStatus.COMPLETED and not any(file_ids) and not leniently:
            message = f"job {attempt.job_id} is COMPLETED and names no file of results"
            raise UnavailableError(message)
        if file_ids[0] == file_ids[1]:
            file_ids[1] = None
        paths: list[Path | None] = [None, None]
        async with results.reading(), AsyncExitStack() as stack:
            for number, file_id in enumerate(file_ids):
                if not file_id:
                    continue
                path = results.download_path(number)
                download = partial(self._context.api.download, file_id, path)
                try:
                    await self._context.until_answered("download", download)
                except NotFoundError:
                    if not leniently:
                        message = f"{file_id}, which holds results of job {attempt.job_id}, is absent"
                        raise UnavailableError(message) from None
                else:
                    paths[number] = path
                    stack.push_async_callback(results.drop, path)
            while True:
                try:
                    return await results.arrange(*paths)
                except ForeignFileError as error:
                    number = paths.index(error.path)
                    if not leniently:
                        message = f"the content of {file_ids[number]} has none of the rows of job {attempt.job_id}"
                        raise UnavailableError(message) from None
                    paths[number] = None

    # --- records -------------------------------------------------------------------------------------------------

    async def _note(self, arranged: Arranged, *, with_sizes: bool = True) -> None:
        context, attempt = self._context, self._context.attempt
        piece_sha256 = await self._results.keep()
        sizes = (attempt.output_bytes, attempt.error_bytes)  # those of the last look, if there was one
        if not with_sizes:
            sizes = (None, None)
        elif sizes == (None, None):
            sizes = (arranged.output_bytes, arranged.error_bytes)
        await context.save(
            collected_at=context.time.now(),
            piece_sha256=piece_sha256,
            outcomes=packed(arranged.outcomes),
            output_bytes=sizes[0],
            error_bytes=sizes[1],
            prompt_tokens=arranged.usage.prompt_tokens,
            completion_tokens=arranged.usage.completion_tokens,
            total_tokens=arranged.usage.total_tokens,
        )
        answered = arranged.outcomes.count(rules.SUCCEEDED)
        message = (
            f"{format_count(answered)} of {format_count(attempt.rows)} rows of job {attempt.job_id} are answered"
        )
        if invalid := arranged.outcomes.count(rules.INVALID):
            message += f"; the answers of {format_count(invalid)} more do not fit the schema"
        if arranged.strays:
            message += f"; {format_count(arranged.strays)} rows that belong to no request are left out"
        context.emit(RunEventKind.COLLECTED, message, attempt.job_id)
