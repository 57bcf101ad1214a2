"""The upload of the rows of a single attempt, from a source that is read in order, once for each purpose."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from together_batches import jsonl
from together_batches._protocol.upload_marks import place_in
from together_batches.errors import UsageError
from together_batches.runs._attempt_files import marked
from together_batches.runs._sharding import measured
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from together_batches._protocol.upload_marks import Mark
    from together_batches.runs._binary import BinaryInput


class RowsUpload:
    """The rows of an attempt as an upload, with a mark if there is room for it.

    Nothing is copied to the disk: the source is read once for its size and hash, and once for each transfer.
    """

    name: str = ""
    size: int = 0
    sha256: str = ""
    is_marked: bool = False

    def __init__(self, rows: BinaryInput, mark: Mark | None) -> None:
        self._rows = rows
        self._mark = mark
        self._blocks: Iterator[bytes] = iter(())
        self._hash = hashlib.sha256()
        self._position = 0

    def measure(self, raise_if_cancelled: Callable[[], None]) -> None:
        """Read all rows for their size and hash."""
        self.size, self.sha256 = measured(self._marked(), raise_if_cancelled)
        if self.size > jsonl.MAX_BYTES and self.is_marked:
            self._mark = None
            self.size, self.sha256 = measured(self._marked(), raise_if_cancelled)

    def _marked(self) -> Iterator[bytes]:
        """Yield the content, with the mark in its first row."""
        self.is_marked = False
        blocks = self._rows.blocks()
        if self._mark is not None:
            beginning = b""
            for block in blocks:
                beginning += block
                place = place_in(beginning)
                if place is not None and beginning.find(b"\n", place) >= 0:
                    break
                if len(beginning) > jsonl.MAX_LINE_BYTES + len(block):
                    break
            with_mark = marked(beginning, self._mark)
            self.is_marked = with_mark is not None
            yield beginning if with_mark is None else with_mark
        yield from blocks

    async def block(self, position: int) -> bytes:
        """Return the block at this position; they are read in order. The last one only if all are unchanged."""
        return await in_thread(lambda _: self._next(position))

    def _next(self, position: int) -> bytes:
        if position == 0:
            self._blocks, self._position, self._hash = self._marked(), 0, hashlib.sha256()
        assert position == self._position  # noqa: S101  # the sender reads in order
        block = next(self._blocks, b"")
        self._hash.update(block)
        self._position += len(block)
        if self._position >= self.size or not block:
            is_whole = self._position == self.size and not next(self._blocks, b"")
            if not is_whole or self._hash.hexdigest() != self.sha256:
                message = f"{self._rows} changed while it was uploaded: try again when no process writes to it"
                raise UsageError(message)
        return block

    def close(self) -> None:
        """Close the source."""
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()
