"""Jobs that may already exist: which listed job belongs to an attempt, and what follows if that stays open."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from together_batches._jobs.create import Created, WantedJob, best_of
from together_batches._validation import path_of
from together_batches.errors import (
    APIError,
    AuthenticationError,
    BatchesError,
    CreateUnconfirmedError,
    ResultsUnavailableError,
)
from together_batches.models import BatchJob
from together_batches.runs import _ledger
from together_batches.runs._threads import in_thread
from together_batches.runs._values import UnfinishedJobs

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from together_batches._jobs.create import Listing
    from together_batches.runs._records import Attempt, LedgerSnapshot

_log = logging.getLogger("together_batches")

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


async def listed(list_jobs: Callable[[], Awaitable[Listing]], directory: Path) -> list[BatchJob]:
    """Return all jobs of the account; none, and log a warning, if the list is refused or cannot be read.

    Raises :class:`AuthenticationError` for a rejected key.
    """
    try:
        return (await list_jobs()).jobs
    except AuthenticationError:
        raise
    except APIError as error:
        _log.warning(
            "the list of jobs is refused or cannot be read; jobs that the ledger does not know are not seen: %s",
            error,
            extra={"directory": str(directory)},
        )
        return []


async def unfinished_jobs(
    directory: str | os.PathLike[str], list_jobs: Callable[[], Awaitable[Listing]]
) -> UnfinishedJobs:
    """Return the unfinished jobs of the run in a directory, whether or not a process is working on it."""
    path = path_of("directory", directory)
    return await unfinished_in(await in_thread(lambda _: _ledger.read(path)), path, list_jobs)


async def unfinished_in(
    snapshot: LedgerSnapshot, directory: Path, list_jobs: Callable[[], Awaitable[Listing]]
) -> UnfinishedJobs:
    """Return the unfinished jobs of a run: those in its ledger, and listed jobs of its lost creates."""
    open_attempts = [attempt for attempt in snapshot.attempts if not attempt.collected_at]
    # Includes a job that was seen ended: a service may show that for a moment only, and a second cancel is free.
    found = [BatchJob(id=each.job_id, created_at=each.created_at) for each in open_attempts if each.job_id]
    unconfirmed: list[str] = []
    lost = [attempt for attempt in open_attempts if attempt.rows and attempt.creating_at and not attempt.job_id]
    if lost:
        known = {attempt.job_id for attempt in snapshot.attempts}
        jobs = await listed(list_jobs, directory)
        for attempt in lost:
            created = lost_job(attempt, snapshot.run, jobs, known=known)
            if created is None:
                unconfirmed.append(attempt.file_id or "")
            else:
                found += [created.job, *(created.others if attempt.marked else ())]
    return UnfinishedJobs(tuple(found), tuple(unconfirmed))


def warn_of_unconfirmed(directory: str | os.PathLike[str], unconfirmed: Sequence[str]) -> None:
    """Warn about creates whose jobs are not listed: such jobs may exist, and are then not cancelled."""
    if unconfirmed:
        _log.warning(
            "creates of the run in %s could not be confirmed, so their jobs may run and are not cancelled; look for "
            "jobs of these input files, or cancel the run again later: %s",
            directory,
            ", ".join(unconfirmed),
            extra={"directory": str(directory), "input_file_ids": list(unconfirmed)},
        )


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
