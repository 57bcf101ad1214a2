"""A disk for everything under one directory, which may be full, or find its process dead, at any time.

The files are real. Each operation is a step of the calling process, and may fail. What a process had not handed to
the system (the buffer of an open file) is lost with it; what it had handed over remains.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import sqlite3
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import anyio.lowlevel
import anyio.to_thread

from .machine import Loop, Process, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

T = TypeVar("T")

_BUFFER_BYTES = 8_192
_WRITING = frozenset("wax+")
_CHANGING_NOTHING = ("select", "pragma", "explain", "begin", "rollback")


class Disk:
    """The files under ``root``. Operation ``full_at``, counted from 1, and ``full_for`` more find no space."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.full_at: int | None = None
        self.full_for = 0
        self.acts = 0
        self._copies = 0

    def act(self, what: str) -> bool:
        """Count an operation that takes space; return True if there is none."""
        step(what)
        self.acts += 1
        full = self.full_at is not None and self.full_at <= self.acts <= self.full_at + self.full_for
        if full:
            process = Process.current()
            if process is not None:
                process.on_step(process, f"NO SPACE for: {what}")
        return full

    def holds(self, path: object) -> bool:
        """Return whether this path is the root or within it."""
        if not isinstance(path, str | os.PathLike):
            return False
        name, root = os.fsdecode(path), str(self.root)  # not by pathlib: it takes a twentieth of a simulation
        return name == root or name.startswith(root + os.sep)

    # --- what a dead process leaves behind ---

    def copy(self) -> Path:
        """Save a copy of the current state."""
        self._copies += 1
        aside = self.root.with_name(f"{self.root.name}.{self._copies}")
        shutil.copytree(self.root, aside)
        return aside

    def restore(self, aside: Path) -> None:
        """Restore the saved state. Open files stay open, but no longer have a name."""
        self._copies += 1
        self.root.rename(self.root.with_name(f"{self.root.name}.{self._copies}"))
        aside.rename(self.root)

    def clear(self) -> None:
        """Remove the directory, and all copies."""
        for left in self.root.parent.glob(f"{self.root.name}*"):
            shutil.rmtree(left, ignore_errors=True)


class _File(io.FileIO):
    """An open file whose every operation is a step."""

    disk: Disk
    file_name: str

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        if self.disk.act(f"write {size} bytes to {self.file_name}"):
            super().write(memoryview(data).cast("B")[: size // 2])  # some of it still fits
            raise _no_space(self.file_name)
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        step(f"truncate {self.file_name}")
        return super().truncate(size)


class _Ledger(sqlite3.Connection):
    """A connection to SQLite whose every writing statement is a step."""

    disk: Disk

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        return self.cursor().execute(sql, *rest)

    def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        return self.cursor().executemany(sql, *rest)

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        return self.cursor().executescript(sql)

    def commit(self) -> None:
        if self.in_transaction:
            self.act("commit")
        super().commit()

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_Cursor if factory is None else factory)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        if self.in_transaction:
            if kind is None:
                self.commit()
            else:
                self.rollback()
        return False

    def act(self, sql: str) -> None:
        """Count a statement that is about to be executed."""
        words = " ".join(sql.split())
        if words.lower().startswith(_CHANGING_NOTHING):
            return
        if self.disk.act(f"SQL {words[:70]}"):
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            full.sqlite_errorname = "SQLITE_FULL"
            raise full


class _Cursor(sqlite3.Cursor):
    """A cursor of :class:`_Ledger`."""

    connection: _Ledger

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        self.connection.act(sql)
        return super().execute(sql, *rest)

    def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        self.connection.act(sql)
        return super().executemany(sql, *rest)

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        self.connection.act(f"script {sql}")
        return super().executescript(sql)


def _no_space(path: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@contextmanager
def made_up(disk: Disk, loop: Loop, random: Random) -> Iterator[None]:
    """Give the processes of a simulation this disk, and no threads that run in parallel.

    Work for a thread is done at once, some time after it was submitted, and the loop continues meanwhile.
    """

    def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        if not disk.holds(file) or not _WRITING & set(mode) or Process.current() is None:
            return really_open(file, mode, buffering, *args, **options)
        if disk.act(f"open {Path(file).name} ({mode})"):
            raise _no_space(str(file))
        raw = _File(file, mode.replace("b", "").replace("t", ""))
        raw.disk, raw.file_name = disk, Path(file).name
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw, _BUFFER_BYTES) if "+" in mode else io.BufferedWriter(raw, _BUFFER_BYTES)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

    def connected(database: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        if Process.current() is None:
            return really_connect(database, *args, **options)
        step(f"open {Path(str(database).partition('?')[0]).name} with SQLite")
        connection: _Ledger = really_connect(database, *args, **options, factory=_Ledger)
        connection.disk = disk
        return connection

    def stepping(name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def act(path: Any, *args: Any, **options: Any) -> Any:
            if disk.holds(path):
                step(f"{name} {' to '.join(Path(each).name for each in (path, *args) if disk.holds(each))}")
            return really(path, *args, **options)

        return act

    async def run_sync(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(loop.thread_seconds())
            return function(*args)

    loop.thread_seconds = lambda: random.uniform(0.000_1, 0.01)
    really_open, really_connect = io.open, sqlite3.connect
    with ExitStack() as patches:
        for owner, name, instead in (
            (builtins, "open", opened),
            (io, "open", opened),
            (sqlite3, "connect", connected),
            (anyio.to_thread, "run_sync", run_sync),
            (time, "sleep", lambda _seconds: None),
            *((os, name, stepping(name, getattr(os, name))) for name in _MOVING),
        ):
            patches.enter_context(mock.patch.object(owner, name, instead))
        yield


_MOVING = ("replace", "rename", "unlink", "remove", "link", "mkdir", "rmdir", "truncate")
