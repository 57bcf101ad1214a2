"""The rules of a run: what is sent next, and every row in one bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchSuccess,
    Usage,
    UsageError,
)
from together_batches.runs import rules
from together_batches.runs._records import Attempt, Shard, packed
from together_batches.runs.rules import Buckets

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def _shard(rows: int) -> Shard:
    return Shard(number=1, first_line=1, rows=rows, offset=0, size=10 * rows, sha256="")


def _attempt(number: int = 1, outcomes: bytes | None = None, **facts: Any) -> Attempt:
    """Return an attempt, collected if it has outcomes."""
    if outcomes is not None:
        collected = {"rows": len(outcomes), "collected_at": NOON, "outcomes": packed(outcomes)}
        facts = {**collected, "creating_at": NOON, "job_id": f"job-{number}", **facts}
    return Attempt(**{"shard": 1, "number": number, "rows": 4, "planned_at": NOON, **facts})


# --- the outcome of a row ---


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (BatchSuccess("a", {}), "s"),
        (BatchInvalid("a", "x", "why", BatchSuccess("a", {})), "i"),
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
    assert chr(rules.outcome_of(result)) == expected


def test_rows_of_a_job_that_failed_as_a_whole() -> None:
    """Rows of a job that failed for its input failed for good; after any other failure they are missing."""
    reason = "input format error: Line 2 (within chunk): Invalid JSON format"
    failed = rules.absent(_attempt(status="FAILED", error=reason), "a")
    assert failed == BatchFailure("a", "job_failed", reason)
    assert rules.outcome_of(failed) == rules.FAILED
    for attempt in (
        _attempt(status="FAILED", error="failed to download input file"),
        _attempt(status="EXPIRED", error=None),
        _attempt(status="CANCELLED", error=reason),
        _attempt(status=None, error="the service knows this job no more"),
    ):
        assert rules.absent(attempt, "a") == BatchMissing("a")


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
    found = rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON)
    assert (found and (found.number, found.rows)) == expected


def test_an_attempt_whose_rows_are_others_by_now() -> None:
    """An attempt whose rows changed is planned again if no create was sent; its former file may still have a job."""
    planned = _attempt(2, rows=2, file_id="file-2", former_file_ids="file-1", uploaded_at=NOON)
    found = rules.next_attempt(_shard(4), [_attempt(1, b"sssa"), planned], max_attempts=3, now=NOON)
    assert found is not None
    assert (found.number, found.rows, found.file_id, found.former_file_ids) == (2, 1, None, "file-1 file-2")
    found = rules.next_attempt(_shard(4), [_attempt(1, b"ssss"), planned], max_attempts=3, now=NOON)
    assert found is not None
    assert found.rows == 0


@pytest.mark.parametrize("outcomes", [b"sssa", b"saaa", b"ssss"])
def test_buckets_while_the_rows_of_an_attempt_are_others(outcomes: bytes) -> None:
    """The buckets are by the outcomes, until an attempt that was planned before them is planned again."""
    found = rules.buckets(_shard(4), [_attempt(1, outcomes), _attempt(2, rows=2)], max_attempts=3)
    assert found == Buckets(outcomes.count(b"s"), not_sent=outcomes.count(b"a"))


def test_an_attempt_whose_rows_are_as_many_others() -> None:
    """An upload from before the last collection is not used, because its rows may be others, and as many."""
    uploaded = _attempt(2, rows=1, file_id="file-1", uploaded_at=NOON)
    for later in (0, 1):
        first = _attempt(1, b"sssa", collected_at=NOON + timedelta(seconds=later))
        found = rules.next_attempt(_shard(4), [first, uploaded], max_attempts=3, now=NOON)
        assert found is not None
        assert (found.rows, found.file_id, found.former_file_ids) == (
            (1, None, "file-1") if later else (1, "file-1", "")
        )


def test_an_attempt_that_is_collected_anew() -> None:
    """An attempt that is collected again comes before the one that was planned after it."""
    first = _attempt(1, rows=4, creating_at=NOON, job_id="job-1")
    found = rules.next_attempt(_shard(4), [first, _attempt(2, rows=2)], max_attempts=3, now=NOON)
    assert found is first
    assert rules.buckets(_shard(4), [first, _attempt(2, rows=2)], max_attempts=3) == Buckets(in_flight=4)


def test_which_rows_an_attempt_is_about() -> None:
    """The rows of an attempt are those that earlier attempts left, by their place in the shard."""
    attempts = [_attempt(1, b"sasm"), _attempt(2, b"as")]
    assert list(rules.rows_of(_shard(4), [])) == [0, 1, 2, 3]
    assert list(rules.rows_of(_shard(4), attempts[:1])) == [1, 3]
    assert list(rules.rows_of(_shard(4), attempts)) == [1]


# --- answers that do not fit a schema ---


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([_attempt(1, b"siis")], (2, 2)),
        ([_attempt(1, b"siaf")], (2, 2)),
        ([_attempt(1, b"siaf"), _attempt(2, b"s")], (3, 1)),
        ([_attempt(1, b"siaf"), _attempt(2, b"is", retries_invalid=True)], (3, 1)),
        ([_attempt(1, b"siaf"), _attempt(2, b"as", retries_invalid=True)], (3, 1)),
        ([_attempt(1, b"siaf"), _attempt(2, b"ss", retries_invalid=True)], None),
        (
            [
                _attempt(1, b"iiii"),
                _attempt(2, b"iiii", retries_invalid=True),
                _attempt(3, b"iiii", retries_invalid=True),
            ],
            None,
        ),
    ],
)
def test_invalid_answers_are_sent_again_on_request(attempts: list[Attempt], expected: tuple[int, int] | None) -> None:
    """Rows whose answers are invalid are sent again only on request, also if an attempt left them out before."""
    found = rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON, retry_invalid=True)
    assert (found and (found.number, found.rows)) == expected
    assert found is None or found.retries_invalid
    found = rules.next_attempt(_shard(4), attempts[:1], max_attempts=3, now=NOON)
    assert (found and found.rows) == (1 if b"a" in rules.outcomes_of(attempts[0]) else None)


def test_an_attempt_that_is_planned_with_invalid_answers_or_without() -> None:
    """An attempt whose create was not sent is planned again if the caller decides otherwise about invalid answers."""
    planned = _attempt(2, rows=1, file_id="file-2")
    found = rules.next_attempt(_shard(4), [_attempt(1, b"siaf"), planned], max_attempts=3, now=NOON)
    assert found is planned
    for before, retry in ((planned, True), (attrs.evolve(planned, rows=2, retries_invalid=True), False)):
        attempts = [_attempt(1, b"siaf"), before]
        found = rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON, retry_invalid=retry)
        assert found is not None
        assert (found.rows, found.retries_invalid, found.file_id) == (2 if retry else 1, retry, None)


def test_an_answer_is_replaced_by_an_answer_alone() -> None:
    """An invalid answer stays the outcome of its row until there is another answer, and so it may be sent again."""
    attempts = [_attempt(1, b"iiia"), _attempt(2, b"amsf", retries_invalid=True)]
    assert list(rules.rows_of(_shard(4), attempts, retry_invalid=True)) == [0, 1]
    assert list(rules.rows_of(_shard(4), attempts)) == []
    assert rules.buckets(_shard(4), attempts, max_attempts=3) == Buckets(1, 1, invalid_answers=2)
    again = rules.buckets(_shard(4), attempts, max_attempts=3, retry_invalid=True)
    assert again == Buckets(1, 1, not_sent=2)
    assert rules.buckets(_shard(4), attempts, max_attempts=2, retry_invalid=True) == Buckets(1, 1, invalid_answers=2)
    assert rules.outweighs(rules.INVALID, rules.AGAIN)
    assert not rules.outweighs(rules.FAILED, rules.INVALID)


# --- every row in one bucket ---


@given(
    st.lists(st.lists(st.sampled_from(b"sfamrdi"), min_size=40, max_size=40), max_size=4),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_row_is_in_one_bucket(fates: list[list[int]], max_attempts: int, retry_invalid: bool) -> None:
    """Every row is in one bucket at any stage of the attempts."""
    shard = _shard(40)
    attempts: list[Attempt] = []
    for fate in [*fates, [0] * 40]:
        following = rules.next_attempt(
            shard, attempts, max_attempts=max_attempts, now=NOON, retry_invalid=retry_invalid
        )
        stages = [attempts]
        if following is not None:
            stages += [[*attempts, following], [*attempts, attrs.evolve(following, creating_at=NOON)]]
        for stage in stages:
            found = rules.buckets(shard, stage, max_attempts=max_attempts, retry_invalid=retry_invalid)
            assert sum(attrs.astuple(found)) - found.answered == 40
            assert (found.not_sent + found.in_flight == 0) is (following is None)
            left = rules.rows_of(shard, attempts, retry_invalid=retry_invalid)
            expected = len(left) if following is not None else 0
            assert found.not_sent + found.in_flight == expected
        if following is None:
            return
        collected = _attempt(
            following.number, bytes(fate[: following.rows]), retries_invalid=following.retries_invalid
        )
        attempts = [*attempts, collected]


def test_rows_count_as_often_as_they_are_repeated() -> None:
    """A row that is sent for several rows of the input is counted for each of them."""
    shard = attrs.evolve(_shard(4), copies=packed([3, 1, 2, 1]))
    first = _attempt(1, b"sfam")
    again = _attempt(2, rows=2, creating_at=NOON, progress=50.0)
    assert rules.buckets(shard, [], max_attempts=2) == Buckets(not_sent=7)
    assert rules.buckets(shard, [_attempt(1)], max_attempts=2) == Buckets(not_sent=7)
    assert rules.buckets(shard, [first], max_attempts=2) == Buckets(3, 1, not_sent=3)
    assert rules.buckets(shard, [first], max_attempts=1) == Buckets(3, 3, 1)
    assert rules.buckets(shard, [first, again], max_attempts=2) == Buckets(3, 1, in_flight=3, answered=1)
    assert rules.buckets(shard, [first, _attempt(2, b"is")], max_attempts=3) == Buckets(4, 1, invalid_answers=2)


def test_buckets_add_up() -> None:
    """The buckets add up, and so do the tokens."""
    assert Buckets(1, 2, 3, 4, 5) + Buckets(1, 1, 1, 1, 1) == Buckets(2, 3, 4, 5, 6)
    attempts = [_attempt(prompt_tokens=1, completion_tokens=2, total_tokens=3)] * 2
    assert rules.usage(attempts) == Usage(2, 4, 6)


@pytest.mark.parametrize(
    ("status", "outcomes", "expected"),
    [
        ("FAILED", b"mm", True),
        ("EXPIRED", b"mm", True),
        ("FAILED", b"sm", False),
        ("FAILED", b"im", False),
        ("COMPLETED", b"aa", False),
    ],
)
def test_a_job_that_failed_as_a_whole(status: str, outcomes: bytes, expected: bool) -> None:
    """A job failed as a whole if it ended badly and answered no row."""
    assert rules.failed_as_a_whole(_attempt(1, outcomes, status=status)) is expected


# --- when rows are sent again ---


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        ([("COMPLETED", b"sa")], 30),
        ([("FAILED", b"mm")], 30),
        ([("FAILED", b"mm"), ("EXPIRED", b"mm")], 120),
        ([("FAILED", b"mm")] * 5, 600),
        ([("FAILED", b"mm"), ("FAILED", b"mm"), ("COMPLETED", b"sa")], 30),
        ([("FAILED", b"mm"), ("FAILED", b"mm"), ("CANCELLED", b"mm")], 0),
    ],
)
def test_the_delay_grows_with_jobs_that_failed_as_a_whole(endings: list[tuple[str, bytes]], expected: float) -> None:
    """Rows wait longer after each job that failed as a whole, not after other ends, and never after a cancel."""
    attempts = [_attempt(number, outcomes, status=status) for number, (status, outcomes) in enumerate(endings, 1)]
    assert rules.retry_delay(attempts, (30, 120, 600)) == expected
    assert rules.retry_delay(attempts, ()) == 0


@pytest.mark.parametrize(
    ("facts", "patience", "expected"),
    [
        ({"output_file_id": "file-1"}, 900, 60),
        ({"error_file_id": "file-1"}, 5, 5),
        ({}, 900, 30),
        ({}, 5, 5),
        ({"progress": 40.0}, 900, 900),
        ({"progress": 40.0, "output_file_id": "file-1"}, 900, 60),
    ],
)
def test_the_time_between_two_readings(facts: dict[str, Any], patience: float, expected: float) -> None:
    """Results that omit rows are read again soon; rows that were done and are in no file get all of patience."""
    assert rules.second_look_delay(_attempt(**facts), patience) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, False),
        ("VALIDATING", False),
        ("FAILED", False),
        ("CANCELING", False),
        ("CANCELLED", False),
        ("IN_PROGRESS", True),
        ("COMPLETED", True),
        ("EXPIRED", True),
    ],
)
def test_a_job_past_validating_shows_a_valid_input(status: str | None, expected: bool) -> None:
    """Other jobs are created once the first one is past VALIDATING, and not if it failed or is cancelled."""
    assert rules.shows_valid_input(status) is expected


# --- attempts that are not those of a shard ---


@pytest.mark.parametrize(
    "attempts",
    [
        [_attempt(2, b"ss"), _attempt(1, b"saas")],
        [_attempt(1, b"saas"), _attempt(1, b"saas")],
        [_attempt(1, b"saas"), _attempt(3, b"ss")],
        [_attempt(2, b"aaaa")],
        [_attempt(1, b"ssss", shard=2)],
        [_attempt(1, b"saas"), _attempt(2, b"ss", shard=2)],
    ],
    ids=["swapped", "repeated", "gap", "no first", "another shard", "two shards"],
)
def test_attempts_out_of_order(attempts: list[Attempt]) -> None:
    """Attempts out of order, or of another shard, are refused: answered rows would be sent again, or be lost."""
    with pytest.raises(UsageError, match="pass all attempts at one shard, in the order of their numbers"):
        rules.next_attempt(_shard(4), attempts, max_attempts=3, now=NOON)
    with pytest.raises(UsageError, match="pass all attempts at one shard, in the order of their numbers"):
        rules.buckets(_shard(4), attempts, max_attempts=3)


def test_a_shard_of_another_size() -> None:
    """A shard that does not have the rows of its first attempt is refused."""
    with pytest.raises(UsageError, match="attempt 1 of shard 1 has 4 rows, and the shard has 5: pass the shard"):
        rules.next_attempt(_shard(5), [_attempt(1, b"ssss")], max_attempts=3, now=NOON)


@pytest.mark.parametrize(
    "attempts",
    [[_attempt(1, b"saas"), _attempt(3, b"s")], [_attempt(1, collected_at=NOON)]],
    ids=["one is missing", "without outcomes"],
)
def test_rows_of_attempts_that_do_not_fit(attempts: list[Attempt]) -> None:
    """The rows that attempts left are not made up if the attempts do not fit together."""
    with pytest.raises(UsageError, match="and the attempts before it left"):
        rules.rows_of(_shard(4), attempts)


def test_rows_of_attempts_without_rows() -> None:
    """An attempt without rows changes nothing, and may be left out."""
    attempts = [_attempt(1, b"saas"), _attempt(2, b""), _attempt(3, b"sa")]
    assert list(rules.rows_of(_shard(4), attempts)) == [2]
    assert list(rules.rows_of(_shard(4), attempts[::2])) == [2]
