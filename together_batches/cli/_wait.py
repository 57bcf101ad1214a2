"""``together-batches wait``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, cast

import attrs

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import Exit, code_of_many
from together_batches.cli._progress import bar
from together_batches.cli._selecting import by_status, reads_standard_input, typed_or_read
from together_batches.cli._text import as_json, complain, draws_on, escape, is_terminal, number, say
from together_batches.errors import AuthenticationError, BatchesError, UsageError, WaitTimeoutError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.cli._parser import Arguments
    from together_batches.client import AsyncBatches

__all__ = ["line_of_finished", "tell_change", "wait"]


def wait(arguments: Arguments) -> Exit:
    """Wait for these jobs, and print each as it finishes."""
    reads_standard_input(arguments.ids)
    ids = typed_or_read(arguments)
    if not ids:
        say("no ids came from standard input; there is nothing to wait for")
        return Exit.DONE
    work = _Work(arguments, ids)
    try:
        return _loop.run(work.run)
    except KeyboardInterrupt:
        say(f"interrupted: {work.summary()}; the jobs were left alone")
        return Exit.INTERRUPTED


@attrs.define
class _Work:
    """One wait, and how far it has come: an interrupt leaves this behind."""

    arguments: Arguments
    ids: list[str]
    finished: list[BatchJob] = attrs.field(factory=list[BatchJob])
    bad: int = 0

    async def run(self) -> Exit:
        """Follow, print and tell."""
        began = time.monotonic()
        errors: list[BatchesError] = []
        over: WaitTimeoutError | None = None
        async with connected(self.arguments) as batches:
            try:
                await (self._one(batches) if len(self.ids) == 1 else self._many(batches))
            except WaitTimeoutError as error:
                over = error
            except (AuthenticationError, UsageError):
                raise
            except BatchesError as error:
                errors = [error]
            except ExceptionGroup as several:
                errors = list(cast("ExceptionGroup[BatchesError]", several).exceptions)  # type: ignore[arg-type]
        for trouble in errors:
            complain(str(trouble))
        if over is not None:
            complain(str(over))
        if not self.arguments.quiet:
            say(f"{self.summary()}; took {time.monotonic() - began:.1f} s")
        if over is not None:
            return Exit.TIMED_OUT
        if errors:
            return code_of_many(errors, len(self.ids))
        return Exit.ENDED_BADLY if self.bad else Exit.DONE

    async def _one(self, batches: AsyncBatches) -> None:
        on_update = tell_change(quiet=self.arguments.quiet)
        deadline, patience = self.arguments.deadline, self.arguments.patience
        self._print(await batches.wait(self.ids[0], timeout=deadline, patience=patience or 0, on_update=on_update))

    async def _many(self, batches: AsyncBatches) -> None:
        arguments = self.arguments
        # On one screen the lines are progress enough, and would be drawn over.
        shown = draws_on(sys.stderr) and not (arguments.quiet or arguments.verbose or is_terminal(sys.stdout))
        with bar(len(self.ids), shown=shown, doing="Waiting") as show:
            deadline, patience = arguments.deadline, arguments.patience or 0
            async with batches.as_completed(self.ids, timeout=deadline, patience=patience) as jobs:
                async for job in jobs:
                    self._print(job)
                    show(len(self.finished), self.bad)

    def _print(self, job: BatchJob) -> None:
        self.finished.append(job)
        self.bad += job.status != BatchJobStatus.COMPLETED
        # Flushed one by one, so that a reader sees them as they come.
        print(as_json(to_dict(job)) if self.arguments.json else line_of_finished(job), flush=True)

    def summary(self) -> str:
        """How many have finished, and how."""
        many = number(len(self.ids))
        told = f"{number(len(self.finished))} of {many} {'job' if len(self.ids) == 1 else 'jobs'} finished"
        return f"{told}: {by_status(self.finished)}" if self.finished else told


def tell_change(*, quiet: bool) -> Callable[[BatchJob], None]:
    """What tells how a job that is waited for comes along."""

    def on_update(job: BatchJob) -> None:
        if not job.is_terminal and not quiet:
            done = "" if job.progress is None else f", {job.progress:g} % done"
            say(f"{job.status or 'without a status'}{done}")

    return on_update


def line_of_finished(job: BatchJob) -> str:
    """The columns that the reference names; what is absent is ``-``."""
    return "\t".join(
        escape(fact or "-") for fact in (job.id, job.status, job.output_file_id, job.error_file_id, job.error)
    )
