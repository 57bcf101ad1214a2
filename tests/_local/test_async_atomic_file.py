# ruff: noqa: ASYNC240  # a test may wait for the disk
"""Files that appear complete. No read or write of a file happens in the thread of the event loop."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError
from together_batches._local.async_atomic_file import open_atomic
from together_batches._local.atomic_file import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = os.urandom(2_500_000)


async def write(path: Path, *pieces: bytes, replace: bool = False, meanwhile: Callable[[], object] = int) -> None:
    async with open_atomic(path, replace=replace) as target:
        for piece in pieces:
            await target.write(piece)
        meanwhile()
        await target.commit()


async def test_a_file_appears_when_it_is_kept(tmp_path: Path) -> None:
    """A file appears only when it is committed, and only its owner may read it."""
    path = tmp_path / "out.jsonl"
    async with open_atomic(path, replace=False) as target:
        for start in range(0, len(BIG), 300_000):
            await target.write(BIG[start : start + 300_000])
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 1
        await target.commit()
    assert path.read_bytes() == BIG
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_is_not_kept_is_gone(tmp_path: Path) -> None:
    """A file that is not committed is removed, however the block is left."""

    async def hang(ready: asyncio.Event) -> None:
        async with open_atomic(tmp_path / "out", replace=False) as target:
            await target.write(BIG)
            ready.set()
            await asyncio.Event().wait()

    ready = asyncio.Event()
    task = asyncio.create_task(hang(ready))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_a_second_cancellation_during_a_slow_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose thread still writes is removed, also if its task is cancelled once more meanwhile."""
    writes, may_write = threading.Event(), threading.Event()

    def slow(_file: AtomicFile, _content: bytes) -> None:
        writes.set()
        may_write.wait()

    monkeypatch.setattr(AtomicFile, "write", slow)
    task = asyncio.create_task(write(tmp_path / "out", BIG, BIG))
    await asyncio.to_thread(writes.wait)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """An existing file is not touched without ``overwrite``, and with it only once the new one is complete."""
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="out exists already, and is left alone; overwrite=True replaces it"):
        await write(path, b"new")
    seen: list[bytes] = []
    await write(path, b"new", replace=True, meanwhile=lambda: seen.append(path.read_bytes()))
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


async def test_what_came_there_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """A file that appeared meanwhile is not overwritten by a second download, unless that is requested."""
    path = tmp_path / "out"
    with pytest.raises(UsageError, match="exists already"):
        await write(path, b"ours", meanwhile=lambda: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


async def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A directory, a missing directory and an invalid name are refused with a message each; nothing is replaced."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path, "it is a directory; name the file to write in it"),
        (tmp_path / "none" / "out", "there is no such file or directory"),
        (tmp_path / "file" / "out", "not a directory"),
        (tmp_path / "pipe", "it is not a file (a device or a pipe), and would be replaced by one; name another"),
    ):
        with pytest.raises(UsageError) as caught:
            await write(path, b"new", replace=True)
        assert str(caught.value) == f"cannot write {path}: {problem}"


async def test_many_small_pieces(tmp_path: Path) -> None:
    """Many small pieces are written: more than the system accepts in one call, and a single one at the end."""
    await write(tmp_path / "out", *([b"piece\n"] * 100_000), b"end")
    assert (tmp_path / "out").read_bytes() == b"piece\n" * 100_000 + b"end"


@pytest.mark.parametrize("pieces", [[BIG], [b"x" * 1_000] * 3_000], ids=["one", "many"])
async def test_a_full_disk(tmp_path: Path, pieces: list[bytes]) -> None:
    """A full disk is an error, and the partial file is removed, so that its space is free again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_001, hard))  # a part fits, and the rest does not
    try:
        with pytest.raises(UsageError, match=r"cannot write .*/out: file too large"):
            await write(tmp_path / "out", *pieces)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
