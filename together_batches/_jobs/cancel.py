"""Cancellation of one job, or of many with bounded concurrency and one outcome for each.

Built on functions that are passed in (:class:`CancelApi`): it can be tested with three-line fakes and does not depend
on HTTP.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import attrs
from anyio import CancelScope

from together_batches._http.concurrency import AdaptiveConcurrency
from together_batches._http.transport import CallState
from together_batches._jobs import status_reader
from together_batches._jobs.compact_outcomes import CompactOutcomes
from together_batches._jobs.status_reader import Found, Ids, StatusReader, is_plain, plain_group
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol import refusals
from together_batches._protocol.jobs import NoJob
from together_batches.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from together_batches._http.transport import BulkContext

__all__ = ["CancelApi", "CancelCall", "cancel_many", "cancel_one", "checked_ids", "iter_cancel"]

# The service asks for polls 30 to 60 s apart (https://docs.together.ai/docs/inference/batch/manage), but a job drains
# within seconds (about 15 observed). So the first poll is early, and the intervals grow.
_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 30.0
_MOST_FAILED_POLLS = 5
_MOST_DRAINING = 1_000
_PATIENCE_SECONDS = 60.0
"""Seconds for which answers that contradict known facts are doubted: a 404 for an existing job, a refused cancel."""
_LONGEST_PAUSE_SECONDS = 10.0
_GROWTH = 1.5
_SECONDS_WITHOUT_LOOKS = 30.0
"""Seconds without reads of jobs with unanswered cancels, after such reads failed: doubling the requests would prolong
an outage."""
_MOST_VAIN_LOOKS = 10


@attrs.frozen
class CancelApi:
    """The functions of the service and of the client that cancelling uses.

    ``look`` reads a job like ``retrieve``, by a single request without retries.
    """

    cancel: Callable[[str, CallState], Awaitable[BatchJob | NoJob]]
    retrieve: Callable[[str, CallState], Awaitable[BatchJob]]
    look: Callable[[str, CallState], Awaitable[BatchJob]]
    list_jobs: Callable[[CallState], Awaitable[list[BatchJob]]]
    knows: Callable[[str], bool]
    now: Callable[[], datetime]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


class CancelCall(CallState):
    """The cancel of one job: the job as known before, and what the responses have shown so far."""

    __slots__ = ("_now", "accepted", "job", "pauses", "refusal", "requested_at", "sent")

    def __init__(self, bulk: BulkContext | None, now: Callable[[], datetime], job: BatchJob | None = None) -> None:
        # All attributes are set here and not in the base class, because a call of its ``__init__`` takes as long
        # again, and one instance is made for each id.
        self.answer = None
        self.bulk = bulk
        self.seconds = self.waited = 0.0
        self.sent = 0
        """Number of times the cancel was sent."""
        self._now = now
        self.requested_at: datetime | None = None
        self.job = job
        """The job that was passed in, which shows that it exists; None for an id."""
        self.accepted = False
        self.refusal: APIError | None = None
        """The error that answered the cancel, while the state of the job is in doubt."""
        self.pauses: Iterator[float] | None = None
        """The remaining pauses for answers that contradict known facts."""

    @property
    def attempts(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``sent``; it is incremented just before each send, so the setter records the time of the first one."""
        return self.sent

    @attempts.setter
    def attempts(self, count: int) -> None:
        if count == 1:
            self.requested_at = self._now()
        self.sent = count

    def read(self) -> CallState:
        """Return a call that reads the job: part of the same bulk, but not a cancel."""
        return CallState(self.bulk)

    def next_pause(self) -> float | None:
        """Return the seconds until the next read of a job in doubt; None if patience is used up."""
        if self.pauses is None:
            self.pauses = _pauses()
        return next(self.pauses, None)


def _pauses() -> Iterator[float]:
    """Yield growing pauses that add up to the patience. Outages between them do not count."""
    left, pause = _PATIENCE_SECONDS, _FIRST_POLL_SECONDS
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(_GROWTH * pause, _LONGEST_PAUSE_SECONDS)


# --- from an answer to an outcome -----------------------------------------------------------------------------

# Module-level aliases, because looking up an enum member takes time.
_CANCELLED, _CANCELING, _DRAINING = BatchJobStatus.CANCELLED, BatchJobStatus.CANCELING, CancelResult.CANCELING


def _of_job(job_id: str, job: BatchJob, call: CancelCall) -> CancelOutcome:
    """Return the outcome that the job's state implies. A job that still runs after a refused cancel is a failure."""
    status = job.status
    error: BatchesError | None = None
    if status is not _CANCELING and job.is_terminal:
        result = CancelResult.CANCELLED if status is _CANCELLED else CancelResult.ALREADY_FINISHED
    elif call.accepted or status is _CANCELING:
        call.accepted = True  # by an earlier cancel, if not by this one
        result = _DRAINING
    else:
        result, error = CancelResult.FAILED, call.refusal
    before = call.job
    return CancelOutcome(
        job_id,
        result,
        job,
        error,
        call.sent,
        call.accepted,
        None if before is None else before.status,
        call.requested_at,
    )


def _without_job(job_id: str, result: CancelResult, error: BatchesError | None, call: CancelCall) -> CancelOutcome:
    before = None if call.job is None else call.job.status
    return CancelOutcome(job_id, result, None, error, call.sent, call.accepted, before, call.requested_at)


def _of_error(job_id: str, error: BatchesError, call: CancelCall) -> CancelOutcome:
    if call.sent == 0:
        result = CancelResult.NOT_ATTEMPTED
    elif isinstance(error, NotFoundError):
        result = CancelResult.NOT_FOUND
    elif isinstance(error, (AuthenticationError, PermissionDeniedError)):
        result = CancelResult.DENIED
    else:
        result = CancelResult.FAILED
    return _without_job(job_id, result, error, call)


_RECORD = struct.Struct("<dI")
"""The header of a record: when the cancel was sent, and the length of the status that precedes the response body."""


def _record(call: CancelCall) -> bytes | None:
    """Return the record for :func:`_of_record`, if the first cancel that was sent got a successful response."""
    answer, requested_at = call.answer, call.requested_at
    if answer is None or requested_at is None or call.sent != 1:
        return None
    if call.job is None or not call.job.status:
        return _RECORD.pack(requested_at.timestamp(), 0) + answer
    status = call.job.status.encode("utf-8", "surrogatepass")
    return _RECORD.pack(requested_at.timestamp(), len(status)) + status + answer


def _of_record(job_id: str, record: bytes) -> CancelOutcome:
    requested_at, length = _RECORD.unpack_from(record)
    answer = _RECORD.size + length
    status = record[_RECORD.size : answer].decode("utf-8", "surrogatepass")
    before = BatchJob(id=job_id, status=BatchJobStatus(status)) if status else None
    call = CancelCall(None, lambda: datetime.fromtimestamp(requested_at, UTC), before)
    call.attempts = 1
    call.accepted = True
    return _of_job(job_id, job_protocol.job_in(record[answer:]), call)


# --- one job --------------------------------------------------------------------------------------------------


async def cancel_one(api: CancelApi, job_id: str, call: CancelCall) -> CancelOutcome:
    """Cancel one job and return its outcome. Only misuse of the client raises.

    A 404 for a job that is known to exist is doubted for a while, and the cancel is sent again. If a cancel may have
    been accepted without a successful response, the job is read once.
    """
    while True:
        outcome = await _cancel_once(api, job_id, call)
        if _is_unclear(outcome, call):
            try:
                job = await api.look(job_id, call.read())
            except UsageError:
                raise
            except BatchesError:
                return outcome
            return _after_look(outcome, job, call)
        pause = _doubt(api, outcome, call)
        if pause is None:
            return outcome
        await api.sleep(pause)


def _doubt(api: CancelApi, outcome: CancelOutcome, call: CancelCall) -> float | None:
    """Return the seconds until a cancel that got a 404 is sent again; None if the 404 is accepted as final."""
    if outcome.result is CancelResult.NOT_FOUND and (call.job is not None or api.knows(outcome.job_id)):
        return call.next_pause()
    return None


def _is_unclear(outcome: CancelOutcome, call: CancelCall) -> bool:
    """Return True if a cancel that got no successful response may have been accepted, and no read followed."""
    if outcome.result is not CancelResult.FAILED or outcome.error is None or outcome.error is call.refusal:
        return False
    return refusals.may_have_been_taken(outcome.error)


def _after_look(outcome: CancelOutcome, job: BatchJob, call: CancelCall) -> CancelOutcome:
    """Return the outcome that the job's state implies for a cancel whose result was unclear."""
    assert isinstance(outcome.error, APIError)  # noqa: S101  # that is why it is unclear
    call.refusal = outcome.error
    return _of_job(outcome.job_id, job, call)


async def _cancel_once(api: CancelApi, job_id: str, call: CancelCall) -> CancelOutcome:
    """Send one cancel. If the response is a refusal, or contains no job, read the job to learn its state."""
    try:
        answer = await api.cancel(job_id, call)
    except UsageError:
        raise
    except BatchesError as error:
        if not refusals.is_refusal(error):
            return _of_error(job_id, error, call)
        refusal: APIError = error
    else:
        if isinstance(answer, BatchJob):
            call.accepted = True
            return _of_job(job_id, answer, call)
        call.accepted = call.accepted or answer.accepted
        refusal = answer.error
    call.refusal = refusal
    try:
        job = await api.retrieve(job_id, call.read())
    except UsageError:
        raise
    except BatchesError:
        finished = isinstance(refusal, APIStatusError) and refusals.means_already_finished(refusal)
        result = CancelResult.ALREADY_FINISHED if finished else CancelResult.FAILED
        return _without_job(job_id, result, refusal, call)
    return _of_job(job_id, job, call)


def checked_ids(job_ids: Ids) -> Ids:
    """Return the ids unchanged. Raise :class:`TypeError` for a single id, or for a value that is not iterable."""
    return status_reader.checked_ids(job_ids, verb_for_one="cancel")


class _IdSource:
    """An iterator over the ids that many workers share; :data:`_END` after the last."""

    def __init__(self, ids: Ids) -> None:
        self.waits = isinstance(ids, AsyncIterable)
        self._async = aiter(ids) if isinstance(ids, AsyncIterable) else None
        self._sync = iter(()) if isinstance(ids, AsyncIterable) else iter(ids)
        self._turn = asyncio.Lock()  # an async generator serves one task at a time
        self._ended = False

    def next(self) -> object:
        """Return the next id of a source that does not have to be awaited."""
        return next(self._sync, _END)

    async def anext(self) -> object:
        """Return the next id of a source with ``waits``."""
        async with self._turn:
            if self._ended or self._async is None:
                return _END
            found = await anext(self._async, _END)
            self._ended = found is _END
            return found


_END = object()


@attrs.define(eq=False)
class _Followed:
    """A job that will be read again, and when: it is draining, or an answer contradicts known facts."""

    outcome: CancelOutcome
    call: CancelCall
    due: float
    early: float
    """Seconds before ``due`` at which it may already be read with other jobs: one list serves them all."""
    is_unclear: bool = False
    """Whether a cancel without a successful response may have been accepted; then the job is read once."""
    interval: float = _FIRST_POLL_SECONDS
    failures: int = 0


class _StoppedError(Exception):
    """Carries a cancellation that is not the worker's own out of its task group."""

    def __init__(self, reason: asyncio.CancelledError) -> None:
        super().__init__(reason)
        self.reason = reason


class _WorkerPool:
    """The workers of one bulk cancel.

    ``admit`` returns whether an id is new. ``emit`` receives each outcome, and the record from which
    :func:`_of_record` can rebuild it, if one exists. ``accepted`` receives the outcome of each followed job when its
    cancel has been accepted. While ``full`` returns True, no new cancel is started until :meth:`go_on` is called.
    """

    def __init__(
        self,
        api: CancelApi,
        bulk: BulkContext,
        ids: Ids,
        *,
        at_once: int,
        wait: bool,
        emit: Callable[[CancelOutcome, bytes | None], None],
        admit: Callable[[str], bool],
        accepted: Callable[[CancelOutcome], None] | None = None,
        full: Callable[[], bool] | None = None,
    ) -> None:
        self._api = api
        self._now = api.now
        self._bulk = bulk
        self._source = _IdSource(ids)
        self._concurrency = AdaptiveConcurrency(at_once)
        self._wait = wait
        self._emit = emit
        self._admit = admit
        self._accepted = accepted
        self._full = full
        self._room = asyncio.Event()
        self._workers = 0
        self._group: asyncio.TaskGroup | None = None
        self._follower_runs = False
        self._refusal: AuthenticationError | None = None
        self._status_reader = StatusReader(self._read, self._list_jobs, at_once=at_once)
        self._single_look = StatusReader(self._look_once, self._list_jobs, at_once=min(at_once, _MOST_VAIN_LOOKS))
        self._no_look_until = 0.0
        self._vain_looks = 0
        self.in_flight: dict[str, CancelCall] = {}
        self.followed: dict[str, _Followed] = {}

    async def run(self) -> None:
        """Cancel all jobs. An exception from a callback or from the source aborts the run and is raised unchanged."""
        try:
            async with plain_group() as group:
                self._group = group
                self._start_worker(group)
            return
        except _StoppedError as stopped:
            reason = stopped.reason
        raise reason

    def go_on(self) -> None:
        """Check again whether new cancels can be started."""
        self._room.set()

    # --- the workers ---

    def _start_worker(self, group: asyncio.TaskGroup) -> None:
        self._workers += 1
        group.create_task(self._work(group))

    async def _work(self, group: asyncio.TaskGroup) -> None:
        source, concurrency = self._source, self._concurrency
        try:
            # An eager task runs inside the task that creates it, so the workers would nest on the stack.
            await asyncio.sleep(0)
            while self._workers <= concurrency.limit:
                while self._full is not None and self._full():
                    self._room.clear()
                    await self._room.wait()
                given = await source.anext() if source.waits else source.next()
                if given is _END:
                    break
                # Each worker that finds work starts the next one, so that three ids do not cost a hundred tasks.
                if self._workers < concurrency.limit:
                    self._start_worker(group)
                name = _name(given)
                call = self._begin(given, name)
                if call is None:
                    await asyncio.sleep(0)  # there may be a million such ids, and the loop has other work
                    continue
                generation = concurrency.generation
                outcome = await _cancel_once(self._api, name, call)
                if call.sent:
                    concurrency.answered(call.seconds, generation=generation, waited=call.waited)
                self._take(outcome, call)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The source was cancelled, or a callback raised it; the group would mistake it for the end of this
            # worker.
            raise _StoppedError(error) from error
        self._workers -= 1

    def _begin(self, given: object, name: str) -> CancelCall | None:
        """Return the call for this id; None if its outcome is known without one."""
        if not self._admit(name):
            return None
        if self._refusal is not None:
            self._emit(self._not_attempted(name, self._refusal, given), None)
            return None
        try:
            job_protocol.job_id(given)
        except UsageError as error:
            self._emit(CancelOutcome(name, CancelResult.FAILED, None, error), None)
            return None
        job = given if isinstance(given, BatchJob) else None
        call = self.in_flight[name] = CancelCall(self._bulk, self._now, job)
        return call

    def _take(self, outcome: CancelOutcome, call: CancelCall) -> None:
        """Report the outcome of an answered cancel, or follow its job."""
        error = outcome.error
        if error is None:
            if self._wait and outcome.result is _DRAINING:
                self._follow(outcome, call)
            else:
                self._done(outcome, _record(call))
            return
        error.__traceback__ = None  # the traceback would keep its frames alive as long as the outcome
        if isinstance(error, AuthenticationError) and self._refusal is None:
            self._refusal = error
            self._bulk.refuse(error)
        if _is_unclear(outcome, call) and self._api.clock() >= self._no_look_until:
            self._follow(outcome, call, _FIRST_POLL_SECONDS, is_unclear=True)
            return
        if self._wait and error is call.refusal and not outcome.ok:
            pause = call.next_pause()  # the state may lag behind
        else:
            pause = _doubt(self._api, outcome, call)
        if pause is None:
            self._done(outcome)
        else:
            self._follow(outcome, call, pause)

    def _done(self, outcome: CancelOutcome, record: bytes | None = None) -> None:
        self.in_flight.pop(outcome.job_id, None)
        self._emit(outcome, record)

    # --- the follower: jobs that are read again ---

    def _follow(
        self, outcome: CancelOutcome, call: CancelCall, pause: float | None = None, *, is_unclear: bool = False
    ) -> None:
        """Read a job again, after ``pause`` seconds or by default at the interval for a draining job."""
        if outcome.result is CancelResult.CANCELING:
            self._announce(outcome, call)
        early = _FIRST_POLL_SECONDS / 2 if pause is None else 0.0
        pause = _FIRST_POLL_SECONDS if pause is None else pause
        due = self._api.clock() + pause
        self.followed[outcome.job_id] = _Followed(outcome, call, due, early, is_unclear)
        if not self._follower_runs:
            assert self._group is not None  # noqa: S101  # a group exists as long as anything runs
            self._follower_runs = True
            self._group.create_task(self._look_after_them())

    def _announce(self, outcome: CancelOutcome, call: CancelCall) -> None:
        call.pauses = None
        if self._accepted is not None:
            self._accepted(outcome)

    async def _look_after_them(self) -> None:
        """Read each job again when it is due, until none is left."""
        while self.followed:
            now = self._api.clock()
            due = min(entry.due for entry in self.followed.values())
            if self._workers:  # workers may add jobs that are due earlier
                due = min(due, now + _FIRST_POLL_SECONDS)
            await self._api.sleep(max(_FIRST_POLL_SECONDS, due - now))
            now = self._api.clock()
            names = [name for name, entry in self.followed.items() if entry.due - entry.early <= now]
            absent = [name for name in names if self.followed[name].outcome.result is CancelResult.NOT_FOUND]
            unclear = [name for name in names if self.followed[name].is_unclear]
            if absent:
                await self._cancel_again(absent)
            if unclear:
                await self._look_at_unclear(unclear)
            others = set(names).difference(absent, unclear)
            await self._look([name for name in names if name in others])
        self._follower_runs = False

    async def _look_at_unclear(self, names: list[str]) -> None:
        """Read jobs whose cancels got no successful response once; those that stay unclear keep their outcome."""
        found: dict[str, Found] = {}
        self._vain_looks = 0
        await self._single_look.read(names, found.__setitem__)
        if not any(isinstance(job, BatchJob) for job in found.values()):
            self._no_look_until = self._api.clock() + _SECONDS_WITHOUT_LOOKS
        for name in names:
            entry, job = self.followed.pop(name), found[name]
            if isinstance(job, BatchJob):
                self._take(_after_look(entry.outcome, job, entry.call), entry.call)
            else:
                self._done(entry.outcome)

    async def _cancel_again(self, names: list[str]) -> None:
        """Send the cancels that got a 404 again, as many concurrently as the workers leave room for."""
        entries = [(name, self.followed.pop(name)) for name in names]
        rest = iter(entries)

        async def again() -> None:
            for name, entry in rest:
                self._take(await _cancel_once(self._api, name, entry.call), entry.call)

        async with plain_group() as group:
            for _ in range(min(len(entries), max(1, self._concurrency.limit - self._workers))):
                group.create_task(again())

    async def _look(self, names: list[str]) -> None:
        """Read these jobs once, and settle those whose outcome is now known."""
        found: dict[str, Found] = {}
        await self._status_reader.read(names, found.__setitem__)
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreads the polls of many clients, not for security
        for name in names:
            self._settle(name, found[name], spread)

    async def _read(self, name: str) -> BatchJob:
        return await self._api.retrieve(name, self._bulk.call())

    async def _look_once(self, name: str) -> BatchJob:
        if self._vain_looks >= _MOST_VAIN_LOOKS:
            raise BatchesError("not looked at: the looks before failed")  # the outcome has a better error
        try:
            job = await self._api.look(name, self._bulk.call())
        except BatchesError as error:
            self._vain_looks += not isinstance(error, NotFoundError)
            raise
        self._vain_looks = 0
        return job

    async def _list_jobs(self) -> list[BatchJob]:
        return await self._api.list_jobs(self._bulk.call())

    def _settle(self, name: str, found: Found, spread: float) -> None:
        """Report the outcome, or schedule the next read of the job."""
        entry = self.followed[name]
        call = entry.call
        before = entry.outcome
        pause: float | None = entry.interval * spread
        entry.early = entry.interval / 2
        if isinstance(found, BatchJob):
            entry.failures = 0
            entry.outcome = _of_job(name, found, call)
            if found.is_terminal:
                pause = None
            elif entry.outcome.result is CancelResult.FAILED:
                pause, entry.early = call.next_pause(), 0.0
            elif before.result is not CancelResult.CANCELING:
                self._announce(entry.outcome, call)
            else:
                call.pauses = None
        elif isinstance(found, NotFoundError):
            pause, entry.early = call.next_pause(), 0.0
            if pause is None and call.accepted:
                entry.outcome = attrs.evolve(before, result=CancelResult.NOT_FOUND, error=found)
        else:
            entry.failures += 1
            if before.result is CancelResult.CANCELING:
                # An accepted job that can no longer be followed is still draining as far as is known.
                entry.outcome = attrs.evolve(before, error=found)
            hopeless = isinstance(found, (AuthenticationError, PermissionDeniedError))
            if hopeless or entry.failures >= _MOST_FAILED_POLLS:
                pause = None
        if pause is None:
            del self.followed[name]
            self._done(entry.outcome)
            return
        entry.due = self._api.clock() + pause
        entry.interval = min(_LONGEST_POLL_SECONDS, entry.interval * _GROWTH)

    # --- on timeout or cancellation ---

    def report_unread(self) -> None:
        """Emit an outcome for every cancel that was accepted or has failed, if its job was not read since."""
        for name, call in list(self.in_flight.items()):
            entry = self.followed.get(name)
            if entry is not None and entry.is_unclear:
                del self.followed[name]
                self._done(entry.outcome)
            elif call.accepted and (entry is None or entry.outcome.result is CancelResult.FAILED):
                self.followed.pop(name, None)
                self._done(_without_job(name, CancelResult.CANCELING, None, call))

    def give_up(self, error: APITimeoutError) -> None:
        """Emit an outcome for every id that has none yet."""
        self.report_unread()
        for name, call in list(self.in_flight.items()):
            entry = self.followed.get(name)
            if entry is not None and entry.outcome.result is not CancelResult.NOT_FOUND:
                outcome = entry.outcome
            elif call.sent:
                outcome = _without_job(name, CancelResult.FAILED, error, call)
            else:
                outcome = _without_job(name, CancelResult.NOT_ATTEMPTED, error, call)
            self._done(outcome)
        while (given := self._source.next()) is not _END:
            name = _name(given)
            if self._admit(name):
                self._emit(self._not_attempted(name, error, given), None)

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
    api: CancelApi,
    bulk: BulkContext,
    job_ids: Ids,
    *,
    at_once: int,
    wait: bool,
    timeout: float | None,
    on_outcome: Callable[[CancelOutcome], None] | None,
) -> CancelReport:
    """Cancel many jobs and return a report of their outcomes, in the order of the ids."""
    if on_outcome is not None and not is_plain(on_outcome):
        message = "on_outcome must be a plain function: it is called, not awaited"
        raise TypeError(message)
    kept = CompactOutcomes(_of_record)

    def tell(outcome: CancelOutcome, event: Literal["accepted", "ended"]) -> None:
        nonlocal on_outcome
        if on_outcome is not None:
            call, on_outcome = on_outcome, None  # after it raised, outcomes that follow closely do not call it again
            call(attrs.evolve(outcome, event=event) if wait else outcome)
            on_outcome = call

    def emit(outcome: CancelOutcome, record: bytes | None) -> None:
        kept.put(outcome, record)
        if on_outcome is not None:
            tell(outcome, "ended")

    pool = _WorkerPool(
        api,
        bulk,
        job_ids,
        at_once=at_once,
        wait=wait,
        emit=emit,
        admit=kept.admit,
        accepted=lambda outcome: tell(outcome, "accepted"),
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
        pool.give_up(APITimeoutError(f"the {timeout:g} s given to this bulk cancel were over", request_sent=True))
    return kept.report()


async def iter_cancel(
    api: CancelApi, bulk: BulkContext, job_ids: Ids, *, at_once: int, wait: bool
) -> AsyncGenerator[CancelOutcome, None]:
    """Cancel many jobs and yield each outcome as soon as it is known, holding only those in flight.

    The work is a task beside the generator, so that nothing is yielded inside a task group: that would tie the group
    to the task that requests the next outcome.
    """
    ready: deque[CancelOutcome] = deque()
    arrived = asyncio.Event()

    def emit(outcome: CancelOutcome, _: bytes | None) -> None:
        ready.append(outcome)
        arrived.set()

    def admit(name: str) -> bool:
        return name not in pool.in_flight

    def full() -> bool:
        return len(ready) >= at_once or len(pool.followed) >= max(_MOST_DRAINING, at_once)

    pool = _WorkerPool(api, bulk, job_ids, at_once=at_once, wait=wait, emit=emit, admit=admit, full=full)
    work = asyncio.create_task(pool.run())
    work.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            while ready:
                yield ready.popleft()
            pool.go_on()
            if work.done():
                work.result()
                return
            arrived.clear()
            await arrived.wait()
    finally:
        work.cancel()
        with CancelScope(shield=True):  # in a cancelled scope around the iterator, nothing could be awaited
            await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # mark as retrieved: it was raised above, or occurred after the iteration ended
