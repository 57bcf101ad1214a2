"""One process at a time: a lock of the operating system on a file in the run's directory.

It ends with the process, however that ends, and so there is never a lock to be removed by hand.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from together_batches.errors import RunInUseError, RunLedgerError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["Holder", "holder", "locked"]

_NAME = "lock"
_TRIES = 20
_PAUSE_SECONDS = 0.01
"""Whoever only looks at a run holds the lock for a moment, to see whether it is free."""

if sys.platform == "win32":
    import msvcrt

    # Far beyond the text, which others are to read: on Windows what is locked cannot be read.
    _PLACE = 1 << 30

    def _take(file: IO[bytes]) -> None:
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _give(file: IO[bytes]) -> None:
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


Holder = tuple[int | None, str | None]
"""The process and the machine that hold a run, each None where that cannot be told."""


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Hold the run in a directory; a :class:`RunInUseError` names the process that has it already."""
    try:
        # Without a buffer: one that a full disk did not take would be tried again when the file is closed.
        file = (directory / _NAME).open("a+b", buffering=0)
    except OSError as error:
        message = f"cannot work in {directory}: {error.strerror or error}"
        raise RunLedgerError(message, directory=str(directory)) from error
    with file:
        for left in reversed(range(_TRIES)):
            try:
                _take(file)
                break
            except OSError as error:
                if not left:
                    raise _in_use(directory) from error
                time.sleep(_PAUSE_SECONDS)
        try:
            with suppress(OSError):  # a full disk: the name is for others, and the lock holds without it
                file.truncate(0)
                file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
            yield
        finally:
            _give(file)


def _in_use(directory: Path) -> RunInUseError:
    pid, host = _named(directory)
    who = "another process" if pid is None else f"process {pid} on {host}"
    message = f"the run in {directory} is in use by {who}: wait until it has ended, or end it"
    return RunInUseError(message, directory=str(directory), pid=pid, host=host)


def holder(directory: Path) -> Holder | None:
    """Who is at the run in a directory; None where nobody is."""
    with suppress(OSError), (directory / _NAME).open("r+b") as file:
        try:
            _take(file)
        except OSError:
            return _named(directory)
        _give(file)
    return None


def _named(directory: Path) -> Holder:
    with suppress(OSError, ValueError):
        pid, _, host = (directory / _NAME).read_text("utf-8").strip().partition(" ")
        return int(pid), host
    return None, None
