"""Lines of a stream of bytes: split at ``\\n`` and nothing else, since U+2028 and its like may stand in a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from together_batches._checks import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_LINE_BYTES", "Line", "LineSplitter", "split_lines"]

MAX_LINE_BYTES = 10_000_000
"""Bytes of a line without its end: the documented 10 MB, read in the way that is safe."""
_BOM = b"\xef\xbb\xbf"
_KEPT_OF_A_LONG_LINE = 1024


class Line(NamedTuple):
    """A line of a stream: ``number`` counts from 1, ``offset`` is the bytes before it, ``length`` its own.

    ``content`` is without the end of the line (``\\n`` or ``\\r\\n``) and without a byte order mark, which shows as
    an ``offset`` of 3 of the first line. Of a line that was too long to be held ``content`` is only the beginning.
    """

    number: int
    offset: int
    content: bytes
    length: int

    @property
    def whole(self) -> bool:
        """False where the line was too long to be held."""
        return len(self.content) == self.length


class LineSplitter:
    """Makes lines of chunks, whatever their borders: :meth:`feed` each chunk, then :meth:`close`.

    It knows no I/O, and so serves a file as well as an async stream. It holds one line at most, and of a line of more
    than ``max_line_bytes`` only the beginning.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = whole("max_line_bytes", max_line_bytes)
        self._kept = min(_KEPT_OF_A_LONG_LINE, max_line_bytes)
        self._number = self._offset = 0
        # Of the line that has not ended yet. A bytearray grows in place: joining bytes anew for each chunk would cost
        # the square of the line's length.
        self._held = bytearray()
        self._length = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk."""
        first, *others = chunk.split(b"\n")
        self._hold(first)
        if not others:
            return []
        lines = [self._held_line()]
        unfinished = others.pop()
        number, offset, longest = self._number, self._offset, self._max
        # Nearly all lines of a file go through here, and a call of Line for each costs more than all else that is
        # done with it: this is the same without the detour through Line.__new__.
        new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        for content in others:
            number += 1
            length = end = len(content)
            if content[-1:] == b"\r":
                content, length = content[:-1], length - 1
            if length > longest:
                content = content[: self._kept]
            lines.append(new(Line, (number, offset, content, length)))
            offset += end + 1
        self._number, self._offset = number, offset
        self._hold(unfinished)
        return lines

    def peek(self) -> Line | None:
        """The line that has not ended yet, as far as it came, if there is one. It goes on with the next chunk."""
        return self._unfinished() if self._length else None

    def close(self) -> list[Line]:
        """The last line, where the stream did not end with a newline."""
        return [self._held_line()] if self._length else []

    def _hold(self, content: bytes) -> None:
        self._length += len(content)
        # What is taken off a line before it is measured does not make it too long.
        if self._length <= self._max + len(_BOM) + len(b"\r"):
            self._held += content
        elif len(self._held) < self._kept:
            self._held += content[: self._kept - len(self._held)]
        else:
            del self._held[self._kept :]

    def _held_line(self) -> Line:
        line = self._unfinished()
        self._number += 1
        self._offset += self._length + 1
        self._held.clear()
        self._length = 0
        return line

    def _unfinished(self) -> Line:
        content, length, offset = bytes(self._held), self._length, self._offset
        if offset == 0 and content.startswith(_BOM):
            content, length, offset = content[len(_BOM) :], length - len(_BOM), len(_BOM)
        if content.endswith(b"\r") and len(content) == length:
            content, length = content[:-1], length - 1
        return Line(self._number + 1, offset, content if length <= self._max else content[: self._kept], length)


def split_lines(chunks: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a stream of bytes: split at ``\\n`` and nothing else, wherever the chunks begin and end."""
    splitter = LineSplitter(max_line_bytes)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.close()
