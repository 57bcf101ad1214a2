"""Progress bars: of what is done with many jobs, and of a file on its way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from together_batches.cli._text import can_redraw, format_count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rich.console import RenderableType

__all__ = ["ShowJobs", "ShowRows", "bar", "file_bar", "rows_bar"]

ShowRows = Callable[[int, int, str, float], None]
"""Takes how many rows are done, of how many, further words, and the seconds since the beginning."""


class ShowJobs(Protocol):
    """Takes how many jobs are done, how many of them failed, and a few further words."""

    def __call__(self, done: int, failed: int, notes: str = "") -> None:
        """Show these numbers from now on."""
        ...


@contextmanager
def bar(total: int, *, shown: bool, doing: str = "Cancelling") -> Generator[ShowJobs]:
    """A bar on standard error while the block runs, and what moves it.

    It draws itself ten times a second with the last numbers that it was given, and once more at the end: a burst of
    thousands costs no drawing, and none of it is left out.
    """
    if not shown:
        yield lambda done, failed, notes="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    state: tuple[int, int, str] = (0, 0, "")

    def show(done: int, failed: int, notes: str = "") -> None:
        nonlocal state
        state = (done, failed, notes)

    class Bar(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            done, failed, notes = state
            parts = [
                f"{format_count(done)} of {format_count(total)}",
                notes,
                f"[red]{format_count(failed)} failed[/]" if failed else "",
            ]
            for task in self.task_ids:
                self.update(task, completed=done, numbers=", ".join(filter(None, parts)))
            yield from super().get_renderables()

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn(doing),
        BarColumn(bar_width=None if console.width < 60 else 40),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
    )
    # Standard output keeps to itself: what is written there is data, also while a bar is drawn.
    with Bar(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        progress.add_task("", total=total, numbers="")
        yield show


@contextmanager
def file_bar(doing: str, *, shown: bool) -> Generator[Callable[[int, int | None], None]]:
    """A bar on standard error while the block runs, and what moves it: how many bytes went, and of how many.

    There is none unless it is to be ``shown`` and standard error is a terminal.
    """
    if not (shown and can_redraw(sys.stderr)):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def rows_bar(*, shown: bool) -> Generator[ShowRows]:
    """A bar on standard error while the block runs, and what moves it. What is written meanwhile is above it."""
    if not shown:
        yield lambda done, total, text, elapsed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.fields[rows]}", markup=False),
        BarColumn(bar_width=None if console.width < 80 else 30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, redirect_stdout=False) as progress:
        task = progress.add_task("", total=None, rows="Reading the input", text="")

        def show(done: int, total: int, text: str, elapsed: float) -> None:
            # A run that goes on counts from its beginning, which may have been days ago.
            progress.tasks[0].start_time = progress.get_time() - elapsed
            rows = f"{format_count(done)} of {format_count(total)} rows"
            progress.update(task, completed=done, total=total, rows=rows, text=text)

        yield show
