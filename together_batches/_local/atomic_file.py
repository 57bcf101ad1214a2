"""A file that is written by a thread beside its place, and put there when it is complete."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sys
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

import anyio
from anyio import to_thread

from together_batches._local.replace import created, destination, objection, take_place
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


__all__ = ["AtomicFile", "explained", "open_atomic"]

_WRITE_BYTES = 1 << 19
"""So much is written at a time: with more of it, what is to be written is no longer in the processor's cache."""
_WAITING_BYTES = 1 << 23
"""With so much that is still to be written, the next piece has to wait."""
_MOST_PIECES = 500
"""The system takes about a thousand in one call."""

_MOST_PARTS = 100
"""So many downloads to one place at a time have names that the next process can use again."""


class AtomicFile:
    """A file that is being written: under another name, in the directory where it will be, until it is whole."""

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
        # One thread for the file: to ask the pool for one each time costs as much as the writing.
        self._queue = SimpleQueue[list[bytes] | None]()
        self._writer: threading.Thread | None = None
        self._waiting_bytes = 0
        self._wrote = asyncio.Event()
        self._write_error: Exception | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at what is there, and open the file to write to; ``loop`` is told of what was written."""
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
        """Add bytes at the end, some time before :meth:`commit` returns.

        They are written while the next ones come; those that come sooner than the disk takes them wait here.
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
        """Wait until no more than so many bytes are still to be written, and raise what went wrong."""
        while self._waiting_bytes > rest and self._write_error is None:
            self._wrote.clear()
            await self._wrote.wait()
        if self._write_error is not None:
            raise self._write_error

    def _write_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """What the thread does until it is given None."""
        while (pieces := self._queue.get()) is not None:
            trouble: Exception | None = None
            try:
                self._write(pieces)
            except Exception as error:  # noqa: BLE001  # raised where it is waited for
                trouble = error
            with suppress(RuntimeError):  # a loop that was closed meanwhile, and waits for nothing
                loop.call_soon_threadsafe(self._note, sum(map(len, pieces)), trouble)

    def _write(self, pieces: list[bytes]) -> None:
        with self._lock, explained("write", self.path):
            if self._file is not None and pieces:  # not given up meanwhile
                _write_all(self._file, pieces)

    def _note(self, written: int, trouble: Exception | None) -> None:
        self._waiting_bytes -= written
        self._write_error = self._write_error or trouble
        self._wrote.set()

    async def commit(self) -> None:
        """All is there: put it under its name.

        It is not forced to the disk (``fsync``), since it can be had again: that would take longer than the download
        wherever the network is quicker than the disk.
        """
        self._hand_over()
        await self._drain(0)
        await to_thread.run_sync(self._commit)

    def _commit(self) -> None:
        with self._lock, explained("write", self.path):
            if self._file is None:
                return
            self._look()  # another process may have put a file there meanwhile
            if sys.platform == "win32":
                self._file.close()  # an open file cannot be renamed there
            take_place(self._part, self._place)
            self._file.close()  # only now: the lock on the part goes with it, and another process may want the name
            self._file = None

    def abandon(self) -> None:
        """Remove what was not kept, and end the thread."""
        self._queue.put(None)
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                if sys.platform != "win32":
                    self._part.unlink(missing_ok=True)  # before its lock is given up: the next part may have its name
                with suppress(OSError):  # what could not be written before cannot be written now
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
        """A file for what will be at ``place``, open and locked: one that a killed process left is used again.

        Its name follows from that of the place. The lock shows whether a process is still at it, and ends with it.
        """
        stem = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
        for number in range(_MOST_PARTS):
            part = place.parent / f".together-batches-{stem}-{number}.part"
            with ExitStack() as stack:
                try:
                    file = stack.enter_context(created(part, "ab"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Between opening and locking, the process that had it may have given it its final name.
                    if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                        file.truncate(0)
                        stack.pop_all()
                        return part, file
                except (BlockingIOError, FileNotFoundError):
                    continue
                except OSError:  # a file system without locks; what is wrong with any name shows at the last one
                    with suppress(OSError):
                        part.unlink(missing_ok=True)
                    break
        part = place.parent / f".together-batches-{stem}-{secrets.token_hex(8)}.part"
        return part, created(part)


def _write_all(file: IO[bytes], pieces: list[bytes]) -> None:
    """Write them in one call, where the system has such a call: after each this thread has to wait for its turn."""
    if len(pieces) > _MOST_PIECES:
        pieces = [b"".join(pieces)]
    written = os.writev(file.fileno(), pieces) if hasattr(os, "writev") else 0
    if written < sum(map(len, pieces)):
        # The rest of what a disk took that is nearly full, and it says so now.
        file.write(b"".join(pieces)[written:])
        file.flush()


@asynccontextmanager
async def open_atomic(path: str | os.PathLike[str], *, replace: bool) -> AsyncGenerator[AtomicFile]:
    """A file to write to, which is there at the end if it was kept, and otherwise as it was before."""
    target = AtomicFile(path, replace=replace)
    try:
        await to_thread.run_sync(target.begin, asyncio.get_running_loop())
        yield target
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(target.abandon)


@contextmanager
def explained(doing: str, path: object) -> Generator[None]:
    """Nobody should meet a bare OSError: what was tried, with what, and why it went wrong."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: a zero byte in a path, or a file that was closed
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot {doing} {path}: {reason[:1].lower()}{reason[1:]}"
        raise UsageError(message) from error
