"""Files of this machine, read and written by worker threads: never on the loop, and never whole in memory.

A call that is cancelled leaves its thread behind for a moment. So whatever a thread does to a file it does under the
lock of that file, and so is the closing: nothing is written to a file that is closed, or to another in its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import AsyncIterable, Iterable
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import anyio
from anyio import to_thread

from together_batches import jsonl
from together_batches.errors import UsageError, ValidationError
from together_batches.rows import BatchRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

__all__ = ["Content", "Reader", "Source", "Target", "content_of", "target_at"]

_UNNAMED = "requests.jsonl"
"""What an upload is called that nobody named: the service looks at the suffix."""
_READ_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20
_SYNC_BYTES = 1 << 23


class Content:
    """What is to be uploaded: its size and hash are known beforehand, and it has to be the same when it is sent."""

    name = _UNNAMED
    size = 0
    sha256 = ""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = False
        self._where = "the requests"
        self._file: IO[bytes] = io.BytesIO()
        self._ours = True
        self._start = 0
        self._hash = hashlib.sha256()

    async def block(self, position: int) -> bytes:
        """The bytes that begin here. The last ones are given only where all of them are what was hashed before."""
        return await to_thread.run_sync(self._block, position)

    def _block(self, position: int) -> bytes:
        with self._lock, _explained("read", self._where):
            if position == 0:
                self._hash = hashlib.sha256()
            self._file.seek(self._start + position)
            block = self._file.read(_READ_BYTES)
            self._hash.update(block)
            end = position + len(block)
            more = self._file.read(1) if end >= self.size else b""
        whole = end == self.size and not more and self._hash.hexdigest() == self.sha256
        if not block or (end >= self.size and not whole):
            message = f"{self._where} changed while it was uploaded: try again when nobody writes to it"
            raise UsageError(message)
        return block

    async def spool(self, requests: AsyncIterable[BatchRequest]) -> None:
        """Write requests to a file that has no name, as they come."""
        held = bytearray()
        number = 0
        async for request in requests:
            number += 1
            held += _line(request, number)
            if len(held) >= _READ_BYTES:
                await to_thread.run_sync(self._add, bytes(held))
                held.clear()
        await to_thread.run_sync(self._add, bytes(held))

    def _add(self, lines: bytes) -> None:
        with self._lock:
            self._spool(lines)

    def _spool(self, lines: bytes) -> None:
        with _explained("write to", "the directory for temporary files"):
            if self._left:
                return
            if isinstance(self._file, io.BytesIO):
                self._file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  # closed by close()
            self._file.write(lines)

    def open(self, source: Source, filename: str | None) -> None:
        """Find the bytes, and read them once for their size and hash."""
        with self._lock:
            if isinstance(source, str | os.PathLike):
                self._open_path(source)
            elif isinstance(source, bytes | bytearray | memoryview):
                self._where = "the content"
                self._file = io.BytesIO(source)
            elif hasattr(source, "read"):
                self._open_file(cast("IO[bytes]", source))
            elif isinstance(source, Iterable):
                for number, request in enumerate(source, start=1):
                    if self._left:
                        return
                    self._spool(_line(request, number))
            elif not isinstance(source, AsyncIterable):
                message = (
                    "an upload comes from a path, bytes, a file opened in binary mode or an iterable of "
                    f"BatchRequest, not from {type(source).__name__}"
                )
                raise UsageError(message)
            self.name = _checked_name(self.name if filename is None else filename)
            self._measure()

    def _open_path(self, path: str | os.PathLike[str]) -> None:
        self._where = os.fspath(path)
        with _explained("read", self._where):
            kind = Path(path).stat().st_mode  # before it is opened: opening a pipe would wait for its other end
            if not stat.S_ISREG(kind):
                message = f"cannot read {self._where}: it is {'a directory' if stat.S_ISDIR(kind) else 'no file'}"
                raise UsageError(message)
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed by close()
        self.name = Path(path).name

    def _open_file(self, file: IO[bytes]) -> None:
        name: object = getattr(file, "name", None)
        if isinstance(name, str):
            self.name = Path(name).name or _UNNAMED
        self._where = self.name if isinstance(name, str) else "the file"
        with _explained("read", self._where):
            given: object = file.read(0)
            if not isinstance(given, bytes):
                message = f"{self._where} gives {type(given).__name__} in place of bytes: open it in binary mode"
                raise UsageError(message)
            seekable = getattr(file, "seekable", None)
            if seekable is not None and seekable():
                self._file, self._ours = file, False
                self._start = file.tell()
                return
            while not self._left and (block := file.read(_READ_BYTES)):
                self._spool(block)

    def _measure(self) -> None:
        digest = hashlib.sha256()
        with _explained("read", self._where):
            self._file.seek(self._start)
            while not self._left and (block := self._file.read(_READ_BYTES)):
                digest.update(block)
                self.size += len(block)
        if not self.size:
            message = f"{self._where}: 0 bytes, so there is nothing to upload"
            raise UsageError(message)
        self.sha256 = digest.hexdigest()

    def reader(self) -> Reader:
        """The bytes from the beginning, for a worker thread."""
        return Reader(self._read_at, self._where)

    def _read_at(self, position: int, size: int) -> bytes:
        with self._lock, _explained("read", self._where):
            self._file.seek(self._start + position)
            return b"" if self._left else self._file.read(size)

    def leave(self) -> None:
        """Let whoever reads come to an end."""
        self._left = True

    def close(self) -> None:
        """Close what was opened here."""
        with self._lock:
            if self._ours:
                self._file.close()


Source = jsonl.Source | AsyncIterable[BatchRequest] | Content
"""What can be uploaded: a path, bytes, a file opened in binary mode (from where it stands; it is left open), or
requests; and within the package, what was opened before."""


class Reader:
    """A plain file over a :class:`Content`, to be read once."""

    def __init__(self, read_at: Callable[[int, int], bytes], name: str) -> None:
        self._read_at = read_at
        self._position = 0
        self.name = name

    def read(self, size: int, /) -> bytes:
        """The next bytes, up to so many; none at the end."""
        block = self._read_at(self._position, size)
        self._position += len(block)
        return block


def _line(request: BatchRequest, number: int) -> bytes:
    try:
        return jsonl.encode(request)
    except ValidationError as error:
        message = f"request {number}: {error}"
        raise ValidationError(message, problems=[f"request {number}: {told}" for told in error.problems]) from error


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
async def content_of(source: Source, filename: str | None) -> AsyncGenerator[Content]:
    """What is to be uploaded, under ``filename`` or its own name; a :class:`UsageError` where it cannot be read.

    What somebody has opened already is left to them.
    """
    if isinstance(source, Content):
        yield source
        return
    content = Content()
    try:
        if isinstance(source, AsyncIterable):
            await content.spool(source)
        await to_thread.run_sync(content.open, source, filename)
        yield content
    finally:
        content.leave()
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(content.close)


class Target:
    """A file that is being written: under another name, in the directory where it will be, until it is whole."""

    def __init__(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        given: object = path
        if not isinstance(given, str | os.PathLike):
            message = f"a path is text or a Path, not {type(given).__name__}: {given!r}"
            raise UsageError(message)
        self.path = Path(path)
        self._replace = replace
        self._lock = threading.Lock()
        self._part = self.path.parent / f".together-batches-{secrets.token_hex(8)}.part"
        self._file: IO[bytes] | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._going = 0
        self._writing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look at what is there, and open the file to write to."""
        with self._lock, _explained("write", self.path):
            self._look()
            self._file = self._part.open("xb")

    def _look(self) -> None:
        try:
            kind = self.path.stat().st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(kind):
            message = f"cannot write {self.path}: it is a directory; name the file to write in it"
            raise UsageError(message)
        if not stat.S_ISREG(kind):
            message = f"cannot write {self.path}: it is no file, and would be replaced by one"
            raise UsageError(message)
        if not self._replace:
            message = f"{self.path} exists already, and is left alone; force=True replaces it"
            raise UsageError(message)

    async def write(self, piece: bytes) -> None:
        """Add bytes at the end, some time before :meth:`keep` returns.

        They are written while the next ones come; those that come sooner than the disk takes them wait here.
        """
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= _WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        await self.settled()
        held, self._held, self._held_bytes = self._held, [], 0
        self._writing = asyncio.create_task(to_thread.run_sync(self._write, held))

    async def settled(self) -> None:
        """Wait for the write that is under way, and raise what became of it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _write(self, pieces: list[bytes]) -> None:
        with self._lock, _explained("write", self.path):
            if self._file is None:
                return  # given up meanwhile
            for piece in pieces:  # not joined: making such a block costs more than writing it
                self._file.write(piece)
            self._set_going()

    def _set_going(self) -> None:
        """Have the disk begin with what was written, so that little is left to wait for at the end."""
        assert self._file is not None  # noqa: S101  # as _write has seen
        end = self._file.tell()
        if end - self._going >= _SYNC_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), self._going, end - self._going, os.POSIX_FADV_DONTNEED)
            self._going = end

    async def keep(self) -> None:
        """All is there: put it under its name, safe from a loss of power."""
        await self._flush()
        await self.settled()
        await to_thread.run_sync(self._keep)

    def _keep(self) -> None:
        with self._lock, _explained("write", self.path):
            if self._file is None:
                return
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._look()  # somebody else may have put a file there meanwhile
            self._part.replace(self.path)
            self._file = None

    def close(self) -> None:
        """Remove what was not kept."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                with suppress(OSError):  # what could not be written before cannot be written now
                    file.close()
                self._part.unlink(missing_ok=True)


@asynccontextmanager
async def target_at(path: str | os.PathLike[str], *, replace: bool) -> AsyncGenerator[Target]:
    """A file to write to, which is there at the end if it was kept, and otherwise as it was before."""
    target = Target(path, replace=replace)
    try:
        await to_thread.run_sync(target.begin)
        yield target
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(target.close)
            with suppress(UsageError):  # of interest to nobody any more
                await target.settled()


@contextmanager
def _explained(doing: str, path: object) -> Generator[None]:
    """Nobody should meet a bare OSError: what was tried, with what, and why it went wrong."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: a zero byte in a path, or a file that was closed
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot {doing} {path}: {reason[:1].lower()}{reason[1:]}"
        raise UsageError(message) from error
