"""The files of an attempt, wherever they are kept: the name and the mark of its upload, and its ordered results.

For attempts that a caller drives also the upload itself, from a source that is read in order, once for each purpose.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from together_batches import jsonl
from together_batches._jobs.marked_file import has_room
from together_batches._protocol.upload_marks import place_in, sendable, tagged_name
from together_batches.errors import UsageError
from together_batches.models import BatchJobStatus
from together_batches.runs import rules
from together_batches.runs._joining import Arranged, arrange
from together_batches.runs._sharding import measured
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches._protocol.upload_marks import Mark
    from together_batches._schema.adapters import SchemaAdapter
    from together_batches.runs._binary import BinaryInput
    from together_batches.runs._records import Attempt

_LONGEST_STEM = 40
"""Maximum characters of the input's name in the names of uploads, whose length the service limits."""


def file_name(attempt: Attempt) -> str:
    """Return the name of a file of an attempt, without its suffix."""
    return f"{attempt.shard:05}-{attempt.number}"


def upload_name(stem: str, attempt: Attempt, mark: Mark | None) -> str:
    """Return the name under which the rows of an attempt are uploaded, from an input whose name is ``stem``."""
    name = f"{sendable(stem)[:_LONGEST_STEM]}-{file_name(attempt)}.jsonl"
    return name if mark is None else tagged_name(name, mark)


def marked(rows: bytes, mark: Mark) -> bytes | None:
    """Return rows, the first of them whole, with the mark in it; None if it has no room for that."""
    place = place_in(rows)
    if place is None or not has_room(rows, place):
        return None
    return rows[:place] + mark.white_space + rows[place:]


def write_piece(
    piece: AtomicFile,
    attempt: Attempt,
    custom_ids: Sequence[str],
    output: Path | None,
    errors: Path | None,
    *,
    settled: Container[str],
    raise_if_cancelled: Callable[[], None],
    schema: SchemaAdapter[Any] | None = None,
) -> Arranged:
    """Write the results of an attempt in the order of its rows; ``settled`` and ``schema`` as for :func:`arrange`."""
    with piece:
        arranged = arrange(
            custom_ids,
            output,
            errors,
            piece,
            completed=attempt.status == BatchJobStatus.COMPLETED,
            absent=partial(rules.absent, attempt),
            raise_if_cancelled=raise_if_cancelled,
            settled=settled,
            schema=schema,
        )
        piece.commit()
    return attrs.evolve(arranged, piece_sha256=piece.sha256)


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
