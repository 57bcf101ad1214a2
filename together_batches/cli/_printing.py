"""Lines for standard output that hold up nothing: a pipe or a terminal that is not read blocks its writer."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import anyio

from together_batches.cli._text import is_open

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Printer", "printer"]

_GRACE_SECONDS = 0.5
"""An interrupted command gives its reader so long to take what was printed before."""
_MOST_LINES = 1_000
_MOST_WAITING = 8 << 20


class Printer:
    """Prints lines, and flushes each; in a thread of its own if standard output may make its writer wait."""

    def __init__(self) -> None:
        self._queue = SimpleQueue[str | None]()
        self._waiting = 0
        self._trouble: OSError | None = None
        self._file = _waiting_file()
        self._thread: threading.Thread | None = None
        self._written = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def line(self, text: str) -> None:
        """Print a line, now or soon. What went wrong with one is raised here by a later one."""
        if self._file is None:
            print(text, flush=True)
            return
        if self._trouble is not None:
            raise self._trouble
        if self._thread is None:
            sys.stdout.flush()
            # A daemon: it may be stuck in its last write for ever.
            self._thread = threading.Thread(target=self._write_on, args=(self._file,), name="prints", daemon=True)
            self._thread.start()
        self._waiting += len(text)
        self._queue.put(text)

    async def room(self) -> None:
        """Wait until there is room for more lines, where those who make them can be held up."""
        while self._waiting > _MOST_WAITING and self._trouble is None:
            self._written.clear()
            await self._written.wait()

    async def finish(self) -> None:
        """Wait until all is written, and raise what went wrong."""
        self._queue.put(None)
        while self._thread is not None and self._thread.is_alive():
            self._written.clear()
            await self._written.wait()
        if self._trouble is not None:
            raise self._trouble

    def _write_on(self, file: int) -> None:
        """What the thread does. It writes to the file itself: a lock of Python's would be held while it is stuck."""
        encoding = sys.stdout.encoding or "utf-8"
        try:
            while (lines := self._next_lines()) and lines[0] is not None:
                texts = [line for line in lines if line is not None]
                left = memoryview("".join(f"{text}\n" for text in texts).encode(encoding, "backslashreplace"))
                while left:
                    left = left[os.write(file, left) :]
                self._loop.call_soon_threadsafe(self._note, sum(map(len, texts)))
                if lines[-1] is None:
                    break
        except OSError as error:
            self._trouble = error
        except RuntimeError:
            return  # the loop has ended, and waits for nothing
        finally:
            self._thread = None
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._written.set)

    def _next_lines(self) -> list[str | None]:
        lines = [self._queue.get()]
        try:
            while lines[-1] is not None and len(lines) < _MOST_LINES:
                lines.append(self._queue.get_nowait())
        except Empty:
            pass
        return lines

    def _note(self, written: int) -> None:
        self._waiting -= written
        self._written.set()


@asynccontextmanager
async def printer() -> AsyncGenerator[Printer]:
    """A printer whose lines are written when the block ends; after an interrupt for a moment only."""
    made = Printer()
    try:
        yield made
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_GRACE_SECONDS):
            await made.finish()
        raise
    except Exception:
        with suppress(OSError):  # the first error counts
            await made.finish()
        raise
    await made.finish()


def _waiting_file() -> int | None:
    """The number of standard output, if it is a pipe, a terminal or the like; None for a file, or no stream."""
    if not is_open(sys.stdout):
        return None
    try:
        number = sys.stdout.fileno()
        return None if stat.S_ISREG(os.fstat(number).st_mode) else number
    except (OSError, ValueError):
        return None
