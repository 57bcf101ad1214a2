"""The command ``together-batches wait``."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from together_batches._display.progress import Meter, terminal_bar
from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, patience_option, service_options
from together_batches.cli._inputs.ids import ids_argument, ids_or_input
from together_batches.cli._listing.columns import by_status, item
from together_batches.cli._listing.labels import labels_in_thread
from together_batches.cli._notify.delivery import Notifier, NotifyOptions, notify_options, notifying
from together_batches.cli._notify.notifications import job_ended
from together_batches.cli._terminal.commands import command
from together_batches.cli._terminal.exits import Exit, code_of_many
from together_batches.cli._terminal.loop import in_loop, report_early_end
from together_batches.cli._terminal.text import (
    can_redraw,
    count_of,
    format_count,
    is_terminal,
    print_err,
    print_error,
)
from together_batches.errors import AuthenticationError, BatchesError, UsageError, WaitTimeoutError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from together_batches.cli._listing.labels import Labels
    from together_batches.client import AsyncBatches


@command("wait", Exit.NOT_FOUND, Exit.SOME_FAILED, Exit.ENDED_BADLY)
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=True)
@patience_option(60)
@notify_options()
@service_options
def wait(common: Common, ids: tuple[str, ...], patience: float, notify: NotifyOptions) -> Exit:
    """Wait for jobs, and print each as it finishes. The exit code is 0 if all of them
    completed. Interrupting the wait leaves the jobs alone. Each ends as COMPLETED,
    FAILED, EXPIRED or CANCELLED.

    examples:
      together-batches wait ID                      until it has finished
      together-batches wait ID ID ID --json         each as it finishes
      together-batches wait - --timeout 3600 < ids.txt
      together-batches wait ID --exec 'echo "$TOGETHER_BATCHES_STATUS" | mail me'
    """
    job_ids = ids_or_input(ids)
    if not job_ids:
        print_err("standard input has no ids; there is nothing to wait for")
        return Exit.DONE
    finished: list[BatchJob] = []
    with report_early_end(lambda: f"{summary(finished, len(job_ids))}; the jobs were left alone"):
        return _notified(common, job_ids, patience, finished, notify)


@in_loop
async def _notified(
    common: Common, ids: list[str], patience: float, finished: list[BatchJob], notify: NotifyOptions
) -> Exit:
    labels = await labels_in_thread({*ids, *map(str.lower, ids)})  # the service returns ids in lower case
    async with notifying(common, notify, labels=labels) as notifier:
        code = await _wait(common, ids, patience, finished, notifier, labels)
    return notifier.exit(code)


async def _wait(
    common: Common, ids: list[str], patience: float, finished: list[BatchJob], notifier: Notifier, labels: Labels
) -> Exit:
    began = time.monotonic()
    errors: list[BatchesError] = []
    timed_out = False

    def note_end(job: BatchJob) -> None:
        finished.append(job)
        notifier.send(job_ended(job))  # first, because a closed pipe ends the command
        print_finished(common, job, labels)

    async with connected(common, limited=False) as batches:
        notifier.report_stuck(batches)
        try:
            if len(ids) == 1:
                note = partial(note_change, common)
                job = await batches.wait(ids[0], timeout=common.timeout, patience=patience, on_update=note)
                note_end(job)
            else:
                await _wait_for_many(batches, common, ids, patience, note_end)
        except (AuthenticationError, UsageError):
            raise
        except BatchesError as error:
            timed_out = isinstance(error, WaitTimeoutError)
            errors = [error]
        except ExceptionGroup as several:
            errors = list(cast("ExceptionGroup[BatchesError]", several).exceptions)  # type: ignore[arg-type]
    code = concluded(common, finished, errors, len(ids), time.monotonic() - began)
    return Exit.TIMED_OUT if timed_out else code


def concluded(
    common: Common, finished: Sequence[BatchJob], errors: Sequence[BatchesError], total: int, seconds: float
) -> Exit:
    """Print the errors and the summary of a wait for so many jobs, and return its exit code."""
    for each in errors:
        print_error(str(each))
    common.note(f"{summary(finished, total)}; took {seconds:.1f} s")
    if errors:
        return code_of_many(errors, total)
    return Exit.DONE if all(map(_completed, finished)) else Exit.ENDED_BADLY


async def _wait_for_many(
    batches: AsyncBatches, common: Common, ids: list[str], patience: float, note_end: Callable[[BatchJob], None]
) -> None:
    # On one screen the lines show the progress, and a bar would be drawn over them.
    shown = common.shows_progress and can_redraw(sys.stderr) and not is_terminal(sys.stdout)
    done = bad = 0
    with terminal_bar(Meter("Waiting"), shown=shown) as show:
        async with batches.as_completed(ids, timeout=common.timeout, patience=patience) as jobs:
            async for job in jobs:
                note_end(job)
                done += 1
                bad += not _completed(job)
                show(done, len(ids), f"{format_count(bad)} failed" if bad else "")


def _completed(job: BatchJob) -> bool:
    return job.status == BatchJobStatus.COMPLETED


def summary(finished: Sequence[BatchJob], total: int) -> str:
    """Return how many of the jobs have finished, by status."""
    text = f"{format_count(len(finished))} of {count_of(total, 'job')} finished"
    return f"{text}: {by_status(finished)}" if finished else text


def note_change(common: Common, job: BatchJob) -> None:
    """Print the new state of a job during a wait."""
    if not job.is_terminal:
        done = "" if job.progress is None else f", {job.progress:g} % done"
        common.note(f"{job.status or 'without a status'}{done}")


def print_finished(common: Common, job: BatchJob, labels: Labels) -> None:
    """Print a job that has finished, and flush; in a pipe with the columns that the reference names."""
    facts = (job.status, job.output_file_id, job.error_file_id, job.error)
    print(item(common, job.id, job, labels, cells=facts, shown=facts[:1], note=job.error), flush=True)
