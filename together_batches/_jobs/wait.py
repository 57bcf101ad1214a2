"""Waiting for one job, or for many with one poller that reports each when it has finished.

Built on functions that are passed in (:class:`JobsApi`), so that tests cover days of waiting in no time. The deadline
is the caller's own: a job may outlive its ``job_deadline`` at the service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import attrs

from together_batches._jobs.awaited_job import AwaitedJob, state_of
from together_batches._jobs.patience import say_how_long
from together_batches._jobs.poller import Poller
from together_batches._jobs.status_reader import Found, StatusReader
from together_batches._jobs.tasks import ReadyItems, plain_group, stream_from_task
from together_batches._protocol import jobs as job_protocol
from together_batches.errors import APIError, AuthenticationError, BatchesError, NotFoundError, WaitTimeoutError
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    from together_batches._jobs.job_ids import Ids
    from together_batches._jobs.job_requests import JobsApi

_log = logging.getLogger("together_batches")

_SPREAD = 1 / 3
_EARLY = 1 / 4
"""Share of its interval by which a job may be read early, if others are due: reading many together is cheaper."""
_LAST_READ_SECONDS = 1.0
"""Seconds before the deadline at which all jobs are read once more: some may have finished since the last read."""
_MOST_FAILURES_IN_A_ROW = 20
_IDS_AT_A_TIME = 1_000
_MOST_NAMED = 5


def _note_nothing(*_: object) -> None:
    """Do nothing, for callers without a function of their own."""


@attrs.define(eq=False, kw_only=True)
class Wait:
    """One wait for jobs until all have finished.

    A 404 is retried for ``patience`` seconds if the job was passed as a :class:`BatchJob`, is known to the client, or
    was seen. With ``holds``, so is a COMPLETED job that names no file; after that it has ended, with a warning.

    The functions are called with an id as it was passed: ``on_update`` with the job as first seen and with each
    change, ``on_ended`` with the job when it has finished, ``on_refused`` with the error of a job that cannot be
    followed; without it such errors are raised at the end.
    """

    api: JobsApi
    max_concurrency: int
    poll_interval: float | None
    patience: float
    timeout: float | None = None
    holds: bool = True
    on_update: Callable[[str, BatchJob], None] = _note_nothing
    on_ended: Callable[[str, BatchJob], None] = _note_nothing
    on_refused: Callable[[str, BatchesError], None] | None = None
    _status_reader: StatusReader = attrs.field(init=False)
    _poller: Poller = attrs.field(init=False)
    _known: set[str] = attrs.field(init=False, factory=set)
    _pending: dict[str, AwaitedJob] = attrs.field(init=False, factory=dict)
    _refusals: list[BatchesError] = attrs.field(init=False, factory=list)
    _absent: dict[str, NotFoundError] = attrs.field(init=False, factory=dict)
    _absence: NotFoundError | None = attrs.field(init=False, default=None)
    _spread: float = attrs.field(init=False, default=1.0)
    _failures: int = attrs.field(init=False, default=0)
    _failures_in_a_row: int = attrs.field(init=False, default=0)
    _failure: BatchesError | None = attrs.field(init=False, default=None)
    _no_answer_since: datetime | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._status_reader = StatusReader(self._read, self._list_jobs, max_concurrency=self.max_concurrency)
        self._poller = Poller(self._read_due, clock=self.api.clock, sleep=self.api.sleep)

    async def run(self, ids: Ids | None) -> None:
        """Follow all jobs to their end, or until the time is over, and raise the error that says so.

        A repeated id is followed once. Without ids, the jobs are those that are passed to :meth:`follow`, until this
        is cancelled. An exception from the source of ids or from a function ends this, unchanged.
        """
        if self.timeout == 0:
            await self._feed(ids)
            if self._pending:
                await self._read_due(list(self._pending))
        else:
            await self._follow(ids)
        self._release_held()
        if self._pending:
            raise self._too_late()
        if self._refusals:
            raise self._refused()

    async def _follow(self, ids: Ids | None) -> None:
        timeout, now = self.timeout, self.api.clock()
        if timeout is not None:
            self._poller.read_all_at(now + timeout - min(_LAST_READ_SECONDS, timeout / 10))

        async with plain_group() as group:
            ends = [group.create_task(self._alarm(timeout))] if timeout is not None else []
            feeder = group.create_task(self._feed(ids))
            # Ids from an async source are followed while more arrive; with a plain iterable nothing would be gained.
            if isinstance(ids, Iterable):
                await asyncio.wait([feeder, *ends], return_when=asyncio.FIRST_COMPLETED)
            feeder.add_done_callback(lambda _: self._poller.wake())
            polling = group.create_task(self._poller.run(group, more=lambda: not feeder.done()))
            await asyncio.wait([polling, *ends], return_when=asyncio.FIRST_COMPLETED)
            for task in (polling, feeder, *ends):
                task.cancel()

    async def _alarm(self, seconds: float) -> None:
        await self.api.sleep(seconds)

    # --- the ids ---

    async def _feed(self, ids: Ids | None) -> None:
        if ids is None:
            await asyncio.Event().wait()  # until it is cancelled
        elif isinstance(ids, AsyncIterable):
            async for given in ids:
                self._admit(given)
        else:
            for count, given in enumerate(ids, start=1):
                self._admit(given)
                if count % _IDS_AT_A_TIME == 0:
                    await asyncio.sleep(0)  # there may be a million, and the loop has other work

    def _admit(self, given: str | BatchJob) -> None:
        job_id = job_protocol.job_id(given)
        if job_id not in self._known:
            self._known.add(job_id)
            self.follow(job_id, given)

    def follow(self, job_id: str, given: str | BatchJob) -> None:
        """Follow a job that is not followed yet."""
        job = given if isinstance(given, BatchJob) else BatchJob(id=job_id)
        if job.is_terminal:  # its state is final, so no request is needed
            self.on_update(job_id, job)
            self.on_ended(job_id, job)
            return
        exists = isinstance(given, BatchJob) or self.api.knows(job_id)
        now = self.api.clock()
        self._pending[job_id] = AwaitedJob.of(job, now, exists=exists, patience=self.patience)
        self._poller.schedule(job_id, 0)

    def job(self, job_id: str) -> BatchJob:
        """Return a job that is followed, as last seen."""
        return self._pending[job_id].job

    def withdraw(self, job_id: str) -> None:
        """Follow a job no longer."""
        if job_id in self._pending:
            self._remove(job_id)

    # --- reading ---

    async def _read_due(self, names: list[str]) -> None:
        # One spread for all, so that jobs that are read together stay together: it separates clients, not jobs.
        self._spread = 1 + _SPREAD * (2 * self.api.chance() - 1)
        self._failures = self._failures_in_a_row = 0
        await self._status_reader.read(names, self._settle)
        absent, self._absent = self._absent, {}
        found = await self._status_reader.find(absent) if absent else {}
        for name, error in absent.items():
            if name in found:
                self._settle(name, found[name])
            elif name in self._pending:
                self._settle_absent(name, error)
        if self._failures:
            _log.warning(
                "%d of %d jobs could not be read, and will be read again: %s",
                self._failures,
                len(names),
                self._failure,
                extra={"failed": self._failures, "jobs": len(names)},
            )

    async def _read(self, job_id: str) -> BatchJob:
        if self._failure is not None and self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise self._failure.with_traceback(None)  # during an outage, thousands more requests are pointless
        return await self.api.retrieve(job_id, None)

    async def _list_jobs(self) -> list[BatchJob]:
        return await self.api.list_jobs(None)

    # --- what was found ---

    def _settle(self, name: str, found: Found) -> None:
        entry = self._pending.get(name)
        if entry is None:  # withdrawn while it was read
            return
        now = self.api.clock()
        if entry.ended_despite(found):
            found = entry.job  # only its files are awaited
        if isinstance(found, BatchJob):
            is_left = self._take_job(name, entry, found, now)
        else:
            is_left = self._take_error(name, entry, found)
        if is_left:
            self._read_again(name, entry, now)

    def _take_job(self, name: str, entry: AwaitedJob, found: BatchJob, now: float) -> bool:
        """Record the state of a job, and return whether it is to be read again at its interval."""
        self._failures_in_a_row = 0
        self._no_answer_since = None
        is_news = entry.take(found, now, self.api.now())
        self.api.read(entry.job)
        if is_news:
            self.api.seen(entry.job)
            self.on_update(name, entry.job)
        if found.is_terminal and not self._is_held(name, entry):
            self._remove(name)
            self.on_ended(name, entry.job)
        return not found.is_terminal

    def _take_error(self, name: str, entry: AwaitedJob, error: APIError) -> bool:
        """Record that a job could not be read, and return whether it is to be read again at its interval."""
        error.__traceback__ = None  # the traceback would keep its frames alive as long as the error
        if isinstance(error, AuthenticationError):
            raise error  # every other call will be refused, too
        if isinstance(error, NotFoundError) and entry.exists:
            self._absent[name] = error
            return False
        if not error.is_transient:
            self._refuse(name, error)
            return False
        self._failure = error
        self._no_answer_since = self._no_answer_since or self.api.now()
        self._failures += 1
        self._failures_in_a_row += 1
        return True

    def _read_again(self, name: str, entry: AwaitedJob, now: float) -> None:
        interval = self.poll_interval or self._spread * entry.interval(now)
        self._poller.schedule(name, interval, early=_EARLY * interval)
        quiet_hours = entry.quiet_hours(now)
        if quiet_hours is not None:
            _log.warning(
                "the job %s %s for %.1f h, without a change; it is still waited for",
                name,
                state_of(entry.job),
                quiet_hours,
                extra={"job_id": name},
            )

    def _is_held(self, name: str, entry: AwaitedJob) -> bool:
        """Return whether a completed job without files is held back, because patience for them is left."""
        if not self.holds or not entry.lacks_files:
            return False
        pause = entry.file_absence.pause()
        if pause is None:
            self._warn_of_no_files(entry.job)
            return False
        self._poller.schedule(name, pause)
        return True

    def _warn_of_no_files(self, job: BatchJob) -> None:
        _log.warning(
            "job %s is COMPLETED and names no file of results; they may appear later",
            job.id,
            extra={"job_id": job.id},
        )

    def _remove(self, name: str) -> None:
        del self._pending[name]
        self._poller.remove(name)

    def _release_held(self) -> None:
        """Emit the completed jobs whose files have not appeared yet."""
        for name, entry in list(self._pending.items()):
            if entry.job.is_terminal:
                self._warn_of_no_files(entry.job)
                self._remove(name)
                self.on_ended(name, entry.job)

    def _settle_absent(self, name: str, error: NotFoundError) -> None:
        entry = self._pending[name]
        pause = entry.absence.pause()
        if pause is None:
            say_how_long(error, self.patience)
            self._refuse(name, error)
            return
        self._absence = error
        _log.warning(
            "job %s is absent (%s); it is read again in %g s",
            name,
            error,
            pause,
            extra={"job_id": name, "wait": pause},
        )
        # Not earlier together with other jobs, because the whole pause is deducted from the patience.
        self._poller.schedule(name, pause)

    def _refuse(self, name: str, error: BatchesError) -> None:
        self._remove(name)
        if self.on_refused is not None:
            self.on_refused(name, error)
            return
        self._refusals.append(error)
        if len(self._known) > 1:  # the error of the only job is raised at once
            _log.warning("the job %s cannot be waited for: %s", name, error, extra={"job_id": name})

    # --- the end ---

    def _too_late(self) -> WaitTimeoutError:
        """Return the error for a timeout; its cause is the last failure, if any."""
        jobs = [entry.job for entry in self._pending.values()]
        named = "; ".join(f"{job.id} {state_of(job)}" for job in jobs[:_MOST_NAMED])
        more = f"; and {len(jobs) - _MOST_NAMED} more" if len(jobs) > _MOST_NAMED else ""
        those = "1 job was" if len(jobs) == 1 else f"{len(jobs)} jobs were"
        over = f"timed out after {self.timeout:g} s" if self.timeout else "checked once"
        message = f"{over}, and {those} still pending; left alone: {named}{more}{self._outage()}"
        error = WaitTimeoutError(message, jobs=jobs)
        error.__cause__ = self._refusals[0] if self._refusals else self._failure or self._absence
        return error

    def _outage(self) -> str:
        """Return the part of the message that names a current outage."""
        if self._no_answer_since is None:
            return ""
        return f"; the service has not answered successfully since {self._no_answer_since:%Y-%m-%d %H:%M:%S} UTC"

    def _refused(self) -> Exception:
        """Return the error for jobs that could not be followed: a single error, or a group."""
        if len(self._refusals) == 1:
            return self._refusals[0]
        return ExceptionGroup(f"{len(self._refusals)} jobs could not be waited for", self._refusals)


def as_completed(make_wait: partial[Wait], job_ids: Ids) -> AsyncGenerator[BatchJob, None]:
    """Yield each job when it has finished."""
    ready = ReadyItems[BatchJob]()

    def put(_: str, job: BatchJob) -> None:
        ready.put(job)

    return stream_from_task(partial(make_wait(on_ended=put).run, job_ids), ready)


async def ended(
    make_wait: partial[Wait], job_id: str | BatchJob, on_update: Callable[[BatchJob], None] | None = None
) -> BatchJob:
    """Return a job when it has finished."""

    def update(_: str, job: BatchJob) -> None:
        if on_update is not None:
            on_update(job)

    async with aclosing(as_completed(partial(make_wait, on_update=update), [job_id])) as finished:
        return await anext(finished)
