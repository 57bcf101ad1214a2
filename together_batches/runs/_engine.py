"""The engine of a run: takes each shard through its steps, each noted before and after, until nothing is to be sent.

Built on functions that are passed in (:class:`Verbs`, :class:`Time`) and on a :class:`Ledger`, so that it can be
stopped between any two of them, and knows neither HTTP nor where the ledger is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from together_batches._many import plain_group
from together_batches.errors import BatchesError, CreateUnconfirmedError, NotFoundError, RunError
from together_batches.models import BatchJob, BatchJobStatus, FileObject
from together_batches.runs import _rules
from together_batches.runs._records import Attempt
from together_batches.runs._values import RunEvent, RunEventKind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from together_batches.runs._records import Books, Ledger, Shard
    from together_batches.runs._rules import Limits
    from together_batches.runs._workshop import Workshop

__all__ = ["Engine", "Follow", "Time", "Verbs"]

_log = logging.getLogger("together_batches")

_TRANSFERS_AT_ONCE = 4
_ARRANGED_AT_ONCE = 2
"""Each holds the ids of a job."""
_SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0
_NOTED_AFTER_SECONDS = 1.0
"""So long a change of a job may wait for others, to be noted together with them."""
_CANCELLED = frozenset({BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED})

Key = tuple[int, int]
T = TypeVar("T")


class Follow(Protocol):
    """Gives each job when it has finished, and tells of those that have changed, or cannot be followed."""

    def __call__(
        self,
        job_ids: AsyncIterator[str],
        *,
        on_update: Callable[[BatchJob], None],
        on_refused: Callable[[str, BatchesError], None],
    ) -> AsyncGenerator[BatchJob, None]: ...


@attrs.frozen(kw_only=True)
class Verbs:
    """What this room needs of the service.

    ``upload`` takes a path and a name. ``moment`` asks for a file, and gives the service's own clock when it answered
    (None where it does not say). ``know`` is told of a job that no later create can have made. ``download`` takes the
    id of a file, and the path to replace. ``settle_seconds`` is how long a create may show its job after its answer
    was lost.
    """

    upload: Callable[[Path, str], Awaitable[FileObject]]
    moment: Callable[[str], Awaitable[datetime | None]]
    know: Callable[[BatchJob], object]
    create: Callable[[str], Awaitable[BatchJob]]
    list_jobs: Callable[[], Awaitable[list[BatchJob]]]
    follow: Follow
    download: Callable[[str, Path], Awaitable[object]]
    cancel: Callable[[Sequence[str]], Awaitable[object]]
    settle_seconds: float


@attrs.frozen
class Time:
    """The time, for what is noted, and how it passes."""

    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]


class Engine:
    """Carries the attempts of a run, as many at once as the limits allow.

    ``stopped`` says afterwards why rows were left that could be sent.
    """

    def __init__(
        self,
        *,
        verbs: Verbs,
        time: Time,
        ledger: Ledger,
        books: Books,
        workshop: Workshop,
        limits: Limits,
        max_attempts: int,
        tell: Callable[[RunEvent], None],
    ) -> None:
        self._verbs = verbs
        self._time = time
        self._ledger = ledger
        self._workshop = workshop
        self._limits = limits
        self._max_attempts = max_attempts
        self._tell_event = tell
        self._shards = {shard.number: shard for shard in books.shards}
        self._attempts = {shard.number: list[Attempt]() for shard in books.shards}
        for attempt in books.attempts:
            self._attempts[attempt.shard].append(attempt)
        self._load = _rules.Load(
            sent_rows=sum(attempt.rows for attempt in books.attempts if attempt.creating_at),
            tokens=sum(attempt.total_tokens for attempt in books.attempts),
        )
        self._todo: deque[Attempt] = deque()
        self._carried = 0
        self._news = asyncio.Event()
        self._transfers = asyncio.Semaphore(_TRANSFERS_AT_ONCE)
        self._arranging = asyncio.Semaphore(_ARRANGED_AT_ONCE)
        self._to_follow: asyncio.Queue[str | None] = asyncio.Queue()
        self._followed: dict[str, tuple[Key, asyncio.Future[BatchJob | BatchesError]]] = {}
        self._first_seen: dict[str, str | None] = {}
        self._changed: dict[Key, None] = {}
        self._change = asyncio.Event()
        self._account_seen = False
        self.stopped: str | None = None

    @property
    def has_work(self) -> bool:
        """Whether rows are to be sent, or their results to be had."""
        return any(self._next(shard) for shard in self._shards.values())

    @property
    def by_shard(self) -> list[tuple[Shard, Sequence[Attempt]]]:
        """Each shard, with the attempts at it."""
        return [(shard, self._attempts[shard.number]) for shard in self._shards.values()]

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, as they now are."""
        return [attempt for shard in self._shards for attempt in self._attempts[shard]]

    @property
    def unfinished_jobs(self) -> list[str]:
        """The jobs that have not ended as far as is known."""
        return [attempt.job_id for attempt in self.attempts if attempt.job_id and not attempt.ended_at]

    async def run(self) -> None:
        """Go on until no row is to be sent, or may be. What ends this early is raised; the rest can go on later."""
        for attempt in self.attempts:
            if attempt.job_id is not None:  # rows that all failed make the same file again, and so does their next job
                self._verbs.know(BatchJob(id=attempt.job_id, created_at=attempt.created_at))
        following = [self._next(shard) for shard in self._shards.values()]
        to_do = [attempt for attempt in following if attempt is not None]
        # What may exist already comes first: it costs nothing more, and its results are waited for.
        self._todo.extend(sorted(to_do, key=lambda attempt: (attempt.creating_at is None, attempt.key)))
        if not self._todo:
            return
        async with plain_group() as group:
            group.create_task(self._follow())
            noting = group.create_task(self._note_changes())
            while True:
                self._begin_what_may(group)
                if not self._carried:
                    break
                await self._news.wait()
                self._news.clear()
            self._to_follow.put_nowait(None)
            noting.cancel()
        if self._changed:
            await self._note_changed()

    def _next(self, shard: Shard) -> Attempt | None:
        attempts = self._attempts[shard.number]
        return _rules.next_attempt(shard, attempts, max_attempts=self._max_attempts, now=self._time.now())

    def _begin_what_may(self, group: asyncio.TaskGroup) -> None:
        while self._todo:
            attempt = self._todo[0]
            if attempt.creating_at is None:
                if self.stopped is None:
                    answer = _rules.admission(self._limits, self._load, attempt.rows)
                    if answer == "later":
                        return
                    if isinstance(answer, _rules.Stop):
                        self._stop(answer.reason)
                if self.stopped is not None:
                    self._todo.popleft()
                    continue
                self._load = attrs.evolve(self._load, sent_rows=self._load.sent_rows + attempt.rows)
            self._todo.popleft()
            self._carried += 1
            self._load = attrs.evolve(
                self._load, jobs=self._load.jobs + 1, enqueued_rows=self._load.enqueued_rows + attempt.rows
            )
            group.create_task(self._carry(attempt))

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._tell(RunEventKind.STOPPED, f"nothing more is created: {reason}; what runs is waited for")

    # --- one attempt, step by step --------------------------------------------------------------------------------

    async def _carry(self, attempt: Attempt) -> None:
        key = attempt.key
        attempts = self._attempts[attempt.shard]
        if len(attempts) < attempt.number:
            attempts.append(attempt)
            await self._ledger.save(attempt)
        await self._have_uploaded(key)
        await self._have_created(key)
        await self._have_ended(key)
        await self._collect(key)
        self._carried -= 1
        self._load = attrs.evolve(
            self._load,
            jobs=self._load.jobs - 1,
            enqueued_rows=self._load.enqueued_rows - attempt.rows,
            tokens=self._load.tokens + self._at(key).total_tokens,
        )
        if (following := self._next(self._shards[attempt.shard])) is not None:
            self._todo.appendleft(following)
        self._news.set()

    async def _have_uploaded(self, key: Key) -> None:
        attempt = self._at(key)
        if attempt.file_id is not None:
            return
        async with self._transfers:
            rows = await self._workshop.rows_of(self._shards[attempt.shard], self._earlier(key), attempt)
            name = self._workshop.name_of(attempt)
            file = await self._patiently("be uploaded", key, lambda: self._verbs.upload(rows, name))
            await self._workshop.drop(rows)
        await self._save(key, file_id=file.id, uploaded_at=self._time.now())
        self._tell(RunEventKind.UPLOADED, f"{attempt.rows:,} rows are uploaded as {file.id}", key)

    async def _have_created(self, key: Key) -> None:
        attempt = self._at(key)
        if attempt.job_id is not None:
            return
        if attempt.creating_at is None:
            await self._intend_create(key)
            job = await self._created(key)
        else:
            job = await self._orphan(key) or await self._created(key)
        found = self._at(key).found
        await self._save(
            key, job_id=job.id, known_at=self._time.now(), created_at=job.created_at, warning=job.warning, found=found
        )
        kind = RunEventKind.FOUND if found else RunEventKind.CREATED
        self._tell(kind, f"job {job.id} is {'found again' if found else 'created'}", key, job.id)

    async def _intend_create(self, key: Key) -> None:
        """Note that a create is about to be sent, and when that is by the service's own clock."""
        try:
            moment = await self._moment(key)
        except NotFoundError:
            # Uploaded by an earlier process, and deleted since.
            await self._save(key, file_id=None, uploaded_at=None)
            await self._have_uploaded(key)
            moment = await self._moment(key)
        now = self._time.now()
        await self._save(key, since=moment or now, creating_at=now)

    async def _moment(self, key: Key) -> datetime | None:
        file_id = self._at(key).file_id or ""
        moment = await self._patiently("be looked up", key, lambda: self._verbs.moment(file_id))
        self._account_seen = True
        return moment

    async def _created(self, key: Key) -> BatchJob:
        """A job, created once: where it cannot be known whether it is, it is looked for before it is tried again."""
        file_id = self._at(key).file_id or ""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                job = await self._verbs.create(file_id)
            except CreateUnconfirmedError as error:
                if error.candidates:
                    raise
                pause = await self._trouble("be created", key, error, pause)
                if (found := await self._orphan(key)) is not None:
                    return found
            except BatchesError as error:
                if not _rules.may_pass(error):
                    raise
                pause = await self._trouble("be created", key, error, pause)
            else:
                self._account_seen = True
                return job

    async def _orphan(self, key: Key) -> BatchJob | None:
        """The job of a create whose answer nobody noted: looked for twice, since it may take a while to show."""
        for look in (1, 2):
            attempt = self._at(key)
            jobs = await self._patiently("be looked for", key, self._verbs.list_jobs)
            job = _rules.orphan(attempt, jobs, known={other.job_id for other in self.attempts})
            if job is not None:
                self._put(key, found=True)
                return job
            if look == 1:
                await self._time.sleep(self._verbs.settle_seconds)
        return None

    async def _have_ended(self, key: Key) -> None:
        attempt = self._at(key)
        if attempt.ended_at is not None:
            return
        job_id = attempt.job_id or ""
        ending = asyncio.get_running_loop().create_future()
        self._followed[job_id] = key, ending
        self._to_follow.put_nowait(job_id)
        ended = await ending
        if isinstance(ended, NotFoundError):
            await self._have_gone(key, ended)
            return
        if isinstance(ended, BatchesError):
            raise ended
        await self._save(
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
        if ended.status == BatchJobStatus.CANCELLED and self._first_seen.get(job_id) not in _CANCELLED:
            # Somebody wants an end of it, and is not to be answered with new jobs.
            self._stop(f"job {job_id} was cancelled")

    async def _have_gone(self, key: Key, error: NotFoundError) -> None:
        """The service knows the job no more. Its rows go again, if it is the right account that was asked."""
        attempt = self._at(key)
        if not self._account_seen:
            try:
                await self._moment(key)
            except NotFoundError:
                message = (
                    f"the service knows neither job {attempt.job_id} nor the file that it was made from: this seems "
                    "to be the key, or the base URL, of another account than that which the run was begun with"
                )
                raise RunError(message, directory=str(self._workshop.directory)) from error
        await self._save(key, ended_at=self._time.now(), error="the service knows this job no more")
        message = f"the service knows job {attempt.job_id} no more: its rows are taken for missing"
        _log.warning("%s", message)
        self._tell(RunEventKind.GONE, message, key, attempt.job_id)

    async def _collect(self, key: Key) -> None:
        attempt = self._at(key)
        async with self._transfers:
            files = await self._download(key)
            async with self._arranging:
                arranged = await self._workshop.arrange(
                    self._shards[attempt.shard], self._earlier(key), attempt, files
                )
        if arranged.strays:
            message = f"job {attempt.job_id} gave {arranged.strays:,} rows that it was not asked for; left out"
            _log.warning("%s", message)
        await self._save(
            key,
            collected_at=self._time.now(),
            outcomes=_rules.packed(arranged.outcomes),
            prompt_tokens=arranged.usage.prompt_tokens,
            completion_tokens=arranged.usage.completion_tokens,
            total_tokens=arranged.usage.total_tokens,
        )
        await self._workshop.drop(*files)
        answered = arranged.outcomes.count(_rules.SUCCEEDED)
        message = f"{answered:,} of {attempt.rows:,} rows of job {attempt.job_id} are answered"
        self._tell(RunEventKind.COLLECTED, message, key, attempt.job_id)

    async def _download(self, key: Key) -> list[Path]:
        attempt = self._at(key)
        files: list[Path] = []
        for file_id in dict.fromkeys(filter(None, (attempt.output_file_id, attempt.error_file_id))):
            path = self._workshop.download_of(attempt, len(files))

            async def download(file_id: str = file_id, path: Path = path) -> None:
                await self._verbs.download(file_id, path)

            try:
                await self._patiently("be downloaded", key, download)
            except NotFoundError:
                message = f"the results of job {attempt.job_id} in {file_id} are gone: they are taken for missing"
                _log.warning("%s", message)
                self._tell(RunEventKind.GONE, message, key, attempt.job_id)
            else:
                files.append(path)
        return files

    async def restore(self) -> None:
        """Have the results of all attempts here, those again that were removed after the output was written."""
        for attempt in self.attempts:
            if await self._workshop.has_piece(attempt):
                continue
            files = await self._download(attempt.key)
            earlier = self._earlier(attempt.key)
            arranged = await self._workshop.arrange(self._shards[attempt.shard], earlier, attempt, files)
            await self._workshop.drop(*files)
            if arranged.outcomes != _rules.outcomes_of(attempt):
                await self._workshop.drop_piece(attempt)
                message = (
                    f"the results of job {attempt.job_id} are not at the service any more as they were, and the "
                    "output cannot be made again without them"
                )
                raise RunError(message, directory=str(self._workshop.directory))

    # --- following jobs -------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        finished = self._verbs.follow(self._job_ids(), on_update=self._see, on_refused=self._refuse)
        async with aclosing(finished):
            async for job in finished:
                self._end(job.id, job)

    async def _job_ids(self) -> AsyncIterator[str]:
        while (job_id := await self._to_follow.get()) is not None:
            yield job_id

    def _refuse(self, job_id: str, error: BatchesError) -> None:
        self._end(job_id, error)

    def _end(self, job_id: str, ended: BatchJob | BatchesError) -> None:
        _, ending = self._followed.pop(job_id)
        if not ending.done():  # a cancelled one has nobody left to tell
            ending.set_result(ended)

    def _see(self, job: BatchJob) -> None:
        self._account_seen = True
        key, _ = self._followed[job.id]
        before = self._at(key)
        status = None if job.status is None else str(job.status)
        self._first_seen.setdefault(job.id, status)
        running = job.status == BatchJobStatus.IN_PROGRESS and before.running_at is None
        after = self._put(
            key,
            status=status,
            progress=job.progress,
            created_at=job.created_at or before.created_at,
            running_at=self._time.now() if running else before.running_at,
        )
        if after != before:
            self._changed[key] = None
            self._change.set()
            at = "" if job.progress is None else f" at {job.progress:g} %"
            self._tell(RunEventKind.PROGRESSED, f"job {job.id} is {status}{at}", key, job.id)

    async def _note_changes(self) -> None:
        while True:
            await self._change.wait()
            self._change.clear()
            await self._time.sleep(_NOTED_AFTER_SECONDS)
            await self._note_changed()

    async def _note_changed(self) -> None:
        changed = [self._at(key) for key in self._changed]
        self._changed.clear()
        await self._ledger.save(*changed)

    # --- what the steps share -------------------------------------------------------------------------------------

    def _at(self, key: Key) -> Attempt:
        shard, number = key
        return self._attempts[shard][number - 1]

    def _earlier(self, key: Key) -> list[Attempt]:
        shard, number = key
        return self._attempts[shard][: number - 1]

    def _put(self, key: Key, **changes: Any) -> Attempt:
        shard, number = key
        attempt = attrs.evolve(self._at(key), **changes)
        self._attempts[shard][number - 1] = attempt
        return attempt

    async def _save(self, key: Key, **changes: Any) -> None:
        """Change an attempt, and return when that is noted for good."""
        self._changed.pop(key, None)
        await self._ledger.save(self._put(key, **changes))

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

    async def _trouble(self, what: str, key: Key, error: BatchesError, pause: float) -> float:
        shard, number = key
        message = f"shard {shard}, attempt {number} could not {what}, and that is tried again in {pause:g} s: {error}"
        _log.warning("%s", message)
        self._tell(RunEventKind.TROUBLE, message, key)
        await self._time.sleep(pause)
        return min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _tell(self, kind: RunEventKind, message: str, key: Key | None = None, job_id: str | None = None) -> None:
        shard, attempt = key or (None, None)
        event = RunEvent(kind=kind, message=message, at=self._time.now(), shard=shard, attempt=attempt, job_id=job_id)
        self._tell_event(event)
