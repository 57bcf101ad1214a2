"""The output of a bulk cancel: what would be cancelled, outcomes one by one, and a table of the results."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from together_batches._display.tallies import in_words
from together_batches.cli._listing.columns import by_status, item, item_on_screen
from together_batches.cli._listing.labels import label_cells, labels_of
from together_batches.cli._terminal.table import Column, draw
from together_batches.cli._terminal.text import (
    as_json,
    columns,
    count_of,
    escape,
    format_count,
    is_terminal,
    print_lines,
    rich_console,
    terminal,
)
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from together_batches._display.tallies import CancelTally
    from together_batches.cli._account.options import Common
    from together_batches.cli._listing.labels import Labels
    from together_batches.models import BatchJob

FEW = 20
"""Maximum number of jobs that get a line each on a terminal; more of them get a bar, and a table at the end."""

_MEANINGS = {
    CancelResult.CANCELLED: ("green", "stopped; rows that were done are kept"),
    CancelResult.CANCELING: ("cyan", "accepted; they stop in a moment"),
    CancelResult.ALREADY_FINISHED: ("yellow", "had ended before"),
    CancelResult.NOT_FOUND: ("red", "the service knows no such job"),
    CancelResult.DENIED: ("red", "the key was refused"),
    CancelResult.FAILED: ("red", "refused, or the request failed, or the id is invalid"),
    CancelResult.NOT_ATTEMPTED: ("red", "nothing was sent"),
}
_WIDEST_RESULT = max(map(len, CancelResult))
_ROOM_FOR_MEANINGS = 40
"""Width of a terminal below which a table has the results and their numbers alone."""


def _status_of(outcome: CancelOutcome) -> str | None:
    return outcome.job.status if outcome.job else None


def outcome_item(common: Common, outcome: CancelOutcome, labels: Labels) -> str:
    """Return an outcome on a line: on a terminal with its error below it, in a pipe with the error or the status."""
    error, status = str(outcome.error) if outcome.error else None, _status_of(outcome)
    return item(
        common,
        outcome.job_id,
        outcome,
        labels,
        cells=(outcome.result, error or status),
        shown=(outcome.result.ljust(_WIDEST_RESULT), status),
        note=error,
    )


def counted(tally: CancelTally) -> str:
    """Return the number of jobs by result, of a bulk cancel that has not ended; an empty text if there are none."""
    report = CancelReport._of({}, tally.results, (), tally.completed_anyway)  # pyright: ignore[reportPrivateUsage]
    stopping = in_words({"accepted and still stopping": tally.stopping})
    return ", ".join(filter(None, (str(report) if tally.results else "", stopping)))


def print_failures(failures: Sequence[CancelOutcome], labels: Labels) -> None:
    """Print a table of failures, each with its error below it."""
    screen = terminal(sys.stdout)
    rows = [
        columns((outcome.job_id, outcome.result, _status_of(outcome), *label_cells(labels, outcome.job_id)))
        for outcome in failures
    ]
    notes = {place: escape(str(outcome.error)) for place, outcome in enumerate(failures) if outcome.error}
    drawn = [Column("ID"), Column("RESULT"), Column("STATUS", rank=1)]
    if labels:
        drawn.append(Column("LABELS", rank=1, cut="middle"))
    print_lines(draw(drawn, rows, screen.width, notes=notes, dots=screen.dots))


def by_model(jobs: Iterable[BatchJob]) -> Iterable[str]:
    """Return the number of jobs of each model by status, the most frequent model first."""
    of_model: dict[str | None, list[BatchJob]] = {}
    for job in jobs:
        of_model.setdefault(job.model_id, []).append(job)
    most = sorted(of_model.items(), key=lambda item: -len(item[1]))
    rows = [(f"  {escape(model or 'no model')}", escape(by_status(these))) for model, these in most[:FEW]]
    if len(most) > FEW:
        left = sum(len(these) for _, these in most[FEW:])
        rows.append((f"  {count_of(len(most) - FEW, 'more model')}", count_of(left, "job")))
    screen = terminal(sys.stderr)
    drawn = (Column("", cut="middle", least=16), Column("", cut="end"))
    return draw(drawn, rows, screen.width, header=False, narrow=0, dots=screen.dots)


def by_label(labels: Labels) -> Iterable[str]:
    """Return the number of jobs with each label, the most frequent first; they are not all jobs, or overlap."""
    most = Counter(chain(*labels.values())).most_common(FEW + 1)
    for label, count in most[:FEW]:
        yield f"  {count_of(count, 'job')} labelled {label}"
    if len(most) > FEW:
        yield "  other labels, too"


def named(job_ids: Sequence[str], *, json: bool) -> Iterable[str]:
    """Return a line for each id; in a pipe the id alone."""
    labels = labels_of(job_ids)
    for job_id in job_ids:
        if json:
            own = labels.get(job_id)
            yield as_json({"job_id": job_id, "labels": [*own]} if own else {"job_id": job_id})
        elif is_terminal(sys.stdout):
            yield item_on_screen(job_id, labels=label_cells(labels, job_id))
        else:
            yield escape(job_id)


def print_table(report: CancelReport) -> None:
    """Print the number of jobs with each result, and its meaning, on standard output."""
    from rich.table import Table

    finished = [outcome for outcome in report if outcome.result is CancelResult.ALREADY_FINISHED]
    anyway = sum(outcome.completed_anyway for outcome in finished)
    rows: list[tuple[str, int, str, str]] = []
    for result, count in report.counts.items():
        style, meaning = _MEANINGS[result]
        if result is CancelResult.ALREADY_FINISHED:
            count -= anyway
            ended = by_status(outcome.job for outcome in finished if outcome.job and not outcome.completed_anyway)
            meaning = f"{meaning}: {ended}" if ended else meaning
        rows.append((result.words, count, meaning, style))
    rows.append(("completed anyway", anyway, "accepted, and they completed all the same", "yellow"))
    width = terminal(sys.stdout).width
    if width < _ROOM_FOR_MEANINGS:
        cells = [(words, format_count(count)) for words, count, *_ in rows if count]
        print_lines(draw((Column("RESULT"), Column("JOBS")), cells, width))
        return
    drawn = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("RESULT", no_wrap=True)
    drawn.add_column("JOBS", justify="right", no_wrap=True)
    drawn.add_column("WHICH MEANS")
    for words, count, meaning, style in rows:
        if count:
            drawn.add_row(words, format_count(count), escape(meaning), style=style)
    rich_console().print(drawn)
