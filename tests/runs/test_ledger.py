"""The ledger: complete or absent, durable when a call returns, and refused if it is not trustworthy."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import RunInUseError, RunLedgerError
from together_batches.runs import _ledger, _lock
from together_batches.runs._ledger import connection as ledger_connection
from together_batches.runs._lock import locked
from together_batches.runs._records import Attempt, Delivery, LedgerSnapshot, Run, Shard, packed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractContextManager

    AsNobody = Callable[[], AbstractContextManager[None]]

SAMPLE = Path(__file__).parents[1] / "samples" / "ledger-version-1.zip"
"""A ledger of version 1, left by a killed process: its changes are still in the write-ahead log."""
posix = pytest.mark.skipif(sys.platform == "win32", reason="rights and limits of POSIX")

NOON = datetime(2026, 9, 14, 12, 0, 0, 123456, tzinfo=UTC)
RUN = Run(
    id="0123456789abcdef",
    input_name="größe.jsonl",
    input_bytes=300,
    input_sha256="ab" * 32,
    spooled=True,
    endpoint="/v1/chat/completions",
    model_id=None,
    priority=2,
    max_attempts=3,
    invalid=1,
    started_at=NOON,
)
SHARDS = tuple(
    Shard(
        number=number, first_line=1 + 2 * number, rows=2, offset=9 * number, size=9, sha256="cd" * 32, skipped=b"\0"
    )
    for number in (1, 2)
)
ATTEMPT = Attempt(shard=1, number=1, rows=2, planned_at=NOON)
FULL = attrs.evolve(
    ATTEMPT,
    number=2,
    file_id="file-1",
    uploaded_at=NOON,
    since=NOON - timedelta(hours=2),
    creating_at=NOON,
    job_id="job-1",
    found=True,
    known_at=NOON,
    created_at=NOON,
    warning="slow",
    status="COMPLETED",
    progress=99.5,
    running_at=NOON,
    ended_at=NOON,
    error="none",
    output_file_id="file-2",
    error_file_id="file-3",
    collected_at=NOON,
    outcomes=packed(b"sm"),
    prompt_tokens=1,
    completion_tokens=2,
    total_tokens=3,
)
FULL_FIRST = attrs.evolve(FULL, number=1)
DELIVERY = Delivery(message_id="msg_1", channel="exec", at=NOON)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    _ledger.create(tmp_path, RUN, SHARDS)
    return tmp_path


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that SQLite has made, to read and set what holds for one of them alone."""
    connect, made = sqlite3.connect, list[sqlite3.Connection]()

    def recorded(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    return made


def _names(directory: Path) -> list[str]:
    """Return the names of the files, without the lock."""
    return sorted(path.name for path in directory.iterdir() if path.name != "lock")


def _content(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


@asynccontextmanager
async def _opened(directory: Path) -> AsyncGenerator[_ledger.SqliteLedger]:
    """Open the ledger as a resumed run does."""
    with locked(directory) as lock:
        async with _ledger.opened(directory, lock) as ledger:
            yield ledger


@contextmanager
def _plain(directory: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(directory / "ledger.sqlite", isolation_level=None, timeout=0)) as connection:
        yield connection


async def test_cancelled_while_it_is_closed(directory: Path, connections: list[sqlite3.Connection]) -> None:
    """The file is closed when the task has ended, also if all tasks are cancelled, as at the end of a loop."""
    used = asyncio.Event()

    async def use() -> None:
        async with _opened(directory):
            used.set()

    task = asyncio.ensure_future(use())
    await used.wait()
    while not task.done():
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connections[-1].execute("SELECT 1")


async def test_what_is_saved_is_there(directory: Path) -> None:
    """Saved attempts are read back unchanged by the next process, and by readers meanwhile."""
    async with _opened(directory) as ledger:
        assert await ledger.load() == LedgerSnapshot(RUN, SHARDS)
        await ledger.save(ATTEMPT)
        await ledger.save(attrs.evolve(ATTEMPT, file_id="file-1"), FULL)
        await ledger.save_run(attrs.evolve(RUN, finished_at=NOON, claims="ab cd"))
        expected = LedgerSnapshot(
            attrs.evolve(RUN, finished_at=NOON, claims="ab cd"),
            SHARDS,
            (attrs.evolve(ATTEMPT, file_id="file-1"), FULL),
        )
        assert await ledger.load() == expected
        assert _ledger.read(directory) == expected
    assert _names(directory) == ["ledger.sqlite"]
    assert _ledger.read(directory) == expected


async def test_all_of_a_call_or_nothing(directory: Path) -> None:
    """If one of two attempts in a call is invalid, neither is saved, and the ledger stays usable."""
    async with _opened(directory) as ledger:
        with pytest.raises(RunLedgerError, match="cannot be written"):
            await ledger.save(ATTEMPT, attrs.evolve(ATTEMPT, shard=9))
        assert (await ledger.load()).attempts == ()
        await ledger.save(ATTEMPT)
        assert (await ledger.load()).attempts == (ATTEMPT,)


async def test_a_job_is_of_one_attempt(directory: Path) -> None:
    """A second attempt with the same job is not saved, and the first stays."""
    async with _opened(directory) as ledger:
        first = attrs.evolve(ATTEMPT, job_id="job-1")
        await ledger.save(first)
        with pytest.raises(
            RunLedgerError, match="cannot be written: two attempts would have the same job; check the"
        ):
            await ledger.save(attrs.evolve(first, number=2))
        assert (await ledger.load()).attempts == (first,)


def test_it_appears_whole(tmp_path: Path) -> None:
    """A failed beginning leaves no file."""
    broken: Any = attrs.evolve(RUN, input_bytes=None)  # type: ignore[arg-type]
    with pytest.raises(RunLedgerError, match="cannot be written"):
        _ledger.create(tmp_path, broken, SHARDS)
    assert _names(tmp_path) == []


async def test_what_was_noted_is_in_one_file(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A copy of the open file has all that was saved: there is no write-ahead log that could be lost."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    async with _opened(directory) as ledger:
        await ledger.save(FULL_FIRST)
        assert _names(directory) == ["ledger.sqlite"]
        shutil.copy(directory / "ledger.sqlite", elsewhere)
    assert _ledger.read(elsewhere).attempts == (FULL_FIRST,)


async def test_a_commit_is_on_the_disk(directory: Path, connections: list[sqlite3.Connection]) -> None:
    """A commit is on the disk when it returns, even if power fails then: the end of the journal is synced too."""
    async with _opened(directory):
        (connection,) = connections
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 4096, 5000, 8192, 0.5, -1])
async def test_a_ledger_that_is_cut(directory: Path, kept: float) -> None:
    """A truncated ledger is refused however little is missing, left as it is, and never taken for an empty one."""
    path = directory / "ledger.sqlite"
    whole = path.read_bytes()
    cut = whole[: int(kept * len(whole))] if isinstance(kept, float) else whole[: int(kept)]
    path.write_bytes(cut)
    with pytest.raises(RunLedgerError, match=r"in another directory: all its jobs would be created again") as raised:
        _ledger.read(directory)
    assert raised.value.directory == str(directory)
    with pytest.raises(RunLedgerError):
        async with _opened(directory):
            pass
    assert path.read_bytes() == cut


@pytest.mark.parametrize("content", [b"no database", b"{}" * 3000, b"\0" * 8192])
def test_what_is_no_ledger(directory: Path, content: bytes) -> None:
    """A file with any other content is refused as a ledger."""
    (directory / "ledger.sqlite").write_bytes(content)
    with pytest.raises(RunLedgerError, match="all its jobs would be created again"):
        _ledger.read(directory)


def test_a_database_of_another_program(directory: Path) -> None:
    """A database of another program is left alone."""
    (directory / "ledger.sqlite").unlink()
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as other:
        other.execute("CREATE TABLE run (id)")
    with pytest.raises(RunLedgerError, match="is not the ledger of a run"):
        _ledger.read(directory)


def test_bytes_that_were_turned(directory: Path) -> None:
    """Corrupt bytes are detected."""
    path = directory / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:4200] = bytes(byte ^ 0xFF for byte in content[4096:4200])
    path.write_bytes(content)
    with pytest.raises(RunLedgerError, match="cannot be read"):
        _ledger.read(directory)


def test_a_newer_version(directory: Path) -> None:
    """A ledger of a newer version is refused with advice."""
    with _plain(directory) as newer:
        newer.execute(f"PRAGMA user_version = {_ledger.VERSION + 1}")
    with pytest.raises(RunLedgerError, match=r"newer version of together_batches .* install that version"):
        _ledger.read(directory)


def test_no_ledger(tmp_path: Path) -> None:
    """A missing ledger is an error, and reading does not create one."""
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunLedgerError, match="is not the directory of a run"):
            _ledger.read(directory)
    assert _names(tmp_path) == []


async def test_a_full_disk(directory: Path, connections: list[sqlite3.Connection]) -> None:
    """A full disk is one clear error; earlier records remain, and the run resumes when there is room."""
    async with _opened(directory) as ledger:
        await ledger.save(ATTEMPT)
        (connection,) = connections
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunLedgerError, match="cannot be written: database or disk is full; make room"):
            await ledger.save(attrs.evolve(FULL, error="x" * 100_000))
        assert (await ledger.load()).attempts == (ATTEMPT,)
        connection.execute("PRAGMA max_page_count = 1000000")
        await ledger.save(FULL)
        assert (await ledger.load()).attempts == (ATTEMPT, FULL)


# --- beginning ---


@posix
@pytest.mark.parametrize("room", range(0, 50_000, 2_000))
def test_a_disk_that_gets_full(tmp_path: Path, room: int) -> None:
    """On a disk that gets full a new ledger is complete or absent, and the run can be begun later."""
    import resource

    shards = [attrs.evolve(SHARDS[0], number=number, skipped=bytes(500)) for number in range(1, 50)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        _ledger.create(tmp_path, RUN, shards)
    except RunLedgerError as error:
        full: RunLedgerError | None = error
    else:
        full = None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if full is None:
        assert room > 25_000
    else:
        assert _names(tmp_path) == []
        assert re.search(r"cannot be written: .*; (check the disk|make room)", str(full))
        _ledger.create(tmp_path, RUN, shards)
    assert _ledger.read(tmp_path) == LedgerSnapshot(RUN, tuple(shards))


def test_what_an_earlier_try_left(tmp_path: Path) -> None:
    """The remains of an earlier try are removed."""
    for name in (".ledger.sqlite.0011.part", ".ledger.sqlite.0011.part-journal"):
        (tmp_path / name).write_bytes(b"half")
    _ledger.create(tmp_path, RUN, SHARDS)
    assert _names(tmp_path) == ["ledger.sqlite"]


@pytest.mark.parametrize("end", ["-journal", "-wal"])
def test_a_journal_without_its_ledger(tmp_path: Path, end: str) -> None:
    """A journal without its ledger is refused: the ledger is lost, and a new one would adopt the journal."""
    (tmp_path / f"ledger.sqlite{end}").write_bytes(b"changes")
    with pytest.raises(RunLedgerError, match=rf"holds ledger\.sqlite{end} and no ledger\.sqlite: put it back"):
        _ledger.create(tmp_path, RUN, SHARDS)
    assert _names(tmp_path) == [f"ledger.sqlite{end}"]
    (tmp_path / f"ledger.sqlite{end}").write_bytes(b"")
    _ledger.create(tmp_path, RUN, SHARDS)
    assert _names(tmp_path) == ["ledger.sqlite"]


# --- a process that is killed in the middle of a change ---

MANY = tuple(attrs.evolve(ATTEMPT, number=n, job_id=f"job-{n}", error="x" * 2_000) for n in range(1, 60))


@pytest.fixture
async def torn(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that a process leaves if killed while SQLite writes: the journal has the former pages."""
    async with _opened(directory) as ledger:
        await ledger.save(*MANY)
    left = tmp_path_factory.mktemp("torn")
    with _plain(directory) as connection:
        connection.execute("PRAGMA cache_size = 2")  # so that pages are written before the end of the transaction
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE attempt SET job_id = 'new-' || job_id, error = error || error || error")
        for name in ("ledger.sqlite", "ledger.sqlite-journal"):
            shutil.copy(directory / name, left)
    return left


async def test_it_is_as_it_was_before_the_change(torn: Path) -> None:
    """A reader sees the state before the change and modifies no file; a resumed run restores that state."""
    before = _content(torn)
    assert _ledger.read(torn).attempts == MANY
    assert _content(torn) == before
    async with _opened(torn) as ledger:
        assert (await ledger.load()).attempts == MANY
    assert _names(torn) == ["ledger.sqlite"]
    assert _ledger.read(torn).attempts == MANY


async def test_a_change_of_the_first_page_alone(torn: Path) -> None:
    """A first page that counts pages not yet written is undone: the journal has the former count."""
    path = torn / "ledger.sqlite"
    content = path.read_bytes()
    pages = int.from_bytes((torn / "ledger.sqlite-journal").read_bytes()[16:20], "big")  # when the change began
    path.write_bytes(content[:28] + (len(content) // 4096).to_bytes(4, "big") + content[32 : 4096 * pages])
    assert _ledger.read(torn).attempts == MANY
    async with _opened(torn) as ledger:
        assert (await ledger.load()).attempts == MANY


@pytest.mark.parametrize("loss", ["missing", "cut", "turned", "emptied"])
async def test_a_journal_that_lost_something(torn: Path, loss: str) -> None:
    """A damaged journal leaves a mix of old and new pages, which readers and the run detect."""
    journal = torn / "ledger.sqlite-journal"
    content = bytearray(journal.read_bytes())
    if loss == "missing":
        journal.unlink()
    elif loss == "turned":
        content[3] ^= 0xFF
        journal.write_bytes(content)
    else:
        journal.write_bytes(content[: len(content) // 2] if loss == "cut" else b"")
    with pytest.raises(RunLedgerError, match="not taken for an empty one") as raised:
        _ledger.read(torn)
    assert "\n" not in str(raised.value)
    with pytest.raises(RunLedgerError, match="not taken for an empty one"):
        async with _opened(torn):
            pass


@pytest.mark.parametrize("gone", ["number = 1", "number = 2"])
async def test_an_attempt_that_is_missing(directory: Path, gone: str) -> None:
    """A missing attempt is detected by the numbers of the others."""
    async with _opened(directory) as ledger:
        await ledger.save(ATTEMPT, FULL, attrs.evolve(ATTEMPT, number=3))
    with _plain(directory) as connection:
        connection.execute(f"DELETE FROM attempt WHERE {gone}")
    with pytest.raises(RunLedgerError, match="attempts of shard 1 are missing; it is left alone"):
        _ledger.read(directory)


async def test_outcomes_that_cannot_be_read(directory: Path) -> None:
    """Unreadable outcomes are an error of the ledger."""
    async with _opened(directory) as ledger:
        await ledger.save(attrs.evolve(FULL_FIRST, outcomes=b"neither"))
    with pytest.raises(RunLedgerError, match="it is left alone, and not taken for an empty one"):
        _ledger.read(directory)


# --- two processes ---


async def test_the_last_process_that_took_it_has_it(directory: Path) -> None:
    """The last process that took the ledger has it: the one before cannot load or change it."""
    async with _opened(directory) as first:
        await first.save(ATTEMPT)
        (directory / "lock").unlink()
        async with _opened(directory) as second:
            for lost in (first.save(FULL), first.save_run(attrs.evolve(RUN, claims="ab"))):
                with pytest.raises(RunInUseError, match="is in use by process"):
                    await lost
            assert await second.load() == LedgerSnapshot(RUN, SHARDS, (ATTEMPT,))
            await second.save(FULL)
        for lost in (first.save(ATTEMPT), first.save_run(RUN)):
            with pytest.raises(RunInUseError, match="was taken over by another process, so this process stops"):
                await lost
        with pytest.raises(RunInUseError, match="was taken over by"):
            await first.load()
    assert _ledger.read(directory) == LedgerSnapshot(RUN, SHARDS, (ATTEMPT, FULL))


@posix
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_ledger_that_is_replaced_under_a_process(directory: Path, replaced: bool) -> None:
    """A ledger that is replaced or removed while it is open is an error: records would go into a lost file."""
    path = directory / "ledger.sqlite"
    async with _opened(directory) as ledger:
        await ledger.save(ATTEMPT)
        if replaced:
            shutil.copy(path, directory / "copy")
            (directory / "copy").replace(path)
        else:
            path.unlink()
        with pytest.raises(
            RunLedgerError, match="was removed or replaced while this process had it open, so it stops"
        ):
            await ledger.save(FULL)
    assert not replaced or _ledger.read(directory).attempts == (ATTEMPT,)


async def test_reading_while_a_process_works_on_it(directory: Path) -> None:
    """A reader sees what was saved as of one moment, and blocks no writer."""
    async with _opened(directory) as ledger:
        for number in range(1, 40):
            saving = asyncio.create_task(ledger.save(attrs.evolve(ATTEMPT, number=number, error="x" * 3_000)))
            while not saving.done():
                seen = await asyncio.to_thread(_ledger.read, directory)
                assert len(seen.attempts) in (number - 1, number)
            await saving


@posix
async def test_its_locks_outlast_a_look(directory: Path) -> None:
    """A read keeps the locks of the same process: closing a handle opened beside SQLite would drop them."""
    others = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with _plain(directory) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _ledger.read(directory)
        command = [sys.executable, "-c", others, str(directory / "ledger.sqlite")]
        other = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert "database is locked" in other.stderr


# --- permissions, and file systems ---


def _seal(directory: Path) -> None:
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)


@posix
@pytest.mark.parametrize("kind", ["whole", "torn", "version 1", "version 1, closed"])
def test_looking_without_the_right_to_write(sealed: Path, torn: Path, kind: str, as_nobody: AsNobody) -> None:
    """A ledger of any version can be read without write permission, also after a kill."""
    if kind == "whole":
        _ledger.create(sealed, RUN, SHARDS)
    elif kind == "torn":
        shutil.copytree(torn, sealed, dirs_exist_ok=True)
    else:
        zipfile.ZipFile(SAMPLE).extractall(sealed)
        if kind == "version 1, closed":
            with _plain(sealed) as connection:
                connection.execute("PRAGMA wal_checkpoint")
    _seal(sealed)
    expected = {"whole": 0, "torn": 59, "version 1": 3, "version 1, closed": 3}[kind]
    with as_nobody():
        assert len(_ledger.read(sealed).attempts) == expected


@posix
async def test_going_on_without_the_right_to_write(sealed: Path, as_nobody: AsNobody) -> None:
    """Resuming without write permission is refused with advice."""
    _ledger.create(sealed, RUN, SHARDS)
    with locked(sealed) as lock:
        _seal(sealed)
        with as_nobody(), pytest.raises(RunLedgerError, match=r"cannot be written: .*; get permission to read and"):
            async with _ledger.opened(sealed, lock):
                pass
        (sealed / "ledger.sqlite").chmod(0)
        with as_nobody(), pytest.raises(RunLedgerError, match=r"cannot be read: .*; get permission to read and"):
            _ledger.read(sealed)


async def test_a_ledger_that_another_process_has_locked(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger locked by another process is reported as that, after some patience, and not as corrupt."""
    monkeypatch.setattr(ledger_connection, "_BUSY_SECONDS", 0)
    async with _opened(directory) as ledger:
        with _plain(directory) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(
                RunLedgerError, match=r"cannot be written: database is locked; another process uses it"
            ):
                await ledger.save(ATTEMPT)
            with pytest.raises(RunLedgerError, match=r"cannot be read: database is locked; another process uses it"):
                _ledger.read(directory)
        await ledger.save(ATTEMPT)


@posix
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
async def test_a_file_system_without_locks(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Without locks in the file system the ledger works, and the number still decides which process has it."""
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    async with _opened(directory) as first:
        with _plain(directory) as other:
            other.execute("BEGIN EXCLUSIVE")  # a lock without effect shows that there are none
            assert _ledger.read(directory) == LedgerSnapshot(RUN, SHARDS)
        await first.save(ATTEMPT)
        async with _opened(directory) as second:
            await second.save(FULL)
            with pytest.raises(RunInUseError, match="was taken over by"):
                await first.save(ATTEMPT)
    assert _ledger.read(directory).attempts == (ATTEMPT, FULL)
    assert f"the file system of {directory} has no locks ({os.strerror(code)})" in caplog.text


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
async def test_a_file_system_that_syncs_no_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """If directories cannot be synced, the journal is truncated instead: SQLite would fail to sync its removal."""
    really = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    _ledger.create(tmp_path, RUN, SHARDS)
    async with _opened(tmp_path) as ledger:
        await ledger.save(ATTEMPT)
        assert _names(tmp_path) == ["ledger.sqlite", "ledger.sqlite-journal"]
        assert _ledger.read(tmp_path).attempts == (ATTEMPT,)


@posix
def test_a_directory_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be synced because of a disk error is an error."""

    def fsync(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunLedgerError, match=r"cannot be written: .*Input/output error; check the disk"):
        _ledger.create(tmp_path, RUN, SHARDS)
    assert _names(tmp_path) == []


# --- sessions ---


async def test_sessions(directory: Path) -> None:
    """Each process has a session: from when it opened the ledger until it closed it, or recorded something last."""
    times = iter(NOON + timedelta(seconds=number) for number in range(100))
    with locked(directory) as lock:
        async with _ledger.opened(directory, lock, partial(next, times)) as ledger:
            await ledger.save(ATTEMPT)
            (first,) = _ledger.read(directory).sessions
            assert (first.began_at, first.last_at) == (NOON, NOON + timedelta(seconds=1))
        async with _ledger.opened(directory, lock, partial(next, times)) as ledger:
            pass
    first, second = _ledger.read(directory).sessions
    assert (first.last_at, second.began_at, second.last_at) == tuple(
        NOON + timedelta(seconds=number) for number in (2, 3, 4)
    )


async def test_a_session_that_another_process_has_ended(directory: Path) -> None:
    """A process that has lost the run does not make its session longer."""
    times = iter(NOON + timedelta(seconds=number) for number in range(100))
    with locked(directory) as lock:
        async with (
            _ledger.opened(directory, lock, partial(next, times)),
            _ledger.opened(directory, lock, partial(next, times)),
        ):
            pass
    assert [each.last_at for each in _ledger.read(directory).sessions] == [NOON, NOON + timedelta(seconds=2)]


# --- deliveries ---


async def test_a_delivery_is_noted_beside_the_process_at_work(directory: Path) -> None:
    """A delivery is noted once, while a process holds the run and after its end; that process goes on."""
    async with _opened(directory) as ledger:
        _ledger.note_delivery(directory, DELIVERY)
        await ledger.save(ATTEMPT)
    _ledger.note_delivery(directory, DELIVERY)
    _ledger.note_delivery(directory, attrs.evolve(DELIVERY, channel="webhook"))
    found = _ledger.read(directory)
    assert (found.attempts, [each.channel for each in found.deliveries]) == ((ATTEMPT,), ["exec", "webhook"])


async def test_a_delivery_without_locks_for_sqlite(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file system has no locks for SQLite, a delivery is noted only while no process holds the run."""
    monkeypatch.setattr(_lock, "has_record_locks", lambda _: False)
    with locked(directory), pytest.raises(RunInUseError):
        _ledger.note_delivery(directory, DELIVERY)
    _ledger.note_delivery(directory, DELIVERY)
    assert _ledger.read(directory).deliveries == (DELIVERY,)


def test_a_delivery_that_cannot_be_noted(tmp_path: Path) -> None:
    """Without a ledger, none is made."""
    with pytest.raises(RunLedgerError):
        _ledger.note_delivery(tmp_path, DELIVERY)
    assert _names(tmp_path) == []


# --- the layout on disk ---

VERSION_5 = """
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
    made_of TEXT NOT NULL,
    deduped TEXT NOT NULL,
    response_format TEXT,
    retry_invalid INTEGER NOT NULL,
    holder INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE shard (
    number INTEGER NOT NULL PRIMARY KEY,
    first_line INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    skipped BLOB NOT NULL,
    copies BLOB NOT NULL
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
    retries_invalid INTEGER NOT NULL,
    PRIMARY KEY (shard, number)
);
CREATE TABLE session (
    number INTEGER NOT NULL,
    began_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    PRIMARY KEY (number)
);
CREATE TABLE delivery (
    message_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (message_id, channel)
);
"""


@pytest.mark.parametrize("table", ["run", "shard", "attempt", "session", "delivery"])
def test_the_layout_of_version_5(directory: Path, table: str) -> None:
    """The layout of a version is final, because it is on disks: another column is another version."""
    assert _ledger.VERSION == 5
    with closing(sqlite3.connect(":memory:")) as expected, _plain(directory) as ledger:
        expected.executescript(VERSION_5)
        for facts in ("table_info", "index_list", "foreign_key_list"):
            statement = f"PRAGMA {facts}({table})"
            assert ledger.execute(statement).fetchall() == expected.execute(statement).fetchall()


# --- version 1 ---


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return the directory of a run that version 1 began."""
    zipfile.ZipFile(SAMPLE).extractall(tmp_path)
    return tmp_path


OLD = (
    attrs.evolve(FULL_FIRST, marked=False),
    attrs.evolve(ATTEMPT, shard=2, file_id="file-4", uploaded_at=NOON, since=NOON, creating_at=NOON),
    attrs.evolve(ATTEMPT, shard=3),
)
"""Its content: an attempt that is done, one whose create was sent or about to be, and one that is planned."""


def test_looking_at_version_1(old: Path) -> None:
    """A read of version 1 shows all of it, and writes nothing: no file beside it either."""
    before = _content(old)
    assert _ledger.read(old).attempts == OLD
    assert _content(old) == before


def test_reading_version_1_while_a_process_works_on_it(old: Path) -> None:
    """A read shows what a process of version 1 has saved while that is running."""
    with locked(old), _plain(old) as connection:
        connection.execute("UPDATE attempt SET status = 'EXPIRED' WHERE shard = 1")
        assert [attempt.status for attempt in _ledger.read(old).attempts] == ["EXPIRED", None, None]


async def test_a_run_of_version_1_goes_on(old: Path) -> None:
    """A run of version 1 is upgraded, completely or not at all, and then has no write-ahead log."""
    async with _opened(old) as ledger:
        assert _names(old) == ["ledger.sqlite"]
        snapshot = await ledger.load()
        assert snapshot.attempts == tuple(attrs.evolve(item, posts=int(item.creating_at is not None)) for item in OLD)
        changed = attrs.evolve(snapshot.attempts[2], marked=True, file_id="file-5", output_bytes=7)
        await ledger.save(changed)
        assert _names(old) == ["ledger.sqlite"]
    assert _ledger.read(old).attempts == (*snapshot.attempts[:2], changed)
    with _plain(old) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (_ledger.VERSION,)


def _make_version_3(ledger: sqlite3.Connection) -> None:
    ledger.executescript("DROP TABLE session; DROP TABLE delivery")
    for table, columns in {
        "run": ("made_of", "deduped", "response_format", "retry_invalid"),
        "shard": ("copies",),
        "attempt": ("retries_invalid",),
    }.items():
        for column in columns:
            ledger.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


async def test_a_run_of_version_4_goes_on(directory: Path) -> None:
    """A run of version 4 is upgraded; nothing is known of its earlier processes and notifications."""
    with _plain(directory) as earlier:
        earlier.executescript("DROP TABLE session; DROP TABLE delivery; PRAGMA user_version = 4")
    assert (_ledger.read(directory).sessions, _ledger.read(directory).deliveries) == ((), ())
    async with _opened(directory):
        _ledger.note_delivery(directory, DELIVERY)
    assert len(_ledger.read(directory).sessions) == 1
    assert _ledger.read(directory).deliveries == (DELIVERY,)


async def test_a_run_of_version_3_goes_on(directory: Path) -> None:
    """A run of version 3 is upgraded; it was begun without a fingerprint and a schema."""
    with _plain(directory) as earlier:
        _make_version_3(earlier)
        earlier.execute("PRAGMA user_version = 3")
    before = _ledger.read(directory)
    async with _opened(directory) as ledger:
        assert await ledger.load() == before
    assert (before.run.made_of, before.run.deduped, before.shards[0].copies) == ("", "", b"")


async def test_a_run_of_version_2_goes_on(directory: Path) -> None:
    """A run of version 2 is upgraded, without hashes of its existing pieces, and without a schema."""
    with _plain(directory) as earlier:
        earlier.execute("ALTER TABLE attempt DROP COLUMN piece_sha256")
        _make_version_3(earlier)
        earlier.execute("PRAGMA user_version = 2")
    before = _ledger.read(directory)
    async with _opened(directory) as ledger:
        assert await ledger.load() == before
        await ledger.save(ATTEMPT)
    assert [attempt.piece_sha256 for attempt in _ledger.read(directory).attempts] == [""]


async def test_what_cannot_be_brought_up(old: Path) -> None:
    """A ledger whose upgrade fails stays as it was."""
    with _plain(old) as connection:
        connection.execute("ALTER TABLE attempt ADD COLUMN error_bytes INTEGER")  # the last that is added
    with pytest.raises(RunLedgerError, match="cannot be written: duplicate column name"):
        async with _opened(old):
            pass
    assert _ledger.read(old).attempts == OLD
    with _plain(old) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


async def test_version_1_in_use(old: Path) -> None:
    """A ledger of version 1 that is being read is not upgraded, because its log is in use: an error, no change."""
    with _plain(old) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM run").fetchone()
        with pytest.raises(RunLedgerError, match="another process uses it"):
            async with _opened(old):
                pass
    async with _opened(old) as ledger:
        assert len((await ledger.load()).attempts) == 3


@pytest.mark.parametrize(("turned", "known"), [(None, 0), (40, 0), (18_000, 1), (35_000, 2)])
async def test_version_1_whose_log_lost_something(old: Path, turned: int | None, known: int) -> None:
    """A damaged log leaves an earlier, consistent state, which equals that of a ledger closed then."""
    log = old / "ledger.sqlite-wal"
    content = bytearray(log.read_bytes())
    if turned is None:
        log.unlink()
    else:
        content[turned] ^= 0xFF
        log.write_bytes(content)
    assert _ledger.read(old).attempts == OLD[:known]
    async with _opened(old) as ledger:
        assert len((await ledger.load()).attempts) == known
