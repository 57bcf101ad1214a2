"""Files of this machine, read and written by worker threads: never on the loop, and never whole in memory.

A call that is cancelled leaves its thread behind: for a moment, or, where it reads from a pipe that gives nothing,
until that gives something. So whatever a thread does to a file it does under the lock of that file, and the last to
hold the lock closes: nothing is written to a file that is closed, and nobody waits for a read without an end.
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
from together_batches._local.atomic_file import explained
from together_batches._protocol.upload_marks import MARK_BYTES, Mark, place_in, sendable, tagged_name
from together_batches._text import format_count
from together_batches.errors import UsageError, ValidationError
from together_batches.jsonl._requests import custom_id_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


__all__ = ["Reader", "Source", "UploadSource", "open_upload"]

_UNNAMED = "requests.jsonl"
"""What an upload is called that nobody named: the service looks at the suffix."""
_READ_BYTES = 1 << 20
_MOST_UNWRITABLE = 1000
"""After so many nobody wants to know of more."""


class _Bytes(Protocol):
    """What can be read from any place on."""

    def seek(self, position: int, /) -> object: ...

    def read(self, size: int, /) -> bytes: ...


class UploadSource:
    """What is to be uploaded: its size and hash are known beforehand, and it has to be the same when it is sent."""

    name: str = _UNNAMED
    size: int = 0
    sha256: str = ""
    is_marked: bool = False
    """Whether white space of its own was added to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = False
        self._where = "the requests"
        self._file: IO[bytes] = io.BytesIO()
        self._sent: _Bytes = self._file
        self._owns_file = True
        self._start = 0
        self._hash = hashlib.sha256()
        self._rows = self._spooled_bytes = 0
        self.unwritable: list[jsonl.Problem] = []

    async def block(self, position: int) -> bytes:
        """The bytes that begin here. The last ones are given only where all of them are what was hashed before."""
        return await to_thread.run_sync(self._block, position, abandon_on_cancel=True)

    @contextmanager
    def _at_work(self) -> Generator[None]:
        """The lock. Whoever has it when this is closed closes it, since nobody waits for the lock then."""
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
        """Write requests to a file that has no name, as they come."""
        held = bytearray()
        async for request in requests:
            held += self._line(request)
            if len(self.unwritable) >= _MOST_UNWRITABLE:
                break
            if len(held) >= _READ_BYTES:
                await to_thread.run_sync(self._add, bytes(held))
                held.clear()
        await to_thread.run_sync(self._add, bytes(held))

    def _line(self, request: jsonl.RequestLike) -> bytes:
        """The line of the next request; a blank one where it cannot be written, so that all such can be told."""
        self._rows += 1
        try:
            line = jsonl.encode(request)
        except ValidationError as error:
            line = b"\n"
            custom_id = custom_id_of(request)
            self.unwritable += [
                jsonl.Problem(problem, self._rows, self._spooled_bytes, custom_id) for problem in error.problems
            ]
        self._spooled_bytes += len(line)
        return line

    def raise_for_unwritable(self) -> None:
        """Raise :class:`ValidationError` with all requests that cannot be written as a line, where there are any."""
        if self.unwritable:
            problems = [f"request {problem.line}: {problem.message}" for problem in self.unwritable]
            more = f"; {format_count(len(problems))} problems in all" if len(problems) > 1 else ""
            raise ValidationError(problems[0] + more, problems=problems)

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

    def open(self, source: Source, filename: str | None, mark: Mark | None = None) -> None:
        """Find the bytes, add the mark if there is room for it, and read them once for their size and hash."""
        with self._at_work():
            if isinstance(source, str | os.PathLike):
                self._open_path(source)
            elif isinstance(source, bytes | bytearray | memoryview):
                self._where = "the content"
                self._file = io.BytesIO(source)
            elif hasattr(source, "read"):
                self._open_file(cast("IO[bytes]", source))
            elif isinstance(source, Iterable):
                for request in source:
                    if self._left:
                        return
                    self._spool(self._line(request))
                    if len(self.unwritable) >= _MOST_UNWRITABLE:
                        break
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
        """Where the mark goes; None if the first line is no object, or the limits leave no room for it."""
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
        """The bytes from the beginning, for a worker thread: those that are uploaded, or the source's own."""
        return Reader(partial(self._read_at, with_mark=with_mark), self._where)

    def _read_at(self, position: int, size: int, *, with_mark: bool) -> bytes:
        with self._at_work(), explained("read", self._where):
            file = self._sent if with_mark else self._file
            file.seek(self._start + position)
            return b"" if self._left else file.read(size)

    def close(self) -> None:
        """Let whoever reads come to an end, and close what was opened here: now, or when that end has come."""
        self._left = True
        if self._lock.acquire(blocking=False):
            try:
                if self._owns_file:
                    self._file.close()
            finally:
                self._lock.release()


class _MarkedFile:
    """A file with white space inserted at one place; the file itself stays as it is."""

    def __init__(self, file: IO[bytes], place: int, white_space: bytes) -> None:
        self._file = file
        self._place = place
        self._end = place + len(white_space)
        self._white_space = white_space
        self._position = 0

    def seek(self, position: int) -> None:
        """Go to a place, counted with the white space in it."""
        self._position = position

    def read(self, size: int) -> bytes:
        """The next bytes, up to so many; a read ends where the white space begins and ends."""
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
"""What can be uploaded: a path, bytes, a file opened in binary mode (from where it stands; it is left open), or
requests; and within the package, what was opened before."""


class Reader:
    """A plain file over a :class:`UploadSource`, to be read once."""

    def __init__(self, read_at: Callable[[int, int], bytes], name: str) -> None:
        self._read_at = read_at
        self._position = 0
        self.name = name

    def read(self, size: int, /) -> bytes:
        """The next bytes, up to so many; none at the end."""
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
    source: Source, filename: str | None, *, mark: Mark | None = None
) -> AsyncGenerator[UploadSource]:
    """What is to be uploaded, under ``filename`` or its own name; a :class:`UsageError` if it cannot be read.

    With a ``mark`` it is uploaded with that white space in it, if there is room for it. A source that is open
    already is left to its owner.
    """
    if isinstance(source, UploadSource):
        yield source
        return
    content = UploadSource()
    try:
        if isinstance(source, AsyncIterable):
            await content.spool(source)
        await to_thread.run_sync(content.open, source, filename, mark, abandon_on_cancel=True)
        yield content
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(content.close)
