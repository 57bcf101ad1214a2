"""Errors of a ledger: each names the ledger, the cause, and what to do."""

from __future__ import annotations

import errno
import sqlite3
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches.errors import RunLedgerError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_ADVICE_READING = (
    "it is left alone, and not taken for an empty one. Put back a copy, or begin a new run in another directory: all "
    "its jobs would be created again"
)
_ADVICE_WRITING = "check the disk and the permissions, and run it again: it resumes from what was recorded"
_ADVICE_RIGHTS = "get permission to read and write the directory and all files in it, and try again"
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room and run it again: it resumes from what was recorded",
    sqlite3.SQLITE_BUSY: "another process uses it, perhaps a backup or an SQLite shell: try again when it has ended",
    sqlite3.SQLITE_READONLY: _ADVICE_RIGHTS,
    sqlite3.SQLITE_PERM: _ADVICE_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _ADVICE_RIGHTS,
    sqlite3.SQLITE_IOERR: "check the disk, and try again",
    sqlite3.SQLITE_CONSTRAINT: "check the list of jobs, and run it again: it resumes from what was recorded",
}
"""Advice by the primary (low byte) result code of SQLite."""
_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def code_of(error: BaseException) -> int | None:
    """Return the primary result code of SQLite for an error of it or of the system, if there is one."""
    if isinstance(error, OSError):
        return _CODES.get(error.errno or 0)
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def busy(what: str) -> sqlite3.OperationalError:
    """Return an error of a ledger that is in use."""
    error = sqlite3.OperationalError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@contextmanager
def explained(directory: Path, doing: str) -> Generator[None]:
    """Convert errors of SQLite and of the system: the message names the ledger, the cause, and what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, zlib.error) as error:
        advice = _ADVICE.get(code_of(error) or 0, _ADVICE_READING if doing == "read" else _ADVICE_WRITING)
        is_of_two = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_UNIQUE
        what = "two attempts would have the same job" if is_of_two else error
        message = f"the ledger of the run in {directory} cannot be {doing}: {what}; {advice}"
        raise RunLedgerError(message, directory=str(directory)) from error
