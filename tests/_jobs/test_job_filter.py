"""The list of jobs that a client returns. Its filters are tested with `list` of the client."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import pytest

from together_batches._jobs.job_filter import JobList
from together_batches.models import BatchJob

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
JOBS = JobList((BatchJob(id="a"), BatchJob(id="b")), NOON)


@pytest.mark.parametrize(
    "jobs", [JOBS, JOBS[:], copy.copy(JOBS), copy.deepcopy(JOBS), pickle.loads(pickle.dumps(JOBS))]
)
def test_when_the_list_was_made(jobs: JobList) -> None:
    """A list knows the time of the response, by the service's clock; so do its slices and copies."""
    assert (list(jobs), jobs.seen_at) == (list(JOBS), NOON)
    assert JobList().seen_at is None
