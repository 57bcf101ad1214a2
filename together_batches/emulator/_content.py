"""Content that is read or generated on demand, so that a gigabyte can be served without being held in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from zlib import compressobj

from attrs import field, frozen

PIECE = 256 * 1024
_GZIP = 31  # zlib's number for a gzip header and a window of 32 KiB

Source = bytes | os.PathLike[str] | Callable[[], Iterable[bytes]]


@frozen
class Content:
    """Content of ``size`` bytes; ``between`` yields those from one position up to another, piece by piece."""

    size: int
    between: Callable[[int, int], Iterator[bytes]] = field(repr=False, eq=False)

    def part(self, start: int, stop: int) -> Content:
        """Return the part from ``start`` up to ``stop``."""
        return Content(stop - start, lambda begin, end: self.between(start + begin, start + end))

    def pieces(self) -> Iterator[bytes]:
        """Return an iterator over all of it, piece by piece."""
        return self.between(0, self.size)

    def read(self) -> bytes:
        """Return all of it at once."""
        return b"".join(self.pieces())


def content_of(source: Source, size: int | None = None) -> Content:
    """Return the content of bytes, of the path of a file, or of a function that returns new chunks on each call.

    Only a function requires a ``size``, at which its chunks are truncated. Raises ValueError for a size that is
    missing or not allowed, and OSError for a path that cannot be accessed.
    """
    if callable(source):
        if size is None or size < 0:
            raise ValueError("chunks from a function need a size, in bytes")
        return Content(size, lambda start, stop: _between(source(), start, stop))
    if size is not None:
        raise ValueError("the size of bytes and of files is known; leave it out")
    if isinstance(source, bytes):
        return Content(len(source), lambda start, stop: _slices(source, start, stop))
    path = Path(source)
    return Content(path.stat().st_size, lambda start, stop: _from_file(path, start, stop))


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress the pieces; the compressed size is not known before the end."""
    squeeze = compressobj(level=1, wbits=_GZIP)
    for piece in pieces:
        squeezed = squeeze.compress(piece)
        if squeezed:
            yield squeezed
    yield squeeze.flush()


def _slices(content: bytes, start: int, stop: int) -> Iterator[bytes]:
    for position in range(start, stop, PIECE):
        yield content[position : min(position + PIECE, stop)]


def _from_file(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (piece := file.read(min(PIECE, stop - start))):
            start += len(piece)
            yield piece


def _between(chunks: Iterable[bytes], start: int, stop: int) -> Iterator[bytes]:
    position = 0
    for chunk in chunks:
        if position >= stop:
            return
        piece = chunk[max(0, start - position) : stop - position]
        position += len(chunk)
        if piece:
            yield piece
