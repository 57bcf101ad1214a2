"""The commands ``together-batches runs …``."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from together_batches.cli._account.options import json_option
from together_batches.cli._inputs.local_files import ensure_writable, existing_run, open_atomic, refuse_dashes
from together_batches.cli._listing.labels import jobs_of, label_cells, labels_of
from together_batches.cli._terminal.commands import argument, command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.table import shortened
from together_batches.cli._terminal.text import (
    as_json,
    can_redraw,
    columns,
    escape,
    format_count,
    is_terminal,
    plain,
    print_err,
    print_lines,
    rich_console,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console, Group

    from together_batches.runs import AttemptView, RunView, ShardView

_SECONDS_BETWEEN_FRAMES = 1.0
_MOST_LANES = 40
_OTHER_LINES = 14
"""Maximum number of lines of a picture beside its lanes, which must fit on one screen with them."""


@command("show")
@argument("directory", "DIR", "the directory of a run", complete="dir")
@option("--watch", "draw it again and again until the run has finished")
@option("--svg FILE", "write the picture to this file", complete="file")
@option("--html FILE", "write a page with the picture and all jobs to this file", complete="file")
@option("--overwrite", "replace these files if they exist")
@json_option
def show(directory: str, watch: bool, svg: str | None, html: str | None, overwrite: bool, json: bool) -> Exit:
    """Show a run as it stands in its directory: its rows, its shards along the time,
    and their jobs. It needs no key and no network.

    examples:
      together-batches runs show answers.jsonl.run
      together-batches runs show answers.jsonl.run --watch
      together-batches runs show answers.jsonl.run --svg run.svg --html run.html
    """
    from together_batches import runs

    path = existing_run(directory)
    if watch:
        if svg is not None or html is not None:
            message = "--watch draws on the terminal, and --svg and --html write a file: give one or the other"
            raise CommandError(message)
        return _watch(path, as_lines=json)
    refuse_dashes("a picture goes to a file", svg=svg, html=html)
    targets = [
        (ensure_writable(given, overwrite=overwrite), draw)
        for given, draw in ((svg, runs.to_svg), (html, runs.to_html))
        if given is not None
    ]
    view = runs.read(path)
    for target, draw in targets:
        _save(target, draw(view), overwrite=overwrite)
        print_err(f"the picture is in {target}")
    if json:
        print(_as_json(view))
    elif not targets:
        _print(view)
    return Exit.DONE


@in_loop
async def _save(target: Path, text: str, *, overwrite: bool) -> None:
    async with open_atomic(target, overwrite=overwrite) as file:
        await file.write(text.encode())
        await file.commit()


def _summary(view: RunView) -> str:
    """Return the run as one line: its state, and its rows by result."""
    from together_batches.runs._picture.timeline import buckets

    counts = ", ".join(f"{format_count(many)} {word}" for _, word, many in buckets(view) if many) or "no rows"
    return f"{view.input_name}: {view.state}: {counts}"


def _print(view: RunView) -> None:
    if not is_terminal(sys.stdout):
        print_lines(_lines(view))
        print_err(_summary(view))
        return
    console = rich_console()
    console.print(_drawn(view, console, most_lanes=_MOST_LANES))


def _watch(directory: Path, *, as_lines: bool) -> Exit:
    """Redraw the run, or print it as JSON after each change, until it has finished; Ctrl-C is a normal end too."""
    if not (as_lines or can_redraw(sys.stdout)):
        message = "--watch needs a terminal to draw on; elsewhere add --json, or do without --watch"
        raise CommandError(message)
    with suppress(KeyboardInterrupt):
        (_print_changes if as_lines else _redraw)(_looks(directory))
    return Exit.DONE


def _looks(directory: Path) -> Iterator[RunView]:
    """Read the run every second until it has finished."""
    from together_batches import runs

    while True:
        view = runs.read(directory)
        yield view
        if view.state == "finished":
            return
        time.sleep(_SECONDS_BETWEEN_FRAMES)


def _print_changes(views: Iterator[RunView]) -> None:
    last = None
    for view in views:
        if view != last:
            print(_as_json(view), flush=True)
        last = view


def _redraw(views: Iterator[RunView]) -> None:
    from rich.live import Live

    console = rich_console()
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for view in views:
            lanes = max(console.height - _OTHER_LINES, 1)
            live.update(_drawn(view, console, most_lanes=lanes), refresh=True)


def _drawn(view: RunView, console: Console, *, most_lanes: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    from together_batches.cli._commands.runs.chart import chart

    ascii_only = console.options.ascii_only
    dots = "..." if ascii_only else "…"
    labels = [Text(shortened(f"labels: {text}", console.width, dots=dots))] if (text := _labels(view)) else []
    return Group(
        *labels, *chart(view, datetime.now(UTC), width=console.width, most_lanes=most_lanes, ascii_only=ascii_only)
    )


def _labels(view: RunView) -> str:
    """Return the labels of the jobs of a run."""
    return escape(", ".join(dict.fromkeys(chain(*labels_of(jobs_of(view)).values()))))


def _as_json(view: RunView) -> str:
    """Return the run as JSON, with the labels of its jobs beside them."""
    labels = labels_of(jobs_of(view))
    facts = plain(view)
    for shard in facts["shards"] if labels else ():
        for attempt in shard["attempts"]:
            if own := labels.get(attempt.get("job_id", "")):
                attempt["labels"] = [*own]
    return as_json(facts)


def _lines(view: RunView) -> Iterator[str]:
    """Yield a line for each attempt, with the columns that the reference names."""
    labels = labels_of(jobs_of(view))
    for shard in view.shards:
        for attempt in shard.attempts or (None,):
            last = label_cells(labels, (attempt and attempt.job_id) or "")
            yield "\t".join(columns((*_facts(shard, attempt), *last)))


def _facts(shard: ShardView, attempt: AttemptView | None) -> Iterator[str | None]:
    yield str(shard.number)
    if attempt is None:
        yield from (None, str(shard.rows), "not sent", *[None] * 10)
        return
    yield from (str(attempt.number), str(attempt.rows), attempt.state, attempt.status)
    for many in (attempt.succeeded, attempt.failed, attempt.again, attempt.missing):
        yield str(many)
    yield from (attempt.job_id, attempt.file_id, attempt.output_file_id, attempt.error_file_id, attempt.error)
