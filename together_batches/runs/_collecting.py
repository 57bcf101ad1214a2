"""The last step of an attempt: its results are downloaded, and the outcome of each row is recorded.

Rows are sent again only on evidence, because a row that was answered is paid for: an error row; a complete result
that omits them; or a job that ended as a whole without results. A file that is absent, short or foreign is no
evidence. It is read again as long as patience allows, and then its rows are left alone.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import attrs

from together_batches._jobs.patience import Absence
from together_batches._text import count_of, format_count
from together_batches.errors import APIError, NotFoundError, ResultsUnavailableError, RunError
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.runs import _rules
from together_batches.runs._context import SHORTEST_PAUSE_SECONDS
from together_batches.runs._joining import ForeignFileError
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from together_batches._jobs.create import Created
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key
    from together_batches.runs._steps import Steps

__all__ = ["Collecting"]

_DOWNLOADS_AT_ONCE = 4
_ARRANGED_AT_ONCE = 1
"""Maximum jobs arranged at once, because each keeps all its ids in memory."""
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


class _Results(NamedTuple):
    """Result of one reading of the files: arranged, or the ``problem`` with them."""

    arranged: Arranged | None
    problem: str = ""


class Collecting:
    """Download and arrangement of results, with the evidence for omitted rows."""

    def __init__(self, run: RunContext, steps: Steps) -> None:
        self._run = run
        self._store = run.store
        self._steps = steps
        self._downloads = asyncio.Semaphore(_DOWNLOADS_AT_ONCE)
        self._arranging = asyncio.Semaphore(_ARRANGED_AT_ONCE)
        self._last_looks: dict[Key, Look] = {}

    async def collect(self, key: Key, *, on_wait: Callable[[], None]) -> Arranged | None:
        """Collect the results, and record the outcome of each row; return None if the job has not ended after all.

        ``on_wait`` is called before any wait. Raises :class:`ResultsUnavailableError` if the results stay absent,
        short or foreign beyond patience.
        """
        absence = Absence(self._run.options.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
        most_bytes = 0
        while True:
            arranged, problem = await self._read(key)
            changed: BatchJob | None = None
            if arranged is not None:
                if arranged.bytes > most_bytes:
                    most_bytes = arranged.bytes
                    absence.over()  # results that grow are not absent
                if not arranged.is_whole:
                    on_wait()
                    problem, changed = await self._doubt(key, arranged)
                if not problem and changed is None:
                    await self._note(key, arranged)
                    return arranged
            if changed is None:
                pause = absence.pause()
                if pause is None:
                    attempt = self._store.at(key)
                    raise ResultsUnavailableError(
                        f"the results of job {attempt.job_id} are unavailable: {problem}",
                        job_id=attempt.job_id,
                        file_ids=filter(None, (attempt.output_file_id, attempt.error_file_id)),
                    )
                on_wait()
                await self._run.wait("collecting the results", key, problem, pause)
                changed = self._if_changed(key, await self._job(key))
            if changed is not None:
                if not await self._steps.note_state(key, changed):
                    return None
                absence.over()

    async def give_up(self, key: Key) -> Arranged:
        """Collect the results that one attempt can read, and count the rest as missing."""
        arranged, _ = await self._read(key, leniently=True)
        assert arranged is not None  # noqa: S101  # without files there is always an arrangement
        # Without sizes: those in the metadata may be the reason to give up, and would undo that at the last check.
        await self._note(key, attrs.evolve(arranged, output_bytes=None, error_bytes=None))
        attempt = self._store.at(key)
        message = (
            f"{format_count(arranged.left)} of {count_of(attempt.rows, 'row')} of "
            f"{attempt.job_id or attempt.file_id} are given up: they count as missing"
        )
        self._run.emit(RunEventKind.GONE, message, key, attempt.job_id)
        return arranged

    async def is_as_collected(self, key: Key) -> bool:
        """Read the job and its files once more before rows are sent again; return False if they differ.

        If they stay absent, nothing contradicts the evidence with which they were collected.
        """
        attempt = self._store.at(key)
        if attempt.job_id is None:
            return True
        absence = Absence(min(self._run.options.patience, _BEFORE_ROWS_GO_AGAIN_SECONDS))
        while isinstance(look := await self._look(key), str):
            pause = absence.pause()
            if pause is None:
                return True
            await self._run.wait("a last look at the results", key, look, pause)
        # A size that the metadata omits proves nothing: then the files are read once more.
        same = self._if_changed(key, look.job) is None and all(
            noted is None or (said or 0) == noted
            for said, noted in zip(look.sizes, (attempt.output_bytes, attempt.error_bytes), strict=True)
        )
        # If it was already collected again for the same metadata, the metadata is permanently wrong.
        if same or self._last_looks.get(key) == look:
            return True
        self._last_looks[key] = look
        await self._store.save(key, collected_at=None, outcomes=b"")
        await self._steps.note_state(key, look.job)
        return False

    async def other_job(self, key: Key) -> Created | None:
        """Return a second job of the attempt's file if its create may have made two; it may answer more rows."""
        attempt = self._store.at(key)
        if not (attempt.marked and (attempt.posts > 1 or attempt.found)):
            return None
        try:
            listing = await self._run.until_answered(
                "look for other jobs", key, self._run.api.list_jobs, is_over=lambda _: True
            )
        except APIError:
            return None
        useless = {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED, BatchJobStatus.CANCELLED}
        return self._store.lost_job(
            attempt, [job for job in listing.jobs if job.status not in useless or job.output_file_id]
        )

    async def restore(self) -> None:
        """Make all pieces available; download those again that were removed after the output was written.

        Every row that was recorded as answered must be answered; nothing else is required. Raises :class:`RunError`
        if a piece is not as this run wrote it.
        """
        for attempt in self._store.attempts:
            if not attempt.rows:
                continue
            if await self._run.directory.has_piece(attempt):
                await self._check_piece(attempt)
                continue
            # First, so that a process which ends in between does not leave a piece with the hash of another.
            await self._store.save(attempt.key, piece_sha256="")
            noted = _rules.outcomes_of(attempt)
            absence = Absence(self._run.options.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
            while True:
                arranged, problem = await self._read(attempt.key, leniently=_rules.SUCCEEDED not in noted)
                if arranged is not None and _covers(arranged.outcomes, noted):
                    await self._store.save(attempt.key, piece_sha256=await self._run.directory.piece_sha256(attempt))
                    break
                await self._run.directory.drop(self._run.directory.piece_of(attempt))
                pause = absence.pause()
                if pause is None:
                    reason = problem or "rows that were answered are missing"
                    message = (
                        f"the results of job {attempt.job_id} are not at the service any more as they were "
                        f"({reason}), and the output cannot be made again without them"
                    )
                    raise RunError(message, directory=str(self._run.directory.directory))
                await self._run.wait("collecting the results again", attempt.key, problem or "rows lack", pause)

    async def _check_piece(self, attempt: Attempt) -> None:
        if attempt.piece_sha256 and await self._run.directory.piece_sha256(attempt) != attempt.piece_sha256:
            path = self._run.directory.piece_of(attempt)
            message = (
                f"{path} is not as this run wrote it, so no output is made of it: put it back as it was, or remove "
                f"it and run again, and the results of job {attempt.job_id} are downloaded anew"
            )
            raise RunError(message, directory=str(self._run.directory.directory))

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read(self, key: Key, *, leniently: bool = False) -> _Results:
        """Download and arrange the results; if ``leniently``, omit what is unavailable."""
        attempt = self._store.at(key)
        file_ids = [attempt.output_file_id, attempt.error_file_id]
        if attempt.status == BatchJobStatus.COMPLETED and not any(file_ids) and not leniently:
            return _Results(None, f"job {attempt.job_id} is COMPLETED and names no file of results")
        if file_ids[0] == file_ids[1]:
            file_ids[1] = None
        paths: list[Path | None] = [None, None]
        shard, earlier, directory = self._store.shards[attempt.shard], self._store.earlier(key), self._run.directory
        async with self._downloads, AsyncExitStack() as stack:
            for number, file_id in enumerate(file_ids):
                if not file_id:
                    continue
                path = directory.download_of(attempt, number)
                try:
                    await self._run.until_answered("download", key, partial(self._run.api.download, file_id, path))
                except NotFoundError:
                    if not leniently:
                        return _Results(None, f"{file_id}, which holds results of job {attempt.job_id}, is absent")
                else:
                    paths[number] = path
                    stack.push_async_callback(directory.drop, path)
            async with self._arranging:
                while True:
                    try:
                        return _Results(await directory.arrange(shard, earlier, attempt, *paths))
                    except ForeignFileError as error:
                        number = paths.index(error.path)
                        if not leniently:
                            foreign = (
                                f"the content of {file_ids[number]} has none of the rows of job {attempt.job_id}"
                            )
                            return _Results(None, foreign)
                        paths[number] = None

    # --- evidence -------------------------------------------------------------------------------------------------

    async def _doubt(self, key: Key, arranged: Arranged) -> tuple[str, BatchJob | None]:
        """Return why the omitted rows may still appear, and the job if it differs from its record.

        Neither, if two readings agree that they will not appear.
        """
        attempt, patience = self._store.at(key), self._run.options.patience
        if attempt.output_file_id or attempt.error_file_id:
            wait = min(_BETWEEN_LOOKS_AT_FILES_SECONDS, patience)
        elif attempt.progress:
            wait = patience  # rows were done, and done rows are in a file according to the documentation
        else:
            wait = min(_BETWEEN_LOOKS_AT_A_JOB_SECONDS, patience)
        first: Look | None = None
        while True:
            look = await self._look(key)
            if isinstance(look, str):
                return look, None
            if self._if_changed(key, look.job) is not None:
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
            await self._run.time.sleep(wait)

    async def _look(self, key: Key) -> Look | str:
        """Read the job and the metadata of its files once; return a description if any of them is absent."""
        job = await self._job(key)
        if job is None:
            return f"job {self._store.at(key).job_id} is absent"
        sizes: list[int | None] = [None, None]
        for number, file_id in enumerate((job.output_file_id, job.error_file_id)):
            if file_id:
                read = partial(self._run.api.file, file_id)
                found = await self._run.if_present("look-up of the results", key, read)
                if found is None:
                    return f"the metadata of {file_id}, which holds results of job {job.id}, is absent"
                sizes[number] = found[0].bytes
        return Look(job, tuple(sizes))

    async def _job(self, key: Key) -> BatchJob | None:
        job_id = self._store.at(key).job_id or ""
        return await self._run.if_present("look-up of the job", key, partial(self._run.api.retrieve, job_id))

    def _if_changed(self, key: Key, job: BatchJob | None) -> BatchJob | None:
        """Return a job that differs from its record; None if it does not, or is absent."""
        return None if job is None or _results_of(job) == _results_of(self._store.at(key)) else job

    # --- records -------------------------------------------------------------------------------------------------

    async def _note(self, key: Key, arranged: Arranged) -> None:
        attempt = self._store.at(key)
        # The sizes for which it was collected again are compared the next time, also in the next call: they may be
        # permanently wrong, or not given at all.
        look = self._last_looks.get(key)
        sizes = (arranged.output_bytes, arranged.error_bytes) if look is None else look.sizes
        await self._store.save(
            key,
            collected_at=self._run.time.now(),
            piece_sha256=await self._run.directory.piece_sha256(attempt),
            outcomes=_rules.packed(arranged.outcomes),
            output_bytes=sizes[0],
            error_bytes=sizes[1],
            prompt_tokens=arranged.usage.prompt_tokens,
            completion_tokens=arranged.usage.completion_tokens,
            total_tokens=arranged.usage.total_tokens,
        )
        answered = arranged.outcomes.count(_rules.SUCCEEDED)
        message = (
            f"{format_count(answered)} of {format_count(attempt.rows)} rows of job {attempt.job_id} are answered"
        )
        if arranged.strays:
            message += f"; {format_count(arranged.strays)} rows that belong to no request are left out"
        self._run.emit(RunEventKind.COLLECTED, message, key, attempt.job_id)


def _covers(outcomes: bytes, noted: bytes) -> bool:
    """Return whether every row that was recorded as answered is answered."""
    return len(outcomes) == len(noted) and all(
        now == _rules.SUCCEEDED for now, before in zip(outcomes, noted, strict=True) if before == _rules.SUCCEEDED
    )
