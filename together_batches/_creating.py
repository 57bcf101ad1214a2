"""Creating a job exactly once, although the service has no idempotency key and answers get lost.

After a create whose answer was lost the client looks for the job instead of sending the create again: by its input
file, among the jobs created since the attempt began. That is why creates for one file run one after another, and why
jobs that are known already are left out of the search.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    BatchesError,
    CreateUnconfirmedError,
)
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

__all__ = ["KnownJobs", "Listing", "create_once", "created_since"]

_MARGIN = timedelta(minutes=5)
"""How far the clocks of the service's machines may be apart."""
_MOST_REMEMBERED = 10_000
_MOST_POSTS = 2
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_UNKNOWN = datetime.max.replace(tzinfo=UTC)


class KnownJobs:
    """The jobs that this client has seen, and since when; those created longest ago are forgotten.

    Shared by all views of a client, together with the turns of the files that jobs are being created from.
    """

    def __init__(self) -> None:
        # Two plain mappings, since a pair for each job would be one more thing for the garbage collector to visit.
        self._seen: dict[str, int] = {}
        self._created: dict[str, datetime] = {}
        self._forgotten = _LONG_AGO
        self._count = 0
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    def note(self, job: BatchJob) -> BatchJob:
        """Remember a job; what was seen before stays as old as it was."""
        created = job.created_at or _UNKNOWN
        if created >= self._forgotten and job.id not in self._seen:
            self._count += 1
            self._seen[job.id] = self._count
            self._created[job.id] = created
            if len(self._seen) > _MOST_REMEMBERED:
                # Only a young job can be taken for one just created, and a list has its jobs in no order.
                oldest_first = sorted(self._created, key=self._created.__getitem__)
                self._forgotten = self._created[oldest_first[_MOST_REMEMBERED // 2]]
                for seen in oldest_first[: _MOST_REMEMBERED // 2]:
                    del self._seen[seen], self._created[seen]
        return job

    def knows(self, job_id: str) -> bool:
        """True for a job that this client has seen and not forgotten."""
        return job_id in self._seen

    @property
    def now(self) -> int:
        """A mark that tells what was seen before from what is seen after."""
        return self._count

    def seen_before(self, mark: int, job: BatchJob) -> bool:
        """True where the job was known when the mark was made."""
        return self._seen.get(job.id, mark + 1) <= mark

    @asynccontextmanager
    async def turn(self, input_file_id: str) -> AsyncGenerator[None]:
        """One create for a file at a time; locks that nobody holds or awaits are not kept."""
        lock, users = self._turns.get(input_file_id, (asyncio.Lock(), 0))
        self._turns[input_file_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(input_file_id)
            if users > 1:
                self._turns[input_file_id] = lock, users - 1


@attrs.frozen
class Listing:
    """All jobs of the account, and the service's own clock when it listed them (None where it did not say)."""

    jobs: list[BatchJob]
    at: datetime | None


def created_since(
    began: datetime, jobs: Iterable[BatchJob], *, input_file_id: str, known: Callable[[BatchJob], bool]
) -> list[BatchJob]:
    """The jobs that a create for a file may have made which began then by the service's own clock.

    Of those that are not known already. One that does not say when it was created may be one of them.
    """
    return [
        job
        for job in jobs
        if job.input_file_id == input_file_id
        and (job.created_at is None or job.created_at >= began - _MARGIN)
        and not known(job)
    ]


async def create_once(
    post: Callable[[], Awaitable[BatchJob]],
    list_jobs: Callable[[], Awaitable[Listing]],
    *,
    input_file_id: str,
    known: KnownJobs,
    settle_seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> BatchJob:
    """Create one job, never two.

    A lost answer is followed by a look at the list, a wait of ``settle_seconds`` (the service may still be at it),
    another look, and only then by the one further create. Raises :class:`CreateUnconfirmedError` where looking
    settles nothing, and whatever ``post`` raises where it is certain that no job was created.
    """
    async with known.turn(input_file_id):
        mark, began = known.now, clock()

        async def look(cause: APIError) -> BatchJob | None:
            try:
                listing = await list_jobs()
            except BatchesError as error:
                message = (
                    f"a create for {input_file_id} was sent, its answer was lost ({cause.message}), and the list of "
                    f"jobs could not be read ({error}): look there before you create again"
                )
                raise CreateUnconfirmedError(message, input_file_id=input_file_id) from error
            candidates = created_since(
                (listing.at or datetime.now(UTC)) - timedelta(seconds=clock() - began),
                listing.jobs,
                input_file_id=input_file_id,
                known=lambda job: known.seen_before(mark, job),
            )
            certain = len(candidates) == 1 and candidates[0].created_at is not None
            if candidates and not certain:
                ids = ", ".join(job.id for job in candidates)
                message = (
                    f"a create for {input_file_id} was sent and its answer was lost ({cause.message}); "
                    f"these jobs could be the one, which of them cannot be told: {ids}"
                )
                raise CreateUnconfirmedError(message, input_file_id=input_file_id, candidates=candidates) from cause
            return candidates[0] if candidates else None

        posts = 0
        while True:
            posts += 1
            try:
                return known.note(await post())
            except APIError as error:
                if not _may_have_worked(error):
                    raise
                lost = error
            found = await look(lost)
            if found is None:
                await sleep(settle_seconds)
                found = await look(lost)
            if found is not None:
                return known.note(found)
            if posts == _MOST_POSTS:
                message = (
                    f"a create for {input_file_id} was sent twice, both answers were lost ({lost.message}), and no "
                    "job is to be seen: look at the list before you create again"
                )
                raise CreateUnconfirmedError(message, input_file_id=input_file_id) from lost


def _may_have_worked(error: APIError) -> bool:
    """True where the service may have created the job although this came back."""
    if isinstance(error, APIConnectionError):
        return error.request_sent
    if isinstance(error, APIStatusError):
        return error.status >= 500 or error.status == 408
    # An unreadable answer to a request that was accepted.
    return isinstance(error, APIResponseValidationError) and 200 <= (error.status or 0) < 300
