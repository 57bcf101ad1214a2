"""``together-batches cancel``."""

from __future__ import annotations

import contextlib
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit, code_of_many
from together_batches.cli._printing import printer
from together_batches.cli._progress import bar
from together_batches.cli._report import outcome_json, outcome_line, print_table
from together_batches.cli._runs import named
from together_batches.cli._selecting import Chosen, by_status, chosen_jobs, confirmed, selector, typed_or_read
from together_batches.cli._text import as_json, draws_on, escape, is_terminal, number, say
from together_batches.errors import APITimeoutError, BatchesError
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult
from together_batches.runs._running import unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from together_batches.cli._parser import Arguments
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob

__all__ = ["cancel", "cancel_run"]

FEW = 20
"""Up to so many jobs each gets its line on a terminal; more of them get a bar, and a table at the end."""


def cancel(arguments: Arguments) -> Exit:
    """Cancel the jobs that were chosen, and tell what became of each."""
    ids: list[str] | None = None
    way = selector(arguments)
    if way != "filters":
        ids = typed_or_read(arguments)
        if not ids:
            say("no ids came from standard input; there is nothing to cancel")
            return Exit.DONE
        if arguments.dry_run:
            for job_id in ids:
                print(as_json({"job_id": job_id}) if arguments.json else escape(job_id))
            return Exit.DONE
        if way == "stdin":
            _tell(arguments, f"{_jobs(len(ids))} named on standard input")
            if not confirmed(len(ids), yes=arguments.yes):
                return _declined()
    work = _Work(arguments)
    return _carried_out(work, partial(work.run, ids))


def cancel_run(arguments: Arguments, directory: str) -> Exit:
    """Cancel the jobs of a run that have not ended. The run was named, so nobody is asked."""
    work = _Work(arguments)
    return _carried_out(work, partial(work.run_of, named(Path(directory))))


def _carried_out(work: _Work, start: Callable[[], Awaitable[Exit]]) -> Exit:
    try:
        return _loop.run(start)
    except KeyboardInterrupt:
        if not work.total:
            raise
        with contextlib.suppress(OSError):  # a terminal that hung up takes no last words
            work.print_unended()
            say(work.unfinished("interrupted"))
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # A reader that leaves is no trouble for those who print. Jobs that were to stop and still run are.
        if work.ended < work.total:
            say(work.unfinished("the output was closed by its reader"))
        raise


@attrs.define
class _Work:
    """One cancel, and how far it has come: an interrupt leaves this behind."""

    arguments: Arguments
    seconds_left: float | None = None
    total: int = 0
    begun: int = 0
    """How many ids were taken up; those without an outcome may have been sent."""
    seen: dict[str, CancelOutcome] = attrs.field(factory=dict[str, CancelOutcome])
    ended: int = 0
    failed: int = 0
    not_found: int = 0
    lines: bool = True
    """Whether each outcome gets a line of text on standard output."""

    async def run(self, ids: list[str] | None) -> Exit:
        """Choose, ask, cancel and tell."""
        arguments = self.arguments
        self.seconds_left = arguments.deadline
        async with connected(arguments) as batches:
            chosen: list[str] | list[BatchJob]
            if ids is None:
                chosen, _ = found = await self._list(batches)
                if note := found.note():
                    _tell(arguments, note)
                if not chosen:
                    _tell(arguments, "no job matches; there is nothing to cancel")
                    return Exit.DONE
                if arguments.dry_run:
                    for job in chosen:
                        print(as_json(to_dict(job)) if arguments.json else escape(job.id))
                _tell(arguments, f"{_jobs(len(chosen))}: {by_status(chosen)}")
                if arguments.dry_run:
                    return Exit.DONE
                if not confirmed(len(chosen), yes=arguments.yes):
                    return _declined()
            else:
                chosen = ids
            return await self._cancel(batches, chosen)

    async def run_of(self, directory: Path) -> Exit:
        """Cancel what a run has under way."""
        async with connected(self.arguments) as batches:
            found = await unfinished(directory, batches.list)
            for file_id in found.unconfirmed:
                say(f"a create from {file_id} could not be confirmed: its job may run, and is not cancelled")
            if not found.jobs:
                if found.unconfirmed:
                    say("no other job of the run has to be cancelled; run this again later")
                    return Exit.SOME_FAILED
                _tell(self.arguments, f"every job of the run in {directory} has ended; there is nothing to cancel")
                return Exit.DONE
            _tell(self.arguments, f"{_jobs(len(found.jobs))} of the run in {directory}")
            ended = await self._cancel(batches, list(found.jobs))
            return Exit.SOME_FAILED if found.unconfirmed and ended is Exit.DONE else ended

    async def _list(self, batches: AsyncBatches) -> Chosen:
        began = time.monotonic()
        try:
            with anyio.fail_after(self.seconds_left):
                jobs = await chosen_jobs(batches, self.arguments)
        except TimeoutError as error:
            if isinstance(error, BatchesError):
                raise  # one attempt's limit, not ours
            message = f"timed out after {self.arguments.deadline:g} s while listing jobs; nothing was cancelled"
            raise CommandError(message, Exit.TIMED_OUT) from None
        if self.seconds_left is not None:
            self.seconds_left = max(0.0, self.seconds_left - (time.monotonic() - began))
        return jobs

    async def _cancel(self, batches: AsyncBatches, chosen: list[str] | list[BatchJob]) -> Exit:
        arguments = self.arguments
        self.total = len(chosen)
        on_screen = is_terminal(sys.stdout)
        each = arguments.json or not on_screen or self.total <= FEW
        self.lines = each and not arguments.json
        shown = (
            (self.total > FEW or arguments.wait)
            and draws_on(sys.stderr)
            and not (arguments.quiet or arguments.verbose)
            and not (each and on_screen)  # the lines are progress enough, and would be drawn over
        )
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            out = await stack.enter_async_context(printer())
            show = stack.enter_context(bar(self.total, shown=shown))

            def on_outcome(outcome: CancelOutcome) -> None:
                self._note(outcome)
                # Flushed as they come, so that a reader sees them; one that reads nothing holds up no cancel.
                if arguments.json:
                    out.line(outcome_json(outcome))
                elif each and outcome.event != "accepted":
                    out.line(outcome_line(outcome))
                show(self.ended, self.failed, self._notes())

            report = await batches.cancel_many(
                self._begin(chosen),
                max_concurrency=arguments.max_concurrency,
                rate=arguments.rate,
                wait=arguments.wait,
                timeout=self.seconds_left,
                on_outcome=on_outcome,
            )
        elapsed = time.monotonic() - began
        if not each:
            for failure in report.failures:
                print(outcome_line(failure))
            if not report.ok:
                print()
            print_table(report)
        over = self.seconds_left is not None and elapsed >= self.seconds_left
        return self._end(report, elapsed, over=over)

    def _begin(self, chosen: Iterable[str | BatchJob]) -> Iterator[str | BatchJob]:
        """The chosen jobs, counted as they are taken up."""
        for job in chosen:
            self.begun += 1
            yield job

    def _note(self, outcome: CancelOutcome) -> None:
        self.seen[outcome.job_id] = outcome
        if outcome.event != "accepted":
            self.ended += 1
            self.not_found += outcome.result is CancelResult.NOT_FOUND
            self.failed += not outcome.ok and outcome.result is not CancelResult.NOT_FOUND

    def _notes(self) -> str:
        """What the bar says beside how many are done: those that are stopping, and the ids that are none."""
        stopping = len(self.seen) - self.ended
        parts = (
            f"{number(stopping)} accepted and stopping" if stopping else "",
            f"{number(self.not_found)} not found" if self.not_found else "",
        )
        return ", ".join(filter(None, parts))

    def _end(self, report: CancelReport, elapsed: float, *, over: bool) -> Exit:
        """The summary, and the exit code."""
        draining = report.counts[CancelResult.CANCELING]
        told = f"{report}; took {elapsed:.1f} s"
        if draining and not self.arguments.wait and is_terminal(sys.stderr):
            told += "; what is canceling stops by itself, and --wait follows it"
        failures = list(report.failures)
        if self.arguments.wait and draining:
            failures += [outcome for outcome in report if outcome.result is CancelResult.CANCELING]
        if over and any(map(_cut_off, failures)):
            _tell(self.arguments, f"{told}; the {self.arguments.deadline:g} s were over: run it again to go on")
            return Exit.TIMED_OUT
        _tell(self.arguments, told)
        return code_of_many([failure.error for failure in failures], len(report))

    def unfinished(self, why: str) -> str:
        """How far it came, and how to go on."""
        stopping = self._stopping()
        ended = CancelReport(outcome for outcome in self.seen.values() if outcome.job_id not in stopping)
        in_flight = self.begun - len(self.seen)
        counts = {
            "accepted and still stopping": len(stopping),
            "in flight": in_flight,
            "not sent": self.total - self.begun,
        }
        parts = [
            str(ended) if len(ended) else "",
            *(f"{number(count)} {is_}" for is_, count in counts.items() if count),
        ]
        return f"{why}: {', '.join(filter(None, parts))}; run it again to go on, a repeated cancel does no harm"

    def print_unended(self) -> None:
        """Write the lines of the jobs that are still stopping: their cancel was accepted, so their ids are said."""
        if self.lines and self.arguments.wait:
            for outcome in self._stopping().values():
                if outcome.event == "accepted":
                    print(outcome_line(outcome))
            sys.stdout.flush()

    def _stopping(self) -> dict[str, CancelOutcome]:
        return {name: outcome for name, outcome in self.seen.items() if outcome.result is CancelResult.CANCELING}


def _cut_off(outcome: CancelOutcome) -> bool:
    """Whether it was the end of the time that left this one unfinished."""
    return outcome.result is CancelResult.CANCELING or isinstance(outcome.error, APITimeoutError)


def _declined() -> Exit:
    say("nothing was cancelled")
    return Exit.FAILED


def _jobs(count: int) -> str:
    return f"{number(count)} job" if count == 1 else f"{number(count)} jobs"


def _tell(arguments: Arguments, text: str) -> None:
    if not arguments.quiet:
        say(text)
