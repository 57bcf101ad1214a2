"""The steps of one attempt: uploaded, created, ended, collected; each is noted before and after it is taken.

Each step may be taken up by another process than the one that began it, and does nothing where it was done.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from together_batches.errors import BatchesError, CreateUnconfirmedError, NotFoundError, RunError
from together_batches.runs import _rules
from together_batches.runs._joining import ForeignFileError
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from together_batches.models import BatchJob
    from together_batches.runs._following import Following
    from together_batches.runs._joining import Arranged
    from together_batches.runs._journal import Journal
    from together_batches.runs._records import Key
    from together_batches.runs._telling import Telling
    from together_batches.runs._verbs import Time, Verbs
    from together_batches.runs._workshop import Workshop

__all__ = ["Steps"]

_log = logging.getLogger("together_batches")

_TRANSFERS_AT_ONCE = 4
_ARRANGED_AT_ONCE = 2
"""Each holds the ids of a job."""
_MOST_DOWNLOADS = 3
"""Of results that are none: a proxy may have put a page of its own in their place, and that passes."""
_SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0

T = TypeVar("T")


class Steps:
    """What is done for an attempt. Trouble that may pass is ridden out, for however long; the rest is raised."""

    def __init__(
        self, *, verbs: Verbs, time: Time, journal: Journal, workshop: Workshop, following: Following, tell: Telling
    ) -> None:
        self._verbs = verbs
        self._time = time
        self._journal = journal
        self._workshop = workshop
        self._following = following
        self._tell = tell
        self._transfers = asyncio.Semaphore(_TRANSFERS_AT_ONCE)
        self._arranging = asyncio.Semaphore(_ARRANGED_AT_ONCE)
        self._account_seen = False

    # --- uploaded -------------------------------------------------------------------------------------------------

    async def upload(self, key: Key) -> None:
        """Have the rows at the service. An upload costs nothing, and may be repeated."""
        attempt = self._journal.at(key)
        if attempt.file_id is not None:
            return
        async with self._transfers:
            shard = self._journal.shards[attempt.shard]
            rows = await self._workshop.rows_of(shard, self._journal.earlier(key), attempt)
            name = self._workshop.name_of(attempt)
            file = await self._patiently("be uploaded", key, lambda: self._verbs.upload(rows, name))
            await self._workshop.drop(rows)
        await self._journal.save(key, file_id=file.id, uploaded_at=self._time.now())
        self._tell(RunEventKind.UPLOADED, f"{attempt.rows:,} rows are uploaded as {file.id}", key)

    # --- created --------------------------------------------------------------------------------------------------

    async def create(self, key: Key) -> None:
        """Have a job, and one only: where a create may have been sent before, its job is looked for first."""
        attempt = self._journal.at(key)
        if attempt.job_id is not None:
            return
        job = await self._orphan(key) if attempt.creating_at else None
        found = job is not None
        if job is None:
            await self._intend_create(key)
            job, found = await self._created(key)
        await self._journal.save(
            key,
            job_id=job.id,
            found=found,
            known_at=self._time.now(),
            created_at=job.created_at,
            warning=job.warning,
        )
        kind = RunEventKind.FOUND if found else RunEventKind.CREATED
        self._tell(kind, f"job {job.id} is {'found again' if found else 'created'}", key, job.id)

    async def _intend_create(self, key: Key) -> None:
        """Note that a create is about to be sent, and when that is by the service's own clock."""
        attempt = self._journal.at(key)
        try:
            moment = await self._moment(key)
        except NotFoundError as error:
            # Uploaded by an earlier process, and deleted since; unless it is another account that was asked.
            if attempt.creating_at and not self._knows_account:
                raise self._other_account(key) from error
            await self._journal.save(key, file_id=None, uploaded_at=None)
            await self.upload(key)
            moment = await self._moment(key)
        now = self._time.now()
        # The first intent counts: what it led to may still come to light.
        await self._journal.save(key, since=attempt.since or moment, creating_at=attempt.creating_at or now)

    async def _moment(self, key: Key) -> datetime | None:
        file_id = self._journal.at(key).file_id or ""
        moment = await self._patiently("be looked up", key, lambda: self._verbs.moment(file_id))
        self._account_seen = True
        return moment

    async def _created(self, key: Key) -> tuple[BatchJob, bool]:
        """A job, and whether it was found: where that is not known, it is looked for before it is tried again."""
        file_id = self._journal.at(key).file_id or ""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return await self._verbs.create(file_id), False
            except CreateUnconfirmedError as error:
                if error.candidates:
                    raise
                pause = await self._trouble("be created", key, error, pause)
                if (found := await self._orphan(key)) is not None:
                    return found, True
            except BatchesError as error:
                if not _rules.may_pass(error):
                    raise
                pause = await self._trouble("be created", key, error, pause)

    async def _orphan(self, key: Key) -> BatchJob | None:
        """The job of a create whose answer nobody noted: looked for twice, since it may take a while to show."""
        for look in (1, 2):
            jobs = await self._patiently("be looked for", key, self._verbs.list_jobs)
            known = {attempt.job_id for attempt in self._journal.attempts}
            job = _rules.orphan(self._journal.at(key), jobs, known=known)
            if job is not None:
                return job
            if look == 1:
                await self._time.sleep(self._verbs.settle_seconds)
        return None

    # --- ended ----------------------------------------------------------------------------------------------------

    async def end(self, key: Key) -> BatchJob | None:
        """Wait until the job has finished; None where the service knows it no more, or that was noted before."""
        attempt = self._journal.at(key)
        if attempt.ended_at is not None:
            return None
        job_id = attempt.job_id or ""
        ended = await self._following.ending(key, job_id)
        if isinstance(ended, NotFoundError):
            await self._be_gone(key, ended)
            return None
        if isinstance(ended, BatchesError):
            raise ended
        await self._journal.save(
            key,
            status=str(ended.status),
            progress=ended.progress,
            ended_at=self._time.now(),
            error=ended.error,
            output_file_id=ended.output_file_id,
            error_file_id=ended.error_file_id,
        )
        why = f": {ended.error}" if ended.error else ""
        self._tell(RunEventKind.ENDED, f"job {job_id} is {ended.status}{why}", key, job_id)
        return ended

    async def _be_gone(self, key: Key, error: NotFoundError) -> None:
        """The service knows the job no more. Its rows go again, if it is the right account that was asked."""
        attempt = self._journal.at(key)
        if not self._knows_account:
            try:
                await self._moment(key)
            except NotFoundError:
                raise self._other_account(key) from error
        await self._journal.save(key, ended_at=self._time.now(), error="the service knows this job no more")
        message = f"the service knows job {attempt.job_id} no more: its rows are taken for missing"
        _log.warning("%s", message)
        self._tell(RunEventKind.GONE, message, key, attempt.job_id)

    @property
    def _knows_account(self) -> bool:
        """True where the service has shown something of this run: what it knows not is gone, and not elsewhere."""
        return self._account_seen or self._following.has_seen_any

    def _other_account(self, key: Key) -> RunError:
        attempt = self._journal.at(key)
        what = f"neither job {attempt.job_id} nor its input" if attempt.job_id else "not even the input of this run,"
        message = (
            f"the service knows {what} {attempt.file_id}: this seems to be the key, or the base URL, of another "
            "account than that which the run was begun with"
        )
        return RunError(message, directory=str(self._workshop.directory))

    # --- collected ------------------------------------------------------------------------------------------------

    async def collect(self, key: Key) -> None:
        """Have the results here, and what became of each row in the ledger."""
        attempt = self._journal.at(key)
        async with self._transfers:
            arranged = await self._arranged(key)
        if arranged.strays:
            _log.warning("job %s gave %d rows that it was not asked for; left out", attempt.job_id, arranged.strays)
        await self._journal.save(
            key,
            collected_at=self._time.now(),
            outcomes=_rules.packed(arranged.outcomes),
            prompt_tokens=arranged.usage.prompt_tokens,
            completion_tokens=arranged.usage.completion_tokens,
            total_tokens=arranged.usage.total_tokens,
        )
        answered = arranged.outcomes.count(_rules.SUCCEEDED)
        message = f"{answered:,} of {attempt.rows:,} rows of job {attempt.job_id} are answered"
        self._tell(RunEventKind.COLLECTED, message, key, attempt.job_id)

    async def restore(self) -> None:
        """Have the results of all attempts here, those again that were removed after the output was written."""
        for attempt in self._journal.attempts:
            if await self._workshop.has_piece(attempt):
                continue
            arranged = await self._arranged(attempt.key)
            if arranged.outcomes != _rules.outcomes_of(attempt):
                await self._workshop.drop(self._workshop.piece_of(attempt))
                message = (
                    f"the results of job {attempt.job_id} are not at the service any more as they were, and the "
                    "output cannot be made again without them"
                )
                raise RunError(message, directory=str(self._workshop.directory))

    async def _arranged(self, key: Key) -> Arranged:
        """The results, downloaded and put in order.

        Where a file is not what it should be, nobody knows what became of the rows: to take them for missing would be
        to send, and to pay for, them again. So that is for the user to decide.
        """
        attempt = self._journal.at(key)
        shard = self._journal.shards[attempt.shard]
        pause, downloads = _SHORTEST_PAUSE_SECONDS, 0
        while True:
            output = await self._download(key, 0, attempt.output_file_id)
            apart = attempt.error_file_id != attempt.output_file_id
            errors = await self._download(key, 1, attempt.error_file_id) if apart else None
            arranged = foreign = None
            try:
                async with self._arranging:
                    earlier = self._journal.earlier(key)
                    arranged = await self._workshop.arrange(shard, earlier, attempt, output, errors)
            except ForeignFileError as error:
                foreign = attempt.output_file_id if error.path == output else attempt.error_file_id
            await self._workshop.drop(*filter(None, (output, errors)))
            if arranged is not None:
                return arranged
            problem = f"what came as {foreign} has none of the rows of job {attempt.job_id}"
            downloads += 1
            if downloads == _MOST_DOWNLOADS:
                message = (
                    f"{problem}; they may have been answered and paid for, so they are not sent again: run again "
                    "when the service gives the right file, or delete it there, and they are taken for missing"
                )
                raise RunError(message, directory=str(self._workshop.directory))
            pause = await self._trouble("be collected", key, problem, pause)

    async def _download(self, key: Key, number: int, file_id: str | None) -> Path | None:
        """A file of the results; None where there is none, or none any more."""
        if not file_id:
            return None
        attempt = self._journal.at(key)
        path = self._workshop.download_of(attempt, number)
        try:
            await self._patiently("be downloaded", key, lambda: self._verbs.download(file_id, path))
        except NotFoundError:
            message = f"the results of job {attempt.job_id} in {file_id} are gone: they are taken for missing"
            _log.warning("%s", message)
            self._tell(RunEventKind.GONE, message, key, attempt.job_id)
            return None
        return path

    # --- patience -------------------------------------------------------------------------------------------------

    async def _patiently(self, what: str, key: Key, call: Callable[[], Awaitable[T]]) -> T:
        """What the call gives, however long the service or the way to it is in trouble."""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except BatchesError as error:
                if not _rules.may_pass(error):
                    raise
                pause = await self._trouble(what, key, error, pause)

    async def _trouble(self, what: str, key: Key, error: BatchesError | str, pause: float) -> float:
        """Tell it, and wait; how long to wait the next time."""
        shard, number = key
        message = f"shard {shard}, attempt {number} could not {what}, and that is tried again in {pause:g} s: {error}"
        _log.warning("%s", message)
        self._tell(RunEventKind.TROUBLE, message, key)
        await self._time.sleep(pause)
        return min(2 * pause, _LONGEST_PAUSE_SECONDS)
