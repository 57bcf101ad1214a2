"""The jobs that ``watch`` follows: read at each look, joined by those that match later, and what is news of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, cast

from together_batches._jobs.patience import say_how_long
from together_batches.cli._commands.wait import summary
from together_batches.cli._listing.columns import status_counts
from together_batches.cli._listing.labels import labels_in_thread
from together_batches.cli._notify.notifications import job_ended, job_stuck
from together_batches.errors import APIError, AuthenticationError, BatchesError, NotFoundError, UsageError
from together_batches.events import JobChanged
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from together_batches._jobs.awaited_job import AwaitedJob
    from together_batches._jobs.job_filter import JobList
    from together_batches._jobs.progress_tracker import JobProgressTracker
    from together_batches._jobs.status_reader import Found, StatusReader
    from together_batches.cli._commands.watch.table import Moment
    from together_batches.cli._listing.filters import Filter
    from together_batches.cli._listing.labels import Labels
    from together_batches.cli._notify.notifications import Notification
    from together_batches.client import AsyncBatches
    from together_batches.events import ClientEvent

_MOST_ABSENT = 100
"""Maximum number of jobs that are read one by one, because a list that should have them does not."""


class Watched:
    """The jobs that are watched. With a filter, those that match are added whenever the list shows them."""

    def __init__(
        self, ids: Sequence[str], chosen: Filter | None, tracker: JobProgressTracker, patience: float
    ) -> None:
        self.pending: dict[str, AwaitedJob] = {}
        """The jobs that have not finished, by their ids as they were given."""
        self.finished: list[BatchJob] = []
        self.refusals: list[BatchesError] = []
        """The errors of jobs that cannot be read, one for each."""
        self._news: list[Notification] = []
        self._filter = chosen
        self._tracker = tracker
        self._patience = patience
        self._known: set[str] = set()
        self._due: dict[str, float] = {}
        """When jobs that are absent are looked for again."""
        self._absent: dict[str, NotFoundError] = {}
        """Jobs that should exist, and that were not found at this look."""
        self._counts = status_counts(())
        self._reader: StatusReader | None = None
        self._ahead = timedelta()
        """How far the clock of the service is ahead of this machine's."""
        self._answered_at: datetime | None = None
        self._seen = time.monotonic()
        self._failure: APIError | None = None
        """The last error of the last look, if not everything was read."""
        self._looked_at = 0.0
        self._order: list[BatchJob] = []
        self.labels: Labels = {}
        self._line = ""
        for job_id in ids:
            self._add(job_id)

    @property
    def total(self) -> int:
        """The number of jobs that are or were watched."""
        return len(self._known)

    @property
    def has_looked(self) -> bool:
        """Whether any look has succeeded."""
        return self._answered_at is not None

    @property
    def summary(self) -> str:
        """How many jobs have finished, by status."""
        return summary(self.finished, self.total)

    def take_news(self) -> list[Notification]:
        """Return what the user is to be notified of since the last time: ends that were watched, and stuck jobs."""
        news, self._news = self._news, []
        return news

    def moment(self) -> Moment:
        """Return what was known at the last look, for this moment."""
        from together_batches.cli._commands.watch.table import Moment

        return Moment(
            jobs=self._order,
            counts=self._counts,
            tracker=self._tracker,
            now=time.monotonic(),
            seen=self._seen,
            at=self._now(),
            summary=self._line,
            labels=self.labels,
            trouble=self._trouble(),
        )

    def pause(self) -> float:
        """Return the seconds until the next look: until that for the job that is due first."""
        now = time.monotonic()
        return min(
            (
                max(self._due[name] - now, 0.0) if name in self._due else entry.interval(now)
                for name, entry in self.pending.items()
            ),
            default=0.0,
        )

    def note(self, event: ClientEvent) -> None:
        """Take an event of the client."""
        if isinstance(event, JobChanged):
            self._set_clock(event.seen_at)

    def _set_clock(self, seen_at: datetime | None) -> None:
        if seen_at is not None:
            self._ahead = seen_at - datetime.now(UTC)

    def _now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def _trouble(self) -> str:
        if self._failure is None or self._answered_at is None:
            return ""
        if self._seen >= self._looked_at:
            return f"not every job could be read: {self._failure}"
        return f"no answer since {self._answered_at:%H:%M:%S} UTC: {self._failure}"

    def _add(self, given: str | BatchJob) -> None:
        from together_batches._jobs.awaited_job import AwaitedJob

        job = given if isinstance(given, BatchJob) else BatchJob(id=given)
        if job.id not in self._known:
            self._known.add(job.id)
            exists = isinstance(given, BatchJob)
            self.pending[job.id] = AwaitedJob.of(job, time.monotonic(), exists=exists, patience=self._patience)

    # --- reading

    async def look(self, batches: AsyncBatches) -> None:
        """Read the jobs once: in the list if a filter needs it or if that is cheaper, otherwise one by one.

        A look without an answer is an error only if it is the first. Later the jobs stay as they were last seen.
        """
        self._failure, self._looked_at = None, time.monotonic()
        try:
            await self._read(batches)
        except APIError as error:
            if not error.is_transient:
                raise
            self._failure = error
        if self._failure is None:
            self._answered_at, self._seen = self._now(), time.monotonic()
        elif self._answered_at is None:
            raise self._failure
        await self._summarise()

    async def _summarise(self) -> None:
        """Prepare what is shown of this look."""
        from together_batches.cli._commands.watch.table import in_order

        stuck = self._tracker.stuck()
        self._order = in_order([*(entry.job for entry in self.pending.values()), *self.finished], stuck)
        self.labels = await labels_in_thread(job.id for job in self._order)
        facts = (f"{len(stuck)} stuck" if stuck else "", f"{len(self.refusals)} unreadable" if self.refusals else "")
        self._line = "; ".join(filter(None, (self.summary, *facts)))
        self._counts = status_counts(self._order)

    async def _read(self, batches: AsyncBatches) -> None:
        from anyio import to_thread

        from together_batches._jobs.status_reader import StatusReader

        async def account() -> JobList:
            listed = cast("JobList", await batches.list())
            self._set_clock(listed.seen_at)
            return listed

        if self._reader is None:
            self._reader = StatusReader(batches.retrieve, account, max_concurrency=_MOST_ABSENT)
        listed = None
        if self._filter is not None:
            listed = await account()
            await to_thread.run_sync(self._join, listed, self._filter)  # which may read the labels
        self._absent = {}
        await self._reader.read(self._readable(listed), self._settle, listed)
        found = await self._reader.find(self._absent, listed) if self._absent else {}
        for name, error in self._absent.items():
            self._settle(name, found[name]) if name in found else self._miss(name, error)

    def _join(self, listed: JobList, chosen: Filter) -> None:
        """Add the jobs of the list that match."""
        if self._answered_at is None:
            chosen.check(listed)
        try:
            matching, _ = chosen.choose(listed)
        except UsageError:  # for a status that this version does not know, and that no job has any more
            if self._answered_at is None:
                raise
            return
        for job in matching:
            self._add(job)

    def _readable(self, listed: JobList | None) -> list[str]:
        """Return the ids of the jobs to read now; of those that the list lacks, not too many at once."""
        now = time.monotonic()
        names = [name for name in self.pending if self._due.get(name, now) <= now]
        if listed is None:
            return names
        known = {job.id for job in listed}
        lacking = {name for name in names if name not in known}
        left = set(islice(lacking, _MOST_ABSENT, None))
        return [name for name in names if name not in left] if left else names

    def _settle(self, name: str, found: Found) -> None:
        """Take what was read of a job."""
        entry = self.pending[name]
        now, at = time.monotonic(), self._now()
        if isinstance(found, BatchJob):
            was_unfinished = bool(entry.job.status) and not entry.job.is_terminal  # no status: it was never read
            entry.take(found, now, at)
            self._due.pop(name, None)
            self._answered_at, self._seen = at, now
            job = entry.job
            quiet = self._tracker.see(job, now, at)
            if quiet is not None:
                self._news.append(job_stuck(job, quiet))
            if job.is_terminal:
                del self.pending[name]
                self.finished.append(job)
                if was_unfinished:
                    self._news.append(job_ended(job))
        elif isinstance(found, AuthenticationError):
            raise found
        elif isinstance(found, NotFoundError) and entry.exists:
            self._absent[name] = found
        elif found.is_transient:
            self._failure = found
        else:
            self._refuse(name, found)

    def _miss(self, name: str, error: NotFoundError) -> None:
        """Look for a job again that should exist, as long as patience lasts."""
        pause = self.pending[name].absence.pause()
        if pause is None:
            say_how_long(error, self._patience)
            self._refuse(name, error)
        else:
            self._due[name] = time.monotonic() + pause

    def _refuse(self, name: str, error: BatchesError) -> None:
        self._tracker.forget(self.pending.pop(name).job.id)
        self._due.pop(name, None)
        self.refusals.append(error)
