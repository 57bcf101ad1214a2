"""The ledger of a run in SQLite: one file in the run's directory, one thread that owns the connection.

A ledger appears under its name only after it has been read back in full, and is then either trusted or rejected: one
that cannot be read is never taken for an empty one, because its jobs would be paid for again.

Only SQLite opens the file, because closing any other handle would drop SQLite's locks
(https://www.sqlite.org/howtocorrupt.html, 2.2). It has a rollback journal and no write-ahead log, so that committed
data is in this one file, whatever happens to the files beside it.
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
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
from anyio import CancelScope

from together_batches._local.replace import created
from together_batches.errors import RunLedgerError
from together_batches.runs import _lock, rules
from together_batches.runs._records import Attempt, LedgerSnapshot, Run, Shard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable

__all__ = ["NAME", "SqliteLedger", "create", "opened", "read"]

NAME = "ledger.sqlite"

_APPLICATION = 0x54424C47
"""SQLite application id that distinguishes a ledger from any other database."""
_BUSY_SECONDS = 30.0
_PAGE_BYTES = 4096
_LOOKS = 5
"""Maximum reads without a lock if the files change meanwhile."""
_JOURNALS = ("-journal", "-wal")
"""Suffixes of SQLite's files beside a database, without which the database may be stale or torn."""

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
"""Statements that upgrade a ledger of each version to the next. Version 1 recorded a create, but not how often it was
sent: at least once."""
VERSION = len(_UPGRADES) + 1

Record = TypeVar("Record", bound=Run | Shard | Attempt)
T = TypeVar("T")


# --- tables -------------------------------------------------------------------------------------------------------


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC)


def _as_it_is(value: Any) -> Any:
    return value


_COLUMNS: dict[object, tuple[str, Callable[[Any], Any]]] = {
    bool: ("INTEGER NOT NULL", bool),
    int: ("INTEGER NOT NULL", _as_it_is),
    int | None: ("INTEGER", _as_it_is),
    float | None: ("REAL", _as_it_is),
    str: ("TEXT NOT NULL", _as_it_is),
    str | None: ("TEXT", _as_it_is),
    bytes: ("BLOB NOT NULL", _as_it_is),
    datetime: ("TEXT NOT NULL", _time),
    datetime | None: ("TEXT", _time),
}
"""How a field of each type is stored and read."""


class _Table(Generic[Record]):
    """Table of records, with a column for each of their fields, and ``more`` columns and constraints."""

    def __init__(self, name: str, kind: type[Record], key: str, *more: str) -> None:
        self._name = name
        self._kind = kind
        self._key = key
        self._more = more

    def _fields(self) -> tuple[attrs.Attribute[Any], ...]:
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(self._kind))
        return fields

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table."""
        columns = [f"{field.name} {_COLUMNS[field.type][0]}" for field in self._fields()]
        columns += [*self._more, f"PRIMARY KEY ({self._key})"]
        connection.execute(f"CREATE TABLE {self._name} ({', '.join(columns)})")

    def save(self, connection: sqlite3.Connection, records: Iterable[Record]) -> None:
        """Insert records, or replace those that have the same keys."""
        names = [field.name for field in self._fields()]
        # Not OR REPLACE: of two attempts with the same job it would silently drop the first.
        statement = (
            f"INSERT INTO {self._name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608
            f"ON CONFLICT ({self._key}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}"
        )
        for record in records:
            values = [getattr(record, name) for name in names]
            connection.execute(
                statement, [value.isoformat() if isinstance(value, datetime) else value for value in values]
            )

    def load(self, connection: sqlite3.Connection) -> list[Record]:
        """Return all records, in the order of their keys."""
        # Fields that an older version lacks keep their defaults.
        present = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [self._name])}
        reads = {field.name: _COLUMNS[field.type][1] for field in self._fields() if field.name in present}
        rows = connection.execute(f"SELECT {', '.join(reads)} FROM {self._name} ORDER BY {self._key}")  # noqa: S608
        return [
            self._kind(**{name: read(value) for (name, read), value in zip(reads.items(), row, strict=True)})
            for row in rows
        ]


_RUN = _Table("run", Run, "id", "holder INTEGER NOT NULL DEFAULT 0")
_SHARD = _Table("shard", Shard, "number")
_ATTEMPT = _Table(
    "attempt", Attempt, "shard, number", "FOREIGN KEY (shard) REFERENCES shard (number)", "UNIQUE (job_id)"
)


def _load(connection: sqlite3.Connection) -> LedgerSnapshot:
    """Return all records of one moment; raise :class:`sqlite3.DatabaseError` if some are missing or unreadable."""
    connection.execute("BEGIN")
    try:
        (run,) = _RUN.load(connection)
        shards = _SHARD.load(connection)
        attempts = _ATTEMPT.load(connection)
    finally:
        connection.execute("ROLLBACK")
    last = {shard.number: 0 for shard in shards}
    for attempt in attempts:
        last[attempt.shard] = last.get(attempt.shard, -1) + 1
        if attempt.number != last[attempt.shard]:
            raise sqlite3.DatabaseError(f"attempts of shard {attempt.shard} are missing")
        rules.outcomes_of(attempt)
    return LedgerSnapshot(run, tuple(shards), tuple(attempts))


# --- creation -----------------------------------------------------------------------------------------------------


def create(directory: Path, run: Run, shards: Iterable[Shard]) -> None:
    """Create a ledger that contains all of this, or none."""
    snapshot = LedgerSnapshot(run, tuple(shards))
    with _explained(directory, "written"):
        _refuse_journals(directory)
        part = directory / f".{NAME}.{secrets.token_hex(8)}.part"
        _remove_parts(directory)
        try:
            created(part).close()  # before SQLite creates it, with the default permissions
            with closing(_connected(part, "mode=rw")) as connection:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                _make_durable(directory, connection)
                with _transaction(connection):
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    for table in (_RUN, _SHARD, _ATTEMPT):
                        table.create(connection)
                    _RUN.save(connection, [run])
                    _SHARD.save(connection, snapshot.shards)
            with closing(_connected(part, "mode=ro")) as connection:
                _check(part, connection)
                if _load(connection) != snapshot:
                    raise sqlite3.DatabaseError("what was written is not what is read back")
            part.replace(directory / NAME)
            _sync_directory(directory)
        finally:
            _remove_parts(directory)


def _refuse_journals(directory: Path) -> None:
    """Reject a journal of an earlier ledger, which SQLite would apply to the new one."""
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


# --- connections --------------------------------------------------------------------------------------------------


def _connected(path: Path, how: str) -> sqlite3.Connection:
    # Without locks for SQLite, the lock of the run or the holder number is the only protection.
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
    """Return the device and inode of a file; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _make_durable(directory: Path, connection: sqlite3.Connection) -> None:
    """Make each commit durable, in the ledger's own file, when it returns."""
    # EXTRA with DELETE: a transaction ends when the name of its journal is removed, also across a power loss. If the
    # directory cannot be synced, it ends when the journal is truncated, because SQLite would fail with DELETE.
    mode = "delete" if _sync_directory(directory) else "truncate"
    connection.execute("PRAGMA synchronous = EXTRA")
    # For a ledger of version 1, this moves the content of its write-ahead log into its file.
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


def _check(path: Path, connection: sqlite3.Connection) -> int:
    """Check that a ledger can be trusted, and return its version."""
    version = _version(path.parent, connection)
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.splitlines()[-1])
    # SQLite accepts a partial page at the end as a page. Only a write-ahead log contains all of it.
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


# --- reading without the lock -------------------------------------------------------------------------------------


def read(directory: Path) -> LedgerSnapshot:
    """Return the content of a ledger of any version, possibly in use by a process; write nothing beside it."""
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
    # Opening a ledger of version 1 creates files beside it, because it has a write-ahead log.
    if version > 1:
        try:
            with closing(_connected(path, "mode=ro")) as connection:
                _check(path, connection)
                return _load(connection)
        except sqlite3.OperationalError as error:
            # A process was killed during a change, which could be undone in place only by writing.
            if _code(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
                raise
    with _recovered(path) as connection:
        snapshot = _load(connection)
    if _stamps(path) != stamps:
        raise _busy("it is being changed")
    return snapshot


def _unlocked(path: Path) -> sqlite3.Connection:
    """Return a connection to the file as it is, ignoring its journal."""
    connection = _connected(path, "mode=ro&immutable=1")
    # Otherwise a file without pages that its first page already counts is rejected; its journal restores both.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


@contextmanager
def _recovered(path: Path) -> Generator[sqlite3.Connection]:
    """Open a copy, which SQLite may repair with its journal."""
    with TemporaryDirectory(prefix="together_batches-") as aside:
        copy = Path(aside, NAME)
        with closing(_unlocked(path)) as source, closing(_connected(copy, "mode=rwc")) as target:
            source.backup(target)
        for end in _JOURNALS:  # these files are not locked
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        with closing(_connected(copy, "mode=rw")) as connection:
            _check(copy, connection)
            yield connection


def _stamps(path: Path) -> list[tuple[int, int, int] | None]:
    """Return values that change whenever the ledger changes."""
    found: list[tuple[int, int, int] | None] = []
    for end in ("", *_JOURNALS):
        try:
            status = path.with_name(f"{path.name}{end}").stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


# --- the open ledger ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(directory: Path, lock: _lock.Lock) -> AsyncGenerator[SqliteLedger]:
    """Open the ledger in a directory, for the process that holds the run.

    Raise :class:`RunLedgerError` if it cannot be trusted.
    """
    ledger = SqliteLedger(directory, lock)
    try:
        await ledger.open()
        yield ledger
    finally:
        with CancelScope(shield=True):
            await ledger.close()


class SqliteLedger:
    """A :class:`Ledger` over the file in a directory. A call that is cancelled may still be executed.

    Opening it takes the next holder number. A process that later reads another number has lost the run, for whatever
    reason (its lock file was removed while it was stopped, or the file system has no locks): it gets a
    :class:`RunInUseError`, and records nothing more. It also sends no create, because that is recorded first.
    """

    _connection: sqlite3.Connection

    def __init__(self, directory: Path, lock: _lock.Lock) -> None:
        self._directory = directory
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, "together_batches ledger")
        self._resources = ExitStack()
        self._holder = 0
        self._opened_file: tuple[int, int] | None = None

    async def open(self) -> None:
        """Open the existing ledger, and upgrade it to this version."""

        def connect() -> None:
            # Never created here: a missing ledger must not become an empty one.
            path = _path_in(self._directory)
            self._connection = connection = self._resources.enter_context(closing(_connected(path, "mode=rw")))
            version = _check(path, connection)
            with _explained(self._directory, "written"):
                _make_durable(self._directory, connection)
                connection.execute("PRAGMA foreign_keys = ON")
                with _transaction(connection):
                    for older in range(version, VERSION):
                        # Not by executescript, which would commit the transaction first.
                        for statement in filter(str.strip, _UPGRADES[older].split(";")):
                            connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    connection.execute("UPDATE run SET holder = holder + 1")
                    (self._holder,) = connection.execute("SELECT holder FROM run").fetchone()
            self._opened_file = _identity(path)

        await self._do("read", connect)

    async def close(self) -> None:
        """Finish pending work, and close the file."""
        await self._do("written", self._resources.close)
        self._thread.shutdown(wait=False)

    async def load(self) -> LedgerSnapshot:
        """Return the whole ledger, as last saved."""

        def load() -> LedgerSnapshot:
            snapshot = _load(self._connection)
            self._check_holder()
            return snapshot

        return await self._do("read", load)

    async def save(self, *attempts: Attempt) -> None:
        """Save attempts, all of them or none."""
        await self._do("written", lambda: self._put(_ATTEMPT, attempts))

    async def save_run(self, run: Run) -> None:
        """Save the run."""
        await self._do("written", lambda: self._put(_RUN, [run]))

    def _put(self, table: _Table[Record], records: Iterable[Record]) -> None:
        self._lock.check()
        if _identity(self._directory / NAME) != self._opened_file:
            message = (
                f"the ledger of the run in {self._directory} was removed or replaced while this process had it open, "
                "so it stops and records nothing more: put the ledger back, and run it again"
            )
            raise RunLedgerError(message, directory=str(self._directory))
        with _transaction(self._connection):
            self._check_holder()
            table.save(self._connection, records)

    def _check_holder(self) -> None:
        (holder,) = self._connection.execute("SELECT holder FROM run").fetchone()
        if holder != self._holder:
            raise _lock.taken_over(self._directory)

    async def _do(self, doing: str, work: Callable[[], T]) -> T:
        def explained() -> T:
            with _explained(self._directory, doing):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, explained)


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
"""Advice by the primary (low byte) result code of SQLite."""
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
    """Convert errors of SQLite and of the system: the message names the ledger, the cause, and what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, zlib.error) as error:
        advice = _ADVICE.get(_code(error) or 0, _ADVICE_READING if doing == "read" else _ADVICE_WRITING)
        is_of_two = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_UNIQUE
        what = "a job would be that of two attempts" if is_of_two else error
        message = f"the ledger of the run in {directory} cannot be {doing}: {what}; {advice}"
        raise RunLedgerError(message, directory=str(directory)) from error
