"""The output of a bulk cancel as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from together_batches.cli._report import outcome_json, outcome_line, print_table
from together_batches.errors import APIConnectionError, ConflictError
from together_batches.models import BatchJob
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    import pytest

CANCELLED = CancelOutcome("a", CancelResult.CANCELLED, BatchJob(id="a", status="CANCELLED"), None, 1)
FAILED = CancelOutcome("b\t\x1b", CancelResult.FAILED, None, APIConnectionError("it\nbroke"), 5)
UNREAD = CancelOutcome("c", CancelResult.ALREADY_FINISHED, None, ConflictError("too late", status=409), 2)
FINISHED = CancelOutcome("d", CancelResult.ALREADY_FINISHED, BatchJob(id="d", status="COMPLETED"), None, 2)


def test_lines() -> None:
    """A line has three columns, whatever they contain."""
    assert outcome_line(CANCELLED) == "a\tcancelled\tCANCELLED"
    assert outcome_line(FAILED) == "b\\t\\x1b\tfailed\tit\\nbroke"
    assert outcome_line(CancelOutcome("e", CancelResult.CANCELING, BatchJob(id="e"), None, 1)) == "e\tcanceling\t-"


def test_json() -> None:
    """JSON keeps the id unchanged, and every known field."""
    decoded = json.loads(outcome_json(FAILED))
    assert decoded["job_id"] == "b\t\x1b"
    assert decoded["result"] == "failed"
    assert decoded["error"] == {"type": "APIConnectionError", "message": "it\nbroke"}


def test_table_of_jobs_that_completed_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs that completed in spite of the cancel have a row of their own, apart from those that had ended before."""
    outran = CancelOutcome("e", CancelResult.ALREADY_FINISHED, BatchJob(id="e", status="COMPLETED"), accepted=True)
    print_table(CancelReport([FINISHED, outran]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        "already finished 1 had ended before: 1 COMPLETED",
        "completed anyway 1 accepted, and they completed all the same",
    ]
    print_table(CancelReport([outran]))
    assert "already finished" not in capsys.readouterr().out


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The table counts each result that occurred, with the final statuses of finished jobs if known."""
    print_table(CancelReport([CANCELLED, FAILED, UNREAD, FINISHED]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "RESULT JOBS WHICH MEANS",
        "cancelled 1 stopped; rows that were done are kept",
        "already finished 2 had ended before: 1 COMPLETED",
        "failed 1 refused, or the request failed, or the id is invalid",
    ]
    print_table(CancelReport([UNREAD]))
    assert capsys.readouterr().out.rstrip().endswith("had ended before")
