"""The content of an upload, read and written by worker threads: never in the event loop, never whole in memory.

A cancelled call leaves its thread running: for a moment, or, if it reads from a pipe without data, until data
arrives. So a thread accesses a file only under the lock of that file, and the last holder of the lock closes the
file: nothing is written to a closed file, and nothing waits for an endless read.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import threading
from collections.abc import AsyncIterable, Iterable
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

import anyio
from anyio import to_thread

from together_batches import jsonl
from together_batches._local.os_errors import explained
from together_batches._protocol.upload_marks import MARK_BYTES, Mark, place_in, sendable, tagged_name
from together_batches.errors import UsageError
from together_batches.jsonl._files import RequestLines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


__all__ = ["Reader", "Source", "UploadSource", "open_upload"]

_UNNAMED = "requests.jsonl"
"""The default file name of an upload: the service determines the type by the suffix."""
_READ_BYTES = 1 << 20


class _Bytes(Protocol):
    """A seekable source of bytes."""

    def seek(self, position: int, /) -> object: ...

    def read(self, size: int, /) -> bytes: ...


class UploadSource:
    """The content of an upload: its size and hash are known beforehand, and it must be unchanged when it is sent."""

    name: str = _UNNAMED
    size: int = 0
    sha256: str = ""
    is_marked: bool = False
    """Whether it contains added white space that makes it unique."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = False
        self._where = "the requests"
        self._file: IO[bytes] = io.BytesIO()
        self._sent: _Bytes = self._file
        self._owns_file = True
        self._start = 0
        self._hash = hashlib.sha256()
        self.lines: RequestLines = RequestLines()
        """The requests that were written to a file, and those that could not be."""

    async def block(self, position: int) -> bytes:
        """Return the block at this position. The last one is returned only if the content still has its hash."""
        return await to_thread.run_sync(self._block, position, abandon_on_cancel=True)

    @contextmanager
    def _at_work(self) -> Generator[None]:
        """Hold the lock; on release, close the file if :meth:`close` was called, because that never waits."""
        try:
            with self._lock:
                yield
        finally:
            if self._left:
                self.close()

    def _block(self, position: int) -> bytes:
        with self._at_work(), explained("read", self._where):
            if position == 0:
                self._hash = hashlib.sha256()
            self._sent.seek(self._start + position)
            block = self._sent.read(_READ_BYTES)
            self._hash.update(block)
            end = position + len(block)
            more = self._sent.read(1) if end >= self.size else b""
        whole = end == self.size and not more and self._hash.hexdigest() == self.sha256
        if not block or (end >= self.size and not whole):
            message = f"{self._where} changed while it was uploaded: try again when no process writes to it"
            raise UsageError(message)
        return block

    async def spool(self, requests: AsyncIterable[jsonl.RequestLike]) -> None:
        """Write requests to an unnamed file, as they arrive."""
        held = bytearray()
        async for request in requests:
            held += self.lines.line(request)
            if self.lines.is_full:
                break
            if len(held) >= _READ_BYTES:
                await to_thread.run_sync(self._add, bytes(held))
                held.clear()
        await to_thread.run_sync(self._add, bytes(held))

    def _add(self, lines: bytes) -> None:
        with self._at_work():
            self._spool(lines)

    def _spool(self, lines: bytes) -> None:
        with explained("write to", "the directory for temporary files"):
            if self._left:
                return
            if isinstance(self._file, io.BytesIO):
                self._file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  # closed by close()
            self._file.write(lines)

    def open(self, source: Source, filename: str | None, mark: Mark | None = None, sha256: str = "") -> None:
        """Open the source, add the mark if there is room for it, and read it once for its size and hash.

        A file whose ``sha256`` is known is not read for that.
        """
        with self._at_work():
            if isinstance(source, str | os.PathLike):
                self._open_path(source)
            elif isinstance(source, bytes | bytearray | memoryview):
                self._where = "the content"
                self._file = io.BytesIO(source)
            elif callable(getattr(source, "read", None)):
                self._open_file(cast("IO[bytes]", source))
            elif isinstance(source, Iterable):
                for line in self.lines.of(source):
                    if self._left:
                        return
                    self._spool(line)
            elif not isinstance(source, AsyncIterable):
                message = (
                    "an upload comes from a path, bytes, a file opened in binary mode or an iterable of "
                    f"BatchRequest, not from {type(source).__name__}"
                )
                raise UsageError(message)
            self.name = _checked_name(self.name if filename is None else filename)
            self._sent = self._file
            if mark is not None:
                self._add_mark(mark)
            if sha256:
                self.size, self.sha256 = self._file.seek(0, os.SEEK_END), sha256
            else:
                self._measure()

    def _open_path(self, path: str | os.PathLike[str]) -> None:
        self._where = os.fspath(path)
        with explained("read", self._where):
            kind = Path(path).stat().st_mode  # before it is opened: opening a pipe would wait for its other end
            if not stat.S_ISREG(kind):
                message = f"cannot read {self._where}: it is {'a directory' if stat.S_ISDIR(kind) else 'no file'}"
                raise UsageError(message)
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed by close()
        self.name = sendable(Path(path).name)

    def _open_file(self, file: IO[bytes]) -> None:
        name: object = getattr(file, "name", None)
        if isinstance(name, str):
            self.name = sendable(Path(name).name) or _UNNAMED
        self._where = self.name if isinstance(name, str) else "the file"
        with explained("read", self._where):
            given: object = file.read(0)
            if not isinstance(given, bytes):
                message = f"{self._where} gives {type(given).__name__} in place of bytes: open it in binary mode"
                raise UsageError(message)
            seekable = getattr(file, "seekable", None)
            if seekable is not None and seekable():
                self._file, self._owns_file = file, False
                self._start = file.tell()
                return
            while not self._left and (block := file.read(_READ_BYTES)):
                self._spool(block)

    def _add_mark(self, mark: Mark) -> None:
        with explained("read", self._where):
            place = self._place_of_mark()
        if place is not None:
            self._sent = _MarkedFile(self._file, self._start + place, mark.white_space)
            self.name = tagged_name(self.name, mark)
            self.is_marked = True

    def _place_of_mark(self) -> int | None:
        """Return the position of the mark; None if the first line is not an object, or the limits leave no room."""
        size = self._file.seek(0, os.SEEK_END) - self._start
        self._file.seek(self._start)
        beginning = self._file.read(_READ_BYTES)
        place = place_in(beginning)
        if place is None or size + MARK_BYTES > jsonl.MAX_BYTES:
            return None
        begins = beginning.rfind(b"\n", 0, place) + 1
        while (ends := beginning.find(b"\n", place)) < 0 and len(beginning) < begins + jsonl.MAX_LINE_BYTES:
            more = self._file.read(_READ_BYTES)
            if not more:
                ends = len(beginning)
                break
            beginning += more
        has_room = ends >= 0 and ends - begins + MARK_BYTES <= jsonl.MAX_LINE_BYTES
        return place if has_room else None

    def _measure(self) -> None:
        digest = hashlib.sha256()
        with explained("read", self._where):
            self._sent.seek(self._start)
            while not self._left and (block := self._sent.read(_READ_BYTES)):
                digest.update(block)
                self.size += len(block)
        if not self.size:
            message = f"{self._where}: 0 bytes, so there is nothing to upload"
            raise UsageError(message)
        self.sha256 = digest.hexdigest()

    def reader(self, *, with_mark: bool = True) -> Reader:
        """Return a file to read in a worker thread: the content that is uploaded, or the source without the mark."""
        return Reader(partial(self._read_at, with_mark=with_mark), self._where)

    def _read_at(self, position: int, size: int, *, with_mark: bool) -> bytes:
        with self._at_work(), explained("read", self._where):
            file = self._sent if with_mark else self._file
            file.seek(self._start + position)
            return b"" if self._left else file.read(size)

    def close(self) -> None:
        """Stop all reads, and close the file if it was opened here: now, or when a running read returns."""
        self._left = True
        if self._lock.acquire(blocking=False):
            try:
                if self._owns_file:
                    self._file.close()
            finally:
                self._lock.release()


class _MarkedFile:
    """A view of a file with white space inserted at one position; the file itself is not changed."""

    def __init__(self, file: IO[bytes], place: int, white_space: bytes) -> None:
        self._file = file
        self._place = place
        self._end = place + len(white_space)
        self._white_space = white_space
        self._position = 0

    def seek(self, position: int) -> None:
        """Set the position, counted with the white space."""
        self._position = position

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; a read stops at the beginning and the end of the white space."""
        if self._place <= self._position < self._end:
            block = self._white_space[self._position - self._place :][:size]
        elif self._position < self._place:
            self._file.seek(self._position)
            block = self._file.read(min(size, self._place - self._position))
        else:
            self._file.seek(self._position - len(self._white_space))
            block = self._file.read(size)
        self._position += len(block)
        return block


Source = jsonl.Source | AsyncIterable[jsonl.RequestLike] | UploadSource
"""The sources of an upload: a path, bytes, a file opened in binary mode (read from its current position and left
open), or requests; within the package, also an :class:`UploadSource` that is already open."""


class Reader:
    """A plain file over an :class:`UploadSource`, to be read once."""

    def __init__(self, read_at: Callable[[int, int], bytes], name: str) -> None:
        self._read_at = read_at
        self._position = 0
        self.name = name

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""
        block = self._read_at(self._position, size)
        self._position += len(block)
        return block


def _checked_name(name: object) -> str:
    try:
        if not isinstance(name, str) or not name.strip():
            raise ValueError
        name.encode()
    except ValueError:
        message = f"filename must be text that can be sent and is not empty; it is {name!r}"
        raise UsageError(message) from None
    return name


@asynccontextmanager
async def open_upload(
    source: Source, filename: str | None, *, mark: Mark | None = None, sha256: str = ""
) -> AsyncGenerator[UploadSource]:
    """Open a source under ``filename`` or its own name; raise :class:`UsageError` if it cannot be read.

    A ``mark`` is inserted as white space if there is room for it. ``sha256`` is the hash of a file without a mark, if
    it is known. A source that is already open is left to its owner.
    """
    if isinstance(source, UploadSource):
        yield source
        return
    content = UploadSource()
    try:
        if isinstance(source, AsyncIterable):
            await content.spool(source)
        await to_thread.run_sync(content.open, source, filename, mark, sha256, abandon_on_cancel=True)
        yield content
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(content.close)
