"""A file that has a temporary name until it is complete, for async code."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from together_batches._local.atomic_file import AtomicFile
from together_batches._local.until_done import finish_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

_WRITE_BYTES = 1 << 20
"""Bytes handed to the thread at a time, because each hand-over costs as much as writing a few hundred kilobytes."""

T = TypeVar("T")


class AsyncAtomicFile:
    """An :class:`AtomicFile` whose thread writes while the next bytes arrive.

    One thread for the file, because what it is given is then done in order, whatever is cancelled meanwhile.
    """

    def __init__(self, file: AtomicFile) -> None:
        self.path = file.path
        self._file = file
        self._thread = ThreadPoolExecutor(1, f"writes {file.path.name}")
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._writing: asyncio.Future[None] | None = None

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def write(self, piece: bytes) -> None:
        """Append bytes, which are written by the time :meth:`commit` returns."""
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= _WRITE_BYTES:
            await self._write_held()

    async def _write_held(self) -> None:
        """Begin to write what is held, when the block before is written."""
        held, self._held, self._held_bytes = self._held, [], 0
        if self._writing is not None:
            await self._writing
        self._writing = self._in_thread(partial(self._write_all, held))

    def _write_all(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._file.write(piece)

    async def commit(self) -> None:
        """Complete the file, and rename it to its final name."""
        await self._write_held()
        if self._writing is not None:
            await self._writing
        await self._in_thread(self._file.commit)

    async def begin(self) -> None:
        """Open the file."""
        await self._in_thread(self._file.__enter__)

    async def end(self) -> None:
        """Remove what was not committed, and end the thread, whatever is cancelled meanwhile."""
        try:
            await finish_in(self._thread, self._file.__exit__)
        finally:
            if self._writing is not None and self._writing.done() and not self._writing.cancelled():
                self._writing.exception()  # retrieved, so that it is not logged: another error takes precedence


@asynccontextmanager
async def open_atomic(path: Path, *, replace: bool) -> AsyncGenerator[AsyncAtomicFile]:
    """Open a file for writing; it is at ``path`` afterwards if it was committed, otherwise ``path`` is unchanged.

    The data is not forced to the disk (``fsync``): it can be downloaded again, and ``fsync`` would take longer than
    the download if the network is faster than the disk.
    """
    file = AsyncAtomicFile(AtomicFile(path, replace=replace))
    try:
        await file.begin()
        yield file
    finally:
        await file.end()
