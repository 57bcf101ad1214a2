"""The command ``together-batches runs list``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from together_batches.cli._account.options import json_option
from together_batches.cli._listing.columns import Field, ListTable, View, age_field, list_options, time_field
from together_batches.cli._terminal.commands import argument, command
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.table import Column
from together_batches.cli._terminal.text import format_count, plain, print_err, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from together_batches.runs import RunView

_FIRST = ("running", "interrupted", "finished")
"""The states, in the order of the list."""


def _last_at(view: RunView) -> datetime:
    """Return the latest time that a run has recorded."""
    from together_batches.runs._picture.timeline import noted_times

    return max([*noted_times(view), *filter(None, [view.finished_at])])


def _done(view: RunView) -> float | None:
    return 100 * (view.rows - view.in_flight - view.not_sent) / view.rows if view.rows else None


def _jobs(view: RunView) -> int:
    """Return the number of jobs that have not ended, as far as is known."""
    from together_batches.runs._values import attempts_of

    return sum(attempt.job_id is not None and attempt.ended_at is None for attempt in attempts_of(view))


def _count(name: str, rank: int, many: Callable[[RunView], int], title: str = "") -> Field[RunView]:
    """Return a column of numbers."""
    drawn = Column(title or name.replace("_", " ").upper(), rank=rank, right=True)
    return Field(name, drawn, lambda view: str(many(view)), lambda view: format_count(many(view)), many)


def run_fields(now: datetime) -> tuple[Field[RunView], ...]:
    """Return every column of a list of runs; ages are those at ``now``."""
    return (
        Field("directory", Column("DIRECTORY"), lambda view: str(view.directory)),
        Field("state", Column("STATE"), lambda view: view.state),
        Field(
            "done",
            Column("DONE", rank=1, right=True),
            lambda view: None if (done := _done(view)) is None else f"{round(done, 2):g}",
            lambda view: None if (done := _done(view)) is None else f"{int(done)} %",  # 100 % are all
            _done,
        ),
        _count("rows", 5, lambda view: view.rows),
        _count("answered", 6, lambda view: view.succeeded),
        _count("failed", 2, lambda view: view.failed + view.missing + view.invalid),
        _count("in_flight", 6, lambda view: view.in_flight),
        _count("not_sent", 6, lambda view: view.not_sent),
        _count("jobs", 3, _jobs, title="OPEN JOBS"),
        age_field("last", _last_at, now, rank=4),
        time_field("started", lambda view: view.started_at),
        time_field("noted", _last_at),
        time_field("finished", lambda view: view.finished_at),
        Field("process", Column("PROCESS"), lambda view: f"{view.pid} on {view.host}" if view.pid else None),
        Field("input", Column("INPUT", rank=7, cut="end"), lambda view: view.input_name),
    )


_COLUMNS = tuple(field.name for field in run_fields(datetime.min.replace(tzinfo=UTC)))
_ON_SCREEN = ("directory", "state", "done", "rows", "failed", "jobs", "last", "input")
_IN_PIPE = (
    *("directory", "state", "rows", "answered", "failed", "in_flight", "not_sent", "jobs", "started", "noted"),
    *("finished", "input"),
)


@command("list", Exit.SOME_FAILED)
@argument("directory", "[DIR]", "the directory to search (this one)", default=".", complete="dir")
@list_options(_COLUMNS)
@json_option
def list_runs(directory: str, json: bool, **options: Any) -> Exit:
    """List the runs in a directory and in those below it: first those that are running
    (a process is at work), then those that are interrupted (none is: run them again
    to resume), and those that are finished. Hidden directories are not searched.

    examples:
      together-batches runs list
      together-batches runs list /data --sort -rows
      together-batches runs list --columns directory,state,process
    """
    from together_batches import runs

    view = View.of(options, json=json)
    root = Path(directory)
    if not root.is_dir():
        message = f"there is no directory {root}"
        raise CommandError(message)
    found: list[RunView] = []
    is_complete = True
    for path in _runs_below(root):
        try:
            found.append(runs.read(path))
        except BatchesError as error:
            print_error(str(error))
            is_complete = False
    found.sort(key=lambda run: (_FIRST.index(run.state), -_last_at(run).timestamp(), run.directory))
    if not found and not json:
        print_err(f"no run was found in {root}")
    table = ListTable(
        run_fields(datetime.now(UTC)), on_screen=_ON_SCREEN, in_pipe=_IN_PIPE, view=view, plain=_as_data
    )
    table.print(found, noun="run", json=json, tell=print_err)
    return Exit.DONE if is_complete else Exit.SOME_FAILED


def _runs_below(root: Path) -> Iterator[Path]:
    """Yield the directories that contain a run: ``root``, or those below it."""
    from together_batches.runs._ledger import NAME
    from together_batches.runs._lock import is_lock

    def note(error: OSError) -> None:
        print_err(f"note: {error.filename} was not searched: {error.strerror}")

    for place, directories, files in os.walk(root, onerror=note):
        path = Path(place)
        if NAME in files and is_lock(path):
            directories.clear()
            yield path
        else:
            directories[:] = [name for name in directories if not name.startswith(".")]


def _as_data(view: RunView) -> dict[str, Any]:
    """Return a run as plain data, without its shards, which ``runs show`` has."""
    facts = {name: value for name, value in plain(view).items() if name != "shards"}
    return {**facts, "jobs_in_progress": _jobs(view)}
