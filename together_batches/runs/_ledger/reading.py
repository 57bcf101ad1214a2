"""Reading of a ledger without the lock of the run: by inspections, beside a process at work or after its death."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from together_batches.runs._ledger.advice import busy, code_of, explained
from together_batches.runs._ledger.connection import JOURNALS, NAME, check, connected, path_in, version_of
from together_batches.runs._ledger.schema import load_all

if TYPE_CHECKING:
    from collections.abc import Generator

    from together_batches.runs._records import LedgerSnapshot

_LOOKS = 5
"""Maximum reads without a lock if the files change meanwhile."""


def read(directory: Path) -> LedgerSnapshot:
    """Return the content of a ledger of any version, possibly in use by a process; write nothing beside it."""
    with explained(directory, "read"):
        path = path_in(directory)
        looks = 0
        while True:
            looks += 1
            before = _stamps(path)
            try:
                return _seen(path, before)
            except sqlite3.Error:
                if looks == _LOOKS or _stamps(path) == before:
                    raise


def _seen(path: Path, stamps: object) -> LedgerSnapshot:
    directory = path.parent
    with closing(_unlocked(path)) as connection:
        version = version_of(directory, connection)
    # Opening a ledger of version 1 creates files beside it, because it has a write-ahead log.
    if version > 1:
        try:
            with closing(connected(path, "mode=ro")) as connection:
                check(path, connection)
                return load_all(connection)
        except sqlite3.OperationalError as error:
            # A process was killed during a change, which could be undone in place only by writing.
            if code_of(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
                raise
    with _recovered(path) as connection:
        snapshot = load_all(connection)
    if _stamps(path) != stamps:
        raise busy("it is being changed")
    return snapshot


def _unlocked(path: Path) -> sqlite3.Connection:
    """Return a connection to the file as it is, ignoring its journal."""
    connection = connected(path, "mode=ro&immutable=1")
    # Otherwise a file without pages that its first page already counts is rejected; its journal restores both.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


@contextmanager
def _recovered(path: Path) -> Generator[sqlite3.Connection]:
    """Open a copy, which SQLite may repair with its journal."""
    with TemporaryDirectory(prefix="together_batches-") as aside:
        copy = Path(aside, NAME)
        with closing(_unlocked(path)) as source, closing(connected(copy, "mode=rwc")) as target:
            source.backup(target)
        for end in JOURNALS:  # these files are not locked
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        with closing(connected(copy, "mode=rw")) as connection:
            check(copy, connection)
            yield connection


def _stamps(path: Path) -> list[tuple[int, int, int] | None]:
    """Return values that change whenever the ledger changes."""
    found: list[tuple[int, int, int] | None] = []
    for end in ("", *JOURNALS):
        try:
            status = path.with_name(f"{path.name}{end}").stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found
