"""First steps of a resumed run: reconciliation with the service, and results that the user gave up."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from together_batches.errors import (
    APIError,
    APIResponseValidationError,
    AuthenticationError,
    RunError,
    UsageError,
)
from together_batches.runs import _rules

if TYPE_CHECKING:
    from together_batches.models import BatchJob
    from together_batches.runs._collecting import Collecting
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key
    from together_batches.runs._steps import Steps

__all__ = ["Resuming"]

_log = logging.getLogger("together_batches")

_BETWEEN_LOOKS_SECONDS = 10.0
_MOST_LOOKS_AT_LIST = 6
"""Maximum reads of a failing list (in two minutes). All later steps wait out an outage anyway."""
_MOST_LOOKED_AT = 3
"""Maximum attempts whose job or file is read to check whether the account is the right one."""


class Resuming:
    """Reconciliation of a resumed run with the service."""

    def __init__(self, context: RunContext, steps: Steps, collecting: Collecting) -> None:
        self._run = context.run
        self._api = context.api
        self._time = context.time
        self._store = context.store
        self._trouble = context.trouble
        self._directory = context.run_directory.directory
        self._ids = context.caution.give_up
        self._steps = steps
        self._collecting = collecting

    # --- reconciliation with the service --------------------------------------------------------------------------

    async def look_around(self) -> None:
        """Search the list for jobs of the run that are missing from the ledger, before anything is created.

        They are missing if the ledger is an older copy or has lost records. Raises :class:`RunError` if the service
        shows nothing of the run in two checks, because that indicates another account.
        """
        attempts = [attempt for attempt in self._store.attempts if attempt.file_id]
        if not attempts:
            return
        jobs = await self._listed()
        if not self._shows_any(jobs, attempts):
            await self._check_account(attempts)
        by_file: dict[str | None, list[BatchJob]] = {}
        for job in jobs:
            by_file.setdefault(job.input_file_id, []).append(job)
        known = {attempt.job_id: attempt.key for attempt in attempts}
        for attempt in attempts:
            of_its_files = [job for file_id in attempt.file_ids for job in by_file.get(file_id, ())]
            others = {job_id for job_id, key in known.items() if key != attempt.key}
            if attempt.job_id is None:
                found = _rules.lost_job(attempt, self._run, of_its_files, known=others)
                if found is not None:
                    await self._steps.note_job(attempt.key, found)
                    known[found.job.id] = attempt.key
            elif attempt.marked:
                self._warn_of_others(attempt, [job for job in of_its_files if job.id not in known])

    async def _listed(self) -> list[BatchJob]:
        looks = itertools.count(1)
        try:
            listing = await self._trouble.until_answered(
                "first look at the list",
                None,
                self._api.list_jobs,
                is_over=lambda error: (
                    isinstance(error, APIResponseValidationError) or next(looks) > _MOST_LOOKS_AT_LIST
                ),
            )
        except AuthenticationError:
            raise
        except APIError as error:
            _log.warning(
                "the list of jobs is refused or cannot be read; jobs that the ledger does not know are not seen: %s",
                error,
                extra={"directory": str(self._directory)},
            )
            return []
        return listing.jobs

    @staticmethod
    def _shows_any(jobs: list[BatchJob], attempts: list[Attempt]) -> bool:
        ids = {attempt.job_id for attempt in attempts}
        files = {file_id for attempt in attempts for file_id in attempt.file_ids}
        return any(job.id in ids or job.input_file_id in files for job in jobs)

    async def _check_account(self, attempts: list[Attempt]) -> None:
        """Check twice for a job or a file of the run, of which the list shows none.

        If no create was sent yet, no job can be in another account.
        """
        latest = [attempt for attempt in attempts if attempt.creating_at][-_MOST_LOOKED_AT:]
        for look in (1, 2):
            for attempt in latest:
                if await self._exists(attempt):
                    return
            if look == 1 and latest:
                await self._time.sleep(_BETWEEN_LOOKS_SECONDS)
        if latest:
            last = latest[-1]
            what = f"neither job {last.job_id} nor its input" if last.job_id else "not even the input"
            message = (
                f"the service knows {what} {last.file_id} of the run in {self._directory}: this seems to be the key, "
                "or the base URL, of another account than that which the run was begun with"
            )
            raise RunError(message, directory=str(self._directory))

    async def _exists(self, attempt: Attempt) -> bool:
        job_id, file_id = attempt.job_id, attempt.file_id or ""
        if job_id is not None and await self._job(job_id) is not None:
            return True
        found = await self._trouble.if_present("look-up of the input", attempt.key, lambda: self._api.file(file_id))
        return found is not None

    async def _job(self, job_id: str) -> BatchJob | None:
        return await self._trouble.if_present("look-up of a job", None, lambda: self._api.retrieve(job_id))

    @staticmethod
    def _warn_of_others(attempt: Attempt, others: list[BatchJob]) -> None:
        if others:
            _log.warning(
                "job %s is that of shard %d, attempt %d; these were created from its file as well, cancel them if "
                "they still run: %s",
                attempt.job_id,
                attempt.shard,
                attempt.number,
                ", ".join(job.id for job in others),
                extra={
                    "job_id": attempt.job_id,
                    "job_ids": [job.id for job in others],
                    "shard": attempt.shard,
                    "attempt": attempt.number,
                },
            )

    # --- giving up ------------------------------------------------------------------------------------------------

    def given_up(self) -> list[Key]:
        """Return the given-up attempts that are not collected; raise :class:`UsageError` for an invalid id."""
        keys: dict[Key, None] = {}
        by_id: dict[str, Attempt] = {}
        for each in self._store.attempts:
            if each.job_id:
                by_id[each.job_id] = each
            for file_id in each.file_ids:
                by_id.setdefault(file_id, each)
        for given in self._ids:
            attempt = by_id.get(given)
            problem: str | None = None
            if attempt is None:
                problem = f"{given!r} is no job, and no input of a job, of the run in {self._directory}"
            elif given != attempt.job_id and attempt.job_id is not None:
                problem = f"{given} is the input of job {attempt.job_id}: name the job to give up its results"
            elif given != attempt.job_id and not attempt.creating_at:
                problem = f"no create was sent for {given}, so there is nothing to give up"
            if attempt is None or problem is not None:
                message = f"invalid give_up: {problem}"
                raise UsageError(message)
            if attempt.collected_at is None:
                keys[attempt.key] = None
        return list(keys)

    def has_job_after_all(self, key: Key) -> bool:
        """Return whether the job of a given-up create was found meanwhile; then its results are not given up."""
        return self._store.at(key).job_id not in {None, *self._ids}

    async def give_up(self, key: Key) -> Arranged | None:
        """Collect the available results of an attempt, and count the rest as missing.

        Return None if its job was found. Raises :class:`UsageError` if its job has not ended.
        """
        attempt = self._store.at(key)
        if attempt.job_id is None:
            found = _rules.lost_job(attempt, self._run, await self._listed(), known=self._known())
            if found is not None:
                await self._steps.note_job(key, found)
                return None
            now = self._time.now()
            await self._store.save(key, ended_at=now, error="given up: no job was found")
            return await self._collecting.give_up(key)
        job = await self._job(attempt.job_id)
        if job is not None and not job.is_terminal:
            message = f"give_up: job {job.id} has not ended ({job.status}); cancel it first, or wait for it"
            raise UsageError(message)
        if job is not None:
            await self._steps.note_end(key, job)
        elif attempt.ended_at is None:
            await self._store.save(key, ended_at=self._time.now(), error="given up: the job is absent")
        return await self._collecting.give_up(key)

    def _known(self) -> set[str | None]:
        return {attempt.job_id for attempt in self._store.attempts}
