"""A mark in a file that is uploaded: where it has room, and the file as it is read with it."""

from __future__ import annotations

import os
from typing import IO

from together_batches import jsonl
from together_batches._jobs.source_kinds import READ_BYTES
from together_batches._protocol.upload_marks import MARK_BYTES, place_in


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
