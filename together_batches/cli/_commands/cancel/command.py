"""The commands ``together-batches cancel`` and ``run --cancel``."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches._display.progress import Meter, terminal_bar
from together_batches._display.tallies import CancelTally, in_words
from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, service_options
from together_batches.cli._commands.cancel.output import (
    FEW,
    by_label,
    by_model,
    counted,
    named,
    outcome_item,
    print_failures,
    print_table,
)
from together_batches.cli._commands.cancel.report import Report
from together_batches.cli._inputs.ids import ids_argument, ids_or_input, is_input, without
from together_batches.cli._listing.columns import View, by_status, print_jobs
from together_batches.cli._listing.filters import chosen_jobs, filter_options
from together_batches.cli._listing.labels import NO_LABELS, labelled, labels_in_thread, labels_of
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit, code_of_many
from together_batches.cli._terminal.loop import confirmed, in_loop, report_early_end, time_limit
from together_batches.cli._terminal.numbers import above_zero, at_least_one
from together_batches.cli._terminal.streams import printer
from together_batches.cli._terminal.text import (
    as_json,
    can_redraw,
    count_of,
    escape,
    is_terminal,
    print_err,
    print_lines,
)
from together_batches.errors import APITimeoutError
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob


@command("cancel", Exit.NOT_FOUND, Exit.SOME_FAILED)
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=False)
@option("--all", "every job that has not finished; other filters narrow it", "every")
@filter_options("jobs of this status, finished ones included if it is one; may be repeated")
@option("--dry-run", "print what would be cancelled, and cancel nothing")
@option("--yes", "no prompt; required for - and filters without a terminal")
@option("--wait", "follow each job until it has really stopped")
@option(
    "--report FILE",
    "record every id, and then its outcomes, in this new file: CSV or JSON Lines by its ending, .csv or .jsonl",
    complete="file",
)
@option("--resume FILE", "resume from a report: cancel those whose result is not final", complete="file")
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
    report: str | None,
    resume: str | None,
    max_concurrency: int | None,
    rate: float | None,
    **filters: Any,
) -> Exit:
    """Cancel the jobs whose ids are given, or that standard input names, or that the
    filters choose. A cancel may be repeated, and does no harm to a job that has
    finished. One that is refused while its job still runs is a failure.

    The result of each id:
      cancelled         it has stopped; rows that were done are kept
      canceling         the cancel was accepted; it stops in a moment: see --wait
      already_finished  it had ended before, or completed all the same
      not_found         there is no such job
      denied            the key was refused
      failed            the cancel was refused or failed, or the id is invalid
      not_attempted     nothing was sent
    In a report, selected is an id without an outcome; its last line counts.

    examples:
      together-batches cancel ID                    cancel one job
      together-batches cancel - --yes < ids.txt     what a file names, an id a line
      together-batches cancel --all                 all unfinished, after a prompt
      together-batches cancel --all --model M --except keep.txt --dry-run
      together-batches cancel --model M --yes --wait --report stopped.csv
      together-batches cancel --label nightly       those that you labelled so
      together-batches cancel --resume stopped.csv --wait
    """
    chooses = every or any(values for name, values in filters.items() if name != "excepted")
    _check_choice(ids, chooses, resume=resume, report=report, dry_run=dry_run, excepted=filters["excepted"])
    file, job_ids = _report_of(report, resume)
    work = _Cancel(common, max_concurrency=max_concurrency, rate=rate, wait=wait, report=file)
    if resume is None and not ids:
        with work.reported():
            return work.run_filtered(filters, dry_run=dry_run, yes=yes)
    if resume is None:
        job_ids = without(ids_or_input(ids), filters["excepted"])
    if not job_ids:
        return work.nothing(_source(ids, resume))
    if dry_run:
        print_lines(named(job_ids, json=common.json))
        return Exit.DONE
    if is_input(ids):
        common.note(f"{count_of(len(job_ids), 'job')} named on standard input")
        for note in by_label(labels_of(job_ids)):
            common.note(note)
        if not cancel_confirmed(len(job_ids), yes=yes):
            return _declined()
    with work.reported():
        return work.run(job_ids)


def _check_choice(
    ids: Sequence[str],
    has_filters: bool,
    *,
    resume: str | None,
    report: str | None,
    dry_run: bool,
    excepted: Sequence[str],
) -> None:
    """Raise :class:`CommandError` unless the jobs are chosen in exactly one way."""
    message = None
    if resume is not None and (ids or has_filters or excepted):
        message = "--resume takes the ids of the report, and no other ids or filters"
    elif resume is not None and report is not None:
        message = "--resume continues the report that it names; leave out --report"
    elif has_filters and ids:
        message = "ids and filters were given; give ids or filters, not both"
    elif not (has_filters or ids or resume):
        message = (
            "no jobs are given; give ids, or - to read them from standard input, "
            "or filters such as --all or --status IN_PROGRESS"
        )
    elif dry_run and report is not None:
        message = "--dry-run cancels nothing, so there is nothing for --report to record"
    if message is not None:
        raise CommandError(message)


def _report_of(new: str | None, resume: str | None) -> tuple[Report | None, list[str]]:
    """Return the report, and the ids that are left in an existing one."""
    if resume is not None:
        return Report.existing(resume)
    return (None if new is None else Report.new(new)), []


def _source(ids: tuple[str, ...], resume: str | None) -> str:
    """Return why there are no ids."""
    if resume is not None:
        return f"every result in {resume} is final"
    return "standard input has no ids" if is_input(ids) else "every id is left out"


def cancel_run(common: Common, directory: Path, *, wait: bool) -> Exit:
    """Cancel the unfinished jobs of a run, without a prompt because the run was named."""
    work = _Cancel(common, wait=wait)
    with work.reported():
        return work.run_of(directory)


class _Output(NamedTuple):
    """How the outcomes of a bulk cancel are shown."""

    prints_each: bool = False
    """Whether each is printed on standard output; otherwise tables are, at the end."""
    has_bar: bool = False

    @classmethod
    def of(cls, common: Common, jobs: int, *, wait: bool) -> _Output:
        """Return what suits so many jobs."""
        on_screen = is_terminal(sys.stdout)
        prints_each = common.json or not on_screen or jobs <= FEW
        may_draw = can_redraw(sys.stderr) and common.shows_progress
        # On a screen the outcomes show the progress, and a bar would be drawn over them.
        return cls(prints_each, (jobs > FEW or wait) and may_draw and not (prints_each and on_screen))


class _Cancel:
    """One bulk cancel and its progress."""

    def __init__(self, common: Common, *, wait: bool, report: Report | None = None, **pace: Any) -> None:
        self._common = common
        self._report = report
        self._wait = wait
        self._pace = pace
        self._seconds_left = common.timeout
        self._total = 0
        self._begun = 0
        """Number of ids that were started; those without an outcome may have been sent."""
        self._tally = CancelTally()
        self._labels = NO_LABELS
        self._output = _Output()

    def nothing(self, reason: str) -> Exit:
        """End without a job to cancel; the report is one without lines."""
        self._common.note(f"{reason}; there is nothing to cancel")
        if self._report is not None:
            self._report.begin(())
            self._report.close()
        return Exit.DONE

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
                return self.nothing("no job matches")
            labels = await labels_in_thread(job.id for job in jobs)
            if dry_run and common.json:
                print_lines(as_json(labelled(job, labels.get(job.id))) for job in jobs)
            elif dry_run and is_terminal(sys.stdout):
                print_jobs(common, jobs, jobs.seen_at or datetime.now(UTC), View())
            elif dry_run:
                print_lines(escape(job.id) for job in jobs)
            common.note(f"{count_of(len(jobs), 'job')}: {by_status(jobs)}")
            for line in (*by_model(jobs), *by_label(labels)):
                common.note(line)
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
        from anyio import to_thread

        common = self._common
        self._total = len(chosen)
        output = self._output = _Output.of(common, self._total, wait=self._wait)
        self._labels = labels = await labels_in_thread(job if isinstance(job, str) else job.id for job in chosen)
        if self._report is not None:
            self._report.labels = labels
            await to_thread.run_sync(self._report.begin, chosen)
        began = time.monotonic()
        async with printer() as out:
            with terminal_bar(Meter("Cancelling"), shown=output.has_bar) as show:

                def on_outcome(outcome: CancelOutcome) -> None:
                    self._tally.note(outcome)
                    if self._report is not None:
                        self._report.add(outcome)
                    # Flushed one by one, so that a reader sees them; a reader that has stopped delays no cancel.
                    if output.prints_each and (common.json or outcome.event != "accepted"):
                        out.line(outcome_item(common, outcome, labels))
                    show(self._tally.done, self._total, self._tally.notes)

                report = await batches.cancel_many(
                    self._begin(chosen),
                    wait=self._wait,
                    timeout=self._seconds_left,
                    on_outcome=on_outcome,
                    **self._pace,
                )
        elapsed = time.monotonic() - began
        if self._report is not None:
            await to_thread.run_sync(self._report.close)
        if not output.prints_each:
            if not report.ok:
                print_failures(report.failures, labels)
                print()
            print_table(report)
        return self._end(report, elapsed)

    def _begin(self, chosen: Iterable[str | BatchJob]) -> Iterator[str | BatchJob]:
        """Yield the chosen jobs, and count each as it is started."""
        for job in chosen:
            self._begun += 1
            yield job

    def _end(self, report: CancelReport, elapsed: float) -> Exit:
        """Print the summary and return the exit code."""
        common, wait = self._common, self._wait
        draining = report.counts[CancelResult.CANCELING]
        summary = f"{report}; took {elapsed:.1f} s"
        if draining and not wait and is_terminal(sys.stderr):
            summary += "; what is canceling stops by itself, and --wait follows it"
        if self._report is not None:
            summary += f"; the report is {self._report.path}"
        failures = list(report.failures)
        if wait and draining:
            failures += [outcome for outcome in report if outcome.result is CancelResult.CANCELING]
        is_over = self._seconds_left is not None and elapsed >= self._seconds_left
        if is_over and any(map(_was_cut_off, failures)):
            common.note(f"{summary}; timed out after {common.timeout:g} s: {self._next()}")
            return Exit.TIMED_OUT
        common.note(summary)
        code = code_of_many([failure.error for failure in failures], len(report))
        is_recorded = self._report is None or self._report.is_complete
        return code if code is not Exit.DONE or is_recorded else Exit.FAILED

    def _next(self) -> str:
        """Return how to resume."""
        if self._report is not None:
            return f"cancel --resume {self._report.path} resumes it"
        return "run it again to resume"

    @contextmanager
    def reported(self) -> Generator[None]:
        """Report the progress of the cancel if it is interrupted, or if the reader of its output closes the pipe.

        Its report is complete in any case.
        """
        with report_early_end(self._state):
            try:
                yield
            except BrokenPipeError:
                # Harmless to a command that prints, but not if jobs that should stop are still running.
                if self._tally.done < self._total:
                    print_err(f"the output was closed by its reader: {self._unfinished()}")
                raise
            finally:
                if self._report is not None:
                    self._report.close()

    def _state(self) -> str:
        """Return the progress, after the lines of the jobs that are still stopping because they were accepted."""
        if not self._total:
            return ""
        if self._output.prints_each and self._wait and not self._common.json:
            with suppress(OSError):  # a terminal that hung up cannot be written to
                for outcome in self._tally.followed.values():
                    print(outcome_item(self._common, outcome, self._labels))
                sys.stdout.flush()
        return self._unfinished()

    def _unfinished(self) -> str:
        """Return the progress, and how to resume."""
        counts = {
            "in flight": self._begun - self._tally.done - len(self._tally.followed),
            "not sent": self._total - self._begun,
        }
        parts = filter(None, (counted(self._tally), in_words(counts)))
        return f"{', '.join(parts)}; {self._next()}, a repeated cancel does no harm"


def _was_cut_off(outcome: CancelOutcome) -> bool:
    """Return whether this job is unfinished because the time limit ran out."""
    return outcome.result is CancelResult.CANCELING or isinstance(outcome.error, APITimeoutError)


def _declined() -> Exit:
    print_err("nothing was cancelled")
    return Exit.FAILED


def cancel_confirmed(count: int, *, yes: bool) -> bool:
    refusal = "nothing was cancelled: there is no terminal for a prompt; add --yes, or look first with --dry-run"
    return confirmed(f"Cancel {count_of(count, 'job')}?", refusal, yes=yes)
