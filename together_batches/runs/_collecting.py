"""The last step of an attempt: its results are downloaded, and the outcome of each row is recorded.

A file that is absent, short or foreign is read again as long as patience allows, and then its rows are left alone.
Pieces that were removed after the output was written are made again in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from together_batches._jobs.patience import Absence
from together_batches._text import count_of, format_count
from together_batches.errors import NotFoundError, ResultsUnavailableError, RunError, UsageError
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
    from together_batches.runs._attempt import AttemptResults, AttemptWork
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Key
    from together_batches.runs._run_attempt import RunAttempt


class Collecting:
    """Download and arrangement of the results of an attempt, with the evidence for omitted rows."""

    def __init__(self, work: AttemptWork, results: AttemptResults) -> None:
        self._work = work
        self._results = results
        self._evidence = Evidence(work)

    async def collect(self, *, on_wait: Callable[[], None]) -> Arranged | None:
        """Collect the results, and record the outcome of each row; return None if the job has not ended after all.

        ``on_wait`` is called before any wait. Raises :class:`ResultsUnavailableError` if the results stay absent,
        short or foreign beyond patience.
        """
        work = self._work
        absence = Absence(work.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
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
                    attempt = work.attempt
                    raise ResultsUnavailableError(
                        f"the results of job {attempt.job_id} are unavailable: {error}",
                        job_id=attempt.job_id,
                        file_ids=filter(None, (attempt.output_file_id, attempt.error_file_id)),
                    ) from None
                on_wait()
                await work.wait("collecting the results", str(error), pause)
                job = await self._evidence.job()
            if job is not None and self._evidence.differs(job):
                if not await work.note_state(job):
                    return None
                absence.over()

    async def give_up(self, list_jobs: Callable[[], Awaitable[Iterable[BatchJob]]]) -> Arranged | None:
        """Collect the results that can be read now, and count the rest as missing.

        Return None if the job of a create without a job is in the list after all: nothing is given up then. Raises
        :class:`UsageError` if the job has not ended.
        """
        work = self._work
        if work.attempt.job_id is None:
            found = work.lost_job(await list_jobs())
            if found is not None:
                await work.note_job(found)
                return None
            await work.save(ended_at=work.time.now(), error="given up: no job was found")
        else:
            job = await self._evidence.job()
            if job is not None and not await work.note_if_changed(job):
                message = f"give_up: job {job.id} has not ended ({job.status}); cancel it first, or wait for it"
                raise UsageError(message)
            if job is None and work.attempt.ended_at is None:
                await work.save(ended_at=work.time.now(), error="given up: the job is absent")
        return await self._collect_leniently()

    async def _collect_leniently(self) -> Arranged:
        arranged = await self.read(leniently=True)
        # Without sizes: those in the metadata may be the reason to give up, and would undo that at the last check.
        await self._note(arranged, with_sizes=False)
        attempt = self._work.attempt
        message = (
            f"{format_count(arranged.left)} of {count_of(attempt.rows, 'row')} of "
            f"{attempt.job_id or attempt.file_id} are given up: they count as missing"
        )
        self._work.emit(RunEventKind.GONE, message, attempt.job_id)
        return arranged

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(self, *, leniently: bool = False) -> Arranged:
        """Download and arrange the results. If ``leniently``, omit what is unavailable, and raise nothing for it."""
        attempt = self._work.attempt
        file_ids = [attempt.output_file_id, attempt.error_file_id]
        if attempt.status == BatchJobStatus.COMPLETED and not any(file_ids) and not leniently:
            message = f"job {attempt.job_id} is COMPLETED and names no file of results"
            raise UnavailableError(message)
        if file_ids[0] == file_ids[1]:
            file_ids[1] = None
        paths: list[Path | None] = [None, None]
        async with self._results.downloads() as places:
            for number, file_id in enumerate(file_ids):
                if not file_id:
                    continue
                download = partial(self._work.api.download, file_id, places[number])
                try:
                    await self._work.until_answered("download", download)
                except NotFoundError:
                    if not leniently:
                        message = f"{file_id}, which holds results of job {attempt.job_id}, is absent"
                        raise UnavailableError(message) from None
                else:
                    paths[number] = places[number]
            while True:
                try:
                    return await self._results.arrange(*paths)
                except ForeignFileError as error:
                    number = paths.index(error.path)
                    if not leniently:
                        message = f"the content of {file_ids[number]} has none of the rows of job {attempt.job_id}"
                        raise UnavailableError(message) from None
                    paths[number] = None

    # --- records -------------------------------------------------------------------------------------------------

    async def _note(self, arranged: Arranged, *, with_sizes: bool = True) -> None:
        work, attempt = self._work, self._work.attempt
        await self._results.keep()
        sizes = (attempt.output_bytes, attempt.error_bytes)  # those of the last look, if there was one
        if not with_sizes:
            sizes = (None, None)
        elif sizes == (None, None):
            sizes = (arranged.output_bytes, arranged.error_bytes)
        await work.save(
            collected_at=work.time.now(),
            output_bytes=sizes[0],
            error_bytes=sizes[1],
            **_recorded(arranged),
        )
        answered = arranged.outcomes.count(rules.SUCCEEDED)
        message = (
            f"{format_count(answered)} of {format_count(attempt.rows)} rows of job {attempt.job_id} are answered"
        )
        if invalid := arranged.outcomes.count(rules.INVALID):
            message += f"; the answers of {format_count(invalid)} more do not fit the schema"
        if arranged.strays:
            message += f"; {format_count(arranged.strays)} rows that belong to no request are left out"
        work.emit(RunEventKind.COLLECTED, message, attempt.job_id)


def _recorded(arranged: Arranged) -> dict[str, Any]:
    """Return what is recorded of results."""
    return {
        "piece_sha256": arranged.piece_sha256,
        "outcomes": packed(arranged.outcomes),
        "prompt_tokens": arranged.usage.prompt_tokens,
        "completion_tokens": arranged.usage.completion_tokens,
        "total_tokens": arranged.usage.total_tokens,
    }


# --- the pieces, to write the output --------------------------------------------------------------------------------

_UNRECORDED = "?"
"""The recorded hash of a piece while it is made again: a killed process may leave any content."""


async def restore(run: RunContext, work_on: Callable[[Key], RunAttempt]) -> None:
    """Make all pieces available; download those again that were removed after the output was written.

    Every row that was recorded as answered must be answered; nothing else is required. A row that was not, and is
    answered by now, is recorded as the piece has it. Raises :class:`RunError` if a piece is not as this run wrote it.
    """
    for attempt in run.store.attempts:
        if attempt.rows and (attempt.piece_sha256 == _UNRECORDED or not await run.directory.has_piece(attempt)):
            await _collect_again(run, work_on(attempt.key))


async def _collect_again(run: RunContext, work: RunAttempt) -> None:
    await work.save(piece_sha256=_UNRECORDED)
    attempt, noted = work.attempt, rules.outcomes_of(work.attempt)
    absence = Absence(run.options.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
    while True:
        problem = "rows that were answered are missing"
        try:
            arranged = await Collecting(work, work).read(leniently=rules.ANSWERED.isdisjoint(noted))
            if _covers(arranged.outcomes, noted):
                is_last = attempt.number == len(run.store.at_shard(run.store.shards[attempt.shard]))
                outcomes = _with_late_answers(noted, arranged.outcomes, is_last=is_last)
                await work.save(**_recorded(attrs.evolve(arranged, outcomes=outcomes)))
                return
        except UnavailableError as error:
            problem = str(error)
        await run.directory.drop(run.directory.piece_of(attempt))
        pause = absence.pause()
        if pause is None:
            message = (
                f"the results of job {attempt.job_id} are not at the service any more as they were ({problem}), and "
                "the output cannot be made again without them"
            )
            raise RunError(message, directory=str(run.directory.directory))
        await work.wait("collecting the results again", problem, pause)


def _covers(outcomes: bytes, noted: bytes) -> bool:
    """Return whether every row that was recorded as answered is answered."""
    return len(outcomes) == len(noted) and all(
        now in rules.ANSWERED for now, before in zip(outcomes, noted, strict=True) if before in rules.ANSWERED
    )


def _with_late_answers(noted: bytes, outcomes: bytes, *, is_last: bool) -> bytes:
    """Return the recorded outcomes, but for rows that are answered by now.

    Rows that a later attempt contains keep their outcomes, because it contains them by these.
    """
    may_change = frozenset(noted) - rules.ANSWERED if is_last else {rules.FAILED}
    return bytes(
        now if now in rules.ANSWERED and before in may_change else before
        for now, before in zip(outcomes, noted, strict=True)
    )
