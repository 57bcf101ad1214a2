"""The outcome of each job of a bulk cancel, and the report of them."""

from __future__ import annotations

import copy
import pickle

import pytest

from together_batches.errors import AuthenticationError, BatchesError, NotFoundError
from together_batches.models import BatchJob
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

_FINE = {CancelResult.CANCELLED, CancelResult.CANCELING, CancelResult.ALREADY_FINISHED}


def _outcomes(**results: CancelResult) -> list[CancelOutcome]:
    return [CancelOutcome(job_id, result) for job_id, result in results.items()]


def test_the_buckets() -> None:
    """The seven buckets have texts for machines and descriptions for people."""
    assert [str(result) for result in CancelResult] == [
        "cancelled",
        "canceling",
        "already_finished",
        "not_found",
        "denied",
        "failed",
        "not_attempted",
    ]
    assert CancelResult.ALREADY_FINISHED.words == "already finished"


@pytest.mark.parametrize("result", CancelResult)
def test_an_outcome_is_fine_where_nothing_is_left_to_do(result: CancelResult) -> None:
    """An outcome is ok if nothing is left to do: cancelled, draining, or finished before."""
    assert CancelOutcome("a", result).ok is (result in _FINE)
    assert CancelReport([CancelOutcome("a", result)]).ok is (result in _FINE)


def test_the_text_is_the_summary_line() -> None:
    """The text is the summary line, in a fixed order, with thousands separators and without zero counts."""
    many = [CancelOutcome(f"job-{number}", CancelResult.CANCELLED) for number in range(9_998)]
    report = CancelReport([*_outcomes(x=CancelResult.NOT_FOUND, y=CancelResult.ALREADY_FINISHED), *many])
    assert str(report) == "9 998 cancelled, 1 already finished, 1 not found"
    assert repr(report) == "<CancelReport: 9 998 cancelled, 1 already finished, 1 not found>"


def test_jobs_that_completed_although_they_took_the_cancel_are_set_apart() -> None:
    """Jobs that completed after an accepted cancel are named separately in the text; failed ones are not.

    The counts include them with the others that had finished.
    """
    report = CancelReport(
        [
            CancelOutcome("a", CancelResult.ALREADY_FINISHED, BatchJob(id="a", status="COMPLETED"), accepted=True),
            CancelOutcome("b", CancelResult.ALREADY_FINISHED, BatchJob(id="b", status="COMPLETED")),
            CancelOutcome("c", CancelResult.ALREADY_FINISHED, BatchJob(id="c", status="FAILED"), accepted=True),
            CancelOutcome("d", CancelResult.ALREADY_FINISHED, accepted=True),
            CancelOutcome("e", CancelResult.CANCELLED, BatchJob(id="e", status="CANCELLED"), accepted=True),
        ]
    )
    assert [outcome.completed_anyway for outcome in report] == [True, False, False, False, False]
    assert str(report) == "1 cancelled, 3 already finished, 1 completed anyway"
    assert report.counts[CancelResult.ALREADY_FINISHED] == 4
    assert str(pickle.loads(pickle.dumps(report))) == str(report)


def test_an_event_is_no_part_of_what_became_of_a_job() -> None:
    """The event of an outcome is ignored in comparisons, so that a callback's equals the report's."""
    assert CancelOutcome("a", CancelResult.CANCELLED, event="ended") == CancelOutcome("a", CancelResult.CANCELLED)


def test_a_report_of_nothing() -> None:
    """An empty report is ok, and says that it is empty."""
    report = CancelReport([])
    assert (len(report), report.ok, report.failures, str(report)) == (0, True, (), "no jobs")
    report.raise_for_failures()


def test_a_report_is_in_the_order_of_the_ids() -> None:
    """A report is a collection in the order of the ids: by id, by job, by ``in``."""
    outcomes = _outcomes(b=CancelResult.CANCELLED, a=CancelResult.FAILED, c=CancelResult.CANCELING)
    report = CancelReport(iter(outcomes))
    assert list(report) == outcomes
    assert len(report) == 3
    assert report["a"] is outcomes[1]
    assert report[BatchJob(id="c")] is outcomes[2]
    assert "a" in report
    assert BatchJob(id="a") in report
    assert "x" not in report
    assert None not in report
    with pytest.raises(KeyError, match="x"):
        report["x"]


def test_the_counts_name_every_result_and_cannot_be_changed() -> None:
    """The counts contain every result, with 0 if it did not occur, and are immutable."""
    report = CancelReport(_outcomes(a=CancelResult.CANCELLED, b=CancelResult.CANCELLED, c=CancelResult.DENIED))
    assert dict(report.counts) == {
        **dict.fromkeys(CancelResult, 0),
        CancelResult.CANCELLED: 2,
        CancelResult.DENIED: 1,
    }
    with pytest.raises(TypeError, match="does not support item assignment"):
        report.counts[CancelResult.DENIED] = 0  # type: ignore[index]


def test_failures_are_raised_as_a_group() -> None:
    """Failures are raised as a group, each error once even if it stopped many jobs; its text is the summary."""
    refused = AuthenticationError("no", status=401)
    missing = NotFoundError("no", status=404)
    report = CancelReport(
        [
            CancelOutcome("a", CancelResult.CANCELLED),
            CancelOutcome("b", CancelResult.NOT_FOUND, error=missing),
            CancelOutcome("c", CancelResult.DENIED, error=refused),
            CancelOutcome("d", CancelResult.NOT_ATTEMPTED, error=refused),
        ]
    )
    assert [failure.job_id for failure in report.failures] == ["b", "c", "d"]
    with pytest.raises(ExceptionGroup) as caught:
        report.raise_for_failures()
    assert caught.value.exceptions == (missing, refused)
    assert caught.value.message == "1 cancelled, 1 not found, 1 denied, 1 not attempted"


def test_a_failure_without_an_error_is_raised_all_the_same() -> None:
    """A report that is not ok raises, even if a failure has no error."""
    with pytest.raises(ExceptionGroup) as caught:
        CancelReport([CancelOutcome("a", CancelResult.FAILED)]).raise_for_failures()
    assert [str(error) for error in caught.value.exceptions] == ["a: failed"]
    assert isinstance(caught.value.exceptions[0], BatchesError)


def test_a_report_without_failures_raises_nothing() -> None:
    """A report without failures raises nothing, even if jobs had finished before."""
    CancelReport(_outcomes(a=CancelResult.CANCELLED, b=CancelResult.ALREADY_FINISHED)).raise_for_failures()


def test_reports_are_values() -> None:
    """Reports can be compared, hashed, pickled and copied."""
    outcomes = [CancelOutcome("a", CancelResult.CANCELLED, job=BatchJob(id="a", status="CANCELLED"), attempts=2)]
    report = CancelReport(outcomes)
    assert report == CancelReport(outcomes)
    assert report != CancelReport([])
    assert report != outcomes
    assert len({report, CancelReport(outcomes)}) == 1
    for twin in (pickle.loads(pickle.dumps(report)), copy.copy(report), copy.deepcopy(report)):
        assert twin == report
        assert twin.counts == report.counts


def test_errors_travel_with_their_report() -> None:
    """Errors are pickled with their report, and one error of many outcomes is still one object."""
    refused = AuthenticationError("no", status=401, request_id="oJ3x")
    report = CancelReport([CancelOutcome(name, CancelResult.DENIED, error=refused) for name in "ab"])
    twin = pickle.loads(pickle.dumps(report))
    assert twin["a"].error is twin["b"].error
    assert str(twin["a"].error) == str(refused)
