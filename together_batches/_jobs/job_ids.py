"""The ids of jobs, as callers and as the service spell them.

Ids are opaque, so two that callers pass are two jobs, even if they differ only in case: to take them for one could
cost a job its cancel, and to take one for two costs a request. But the service may answer in a spelling of its own
(its ids are UUIDs in lower case), so an id in an answer matches one that was passed in any case.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from together_batches.models import BatchJob

Ids = Iterable[str | BatchJob] | AsyncIterable[str | BatchJob]


def checked_ids(job_ids: Ids, *, verb_for_one: str) -> Ids:
    """Return the ids unchanged. Raise :class:`TypeError` for a single id, or for a value that is not iterable."""
    if isinstance(job_ids, (str, bytes, BatchJob)):
        message = f"job_ids is an iterable of ids; for one id pass [{job_ids!r}], or use {verb_for_one}"
        raise TypeError(message)
    if not isinstance(job_ids, (Iterable, AsyncIterable)):
        message = f"job_ids must be an iterable or async iterable of ids, not {type(job_ids).__name__}"
        raise TypeError(message)
    return job_ids


def by_ids(jobs: Iterable[BatchJob], job_ids: Iterable[str]) -> dict[str, BatchJob]:
    """Return the jobs of a list that have these ids, by the ids as spelled by the caller. Case is ignored."""
    listed = {job.id: job for job in jobs}
    found = {job_id: listed[job_id] for job_id in job_ids if job_id in listed}
    unfound = {job_id.lower(): job_id for job_id in job_ids if job_id not in found}
    if unfound:
        for job in listed.values():
            job_id = unfound.get(job.id.lower())
            if job_id is not None:
                found[job_id] = job
    return found
