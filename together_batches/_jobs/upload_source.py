"""The content of an upload, read and written by worker threads: never in the event loop, never whole in memory.

A cancelled call leaves its thread running: for a moment, or, if it reads from a pipe without data, until data
arrives. So a thread accesses a file only under the lock of that file, and the last holder of the lock closes the
file: nothing is written to a closed file, and nothing waits for an endless read.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import AsyncIterable
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

from anyio import to_thread

from together_batches import jsonl
from together_batches._jobs.source_kinds import READ_BYTES, UNNAMED, OpenedSource, Spool, open_source
from together_batches._local.os_errors import explained
from together_batches._local.until_done import finish_in_thread
from together_batches._protocol.upload_marks import MARK_BYTES, place_in, tagged_name
from together_batches._text import short
from together_batches.errors import UsageError
from together_batches.jsonl._files import RequestLines
from together_batches.jsonl._lines import changed_lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from together_batches._protocol.upload_marks import Mark


class UploadSource:
    """The content of an upload: its size and hash are known beforehand, and it must be unchanged when it is sent."""

    name: str = UNNAMED
    size: int = 0
    sha256: str = ""
    is_marked: bool = False
    """Whether it contains added white space that makes it unique."""
    is_changed: bool = False
    """Whether it contains anything that the source does not contain."""

    def __init__(self) -> None:
        self.lines: RequestLines = RequestLines()
        """The requests that were written to a file, and those that could not be."""
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._spool, self._changed = Spool(self._left), Spool(self._left)
        self._given = self._source = OpenedSource(io.BytesIO(), "the requests")
        self._sent: IO[bytes] | MarkedFile = self._source.file
        self._hash = hashlib.sha256()
        self._is_known = False

    async def spool(self, requests: AsyncIterable[jsonl.RequestLike]) -> None:
        """Write requests to an unnamed file, as they arrive."""
        await self.lines.write_blocks(requests, lambda block: to_thread.run_sync(self._add, block))

    def _add(self, lines: bytes) -> None:
        with self._at_work():
            self._spool.write(lines)

    def open(
        self,
        source: Source,
        filename: str | None,
        mark: Mark | None = None,
        sha256: str = "",
        change: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Open the source, add the mark if there is room for it, and read it once for its size and hash.

        Each line is changed first, in a copy, if there is a ``change``. A file whose ``sha256`` is known is not read
        for that, nor hashed again while it is sent: it is the caller's own, and no other process writes to it.
        """
        with self._at_work():
            self._given = self._source = opened = open_source(source, self.lines, self._spool)
            self.name = _checked_name(opened.name if filename is None else filename)
            with explained("read", opened.title):
                if change is not None:
                    self._source = self._copied(change)
                self._sent = self._source.file
                if mark is not None:
                    self._add_mark(mark)
                self._is_known = bool(sha256)
                if sha256:
                    self.size, self.sha256 = opened.file.seek(0, os.SEEK_END), sha256
                else:
                    self._measure()

    def _copied(self, change: Callable[[bytes], bytes]) -> OpenedSource:
        """Return a copy of the source with each line changed."""
        given = self._given
        given.file.seek(given.start)
        blocks = iter(lambda: b"" if self._left.is_set() else given.file.read(READ_BYTES), b"")
        for lines in changed_lines(blocks, change):
            self._changed.write(lines)
        self.is_changed = True
        return OpenedSource(self._changed.file, given.title, given.name)

    def _add_mark(self, mark: Mark) -> None:
        file, start = self._source.file, self._source.start
        place = place_of_mark(file, start)
        if place is not None:
            self._sent = MarkedFile(file, start + place, mark.white_space)
            self.name = tagged_name(self.name, mark)
            self.is_marked = self.is_changed = True

    def _measure(self) -> None:
        digest = hashlib.sha256()
        self._sent.seek(self._source.start)
        while not self._left.is_set() and (block := self._sent.read(READ_BYTES)):
            digest.update(block)
            self.size += len(block)
        if not self.size:
            message = f"{self._source.title}: 0 bytes, so there is nothing to upload"
            raise UsageError(message)
        self.sha256 = digest.hexdigest()

    async def block(self, position: int) -> bytes:
        """Return the block at this position. The last one is returned only if the content is still the same."""
        return await to_thread.run_sync(self._block, position, abandon_on_cancel=True)

    def _block(self, position: int) -> bytes:
        with self._at_work(), explained("read", self._source.title):
            if position == 0:
                self._hash = hashlib.sha256()
            self._sent.seek(self._source.start + position)
            block = self._sent.read(READ_BYTES)
            if not self._is_known:
                self._hash.update(block)
            end = position + len(block)
            more = self._sent.read(1) if end >= self.size else b""
        is_same = self._is_known or self._hash.hexdigest() == self.sha256
        whole = end == self.size and not more and is_same
        if not block or (end >= self.size and not whole):
            message = f"{self._source.title} changed while it was uploaded: try again when no process writes to it"
            raise UsageError(message)
        return block

    def reader(self, *, as_given: bool = False) -> Reader:
        """Return a file to read in a worker thread: the content that is uploaded, or the source as it was given."""
        return Reader(partial(self._read_at, as_given=as_given), self._source.title)

    def _read_at(self, position: int, size: int, *, as_given: bool) -> bytes:
        with self._at_work(), explained("read", self._source.title):
            file = self._given.file if as_given else self._sent
            file.seek((self._given if as_given else self._source).start + position)
            return b"" if self._left.is_set() else file.read(size)

    @contextmanager
    def _at_work(self) -> Generator[None]:
        """Hold the lock; on release, close the file if :meth:`close` was called, because that never waits."""
        try:
            with self._lock:
                yield
        finally:
            if self._left.is_set():
                self.close()

    def close(self) -> None:
        """Stop all reads, and close what was opened here: now, or when a running read returns."""
        self._left.set()
        if self._lock.acquire(blocking=False):
            try:
                self._spool.file.close()
                self._changed.file.close()
                if self._given.is_ours:
                    self._given.file.close()
            finally:
                self._lock.release()


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
        message = f"filename must be text that can be sent and is not empty; it is {short(name)}"
        raise UsageError(message) from None
    return name


@asynccontextmanager
async def open_upload(
    source: Source,
    filename: str | None,
    *,
    mark: Mark | None = None,
    sha256: str = "",
    change: Callable[[bytes], bytes] | None = None,
) -> AsyncGenerator[UploadSource]:
    """Open a source under ``filename`` or its own name; raise :class:`UsageError` if it cannot be read.

    Each line is replaced by what ``change`` returns for it. A ``mark`` is inserted as white space if there is room
    for it. ``sha256`` is the hash of a file without a mark, if it is known. A source that is already open is left to
    its owner.
    """
    if isinstance(source, UploadSource):
        yield source
        return
    content = UploadSource()
    try:
        if isinstance(source, AsyncIterable):
            await content.spool(source)
        await to_thread.run_sync(content.open, source, filename, mark, sha256, change, abandon_on_cancel=True)
        yield content
    finally:
        await finish_in_thread(content.close)


# --- the mark ---------------------------------------------------------------------------------------------------


def place_of_mark(file: IO[bytes], start: int) -> int | None:
    """Return the position of a mark in the content that begins at ``start``.

    None if the first line is not an object, or the limits of the service leave no room.
    """
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    beginning = file.read(READ_BYTES)
    place = place_in(beginning)
    if place is None or size + MARK_BYTES > jsonl.MAX_BYTES:
        return None
    while beginning.find(b"\n", place) < 0 and has_room(beginning, place) and (more := file.read(READ_BYTES)):
        beginning += more
    return place if has_room(beginning, place) else None


def has_room(content: bytes, place: int) -> bool:
    """Return whether the line at ``place``, as far as it is in the content, may have a mark by its length."""
    begin, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
    length = (len(content) if end < 0 else end) - begin
    return length + MARK_BYTES <= jsonl.MAX_LINE_BYTES


class MarkedFile:
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
