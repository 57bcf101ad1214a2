"""The commands ``together-batches cancel`` and ``run --cancel``, and the output of a bulk cancel."""

from __future__ import annotations

import contextlib
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from together_batches.cli._command import Common, command, option, service_options
from together_batches.cli._exits import CommandError, Exit, code_of_many
from together_batches.cli._ids import ids_argument, ids_or_input, is_input
from together_batches.cli._jobs import by_status, chosen_jobs, filter_options
from together_batches.cli._loop import confirmed, connected, in_loop, last_words, time_limit
from together_batches.cli._numbers import above_zero, at_least_one
from together_batches.cli._progress import bar
from together_batches.cli._streams import printer
from together_batches.cli._text import (
    as_json,
    can_redraw,
    columns,
    count_of,
    escape,
    format_count,
    is_terminal,
    print_err,
)
from together_batches.errors import APITimeoutError
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from together_batches.client import AsyncBatches
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


@command("cancel")
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=False)
@option("--all", "every job that has not finished; other filters narrow it", "every")
@filter_options("jobs of this status, finished ones included if it is one; may be repeated")
@option("--dry-run", "print what would be cancelled, and cancel nothing")
@option("--yes", "no prompt; required for - and filters without a terminal")
@option("--wait", "follow each job until it has really stopped")
@option("--max-concurrency N", "cancels at once (100)", type=at_least_one)
@option("--rate R", "at most so many requests a second", type=above_zero)
@service_options
def cancel(
    common: Common,
    ids: tuple[str, ...],
    every: bool,
    dry_run: bool,
    yes: bool,
    wait: bool,
    max_concurrency: int | None,
    rate: float | None,
    **filters: Any,
) -> Exit:
    """Cancel the jobs whose ids are given, or that standard input names, or that the
    filters choose. A cancel may be repeated, and does no harm to a job that has
    finished. One that is refused while its job goes on is a failure.

    examples:
      together-batches cancel ID                    cancel one job
      together-batches cancel - --yes < ids.txt     what a file names, an id a line
      together-batches cancel --all                 all unfinished, after a prompt
      together-batches cancel --status IN_PROGRESS --older-than 2h --yes --wait
    """
    if (has_filters := every or any(given not in (None, ()) for given in filters.values())) and ids:
        message = "ids and filters were given; give ids or filters, not both"
        raise CommandError(message)
    if not (has_filters or ids):
        message = (
            "no jobs are given; give ids, or - to read them from standard input, "
            "or filters such as --all or --status IN_PROGRESS"
        )
        raise CommandError(message)
    work = _Cancel(common, max_concurrency=max_concurrency, rate=rate, wait=wait)
    if has_filters:
        with work.reported():
            return work.run_filtered(filters, dry_run=dry_run, yes=yes)
    job_ids = ids_or_input(ids)
    if not job_ids:
        print_err("standard input has no ids; there is nothing to cancel")
        return Exit.DONE
    if dry_run:
        for job_id in job_ids:
            print(as_json({"job_id": job_id}) if common.json else escape(job_id))
        return Exit.DONE
    if is_input(ids):
        common.note(f"{count_of(len(job_ids), 'job')} named on standard input")
        if not cancel_confirmed(len(job_ids), yes=yes):
            return _declined()
    with work.reported():
        return work.run(job_ids)


def cancel_run(common: Common, directory: Path, *, wait: bool) -> Exit:
    """Cancel the unfinished jobs of a run, without a prompt because the run was named."""
    work = _Cancel(common, wait=wait)
    with work.reported():
        return work.run_of(directory)


class _Cancel:
    """One bulk cancel and its progress."""

    def __init__(self, common: Common, *, wait: bool, **pace: Any) -> None:
        self._common = common
        self._wait = wait
        self._pace = pace
        self._seconds_left = common.timeout
        self._total = 0
        self._begun = 0
        """Number of ids that were started; those without an outcome may have been sent."""
        self._seen: dict[str, CancelOutcome] = {}
        self._ended = self._failed = self._not_found = 0
        self._prints_lines = True
        """Whether each outcome is printed as a line of text on standard output."""

    @in_loop
    async def run(self, ids: list[str]) -> Exit:
        """Cancel the jobs with these ids."""
        async with connected(self._common, limited=False) as batches:
            return await self._cancel(batches, ids)

    @in_loop
    async def run_filtered(self, filters: dict[str, Any], *, dry_run: bool, yes: bool) -> Exit:
        """Cancel the jobs that match the filters, after a prompt."""
        common = self._common
        async with connected(common, limited=False) as batches:
            began = time.monotonic()
            async with time_limit(common.timeout, " while listing jobs; nothing was cancelled"):
                jobs, _ = chosen = await chosen_jobs(batches, **filters)
            if common.timeout is not None:
                self._seconds_left = max(0.0, common.timeout - (time.monotonic() - began))
            if note := chosen.note():
                common.note(note)
            if not jobs:
                common.note("no job matches; there is nothing to cancel")
                return Exit.DONE
            if dry_run:
                for job in jobs:
                    print(as_json(job) if common.json else escape(job.id))
            common.note(f"{count_of(len(jobs), 'job')}: {by_status(jobs)}")
            if dry_run:
                return Exit.DONE
            if not cancel_confirmed(len(jobs), yes=yes):
                return _declined()
            return await self._cancel(batches, jobs)

    @in_loop
    async def run_of(self, directory: Path) -> Exit:
        """Cancel the unfinished jobs of a run."""
        async with connected(self._common, limited=False) as batches:
            found = await batches.unfinished_jobs(directory)
            for file_id in found.unconfirmed:
                print_err(f"a create from {file_id} could not be confirmed: its job may run, and is not cancelled")
            if not found.jobs:
                if found.unconfirmed:
                    print_err("no other job of the run has to be cancelled; run this again later")
                    return Exit.SOME_FAILED
                self._common.note(f"every job of the run in {directory} has ended; there is nothing to cancel")
                return Exit.DONE
            self._common.note(f"{count_of(len(found.jobs), 'job')} of the run in {directory}")
            code = await self._cancel(batches, list(found.jobs))
            return Exit.SOME_FAILED if found.unconfirmed and code is Exit.DONE else code

    async def _cancel(self, batches: AsyncBatches, chosen: list[str] | list[BatchJob]) -> Exit:
        common = self._common
        self._total = len(chosen)
        on_screen = is_terminal(sys.stdout)
        each = common.json or not on_screen or self._total <= FEW
        self._prints_lines = each and not common.json
        shown = (
            (self._total > FEW or self._wait)
            and can_redraw(sys.stderr)
            and common.shows_progress
            and not (each and on_screen)  # the lines show the progress, and a bar would be drawn over them
        )
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            out = await stack.enter_async_context(printer())
            show = stack.enter_context(bar(self._total, shown=shown))

            def on_outcome(outcome: CancelOutcome) -> None:
                self._note(outcome)
                # Flushed one by one, so that a reader sees them; a reader that has stopped delays no cancel.
                if common.json:
                    out.line(as_json(outcome))
                elif each and outcome.event != "accepted":
                    out.line(outcome_line(outcome))
                show(self._ended, self._failed, self._notes())

            report = await batches.cancel_many(
                self._begin(chosen),
                wait=self._wait,
                timeout=self._seconds_left,
                on_outcome=on_outcome,
                **self._pace,
            )
        elapsed = time.monotonic() - began
        if not each:
            for failure in report.failures:
                print(outcome_line(failure))
            if not report.ok:
                print()
            print_table(report)
        return self._end(report, elapsed)

    def _begin(self, chosen: Iterable[str | BatchJob]) -> Iterator[str | BatchJob]:
        """Yield the chosen jobs, and count each as it is started."""
        for job in chosen:
            self._begun += 1
            yield job

    def _note(self, outcome: CancelOutcome) -> None:
        self._seen[outcome.job_id] = outcome
        if outcome.event != "accepted":
            self._ended += 1
            self._not_found += outcome.result is CancelResult.NOT_FOUND
            self._failed += not outcome.ok and outcome.result is not CancelResult.NOT_FOUND

    def _notes(self) -> str:
        """Return the text beside the bar: jobs that are stopping, and ids that the service does not know."""
        stopping = len(self._seen) - self._ended
        parts = (
            f"{format_count(stopping)} accepted and stopping" if stopping else "",
            f"{format_count(self._not_found)} not found" if self._not_found else "",
        )
        return ", ".join(filter(None, parts))

    def _end(self, report: CancelReport, elapsed: float) -> Exit:
        """Print the summary and return the exit code."""
        common, wait = self._common, self._wait
        draining = report.counts[CancelResult.CANCELING]
        summary = f"{report}; took {elapsed:.1f} s"
        if draining and not wait and is_terminal(sys.stderr):
            summary += "; what is canceling stops by itself, and --wait follows it"
        failures = list(report.failures)
        if wait and draining:
            failures += [outcome for outcome in report if outcome.result is CancelResult.CANCELING]
        is_over = self._seconds_left is not None and elapsed >= self._seconds_left
        if is_over and any(map(_was_cut_off, failures)):
            common.note(f"{summary}; timed out after {common.timeout:g} s: run it again to go on")
            return Exit.TIMED_OUT
        common.note(summary)
        return code_of_many([failure.error for failure in failures], len(report))

    @contextmanager
    def reported(self) -> Generator[None]:
        """Report the progress of the cancel if it is interrupted, or if the reader of its output closes the pipe."""
        with last_words(self._last_words):
            try:
                yield
            except BrokenPipeError:
                # Harmless to a command that prints, but not if jobs that should stop are still running.
                if self._ended < self._total:
                    print_err(f"the output was closed by its reader: {self._unfinished()}")
                raise

    def _last_words(self) -> str:
        """Return the progress, after the lines of the jobs that are still stopping because they were accepted."""
        if not self._total:
            return ""
        if self._prints_lines and self._wait:
            with contextlib.suppress(OSError):  # a terminal that hung up cannot be written to
                for outcome in self._stopping().values():
                    if outcome.event == "accepted":
                        print(outcome_line(outcome))
                sys.stdout.flush()
        return self._unfinished()

    def _unfinished(self) -> str:
        """Return the progress, and how to resume."""
        stopping = self._stopping()
        ended = CancelReport(outcome for outcome in self._seen.values() if outcome.job_id not in stopping)
        counts = {
            "accepted and still stopping": len(stopping),
            "in flight": self._begun - len(self._seen),
            "not sent": self._total - self._begun,
        }
        parts = [
            str(ended) if len(ended) else "",
            *(f"{format_count(count)} {state}" for state, count in counts.items() if count),
        ]
        return f"{', '.join(filter(None, parts))}; run it again to go on, a repeated cancel does no harm"

    def _stopping(self) -> dict[str, CancelOutcome]:
        return {name: outcome for name, outcome in self._seen.items() if outcome.result is CancelResult.CANCELING}


def _was_cut_off(outcome: CancelOutcome) -> bool:
    """Return whether this job is unfinished because the time limit ran out."""
    return outcome.result is CancelResult.CANCELING or isinstance(outcome.error, APITimeoutError)


def _declined() -> Exit:
    print_err("nothing was cancelled")
    return Exit.FAILED


def cancel_confirmed(count: int, *, yes: bool) -> bool:
    refusal = "nothing was cancelled: there is no terminal for a prompt; add --yes, or look first with --dry-run"
    return confirmed(f"Cancel {count_of(count, 'job')}?", refusal, yes=yes)


# --- the output


def outcome_line(outcome: CancelOutcome) -> str:
    """Return ``ID<TAB>result<TAB>detail``; the detail is the error, or else the job's status."""
    status = outcome.job.status if outcome.job else None
    return "\t".join(columns((outcome.job_id, outcome.result, str(outcome.error) if outcome.error else status)))


def print_table(report: CancelReport) -> None:
    """Print the number of jobs with each result, and its meaning, on standard output."""
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
            drawn.add_row(result.words, format_count(count), escape(meaning), style=style)
    if anyway:
        drawn.add_row(
            "completed anyway", format_count(anyway), "accepted, and they completed all the same", style="yellow"
        )
    Console(file=sys.stdout, highlight=False, markup=False).print(drawn)
