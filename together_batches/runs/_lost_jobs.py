"""Jobs that may already exist: which listed job belongs to an attempt, and the error if that stays open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from together_batches._jobs.create import Created, WantedJob, best_of
from together_batches.errors import BatchesError, CreateUnconfirmedError, ResultsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from together_batches.models import BatchJob
    from together_batches.runs._records import Attempt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The time before all jobs; a margin can be subtracted from it, unlike from the earliest time there is."""


class JobSettings(Protocol):
    """The settings of a create, which are those of a run."""

    @property
    def endpoint(self) -> str: ...
    @property
    def model_id(self) -> str | None: ...
    @property
    def priority(self) -> int | None: ...


def wanted_job(attempt: Attempt, settings: JobSettings) -> WantedJob:
    """Return the job that a create for an attempt makes."""
    return WantedJob(
        file_id=attempt.file_id or "",
        endpoint=settings.endpoint,
        model_id=settings.model_id,
        priority=settings.priority,
        has_own_file=attempt.marked,
        former_file_ids=tuple(attempt.former_file_ids.split()),
    )


def lost_job(
    attempt: Attempt, settings: JobSettings, jobs: Iterable[BatchJob], *, known: Collection[str | None]
) -> Created | None:
    """Return the listed job that was made by a create whose response was not recorded.

    It is a job of the attempt's file, and not ``known`` to belong to another attempt. A file without a mark may have
    other users: then the job must also have the attempt's settings, and be created after the create was about to be
    sent by the service's own clock (at any time, if that is not recorded). Without a recorded intent, only a job of a
    marked file is accepted.
    """
    if not (attempt.file_id and (attempt.marked or attempt.creating_at)):
        return None
    wanted, since = wanted_job(attempt, settings), attempt.since or EPOCH
    return best_of(job for job in jobs if wanted.matches(job, since=since) and job.id not in known)


def unresolved(errors: Sequence[BatchesError]) -> BatchesError:
    """Return one error for all that is unresolved at the end of a call, with advice."""
    unavailable = [error for error in errors if isinstance(error, ResultsUnavailableError)]
    unconfirmed = [error for error in errors if isinstance(error, CreateUnconfirmedError)]
    ids = [error.job_id or "" for error in unavailable] + [error.input_file_id for error in unconfirmed]
    message = (
        f"{'; '.join(map(str, errors))}. The rows may have been answered and paid for, so they are not sent again. "
        "Run it again to look again; if you know that results are gone, or that no job was created, name these ids "
        f"with give_up: {', '.join(ids)}"
    )
    if unavailable:
        file_ids = [file_id for error in unavailable for file_id in error.file_ids]
        return ResultsUnavailableError(message, job_id=unavailable[0].job_id, file_ids=file_ids)
    candidates = [job for error in unconfirmed for job in error.candidates]
    return CreateUnconfirmedError(message, input_file_id=unconfirmed[0].input_file_id, candidates=candidates)
