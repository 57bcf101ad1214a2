"""First steps of a resumed run: reconciliation with the service, and results that the user gave up."""

from __future__ import annotations

import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING

from together_batches.errors import APIResponseValidationError, RunError, UsageError
from together_batches.runs._collecting import Collecting
from together_batches.runs._context import name_of
from together_batches.runs._lost_jobs import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.models import BatchJob
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key
    from together_batches.runs._run_attempt import RunAttempt

_log = logging.getLogger("together_batches")

_BETWEEN_LOOKS_SECONDS = 10.0
_MOST_LOOKS_AT_LIST = 6
"""Maximum reads of a failing list (in two minutes). All later steps wait out an outage anyway."""
_MOST_LOOKED_AT = 3
"""Maximum attempts whose job or file is read to check whether the account is the right one."""


class Resuming:
    """Reconciliation of a resumed run with the service."""

    def __init__(self, run: RunContext, work_on: Callable[[Key], RunAttempt]) -> None:
        self._run = run
        self._store = run.store
        self._work_on = work_on

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
        by_file: dict[str | None, list[BatchJob]] = {}
        for job in jobs:
            by_file.setdefault(job.input_file_id, []).append(job)
        of_files = {
            each.key: [job for file_id in each.file_ids for job in by_file.get(file_id, ())] for each in attempts
        }
        ids = {job.id for job in jobs}
        if not any(of_files[attempt.key] or attempt.job_id in ids for attempt in attempts):
            await self._check_account(attempts)
        for attempt in attempts:
            if attempt.job_id is None:
                work = self._work_on(attempt.key)
                found = work.lost_job(of_files[attempt.key])
                if found is not None:
                    await work.note_job(found)
            elif attempt.marked:
                self._warn_of_others(attempt, of_files[attempt.key])

    async def _listed(self) -> list[BatchJob]:
        looks = itertools.count(1)
        list_jobs = partial(
            self._run.until_answered,
            "first look at the list",
            None,
            self._run.api.list_jobs,
            is_over=lambda error: isinstance(error, APIResponseValidationError) or next(looks) > _MOST_LOOKS_AT_LIST,
        )
        return await listed(list_jobs, self._run.directory.directory)

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
                await self._run.time.sleep(_BETWEEN_LOOKS_SECONDS)
        if latest:
            last, directory = latest[-1], self._run.directory.directory
            what = f"neither job {last.job_id} nor its input" if last.job_id else "not even the input"
            message = (
                f"the service knows {what} {last.file_id} of the run in {directory}: this seems to be the key, or "
                "the base URL, of another account than the one that the run began with"
            )
            raise RunError(message, directory=str(directory))

    async def _exists(self, attempt: Attempt) -> bool:
        present, api = self._work_on(attempt.key).if_present, self._run.api
        if attempt.job_id and await present("look-up of the job", partial(api.retrieve, attempt.job_id)) is not None:
            return True
        return await present("look-up of the input", partial(api.file, attempt.file_id or "")) is not None

    def _warn_of_others(self, attempt: Attempt, jobs: list[BatchJob]) -> None:
        others = [job.id for job in jobs if job.id != attempt.job_id]
        if others:
            known = {each.job_id for each in self._store.attempts}
            others = [job_id for job_id in others if job_id not in known]
        if others:
            _log.warning(
                "job %s is that of %s; these were created from its file as well, cancel them if they still run: %s",
                attempt.job_id,
                name_of(attempt.key),
                ", ".join(others),
                extra={
                    "job_id": attempt.job_id,
                    "job_ids": others,
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
        for given in self._run.options.give_up:
            attempt = by_id.get(given)
            problem: str | None = None
            if attempt is None:
                problem = (
                    f"{given!r} is neither a job nor the input of a job of the run in {self._run.directory.directory}"
                )
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

    async def give_up(self, key: Key) -> Arranged | None:
        """Collect the available results of an attempt; None if the job of a given-up create was found."""
        if self._store.at(key).job_id not in {None, *self._run.options.give_up}:
            return None
        work = self._work_on(key)
        return await Collecting(work, work).give_up(self._listed)
