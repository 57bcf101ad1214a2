"""The ledger of a run in SQLite: one file in the run's directory, one thread that has the connection.

A ledger appears under its name when its first entries are in it, and from then on it is believed or refused: one that
cannot be read is never taken for an empty one, because the jobs that it names would be paid for again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from anyio import CancelScope

from together_batches.errors import RunLedgerError
from together_batches.runs._records import Attempt, Books, Run, Shard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable
    from pathlib import Path

__all__ = ["NAME", "SqliteLedger", "create", "opened", "read"]

NAME = "ledger.sqlite"
VERSION = 2

_APPLICATION = 0x54424C47
"""Says that a file of SQLite is a ledger of ours, and not somebody's database."""
_BUSY_SECONDS = 30.0
_PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE run (
    id TEXT NOT NULL PRIMARY KEY,
    input_name TEXT NOT NULL,
    input_bytes INTEGER NOT NULL,
    input_sha256 TEXT NOT NULL,
    spooled INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    model_id TEXT,
    priority INTEGER,
    max_attempts INTEGER NOT NULL,
    invalid INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    claims TEXT NOT NULL
);
CREATE TABLE shard (
    number INTEGER NOT NULL PRIMARY KEY,
    first_line INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    skipped BLOB NOT NULL
);
CREATE TABLE attempt (
    shard INTEGER NOT NULL REFERENCES shard (number),
    number INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    planned_at TEXT NOT NULL,
    marked INTEGER NOT NULL,
    file_id TEXT,
    former_file_ids TEXT NOT NULL,
    uploaded_at TEXT,
    since TEXT,
    creating_at TEXT,
    posts INTEGER NOT NULL,
    job_id TEXT UNIQUE,
    found INTEGER NOT NULL,
    known_at TEXT,
    created_at TEXT,
    warning TEXT,
    status TEXT,
    progress REAL,
    running_at TEXT,
    ended_at TEXT,
    error TEXT,
    output_file_id TEXT,
    error_file_id TEXT,
    output_bytes INTEGER,
    error_bytes INTEGER,
    collected_at TEXT,
    outcomes BLOB NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    PRIMARY KEY (shard, number)
);
"""

_Record = TypeVar("_Record", Run, Shard, Attempt)
T = TypeVar("T")


def create(directory: Path, run: Run, shards: Iterable[Shard]) -> None:
    """Begin a ledger: it is there with all of this, or not at all."""
    path = directory / NAME
    part = directory / f".{NAME}.{secrets.token_hex(8)}.part"
    with _explained(directory, "written"):
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as connection:
                connection.executescript(
                    f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION};"
                    f"PRAGMA page_size = {_PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                    f"BEGIN; {_SCHEMA}"
                )
                _insert(connection, "run", [run])
                _insert(connection, "shard", shards)
                connection.execute("COMMIT")
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            sync_directory(directory)
        finally:
            for left in directory.glob(f"{part.name}*"):
                left.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a loss of power, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(directory: Path) -> Books:
    """What the ledger says, while a process may be at it."""
    with _explained(directory, "read"), closing(_connect(directory, read_only=True)) as connection:
        return _books(connection)


def _connect(directory: Path, *, read_only: bool = False) -> sqlite3.Connection:
    path = directory / NAME
    if not path.is_file():
        message = f"{directory} is not the directory of a run: there is no {NAME} in it"
        raise RunLedgerError(message, directory=str(directory))
    # Only a checkpoint that was broken off leaves a part of a page, and then the journal has the whole of it.
    whole = (path.stat().st_size % _PAGE_BYTES == 0) or _has_journal(path)
    # Never made where there is none: that would be an empty one.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )
    try:
        _check(directory, connection)
        if not whole:
            raise sqlite3.DatabaseError("it has been cut short")
        if not read_only:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _has_journal(path: Path) -> bool:
    journal = path.with_name(f"{path.name}-wal")
    return journal.is_file() and journal.stat().st_size > 0


def _check(directory: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        message = (
            f"{directory / NAME} is no ledger of a run, or has lost its beginning; it is left alone. Put back a "
            "copy, or begin a new run in another directory: all its jobs would be created anew"
        )
        raise RunLedgerError(message, directory=str(directory))
    if version > VERSION:
        message = (
            f"the run in {directory} was begun by a newer version of together_batches (its ledger has version "
            f"{version}, and this one knows {VERSION}): install that version to go on with it"
        )
        raise RunLedgerError(message, directory=str(directory))
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _books(connection: sqlite3.Connection) -> Books:
    connection.execute("BEGIN")
    try:
        (run,) = _select(connection, Run, "run")
        shards = _select(connection, Shard, "shard ORDER BY number")
        attempts = _select(connection, Attempt, "attempt ORDER BY shard, number")
    finally:
        connection.execute("ROLLBACK")
    return Books(run, tuple(shards), tuple(attempts))


@asynccontextmanager
async def opened(directory: Path) -> AsyncGenerator[SqliteLedger]:
    """The ledger that is in a directory; a :class:`RunLedgerError` where it cannot be believed."""
    ledger = SqliteLedger(directory)
    try:
        await ledger.open()
        yield ledger
    finally:
        with CancelScope(shield=True):
            await ledger.close()


class SqliteLedger:
    """A :class:`Ledger` over the file in a directory. A call that is cancelled may still be carried out."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, "together_batches ledger")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open what is there."""

        def connect() -> None:
            self._connection = _connect(self._directory)

        await self._do("read", connect)

    async def close(self) -> None:
        """Finish what was asked for, and let the file go."""

        def disconnect() -> None:
            if self._connection is not None:
                self._connection.close()

        await self._do("written", disconnect)
        self._thread.shutdown(wait=False)

    async def load(self) -> Books:
        """All of it, as last saved."""
        return await self._do("read", lambda: _books(self._open_connection()))

    async def save(self, *attempts: Attempt) -> None:
        """Put down attempts as they now are, all of them or none."""
        await self._do("written", lambda: self._put("attempt", attempts))

    async def save_run(self, run: Run) -> None:
        """Put down the run as it now is."""
        await self._do("written", lambda: self._put("run", [run]))

    def _open_connection(self) -> sqlite3.Connection:
        assert self._connection is not None  # noqa: S101  # opened() sees to it
        return self._connection

    def _put(self, table: str, records: Iterable[Run] | Iterable[Attempt]) -> None:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            _insert(connection, table, records)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def _do(self, doing: str, work: Callable[[], T]) -> T:
        def explained() -> T:
            with _explained(self._directory, doing):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, explained)


# --- records and rows ---------------------------------------------------------------------------------------------


_KEYS = {"run": "id", "shard": "number", "attempt": "shard, number"}


def _insert(connection: sqlite3.Connection, table: str, records: Iterable[Run | Shard | Attempt]) -> None:
    for record in records:
        fields = attrs.asdict(record, recurse=False)
        names, places = ", ".join(fields), ", ".join("?" * len(fields))
        values = [value.isoformat() if isinstance(value, datetime) else value for value in fields.values()]
        # Not OR REPLACE: of two attempts that name one job it would drop the first without a word.
        changes = ", ".join(f"{name} = excluded.{name}" for name in fields)
        connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({places}) "  # noqa: S608  # names of fields
            f"ON CONFLICT ({_KEYS[table]}) DO UPDATE SET {changes}",
            values,
        )


def _select(connection: sqlite3.Connection, kind: type[_Record], rest: str) -> list[_Record]:
    attrs.resolve_types(kind)
    fields = attrs.fields(kind)
    reads = [_READS.get(field.type, _as_it_is) for field in fields]
    names = [field.name for field in fields]
    rows = connection.execute(f"SELECT {', '.join(names)} FROM {rest}")  # noqa: S608  # names of fields
    records: list[_Record] = []
    for row in rows:
        values: dict[str, Any] = {name: read(value) for name, read, value in zip(names, reads, row, strict=True)}
        records.append(kind(**values))
    return records


def _as_it_is(value: object) -> object:
    return value


def _time(value: object) -> datetime:
    return datetime.fromisoformat(cast("str", value)).astimezone(UTC)


_READS: dict[object, Callable[[object], object]] = {
    bool: bool,
    datetime: _time,
    datetime | None: lambda value: None if value is None else _time(value),
}


@contextmanager
def _explained(directory: Path, doing: str) -> Generator[None]:
    """Nobody should meet a bare error of SQLite's: what is wrong with which ledger, and what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        full = "full" in str(error) or getattr(error, "errno", None) == 28
        advice = (
            "make room and run it again, it goes on from what was noted"
            if full
            else "it is left alone, and not taken for an empty one. Put back a copy, or begin a new run in another "
            "directory: all its jobs would be created anew"
            if doing == "read"
            else "look at the disk and the rights, and run it again: it goes on from what was noted"
        )
        message = f"the ledger of the run in {directory} cannot be {doing}: {error}; {advice}"
        raise RunLedgerError(message, directory=str(directory)) from error
