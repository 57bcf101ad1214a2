"""Cancelling: one job, or any number of them with bounded concurrency and one outcome for each.

Built on functions that are passed in (:class:`Verbs`), so that it can be tested with three-line fakes and knows
nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
from anyio import CancelScope

from together_batches import _many, _protocol, _wire
from together_batches._kept import Kept
from together_batches._many import Found, Ids, Lookout, is_plain, plain_group
from together_batches._pacing import Breadth
from together_batches._transport import Call
from together_batches.errors import (
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
    from collections.abc import AsyncGenerator

    from together_batches._transport import Bulk

__all__ = ["Verbs", "cancel_many", "cancel_one", "checked_ids", "iter_cancel"]

# A drained job shows in seconds (about 15 were seen), a service asks for polls to be 30 to 60 s apart:
# https://docs.together.ai/docs/inference/batch/manage. So: soon at first, then ever more seldom.
_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 30.0
_MOST_FAILED_POLLS = 5
_MOST_DRAINING = 1_000


@attrs.frozen
class Verbs:
    """What this room needs of the service."""

    cancel: Callable[[str, Call], Awaitable[BatchJob]]
    retrieve: Callable[[str, Call], Awaitable[BatchJob]]
    list_jobs: Callable[[Call], Awaitable[list[BatchJob]]]


def _of_job(job_id: str, job: BatchJob, attempts: int, error: BatchesError | None = None) -> CancelOutcome:
    """The job's state decides."""
    status = job.status
    if status is _CANCELING or status is None or not status.is_terminal:
        result = _DRAINING
    else:
        result = CancelResult.CANCELLED if status is _CANCELLED else CancelResult.ALREADY_FINISHED
    return CancelOutcome(job_id, result, job, error, attempts)


# Under names of this module, since an enum takes its time to find a member.
_CANCELLED, _CANCELING, _DRAINING = BatchJobStatus.CANCELLED, BatchJobStatus.CANCELING, CancelResult.CANCELING


def _of_answer(job_id: str, answer: bytes) -> CancelOutcome:
    """The outcome of a cancel that was answered well the first time it was sent."""
    return _of_job(job_id, _wire.job(_wire.decode(answer)), attempts=1)


def _of_error(job_id: str, error: BatchesError, attempts: int) -> CancelOutcome:
    if attempts == 0:
        result = CancelResult.NOT_ATTEMPTED
    elif isinstance(error, NotFoundError):
        result = CancelResult.NOT_FOUND
    elif isinstance(error, (AuthenticationError, PermissionDeniedError)):
        result = CancelResult.DENIED
    else:
        result = CancelResult.FAILED
    return CancelOutcome(job_id, result, None, error, attempts)


async def cancel_one(verbs: Verbs, job_id: str, call: Call) -> CancelOutcome:
    """What becomes of one job when it is cancelled. Only misuse of the client raises.

    A cancel that comes too late is answered 409, and the job's state is read to learn how it ended. Where it cannot
    be read, the 409 is kept as the error of an ``ALREADY_FINISHED``.
    """
    try:
        return _of_job(job_id, await verbs.cancel(job_id, call), call.attempts)
    except UsageError:
        raise
    except BatchesError as error:
        if not (isinstance(error, APIStatusError) and _protocol.says_finished(error)):
            return _of_error(job_id, error, call.attempts)
        refusal = error
    try:
        job = await verbs.retrieve(job_id, call)
    except UsageError:
        raise
    except BatchesError:
        return CancelOutcome(job_id, CancelResult.ALREADY_FINISHED, None, refusal, call.attempts)
    # A job that goes on running although its cancel was refused is in doubt: keep the refusal beside it.
    doubtful = not job.is_terminal and job.status != BatchJobStatus.CANCELING
    return _of_job(job_id, job, call.attempts, refusal if doubtful else None)


def checked_ids(job_ids: Ids) -> Ids:
    """The ids as they came; a :class:`TypeError` for one id where many are expected, and for what is no iterable."""
    return _many.checked_ids(job_ids, verb_for_one="cancel")


class _Source:
    """The ids, one at a time, for any number of askers; :data:`_END` after the last."""

    def __init__(self, ids: Ids) -> None:
        self.waits = isinstance(ids, AsyncIterable)
        self._async = aiter(ids) if isinstance(ids, AsyncIterable) else None
        self._sync = iter(()) if isinstance(ids, AsyncIterable) else iter(ids)
        self._turn = asyncio.Lock()  # an async generator may be asked by one at a time
        self._ended = False

    def next(self) -> object:
        """The next id of a source that need not be waited for."""
        return next(self._sync, _END)

    async def anext(self) -> object:
        """The next id of one that ``waits``."""
        async with self._turn:
            if self._ended or self._async is None:
                return _END
            found = await anext(self._async, _END)
            self._ended = found is _END
            return found


_END = object()


@attrs.define(eq=False)
class _Draining:
    """A job whose cancel was accepted, and when to look at it again."""

    outcome: CancelOutcome
    call: Call
    due: float
    interval: float = _FIRST_POLL_SECONDS
    failures: int = 0

    @property
    def early(self) -> float:
        """How long before it is due it may be looked at, together with others: one list serves them all."""
        return self.interval / 2


class _StoppedError(Exception):
    """Carries a cancellation that is not the worker's own out of its group."""

    def __init__(self, reason: asyncio.CancelledError) -> None:
        super().__init__(reason)
        self.reason = reason


class _Crew:
    """The workers of one bulk cancel.

    ``admit`` says whether an id is new. ``emit`` takes each outcome, and the answer from which :func:`_of_answer` can
    make it again, if there is one. ``full`` says that nothing more should be begun until :meth:`go_on` is called.
    """

    def __init__(
        self,
        verbs: Verbs,
        bulk: Bulk,
        ids: Ids,
        *,
        at_once: int,
        wait: bool,
        emit: Callable[[CancelOutcome, bytes | None], None],
        admit: Callable[[str], bool],
        full: Callable[[], bool] | None = None,
    ) -> None:
        self._verbs = verbs
        self._bulk = bulk
        self._source = _Source(ids)
        self._breadth = Breadth(at_once)
        self._wait = wait
        self._emit = emit
        self._admit = admit
        self._full = full
        self._clock = asyncio.get_running_loop().time
        self._room = asyncio.Event()
        self._workers = 0
        self._follower: asyncio.Task[None] | None = None
        self._refusal: AuthenticationError | None = None
        self._lookout = Lookout(self._read, self._list_jobs, at_once=at_once)
        self.in_flight: dict[str, Call] = {}
        self.draining: dict[str, _Draining] = {}

    async def run(self) -> None:
        """Cancel them all. What a callback or the source raises ends the run and is raised as it is."""
        try:
            async with plain_group() as group:
                if self._wait:
                    self._follower = group.create_task(self._follow())
                self._hire(group)
            return
        except _StoppedError as stopped:
            reason = stopped.reason
        raise reason

    def go_on(self) -> None:
        """There may be room again."""
        self._room.set()

    # --- the workers ---

    def _hire(self, group: asyncio.TaskGroup) -> None:
        self._workers += 1
        group.create_task(self._work(group))

    async def _work(self, group: asyncio.TaskGroup) -> None:
        source, breadth = self._source, self._breadth
        try:
            while self._workers <= breadth.now:
                while self._full is not None and self._full():
                    self._room.clear()
                    await self._room.wait()
                asked = await source.anext() if source.waits else source.next()
                if asked is _END:
                    break
                # Each worker that finds work calls the next one in: three ids do not cost a hundred tasks.
                if self._workers < breadth.now:
                    self._hire(group)
                name = _name(asked)
                call = self._begin(asked, name)
                if call is None:
                    await asyncio.sleep(0)  # there may be a million such ids, and the loop has other work
                    continue
                changes = breadth.changes
                outcome = await cancel_one(self._verbs, name, call)
                if call.attempts:
                    breadth.answered(call.seconds, changes=changes, waited=call.waited)
                self._take(outcome, call)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The source was cancelled, or a callback said so; the group would take it for the end of this worker.
            raise _StoppedError(error) from error
        self._workers -= 1
        if not self._workers and not self.draining and self._follower is not None:
            self._follower.cancel()

    def _begin(self, asked: object, name: str) -> Call | None:
        """The call to be made for this id; None where there is none to be made, and its outcome is known."""
        if not self._admit(name):
            return None
        if self._refusal is not None:
            self._emit(self._not_attempted(name, self._refusal), None)
            return None
        try:
            _protocol.job_id(asked)
        except UsageError as error:
            self._emit(CancelOutcome(name, CancelResult.FAILED, None, error, 0), None)
            return None
        call = self.in_flight[name] = self._bulk.call()
        return call

    def _take(self, outcome: CancelOutcome, call: Call) -> None:
        if outcome.error is not None:
            outcome.error.__traceback__ = None  # its frames would be kept as long as the outcome
            if isinstance(outcome.error, AuthenticationError) and self._refusal is None:
                self._refusal = outcome.error
                self._bulk.refuse(outcome.error)
        if self._wait and outcome.result is CancelResult.CANCELING:
            self.draining[outcome.job_id] = _Draining(outcome, call, self._clock() + _FIRST_POLL_SECONDS)
        else:
            self._done(outcome, call.answer if outcome.attempts == 1 else None)

    def _done(self, outcome: CancelOutcome, answer: bytes | None = None) -> None:
        self.in_flight.pop(outcome.job_id, None)
        self._emit(outcome, answer)

    # --- the follower of jobs that are draining ---

    async def _follow(self) -> None:
        while self._workers or self.draining:
            now = self._clock()
            due = min((entry.due for entry in self.draining.values()), default=math.inf)
            if self._workers:  # they may add some that are due earlier
                due = min(due, now + _FIRST_POLL_SECONDS)
            await asyncio.sleep(max(_FIRST_POLL_SECONDS, due - now))
            now = self._clock()
            await self._look([name for name, entry in self.draining.items() if entry.due - entry.early <= now])

    async def _look(self, names: list[str]) -> None:
        """Read these jobs once, and settle what can be settled."""
        found: dict[str, Found] = {}
        await self._lookout.look(names, found.__setitem__)
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreads the polls of many clients, hides nothing
        for name in names:
            self._settle(name, found[name], spread)

    async def _read(self, name: str) -> BatchJob:
        return await self._verbs.retrieve(name, self.draining[name].call)

    async def _list_jobs(self) -> list[BatchJob]:
        return await self._verbs.list_jobs(self._bulk.call())

    def _settle(self, name: str, found: Found, spread: float) -> None:
        entry = self.draining[name]
        attempts = entry.call.attempts
        if isinstance(found, BatchJob):
            entry.failures = 0
            entry.outcome = _of_job(name, found, attempts)
            settled = found.is_terminal
        else:
            entry.failures += 1
            # Its cancel was accepted, so a job that cannot be followed any more is still draining as far as is known.
            entry.outcome = attrs.evolve(entry.outcome, error=found, attempts=attempts)
            if isinstance(found, NotFoundError):
                entry.outcome = attrs.evolve(entry.outcome, result=CancelResult.NOT_FOUND)
            hopeless = isinstance(found, (AuthenticationError, PermissionDeniedError, NotFoundError))
            settled = hopeless or entry.failures >= _MOST_FAILED_POLLS
        if settled:
            del self.draining[name]
            self._done(entry.outcome)
            return
        entry.due = self._clock() + entry.interval * spread
        entry.interval = min(_LONGEST_POLL_SECONDS, entry.interval * 1.5)

    # --- what is left when the time is over ---

    def give_up(self, error: APITimeoutError) -> None:
        """Emit an outcome for every id that has none yet."""
        for name, call in list(self.in_flight.items()):
            if name in self.draining:
                outcome = self.draining[name].outcome
            elif call.attempts:
                outcome = CancelOutcome(name, CancelResult.FAILED, None, error, call.attempts)
            else:
                outcome = self._not_attempted(name, error)
            self._done(outcome)
        while (asked := self._source.next()) is not _END:
            name = _name(asked)
            if self._admit(name):
                self._emit(self._not_attempted(name, error), None)

    @staticmethod
    def _not_attempted(name: str, reason: BatchesError) -> CancelOutcome:
        return CancelOutcome(name, CancelResult.NOT_ATTEMPTED, None, reason, 0)


def _name(asked: object) -> str:
    """What an id is called in its outcome, even where it is no id; then in brackets, since 7 is not "7"."""
    if isinstance(asked, BatchJob):
        return asked.id
    return asked if isinstance(asked, str) else f"<{asked!r}>"


async def cancel_many(
    verbs: Verbs,
    bulk: Bulk,
    job_ids: Ids,
    *,
    at_once: int,
    wait: bool,
    timeout: float | None,
    on_outcome: Callable[[CancelOutcome], None] | None,
) -> CancelReport:
    """Cancel many jobs and report what became of each, in the order of the ids."""
    if on_outcome is not None and not is_plain(on_outcome):
        message = "on_outcome must be a plain function: it is called, not awaited"
        raise TypeError(message)
    kept = Kept(_of_answer)

    def emit(outcome: CancelOutcome, answer: bytes | None) -> None:
        nonlocal on_outcome
        kept.put(outcome, answer)
        if on_outcome is not None:
            tell, on_outcome = on_outcome, None  # one that raises is not called again by those who are just behind
            tell(outcome)
            on_outcome = tell

    crew = _Crew(verbs, bulk, job_ids, at_once=at_once, wait=wait, emit=emit, admit=kept.admit)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await asyncio.sleep(0)  # no time at all is over now, before anything was sent
            await crew.run()
    except TimeoutError:
        if not limit.expired():
            raise  # somebody else's
        crew.give_up(APITimeoutError(f"the {timeout:g} s given to this bulk cancel were over", request_sent=True))
    return kept.report()


async def iter_cancel(
    verbs: Verbs, bulk: Bulk, job_ids: Ids, *, at_once: int, wait: bool
) -> AsyncGenerator[CancelOutcome, None]:
    """Cancel many jobs and yield what became of each as it is known, holding no more than is in flight.

    The work is one task beside the generator, so that nothing is ever yielded from within a task group: it would
    tie the group to whichever task asks for the next outcome.
    """
    ready: deque[CancelOutcome] = deque()
    arrived = asyncio.Event()

    def emit(outcome: CancelOutcome, _: bytes | None) -> None:
        ready.append(outcome)
        arrived.set()

    def admit(name: str) -> bool:
        return name not in crew.in_flight

    def full() -> bool:
        return len(ready) >= at_once or len(crew.draining) >= max(_MOST_DRAINING, at_once)

    crew = _Crew(verbs, bulk, job_ids, at_once=at_once, wait=wait, emit=emit, admit=admit, full=full)
    work = asyncio.create_task(crew.run())
    work.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            while ready:
                yield ready.popleft()
            crew.go_on()
            if work.done():
                work.result()
                return
            arrived.clear()
            await arrived.wait()
    finally:
        work.cancel()
        with CancelScope(shield=True):  # a cancelled scope around the iterator would not let anything be awaited
            await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: it was raised above, or came while nobody was looking any more
