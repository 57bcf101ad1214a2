"""Connections to a ledger: durable, and to a file that can be trusted."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches.errors import RunLedgerError
from together_batches.runs import _lock
from together_batches.runs._ledger.advice import busy
from together_batches.runs._ledger.schema import VERSION

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NAME = "ledger.sqlite"

APPLICATION = 0x54424C47
"""SQLite application id that distinguishes a ledger from any other database."""
_BUSY_SECONDS = 30.0
PAGE_BYTES = 4096
JOURNALS = ("-journal", "-wal")
"""Suffixes of SQLite's files beside a database, without which the database may be stale or torn."""


def connected(path: Path, how: str) -> sqlite3.Connection:
    """Return a connection, which may be used by any one thread at a time; ``how`` are parameters of SQLite's URI."""
    # Without locks for SQLite, the lock of the run or the holder number is the only protection.
    vfs = "" if _lock.has_record_locks(path.parent) else "&vfs=unix-none"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}{vfs}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )


def path_in(directory: Path) -> Path:
    """Return the path of the ledger in a directory; raise :class:`RunLedgerError` if there is none."""
    path = directory / NAME
    if not path.is_file():
        message = f"{directory} is not the directory of a run: there is no {NAME} in it"
        raise RunLedgerError(message, directory=str(directory))
    return path


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def make_durable(directory: Path, connection: sqlite3.Connection) -> None:
    """Make each commit durable, in the ledger's own file, when it returns."""
    # EXTRA with DELETE: a transaction ends when the name of its journal is removed, also across a power loss. If the
    # directory cannot be synced, it ends when the journal is truncated, because SQLite would fail with DELETE.
    mode = "delete" if sync_directory(directory) else "truncate"
    connection.execute("PRAGMA synchronous = EXTRA")
    # For a ledger of version 1, this moves the content of its write-ahead log into its file.
    (now,) = connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    if now != mode:
        raise busy("a connection keeps its write-ahead log in use")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check(path: Path, connection: sqlite3.Connection) -> int:
    """Check that a ledger can be trusted, and return its version."""
    version = version_of(path.parent, connection)
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.splitlines()[-1])
    # SQLite accepts a partial page at the end as a page. Only a write-ahead log contains all of it.
    log = path.with_name(f"{path.name}-wal")
    if path.stat().st_size % PAGE_BYTES and not (log.exists() and log.stat().st_size):
        raise sqlite3.DatabaseError("it has been cut short")
    return version


def version_of(directory: Path, connection: sqlite3.Connection) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        message = (
            f"{directory / NAME} is not the ledger of a run, or has lost its beginning; it is left alone. Put back a "
            "copy, or begin a new run in another directory: all its jobs would be created again"
        )
        raise RunLedgerError(message, directory=str(directory))
    if version > VERSION:
        message = (
            f"the run in {directory} was begun by a newer version of together_batches (its ledger has version "
            f"{version}, and this one knows {VERSION}): install that version to resume it"
        )
        raise RunLedgerError(message, directory=str(directory))
    return version


def sync_directory(directory: Path) -> bool:
    """Make the names in a directory survive a power loss; return False if the system does not support that."""
    if os.name == "nt":
        return False
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}:
            raise
        return False
    finally:
        os.close(handle)
    return True
