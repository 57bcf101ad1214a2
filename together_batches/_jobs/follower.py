"""One poller of jobs that any number of tasks share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs

from together_batches._jobs.awaited_job import state_of
from together_batches._local.until_done import until_done
from together_batches._protocol import jobs as job_protocol
from together_batches._validation import check_callback, positive_number
from together_batches.errors import UsageError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from functools import partial
    from typing import Self

    from together_batches._jobs.wait import Wait
    from together_batches.models import BatchJob

_CLOSED = "this follower is closed: make a new one"


class AsyncFollower:
    """One poller of jobs that any number of tasks share; made by ``AsyncBatches.follower()``.

    It reads all jobs together, with one request for the list of the account if that is cheaper than one for each, and
    only while a task waits. Leaving its ``async with`` block, which is optional, ends the waits that are left.
    """

    def __init__(self, make_wait: partial[Wait], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._make_wait = make_wait
        self._sleep = sleep
        self._following: _Following | None = None
        self._is_closed = False

    async def ended(
        self,
        job_id: str | BatchJob,
        *,
        timeout: float | None = None,
        on_update: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Wait until a job has finished, and return it in its final state.

        Any number of tasks may wait for the same job, and a task may wait for it again later, also after its end.
        Cancelling one of them withdraws that one alone; a job for which no task waits is not read any more. Errors
        are retried as for ``AsyncBatches.wait()``.

        Parameters:
            job_id: an id or a job.
            timeout: maximum seconds to wait, more than 0; unlimited by default.
            on_update: called in the event loop with the job as last seen, with each change, and with the job that is
                returned; not a coroutine function. An exception from it is raised by this call alone.

        Raises:
            WaitTimeoutError: the time is over; ``jobs`` holds the job as last seen.
            NotFoundError: the job does not exist.
            APIError: the job cannot be followed, or the key was refused, in a way that waiting does not help.
            TypeError: ``on_update`` is a coroutine function.
            UsageError: an invalid number or id, a client or a follower that is closed, or in use on another loop.
        """
        job_protocol.job_id(job_id)
        if timeout is not None:
            positive_number("timeout", timeout)
        check_callback("on_update", on_update)
        if self._is_closed:
            raise UsageError(_CLOSED)
        loop = asyncio.get_running_loop()
        following = self._following
        if following is None or following.is_over:
            following = self._following = _Following(self._make_wait, loop)
        elif following.loop is not loop:
            message = "this follower is in use on another event loop: make one for each loop"
            raise UsageError(message)
        caller = following.join(job_id, on_update)
        try:
            return await self._outcome(following, caller, timeout)
        finally:
            await following.leave(caller)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_closed = True
        if self._following is not None and not self._following.is_over:
            await self._following.close()

    async def _outcome(self, following: _Following, caller: _Caller, timeout: float | None) -> BatchJob:
        if timeout is not None:
            alarm = asyncio.ensure_future(self._sleep(timeout))
            both: tuple[asyncio.Future[BatchJob] | asyncio.Future[None], ...] = (caller.outcome, alarm)
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                alarm.cancel()
            if not caller.outcome.done():
                job = following.job(caller)
                message = f"timed out after {timeout:g} s: job {job.id} {state_of(job)}; it is left alone"
                raise WaitTimeoutError(message, jobs=[job])
        return await caller.outcome


@attrs.define(eq=False)
class _Caller:
    """A task that waits for a job. ``name`` is the id as it was passed."""

    name: str
    outcome: asyncio.Future[BatchJob]
    on_update: Callable[[BatchJob], None] | None

    def report(self, job: BatchJob) -> None:
        """Report the job to the caller; an error of its function is its outcome."""
        if self.on_update is None or self.outcome.done():
            return
        try:
            self.on_update(job)
        except StopIteration as error:  # a future refuses it, because a coroutine cannot raise it
            raised = RuntimeError("on_update raised StopIteration")
            raised.__cause__ = error
            self.outcome.set_exception(raised)
        except BaseException as error:  # noqa: BLE001  # raised where the caller waits
            self.outcome.set_exception(error)


class _Following:
    """The work from the first caller to the last one."""

    def __init__(self, make_wait: partial[Wait], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._callers: dict[str, list[_Caller]] = {}
        self._wait = make_wait(on_update=self._see, on_ended=self._end, on_refused=self._refuse)
        self._task = loop.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether no more callers may join."""
        return self._task.done() or self._task.cancelling() > 0

    def join(self, given: str | BatchJob, on_update: Callable[[BatchJob], None] | None) -> _Caller:
        """Add a caller that waits for a job."""
        name = job_protocol.job_id(given)
        caller = _Caller(name, self.loop.create_future(), on_update)
        callers = self._callers.setdefault(name, [])
        callers.append(caller)
        if len(callers) == 1:
            self._wait.follow(name, given)
        elif (job := self.job(caller)).status:
            caller.report(job)
        return caller

    def job(self, caller: _Caller) -> BatchJob:
        """Return the job of a caller that waits, as last seen."""
        return self._wait.job(caller.name)

    async def leave(self, caller: _Caller) -> None:
        """Remove a caller; a job without callers is not read any more, and without jobs the work ends."""
        if caller.outcome.done() and not caller.outcome.cancelled():
            caller.outcome.exception()  # marked as retrieved, because its task may have been cancelled meanwhile
        callers = self._callers.get(caller.name, [])
        if caller in callers:
            callers.remove(caller)
            if not callers:
                del self._callers[caller.name]
                self._wait.withdraw(caller.name)
        if not self._callers and not self._task.done():
            await self._end_work()

    async def close(self) -> None:
        """End the work, and the waits of all callers with an error."""
        for name in list(self._callers):
            self._wait.withdraw(name)
            self._refuse(name, UsageError(_CLOSED))
        await self._end_work()

    async def _end_work(self) -> None:
        self._task.cancel()
        await until_done(self._task)

    async def _run(self) -> None:
        try:
            await self._wait.run(None)
        except BaseException as error:  # noqa: BLE001  # raised where the callers wait
            for name in list(self._callers):
                self._refuse(name, error)

    # --- what was found ---

    def _see(self, name: str, job: BatchJob) -> None:
        for caller in self._callers[name]:
            caller.report(job)

    def _end(self, name: str, job: BatchJob) -> None:
        for caller in self._callers.pop(name):
            if not caller.outcome.done():
                caller.outcome.set_result(job)

    def _refuse(self, name: str, error: BaseException) -> None:
        for caller in self._callers.pop(name):
            if isinstance(error, asyncio.CancelledError):
                caller.outcome.cancel()
            elif not caller.outcome.done():
                caller.outcome.set_exception(error)
