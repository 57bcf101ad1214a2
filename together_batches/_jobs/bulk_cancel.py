"""Cancellation of many jobs: a pool of workers with bounded concurrency, and one outcome for each id."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterable, Callable, Sized
from typing import TYPE_CHECKING, Literal

import attrs

from together_batches._http.concurrency import AdaptiveConcurrency
from together_batches._jobs.cancel import (
    CancelCall,
    cancel_once,
    is_unclear,
    pause_in_doubt,
)
from together_batches._jobs.cancel_follower import CancelFollower
from together_batches._jobs.cancel_report import CancelOutcomes
from together_batches._jobs.tasks import ReadyItems, plain_group, stream_from_task
from together_batches._protocol import jobs as job_protocol
from together_batches.errors import APITimeoutError, AuthenticationError, BatchesError, UsageError
from together_batches.models import BatchJob
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from together_batches._http.client_state import BulkContext
    from together_batches._jobs.job_ids import Ids
    from together_batches._jobs.job_requests import JobsApi

_log = logging.getLogger("together_batches")

_MOST_DRAINING = 1_000
_IDS_AT_A_TIME = 1_000
_MOST_UNSENT = 1_000_000
"""Unsent ids that are read from an iterable without a length, such as a generator: it may have no end."""


class _IdSource:
    """The ids, for many workers; :data:`_END` after the last."""

    def __init__(self, ids: Ids) -> None:
        self._async = aiter(ids) if isinstance(ids, AsyncIterable) else None
        self._turn = asyncio.Lock()  # an async generator serves one task at a time
        self._ended = False
        self.left: Iterator[object] = iter(() if isinstance(ids, AsyncIterable) else ids)
        """The ids that were not read yet; none of an async source."""
        self.most_left = math.inf if isinstance(ids, Sized) else _MOST_UNSENT

    async def next(self) -> object:
        """Return the next id."""
        if self._async is None:
            return next(self.left, _END)
        async with self._turn:
            if self._ended:
                return _END
            found = await anext(self._async, _END)
            self._ended = found is _END
            return found


_END = object()


class _WorkerPool:
    """The workers of one bulk cancel.

    ``admit`` returns whether an id is new. ``emit`` receives each outcome, and the response body, if exactly one
    cancel was sent and its answer decided the outcome. ``accepted`` receives the outcome of each followed job when
    its cancel has been accepted. While ``full`` returns True for the number of followed jobs, no new cancel is
    started until :meth:`go_on` is called.
    """

    def __init__(
        self,
        api: JobsApi,
        bulk: BulkContext,
        ids: Ids,
        *,
        max_concurrency: int,
        wait: bool,
        emit: Callable[[CancelOutcome, bytes | None], None],
        admit: Callable[[str], bool],
        accepted: Callable[[CancelOutcome], None] | None = None,
        full: Callable[[int], bool] | None = None,
    ) -> None:
        self._api = api
        self._bulk = bulk
        self._source = _IdSource(ids)
        self._concurrency = AdaptiveConcurrency(max_concurrency)
        self._wait = wait
        self._emit = emit
        self._admit = admit
        self._full = full
        self._room = asyncio.Event()
        self._workers = 0
        self._refusal: AuthenticationError | None = None
        self._follower = CancelFollower(
            api,
            bulk,
            max_concurrency=max_concurrency,
            room=lambda: self._concurrency.limit - self._workers,
            settle=self._settle,
            end=self._end,
            accepted=accepted,
        )
        self.in_flight: dict[str, CancelCall] = {}

    async def run(self) -> None:
        """Cancel all jobs. An exception from a callback or from the source aborts the run and is raised unchanged."""
        async with plain_group() as group:
            self._follower.group = group
            self._start_worker(group)

    def go_on(self) -> None:
        """Check again whether new cancels can be started."""
        self._room.set()

    # --- the workers ---

    def _start_worker(self, group: asyncio.TaskGroup) -> None:
        self._workers += 1
        group.create_task(self._work(group))

    async def _work(self, group: asyncio.TaskGroup) -> None:
        # An eager task runs inside the task that creates it, so the workers would nest on the stack.
        await asyncio.sleep(0)
        concurrency = self._concurrency
        while self._workers <= concurrency.limit:
            while self._full is not None and self._full(len(self._follower.jobs)):
                self._room.clear()
                await self._room.wait()
            given = await self._source.next()
            if given is _END:
                break
            # Each worker that finds work starts the next one, so that three ids do not cost a hundred tasks.
            if self._workers < concurrency.limit:
                self._start_worker(group)
            call = self._begin(given)
            if call is None:
                await asyncio.sleep(0)  # there may be a million such ids, and the loop has other work
            else:
                await self._cancel(call)
        self._workers -= 1

    async def _cancel(self, call: CancelCall) -> None:
        generation = self._concurrency.generation
        outcome = await cancel_once(self._api, call)
        if call.attempts:
            self._concurrency.answered(call.seconds, generation=generation, waited=call.waited)
        self._settle(outcome, call)

    def _begin(self, given: object) -> CancelCall | None:
        """Return the call for this id; None if its outcome is known without one."""
        invalid: UsageError | None = None
        try:
            name = job_protocol.job_id(given)
        except UsageError as error:
            name, invalid = _name(given), error
        if not self._admit(name):
            return None
        if self._refusal is not None:
            self._emit(self._not_attempted(name, self._refusal, given), None)
            return None
        if invalid is not None:
            self._emit(CancelOutcome(name, CancelResult.FAILED, None, invalid), None)
            return None
        job = given if isinstance(given, BatchJob) else None
        call = self.in_flight[name] = CancelCall(self._bulk, name, job)
        return call

    def _settle(self, outcome: CancelOutcome, call: CancelCall) -> None:
        """Report the outcome of an answered cancel, or follow its job."""
        error = outcome.error
        if error is None:
            if self._wait and outcome.result is CancelResult.CANCELING:
                self._follower.follow(outcome, call, None)
            else:
                self._end(outcome, call.answer if call.attempts == 1 else None)
            return
        error.__traceback__ = None  # the traceback would keep its frames alive as long as the outcome
        if isinstance(error, AuthenticationError) and self._refusal is None:
            self._refusal = error
            self._bulk.refuse(error)
        if is_unclear(outcome, call) and self._follower.read_once(outcome, call):
            return
        if self._wait and error is call.refusal and not outcome.ok:
            pause = call.next_pause()  # the state may lag behind
        else:
            pause = pause_in_doubt(self._api, outcome, call)
        if pause is None:
            self._end(outcome)
        else:
            self._follower.follow(outcome, call, pause)

    def _end(self, outcome: CancelOutcome, answer: bytes | None = None) -> None:
        self.in_flight.pop(outcome.job_id, None)
        self._emit(outcome, answer)

    # --- on timeout or cancellation ---

    def report_unread(self) -> None:
        """Emit an outcome for every cancel that was accepted or has failed, if its job was not read since."""
        for name, call in list(self.in_flight.items()):
            followed = self._follower.jobs.get(name)
            if followed is not None and followed.is_unclear:
                self._follower.pop(name)
                self._end(followed.outcome)
            elif call.accepted and (followed is None or followed.outcome.result is CancelResult.FAILED):
                self._end(call.outcome(CancelResult.CANCELING))

    async def give_up(self, error: APITimeoutError) -> None:
        """Emit an outcome for every id that has none yet, also for those that were not read yet."""
        self.report_unread()
        for name, call in list(self.in_flight.items()):
            followed = self._follower.jobs.get(name)
            if followed is not None and followed.outcome.result is not CancelResult.NOT_FOUND:
                self._end(followed.outcome)
            else:
                result = CancelResult.FAILED if call.attempts else CancelResult.NOT_ATTEMPTED
                self._end(call.outcome(result, None, error))
        for count, given in enumerate(self._source.left, start=1):
            if count > self._source.most_left:
                _log.warning(
                    "more than %d ids were not sent; the others are not in the report",
                    _MOST_UNSENT,
                    extra={"jobs": _MOST_UNSENT},
                )
                break
            name = _name(given)
            if self._admit(name):
                self._emit(self._not_attempted(name, error, given), None)
            if count % _IDS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # there may be a million, and the loop has other work

    @staticmethod
    def _not_attempted(name: str, reason: BatchesError, given: object) -> CancelOutcome:
        before = given.status if isinstance(given, BatchJob) else None
        return CancelOutcome(name, CancelResult.NOT_ATTEMPTED, None, reason, status_before=before)


def _name(given: object) -> str:
    """Return the name of an id in its outcome; an invalid id is put in brackets, because 7 is not "7"."""
    if isinstance(given, BatchJob):
        given = given.id
    # Strip the line end of the file that the id may come from; text of white space alone stays as it is.
    return given.strip() or given if isinstance(given, str) else f"<{given!r}>"


async def cancel_many(
    api: JobsApi,
    bulk: BulkContext,
    job_ids: Ids,
    *,
    max_concurrency: int,
    wait: bool,
    timeout: float | None,
    on_outcome: Callable[[CancelOutcome], None] | None,
) -> CancelReport:
    """Cancel many jobs and return a report of their outcomes, in the order of the ids."""
    outcomes = CancelOutcomes()

    def report(outcome: CancelOutcome, event: Literal["accepted", "ended"]) -> None:
        nonlocal on_outcome
        if on_outcome is not None:
            call, on_outcome = on_outcome, None  # after it raised, outcomes that follow closely do not call it again
            call(attrs.evolve(outcome, event=event) if wait else outcome)
            on_outcome = call

    def emit(outcome: CancelOutcome, answer: bytes | None) -> None:
        outcomes.put(outcome, answer)
        report(outcome, "ended")

    pool = _WorkerPool(
        api,
        bulk,
        job_ids,
        max_concurrency=max_concurrency,
        wait=wait,
        emit=outcomes.put if on_outcome is None else emit,
        admit=outcomes.admit,
        accepted=lambda outcome: report(outcome, "accepted"),
    )
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await asyncio.sleep(0)  # a timeout of zero expires here, before anything is sent
            await pool.run()
    except asyncio.CancelledError:
        pool.report_unread()
        raise
    except TimeoutError:
        if not limit.expired():
            raise  # raised by the caller's own timeout
        message = f"timed out after {timeout:g} s, the limit of this bulk cancel"
        await pool.give_up(APITimeoutError(message, request_sent=True))
    return outcomes.report()


def iter_cancel(
    api: JobsApi, bulk: BulkContext, job_ids: Ids, *, max_concurrency: int, wait: bool
) -> AsyncGenerator[CancelOutcome, None]:
    """Cancel many jobs and yield each outcome as soon as it is known, holding only those in flight."""
    ready = ReadyItems[CancelOutcome]()

    def admit(name: str) -> bool:
        return name not in pool.in_flight

    def full(followed: int) -> bool:
        return len(ready.items) >= max_concurrency or followed >= max(_MOST_DRAINING, max_concurrency)

    def emit(outcome: CancelOutcome, _: bytes | None) -> None:
        ready.put(outcome)

    pool = _WorkerPool(
        api, bulk, job_ids, max_concurrency=max_concurrency, wait=wait, emit=emit, admit=admit, full=full
    )
    return stream_from_task(pool.run, ready, on_drained=pool.go_on)
