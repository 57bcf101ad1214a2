"""``together-batches cancel``."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit, code_of_many
from together_batches.cli._progress import bar
from together_batches.cli._report import outcome_json, outcome_line, print_table
from together_batches.cli._runs import named
from together_batches.cli._selecting import by_status, chosen_jobs, confirmed, selector, typed_or_read
from together_batches.cli._text import as_json, draws_on, escape, is_terminal, number, say
from together_batches.errors import APITimeoutError, BatchesError
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult
from together_batches.runs._running import unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
        say(work.unfinished("interrupted"))
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # A reader that leaves is no trouble for those who print. Jobs that were to stop and still run are.
        if len(work.seen) < work.total:
            say(work.unfinished("nobody reads the output any more"))
        raise


@attrs.define
class _Work:
    """One cancel, and how far it has come: an interrupt leaves this behind."""

    arguments: Arguments
    seconds_left: float | None = None
    total: int = 0
    seen: list[CancelOutcome] = attrs.field(factory=list[CancelOutcome])
    failed: int = 0

    async def run(self, ids: list[str] | None) -> Exit:
        """Choose, ask, cancel and tell."""
        arguments = self.arguments
        self.seconds_left = arguments.deadline
        async with connected(arguments) as batches:
            chosen: list[str] | list[BatchJob]
            if ids is None:
                chosen = await self._list(batches)
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

    async def _list(self, batches: AsyncBatches) -> list[BatchJob]:
        began = time.monotonic()
        try:
            with anyio.fail_after(self.seconds_left):
                jobs = await chosen_jobs(batches, self.arguments)
        except TimeoutError as error:
            if isinstance(error, BatchesError):
                raise  # one attempt's limit, not ours
            message = (
                f"the {self.arguments.deadline:g} s were over before the jobs were listed; nothing was cancelled"
            )
            raise CommandError(message, Exit.TIMED_OUT) from None
        if self.seconds_left is not None:
            self.seconds_left = max(0.0, self.seconds_left - (time.monotonic() - began))
        return jobs

    async def _cancel(self, batches: AsyncBatches, chosen: list[str] | list[BatchJob]) -> Exit:
        arguments = self.arguments
        self.total = len(chosen)
        on_screen = is_terminal(sys.stdout)
        each = arguments.json or not on_screen or self.total <= FEW
        shown = (
            (self.total > FEW or arguments.wait)
            and draws_on(sys.stderr)
            and not (arguments.quiet or arguments.verbose)
            and not (each and on_screen)  # the lines are progress enough, and would be drawn over
        )
        began = time.monotonic()
        with bar(self.total, shown=shown) as show:

            def on_outcome(outcome: CancelOutcome) -> None:
                self.seen.append(outcome)
                self.failed += not outcome.ok
                if each:
                    # Flushed one by one, so that a reader sees them as they come: 6 µs beside a request's 200.
                    print(outcome_json(outcome) if arguments.json else outcome_line(outcome), flush=True)
                show(len(self.seen), self.failed)

            report = await batches.cancel_many(
                chosen,
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
        """How far it came, and that it may be gone on with."""
        report = CancelReport(self.seen)
        return (
            f"{why}: {number(len(report))} of {_jobs(self.total)} answered: {report}; "
            "run it again to go on, a repeated cancel does no harm"
        )


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
