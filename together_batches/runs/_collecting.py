"""The last step of an attempt: its results are here, and it is known what became of each row.

Rows are sent again only on evidence, because a row that was answered is paid for: an error row; a whole result that
leaves them out; or a job that ended as a whole without results. A file that is absent, short or foreign is no
evidence. It is looked at again as long as patience allows, and then its rows are left alone.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import attrs

from together_batches._jobs.patience import Absence
from together_batches._text import count_of, format_count
from together_batches.errors import APIError, ResultsUnavailableError, RunError
from together_batches.models import BatchJobStatus
from together_batches.runs import _rules
from together_batches.runs._joining import ForeignFileError
from together_batches.runs._trouble import SHORTEST_PAUSE_SECONDS
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from together_batches._jobs.create import Created
    from together_batches.models import BatchJob
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key
    from together_batches.runs._steps import Steps

__all__ = ["Collecting"]

_DOWNLOADS_AT_ONCE = 4
_ARRANGED_AT_ONCE = 1
"""Each holds the ids of a job."""
_BETWEEN_LOOKS_AT_FILES_SECONDS = 60.0
_BETWEEN_LOOKS_AT_A_JOB_SECONDS = 30.0
_BEFORE_ROWS_GO_AGAIN_SECONDS = 60.0
"""So long a job that was collected and is absent is looked for before its rows go again on the evidence at hand."""


@attrs.frozen(kw_only=True)
class Look:
    """What the service says of the results of a job at one moment. Sizes are in bytes, None if it does not say."""

    status: str
    output_file_id: str | None
    error_file_id: str | None
    output_bytes: int | None = None
    error_bytes: int | None = None

    def differs_from(self, attempt: Attempt) -> bool:
        """Whether the job is not as it was noted."""
        noted = attempt.status, attempt.output_file_id, attempt.error_file_id
        return (self.status, self.output_file_id, self.error_file_id) != noted


class _Results(NamedTuple):
    """One reading of the files: put in order, or the ``problem`` with them."""

    arranged: Arranged | None
    problem: str = ""


class Collecting:
    """Downloads and arranges results, and finds the evidence for rows that are left out."""

    def __init__(self, context: RunContext, steps: Steps) -> None:
        self._run = context.run
        self._api = context.api
        self._time = context.time
        self._store = context.store
        self._run_directory = context.run_directory
        self._trouble = context.trouble
        self._emit = context.emit
        self._patience = context.caution.patience
        self._steps = steps
        self._downloads = asyncio.Semaphore(_DOWNLOADS_AT_ONCE)
        self._last_looks: dict[Key, Look] = {}
        self._arranging = asyncio.Semaphore(_ARRANGED_AT_ONCE)

    async def collect(self, key: Key, *, on_wait: Callable[[], None]) -> Arranged | None:
        """Have the results here, and what became of each row in the ledger; None if the job has not ended after all.

        ``on_wait`` is called before anything is waited for. Raises :class:`ResultsUnavailableError` if the results
        stay absent, short or foreign beyond patience.
        """
        absence = Absence(self._patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
        most_bytes = 0
        while True:
            arranged, problem = await self._read(key)
            if arranged is not None and arranged.bytes > most_bytes:
                most_bytes = arranged.bytes
                absence.over()  # results that grow are not absent
            if arranged is not None and not arranged.is_whole:
                on_wait()
                doubt = await self._doubt(key, arranged)
                if doubt is None:  # the job is not as it was noted
                    if not await self._has_ended(key):
                        return None
                    absence.over()
                    continue
                problem = doubt
            if arranged is not None and not problem:
                await self._note(key, arranged)
                return arranged
            pause = absence.pause()
            if pause is None:
                raise self._unavailable(key, problem)
            on_wait()
            await self._trouble.wait("collecting the results", key, problem, pause)
            job = await self._job(key)
            if job is not None and _look_at(job).differs_from(self._store.at(key)):
                await self._steps.note_end(key, job)
                if not job.is_terminal:
                    return None
                absence.over()

    async def give_up(self, key: Key) -> Arranged:
        """Take what can be read of the results at one look, and count the rest as missing."""
        arranged, _ = await self._read(key, leniently=True)
        assert arranged is not None  # noqa: S101  # without files there is always an arrangement
        # Without sizes: those that the metadata says may be why it is given up, and would undo that at the last look.
        await self._note(key, attrs.evolve(arranged, output_bytes=None, error_bytes=None))
        attempt = self._store.at(key)
        message = (
            f"{format_count(arranged.left)} of {count_of(attempt.rows, 'row')} of "
            f"{attempt.job_id or attempt.file_id} are given up: they count as missing"
        )
        self._emit(RunEventKind.GONE, message, key, attempt.job_id)
        return arranged

    async def is_as_collected(self, key: Key) -> bool:
        """Read the job and its files once more, before rows of this attempt go again: False if they differ.

        If they stay absent, nothing speaks against the evidence with which they were collected.
        """
        attempt = self._store.at(key)
        if attempt.job_id is None:
            return True
        absence = Absence(min(self._patience, _BEFORE_ROWS_GO_AGAIN_SECONDS))
        while isinstance(look := await self._look(key), str):
            pause = absence.pause()
            if pause is None:
                return True
            await self._trouble.wait("a last look at the results", key, look, pause)
        # A size that the metadata does not say proves nothing: then the files are read once more.
        same = not look.differs_from(attempt) and all(
            noted is None or (said or 0) == noted
            for said, noted in ((look.output_bytes, attempt.output_bytes), (look.error_bytes, attempt.error_bytes))
        )
        # If it was collected anew for this look already, its metadata is wrong for good.
        if not same and self._last_looks.get(key) != look:
            self._last_looks[key] = look
            await self._store.save(key, collected_at=None, outcomes=b"")
            await self._has_ended(key)
            return False
        return True

    async def other_job(self, key: Key) -> Created | None:
        """Another job of an attempt's file, if its create may have made two: it may answer the rows that are left."""
        attempt = self._store.at(key)
        if not (attempt.marked and (attempt.posts > 1 or attempt.found)):
            return None
        try:
            listing = await self._trouble.until_answered(
                "look for other jobs", key, self._api.list_jobs, is_over=lambda _: True
            )
        except APIError:
            return None
        useless = {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED, BatchJobStatus.CANCELLED}
        jobs = [job for job in listing.jobs if job.status not in useless or job.output_file_id]
        known = {other.job_id for other in self._store.attempts}
        return _rules.lost_job(attempt, self._run, jobs, known=known)

    async def restore(self) -> None:
        """Have the results of all attempts here, those again that were removed after the output was written.

        Every row that was noted as answered has to be answered; no more is demanded. Raises :class:`RunError` if a
        piece is not as this run wrote it.
        """
        for attempt in self._store.attempts:
            if not attempt.rows:
                continue
            if await self._run_directory.has_piece(attempt):
                await self._check_piece(attempt)
                continue
            # First, so that a process which ends in between leaves no piece beside the hash of another.
            await self._store.save(attempt.key, piece_sha256="")
            noted = _rules.outcomes_of(attempt)
            absence = Absence(self._patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
            while True:
                arranged, problem = await self._read(attempt.key, leniently=_rules.SUCCEEDED not in noted)
                if arranged is not None and _covers(arranged.outcomes, noted):
                    await self._store.save(attempt.key, piece_sha256=await self._run_directory.piece_sha256(attempt))
                    break
                await self._run_directory.drop(self._run_directory.piece_of(attempt))
                pause = absence.pause()
                if pause is None:
                    reason = problem or "rows that were answered are missing"
                    message = (
                        f"the results of job {attempt.job_id} are not at the service any more as they were "
                        f"({reason}), and the output cannot be made again without them"
                    )
                    raise RunError(message, directory=str(self._run_directory.directory))
                await self._trouble.wait("collecting the results again", attempt.key, problem or "rows lack", pause)

    async def _check_piece(self, attempt: Attempt) -> None:
        if attempt.piece_sha256 and await self._run_directory.piece_sha256(attempt) != attempt.piece_sha256:
            path = self._run_directory.piece_of(attempt)
            message = (
                f"{path} is not as this run wrote it, so no output is made of it: put it back as it was, or remove "
                f"it and run again, and the results of job {attempt.job_id} are downloaded anew"
            )
            raise RunError(message, directory=str(self._run_directory.directory))

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read(self, key: Key, *, leniently: bool = False) -> _Results:
        """The results, downloaded and put in order. ``leniently``, what cannot be had is left out."""
        attempt = self._store.at(key)
        file_ids = [attempt.output_file_id, attempt.error_file_id]
        if attempt.status == BatchJobStatus.COMPLETED and not any(file_ids) and not leniently:
            return _Results(None, f"job {attempt.job_id} is COMPLETED and names no file of results")
        if file_ids[0] == file_ids[1]:
            file_ids[1] = None
        paths: list[Path | None] = [None, None]
        async with self._downloads:
            try:
                for number, file_id in enumerate(file_ids):
                    if file_id:
                        paths[number] = await self._download(key, number, file_id)
                        if paths[number] is None and not leniently:
                            return _Results(
                                None, f"{file_id}, which holds results of job {attempt.job_id}, is absent"
                            )
                async with self._arranging:
                    return _Results(await self._arranged(attempt, paths, leniently=leniently))
            except ForeignFileError as error:
                foreign = file_ids[paths.index(error.path)]
                return _Results(None, f"the content of {foreign} has none of the rows of job {attempt.job_id}")
            finally:
                await self._run_directory.drop(*filter(None, paths))

    async def _arranged(self, attempt: Attempt, paths: list[Path | None], *, leniently: bool) -> Arranged:
        shard = self._store.shards[attempt.shard]
        earlier = self._store.earlier(attempt.key)
        output, errors = paths
        while True:
            try:
                return await self._run_directory.arrange(shard, earlier, attempt, output, errors)
            except ForeignFileError as error:
                if not leniently:
                    raise
                output, errors = (None if path == error.path else path for path in (output, errors))

    async def _download(self, key: Key, number: int, file_id: str) -> Path | None:
        """A file of the results; None if the service answers that there is none."""
        path = self._run_directory.download_of(self._store.at(key), number)

        async def download() -> Path:
            await self._api.download(file_id, path)
            return path

        return await self._trouble.if_present("download", key, download)

    # --- evidence -------------------------------------------------------------------------------------------------

    async def _doubt(self, key: Key, arranged: Arranged) -> str | None:
        """Why the rows that are left out may still come; empty if two looks agree that they will not.

        None if the job has changed meanwhile, which is noted.
        """
        attempt = self._store.at(key)
        has_files = bool(attempt.output_file_id or attempt.error_file_id)
        if has_files:
            wait = min(_BETWEEN_LOOKS_AT_FILES_SECONDS, self._patience)
        elif attempt.progress:
            wait = self._patience  # rows were done, and done rows are in a file, as the documentation has it
        else:
            wait = min(_BETWEEN_LOOKS_AT_A_JOB_SECONDS, self._patience)
        first: Look | None = None
        while True:
            look = await self._look(key)
            if isinstance(look, str):
                return look
            if look.differs_from(attempt):
                return None
            for file_id, said, size in (
                (look.output_file_id, look.output_bytes, arranged.output_bytes),
                (look.error_file_id, look.error_bytes, arranged.error_bytes),
            ):
                if file_id and size is not None and (not said or said != size):
                    return f"{file_id} has {format_count(size)} bytes, and its metadata says {said or 'nothing'}"
            if look == first or not wait:
                return ""
            first = look
            await self._time.sleep(wait)

    async def _look(self, key: Key) -> Look | str:
        """The job and the metadata of its files, read once; what is absent, if anything is."""
        job = await self._job(key)
        if job is None:
            return f"job {self._store.at(key).job_id} is absent"
        sizes: list[int | None] = []
        for file_id in (job.output_file_id, job.error_file_id):
            size = None
            if file_id:
                found = await self._trouble.if_present(
                    "look-up of the results", key, partial(self._api.file, file_id)
                )
                if found is None:
                    return f"the metadata of {file_id}, which holds results of job {job.id}, is absent"
                size = found[0].bytes
            sizes.append(size)
        return attrs.evolve(_look_at(job), output_bytes=sizes[0], error_bytes=sizes[1])

    async def _job(self, key: Key) -> BatchJob | None:
        job_id = self._store.at(key).job_id or ""
        return await self._trouble.if_present("look-up of the job", key, lambda: self._api.retrieve(job_id))

    async def _has_ended(self, key: Key) -> bool:
        """Note how the job stands now, and whether it has ended. One that is absent is left as it was noted."""
        job = await self._job(key)
        if job is None:
            return True
        await self._steps.note_end(key, job)
        return job.is_terminal

    # --- noted ----------------------------------------------------------------------------------------------------

    async def _note(self, key: Key, arranged: Arranged) -> None:
        attempt = self._store.at(key)
        # Sizes for which it was collected anew are compared the next time, also in the next call: they may be wrong
        # for good, or not there at all.
        look = self._last_looks.get(key)
        await self._store.save(
            key,
            collected_at=self._time.now(),
            piece_sha256=await self._run_directory.piece_sha256(attempt),
            outcomes=_rules.packed(arranged.outcomes),
            output_bytes=arranged.output_bytes if look is None else look.output_bytes,
            error_bytes=arranged.error_bytes if look is None else look.error_bytes,
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
        self._emit(RunEventKind.COLLECTED, message, key, attempt.job_id)

    def _unavailable(self, key: Key, problem: str) -> ResultsUnavailableError:
        attempt = self._store.at(key)
        file_ids = [file_id for file_id in (attempt.output_file_id, attempt.error_file_id) if file_id]
        message = f"the results of job {attempt.job_id} are unavailable: {problem}"
        return ResultsUnavailableError(message, job_id=attempt.job_id, file_ids=file_ids)


def _look_at(job: BatchJob) -> Look:
    return Look(status=str(job.status), output_file_id=job.output_file_id, error_file_id=job.error_file_id)


def _covers(outcomes: bytes, noted: bytes) -> bool:
    """Whether every row that was noted as answered is answered."""
    return len(outcomes) == len(noted) and all(
        now == _rules.SUCCEEDED for now, before in zip(outcomes, noted, strict=True) if before == _rules.SUCCEEDED
    )
