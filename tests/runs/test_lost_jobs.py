"""Which job belongs to an attempt, and the error if that stays open."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import BatchJob, CreateUnconfirmedError, ResultsUnavailableError
from together_batches.runs._lost_jobs import lost_job, unresolved
from together_batches.runs._records import Attempt, Run

if TYPE_CHECKING:
    from together_batches import BatchesError

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def _attempt(**facts: Any) -> Attempt:
    return Attempt(**{"shard": 1, "number": 1, "rows": 4, "planned_at": NOON, **facts})


_RUN = Run(
    id="r",
    input_name="in.jsonl",
    input_bytes=1,
    input_sha256="",
    spooled=False,
    endpoint="/v1/chat/completions",
    model_id="m",
    priority=None,
    max_attempts=3,
    invalid=0,
    started_at=NOON,
)
_UNMARKED = _attempt(file_id="file-1", since=NOON, creating_at=NOON)
_MARKED = _attempt(file_id="file-1", former_file_ids="file-0", marked=True)


def _job(job_id: str, seconds: float | None = 1, status: str = "IN_PROGRESS", **facts: Any) -> BatchJob:
    created = None if seconds is None else NOON + timedelta(seconds=seconds)
    return BatchJob(**{"id": job_id, "status": status, "input_file_id": "file-1", "created_at": created, **facts})


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], None),
        ([_job("x", input_file_id="file-2")], None),
        ([_job("known")], None),
        ([_job("before", -301)], None),
        ([_job("x", endpoint="/v1/audio/translations")], None),
        ([_job("x", model_id="another")], None),
        ([_job("lost")], "lost"),
        ([_job("lost", endpoint="/v1/chat/completions", model_id="m")], "lost"),
        ([_job("lost", -299)], "lost"),
        ([_job("lost", 86_400)], "lost"),
        ([_job("before", -301), _job("known"), _job("lost")], "lost"),
        ([_job("lost", status="CANCELLED")], "lost"),
        ([_job("lost"), _job("cancelled", status="CANCELLED"), _job("too", status="CANCELING")], "lost"),
        ([_job("a", status="COMPLETED"), _job("lost", status="COMPLETED", output_file_id="file-o")], "lost"),
    ],
)
def test_the_job_of_a_file_that_others_may_use(jobs: list[BatchJob], expected: str | None) -> None:
    """The job of a shared file was made like the attempt's, after the intent by the service's clock, and is free."""
    found = lost_job(_UNMARKED, _RUN, jobs, known={"known", None})
    assert (found and found.job.id) == expected


def test_a_service_that_does_not_tell_its_clock() -> None:
    """Without the service's clock any job of the file may match, because the local clock may have been set since."""
    attempt = attrs.evolve(_UNMARKED, since=None)
    found = lost_job(attempt, _RUN, [_job("lost", -86_400)], known=())
    assert found is not None


@pytest.mark.parametrize("file_id", ["file-0", "file-1"])
def test_the_job_of_a_marked_file(file_id: str) -> None:
    """A job of a marked file matches whenever it was created, even without an intent: a ledger may be too old."""
    job = _job("lost", -86_400, input_file_id=file_id, endpoint="/v1/other")
    found = lost_job(_MARKED, _RUN, [job], known={None})
    assert found is not None
    assert found.job is job


def test_equal_candidates() -> None:
    """Of equal candidates one is adopted, and the others are named."""
    jobs = [
        _job("failed", status="FAILED"),
        _job("cancelled", status="CANCELLED"),
        _job("runs"),
        _job("completed", status="COMPLETED"),
        _job("answered", status="COMPLETED", output_file_id="file-o"),
    ]
    found = lost_job(_MARKED, _RUN, jobs, known=())
    assert found is not None
    assert found.job.id == "answered"
    assert [job.id for job in found.others] == ["completed", "runs", "failed", "cancelled"]


def test_an_unmarked_file_without_an_intent() -> None:
    """An unmarked file without an intent matches no job: it may be any user's."""
    attempt = attrs.evolve(_UNMARKED, creating_at=None)
    assert lost_job(attempt, _RUN, [_job("lost")], known=()) is None


def test_one_error_for_all_that_is_unresolved() -> None:
    """One error names everything that is missing, and how to resume."""
    errors: list[BatchesError] = [
        CreateUnconfirmedError("a create was lost", input_file_id="file-3", candidates=[_job("c")]),
        ResultsUnavailableError("no output", job_id="job-1", file_ids=["file-1"]),
        ResultsUnavailableError("no job", job_id="job-2"),
    ]
    error = unresolved(errors)
    assert isinstance(error, ResultsUnavailableError)
    assert (error.job_id, error.file_ids) == ("job-1", ("file-1",))
    assert re.search("a create was lost; no output; no job", str(error))
    assert "name these ids with give_up: job-1, job-2, file-3" in str(error)
    error = unresolved(errors[:1])
    assert isinstance(error, CreateUnconfirmedError)
    assert (error.input_file_id, [job.id for job in error.candidates]) == ("file-3", ["c"])
