"""Progress bars of the command: of many jobs, of rows, and of a file that is transferred."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from together_batches._display.progress import Meter, rows, sizes, terminal_bar
from together_batches.cli._text import can_redraw, format_count

if TYPE_CHECKING:
    from collections.abc import Generator

ShowRows = Callable[[int, int, str, float], None]
"""Callback with the rows that are done, their total, further text, and the seconds since the start."""


class ShowJobs(Protocol):
    """Callback with the jobs that are done, the number of them that failed, and a short text."""

    def __call__(self, done: int, failed: int, notes: str = "") -> None:
        """Show these numbers from now on."""
        ...


@contextmanager
def bar(total: int, *, shown: bool, doing: str = "Cancelling") -> Generator[ShowJobs]:
    """Show a bar on standard error during the block, and yield the function that updates it."""
    with terminal_bar(Meter(doing), shown=shown) as show:

        def show_jobs(done: int, failed: int, notes: str = "") -> None:
            show(done, total, ", ".join(filter(None, (notes, f"{format_count(failed)} failed" if failed else ""))))

        yield show_jobs


@contextmanager
def file_bar(doing: str, *, shown: bool) -> Generator[Callable[[int, int | None], None]]:
    """Show a bar on standard error during the block, and yield its update function: bytes done, and their total.

    The bar appears only if ``shown`` is set and standard error is a terminal.
    """
    with terminal_bar(Meter(doing, sizes, speed=True), shown=shown and can_redraw(sys.stderr)) as show:
        yield show


@contextmanager
def rows_bar(*, shown: bool) -> Generator[ShowRows]:
    """Show a bar on standard error during the block, and yield its update function. Other output appears above it.

    A resumed run counts its time from its first start, which may have been days ago.
    """
    with terminal_bar(Meter("Running", rows, text="Reading the input"), shown=shown) as show:
        yield lambda done, total, text, elapsed: show(done, total, text, elapsed=elapsed)
