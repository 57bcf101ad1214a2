"""The engine of a run: carries attempts through their steps, as many at once as may be, until nothing is to be sent.

Built on functions that are passed in (:class:`Verbs`, :class:`Time`) and on a :class:`Ledger`, so that it can be
stopped between any two of them, and knows neither HTTP nor where the ledger is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import attrs

from together_batches._many import plain_group
from together_batches.models import BatchJob
from together_batches.runs import _rules
from together_batches.runs._following import Following
from together_batches.runs._journal import Journal
from together_batches.runs._steps import Steps
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from together_batches.runs._records import Attempt, Books, Ledger, Shard
    from together_batches.runs._rules import Limits
    from together_batches.runs._telling import Telling
    from together_batches.runs._verbs import Time, Verbs
    from together_batches.runs._workshop import Workshop

__all__ = ["Engine"]


class Engine:
    """The work of a run. ``stopped`` says afterwards why rows were left that could be sent."""

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
        tell: Telling,
    ) -> None:
        self.journal = Journal(ledger, books)
        self.stopped: str | None = None
        self._time = time
        self._limits = limits
        self._max_attempts = max_attempts
        self._tell = tell
        self._know = verbs.know
        self._following = Following(verbs.follow, self.journal, time, tell)
        self._steps = Steps(
            verbs=verbs, time=time, journal=self.journal, workshop=workshop, following=self._following, tell=tell
        )
        self._load = _rules.Load(
            sent_rows=sum(attempt.rows for attempt in books.attempts if attempt.creating_at),
            tokens=sum(attempt.total_tokens for attempt in books.attempts),
        )
        self._todo: deque[Attempt] = deque()
        self._done = asyncio.Event()

    @property
    def has_work(self) -> bool:
        """Whether rows are to be sent, or their results to be had."""
        return any(self._next(shard) for shard in self.journal.shards.values())

    async def run(self) -> None:
        """Go on until no row is to be sent, or may be. What ends this early is raised; the rest can go on later."""
        for attempt in self.journal.attempts:
            if attempt.job_id is not None:  # rows that all failed make the same file again, for another job
                self._know(BatchJob(id=attempt.job_id, created_at=attempt.created_at))
        attempts = [self._next(shard) for shard in self.journal.shards.values()]
        # What may exist already comes first: it costs nothing more, and its results are waited for.
        self._todo.extend(
            sorted(
                (attempt for attempt in attempts if attempt is not None),
                key=lambda attempt: (attempt.creating_at is None, attempt.key),
            )
        )
        if not self._todo:
            return
        async with plain_group() as group:
            group.create_task(self._following.run())
            noting = group.create_task(self.journal.note_changes(self._time.sleep))
            while True:
                self._begin_what_may(group)
                if not self._load.jobs:
                    break
                await self._done.wait()
                self._done.clear()
            self._following.stop()
            noting.cancel()
        await self.journal.flush()

    async def restore(self) -> None:
        """Have all results here, which the output is made of."""
        await self._steps.restore()

    def _next(self, shard: Shard) -> Attempt | None:
        attempts = self.journal.at_shard(shard)
        return _rules.next_attempt(shard, attempts, max_attempts=self._max_attempts, now=self._time.now())

    def _begin_what_may(self, group: asyncio.TaskGroup) -> None:
        while self._todo:
            attempt = self._todo[0]
            sent = 0 if attempt.creating_at else attempt.rows
            if sent:
                answer = "now" if self.stopped else _rules.admission(self._limits, self._load, attempt.rows)
                if answer == "later":
                    return
                if isinstance(answer, _rules.Stop):
                    self._stop(answer.reason)
                if self.stopped:
                    self._todo.popleft()
                    continue
            self._todo.popleft()
            self._load = attrs.evolve(
                self._load,
                jobs=self._load.jobs + 1,
                enqueued_rows=self._load.enqueued_rows + attempt.rows,
                sent_rows=self._load.sent_rows + sent,
            )
            group.create_task(self._carry(attempt))

    async def _carry(self, attempt: Attempt) -> None:
        key = attempt.key
        # It may have waited for its turn since it was made.
        await self.journal.begin(attrs.evolve(attempt, planned_at=self._time.now()))
        await self._steps.upload(key)
        await self._steps.create(key)
        job = await self._steps.end(key)
        if job is not None and self._following.cancelled_meanwhile(job):
            # Somebody wants an end of it, and is not to be answered with new jobs.
            self._stop(f"job {job.id} was cancelled")
        await self._steps.collect(key)
        self._load = attrs.evolve(
            self._load,
            jobs=self._load.jobs - 1,
            enqueued_rows=self._load.enqueued_rows - attempt.rows,
            tokens=self._load.tokens + self.journal.at(key).total_tokens,
        )
        following = self._next(self.journal.shards[attempt.shard])
        if following is not None:
            self._todo.appendleft(following)
        self._done.set()

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._tell(RunEventKind.STOPPED, f"nothing more is created: {reason}; what runs is waited for")
