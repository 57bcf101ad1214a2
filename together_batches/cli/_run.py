"""``together-batches run``."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from anyio import to_thread

from together_batches import runs
from together_batches.cli import _loop
from together_batches.cli._cancel import cancel_run
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit, code_of
from together_batches.cli._parser import PROGRAM
from together_batches.cli._progress import rows_bar
from together_batches.cli._requests import spooled
from together_batches.cli._saving import refuse_dashes
from together_batches.cli._text import as_json, complain, draws_on, number, say
from together_batches.errors import BatchesError, ValidationError
from together_batches.runs import RunEvent, RunEventKind, RunReport, RunView
from together_batches.runs._timeline import lasted

if TYPE_CHECKING:
    from typing import BinaryIO

    from together_batches.cli._parser import Arguments
    from together_batches.cli._progress import ShowRows
    from together_batches.client import AsyncBatches

__all__ = ["run"]

_SECONDS_BETWEEN_LOOKS = 0.5
_MOST_PROBLEMS = 20
_LOGGED = {RunEventKind.TROUBLE, RunEventKind.GONE}
_MANY = {RunEventKind.PROGRESSED}
"""Not told in lines: there may be thousands. On a terminal they move the bar."""

_OPTIONS = {
    "endpoint": "endpoint",
    "model": "model_id",
    "priority": "priority",
    "failures": "failures",
    "max_rows": "max_rows_per_job",
    "max_jobs": "max_jobs",
    "max_enqueued_rows": "max_enqueued_rows",
    "max_attempts": "max_attempts",
    "stop_after_rows": "stop_after_rows",
    "stop_after_tokens": "stop_after_tokens",
    "skip_invalid": "skip_invalid",
    "force": "overwrite",
    "poll_interval": "poll_interval",
    "patience": "patience",
    "give_up": "give_up",
    "retry_delays": "retry_delays",
    "cancel_on_interrupt": "cancel_on_interrupt",
}
"""The options, and what they are called in Python."""


def run(arguments: Arguments) -> Exit:
    """Take a file to its answers, through as many jobs as it takes; or cancel the jobs of a run."""
    if arguments.cancel is not None:
        others = [name for name in ("input", "output", "run_dir", *_OPTIONS) if getattr(arguments, name)]
        if others:
            message = "--cancel takes the directory of a run, and beside it only --wait and the common options"
            raise CommandError(message)
        return cancel_run(arguments, arguments.cancel)
    if arguments.input is None or arguments.output is None:
        message = "a run takes a file of requests and, with -o, the file for the answers"
        raise CommandError(message)
    written = {"-o": arguments.output, "--failures": arguments.failures, "--run-dir": arguments.run_dir}
    refuse_dashes(written, "a run writes files, so that it can go on")
    if arguments.wait:
        message = "--wait is for --cancel: a run waits for its jobs in any case"
        raise CommandError(message)
    with ExitStack() as stack:
        work = _Work(arguments, spooled(arguments.input, stack), Path(arguments.output))
        try:
            return _loop.run(work.run)
        except KeyboardInterrupt:
            for line in work.left_behind():
                say(line)
            return Exit.INTERRUPTED


@attrs.define
class _Work:
    """One call, and what it takes to go on: an interrupt leaves this behind."""

    arguments: Arguments
    input: str | BinaryIO
    output: Path
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def directory(self) -> Path:
        """Where the run is kept."""
        given = self.arguments.run_dir
        return self.output.parent / f"{self.output.name}.run" if given is None else Path(given)

    async def run(self) -> Exit:
        """Run, show how it comes along, and tell how it ended."""
        arguments = self.arguments
        shown = draws_on(sys.stderr) and not (arguments.quiet or arguments.verbose)
        try:
            # The bar first: what is logged below it stands above it.
            with rows_bar(shown=shown) as show:
                async with connected(arguments) as batches:
                    report = await self._run(batches, show if shown else None)
        except ValidationError as error:
            complain(_as_options(str(error)))
            self._tell_problems(error)
            return Exit.FAILED
        except BatchesError as error:
            raise CommandError(_as_options(str(error)), code_of(error)) from error
        if arguments.json:
            print(as_json(report.to_dict()))
        if not arguments.quiet:
            for line in _summary(report):
                say(line)
        return Exit.DONE if report.ok else Exit.SOME_FAILED

    async def _run(self, batches: AsyncBatches, show: ShowRows | None) -> RunReport:
        given = {name: getattr(self.arguments, name) for name in _OPTIONS}
        given = {name: value for name, value in given.items() if value is not None and value is not False}
        looking = None if show is None else asyncio.create_task(self._look(show))
        try:
            return await batches.run(
                self.input,
                self.output,
                directory=self.directory,
                unique_files=not self.arguments.shared_files,
                on_event=self._on_event if show is None else lambda _: self.changed.set(),
                **{_OPTIONS[name]: value for name, value in given.items()},
            )
        finally:
            if looking is not None:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    def _on_event(self, event: RunEvent) -> None:
        if self.arguments.quiet or event.kind in _LOGGED | _MANY:
            return
        place = "" if event.shard is None else f"shard {event.shard}: "
        if event.attempt is not None and event.attempt > 1:
            place = f"shard {event.shard}, attempt {event.attempt}: "
        say(f"{place}{event.message}")

    async def _look(self, show: ShowRows) -> None:
        """Show the run again where something happened, and not too often."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            view = await to_thread.run_sync(runs.read, self.directory)
            elapsed = (datetime.now(UTC) - view.started_at).total_seconds()
            show(_done(view), view.rows, _under_way(view), elapsed)
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    def _tell_problems(self, error: ValidationError) -> None:
        problems = error.problems
        for problem in problems[:_MOST_PROBLEMS] if len(problems) > 1 else ():
            say(str(problem))
        if len(problems) > _MOST_PROBLEMS:
            say(f"and {number(len(problems) - _MOST_PROBLEMS)} more")
        say("nothing was sent")

    def left_behind(self) -> list[str]:
        """What an interrupt leaves behind, and what can be done about it."""
        try:
            view = runs.read(self.directory)
        except BatchesError:
            return ["interrupted: nothing was sent; run the same command again to begin anew"]
        done = view.rows - view.in_flight - view.not_sent
        lines = [
            f"interrupted: {number(done)} of {number(view.rows)} rows are done; run the same command again to go on"
        ]
        jobs = sum(_unfinished(view).values())
        if jobs:
            command = f"{PROGRAM} run --cancel {shlex.quote(str(self.directory))}"
            those, go = ("1 job", "goes") if jobs == 1 else (f"{number(jobs)} jobs", "go")
            if self.arguments.cancel_on_interrupt:
                lines.append(f"{those} had to be cancelled; to make sure: {command}")
            else:
                lines.append(f"{those} {go} on at the service; to cancel: {command}")
        return lines


def _as_options(message: str) -> str:
    """A sentence of the library, in the words of the command."""
    for name, called in _OPTIONS.items():
        if "_" in called or name == "force":
            message = re.sub(rf"\b{called}\b(=True)?", f"--{name.replace('_', '-')}", message)
    return message


def _unfinished(view: RunView) -> Counter[str]:
    """The jobs that have not ended, by their state; those included whose create was not heard of."""
    return Counter(
        str(attempt.status or "CREATED")
        for shard in view.shards
        for attempt in shard.attempts
        if attempt.creating_at is not None and attempt.ended_at is None
    )


def _done(view: RunView) -> int:
    """The rows that are done, with those that jobs under way have answered as far as their progress says."""
    attempts = (attempt for shard in view.shards for attempt in shard.attempts if attempt.ended_at is None)
    answered = sum(int(attempt.rows * (attempt.progress or 0.0) / 100) for attempt in attempts)
    return min(view.rows - view.in_flight - view.not_sent + answered, view.rows)


def _under_way(view: RunView) -> str:
    jobs = ", ".join(f"{number(many)} {status}" for status, many in _unfinished(view).most_common())
    failed = view.failed + view.missing
    return "; ".join(told for told in (jobs, f"{number(failed)} failed" if failed else "") if told)


def _summary(report: RunReport) -> list[str]:
    """How it ended, and where everything is."""
    took = lasted((report.finished_at - report.started_at).total_seconds())
    lines = [f"{report}; took {took}"]
    if report.output is not None:
        lines.append(f"answers: {report.output}")
    else:
        lines.append(f"not finished: run the same command again to go on; the run is kept in {report.directory}")
    if report.failures is not None:
        lines.append(f"rows that were not answered: {report.failures}")
    if report.invalid_lines is not None:
        lines.append(f"bad lines: {report.invalid_lines}")
    return lines
