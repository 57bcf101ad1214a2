"""The last step of an attempt: its results are downloaded, and the outcome of each row is recorded.

Rows are sent again only on evidence, because a row that was answered is paid for: an error row; a complete result
that omits them; or a job that ended as a whole without results. A file that is absent, short or foreign is no
evidence. It is read again as long as patience allows, and then its rows are left alone.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import attrs

from together_batches._jobs.patience import Absence
from together_batches._text import count_of, format_count
from together_batches.errors import NotFoundError, ResultsUnavailableError
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.runs import rules
from together_batches.runs._context import SHORTEST_PAUSE_SECONDS
from together_batches.runs._joining import ForeignFileError
from together_batches.runs._records import packed
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from together_batches.runs._attempt import AttemptResults
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt
    from together_batches.runs._steps import Steps

__all__ = ["Collecting"]

_BETWEEN_LOOKS_AT_FILES_SECONDS = 60.0
_BETWEEN_LOOKS_AT_A_JOB_SECONDS = 30.0
_BEFORE_ROWS_GO_AGAIN_SECONDS = 60.0
"""Maximum seconds to wait for an absent collected job before its rows are sent again on the existing evidence."""


def _results_of(job: BatchJob | Attempt) -> tuple[str, str | None, str | None]:
    """Return what a job shows of its end and its results, or what is recorded of them."""
    return str(job.status), job.output_file_id, job.error_file_id


@attrs.frozen
class Look:
    """A job at one moment, and the sizes of its output and its error file in bytes, None if not given."""

    job: BatchJob = attrs.field(eq=_results_of)
    sizes: tuple[int | None, ...]


class Collecting:
    """Download and arrangement of the results of an attempt, with the evidence for omitted rows."""

    def __init__(self, steps: Steps, results: AttemptResults) -> None:
        self.steps = steps
        self._context = steps.context
        self._results = results

    async def collect(self, *, on_wait: Callable[[], None]) -> Arranged | None:
        """Collect the results, and record the outcome of each row; return None if the job has not ended after all.

        ``on_wait`` is called before any wait. Raises :class:`ResultsUnavailableError` if the results stay absent,
        short or foreign beyond patience.
        """
        context = self._context
        absence = Absence(context.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
        most_bytes = 0
        while True:
            arranged = await self.read()
            problem: str = arranged if isinstance(arranged, str) else ""
            changed: BatchJob | None = None
            if not isinstance(arranged, str):
                if arranged.bytes > most_bytes:
                    most_bytes = arranged.bytes
                    absence.over()  # results that grow are not absent
                if not arranged.is_whole:
                    on_wait()
                    problem, changed = await self._doubt(arranged)
                if not problem and changed is None:
                    await self._note(arranged)
                    return arranged
            if changed is None:
                pause = absence.pause()
                if pause is None:
                    attempt = context.attempt
                    raise ResultsUnavailableError(
                        f"the results of job {attempt.job_id} are unavailable: {problem}",
                        job_id=attempt.job_id,
                        file_ids=filter(None, (attempt.output_file_id, attempt.error_file_id)),
                    )
                on_wait()
                await context.wait("collecting the results", problem, pause)
                changed = self._if_changed(await self._job())
            if changed is not None:
                if not await self.steps.note_state(changed):
                    return None
                absence.over()

    async def give_up(self) -> Arranged:
        """Collect the results that one attempt can read, and count the rest as missing."""
        arranged = await self.read(leniently=True)
        assert not isinstance(arranged, str)  # noqa: S101  # without files there is always an arrangement
        # Without sizes: those in the metadata may be the reason to give up, and would undo that at the last check.
        await self._note(arranged, with_sizes=False)
        attempt = self._context.attempt
        message = (
            f"{format_count(arranged.left)} of {count_of(attempt.rows, 'row')} of "
            f"{attempt.job_id or attempt.file_id} are given up: they count as missing"
        )
        self._context.emit(RunEventKind.GONE, message, attempt.job_id)
        return arranged

    async def is_as_collected(self) -> bool:
        """Read the job and its files once more before rows are sent again; return False if they differ.

        If they stay absent, nothing contradicts the evidence with which they were collected.
        """
        context, attempt = self._context, self._context.attempt
        if attempt.job_id is None:
            return True
        absence = Absence(min(context.patience, _BEFORE_ROWS_GO_AGAIN_SECONDS))
        while isinstance(look := await self._look(), str):
            pause = absence.pause()
            if pause is None:
                return True
            await context.wait("a last look at the results", look, pause)
        # A size that the metadata omits proves nothing: then the files are read once more.
        if self._if_changed(look.job) is None and all(
            noted is None or (said or 0) == noted
            for said, noted in zip(look.sizes, (attempt.output_bytes, attempt.error_bytes), strict=True)
        ):
            return True
        # These sizes are kept when it is collected again, so that it is not collected for ever if they are
        # permanently wrong, or not given at all.
        output_bytes, error_bytes = (said or 0 for said in look.sizes)
        await context.save(collected_at=None, outcomes=b"", output_bytes=output_bytes, error_bytes=error_bytes)
        await self.steps.note_state(look.job)
        return False

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(self, *, leniently: bool = False) -> Arranged | str:
        """Download and arrange the results, or return what is wrong with them.

        If ``leniently``, omit what is unavailable.
        """
        attempt, results = self._context.attempt, self._results
        file_ids = [attempt.output_file_id, attempt.error_file_id]
        if attempt.status == BatchJobStatus.COMPLETED and not any(file_ids) and not leniently:
            return f"job {attempt.job_id} is COMPLETED and names no file of results"
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
                        return f"{file_id}, which holds results of job {attempt.job_id}, is absent"
                else:
                    paths[number] = path
                    stack.push_async_callback(results.drop, path)
            while True:
                try:
                    return await results.arrange(*paths)
                except ForeignFileError as error:
                    number = paths.index(error.path)
                    if not leniently:
                        return f"the content of {file_ids[number]} has none of the rows of job {attempt.job_id}"
                    paths[number] = None

    # --- evidence -------------------------------------------------------------------------------------------------

    async def _doubt(self, arranged: Arranged) -> tuple[str, BatchJob | None]:
        """Return why the omitted rows may still appear, and the job if it differs from its record.

        Neither, if two readings agree that they will not appear.
        """
        attempt, patience = self._context.attempt, self._context.patience
        if attempt.output_file_id or attempt.error_file_id:
            wait = min(_BETWEEN_LOOKS_AT_FILES_SECONDS, patience)
        elif attempt.progress:
            wait = patience  # rows were done, and done rows are in a file according to the documentation
        else:
            wait = min(_BETWEEN_LOOKS_AT_A_JOB_SECONDS, patience)
        first: Look | None = None
        while True:
            look = await self._look()
            if isinstance(look, str):
                return look, None
            if self._if_changed(look.job) is not None:
                return "", look.job
            file_ids, sizes = _results_of(look.job)[1:], (arranged.output_bytes, arranged.error_bytes)
            for file_id, said, size in zip(file_ids, look.sizes, sizes, strict=True):
                if file_id and size is not None and (not said or said != size):
                    return (
                        f"{file_id} has {format_count(size)} bytes, and its metadata says {said or 'nothing'}",
                        None,
                    )
            if look == first or not wait:
                return "", None
            first = look
            await self._context.time.sleep(wait)

    async def _look(self) -> Look | str:
        """Read the job and the metadata of its files once; return a description if any of them is absent."""
        job = await self._job()
        if job is None:
            return f"job {self._context.attempt.job_id} is absent"
        sizes: list[int | None] = [None, None]
        for number, file_id in enumerate((job.output_file_id, job.error_file_id)):
            if file_id:
                read = partial(self._context.api.file, file_id)
                found = await self._context.if_present("look-up of the results", read)
                if found is None:
                    return f"the metadata of {file_id}, which holds results of job {job.id}, is absent"
                sizes[number] = found.bytes
        return Look(job, tuple(sizes))

    async def _job(self) -> BatchJob | None:
        job_id = self._context.attempt.job_id or ""
        return await self._context.if_present("look-up of the job", partial(self._context.api.retrieve, job_id))

    def _if_changed(self, job: BatchJob | None) -> BatchJob | None:
        """Return a job that differs from its record; None if it does not, or is absent."""
        return None if job is None or _results_of(job) == _results_of(self._context.attempt) else job

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
        if arranged.strays:
            message += f"; {format_count(arranged.strays)} rows that belong to no request are left out"
        context.emit(RunEventKind.COLLECTED, message, attempt.job_id)
