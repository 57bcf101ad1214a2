"""The jobs of a bulk cancel that are read again until their outcome is known: draining, or in doubt."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import attrs

from together_batches._jobs.cancel import CancelCall, cancel_once, outcome_of_unclear
from together_batches._jobs.poller import FIRST_DRAIN_SECONDS, Poller, longer_drain
from together_batches._jobs.status_reader import Found, StatusReader
from together_batches._jobs.tasks import plain_group
from together_batches.errors import APIError, AuthenticationError, NotFoundError, PermissionDeniedError
from together_batches.models import BatchJob
from together_batches.outcomes import CancelOutcome, CancelResult

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from together_batches._http.client_state import BulkContext
    from together_batches._jobs.job_requests import JobsApi

_MOST_FAILED_POLLS = 5
_SECONDS_WITHOUT_READS = 30.0
"""Seconds without reads of jobs with unanswered cancels, after such reads failed: doubling the requests would prolong
an outage."""
_MAX_FAILED_READS = 10


@attrs.define(eq=False)
class Followed:
    """A job that will be read again."""

    outcome: CancelOutcome
    call: CancelCall
    is_unclear: bool = False
    """Whether a cancel without a successful response may have been accepted; then the job is read once."""
    interval: float = FIRST_DRAIN_SECONDS
    failures: int = 0


class End(NamedTuple):
    """The job is not read again: ``last`` is its outcome."""

    last: CancelOutcome


class Poll(NamedTuple):
    """The job is read again at its interval. ``failures`` counts the reads in a row that failed."""

    outcome: CancelOutcome
    failures: int = 0


class Doubt(NamedTuple):
    """The answer contradicts known facts: the job is read again as long as patience allows, then ``last`` holds."""

    outcome: CancelOutcome
    last: CancelOutcome
    failures: int = 0


def after_read(entry: Followed, found: Found) -> End | Poll | Doubt:
    """Return what follows from a read of a job."""
    before = entry.outcome
    if isinstance(found, BatchJob):
        outcome = entry.call.outcome_of(found)
        if found.is_terminal:
            return End(outcome)
        return Doubt(outcome, outcome) if outcome.result is CancelResult.FAILED else Poll(outcome)
    if isinstance(found, NotFoundError):
        is_gone = entry.call.accepted
        last = attrs.evolve(before, result=CancelResult.NOT_FOUND, error=found) if is_gone else before
        return Doubt(before, last, entry.failures)
    # An accepted job that can no longer be followed is still draining as far as is known.
    outcome = attrs.evolve(before, error=found) if before.result is CancelResult.CANCELING else before
    failures = entry.failures + 1
    if isinstance(found, (AuthenticationError, PermissionDeniedError)) or failures >= _MOST_FAILED_POLLS:
        return End(outcome)
    return Poll(outcome, failures)


class CancelFollower:
    """Reads jobs again until their outcomes are known.

    ``settle`` receives the outcome of a cancel that was sent again or became clear, ``end`` a final outcome, and
    ``accepted`` the outcome of a job whose cancel has been accepted. ``room`` returns how many calls may run at once
    beside the workers.
    """

    def __init__(
        self,
        api: JobsApi,
        bulk: BulkContext,
        *,
        max_concurrency: int,
        room: Callable[[], int],
        settle: Callable[[CancelOutcome, CancelCall], None],
        end: Callable[[CancelOutcome], None],
        accepted: Callable[[CancelOutcome], None] | None,
    ) -> None:
        self._api = api
        self._bulk = bulk
        self._room = room
        self._settle = settle
        self._end = end
        self._accepted = accepted
        self._poller = Poller(self._read_due, clock=api.clock, sleep=api.sleep, pause=FIRST_DRAIN_SECONDS)
        self._status_reader = StatusReader(self._read, self._list_jobs, max_concurrency=max_concurrency)
        self._single_reader = StatusReader(
            self._read_single, self._list_jobs, max_concurrency=min(max_concurrency, _MAX_FAILED_READS)
        )
        self._no_reads_until = 0.0
        self._failed_reads = 0
        self._runs = False
        self.group: asyncio.TaskGroup | None = None
        """The group of the workers; the follower is a task of it as long as there are jobs to follow."""
        self.jobs: dict[str, Followed] = {}

    def follow(self, outcome: CancelOutcome, call: CancelCall, pause: float | None) -> None:
        """Read a job again, after ``pause`` seconds or, if that is None, at the interval for a draining job."""
        if outcome.result is CancelResult.CANCELING:
            self._announce(outcome, call)
        if pause is None:
            self._add(outcome, call, FIRST_DRAIN_SECONDS, early=FIRST_DRAIN_SECONDS / 2)
        else:
            self._add(outcome, call, pause)

    def read_once(self, outcome: CancelOutcome, call: CancelCall) -> bool:
        """Read the job of an unclear cancel once; return False during an outage, in which that would be in vain."""
        if self._api.clock() < self._no_reads_until:
            return False
        self._add(outcome, call, FIRST_DRAIN_SECONDS, is_unclear=True)
        return True

    def pop(self, job_id: str) -> Followed:
        """Return what is known of a job, which is not read any more."""
        self._poller.remove(job_id)
        return self.jobs.pop(job_id)

    def _add(
        self, outcome: CancelOutcome, call: CancelCall, seconds: float, *, early: float = 0, is_unclear: bool = False
    ) -> None:
        self.jobs[outcome.job_id] = Followed(outcome, call, is_unclear)
        self._poller.schedule(outcome.job_id, seconds, early=early)
        if not self._runs:
            assert self.group is not None  # noqa: S101  # a group exists as long as anything runs
            self._runs = True
            self.group.create_task(self._run(self.group))

    async def _run(self, group: asyncio.TaskGroup) -> None:
        await self._poller.run(group, more=lambda: False)
        self._runs = False

    def _announce(self, outcome: CancelOutcome, call: CancelCall) -> None:
        call.restart_patience()
        if self._accepted is not None:
            self._accepted(outcome)

    async def _read_due(self, names: list[str]) -> None:
        absent = [name for name in names if self.jobs[name].outcome.result is CancelResult.NOT_FOUND]
        unclear = [name for name in names if self.jobs[name].is_unclear]
        others = set(names).difference(absent, unclear)
        if absent:
            await self._cancel_again(absent)
        if unclear:
            await self._read_unclear(unclear)
        found: dict[str, Found] = {}
        await self._status_reader.read([name for name in names if name in others], found.__setitem__)
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreads the polls of many clients, not for security
        for name, state in found.items():
            self._note(name, state, spread)

    async def _read_unclear(self, names: list[str]) -> None:
        """Read jobs whose cancels got no successful response once; those that stay unclear keep their outcome."""
        found: dict[str, Found] = {}
        self._failed_reads = 0
        await self._single_reader.read(names, found.__setitem__)
        if not any(isinstance(job, BatchJob) for job in found.values()):
            self._no_reads_until = self._api.clock() + _SECONDS_WITHOUT_READS
        for name in names:
            entry, job = self.pop(name), found[name]
            if isinstance(job, BatchJob):
                self._settle(outcome_of_unclear(entry.outcome, job, entry.call), entry.call)
            else:
                self._end(entry.outcome)

    async def _cancel_again(self, names: list[str]) -> None:
        """Send the cancels that got a 404 again, as many concurrently as the workers leave room for."""
        calls = iter([self.pop(name).call for name in names])

        async def again() -> None:
            for call in calls:
                self._settle(await cancel_once(self._api, call), call)

        async with plain_group() as group:
            for _ in range(min(len(names), max(1, self._room()))):
                group.create_task(again())

    async def _read(self, name: str) -> BatchJob:
        return await self._api.retrieve(name, self._bulk.call())

    async def _read_single(self, name: str) -> BatchJob:
        if self._failed_reads >= _MAX_FAILED_READS:
            raise APIError("not read: the reads before failed")  # the outcome has a better error
        try:
            job = await self._api.retrieve_once(name, self._bulk.call())
        except APIError as error:
            self._failed_reads += not isinstance(error, NotFoundError)
            raise
        self._failed_reads = 0
        return job

    async def _list_jobs(self) -> list[BatchJob]:
        return await self._api.list_jobs(self._bulk.call())

    def _note(self, name: str, found: Found, spread: float) -> None:
        """Report the outcome, or schedule the next read of the job."""
        entry = self.jobs[name]
        call, before = entry.call, entry.outcome
        step = after_read(entry, found)
        pause, early = entry.interval * spread, entry.interval / 2
        if isinstance(step, Doubt):
            doubted = call.next_pause()
            if doubted is None:
                step = End(step.last)
            else:
                pause, early = doubted, 0.0
        if isinstance(step, End):
            self.pop(name)
            self._end(step.last)
            return
        entry.outcome, entry.failures = step.outcome, step.failures
        if isinstance(step, Poll) and not step.failures:
            if before.result is CancelResult.CANCELING:
                call.restart_patience()
            else:
                self._announce(entry.outcome, call)
        self._poller.schedule(name, pause, early=early)
        entry.interval = longer_drain(entry.interval)
