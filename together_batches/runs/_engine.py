"""The engine of a run: executes the steps of attempts, as many at once as allowed, until no row is left to send.

It uses functions that are passed in (:class:`RunContext`), so that tests can stop it between any two calls, and does
not depend on HTTP or on the location of the ledger.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal

import attrs

from together_batches._jobs.tasks import plain_group
from together_batches.errors import BatchesError, CreateUnconfirmedError, ResultsUnavailableError
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.runs import rules
from together_batches.runs._admission import (
    AFTER_THE_SAMPLE,
    MOST_FAILURES_IN_A_ROW,
    Load,
    Scout,
    Stop,
    Working,
    admission,
)
from together_batches.runs._beginning import Beginning
from together_batches.runs._collecting import Collecting, restore
from together_batches.runs._evidence import Evidence
from together_batches.runs._follower import JobFollower
from together_batches.runs._lost_jobs import unresolved
from together_batches.runs._resuming import Resuming
from together_batches.runs._run_attempt import RunAttempt, Transfers
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from together_batches._jobs.create import Created
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key, Shard


class Engine:
    """The work of a run. ``stopped`` is the reason why sendable rows were not sent, if any."""

    def __init__(self, run: RunContext) -> None:
        self.stopped: str | None = None
        self._run = run
        self._store = run.store
        self._transfers = Transfers()
        self._resuming = Resuming(run, self._work_on)
        attempts = run.store.attempts
        self._load = Load(sent_rows=sum(attempt.rows for attempt in attempts if attempt.creating_at))
        self._todo: deque[Attempt] = deque()
        """Attempts planned from the beginning, which precede rows that are sent again."""
        self._again: deque[Attempt] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        """The tasks of attempts."""
        self._delays: set[asyncio.Task[None]] = set()
        """The tasks that wait until rows may be sent again."""
        self._unresolved: list[BatchesError] = []
        self._done = asyncio.Event()
        """Set when an attempt may begin that could not, or all have ended."""
        self._scout = Scout(is_needed=not any(map(_shows_valid_input, attempts)), on_return=self._done.set)
        self._follower = JobFollower(run, on_seen=self._see)

    @property
    def has_work(self) -> bool:
        """Whether rows are left to send or to collect."""
        return any(self._next(shard) for shard in self._store.shards.values())

    async def run(self) -> None:
        """Work until no row is left to send, or no more may be sent. An error that ends this early is raised.

        A later call can resume the rest. All unresolved attempts are raised as one error after all others ended.
        """
        for attempt in self._store.attempts:
            if attempt.job_id is not None:
                self._run.api.know(BatchJob(id=attempt.job_id, created_at=attempt.created_at))
        given_up = self._resuming.given_up()
        if not self.has_work:
            return
        await self._resuming.look_around()
        for key in given_up:
            arranged = await self._resuming.give_up(key)
            if arranged is not None:
                self._stop_if_failing(key, arranged)
        attempts = [self._next(shard) for shard in self._store.shards.values()]
        # Jobs that may already exist come first: they cost nothing more, and their results are waited for.
        self._todo.extend(
            sorted(
                (attempt for attempt in attempts if attempt is not None and self._is_wanted(attempt)),
                key=lambda attempt: (attempt.creating_at is None, attempt.key),
            )
        )
        async with plain_group() as group:
            noting = group.create_task(self._store.note_changes(self._run.time.sleep))
            while True:
                self._start_admitted(group)
                if not (self._tasks or self._delays):
                    break
                await self._done.wait()
                self._done.clear()
            noting.cancel()
        await self._store.flush()
        if self._unresolved:
            raise unresolved(self._unresolved)
        if self._run.options.sample is not None and self.has_work:
            self.stopped = self.stopped or AFTER_THE_SAMPLE

    def _is_wanted(self, attempt: Attempt) -> bool:
        """Return whether this call works on an attempt: with a sample, on the first shard, and on jobs that exist."""
        return self._run.options.sample is None or attempt.shard == 1 or attempt.creating_at is not None

    async def restore(self) -> None:
        """Make all pieces available, from which the output is written."""
        await restore(self._run, self._work_on)

    def _next(self, shard: Shard) -> Attempt | None:
        return self._store.next_attempt(shard, self._run.time.now())

    # --- admission ------------------------------------------------------------------------------------------------

    def _start_admitted(self, group: asyncio.TaskGroup) -> None:
        while waiting := self._todo or self._again:
            attempt = waiting[0]
            sent = 0 if attempt.creating_at else attempt.rows
            if sent:
                answer = "now" if self.stopped else self._admission(attempt.rows)
                if isinstance(answer, Stop):
                    self._stop(answer.reason)
                if self.stopped:
                    waiting.popleft()
                    continue
                if answer == "later" or self._scout.is_out:
                    return
            waiting.popleft()
            self._scout.send(attempt.key)
            self._load.sent_rows += sent
            working = self._load.working[attempt.key] = Working(attempt.rows)
            self._begin(group, self._tasks, self._run_attempt(attempt, working, group))

    def _admission(self, rows: int) -> Literal["now", "later"] | Stop:
        usage, price = self._store.usage, self._run.price
        self._load.tokens, self._load.cost = usage.total_tokens, 0.0 if price is None else price.of(usage)
        return admission(self._run.options, self._load, rows)

    def _begin(
        self, group: asyncio.TaskGroup, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]
    ) -> None:
        """Begin a task that is one of ``tasks`` until it ends."""

        def end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            self._done.set()

        task = group.create_task(work)
        tasks.add(task)
        task.add_done_callback(end)

    def _release(self, working: Working) -> None:
        """Let others begin: an ended job does not block creates, however long its results take to appear."""
        working.rows = 0
        self._done.set()

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            for delay in self._delays:
                delay.cancel()
            self._run.emit(RunEventKind.STOPPED, f"no more jobs are created: {reason}; running jobs are waited for")

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _run_attempt(self, attempt: Attempt, working: Working, group: asyncio.TaskGroup) -> None:
        """Execute an attempt, and schedule the next one."""
        key = attempt.key
        try:
            arranged = await self._execute(attempt, working, group)
        except (ResultsUnavailableError, CreateUnconfirmedError) as error:
            error.__traceback__ = None  # it would keep its frames alive
            self._unresolved.append(error)
            self._run.emit(RunEventKind.TROUBLE, f"left unresolved in this call: {error}", key)
        else:
            self._follow_up(key, arranged, working, group)
        del self._load.working[key]
        self._scout.end(key)

    async def _execute(self, attempt: Attempt, working: Working, group: asyncio.TaskGroup) -> Arranged | None:
        """Return the results of an attempt; None if it has none, or they are left for the next call."""
        key = attempt.key
        if not await self._has_rows(attempt):
            return None
        work = self._work_on(key)
        is_new = work.attempt.job_id is None
        beginning = Beginning(work, work.upload, may_be_uploaded=self._run.is_resumed)
        await beginning.upload()
        await beginning.create()
        self._scout.limit(key, group, self._run.time.sleep)
        while True:
            job = await work.end(partial(self._follower.ended, key))
            if job is not None and (is_new or self._follower.saw_running(job.id)):
                working.ended_at = self._run.time.monotonic()
            if job is not None and self._follower.cancelled_meanwhile(job):
                job = await self._after_cancel(work, working, job)
                if not job.is_terminal:
                    continue
                if job.status == BatchJobStatus.CANCELLED and not (job.output_file_id or job.error_file_id):
                    return None
            arranged = await self._collected(work, working)
            if arranged is not None:
                return arranged

    async def _has_rows(self, attempt: Attempt) -> bool:
        """Begin an attempt, and return whether it has rows: none if the previous one answered all of them after all.

        If a second job of the previous attempt's file exists, it is the job of this attempt.
        """
        key = attempt.key
        other: Created | None = None
        if attempt.number > 1 and not attempt.creating_at:
            previous = self._work_on((attempt.shard, attempt.number - 1))
            if previous.attempt.rows and not await Evidence(previous).is_as_collected():
                self._load.sent_rows -= attempt.rows
                return False
            other = await previous.other_job()
        if other is not None:
            self._load.sent_rows -= attempt.rows
            # It also answered the rows whose answers are invalid, and is paid for already.
            shard, earlier = self._store.shards[attempt.shard], self._store.earlier(attempt.key)
            rows = len(rules.rows_of(shard, earlier, retry_invalid=True))
            attempt = attrs.evolve(attempt, rows=rows, retries_invalid=attempt.retries_invalid or rows > attempt.rows)
        await self._store.record(attempt, planned_at=self._run.time.now())
        if not attempt.rows:
            await self._store.save(key, collected_at=self._run.time.now())
        elif other is not None:
            await self._work_on(key).take_up(other)
        return bool(attempt.rows)

    def _work_on(self, key: Key) -> RunAttempt:
        return RunAttempt(self._run, self._transfers, key)

    def _see(self, key: Key, job: BatchJob) -> None:
        """Take note of the state of a job."""
        self._scout.see_status(str(job.status) if job.status else None)
        working = self._load.working[key]
        before, working.seems_cancelled = working.seems_cancelled, self._follower.cancelled_meanwhile(job)
        if before and not working.seems_cancelled:
            self._done.set()

    async def _after_cancel(self, work: RunAttempt, working: Working, job: BatchJob) -> BatchJob:
        """Read a job again that seems to have been cancelled; if it was, a user wants to end it, so stop the run."""
        job = await work.look_again(job)
        working.seems_cancelled = False
        self._done.set()
        if job.status == BatchJobStatus.CANCELLED:
            self._stop(f"job {job.id} was cancelled")
        return job

    async def _collected(self, work: RunAttempt, working: Working) -> Arranged | None:
        """Return the results of an ended job; None if it has not ended after all."""
        ended = work.attempt
        working.seems_failed = _seems_to_have_failed(ended)
        arranged = await Collecting(work, work).collect(on_wait=partial(self._release, working))
        working.seems_failed = False
        if work.attempt.ended_at != ended.ended_at:  # it only seemed to have ended
            working.ended_at = self._run.time.monotonic()
        if arranged is None:
            working.rows = ended.rows
            self._done.set()
            return None
        return self._stop_if_failing(ended.key, arranged)

    def _stop_if_failing(self, key: Key, arranged: Arranged) -> Arranged:
        """Stop the run if the results of a job show that more jobs would fail in the same way."""
        if arranged.refusal is not None and self._next(self._store.shards[key[0]]) is not None:
            self._stop(f"rows are refused for the account ({arranged.refusal}): put it in order, and run it again")
        if not rules.ANSWERED.isdisjoint(arranged.outcomes):
            self._load.failures_in_a_row = 0
        elif rules.failed_as_a_whole(self._store.at(key)):
            self._load.failures_in_a_row += 1
        if self._load.failures_in_a_row >= MOST_FAILURES_IN_A_ROW and self.has_work:
            why = self._store.at(key).error or "without a reason"
            self._stop(f"{MOST_FAILURES_IN_A_ROW} jobs in a row failed as a whole, the last one: {why}")
        return arranged

    # --- the next attempt -----------------------------------------------------------------------------------------

    def _follow_up(self, key: Key, arranged: Arranged | None, working: Working, group: asyncio.TaskGroup) -> None:
        """Schedule the next attempt at a shard: its remaining rows, or an attempt that is collected again."""
        following = self._next(self._store.shards[key[0]])
        # An attempt that would be followed by itself is left for the next call.
        if following is None or following.key == key or not self._is_wanted(following):
            return
        if self.stopped and not following.creating_at:
            return
        seconds = 0.0 if arranged is None or working.ended_at is None else self._delay(key, working.ended_at)
        self._begin(group, self._delays, self._after(seconds, following))

    def _delay(self, key: Key, ended_at: float) -> float:
        """Return the seconds until the remaining rows may be sent again, of which those since the end count."""
        attempts = (*self._store.earlier(key), self._store.at(key))
        delay = rules.retry_delay(attempts, self._run.options.retry_delays)
        return max(0.0, delay - (self._run.time.monotonic() - ended_at))

    async def _after(self, seconds: float, following: Attempt) -> None:
        if seconds:
            await self._run.time.sleep(seconds)
        self._again.append(following)


def _seems_to_have_failed(attempt: Attempt) -> bool:
    has_files = attempt.output_file_id or attempt.error_file_id
    return attempt.status in {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED} and not has_files


def _shows_valid_input(attempt: Attempt) -> bool:
    has_run = attempt.running_at is not None or rules.shows_valid_input(attempt.status)
    return has_run or not rules.ANSWERED.isdisjoint(rules.outcomes_of(attempt))
