"""``together-batches runs show``."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from together_batches import runs
from together_batches.cli import _loop
from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._saving import free, refuse_dashes, save
from together_batches.cli._text import as_json, draws_on, escape, is_terminal, number, print_lines, say
from together_batches.runs._ledger import NAME as LEDGER
from together_batches.runs._timeline import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, Group

    from together_batches.cli._parser import Arguments
    from together_batches.runs import AttemptView, RunView, ShardView

__all__ = ["named", "show"]

_SECONDS_BETWEEN_LOOKS = 1.0
_MOST_LANES = 40
_OTHER_LINES = 14
"""What a picture takes beside its lanes, at most: they are to be seen together."""


def show(arguments: Arguments) -> Exit:
    """Show a run as it stands in its directory, once or until it has finished."""
    directory = Path(arguments.directory)
    if arguments.watch:
        return _watch(directory, arguments)
    refuse_dashes({"--svg": arguments.svg, "--html": arguments.html}, "a picture goes to a file")
    targets = [
        (free(given, force=arguments.force), draw)
        for given, draw in ((arguments.svg, runs.to_svg), (arguments.html, runs.to_html))
        if given is not None
    ]
    view = _seen(directory)
    for target, draw in targets:
        _loop.run(partial(save, target, draw(view), force=arguments.force))
        say(f"the picture is in {target}")
    if arguments.json:
        print(as_json(view.to_dict()))
    elif not targets:
        _print(view)
    return Exit.DONE


def _seen(directory: Path) -> RunView:
    """The run in a directory; :class:`CommandError` where there is none."""
    return runs.read(named(directory))


def named(directory: Path) -> Path:
    """A directory with a run in it; :class:`CommandError` where it is none."""
    if not (directory / LEDGER).is_file():
        what = "there is no run in" if directory.is_dir() else "there is no directory"
        message = f"{what} {directory}; name that of a run, such as answers.jsonl.run"
        raise CommandError(message)
    return directory


def _summary(view: RunView) -> str:
    """The run in a line: how it stands, and its rows by what became of them."""
    told = ", ".join(f"{number(many)} {word}" for _, word, many in buckets(view) if many) or "no rows"
    return f"{view.input_name}: {view.state}: {told}"


def _print(view: RunView) -> None:
    if not is_terminal(sys.stdout):
        print_lines(_lines(view))
        say(_summary(view))
        return
    console = _console()
    console.print(_drawn(view, console, most_lanes=_MOST_LANES))


def _watch(directory: Path, arguments: Arguments) -> Exit:
    """Draw it, or with --json print it where it has changed, until it has finished; Ctrl-C is a normal end too."""
    if arguments.svg is not None or arguments.html is not None:
        message = "--watch draws on the terminal, and --svg and --html write a file: ask for the one or the other"
        raise CommandError(message)
    if not (arguments.json or draws_on(sys.stdout)):
        message = "--watch needs a terminal to draw on; elsewhere add --json, or do without --watch"
        raise CommandError(message)
    try:
        if arguments.json:
            _watch_as_json(directory)
        else:
            _watch_on_screen(directory)
    except KeyboardInterrupt:
        pass
    return Exit.DONE


def _watch_as_json(directory: Path) -> None:
    last = None
    while True:
        view = _seen(directory)
        if view != last:
            print(as_json(view.to_dict()), flush=True)
        if view.state == "finished":
            return
        last = view
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _watch_on_screen(directory: Path) -> None:
    from rich.live import Live

    console = _console()

    def drawn() -> tuple[RunView, Group]:
        view = _seen(directory)
        return view, _drawn(view, console, most_lanes=max(console.height - _OTHER_LINES, 1))

    view, picture = drawn()
    with Live(picture, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while view.state != "finished":
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            view, picture = drawn()
            live.update(picture, refresh=True)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False)


def _drawn(view: RunView, console: Console, *, most_lanes: int) -> Group:
    from rich.console import Group

    from together_batches.cli._chart import chart

    ascii_only = console.options.ascii_only
    return Group(*chart(view, datetime.now(UTC), width=console.width, most_lanes=most_lanes, ascii_only=ascii_only))


def _lines(view: RunView) -> Iterator[str]:
    """A line for each attempt, with the columns that the reference names; what is absent is ``-``."""
    for shard in view.shards:
        for attempt in shard.attempts or (None,):
            yield "\t".join(escape(fact) for fact in _columns(shard, attempt))


def _columns(shard: ShardView, attempt: AttemptView | None) -> Iterator[str]:
    yield str(shard.number)
    if attempt is None:
        yield from ("-", str(shard.rows), "not sent", *["-"] * 10)
        return
    yield str(attempt.number)
    yield str(attempt.rows)
    yield attempt.state
    yield attempt.status or "-"
    for many in (attempt.succeeded, attempt.failed, attempt.again, attempt.missing):
        yield str(many)
    for fact in (attempt.job_id, attempt.file_id, attempt.output_file_id, attempt.error_file_id, attempt.error):
        yield fact or "-"
