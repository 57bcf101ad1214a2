"""The rules of a run: the next step, the budget, the job of a create, and every row in one bucket."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import (
    BatchesError,
    BatchFailure,
    BatchJob,
    BatchMissing,
    BatchSuccess,
    CreateUnconfirmedError,
    ResultsUnavailableError,
    Usage,
)
from together_batches.runs import _rules
from together_batches.runs._records import Attempt, Run, Shard
from together_batches.runs._rules import Buckets, Load, Stop

from .stage import options

if TYPE_CHECKING:
    from together_batches.runs._options import Options

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def _shard(rows: int) -> Shard:
    return Shard(number=1, first_line=1, rows=rows, offset=0, size=10 * rows, sha256="")


def _attempt(number: int = 1, outcomes: bytes | None = None, **facts: Any) -> Attempt:
    """Return an attempt, collected if it has outcomes."""
    if outcomes is not None:
        collected = {"rows": len(outcomes), "collected_at": NOON, "outcomes": _rules.packed(outcomes)}
        facts = {**collected, "creating_at": NOON, "job_id": f"job-{number}", **facts}
    return Attempt(**{"shard": 1, "number": number, "rows": 4, "planned_at": NOON, **facts})


# --- the outcome of a row ---


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (BatchSuccess("a", {}), "s"),
        (BatchMissing("a"), "m"),
        (BatchFailure("a", "batch_client_error", "Internal Server Error"), "a"),
        (BatchFailure("a", None, "no reason"), "a"),
        (BatchFailure("a", "timeout", "too slow"), "a"),
        (BatchFailure("a", None, "in trouble", status_code=503), "a"),
        (BatchFailure("a", None, "too many", status_code=429), "a"),
        (BatchFailure("a", None, "too slow", status_code=408), "a"),
        (BatchFailure("a", "429", "too many"), "a"),
        (BatchFailure("a", None, "no credit", status_code=402), "r"),
        (BatchFailure("a", "401", "key revoked"), "r"),
        (BatchFailure("a", "403", "not with this key"), "d"),
        (BatchFailure("a", None, "context too long", status_code=400), "f"),
        (BatchFailure("a", "404", "no such model"), "f"),
        (BatchFailure("a", "invalid_model", "no such model"), "f"),
        (BatchFailure("a", "invalid_request_error", "four stops at most"), "f"),
    ],
)
def test_what_is_sent_again(result: Any, expected: str) -> None:
    """Client errors do not go again; failures without a status, of the service or of the account do."""
    assert chr(_rules.outcome_of(result)) == expected


def test_rows_of_a_job_that_failed_as_a_whole() -> None:
    """Rows of a job that failed for its input failed for good; after any other failure they are missing."""
    reason = "input format error: Line 2 (within chunk): Invalid JSON format"
    failed = _rules.absent(_attempt(status="FAILED", error=reason), "a")
    assert failed == BatchFailure("a", "job_failed", reason)
    assert _rules.outcome_of(failed) == _rules.FAILED
    for attempt in (
        _attempt(status="FAILED", error="failed to download input file"),
        _attempt(status="EXPIRED", error=None),
        _attempt(status="CANCELLED", error=reason),
        _attempt(status=None, error="the service knows this job no more"),
    ):
        assert _rules.absent(attempt, "a") == BatchMissing("a")


# --- the next attempt ---


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], (1, 4)),
        ([_attempt()], (1, 4)),
        ([_attempt(1, b"ssss")], None),
        ([_attempt(1, b"sfff")], None),
        ([_attempt(1, b"sfam")], (2, 2)),
        ([_attempt(1, b"sfam"), _attempt(2, rows=2)], (2, 2)),
        ([_attempt(1, b"sfam"), _attempt(2, b"sa")], (3, 1)),
        ([_attempt(1, b"aaaa"), _attempt(2, b"aaaa"), _attempt(3, b"aaaa")], None),
        ([_attempt(1, b"mmmm", status="CANCELLED"), _attempt(2, b"aaaa"), _attempt(3, b"aaaa")], (4, 4)),
        ([_attempt(1, b"rsrs"), _attempt(2, b"aa"), _attempt(3, b"aa")], (4, 2)),
        ([_attempt(1, b"dddd"), _attempt(2, b"dddd"), _attempt(3, b"dddd")], None),
        ([_attempt(1, b"mmmm", job_id=None), _attempt(2, b"aaaa"), _attempt(3, b"aaaa")], (4, 4)),
        ([_attempt(1, b"ssss"), _attempt(2, b"", rows=0)], None),
    ],
)
def test_the_next_attempt(attempts: list[Attempt], expected: tuple[int, int] | None) -> None:
    """The next attempt resumes an uncollected one, sends again what may succeed, and makes at most three tries.

    Tries do not count if their job was cancelled, their rows were refused for the account (401, 402), or they were
    given up without a job.
    """
    found = _rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON)
    assert (found and (found.number, found.rows)) == expected


def test_an_attempt_whose_rows_are_others_by_now() -> None:
    """An attempt whose rows changed is planned anew if no create was sent; its former file may still have a job."""
    planned = _attempt(2, rows=2, file_id="file-2", former_file_ids="file-1", uploaded_at=NOON)
    found = _rules.next_attempt(_shard(4), [_attempt(1, b"sssa"), planned], max_attempts=3, now=NOON)
    assert found is not None
    assert (found.number, found.rows, found.file_id, found.former_file_ids) == (2, 1, None, "file-1 file-2")
    found = _rules.next_attempt(_shard(4), [_attempt(1, b"ssss"), planned], max_attempts=3, now=NOON)
    assert found is not None
    assert found.rows == 0


def test_an_attempt_that_is_collected_anew() -> None:
    """An attempt that is collected anew comes before the one that was planned after it."""
    first = _attempt(1, rows=4, creating_at=NOON, job_id="job-1")
    found = _rules.next_attempt(_shard(4), [first, _attempt(2, rows=2)], max_attempts=3, now=NOON)
    assert found is first
    assert _rules.buckets(_shard(4), [first, _attempt(2, rows=2)], max_attempts=3) == Buckets(in_flight=4)


def test_which_rows_an_attempt_is_about() -> None:
    """The rows of an attempt are those that earlier attempts left, by their place in the shard."""
    attempts = [_attempt(1, b"sasm"), _attempt(2, b"as")]
    assert list(_rules.rows_of(_shard(4), [])) == [0, 1, 2, 3]
    assert list(_rules.rows_of(_shard(4), attempts[:1])) == [1, 3]
    assert list(_rules.rows_of(_shard(4), attempts)) == [1]


# --- every row in one bucket ---


@given(st.lists(st.lists(st.sampled_from(b"sfamrd"), min_size=40, max_size=40), max_size=4), st.integers(1, 4))
def test_every_row_is_in_one_bucket(fates: list[list[int]], max_attempts: int) -> None:
    """Every row is in one bucket at any stage of the attempts."""
    shard = _shard(40)
    attempts: list[Attempt] = []
    for fate in [*fates, [0] * 40]:
        following = _rules.next_attempt(shard, attempts, max_attempts=max_attempts, now=NOON)
        stages = [attempts]
        if following is not None:
            stages += [[*attempts, following], [*attempts, attrs.evolve(following, creating_at=NOON)]]
        for stage in stages:
            found = _rules.buckets(shard, stage, max_attempts=max_attempts)
            assert sum(attrs.astuple(found)) == 40
            assert (found.not_sent + found.in_flight == 0) is (following is None)
            expected = len(_rules.rows_of(shard, attempts)) if following is not None else 0
            assert found.not_sent + found.in_flight == expected
        if following is None:
            return
        attempts = [*attempts, _attempt(following.number, bytes(fate[: following.rows]))]


def test_buckets_add_up() -> None:
    """The buckets add up, and so do the tokens."""
    assert Buckets(1, 2, 3, 4, 5) + Buckets(1, 1, 1, 1, 1) == Buckets(2, 3, 4, 5, 6)
    attempts = [_attempt(prompt_tokens=1, completion_tokens=2, total_tokens=3)] * 2
    assert _rules.usage(attempts) == Usage(2, 4, 6)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_numbers_of_lines_are_kept(numbers: list[int]) -> None:
    """Line numbers survive encoding; those of a shard without bad lines take no space."""
    assert list(_rules.unpacked(_rules.packed(numbers))) == numbers
    assert list(_rules.unpacked(b"")) == []


# --- the budget ---


@pytest.mark.parametrize(
    ("limits", "load", "expected"),
    [
        (options(max_jobs=1), Load(), "now"),
        (options(max_jobs=1), Load(jobs=1), "later"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(enqueued_rows=20), "now"),
        (options(max_jobs=9, max_enqueued_rows=30), Load(enqueued_rows=21), "later"),
        (options(max_jobs=9, stop_after_rows=30), Load(sent_rows=20), "now"),
        (options(max_jobs=9, stop_after_tokens=30), Load(tokens=29), "now"),
    ],
)
def test_limits(limits: Options, load: Load, expected: str) -> None:
    """Limits apply to what is in flight: a job waits until there is room for all of it."""
    assert _rules.admission(limits, load, 10) == expected


@pytest.mark.parametrize(
    ("limits", "load", "reason"),
    [
        (
            options(max_jobs=1, stop_after_rows=30),
            Load(sent_rows=21, jobs=1),
            "21 rows were sent, the next job has 10, and .* 30",
        ),
        (options(max_jobs=1, stop_after_tokens=1000), Load(tokens=1000), "1 000 tokens were used, and .* 1 000"),
    ],
)
def test_the_end_of_spending(limits: Options, load: Load, reason: str) -> None:
    """No job is created beyond the budget; the reason has the figures."""
    answer = _rules.admission(limits, load, 10)
    assert isinstance(answer, Stop)
    assert re.search(reason, answer.reason)


# --- existing jobs ---

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
    found = _rules.lost_job(_UNMARKED, _RUN, jobs, known={"known", None})
    assert (found and found.job.id) == expected


def test_a_service_that_does_not_tell_its_clock() -> None:
    """Without the service's clock any job of the file may match, because the local clock may have been set since."""
    attempt = attrs.evolve(_UNMARKED, since=None)
    found = _rules.lost_job(attempt, _RUN, [_job("lost", -86_400)], known=())
    assert found is not None


@pytest.mark.parametrize("file_id", ["file-0", "file-1"])
def test_the_job_of_a_marked_file(file_id: str) -> None:
    """A job of a marked file matches whenever it was created, even without an intent: a ledger may be too old."""
    job = _job("lost", -86_400, input_file_id=file_id, endpoint="/v1/other")
    found = _rules.lost_job(_MARKED, _RUN, [job], known={None})
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
    found = _rules.lost_job(_MARKED, _RUN, jobs, known=())
    assert found is not None
    assert found.job.id == "answered"
    assert [job.id for job in found.others] == ["completed", "runs", "failed", "cancelled"]


def test_an_unmarked_file_without_an_intent() -> None:
    """An unmarked file without an intent matches no job: it may be any user's."""
    attempt = attrs.evolve(_UNMARKED, creating_at=None)
    assert _rules.lost_job(attempt, _RUN, [_job("lost")], known=()) is None


# --- what stays unresolved ---


def test_one_error_for_all_that_is_unresolved() -> None:
    """One error names everything that is missing, and how to resume."""
    errors: list[BatchesError] = [
        CreateUnconfirmedError("a create was lost", input_file_id="file-3", candidates=[_job("c")]),
        ResultsUnavailableError("no output", job_id="job-1", file_ids=["file-1"]),
        ResultsUnavailableError("no job", job_id="job-2"),
    ]
    error = _rules.unresolved(errors)
    assert isinstance(error, ResultsUnavailableError)
    assert (error.job_id, error.file_ids) == ("job-1", ("file-1",))
    assert re.search("a create was lost; no output; no job", str(error))
    assert "name these ids with give_up: job-1, job-2, file-3" in str(error)
    error = _rules.unresolved(errors[:1])
    assert isinstance(error, CreateUnconfirmedError)
    assert (error.input_file_id, [job.id for job in error.candidates]) == ("file-3", ["c"])


@pytest.mark.parametrize(
    ("status", "outcomes", "expected"),
    [("FAILED", b"mm", True), ("EXPIRED", b"mm", True), ("FAILED", b"sm", False), ("COMPLETED", b"aa", False)],
)
def test_a_job_that_failed_as_a_whole(status: str, outcomes: bytes, expected: bool) -> None:
    """A job failed as a whole if it ended badly and answered no row."""
    assert _rules.failed_as_a_whole(_attempt(1, outcomes, status=status)) is expected
