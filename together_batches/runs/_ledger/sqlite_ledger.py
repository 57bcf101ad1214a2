"""Writing to a ledger: by the process that holds the run, whose thread owns a connection, and of notifications."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from together_batches._local.until_done import until_done
from together_batches.errors import RunLedgerError
from together_batches.runs import _lock
from together_batches.runs._ledger.advice import explained
from together_batches.runs._ledger.connection import (
    NAME,
    check,
    connected,
    identity_of,
    make_durable,
    path_in,
    transaction,
    version_of,
)
from together_batches.runs._ledger.schema import ATTEMPT, DELIVERY, RUN, SESSION, UPGRADES, VERSION, load_all
from together_batches.runs._records import Session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

    from together_batches.runs._ledger.schema import Record, Table
    from together_batches.runs._records import Attempt, Delivery, LedgerSnapshot, Run

T = TypeVar("T")


@asynccontextmanager
async def opened(
    directory: Path, lock: _lock.Lock, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncGenerator[SqliteLedger]:
    """Open the ledger in a directory, for the process that holds the run; ``now`` is the clock of its session.

    Raise :class:`RunLedgerError` if it cannot be trusted.
    """
    ledger = SqliteLedger(directory, lock, now)
    try:
        await ledger.open()
        yield ledger
    finally:
        await ledger.close()


class SqliteLedger:
    """A :class:`Ledger` over the file in a directory. A call that is cancelled may still be executed.

    Opening it takes the next holder number. A process that later reads another number has lost the run, for whatever
    reason (its lock file was removed while it was stopped, or the file system has no locks): it gets a
    :class:`RunInUseError`, and records nothing more. It also sends no create, because that is recorded first.
    """

    _connection: sqlite3.Connection

    def __init__(self, directory: Path, lock: _lock.Lock, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._lock = lock
        self._now = now
        self._thread = ThreadPoolExecutor(1, "together_batches ledger")
        self._resources = ExitStack()
        self._holder = 0
        self._opened_file: tuple[int, int] | None = None

    async def open(self) -> None:
        """Open the existing ledger, and upgrade it to this version."""

        def connect() -> None:
            # Never created here: a missing ledger must not become an empty one.
            path = path_in(self._directory)
            self._connection = connection = self._resources.enter_context(closing(connected(path, "mode=rw")))
            version = check(path, connection)
            with explained(self._directory, "written"):
                make_durable(self._directory, connection)
                connection.execute("PRAGMA foreign_keys = ON")
                with transaction(connection):
                    for older in range(version, VERSION):
                        # Not by executescript, which would commit the transaction first.
                        for statement in filter(str.strip, UPGRADES[older].split(";")):
                            connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    connection.execute("UPDATE run SET holder = holder + 1")
                    (self._holder,) = connection.execute("SELECT holder FROM run").fetchone()
                    began_at = self._now()
                    SESSION.save(connection, [Session(number=self._holder, began_at=began_at, last_at=began_at)])
            self._opened_file = identity_of(path)

        await self._do("read", connect)

    async def close(self) -> None:
        """Finish pending work, and close the file, whatever is cancelled meanwhile."""

        def close() -> None:
            with self._resources:
                if self._opened_file is not None:
                    with suppress(sqlite3.Error), transaction(self._connection):
                        self._note_time()  # without it, only the end of the session is less exact

        closed = self._do("written", close)
        self._thread.shutdown(wait=False)  # when all of its work is done
        await until_done(closed)
        closed.result()

    async def load(self) -> LedgerSnapshot:
        """Return the whole ledger, as last saved."""

        def load() -> LedgerSnapshot:
            snapshot = load_all(self._connection)
            self._check_holder()
            return snapshot

        return await self._do("read", load)

    async def save(self, *attempts: Attempt) -> None:
        """Save attempts, all of them or none."""
        await self._do("written", lambda: self._put(ATTEMPT, attempts))

    async def save_run(self, run: Run) -> None:
        """Save the run."""
        await self._do("written", lambda: self._put(RUN, [run]))

    def _put(self, table: Table[Record], records: Iterable[Record]) -> None:
        self._lock.check()
        if identity_of(self._directory / NAME) != self._opened_file:
            message = (
                f"the ledger of the run in {self._directory} was removed or replaced while this process had it open, "
                "so it stops and records nothing more: put the ledger back, and run it again"
            )
            raise RunLedgerError(message, directory=str(self._directory))
        with transaction(self._connection):
            self._check_holder()
            table.save(self._connection, records)
            self._note_time()

    def _note_time(self) -> None:
        """Record that the session of this process has lasted until now, unless another has taken over the run."""
        self._connection.execute(
            "UPDATE session SET last_at = ? WHERE number = ? AND number = (SELECT holder FROM run)",
            [self._now().isoformat(), self._holder],
        )

    def _check_holder(self) -> None:
        (holder,) = self._connection.execute("SELECT holder FROM run").fetchone()
        if holder != self._holder:
            raise _lock.taken_over_error(self._directory)

    def _do(self, doing: str, work: Callable[[], T]) -> asyncio.Future[T]:
        def done() -> T:
            with explained(self._directory, doing):
                return work()

        return asyncio.get_running_loop().run_in_executor(self._thread, done)


def note_delivery(directory: Path, delivery: Delivery) -> None:
    """Note a delivery, durably. The run may go on meanwhile, unless its file system has no locks."""
    path = path_in(directory)
    with explained(directory, "written"), ExitStack() as stack:
        if not _lock.has_record_locks(directory):
            stack.enter_context(_lock.locked(directory))
        connection = stack.enter_context(closing(connected(path, "mode=rw")))
        version_of(directory, connection)
        make_durable(directory, connection)
        with transaction(connection):
            DELIVERY.save(connection, [delivery])
