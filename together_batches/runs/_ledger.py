"""The ledger of a run in SQLite: one file in the run's directory, one thread that has the connection.

A ledger appears under its name when it has been read back whole, and from then on it is believed or refused: one that
cannot be read is never taken for an empty one, because the jobs that it names would be paid for again.

Its file is opened by SQLite and by nothing else, since closing any other handle would drop SQLite's locks
(https://www.sqlite.org/howtocorrupt.html, 2.2). It has a rollback journal and no write-ahead log: what is committed
is in the one file then, whatever becomes of the files beside it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import sqlite3
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from anyio import CancelScope

from together_batches._local.replace import created
from together_batches.errors import RunLedgerError
from together_batches.runs import _lock, _rules
from together_batches.runs._records import Attempt, LedgerSnapshot, Run, Shard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable

__all__ = ["NAME", "SqliteLedger", "create", "opened", "read"]

NAME = "ledger.sqlite"
VERSION = 3

_APPLICATION = 0x54424C47
"""Says that a file of SQLite is a ledger of ours, and not somebody's database."""
_BUSY_SECONDS = 30.0
_PAGE_BYTES = 4096
_LOOKS = 5
"""Reading without a lock is repeated so often if the files change meanwhile."""
_JOURNALS = ("-journal", "-wal")
"""What SQLite keeps beside a database, and without which that may be older or torn."""

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
    claims TEXT NOT NULL,
    holder INTEGER NOT NULL DEFAULT 0
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
    piece_sha256 TEXT NOT NULL,
    outcomes BLOB NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    PRIMARY KEY (shard, number)
);
"""

_UPGRADES = {
    1: """
ALTER TABLE run ADD COLUMN holder INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN marked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN former_file_ids TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN posts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN output_bytes INTEGER;
ALTER TABLE attempt ADD COLUMN error_bytes INTEGER;
UPDATE attempt SET posts = 1 WHERE creating_at IS NOT NULL;
""",
    2: "ALTER TABLE attempt ADD COLUMN piece_sha256 TEXT NOT NULL DEFAULT ''",
}
"""What brings a ledger of each version to the next. Version 1 noted a create, but not how often it was sent: once at
least."""

_Record = TypeVar("_Record", Run, Shard, Attempt)
T = TypeVar("T")


# --- beginning ----------------------------------------------------------------------------------------------------


def create(directory: Path, run: Run, shards: Iterable[Shard]) -> None:
    """Begin a ledger: it is there with all of this, or not at all."""
    snapshot = LedgerSnapshot(run, tuple(shards))
    with _explained(directory, "written"):
        _refuse_journals(directory)
        part = directory / f".{NAME}.{secrets.token_hex(8)}.part"
        _remove_parts(directory)
        try:
            created(part).close()  # before SQLite has it, which would give it the rights of any file
            with closing(_connected(part, "mode=rw")) as connection:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                _make_durable(directory, connection)
                with _transaction(connection):
                    _execute_all(connection, f"PRAGMA application_id = {_APPLICATION};{_SCHEMA}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    _insert(connection, "run", [run])
                    _insert(connection, "shard", snapshot.shards)
            with closing(_connected(part, "mode=ro")) as connection:
                _check(part, connection)
                if _books(connection) != snapshot:
                    raise sqlite3.DatabaseError("what was written is not what is read back")
            part.replace(directory / NAME)
            _sync_directory(directory)
        finally:
            _remove_parts(directory)


def _refuse_journals(directory: Path) -> None:
    """SQLite would apply a journal of the ledger that was here before to the new one."""
    for end in (*_JOURNALS, "-shm"):
        left = directory / f"{NAME}{end}"
        if end in _JOURNALS and left.exists() and left.stat().st_size:
            message = (
                f"{directory} holds {left.name} and no {NAME}: put it back, or begin a new run in another directory; "
                "all its jobs would be created anew"
            )
            raise RunLedgerError(message, directory=str(directory))
        left.unlink(missing_ok=True)


def _remove_parts(directory: Path) -> None:
    for left in directory.glob(f".{NAME}.*.part*"):
        left.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> bool:
    """Have the names in a directory survive a loss of power; False if the system has no such call."""
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


# --- connections --------------------------------------------------------------------------------------------------


def _connected(path: Path, how: str) -> sqlite3.Connection:
    # A file system without locks for SQLite has those of the run alone, or the holder number alone.
    vfs = "" if _lock.has_record_locks(path.parent) else "&vfs=unix-none"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}{vfs}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )


def _path_in(directory: Path) -> Path:
    path = directory / NAME
    if not path.is_file():
        message = f"{directory} is not the directory of a run: there is no {NAME} in it"
        raise RunLedgerError(message, directory=str(directory))
    return path


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _make_durable(directory: Path, connection: sqlite3.Connection) -> None:
    """Have each commit on the disk when it returns, in the ledger's own file."""
    # EXTRA beside DELETE: the end of a transaction is that its journal has no name any more, also after a loss of
    # power. It is the length of the journal where the directory cannot be synced: SQLite would fail there.
    mode = "delete" if _sync_directory(directory) else "truncate"
    connection.execute("PRAGMA synchronous = EXTRA")
    # Of a ledger of version 1, this moves what its write-ahead log has into its file.
    (now,) = connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    if now != mode:
        raise _busy("a connection keeps its write-ahead log in use")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _execute_all(connection: sqlite3.Connection, statements: str) -> None:
    """Execute statements within the transaction that is open; ``executescript`` would commit that first."""
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)


def _check(path: Path, connection: sqlite3.Connection) -> int:
    """The version of a ledger that can be believed."""
    version = _version(path.parent, connection)
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.splitlines()[-1])
    # To SQLite a part of a page at the end is a page. Only a write-ahead log has the whole of it.
    log = path.with_name(f"{path.name}-wal")
    if path.stat().st_size % _PAGE_BYTES and not (log.exists() and log.stat().st_size):
        raise sqlite3.DatabaseError("it has been cut short")
    return version


def _version(directory: Path, connection: sqlite3.Connection) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version: int
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
    return version


# --- looking ------------------------------------------------------------------------------------------------------


def read(directory: Path) -> LedgerSnapshot:
    """What the ledger says, while a process may be at it. Of any version, and nothing is written beside it."""
    with _explained(directory, "read"):
        path = _path_in(directory)
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
        version = _version(directory, connection)
    # Just to open one of version 1 makes files beside it, since that had a write-ahead log.
    if version > 1:
        try:
            with closing(_connected(path, "mode=ro")) as connection:
                _check(path, connection)
                return _books(connection)
        except sqlite3.OperationalError as error:
            # A process was killed in the middle of a change, which could be undone here by writing alone.
            if _code(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
                raise
    with _recovered(path) as connection:
        snapshot = _books(connection)
    if _stamps(path) != stamps:
        raise _busy("it is being changed")
    return snapshot


def _unlocked(path: Path) -> sqlite3.Connection:
    """A connection to the file as it is, without a look at its journal."""
    connection = _connected(path, "mode=ro&immutable=1")
    # Otherwise one that lacks pages which its first page counts already would be refused: its journal restores both.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


@contextmanager
def _recovered(path: Path) -> Generator[sqlite3.Connection]:
    """A copy that SQLite may make whole by its journal."""
    with TemporaryDirectory(prefix="together_batches-") as aside:
        copy = Path(aside, NAME)
        with closing(_unlocked(path)) as source, closing(_connected(copy, "mode=rwc")) as target:
            source.backup(target)
        for end in _JOURNALS:  # no lock is on these
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        with closing(_connected(copy, "mode=rw")) as connection:
            _check(copy, connection)
            yield connection


def _stamps(path: Path) -> list[tuple[int, int, int] | None]:
    """What changes when the ledger does."""
    found: list[tuple[int, int, int] | None] = []
    for end in ("", *_JOURNALS):
        try:
            status = path.with_name(f"{path.name}{end}").stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


# --- going on -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(directory: Path, lock: _lock.Lock) -> AsyncGenerator[SqliteLedger]:
    """The ledger that is in a directory, for the process that holds the run.

    A :class:`RunLedgerError` if it cannot be believed.
    """
    ledger = SqliteLedger(directory, lock)
    try:
        await ledger.open()
        yield ledger
    finally:
        with CancelScope(shield=True):
            await ledger.close()


class SqliteLedger:
    """A :class:`Ledger` over the file in a directory. A call that is cancelled may still be carried out.

    To open it takes the next holder number. A process that finds another number there has lost the run, however that
    came (its lock file was removed while it was stopped, or the file system has no locks): it gets a
    :class:`RunInUseError`, and notes nothing more. Since a create is noted before it is sent, it sends none.
    """

    def __init__(self, directory: Path, lock: _lock.Lock) -> None:
        self._directory = directory
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, "together_batches ledger")
        self._connection: sqlite3.Connection | None = None
        self._holder = 0
        self._opened_file: tuple[int, int] | None = None

    async def open(self) -> None:
        """Open what is there, and bring it up to this version."""

        def connect() -> None:
            # Never made where there is none: that would be an empty one.
            path = _path_in(self._directory)
            self._connection = connection = _connected(path, "mode=rw")
            version = _check(path, connection)
            with _explained(self._directory, "written"):
                _make_durable(self._directory, connection)
                connection.execute("PRAGMA foreign_keys = ON")
                with _transaction(connection):
                    for older in range(version, VERSION):
                        _execute_all(connection, _UPGRADES[older])
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    connection.execute("UPDATE run SET holder = holder + 1")
                    (self._holder,) = connection.execute("SELECT holder FROM run").fetchone()
            self._opened_file = _identity(path)

        await self._do("read", connect)

    async def close(self) -> None:
        """Finish what was begun, and let the file go."""

        def disconnect() -> None:
            if self._connection is not None:
                self._connection.close()

        await self._do("written", disconnect)
        self._thread.shutdown(wait=False)

    async def load(self) -> LedgerSnapshot:
        """All of it, as last saved."""

        def load() -> LedgerSnapshot:
            snapshot = _books(self._open_connection())
            self._check_holder()
            return snapshot

        return await self._do("read", load)

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
        self._lock.check()
        if _identity(self._directory / NAME) != self._opened_file:
            message = (
                f"the ledger of the run in {self._directory} was removed or replaced while this process had it open, "
                "so it stops and notes nothing more: put the ledger back, and run it again"
            )
            raise RunLedgerError(message, directory=str(self._directory))
        connection = self._open_connection()
        with _transaction(connection):
            self._check_holder()
            _insert(connection, table, records)

    def _check_holder(self) -> None:
        (holder,) = self._open_connection().execute("SELECT holder FROM run").fetchone()
        if holder != self._holder:
            raise _lock.taken_over(self._directory)

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


def _books(connection: sqlite3.Connection) -> LedgerSnapshot:
    """All records, as of one moment; a :class:`sqlite3.DatabaseError` if some are missing or cannot be read."""
    connection.execute("BEGIN")
    try:
        (run,) = _select(connection, Run, "run")
        shards = _select(connection, Shard, "shard")
        attempts = _select(connection, Attempt, "attempt")
    finally:
        connection.execute("ROLLBACK")
    last = {shard.number: 0 for shard in shards}
    for attempt in attempts:
        last[attempt.shard] = last.get(attempt.shard, -1) + 1
        if attempt.number != last[attempt.shard]:
            raise sqlite3.DatabaseError(f"attempts of shard {attempt.shard} are missing")
        _rules.outcomes_of(attempt)
    return LedgerSnapshot(run, tuple(shards), tuple(attempts))


def _select(connection: sqlite3.Connection, kind: type[_Record], table: str) -> list[_Record]:
    attrs.resolve_types(kind)
    # An older version lacks some, which have their defaults.
    present = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [table])}
    fields = [field for field in attrs.fields(kind) if field.name in present]
    reads = [_READS.get(field.type, _as_it_is) for field in fields]
    names = [field.name for field in fields]
    rows = connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {_KEYS[table]}")  # noqa: S608  # names of fields
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


# --- errors -------------------------------------------------------------------------------------------------------


_ADVICE_READING = (
    "it is left alone, and not taken for an empty one. Put back a copy, or begin a new run in another directory: all "
    "its jobs would be created anew"
)
_ADVICE_WRITING = "look at the disk and the rights, and run it again: it goes on from what was noted"
_ADVICE_RIGHTS = "get the right to read and to write the directory and all files in it, and try again"
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room and run it again: it goes on from what was noted",
    sqlite3.SQLITE_BUSY: "another process uses it, perhaps a backup or an SQLite shell: try again when it has ended",
    sqlite3.SQLITE_READONLY: _ADVICE_RIGHTS,
    sqlite3.SQLITE_PERM: _ADVICE_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _ADVICE_RIGHTS,
    sqlite3.SQLITE_IOERR: "look at the disk, and try again",
    sqlite3.SQLITE_CONSTRAINT: "look at the list of jobs, and run it again: it goes on from what was noted",
}
"""What to do, by the first byte of SQLite's result code."""
_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def _code(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return _CODES.get(error.errno or 0)
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _busy(what: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@contextmanager
def _explained(directory: Path, doing: str) -> Generator[None]:
    """Turn errors of SQLite and of the system into ours: what is wrong with which ledger, and what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, zlib.error) as error:
        advice = _ADVICE.get(_code(error) or 0, _ADVICE_READING if doing == "read" else _ADVICE_WRITING)
        is_of_two = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_UNIQUE
        what = "a job would be that of two attempts" if is_of_two else error
        message = f"the ledger of the run in {directory} cannot be {doing}: {what}; {advice}"
        raise RunLedgerError(message, directory=str(directory)) from error
