"""Progress bars: of many jobs, of rows, and of a file that is transferred."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from together_batches.cli._text import can_redraw, format_count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rich.console import RenderableType

ShowRows = Callable[[int, int, str, float], None]
"""Callback with the rows that are done, their total, further text, and the seconds since the start."""


class ShowJobs(Protocol):
    """Callback with the jobs that are done, the number of them that failed, and a short text."""

    def __call__(self, done: int, failed: int, notes: str = "") -> None:
        """Show these numbers from now on."""
        ...


@contextmanager
def bar(total: int, *, shown: bool, doing: str = "Cancelling") -> Generator[ShowJobs]:
    """Show a bar on standard error during the block, and yield the function that updates it.

    The bar is drawn ten times a second with the latest numbers, and once more at the end: a burst of thousands of
    updates costs no drawing, and the last one is always shown.
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
    # Standard output is not redirected: it carries data, also while a bar is drawn.
    with Bar(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        progress.add_task("", total=total, numbers="")
        yield show


@contextmanager
def file_bar(doing: str, *, shown: bool) -> Generator[Callable[[int, int | None], None]]:
    """Show a bar on standard error during the block, and yield its update function: bytes done, and their total.

    The bar appears only if ``shown`` is set and standard error is a terminal.
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
    """Show a bar on standard error during the block, and yield its update function. Other output appears above it."""
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
            # A resumed run counts from its first start, which may have been days ago.
            progress.tasks[0].start_time = progress.get_time() - elapsed
            rows = f"{format_count(done)} of {format_count(total)} rows"
            progress.update(task, completed=done, total=total, rows=rows, text=text)

        yield show
