"""The progress bar of a file that is transferred."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches._display.progress import Meter, sizes, terminal_bar
from together_batches.cli._terminal.text import can_redraw

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextmanager
def file_bar(doing: str, *, shown: bool) -> Generator[Callable[[int, int | None], None]]:
    """Show a bar on standard error during the block, and yield its update function: bytes done, and their total.

    The bar appears only if ``shown`` is set and standard error is a terminal.
    """
    with terminal_bar(Meter(doing, sizes, speed=True), shown=shown and can_redraw(sys.stderr)) as show:
        yield show
