"""Creation of a job exactly once, although the service has no idempotency key and responses get lost.

After a create that may have succeeded, the list is searched for the job, and the create is sent once more only if the
job does not appear during ``patience``. If no other create uses the input file, any job of that file is the job.
Otherwise the search covers the jobs of that file that were created since the attempt began; so creates for one file
run one after another, and jobs that are already known are excluded.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import attrs

from together_batches._fields import LONG_AGO
from together_batches._jobs.known_jobs import UNKNOWN_TIME, KnownJobs
from together_batches._jobs.patience import Absence
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    BatchesError,
    CreateUnconfirmedError,
    JobNotCreatedError,
)
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger("together_batches")

_MARGIN = timedelta(minutes=5)
"""Maximum difference between the clocks of the service's machines."""
_MOST_POSTS = 2
_REFUSALS = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
"""Statuses that mean that no job was created. Any other may come from a gateway after a job was created behind it."""


@attrs.frozen
class Listing:
    """All jobs of the account, and the service's own time of the list (None if the response has none)."""

    jobs: list[BatchJob]
    at: datetime | None


@attrs.frozen(kw_only=True)
class WantedJob:
    """The job that a create should produce.

    ``file_id`` is its input. ``has_own_file`` means that no other create uses that content, so that a job of the
    file, or of one of ``former_file_ids``, is the job whenever it was created.
    """

    file_id: str
    endpoint: str
    model_id: str | None = None
    priority: int | None = None
    has_own_file: bool = False
    former_file_ids: tuple[str, ...] = ()

    @property
    def file_ids(self) -> tuple[str, ...]:
        """The input file, and the files that were the input before."""
        return self.file_id, *self.former_file_ids

    def matches(self, job: BatchJob, *, since: datetime) -> bool:
        """Return True if the create may have made ``job``; ``since`` is its start, by the service's own clock.

        A job without a creation time, or without a model, may be the one.
        """
        if self.has_own_file:
            return job.input_file_id in self.file_ids
        shown_priority = job.extra.get("priority")
        return (
            job.input_file_id == self.file_id
            and (job.created_at is None or job.created_at >= since - _MARGIN)
            and job.endpoint in {None, self.endpoint}
            and (self.model_id is None or job.model_id in {None, self.model_id})
            and (self.priority is None or shown_priority in {None, self.priority})
        )


class Created(NamedTuple):
    """The job of a create; ``found`` if it came from a search, ``others`` are jobs that also match."""

    job: BatchJob
    found: bool = False
    others: tuple[BatchJob, ...] = ()


def best_of(candidates: Iterable[BatchJob]) -> Created | None:
    """Return the candidate to use, and the others: those with results first, failed and cancelled ones last."""
    ordered = sorted(candidates, key=_usefulness)
    return Created(ordered[0], True, tuple(ordered[1:])) if ordered else None


def _usefulness(job: BatchJob) -> tuple[bool, int, datetime, str]:
    is_cancelled = job.status in {BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED}
    if job.output_file_id or job.error_file_id:
        rank = 0
    elif job.status == BatchJobStatus.COMPLETED:
        rank = 1  # its files may still appear
    else:
        rank = 3 if job.is_terminal else 2
    return is_cancelled, rank, job.created_at or UNKNOWN_TIME, job.id


async def _note_nothing(_: int) -> None:
    """Do nothing, for callers that keep no record of their creates."""


@attrs.frozen(kw_only=True)
class CreateRecord:
    """What a caller has recorded of a create that an earlier process may have begun, and how it takes part.

    ``posts`` creates were sent, the first of them at ``since`` by the service's clock. ``note_posts`` is awaited with
    their number before each further one. Without ``posts_again``, the one after a search is left to a later call.
    ``is_another`` returns True for a job that cannot be the one; by default these are the jobs that the client saw
    before. ``list_jobs`` is used instead of the client's own function.
    """

    posts: int = 0
    since: datetime | None = None
    note_posts: Callable[[int], Awaitable[None]] = _note_nothing
    posts_again: bool = True
    is_another: Callable[[BatchJob], bool] | None = None
    list_jobs: Callable[[], Awaitable[Listing]] | None = None


async def create_once(
    wanted: WantedJob,
    *,
    post: Callable[[], Awaitable[BatchJob]],
    list_jobs: Callable[[], Awaitable[Listing]],
    known: KnownJobs,
    patience: float,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float],
    record: CreateRecord = CreateRecord(),
) -> Created:
    """Create one job, never two.

    After a create that may have succeeded, the list is read, with back-off, for ``patience`` seconds, and only then
    is one further create sent; after a 2xx response, none. If the list cannot be read, nothing is sent again.

    Raises :class:`CreateUnconfirmedError` if the search settles nothing, and the error of ``post`` if it is certain
    that no job was created.
    """
    async with known.turn(wanted.file_id):
        known.expect_further(wanted.file_ids)
        seen_until = known.now
        search = _Search(
            wanted=wanted,
            list_jobs=record.list_jobs or list_jobs,
            patience=patience,
            since=record.since,
            is_another=record.is_another or partial(known.seen_before, seen_until),
            sleep=sleep,
            clock=clock,
        )
        posts, most_posts = record.posts, _MOST_POSTS if record.posts_again else 1
        lost: APIError | None = None
        while True:
            created = await search.find(lost) if posts else None
            if created is not None:
                _warn_of_found(wanted, created)
                break
            if posts >= most_posts or _was_accepted(lost):
                raise search.unconfirmed(lost)
            posts += 1
            answer = await _answer_of(post, posts, record.note_posts)
            if isinstance(answer, BatchJob):
                created = Created(answer)
                break
            lost = answer
        known.note(created.job)
        if created.found or posts > 1:
            known.expect_one(wanted.file_ids, created.job.id, search.second_of(created, known, seen_until))
        return created


async def _answer_of(
    post: Callable[[], Awaitable[BatchJob]], number: int, note_posts: Callable[[int], Awaitable[None]]
) -> BatchJob | APIError:
    """Return the job of a create, or the error that leaves open whether there is one; raise any other error."""
    await note_posts(number)
    try:
        return await post()
    except (JobNotCreatedError, APIError) as error:
        if not isinstance(error, APIError) or _made_no_job(error):
            await note_posts(number - 1)
            raise
        if _was_accepted(error):
            await note_posts(_MOST_POSTS)
        return error


@attrs.define(kw_only=True)
class _Search:
    """The search for the job of one create."""

    wanted: WantedJob
    list_jobs: Callable[[], Awaitable[Listing]]
    patience: float
    since: datetime | None
    is_another: Callable[[BatchJob], bool]
    sleep: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]
    began: float = attrs.field(init=False)
    began_at: datetime = LONG_AGO
    """The start of the create by the service's own clock, derived from the last list."""
    uncertain: tuple[BatchJob, ...] = ()
    """Jobs of the caller's file without a creation time: they may be older than the create."""
    unreadable: BatchesError | None = None

    def __attrs_post_init__(self) -> None:
        self.began = self.clock()

    async def find(self, cause: APIError | None) -> Created | None:
        """Return the job, searched for with back-off during ``patience``; None if it does not appear.

        Raises :class:`CreateUnconfirmedError` if the list cannot be read, or does not identify the job.
        """
        absence = Absence(self.patience)
        while True:
            try:
                listing = await self.list_jobs()
                self.unreadable = None
            except BatchesError as error:
                if not error.is_transient:
                    raise self._without_list(error, cause) from error
                self.unreadable = error
            else:
                found = self._found(listing)
                if found is not None:
                    return found
            pause = absence.pause()
            if pause is None:
                if self.unreadable is not None:
                    raise self._without_list(self.unreadable, cause) from self.unreadable
                if self.uncertain:
                    raise self.unconfirmed(cause)
                return None
            await self.sleep(pause)

    def _found(self, listing: Listing) -> Created | None:
        self.began_at = (listing.at or datetime.now(UTC)) - timedelta(seconds=self.clock() - self.began)
        since = self.began_at if self.since is None else self.since
        candidates = [
            job for job in listing.jobs if self.wanted.matches(job, since=since) and not self.is_another(job)
        ]
        certain = [job for job in candidates if self.wanted.has_own_file or job.created_at is not None]
        self.uncertain = tuple(job for job in candidates if job not in certain)
        return best_of(certain)

    def second_of(self, created: Created, known: KnownJobs, seen_until: int) -> Callable[[BatchJob], bool]:
        """Return a predicate that is True only for a further job of this create that was not named yet."""
        wanted, since = self.wanted, self.began_at if self.since is None else self.since
        until = self.began_at + timedelta(seconds=self.clock() - self.began) + _MARGIN
        named = frozenset(job.id for job in (created.job, *created.others))

        def is_second(job: BatchJob) -> bool:
            if job.id in named:
                return False
            if wanted.has_own_file:
                return True
            is_young = job.created_at is not None and job.created_at <= until
            return is_young and wanted.matches(job, since=since) and not known.seen_before(seen_until, job)

        return is_second

    def _without_list(self, error: BatchesError, cause: APIError | None) -> CreateUnconfirmedError:
        file_id = self.wanted.file_id
        message = (
            f"a create for {file_id} was sent{_why(cause)}, and the list of jobs could not be read ({error}): look "
            "for a job of that file before you create again"
        )
        return CreateUnconfirmedError(message, input_file_id=file_id, candidates=self.uncertain)

    def unconfirmed(self, cause: APIError | None) -> CreateUnconfirmedError:
        """Return the error for a search that settled nothing."""
        file_id = self.wanted.file_id
        if self.uncertain:
            ids = ", ".join(job.id for job in self.uncertain)
            outcome = f"these jobs of the file do not say when they were created and could be the one: {ids}"
        else:
            how_long = f"was listed for {self.patience:g} s" if self.patience else "is listed"
            outcome = f"no job of the file {how_long}"
        message = (
            f"a create for {file_id} was sent{_why(cause)}, and {outcome}; look at the list before you create again"
        )
        error = CreateUnconfirmedError(message, input_file_id=file_id, candidates=self.uncertain)
        error.__cause__ = cause
        return error


def _why(cause: APIError | None) -> str:
    """Return the part of a message that says what was received instead of a job."""
    if cause is None:
        return " before, without a record of its answer"
    return (
        f" and its answer does not name the job ({cause})"
        if _was_accepted(cause)
        else f", its answer was lost ({cause})"
    )


def _warn_of_found(wanted: WantedJob, found: Created) -> None:
    about = {"job_id": found.job.id, "input_file_id": wanted.file_id}
    _log.warning(
        "the answer to a create for %s was lost; its job %s was found", wanted.file_id, found.job.id, extra=about
    )
    if found.others:
        others = [job.id for job in found.others]
        _log.warning(
            "job %s of %s is used; these could be it as well, cancel them if they still run: %s",
            found.job.id,
            wanted.file_id,
            ", ".join(others),
            extra={**about, "job_ids": others},
        )


def _made_no_job(error: APIError) -> bool:
    """Return True if the service cannot have created the job: it was not reached, or it refused."""
    if isinstance(error, APIConnectionError):
        return not error.request_sent
    return isinstance(error, APIStatusError) and error.status in _REFUSALS


def _was_accepted(error: APIError | None) -> bool:
    """Return True for a 2xx response that could not be read in full: the job exists, even if it is not listed yet."""
    return isinstance(error, APIResponseValidationError | APIConnectionError) and 200 <= (error.status or 0) < 300
