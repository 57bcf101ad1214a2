"""A file that a thread writes under a temporary name and that is renamed when it is complete."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sys
import threading
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

import anyio
from anyio import to_thread

from together_batches._local.os_errors import explained
from together_batches._local.replace import created, destination, objection, take_place
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


__all__ = ["AtomicFile", "open_atomic"]

_WRITE_BYTES = 1 << 19
"""Bytes written at a time: a larger block no longer fits in the processor's cache."""
_WAITING_BYTES = 1 << 23
"""Bytes waiting to be written at which the next piece has to wait."""
_MOST_PIECES = 500
"""Maximum pieces per call; the limit of the system is about a thousand."""

_MOST_PARTS = 100
"""Maximum number of concurrent downloads to one path with part names that the next process can reuse."""


class AtomicFile:
    """A file that is being written: under a temporary name in the target directory until it is complete."""

    def __init__(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        given: object = path
        if not isinstance(given, str | os.PathLike):
            message = f"a path is text or a Path, not {type(given).__name__}: {given!r}"
            raise UsageError(message)
        self.path = Path(path)
        self._replace = replace
        self._lock = threading.Lock()
        self._place = self._part = self.path
        self._file: IO[bytes] | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        # One thread for the file: a request to the pool for each write costs as much as the write.
        self._queue = SimpleQueue[list[bytes] | None]()
        self._writer: threading.Thread | None = None
        self._waiting_bytes = 0
        self._wrote = asyncio.Event()
        self._write_error: Exception | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check the target, and open the part for writing; ``loop`` is notified after each write."""
        with self._lock, explained("write", self.path):
            self._look()
            self._place = destination(self.path)
            self._part, self._file = _part_of(self._place)
            self._writer = threading.Thread(target=self._write_on, args=(loop,), name=f"writes {self.path.name}")
            self._writer.daemon = True
            self._writer.start()

    def _look(self) -> None:
        against = objection(self.path)
        if against is not None:
            message = f"cannot write {self.path}: {against}"
            raise UsageError(message)
        if not self._replace and self.path.exists():
            message = f"{self.path} exists already, and is left alone; overwrite=True replaces it"
            raise UsageError(message)

    async def write(self, piece: bytes) -> None:
        """Append bytes, which are written by the time :meth:`commit` returns.

        They are written while the next ones arrive; if these arrive faster than the disk writes, this call waits.
        """
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= _WRITE_BYTES:
            self._hand_over()
            await self._drain(_WAITING_BYTES)

    def _hand_over(self) -> None:
        self._queue.put(self._held)
        self._waiting_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0

    async def _drain(self, rest: int) -> None:
        """Wait until at most ``rest`` bytes are still to be written, and raise any write error."""
        while self._waiting_bytes > rest and self._write_error is None:
            self._wrote.clear()
            await self._wrote.wait()
        if self._write_error is not None:
            raise self._write_error

    def _write_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the writer thread until it receives None."""
        while (pieces := self._queue.get()) is not None:
            trouble: Exception | None = None
            try:
                self._write(pieces)
            except Exception as error:  # noqa: BLE001  # raised where it is awaited
                trouble = error
            with suppress(RuntimeError):  # the loop was closed meanwhile, so nothing waits
                loop.call_soon_threadsafe(self._note, sum(map(len, pieces)), trouble)

    def _write(self, pieces: list[bytes]) -> None:
        with self._lock, explained("write", self.path):
            if self._file is not None and pieces:  # not abandoned meanwhile
                _write_all(self._file, pieces)

    def _note(self, written: int, trouble: Exception | None) -> None:
        self._waiting_bytes -= written
        self._write_error = self._write_error or trouble
        self._wrote.set()

    async def commit(self) -> None:
        """Complete the file, and rename it to its final name.

        The data is not forced to the disk (``fsync``): it can be downloaded again, and ``fsync`` would take longer
        than the download if the network is faster than the disk.
        """
        self._hand_over()
        await self._drain(0)
        await to_thread.run_sync(self._commit)

    def _commit(self) -> None:
        with self._lock, explained("write", self.path):
            if self._file is None:
                return
            self._look()  # another process may have created the file meanwhile
            if sys.platform == "win32":
                self._file.close()  # an open file cannot be renamed on Windows
            take_place(self._part, self._place)
            self._file.close()  # only now: it releases the lock on the part, and another process may want its name
            self._file = None

    def abandon(self) -> None:
        """Remove the part unless it was committed, and end the thread."""
        self._queue.put(None)
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                if sys.platform != "win32":
                    self._part.unlink(missing_ok=True)  # before its lock is released: the next part may have its name
                with suppress(OSError):  # a write that failed before will fail again
                    file.close()
                if sys.platform == "win32":
                    self._part.unlink(missing_ok=True)
        if self._writer is not None:
            self._writer.join()


if sys.platform == "win32":

    def _part_of(place: Path) -> tuple[Path, IO[bytes]]:
        part = place.parent / f".together-batches-{secrets.token_hex(8)}.part"
        return part, created(part)

else:
    import fcntl

    def _part_of(place: Path) -> tuple[Path, IO[bytes]]:
        """Open and lock a part for ``place``; one that a killed process left is reused.

        Its name is derived from that of the target. The lock shows whether a process still uses it, and ends with it.
        """
        stem = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
        for number in range(_MOST_PARTS):
            part = place.parent / f".together-batches-{stem}-{number}.part"
            with ExitStack() as stack:
                try:
                    file = stack.enter_context(created(part, "ab"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Between opening and locking, its former owner may have renamed it to the final name.
                    if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                        file.truncate(0)
                        stack.pop_all()
                        return part, file
                except (BlockingIOError, FileNotFoundError):
                    continue
                except OSError:  # a file system without locks; an error that any name would cause is raised below
                    with suppress(OSError):
                        part.unlink(missing_ok=True)
                    break
        part = place.parent / f".together-batches-{stem}-{secrets.token_hex(8)}.part"
        return part, created(part)


def _write_all(file: IO[bytes], pieces: list[bytes]) -> None:
    """Write all pieces in one call if the system supports that, because this thread waits for its turn after each."""
    if len(pieces) > _MOST_PIECES:
        pieces = [b"".join(pieces)]
    written = os.writev(file.fileno(), pieces) if hasattr(os, "writev") else 0
    if written < sum(map(len, pieces)):
        # A disk that is nearly full took only a part; writing the rest raises the error.
        file.write(b"".join(pieces)[written:])
        file.flush()


@asynccontextmanager
async def open_atomic(path: str | os.PathLike[str], *, replace: bool) -> AsyncGenerator[AtomicFile]:
    """Open a file for writing; it is at ``path`` afterwards if it was committed, otherwise ``path`` is unchanged."""
    target = AtomicFile(path, replace=replace)
    try:
        await to_thread.run_sync(target.begin, asyncio.get_running_loop())
        yield target
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(target.abandon)
