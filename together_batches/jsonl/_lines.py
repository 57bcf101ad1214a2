"""Lines of a byte stream, split only at ``\\n``, because U+2028 and similar characters may occur in a text."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches._validation import positive_int

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

MAX_LINE_BYTES = 10_000_000
"""Maximum bytes of a line without its end: the documented 10 MB, in its smaller interpretation."""
_BOM = b"\xef\xbb\xbf"
_RETURN = ord("\r")
_KEPT_OF_A_LONG_LINE = 1024


class Line(NamedTuple):
    """A line of a stream: ``number`` counts from 1, ``offset`` is the bytes before it, ``length`` its own.

    ``content`` excludes the line end (``\\n`` or ``\\r\\n``) and a byte order mark, which shows as an ``offset`` of 3
    of the first line. For a line that was too long to be held, ``content`` is only its beginning.
    """

    number: int
    offset: int
    content: bytes
    length: int

    @property
    def whole(self) -> bool:
        """Whether the line is held in full; False if it was too long."""
        return len(self.content) == self.length


_LINE: Any = partial(tuple.__new__, Line)  # pyright: ignore[reportUnknownMemberType]
"""Create a line from its fields, without a step in Python."""


class Lines:
    """Consecutive lines as one ``text``, and as ``texts``, from which a :class:`Line` is made on demand.

    Most lines of a file are decoded, hashed or copied together. The text has each content with a newline. ``number``
    and ``offset`` are those of the first line. ``lines`` are the lines themselves, if any of them may be more
    than its content and a newline.
    """

    __slots__ = ("_contents", "_lines", "number", "offset", "text", "texts")

    def __init__(self, number: int, offset: int, text: bytes, lines: list[Line] | None = None) -> None:
        self.number: int = number
        self.offset: int = offset
        self.text: bytes = text
        self.texts: list[bytes] = BytesIO(text).readlines()  # splits only at newlines, faster than bytes.split
        self._lines = lines
        self._contents: list[bytes] | None = None

    @classmethod
    def of(cls, lines: list[Line]) -> Lines:
        """Return an instance for these lines."""
        number, offset = (lines[0].number, lines[0].offset) if lines else (1, 0)
        return cls(number, offset, joined([line.content for line in lines]), lines)

    @property
    def are_plain(self) -> bool:
        """Whether each line is its content and a newline."""
        return self._lines is None

    @property
    def contents(self) -> list[bytes]:
        """Content of each line."""
        if self._contents is None:
            self._contents = [text[:-1] for text in self.texts]
        return self._contents

    def offsets(self) -> Iterable[int]:
        """Return the offset of each line."""
        if self._lines is not None:
            return [line.offset for line in self._lines]
        return islice(accumulate(map(len, self.texts), initial=self.offset), len(self.texts))

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Line]:
        if self._lines is not None:
            return iter(self._lines)
        lengths = map(len, self.contents)
        return map(_LINE, zip(count(self.number), self.offsets(), self.contents, lengths, strict=False))

    def __getitem__(self, place: int) -> Line:
        return next(iter(self.part(place, place + 1))) if self._lines is None else self._lines[place]

    def part(self, start: int, stop: int) -> Lines:
        """Return the lines from one position up to another."""
        if self._lines is not None:
            return Lines.of(self._lines[start:stop])
        offset = self.offset + sum(map(len, self.texts[:start]))
        return Lines(self.number + start, offset, b"".join(self.texts[start:stop]))


def joined(contents: list[bytes]) -> bytes:
    """Return the text of lines: each content with a newline."""
    return b"\n".join([*contents, b""])


class Cutter:
    """Cuts lines into as few parts as the limits allow; the first part may have a limit of its own.

    Each line counts ``more_per_line`` bytes more than it has.
    """

    def __init__(
        self, max_lines: int, max_bytes: int, more_per_line: int = 0, *, first_lines: int | None = None
    ) -> None:
        self._more_per_line = more_per_line
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._next_lines = max_lines if first_lines is None else min(first_lines, max_lines)
        self._most = self._lines = self._bytes = 0  # the first line begins a part

    def cut(self, lines: Lines) -> Iterator[tuple[bool, Lines]]:
        """Yield the next lines in groups, each within one part, and whether the group begins it."""
        count, size = len(lines), len(lines.text) + len(lines) * self._more_per_line
        begins = self._lines + count > self._most or self._bytes + size > self._max_bytes
        if begins and count > 1:  # bisect to the place of the cut
            yield from self.cut(lines.part(0, count // 2))
            yield from self.cut(lines.part(count // 2, count))
        elif count:
            if begins:
                self._most, self._next_lines = self._next_lines, self._max_lines
                self._lines = self._bytes = 0
            self._lines += count
            self._bytes += size
            yield begins, lines


class LineSplitter:
    """Splits chunks into lines, independent of chunk borders: :meth:`feed` each chunk, then :meth:`close`.

    It does no I/O, so it serves files and async streams. It holds at most one line, and only the beginning of a line
    of more than ``max_line_bytes``.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = positive_int("max_line_bytes", max_line_bytes)
        self._kept = min(_KEPT_OF_A_LONG_LINE, max_line_bytes)
        self._number = self._offset = 0
        # The state of the unfinished line. A bytearray grows in place: joining bytes for each chunk would cost the
        # square of the line's length.
        self._held = bytearray()
        self._length = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that end in this chunk."""
        return list(self.cut(chunk))

    def cut(self, chunk: bytes) -> Lines:
        """Return the lines that end in this chunk, without making a :class:`Line` of each."""
        end = chunk.rfind(b"\n") + 1
        if not end:
            lines = Lines(self._number + 1, self._offset, b"")
        elif self._is_odd(chunk):
            lines = self._odd(chunk[: end - 1].split(b"\n"))
        else:
            text = b"".join((self._held, memoryview(chunk)[:end]))
            lines = Lines(self._number + 1, self._offset, text)
            self._held.clear()
            self._length = 0
            self._number += len(lines)
            self._offset += len(lines.text)
        self._hold(chunk[end:])
        return lines

    def _is_odd(self, chunk: bytes) -> bool:
        """Return whether a line in it may be too long, or have a carriage return or a byte order mark."""
        return (
            _RETURN in chunk
            or _RETURN in self._held
            or self._length + len(chunk) > self._max
            or (self._offset == 0 and (self._held + chunk[: len(_BOM)]).startswith(_BOM))
        )

    def _odd(self, contents: list[bytes]) -> Lines:
        self._hold(contents[0])
        lines = [self._held_line()]
        for content in contents[1:]:
            length = len(content)
            lines.append(self._ended(self._number + 1, self._offset, content, length))
            self._number += 1
            self._offset += length + 1
        return Lines.of(lines)

    def _ended(self, number: int, offset: int, content: bytes, length: int) -> Line:
        """Return a line without its line end."""
        if content.endswith(b"\r"):
            content, length = content[:-1], length - 1
        return Line(number, offset, content if length <= self._max else content[: self._kept], length)

    def peek(self) -> Line | None:
        """Return the unfinished line as far as it was received, if any. It continues in the next chunk."""
        return self._unfinished() if self._length else None

    def close(self) -> list[Line]:
        """Return the last line, if the stream did not end with a newline."""
        return [self._held_line()] if self._length else []

    def _hold(self, content: bytes) -> None:
        self._length += len(content)
        # Bytes that are removed before a line is measured do not make it too long.
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
    """Yield the lines of a byte stream, split only at ``\\n``, independent of chunk borders."""
    splitter = LineSplitter(max_line_bytes)
    for lines in cut_lines(chunks, splitter):
        yield from lines


def changed_lines(chunks: Iterable[bytes], change: Callable[[bytes], bytes]) -> Generator[bytes]:
    """Yield a byte stream in which each line, with its end, is changed; the lines that end in a chunk come together.

    A line that is too long to be a request is passed on as it is, because it need not fit into memory.
    """
    held, is_long = bytearray(), False
    for chunk in chunks:
        *ended, last = chunk.split(b"\n")
        lines: list[bytes] = []
        for part in ended:
            held += part + b"\n"
            lines.append(bytes(held) if is_long else change(bytes(held)))
            held.clear()
            is_long = False
        if lines:
            yield b"".join(lines)
        held += last
        if is_long or len(held) > MAX_LINE_BYTES + len(_BOM) + len(b"\r"):
            is_long = True
            yield bytes(held)
            held.clear()
    if held:
        yield change(bytes(held))


def cut_lines(chunks: Iterable[bytes], splitter: LineSplitter) -> Iterator[Lines]:
    """Yield the lines of a byte stream, grouped by chunk."""
    yield from map(splitter.cut, chunks)
    yield Lines.of(splitter.close())
