"""Progress bars: of what is done with many jobs, and of a file on its way."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches.cli._text import draws_on, number

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["bar", "file_bar"]

_SECONDS_BETWEEN_UPDATES = 0.05


@contextmanager
def bar(total: int, *, shown: bool, doing: str = "Cancelling") -> Generator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs, and what moves it: how many are done, and how many failed."""
    if not shown:
        yield lambda done, failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn(doing),
        BarColumn(bar_width=None if console.width < 60 else 40),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    # Standard output keeps to itself: what is written there is data, also while a bar is drawn.
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=total, told="")
        next_update = 0.0

        def show(done: int, failed: int) -> None:
            nonlocal next_update
            now = time.monotonic()
            if now < next_update and done < total:
                return
            next_update = now + _SECONDS_BETWEEN_UPDATES
            trouble = f", [red]{number(failed)} failed[/]" if failed else ""
            progress.update(task, completed=done, told=f"{number(done)} of {number(total)}{trouble}")

        show(0, 0)
        yield show


@contextmanager
def file_bar(doing: str, *, quiet: bool) -> Generator[Callable[[int, int | None], None]]:
    """A bar on standard error while the block runs, and what moves it: how many bytes went, and of how many.

    There is none where nobody sees it, or it is ``quiet``.
    """
    if quiet or not draws_on(sys.stderr):
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
