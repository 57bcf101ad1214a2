"""Standard streams that hold up nothing: a pipe or a terminal that is not read would block its writer."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TextIO

__all__ = ["Unblocked", "unblocked_streams"]

_FLUSH_SECONDS = 0.05
"""A flush waits so long for the reader. It keeps the order of two streams on one terminal."""
_GRACE_SECONDS = 0.5
"""An interrupted command gives its readers so long to take what was printed before."""
_MOST_WAITING = 8 << 20


class Unblocked(io.TextIOBase):
    """A text stream over the file descriptor of ``stream``, with a thread that writes.

    If that fails, a later call raises what went wrong. A ``lossy`` stream leaves text out in place of that, and if
    too much is waiting. ``waiting`` is how many bytes are not written yet.
    """

    def __init__(self, stream: TextIO, *, lossy: bool) -> None:
        self.waiting = 0
        self._file = stream.fileno()
        # Of its own, so that the thread never writes to a file that got the number of a closed one.
        self._own_file = os.dup(self._file)
        self._is_closing = False
        self._encoding = stream.encoding
        self._is_terminal = stream.isatty()
        self._lossy = lossy
        self._pieces: list[bytes] = []
        self._left_out = 0
        self._trouble: OSError | None = None
        self._is_stalled = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        """That of the stream below."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # a plain attribute there
        """What an encoding cannot say is written as an escape."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The number of the file below."""
        return self._file

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._is_terminal

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str, /) -> int:
        """Have the thread write ``text``; on a terminal, wait a moment for the end of a line."""
        self.write_bytes(text.encode(self._encoding, "backslashreplace"))
        if self._is_terminal and "\n" in text:
            self.flush()
        return len(text)

    def write_bytes(self, piece: bytes) -> None:
        """Have the thread write bytes as they are."""
        with self._changed:
            self.check()
            if self._lossy and (self._trouble or self.waiting > _MOST_WAITING):
                self._left_out += piece.count(b"\n")
                return
            if self._left_out:
                piece = b"(%d lines were left out, since nothing read them)\n%b" % (self._left_out, piece)
                self._left_out = 0
            self._pieces.append(piece)
            self.waiting += len(piece)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon: it may be stuck in its last write for ever.
                self._thread = threading.Thread(target=self._write_on, name="prints", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Wait for what was written, if its reader takes it soon."""
        if not self._is_stalled:
            self._is_stalled = not self.drain(_FLUSH_SECONDS)
        self.check()

    def check(self) -> None:
        """Raise what went wrong with an earlier text."""
        if self._trouble is not None and not self._lossy:
            raise self._trouble

    def drain(self, seconds: float | None) -> bool:
        """Wait until all is written, or cannot be; False if that takes longer than ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting or self._trouble is not None, seconds)

    def end(self) -> None:
        """Have the thread end when it has written all; nothing may be written any more."""
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
                except BlockingIOError:  # another process that has this terminal made it so
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
    """Put such streams in the place of standard output and standard error, unless these are files.

    Gives a function that waits until all is written, for a moment only if the command was interrupted, and raises
    what went wrong with standard output.
    """
    before = sys.stdout, sys.stderr
    made: list[Unblocked] = []
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if _may_wait(stream):
            made.append(Unblocked(stream, lossy=name == "stderr"))
            setattr(sys, name, made[-1])

    def finish(interrupted: bool) -> None:
        for stream in made:
            stream.drain(_GRACE_SECONDS if interrupted else None)
        if not interrupted and sys.stdout is not None:
            sys.stdout.flush()

    try:
        yield finish
    finally:
        sys.stdout, sys.stderr = before
        for stream in made:
            stream.end()


def _may_wait(stream: TextIO | None) -> bool:
    """Whether a stream may make its writer wait, as a pipe or a terminal may: a file does not, nor a closed one."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    try:
        stream.flush()
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
