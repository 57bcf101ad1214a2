"""What became of the jobs of a cancel: a line for each, and a table of all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from together_batches._plain import to_dict
from together_batches.cli._selecting import by_status
from together_batches.cli._text import as_json, escape, number
from together_batches.outcomes import CancelResult

if TYPE_CHECKING:
    from together_batches.outcomes import CancelOutcome, CancelReport

__all__ = ["outcome_json", "outcome_line", "print_table"]

_MEANINGS = {
    CancelResult.CANCELLED: ("green", "stopped; rows that were done are kept"),
    CancelResult.CANCELING: ("cyan", "accepted; they stop in a moment"),
    CancelResult.ALREADY_FINISHED: ("yellow", "had ended before"),
    CancelResult.NOT_FOUND: ("red", "the service knows no such job"),
    CancelResult.DENIED: ("red", "the key was refused"),
    CancelResult.FAILED: ("red", "refused, or no good answer came, or it is no id"),
    CancelResult.NOT_ATTEMPTED: ("red", "nothing was sent"),
}


def outcome_line(outcome: CancelOutcome) -> str:
    """``ID<TAB>result<TAB>detail``: what went wrong, or else the job's status."""
    detail = str(outcome.error or (outcome.job and outcome.job.status) or "-")
    return f"{escape(outcome.job_id)}\t{outcome.result}\t{escape(detail)}"


def outcome_json(outcome: CancelOutcome) -> str:
    """All of it, on one line."""
    return as_json(to_dict(outcome))


def print_table(report: CancelReport) -> None:
    """How many jobs there are of each result, and what it means, on standard output."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("RESULT", no_wrap=True)
    drawn.add_column("JOBS", justify="right", no_wrap=True)
    drawn.add_column("WHICH MEANS")
    finished = [outcome for outcome in report if outcome.result is CancelResult.ALREADY_FINISHED]
    anyway = sum(outcome.completed_anyway for outcome in finished)
    for result, count in report.counts.items():
        style, meaning = _MEANINGS[result]
        if result is CancelResult.ALREADY_FINISHED:
            count -= anyway
            ended = by_status(outcome.job for outcome in finished if outcome.job and not outcome.completed_anyway)
            meaning = f"{meaning}: {ended}" if ended else meaning
        if count:
            drawn.add_row(result.words, number(count), escape(meaning), style=style)
    if anyway:
        drawn.add_row("completed anyway", number(anyway), "accepted, and they completed all the same", style="yellow")
    Console(file=sys.stdout, highlight=False, markup=False).print(drawn)
