"""Callbacks that draw a bar, too: one context for each verb. The verbs know only their callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from together_batches._display.progress import Meter, bar, percent, rows, sizes
from together_batches._display.tallies import CancelTally, RunTally

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelOutcome
    from together_batches.runs import RunEvent


@contextmanager
def cancel(
    on_outcome: Callable[[CancelOutcome], None] | None, job_ids: object
) -> Generator[Callable[[CancelOutcome], None]]:
    """Show how many jobs are done. A job that is followed is done when it has stopped."""
    total = len(job_ids) if isinstance(job_ids, Sized) else None
    tally = CancelTally()
    with bar(Meter("Cancelling")) as show:

        def note(outcome: CancelOutcome) -> None:
            tally.note(outcome)
            show(tally.done, total, tally.notes)
            if on_outcome is not None:
                on_outcome(outcome)

        yield note
        show(tally.done, tally.done, tally.notes)  # a repeated id has one outcome


@contextmanager
def wait(
    on_update: Callable[[BatchJob], None] | None, job_id: str | BatchJob
) -> Generator[Callable[[BatchJob], None]]:
    """Show the progress and the status of a job."""
    with bar(Meter(job_id if isinstance(job_id, str) else job_id.id, percent)) as show:

        def note(job: BatchJob) -> None:
            status = str(job.status or "").replace("_", " ").lower()
            show(100 if status == "completed" else job.progress or 0, 100, status)
            if on_update is not None:
                on_update(job)

        yield note


@contextmanager
def run(
    on_event: Callable[[RunEvent], None] | None, output: str | os.PathLike[str]
) -> Generator[Callable[[RunEvent], None]]:
    """Show how many rows are answered, also by the jobs in progress, and the number of these jobs."""
    with bar(Meter(Path(output).name, rows, text="reading the input")) as show:
        tally = RunTally(show)

        def note(event: RunEvent) -> None:
            tally.note(event)
            if on_event is not None:
                on_event(event)

        yield note


@contextmanager
def transfer(
    on_progress: Callable[[int, int | None], None] | None, what: str
) -> Generator[Callable[[int, int | None], None]]:
    """Show how many bytes are transferred."""
    with bar(Meter(what, sizes, speed=True)) as show:

        def note(done: int, total: int | None) -> None:
            show(done, total)
            if on_progress is not None:
                on_progress(done, total)

        yield note
