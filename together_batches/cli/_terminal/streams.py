"""Standard streams that never block: a pipe or a terminal that is not read would block its writer.

:func:`unblocked_streams` is for the whole command, :func:`printer` for lines from within an event loop.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import BinaryIO, TextIO, TypeGuard

    from typing_extensions import Buffer

_FLUSH_SECONDS = 0.05
"""Maximum seconds a flush waits for the reader, which keeps the order of two streams on one terminal."""
_GRACE_SECONDS = 0.5
"""Maximum seconds an interrupted command waits for its readers to take what was printed before."""
_LOOK_SECONDS = 0.02
_MOST_WAITING = 8 << 20


class Unblocked(io.RawIOBase):
    """The bytes of a stream, written to its file descriptor by a thread.

    If a write fails, a later call raises the error. A ``lossy`` stream drops bytes instead, and also if too many are
    waiting. ``waiting`` is the number of bytes that are not written yet.
    """

    def __init__(self, stream: TextIO | BinaryIO, *, lossy: bool) -> None:
        self.waiting = 0
        self._file = stream.fileno()
        # A duplicate, so that the thread never writes to a file that got the number of a closed one.
        self._own_file = os.dup(self._file)
        self._is_closing = False
        self._is_terminal = stream.isatty()
        self._lossy = lossy
        self._pieces: list[bytes] = []
        self._left_out = 0
        self._trouble: OSError | None = None
        self._is_stalled = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        """Return the file descriptor of the underlying stream."""
        return self._file

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._is_terminal

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Buffer, /) -> int:
        """Pass bytes to the writing thread; on a terminal, wait briefly at the end of a line."""
        piece = bytes(content)
        with self._changed:
            self.check()
            if self._lossy and (self._trouble or self.waiting > _MOST_WAITING):
                self._left_out += piece.count(b"\n")
                return len(piece)
            if self._left_out:
                self._pieces.append(b"(%d lines were left out, since nothing read them)\n" % self._left_out)
                self.waiting += len(self._pieces[-1])
                self._left_out = 0
            self._pieces.append(piece)
            self.waiting += len(piece)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon, because its last write may block for ever.
                self._thread = threading.Thread(target=self._write_on, name="prints", daemon=True)
                self._thread.start()
        if self._is_terminal and b"\n" in piece:
            self.flush()
        return len(piece)

    def flush(self) -> None:
        """Wait until everything is written, but only for a short time."""
        if self._is_closing:
            return  # at the end of the command, which has reported its errors
        if not self._is_stalled:
            self._is_stalled = not self.drain(_FLUSH_SECONDS)
        self.check()

    def check(self) -> None:
        """Raise the error of an earlier write, if any."""
        if self._trouble is not None and not self._lossy:
            raise self._trouble

    def has_raised(self, error: OSError) -> bool:
        """Return whether this is the error of an earlier write."""
        return error is self._trouble

    def drain(self, seconds: float | None) -> bool:
        """Wait until everything is written or writing has failed; return False after ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting or self._trouble is not None, seconds)

    def end(self) -> None:
        """Make the thread end after its last write; nothing may be written afterwards."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            if self._thread is None:
                os.close(self._own_file)

    def _write_on(self) -> None:
        try:
            self._write_all()
        finally:
            os.close(self._own_file)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._is_closing)
                if not self._pieces:
                    return
                block = b"".join(self._pieces)
                self._pieces.clear()
            left = memoryview(block)
            while left:
                try:
                    left = left[os.write(self._own_file, left) :]
                except BlockingIOError:  # another process that shares this terminal made it non-blocking
                    time.sleep(_FLUSH_SECONDS)
                except OSError as error:
                    with self._changed:
                        self._trouble = error
                        self._changed.notify_all()
                    return
            with self._changed:
                self.waiting -= len(block)
                self._is_stalled = False
                self._changed.notify_all()


@contextmanager
def unblocked_streams() -> Generator[Callable[[bool], None]]:
    """Replace standard output and standard error by such streams, unless they are files.

    Yield a function that waits until everything is written, only briefly after an interrupt, and raises the error
    if writing to standard output failed.
    """
    before = sys.stdout, sys.stderr
    made: list[Unblocked] = []
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if _may_wait(stream):
            made.append(Unblocked(stream, lossy=name == "stderr"))
            setattr(sys, name, as_text(made[-1], stream.encoding))

    def finish(interrupted: bool) -> None:
        for stream in made:
            stream.drain(_GRACE_SECONDS if interrupted else None)
        if not interrupted and sys.stdout is not None:
            sys.stdout.flush()

    try:
        yield finish
    finally:
        for stream in made:
            stream.end()
        # Only now, because the text streams are closed, and so flushed, when nothing refers to them.
        sys.stdout, sys.stderr = before


def as_text(stream: Unblocked, encoding: str) -> TextIO:
    """Return a text stream over ``stream``; a character that the encoding lacks is written as an escape."""
    return io.TextIOWrapper(cast("BinaryIO", stream), encoding, "backslashreplace", newline="\n", write_through=True)


def _may_wait(stream: TextIO | None) -> TypeGuard[io.TextIOWrapper]:
    """Return whether a stream may block its writer, like a pipe or a terminal; a file or a closed stream cannot."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    try:
        stream.flush()
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def is_behind(stream: TextIO) -> bool:
    """Return whether a stream of :func:`unblocked_streams` has bytes that its reader has not taken yet."""
    raw = getattr(stream, "buffer", None)
    return isinstance(raw, Unblocked) and raw.waiting > 0


def is_of_output(error: OSError) -> bool:
    """Return whether an error is that of a write to standard output, which is raised again at the end."""
    raw = getattr(sys.stdout, "buffer", None)
    return isinstance(raw, Unblocked) and raw.has_raised(error)


class Printer:
    """A printer that flushes each line, so that a reader sees it at once."""

    def __init__(self) -> None:
        # Any other stream is a file, which does not block its writer.
        stream = getattr(sys.stdout, "buffer", None)
        self._stream = stream if isinstance(stream, Unblocked) else None

    def line(self, text: str) -> None:
        """Print a line, now or soon. An error in writing it is raised by a later call."""
        print(text, flush=self._stream is None)

    def piece(self, content: bytes) -> None:
        """Print bytes unchanged."""
        sys.stdout.buffer.write(content)
        if self._stream is None:
            sys.stdout.buffer.flush()

    async def room(self) -> None:
        """Wait until there is room for more lines, if their producer can be paused."""
        await self._until_waiting(_MOST_WAITING)

    async def finish(self) -> None:
        """Wait until everything is written, and raise the error if writing failed."""
        await self._until_waiting(0)

    async def _until_waiting(self, most: int) -> None:
        import anyio  # here, because a command without an event loop prints too

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
