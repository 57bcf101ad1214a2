"""Lines for standard output from within a loop, which waits for no reader."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from together_batches.cli._streams import Unblocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Printer", "printer"]

_LOOK_SECONDS = 0.02
_MOST_WAITING = 8 << 20


class Printer:
    """Prints lines, and flushes each, so that a reader sees them as they come."""

    def __init__(self) -> None:
        # A stream that is none of these is a file, which does not make its writer wait.
        self._stream = sys.stdout if isinstance(sys.stdout, Unblocked) else None

    def line(self, text: str) -> None:
        """Print a line, now or soon. What went wrong with one is raised here by a later one."""
        print(text, flush=self._stream is None)

    def piece(self, content: bytes) -> None:
        """Print bytes as they are."""
        if self._stream is not None:
            self._stream.write_bytes(content)
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    async def room(self) -> None:
        """Wait until there is room for more lines, if those who make them can be held up."""
        await self._until_waiting(_MOST_WAITING)

    async def finish(self) -> None:
        """Wait until all is written, and raise what went wrong."""
        await self._until_waiting(0)

    async def _until_waiting(self, most: int) -> None:
        stream = self._stream
        if stream is not None:
            while stream.waiting > most and not stream.drain(0):  # noqa: ASYNC110  # a thread is what is waited for
                await anyio.sleep(_LOOK_SECONDS)
            stream.check()


@asynccontextmanager
async def printer() -> AsyncGenerator[Printer]:
    """A printer whose lines are written when the block ends; after an interrupt, the command waits for the rest."""
    made = Printer()
    try:
        yield made
    except Exception:
        with suppress(OSError):  # the first error counts
            await made.finish()
        raise
    await made.finish()
