"""Mutual exclusion of processes: a lock of the operating system on a file in the run's directory.

It ends with the process, however that ends, so a lock never has to be removed by hand. If its file is removed
anyway, or the file system has no locks, the holder number in the ledger decides which process continues
(:mod:`together_batches.runs._ledger`).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING
from weakref import WeakSet

from together_batches._local.locks import HELD, NO_LOCKS, give, take
from together_batches.errors import RunInUseError, RunLedgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_log = logging.getLogger("together_batches")

NAME = "lock"

_MARKER = "a run of together_batches"
"""Second line of a lock file, which marks its directory as a run's, even before the run has a ledger."""
_FIRST_LINE = re.compile(r"\d+ \S+")
_START_OF_FIRST_LINE = re.compile(r"(\d+( \S*)?)?")
_MOST_BYTES = 1024
_TRIES = 20
_PAUSE_SECONDS = 0.01
"""Seconds between tries, because inspecting a run takes the lock for a moment to test whether it is free."""

if sys.platform == "win32":

    def has_record_locks(directory: Path) -> bool:
        """Return whether the file system has the locks that SQLite needs."""
        return True

else:
    import fcntl

    def has_record_locks(directory: Path) -> bool:
        """Return whether the file system has the locks that SQLite needs, which differ from the run's own.

        Tried on the lock file, which has no such lock that closing it could drop.
        """
        try:
            with (directory / NAME).open("rb") as file:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in NO_LOCKS
        return True


Holder = tuple[int | None, str | None]
"""Process and machine that hold a run, each None if unknown."""


class Lock:
    """The lock of the run in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Take the lock, or raise :class:`RunInUseError`, which names the process that holds it."""
        for left in reversed(range(_TRIES)):
            try:
                # Unbuffered: a buffer that a full disk rejected would be written again when the file is closed.
                file = self._path.open("a+b", buffering=0)
            except OSError as error:
                raise self._impossible(error) from error
            try:
                if self._is_taken(file, last_try=not left):
                    self._file = file
                    _locks.add(self)
                    return
            finally:
                if self._file is not file:
                    file.close()
            time.sleep(_PAUSE_SECONDS)
        message = f"cannot work in {self._directory}: {self._path} is replaced again and again by a program"
        raise RunLedgerError(message, directory=str(self._directory))

    def _is_taken(self, file: IO[bytes], *, last_try: bool) -> bool:
        try:
            take(file)
        except OSError as error:
            if error.errno in HELD:
                if last_try:
                    raise _in_use(self._directory) from error
                return False
            if error.errno not in NO_LOCKS:
                raise self._impossible(error) from error
            _log.warning(
                "the file system of %s has no locks (%s): make sure that no other process works on this run",
                self._directory,
                error.strerror,
                extra={"directory": str(self._directory)},
            )
        # The file may have been removed since it was opened; then another process can lock its replacement.
        if not self._is_in_place(file):
            return False
        if not _may_be_ours(_content(file)):
            message = (
                f"cannot work in {self._directory}: its file {NAME} is not the lock of a run; name another directory"
            )
            raise UsageError(message)
        with suppress(OSError):  # a full disk: the text is informative, the lock holds without it
            file.truncate(0)
            file.write(f"{os.getpid()} {socket.gethostname()}\n{_MARKER}\n".encode())
        return True

    def check(self) -> None:
        """Keep the lock: if its file was removed or replaced, lock the file that other processes now see."""
        if self._file is None or not self._is_in_place(self._file):
            self.give()
            self.take()

    def give(self) -> None:
        """Release the lock. The file remains, because a process that has opened it may be about to lock it."""
        file, self._file = self._file, None
        if file is not None and not file.closed:
            with file, suppress(OSError):  # without locks there is none to release; and closing releases it, too
                give(file)

    def abandon(self) -> None:
        """Close the file in a forked child without releasing the lock, which the child shares with its parent."""
        if self._file is not None:
            self._file.close()

    def _is_in_place(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except (OSError, ValueError):
            return False

    def _impossible(self, error: OSError) -> RunLedgerError:
        message = f"cannot work in {self._directory}: {error.strerror or error}"
        return RunLedgerError(message, directory=str(self._directory))


_locks = WeakSet[Lock]()


def _abandon_all() -> None:
    for lock in _locks:
        lock.abandon()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)


@contextmanager
def locked(directory: Path) -> Generator[Lock]:
    """Hold the lock of a run, or raise :class:`RunInUseError`, which names the process that holds it."""
    lock = Lock(directory)
    try:
        lock.take()
        yield lock
    finally:
        lock.give()


def _in_use(directory: Path) -> RunInUseError:
    pid, host = _named(directory)
    message = f"the run in {directory} is in use by {_said(pid, host)}: wait until it has ended, or end it"
    return RunInUseError(message, directory=str(directory), pid=pid, host=host)


def taken_over_error(directory: Path) -> RunInUseError:
    """Return the error of a process that continues a run which another process has taken over."""
    pid, host = _named(directory)
    if (pid, host) == (os.getpid(), socket.gethostname()):
        pid = host = None
    message = (
        f"the run in {directory} was taken over by {_said(pid, host)}, so this process stops and records nothing "
        "more: run it again when the other has ended"
    )
    return RunInUseError(message, directory=str(directory), pid=pid, host=host)


def holder(directory: Path) -> Holder | None:
    """Return the process that holds a run; None if the run is free. Requires no write permission."""
    with suppress(OSError), (directory / NAME).open("rb") as file:
        try:
            take(file, shared=True)
        except OSError as error:
            return _named(directory) if error.errno in HELD else None
        give(file)
    return None


def is_lock(directory: Path) -> bool:
    """Return whether a directory has a lock file that a run has written."""
    return _may_be_ours(_text_in(directory))


def has_run_marker(directory: Path) -> bool:
    """Return whether a directory has the lock file of a run, with its marker."""
    return is_lock(directory) and _MARKER in _text_in(directory)


def _text_in(directory: Path) -> str:
    """Return the text of the lock file; a text that no lock contains if it cannot be read."""
    path = directory / NAME
    try:
        if path.is_symlink() or not path.is_file():  # opening a pipe would wait for its other end
            return "?"
        with path.open("rb") as file:
            return _content(file)
    except OSError:
        return "?"


def _may_be_ours(text: str) -> bool:
    """Return whether a run wrote it: in full, without the marker (older versions), or truncated by a full disk."""
    first, newline, rest = text.partition("\n")
    if not newline:
        return _START_OF_FIRST_LINE.fullmatch(first) is not None
    return _FIRST_LINE.fullmatch(first) is not None and f"{_MARKER}\n".startswith(rest)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _named(directory: Path) -> Holder:
    with suppress(OSError, ValueError):
        pid, _, host = (directory / NAME).read_text("utf-8").partition("\n")[0].strip().partition(" ")
        return int(pid), host
    return None, None


def _said(pid: int | None, host: str | None) -> str:
    return "another process" if pid is None else f"process {pid} on {host}"
