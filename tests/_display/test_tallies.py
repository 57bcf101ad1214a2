"""What bars show of many jobs."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime
from typing import Any

from together_batches import BatchJob, CancelOutcome, CancelResult
from together_batches._display.tallies import CancelTally, RunTally
from together_batches.cli._commands.cancel.output import counted
from together_batches.runs import RunEvent, RunEventKind


def outcome(job_id: str, result: CancelResult, *, status: str | None = None, **facts: Any) -> CancelOutcome:
    return CancelOutcome(job_id, result, job=BatchJob(id=job_id, status=status), **facts)


def test_a_cancel_that_follows_its_jobs() -> None:
    """A job whose cancel was accepted is done when it has ended, and is counted once."""
    tally = CancelTally()
    for job_id in "abc":
        tally.note(outcome(job_id, CancelResult.CANCELING, event="accepted"))
    tally.note(outcome("d", CancelResult.NOT_FOUND, event="ended"))
    assert (tally.done, [*tally.followed], tally.notes) == (1, ["a", "b", "c"], "3 stopping, 1 not found")
    tally.note(outcome("a", CancelResult.CANCELLED, event="ended"))
    tally.note(outcome("b", CancelResult.ALREADY_FINISHED, status="COMPLETED", accepted=True, event="ended"))
    assert (tally.done, [*tally.followed], tally.stopping) == (3, ["c"], 1)
    assert counted(tally) == "1 cancelled, 1 not found, 1 completed anyway, 1 accepted and still stopping"
    tally.note(outcome("c", CancelResult.CANCELING, event="ended"))  # the time limit ran out
    assert (tally.done, [*tally.followed], tally.stopping) == (4, [], 1)


def test_a_cancel_that_follows_no_job() -> None:
    """A job whose cancel was accepted is done, and stops later."""
    tally = CancelTally()
    assert (counted(tally), tally.notes) == ("", "")
    tally.note(outcome("a", CancelResult.CANCELING))
    for job_id, result in zip(
        "bcd", (CancelResult.FAILED, CancelResult.DENIED, CancelResult.NOT_ATTEMPTED), strict=True
    ):
        tally.note(outcome(job_id, result))
    assert (tally.done, [*tally.followed], tally.notes) == (4, [], "3 failed")
    assert counted(tally) == "1 denied, 1 failed, 1 not attempted, 1 accepted and still stopping"


def test_jobs_that_are_not_followed_take_little_memory() -> None:
    """The outcome of a job that is not followed is not kept: the report keeps it in a smaller form."""
    tally = CancelTally()
    given = [outcome(job_id, CancelResult.CANCELING) for job_id in "abc"]
    kept = weakref.WeakSet(given)
    while given:
        tally.note(given.pop())
    assert (len(kept), tally.stopping) == (0, 3)


class Shown:
    """What a bar shows at last."""

    def __init__(self) -> None:
        self.numbers: tuple[float, float | None, str] | None = None

    def __call__(self, done: float, total: float | None, text: str = "") -> None:
        self.numbers = (done, total, text)


def event(kind: RunEventKind, job_id: str | None = None, **counts: int) -> RunEvent:
    return RunEvent(kind=kind, message="", at=datetime.now(UTC), job_id=job_id, **counts)


def test_a_run() -> None:
    """Rows that jobs in progress report as answered are done, and these jobs are counted."""
    shown = Shown()
    tally = RunTally(shown)
    tally.note(event(RunEventKind.BEGUN, not_sent=10))
    assert shown.numbers == (0, 10, "")
    tally.note(event(RunEventKind.CREATED, "a", in_flight=5, not_sent=5))
    tally.note(event(RunEventKind.PROGRESSED, "a", in_flight=5, not_sent=5, answered=2))
    assert shown.numbers == (2, 10, "1 job")
    tally.note(event(RunEventKind.ENDED, "a", succeeded=2, invalid_answers=1, failed=1, missing=1, not_sent=5))
    assert shown.numbers == (5, 10, "2 failed, 1 not fitting")


def test_the_jobs_of_a_run_by_status() -> None:
    """A job has the status in which it was read last, also if a run that is resumed created it earlier."""
    shown = Shown()
    tally = RunTally(shown, by_status=True)
    tally.see(BatchJob(id="earlier", status="IN_PROGRESS"))
    assert shown.numbers is None  # before the number of rows is known
    tally.note(event(RunEventKind.RESUMED, in_flight=10))
    tally.note(event(RunEventKind.CREATED, "new", in_flight=10))
    assert shown.numbers == (0, 10, "1 IN_PROGRESS, 1 CREATED")
    tally.see(BatchJob(id="new", status="IN_PROGRESS"))
    assert shown.numbers == (0, 10, "2 IN_PROGRESS")
    tally.see(BatchJob(id="new", status="COMPLETED"))
    tally.note(event(RunEventKind.ENDED, "new", in_flight=5, succeeded=5))
    tally.note(event(RunEventKind.GONE, "earlier", missing=5, succeeded=5))
    assert shown.numbers == (10, 10, "5 failed")
