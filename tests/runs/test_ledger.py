"""The ledger: there whole or not at all, safe when a call returns, and refused where it cannot be believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import RunLedgerError
from together_batches.runs import _ledger, _rules
from together_batches.runs._records import Attempt, Books, Run, Shard

if TYPE_CHECKING:
    from pathlib import Path

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
    outcomes=_rules.packed(b"sm"),
    prompt_tokens=1,
    completion_tokens=2,
    total_tokens=3,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    _ledger.create(tmp_path, RUN, SHARDS)
    return tmp_path


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_what_is_saved_is_there(directory: Path) -> None:
    """All of it as it was, for the next process and for whoever looks meanwhile."""
    async with _ledger.opened(directory) as ledger:
        assert await ledger.load() == Books(RUN, SHARDS)
        await ledger.save(ATTEMPT)
        await ledger.save(attrs.evolve(ATTEMPT, file_id="file-1"), FULL)
        await ledger.save_run(attrs.evolve(RUN, finished_at=NOON, claims="ab cd"))
        expected = Books(
            attrs.evolve(RUN, finished_at=NOON, claims="ab cd"),
            SHARDS,
            (attrs.evolve(ATTEMPT, file_id="file-1"), FULL),
        )
        assert await ledger.load() == expected
        assert _ledger.read(directory) == expected
    assert _names(directory) == ["ledger.sqlite"]
    assert _ledger.read(directory) == expected


async def test_all_of_a_call_or_nothing(directory: Path) -> None:
    """Two attempts of which one cannot be are both not saved; the ledger goes on."""
    async with _ledger.opened(directory) as ledger:
        with pytest.raises(RunLedgerError, match="cannot be written"):
            await ledger.save(ATTEMPT, attrs.evolve(ATTEMPT, shard=9))
        assert (await ledger.load()).attempts == ()
        await ledger.save(ATTEMPT)
        assert (await ledger.load()).attempts == (ATTEMPT,)


async def test_a_job_is_of_one_attempt(directory: Path) -> None:
    """A second attempt that names the same job is not saved, and the first stays."""
    async with _ledger.opened(directory) as ledger:
        first = attrs.evolve(ATTEMPT, job_id="job-1")
        await ledger.save(first)
        with pytest.raises(RunLedgerError, match="cannot be written"):
            await ledger.save(attrs.evolve(first, number=2))
        assert (await ledger.load()).attempts == (first,)


def test_it_appears_whole(tmp_path: Path) -> None:
    """A beginning that fails leaves nothing."""
    broken: Any = attrs.evolve(RUN, input_bytes=None)  # type: ignore[arg-type]
    with pytest.raises(RunLedgerError, match="cannot be written"):
        _ledger.create(tmp_path, broken, SHARDS)
    assert _names(tmp_path) == []


async def test_what_was_noted_survives_a_process_that_ends_without_closing(directory: Path, tmp_path: Path) -> None:
    """A copy made while it is open, journal included, has all that was saved: also on another machine."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with _ledger.opened(directory) as ledger:
        await ledger.save(FULL)
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            (elsewhere / name).write_bytes((directory / name).read_bytes())
    assert _ledger.read(elsewhere).attempts == (FULL,)


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 4096, 5000, 8192, 0.5, -1])
async def test_a_ledger_that_is_cut(directory: Path, kept: float) -> None:
    """Is refused however little is missing, and left as it is; it is never taken for an empty one."""
    path = directory / "ledger.sqlite"
    whole = path.read_bytes()
    cut = whole[: int(kept * len(whole))] if isinstance(kept, float) else whole[: int(kept)]
    path.write_bytes(cut)
    with pytest.raises(RunLedgerError, match=r"in another directory: all its jobs would be created anew") as raised:
        _ledger.read(directory)
    assert raised.value.directory == str(directory)
    with pytest.raises(RunLedgerError):
        async with _ledger.opened(directory):
            pass
    assert path.read_bytes() == cut


@pytest.mark.parametrize("content", [b"no database", b"{}" * 3000, b"\0" * 8192])
def test_what_is_no_ledger(directory: Path, content: bytes) -> None:
    """Is none, whatever it is."""
    (directory / "ledger.sqlite").write_bytes(content)
    with pytest.raises(RunLedgerError, match="all its jobs would be created anew"):
        _ledger.read(directory)


def test_a_database_of_somebody_else(directory: Path) -> None:
    """Is left alone."""
    (directory / "ledger.sqlite").unlink()
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as other:
        other.execute("CREATE TABLE run (id)")
    with pytest.raises(RunLedgerError, match="is no ledger of a run"):
        _ledger.read(directory)


def test_bytes_that_were_turned(directory: Path) -> None:
    """Are noticed."""
    path = directory / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:4200] = bytes(byte ^ 0xFF for byte in content[4096:4200])
    path.write_bytes(content)
    with pytest.raises(RunLedgerError, match="cannot be read"):
        _ledger.read(directory)


def test_a_newer_version(directory: Path) -> None:
    """Is refused with what to do."""
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as newer:
        newer.execute("PRAGMA user_version = 2")
    with pytest.raises(RunLedgerError, match=r"newer version of together_batches .* install that version"):
        _ledger.read(directory)


def test_no_ledger(tmp_path: Path) -> None:
    """Is told as that, and none is made by looking."""
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunLedgerError, match="is not the directory of a run"):
            _ledger.read(directory)
    assert _names(tmp_path) == []


async def test_a_full_disk(directory: Path) -> None:
    """Is told in a sentence; what was noted before is there, and when there is room it goes on."""
    async with _ledger.opened(directory) as ledger:
        await ledger.save(ATTEMPT)
        connection = ledger._open_connection()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunLedgerError, match="cannot be written: database or disk is full; make room"):
            await ledger.save(attrs.evolve(FULL, error="x" * 100_000))
        assert (await ledger.load()).attempts == (ATTEMPT,)
        connection.execute("PRAGMA max_page_count = 1000000")
        await ledger.save(FULL)
        assert (await ledger.load()).attempts == (ATTEMPT, FULL)
