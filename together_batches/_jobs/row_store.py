"""The rows of a job while its results are read: where each is, and the text of those that are returned later.

The text is held in memory while it is short, and then in a temporary file without a name: nothing of it remains,
however this process ends. Only the index of the ids grows with the rows.
"""

from __future__ import annotations

import tempfile
import threading
from itertools import chain, starmap
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from anyio import to_thread

from together_batches._fields import carried
from together_batches._protocol.carried_body import Body
from together_batches._protocol.line_rank import ANSWERED_BEFORE, Rank, id_of_unreadable, stray_reason
from together_batches._protocol.result_lines import as_text, read_row, salvaged, states_error
from together_batches.errors import UsageError
from together_batches.rows import BatchFailure, BatchInvalid, BatchMissing, BatchResult, BatchStray, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from together_batches._schema.answers import Parse
    from together_batches.jsonl import Line

T = TypeVar("T")
A = TypeVar("A")

_PIECE_BYTES = 1_000_000
_PIECE_ROWS = 500

_UNREADABLE, _FAILURE, _INVALID, _ANSWER = Rank.UNREADABLE, Rank.FAILURE, Rank.INVALID, Rank.ANSWER
"""Global names, because each row needs them, and an enumeration takes time to find its members."""


class _Place(NamedTuple):
    """The stored position of a row: the text of a successful body if ``status_code`` is set, otherwise a line."""

    offset: int
    length: int
    rank: Rank
    whole: bool = True
    status_code: int = 0


_YIELDED = _Place(-1, 0, _ANSWER)
"""The place of an answer that is not stored."""


class _Entry(NamedTuple):
    """A row to return: a missing one has a number instead of a place, a stray has a reason."""

    custom_id: str | None
    place: _Place | int
    stray_reason: str | None = None


def _rank_of(row: BatchResult[Any]) -> Rank:
    return _INVALID if isinstance(row, BatchInvalid) else _ANSWER


def _offset_of(entry: _Entry) -> int:
    return cast("_Place", entry.place).offset


class RowStore:
    """The expected rows, with the number of each in the input, and those that were found.

    Without ``expected`` rows any row is accepted, each id once. In the order of the files an answer is returned at
    once, and all else later, because a row that failed may still get an answer. ``parse`` sets the value of an
    answer, or returns an invalid one if it does not fit; such are returned later, too.
    """

    def __init__(
        self, expected: Mapping[str, int] | None, *, in_input_order: bool, parse: Parse[Any] | None = None
    ) -> None:
        self._parse = parse
        self._parse_at_once = None if in_input_order else parse
        self._is_closed = expected is not None
        self._in_input_order = in_input_order
        # A row that was found has its place, any other its number in the input.
        self._places: dict[str, _Place | int] = {**(expected or {})}
        self._others: list[_Entry] = []
        self._held = bytearray()
        self._stored_bytes = 0
        self._file: IO[bytes] | None = None
        self._is_over = False
        # Cancelling a task does not stop its thread, so the file must not be closed while that uses it.
        self._lock = threading.Lock()

    def take(
        self, row: BatchSuccess | BatchFailure, line: Line, *, ended: bool
    ) -> BatchSuccess | BatchFailure | BatchStray | None:
        """Return the row of a line, if it is to be returned at once; otherwise store it.

        ``ended`` is False for a line without a line end: it may be truncated, and if unreadable it proves nothing.
        """
        custom_id, rank = self._identified(row, line, ended=ended)
        before = None if custom_id is None else self._places.get(custom_id)
        reason = None
        if isinstance(before, _Place):
            if self._parse is not None and self._in_input_order and rank is before.rank is _ANSWER:
                # Only now does it matter which of them fits.
                before = before._replace(rank=_rank_of(self._read(_Entry(custom_id, before))))
                rank = _rank_of(self._parse(cast("BatchSuccess", row)))
            reason = stray_reason(rank, before.rank)
        elif before is None and custom_id is not None and self._is_closed:
            reason = stray_reason(rank, None)
        if reason is not None and rank is _UNREADABLE:
            custom_id = reason = None  # such a line is a failure without an id, and no stray
        is_late = rank is not _ANSWER or self._in_input_order
        if reason is not None and not is_late:
            return BatchStray(custom_id, reason, as_text(line.content))
        place = self._put(row, line, rank, is_stray=reason is not None) if is_late else _YIELDED
        if custom_id is None or reason is not None:
            self._others.append(_Entry(custom_id, place, reason))
        else:
            self._accept(custom_id, place, before)
        return None if is_late else row

    def _identified(self, row: BatchSuccess | BatchFailure, line: Line, *, ended: bool) -> tuple[str | None, Rank]:
        """Return the id of the row that a line is about, and its rank; an unreadable line may have it in its text."""
        if isinstance(row, BatchSuccess):
            return row.custom_id, _ANSWER if self._parse_at_once is None else _rank_of(self._parse_at_once(row))
        if row.custom_id is None and self._is_closed and not states_error(row):
            named = id_of_unreadable(line.content, whole=line.whole, ended=ended)
            return named if named in self._places else None, _UNREADABLE
        return row.custom_id, _FAILURE

    def _accept(self, custom_id: str, place: _Place, before: _Place | int | None) -> None:
        """Make a line the result of its row; any line before it becomes a stray, or a failure without an id."""
        if isinstance(before, _Place):
            is_stray = before.rank is not _UNREADABLE
            self._others.append(_Entry(custom_id, before, ANSWERED_BEFORE) if is_stray else _Entry(None, before))
        self._places[custom_id] = place

    def _put(self, row: BatchSuccess | BatchFailure, line: Line, rank: Rank, *, is_stray: bool) -> _Place:
        content, status_code = line.content, 0
        # With a schema, the line is kept in full: an answer that does not fit may become a stray.
        if isinstance(row, BatchSuccess) and not row.raw and not is_stray and self._parse is None:
            text = carried(row)
            if text is not None:
                content, status_code = text, row.status_code
        offset = self._stored_bytes + len(self._held)
        self._held += content
        return _Place(offset, len(content), rank, line.whole, status_code)

    def lacks_any_but(self, ids: Container[str | None]) -> bool:
        """Return whether an expected row has no readable line, apart from those with these ids."""
        return self._is_closed and not all(
            (isinstance(place, _Place) and place.rank is not _UNREADABLE) or custom_id in ids
            for custom_id, place in self._places.items()
        )

    def pieces(self) -> Iterator[list[_Entry]]:
        """Yield all rows that were not returned, some at a time, when all lines are known.

        In the order of the input, these are all rows, and then all others in the order in which they arrived; in the
        order of the files, those that were stored, and then those that are missing.
        """
        rows = self._places.items()
        entries: Iterable[_Entry]
        if self._in_input_order:
            others = sorted(self._others, key=_offset_of)
            entries = chain(starmap(_Entry, rows), others)  # one by one: making all would pause the loop
        else:
            left = [_Entry(custom_id, place) for custom_id, place in rows if place is not _YIELDED]
            stored = [entry for entry in left if isinstance(entry.place, _Place)] + self._others
            stored.sort(key=_offset_of)
            entries = chain(stored, (entry for entry in left if not isinstance(entry.place, _Place)))
        piece: list[_Entry] = []
        length = 0
        for entry in entries:
            piece.append(entry)
            length += entry.place.length if isinstance(entry.place, _Place) else 0
            if length >= _PIECE_BYTES or len(piece) >= _PIECE_ROWS:
                yield piece
                piece, length = [], 0
        yield piece

    async def spool(self) -> None:
        """Move the text in memory to the disk if it is long."""
        if len(self._held) >= _PIECE_BYTES:
            held, self._held = bytes(self._held), bytearray()
            await _in_thread(self._write, held)

    def _write(self, text: bytes) -> None:
        with self._lock:
            if not self._is_over:
                self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
                self._file.seek(self._stored_bytes)
                self._file.write(text)
                self._stored_bytes += len(text)

    async def read(self, entries: list[_Entry]) -> list[BatchResult[Any]]:
        """Return the rows of these entries."""
        return await _in_thread(self._read_all, entries)

    def _read_all(self, entries: list[_Entry]) -> list[BatchResult[Any]]:
        with self._lock:
            return [self._read(entry) for entry in entries]

    def _read(self, entry: _Entry) -> BatchResult[Any]:
        custom_id, place, stray_reason = entry
        if not isinstance(place, _Place):
            return BatchMissing(cast("str", custom_id))
        text = self._text(place)
        if stray_reason is not None:
            return BatchStray(custom_id, stray_reason, as_text(text))
        if place.status_code:
            return BatchSuccess(cast("str", custom_id), Body(text), place.status_code)
        row = read_row(text, whole=place.whole)
        if row.custom_id is None and custom_id is not None:
            return salvaged(custom_id, text, whole=place.whole)
        return self._parse(row) if self._parse is not None and isinstance(row, BatchSuccess) else row

    def _text(self, place: _Place) -> bytes:
        if self._file is None or place.offset >= self._stored_bytes:
            begin = place.offset - self._stored_bytes
            return bytes(self._held[begin : begin + place.length])
        self._file.seek(place.offset)
        return self._file.read(place.length)

    def close(self) -> None:
        """Release the disk space."""
        with self._lock:
            self._is_over = True
            if self._file is not None:
                self._file.close()


async def _in_thread(work: Callable[[A], T], argument: A) -> T:
    try:
        return await to_thread.run_sync(work, argument)
    except OSError as error:
        message = (
            f"the results cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; "
            "name another directory in TMPDIR"
        )
        raise UsageError(message) from error
