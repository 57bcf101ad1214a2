"""The outcomes of a bulk cancel until its report is read: one for each id, in order, decoded on access."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

from together_batches._jobs.cancel_report import CancelOutcomes
from together_batches.errors import NotFoundError
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

_ANSWER = b'{"id": "b", "status": "CANCELING"}'
_GOOD = CancelOutcome(
    "b",
    CancelResult.CANCELING,
    BatchJob(id="b", status=BatchJobStatus.CANCELING),
    attempts=1,
    accepted=True,
    status_before=BatchJobStatus.IN_PROGRESS,
    requested_at=datetime(2026, 11, 2, 10, tzinfo=UTC),
)
_GONE = CancelOutcome("a", CancelResult.NOT_FOUND, None, NotFoundError("gone", status=404), 1)


def _kept() -> CancelOutcomes:
    kept = CancelOutcomes()
    assert kept.admit("a")
    assert kept.admit("b")
    assert not kept.admit("a")
    kept.put(_GOOD, _ANSWER)
    kept.put(_GONE, None)
    return kept


def test_outcomes_are_in_the_order_of_their_ids() -> None:
    """Outcomes are in the order of their ids, not of their completion."""
    kept = _kept()
    assert list(kept) == ["a", "b"]
    assert list(kept.values()) == [_GONE, _GOOD]
    assert "b" in kept
    assert "c" not in kept


def test_what_was_kept_as_an_answer_is_read_on_access() -> None:
    """An outcome that is kept as a response body is decoded on each access, and is equal each time."""
    kept = _kept()
    assert kept["b"] == kept["b"] == _GOOD
    assert kept["b"] is not kept["b"]


def test_its_report_is_like_any_other() -> None:
    """A report of such outcomes can be counted, compared and pickled like any other."""
    report = _kept().report()
    assert report == CancelReport([_GONE, _GOOD])
    assert CancelReport([_GONE, _GOOD]) == report
    assert str(report) == "1 canceling, 1 not found"
    assert report.failures == (_GONE,)
    assert not report.ok
    copy = pickle.loads(pickle.dumps(report))
    assert copy["b"] == _GOOD
    assert str(copy) == str(report)


def test_jobs_that_completed_anyway_are_counted_as_they_come() -> None:
    """Jobs that completed anyway are counted on arrival, with the same result as in a report of outcomes."""
    kept = CancelOutcomes()
    done = BatchJob(id="a", status=BatchJobStatus.COMPLETED)
    for name, accepted in (("a", True), ("b", False)):
        kept.admit(name)
        kept.put(CancelOutcome(name, CancelResult.ALREADY_FINISHED, done, accepted=accepted), None)
    assert str(kept.report()) == str(CancelReport(kept.values())) == "1 already finished, 1 completed anyway"
