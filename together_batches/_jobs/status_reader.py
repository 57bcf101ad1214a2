"""Many states at once: from the list of the account if that is cheaper, otherwise one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._jobs.job_ids import by_ids
from together_batches._jobs.tasks import plain_group
from together_batches.errors import APIError, AuthenticationError
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

Found = BatchJob | APIError
"""The result of reading a job: its state, or the error."""

_FEW = 20
_MOST_LOOKS_WITHOUT_LIST = 16


class StatusReader:
    """Reads the states of many jobs: from the list if that is cheaper, otherwise one by one."""

    def __init__(
        self,
        retrieve: Callable[[str], Awaitable[BatchJob]],
        list_jobs: Callable[[], Awaitable[list[BatchJob]]],
        *,
        max_concurrency: int,
    ) -> None:
        self._retrieve = retrieve
        self._list_jobs = list_jobs
        self._max_concurrency = max_concurrency
        self._is_list_refused = False
        self._account_size: int | None = None
        self._without_list = 0
        self._looks_until_list = 0

    async def read(
        self, job_ids: list[str], settle: Callable[[str, Found], None], listed: Iterable[BatchJob] | None = None
    ) -> None:
        """Read each of these jobs once, and call ``settle`` with each result as it arrives.

        ``listed`` is the list of the account, if the caller has just read it. Raises :class:`UsageError` if the
        client can no longer be used, and any exception of ``settle``.
        """
        if listed is not None:
            unseen = _settled(listed, job_ids, settle)
        else:
            unseen = await self._listed(job_ids, settle) if self._list_pays(len(job_ids)) else job_ids
        rest = iter(unseen)

        async def read() -> None:
            for job_id in rest:
                settle(job_id, await self._read(job_id))

        async with plain_group() as group:
            for _ in range(min(self._max_concurrency, len(unseen))):
                group.create_task(read())

    async def find(self, job_ids: Iterable[str], listed: Iterable[BatchJob] | None = None) -> dict[str, BatchJob]:
        """Return those of these jobs that are in the list: a job exists if either its id or the list shows it.

        A list that fails shows none. Raises :class:`AuthenticationError` if the key is refused.
        """
        try:
            return by_ids(await self._list() if listed is None else listed, job_ids)
        except AuthenticationError:
            raise
        except APIError:
            return {}

    async def _list(self) -> list[BatchJob]:
        """Return the list; an empty one if the key has no permission, because that says nothing about the jobs."""
        if self._is_list_refused:
            return []
        try:
            return await self._list_jobs()
        except APIError as error:
            if error.is_transient or isinstance(error, AuthenticationError):
                raise
            self._is_list_refused = True
            return []

    def _list_pays(self, jobs: int) -> bool:
        """Return whether to request the list: it is the whole account in one response, and may be very long."""
        if jobs <= _FEW:
            return False
        if self._looks_until_list:
            self._looks_until_list -= 1
            return False
        return self._account_size is None or self._account_size < 10 * jobs

    async def _listed(self, job_ids: list[str], settle: Callable[[str, Found], None]) -> list[str]:
        """Call ``settle`` for each job in the list, and return the ids that are not in it."""
        try:
            jobs = await self._list()
        except APIError as error:
            # Possibly only the list fails: the next reads are one by one, and more of them each time that it fails
            # again.
            self._without_list = min(_MOST_LOOKS_WITHOUT_LIST, 2 * self._without_list or 1)
            self._looks_until_list = self._without_list
            for job_id in job_ids:
                settle(job_id, error)
            return []
        self._without_list = 0
        self._account_size = len(jobs)
        return _settled(jobs, job_ids, settle)

    async def _read(self, job_id: str) -> Found:
        try:
            return await self._retrieve(job_id)
        except APIError as error:
            return error


def _settled(jobs: Iterable[BatchJob], job_ids: list[str], settle: Callable[[str, Found], None]) -> list[str]:
    """Call ``settle`` for each job in a list, and return the ids that are not in it."""
    found = by_ids(jobs, job_ids)
    for job_id, job in found.items():
        settle(job_id, job)
    return [job_id for job_id in job_ids if job_id not in found]
