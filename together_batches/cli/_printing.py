"""Lines for standard output from within an event loop, which never blocks on a reader."""

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
    """A printer that flushes each line, so that a reader sees it at once."""

    def __init__(self) -> None:
        # Any other stream is a file, which does not block its writer.
        self._stream = sys.stdout if isinstance(sys.stdout, Unblocked) else None

    def line(self, text: str) -> None:
        """Print a line, now or soon. An error in writing it is raised by a later call."""
        print(text, flush=self._stream is None)

    def piece(self, content: bytes) -> None:
        """Print bytes unchanged."""
        if self._stream is not None:
            self._stream.write_bytes(content)
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    async def room(self) -> None:
        """Wait until there is room for more lines, if their producer can be paused."""
        await self._until_waiting(_MOST_WAITING)

    async def finish(self) -> None:
        """Wait until everything is written, and raise the error if writing failed."""
        await self._until_waiting(0)

    async def _until_waiting(self, most: int) -> None:
        stream = self._stream
        if stream is not None:
            while stream.waiting > most and not stream.drain(0):  # noqa: ASYNC110  # the wait is for a thread
                await anyio.sleep(_LOOK_SECONDS)
            stream.check()


@asynccontextmanager
async def printer() -> AsyncGenerator[Printer]:
    """Yield a printer; its lines are written when the block ends, or after an interrupt when the command ends."""
    made = Printer()
    try:
        yield made
    except Exception:
        with suppress(OSError):  # the first error is the one to report
            await made.finish()
        raise
    await made.finish()
