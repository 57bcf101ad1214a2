"""The command ``together-batches watch``: many jobs in a live table, or as lines where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, patience_option, service_options
from together_batches.cli._commands.wait import concluded
from together_batches.cli._commands.watch.watched import Watched
from together_batches.cli._inputs.ids import ids_argument, ids_or_input, without
from together_batches.cli._listing.filters import Filter, filter_options
from together_batches.cli._listing.labels import labelled
from together_batches.cli._notify.delivery import NOWHERE, NotifyOptions, notify_options, notifying
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.loop import in_loop, report_early_end
from together_batches.cli._terminal.numbers import above_zero
from together_batches.cli._terminal.streams import is_behind, printer
from together_batches.cli._terminal.text import as_json, can_redraw, is_terminal, print_err, rich_console, terminal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from together_batches.cli._commands.watch.table import Moment
    from together_batches.cli._notify.delivery import Notifier
    from together_batches.models import BatchJob

_STUCK_AFTER = timedelta(minutes=30)
_FRAME_SECONDS = 2.0
_MIN_PAUSE_PER_CPU_SECOND = 100
"""The pause after a look is at least this many times its CPU time: at most 1 % of a core, for any account."""


@command("watch", Exit.NOT_FOUND, Exit.SOME_FAILED, Exit.ENDED_BADLY)
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=False)
@filter_options("jobs of this status, finished ones included if it is one; may be repeated")
@option("--poll-interval SECONDS", "look so often; otherwise as the age of the jobs requires", type=above_zero)
@patience_option(60)
@notify_options("mark a job that has not moved for so long (30m)")
@service_options
def watch(common: Common, ids: tuple[str, ...], **options: Any) -> Exit:
    """Watch jobs until all of them have finished: those whose ids are given, or those
    that the filters choose, which are all unfinished ones without a filter. Jobs
    that match later are watched, too. A terminal shows one table, which is drawn
    again and again: jobs that are stuck, then those that run, and the number of the
    others. Elsewhere a job is a line at first, and again with each new status, each
    tenth of its progress, and when it gets stuck; its columns are id, status,
    progress, time left, time stuck, age, percent an hour, deadline and model.
    Ctrl-C leaves the jobs alone. The exit code is that of wait.

    examples:
      together-batches watch                        every unfinished job
      together-batches watch --model M --stuck-after 15m
      together-batches watch ID ID ID
      together-batches watch - --json < ids.txt     what a file names, an id a line
    """
    return watch_jobs(common, ids, **options)


def watch_jobs(
    common: Common,
    ids: Sequence[str] = (),
    *,
    poll_interval: float | None = None,
    patience: float = 60,
    notify: NotifyOptions = NOWHERE,
    excepted: Sequence[str] = (),
    **filters: Any,
) -> Exit:
    """Watch the jobs with these ids, or those that match the filters."""
    from together_batches._jobs.progress_tracker import JobProgressTracker

    if ids and any(filters.values()):
        message = "ids and filters were given; give ids or filters, not both"
        raise CommandError(message)
    chosen = None if ids else Filter.of(excepted=excepted, **filters)
    job_ids = without(ids_or_input(ids), excepted) if ids else []
    if ids and not job_ids:
        print_err("no ids are left; there is nothing to watch")
        return Exit.DONE
    stuck_after = _STUCK_AFTER if notify.stuck_after is None else notify.stuck_after
    watched = Watched(job_ids, chosen, JobProgressTracker(stuck_after.total_seconds()), patience)
    again = "the jobs were left alone, and the same command watches them again"
    with report_early_end(lambda: f"{watched.summary}; {again}"):
        return _notified(common, watched, poll_interval, notify)


@in_loop
async def _notified(common: Common, watched: Watched, poll_interval: float | None, notify: NotifyOptions) -> Exit:
    async with notifying(common, notify) as notifier:
        code = await _watch(common, watched, poll_interval, notifier)
    return notifier.exit(code)


async def _watch(common: Common, watched: Watched, poll_interval: float | None, notifier: Notifier) -> Exit:
    import anyio

    began = time.monotonic()
    draws = can_redraw(sys.stdout) and not common.json
    async with connected(common) as batches, _table() if draws else _lines(common) as show:
        batches.__add_callback__(watched.note)
        while True:
            # The first look loads modules, too, so its time says nothing about the next ones.
            cpu = time.process_time() if watched.has_looked else math.inf
            try:
                await watched.look(batches)
            finally:  # what was read before an error is news, too
                notifier.labels = watched.labels
                for each in watched.take_news():
                    notifier.send(each)
            pause = poll_interval or max(watched.pause(), _MIN_PAUSE_PER_CPU_SECOND * (time.process_time() - cpu))
            if watched.total:
                await show(watched.moment())
            if not watched.pending:
                break
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                await anyio.sleep(min(left, _FRAME_SECONDS) if draws else left)
                if draws:
                    await show(watched.moment())
    if not watched.total:
        common.note("no job matches")
        return Exit.DONE
    return concluded(common, watched.finished, watched.refusals, watched.total, time.monotonic() - began)


# --- where it is shown


Show = Callable[["Moment"], Awaitable[None]]
"""Function that shows what is known at a moment."""


@asynccontextmanager
async def _table() -> AsyncGenerator[Show]:
    """Yield a function that draws the table on the terminal, instead of the one before."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from together_batches.cli._commands.watch.table import frame

    console = rich_console()
    dots = terminal(sys.stdout).dots
    width = console.width
    redirects = is_terminal(sys.stderr)  # so that warnings appear above the table
    live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=redirects)

    async def show(moment: Moment) -> None:
        nonlocal width
        if is_behind(sys.stdout):  # of a terminal that is stalled, every frame would be kept in memory
            return
        if console.width != width:  # the terminal has broken the lines of the last frame in other places
            console.clear()
            width = console.width
        lines = frame(moment, width=width, height=console.height - 1, dots=dots)
        live.start()
        live.update(Group(*(Text(line.text, line.style, no_wrap=True) for line in lines)), refresh=True)

    try:
        yield show
    finally:
        live.stop()


@asynccontextmanager
async def _lines(common: Common) -> AsyncGenerator[Show]:
    """Yield a function that prints a line for each job that is in another state than before."""
    shown: dict[str, tuple[object, ...]] = {}
    trouble = ""

    async def show(moment: Moment) -> None:
        nonlocal trouble
        changed: list[BatchJob] = []
        for job in moment.jobs:
            state = (job.status, int(job.progress or 0) // 10, moment.is_stuck(job))
            if job.status and shown.get(job.id) != state:
                shown[job.id] = state
                changed.append(job)
        for line in (_as_json(moment, job) for job in changed) if common.json else moment.lines(changed):
            out.line(line)
            await out.room()
        if moment.trouble and not trouble:
            common.note(moment.trouble)
        trouble = moment.trouble

    async with printer() as out:
        yield show


def _as_json(moment: Moment, job: BatchJob) -> str:
    return as_json({**labelled(job, moment.labels.get(job.id)), "watch": moment.facts(job)})
