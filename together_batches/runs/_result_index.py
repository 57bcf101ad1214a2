"""Index of the results of a job: where in its two files the result of each row is, and how much of it can be copied.

A job may have 50,000 rows and 100 MB of results, so only numbers are held, and the texts are read again in the order
of the rows. All functions block and run in a thread.
"""

from __future__ import annotations

from array import array
from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, cast

from together_batches._protocol import result_codec, result_lines
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.line_rank import Rank, id_of_unreadable, stray_reason
from together_batches.jsonl import LineSplitter
from together_batches.rows import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from io import FileIO

    from together_batches.jsonl._lines import Lines

_BLOCK_BYTES = 1 << 18
_TOGETHER_BYTES = 1 << 22
"""Bytes of row text held at a time. The fewer, the more often the files are read through, if in another order."""
_GAP_BYTES = 1 << 14
"""Average distance of texts up to which those in between are read rather than skipped by another read."""


class Kind(IntEnum):
    """Kind of a row's text; the body of an answer has its status instead."""

    NONE = 0
    UNUSUAL_ANSWER = 1
    """The line of an answer whose body cannot be copied."""
    FAILURE = 2
    """The line of a failure."""
    UNREADABLE = 3
    """A line that cannot be parsed, and belongs to the row only by its ``custom_id``."""
    TOO_LONG = 4
    """The beginning of a line that is too long to be parsed, which belongs to the row in the same way."""


OK = 200
_OPENING = ord("{")
_RANKS = {
    Kind.NONE: Rank.ABSENT,
    Kind.UNREADABLE: Rank.UNREADABLE,
    Kind.TOO_LONG: Rank.UNREADABLE,
    Kind.FAILURE: Rank.FAILURE,
}


def _rank_of(kind: int) -> Rank:
    return _RANKS.get(cast("Kind", kind), Rank.ANSWER)


def _text_of(row: result_codec.Row | None, content: bytes, *, whole: bool) -> tuple[int, int, int]:
    """Return the kind of the text to keep of a row's line, and its offset and length within the line."""
    if row is None:
        return Kind.UNREADABLE if whole else Kind.TOO_LONG, 0, len(content)
    if not result_lines.is_answer(row):
        return Kind.FAILURE, 0, len(content)
    start = -1 if row.body is None else content.find(row.body)
    if row.body is None or start < 0:  # a carriage return in it was replaced
        return Kind.UNUSUAL_ANSWER, 0, len(content)
    return cast("int", row.status_code), start, len(row.body)


class LineCounts(NamedTuple):
    """Number of lines in a file, of those about a row of the job, and of those with an error but no id."""

    lines: int
    of_rows: int
    of_errors: int


class _Subject(IntEnum):
    """What a line is about."""

    BLANK = 0
    NOTHING_OF_THE_JOB = 1
    ROW = 2
    ERROR_WITHOUT_ID = 3
    SETTLED_ROW = 4


class ResultIndex:
    """Index of the lines of the files by row, in arrays.

    The entries are in the order of the lines, and each row has only the place of its entry, because sequential memory
    access is fast and random access is slow::

        place     0 (no line)   1      2           3       ...
        _kinds    NONE          200    FAILURE     200          what the text is
        _rows                   7      3           0            whose it is
        _offsets, _lengths                                      where the text is
        _places   of row 0: 3, of row 1: 0, ..., of row 7: 1

    Offsets are counted through both files, as if the second directly followed the first.
    """

    def __init__(self, custom_ids: Sequence[str], settled: Container[str], *, has_schema: bool = False) -> None:
        self._custom_ids = custom_ids
        self._settled = settled
        self._numbers: dict[str | None, int] = {custom_id: number for number, custom_id in enumerate(custom_ids)}
        self._files: list[tuple[int, FileIO]] = []
        self._end = 0
        self._places = array("L", [0]) * len(custom_ids)
        # Place 0 is the entry of a row that is in no file.
        self._kinds, self._rows = array("H", [Kind.NONE]), array("L", [0])
        self._offsets, self._lengths = array("Q", [0]), array("Q", [0])
        self.usage = Usage()
        self.lines = 0
        # With a schema, a later answer of a row counts if the first does not fit.
        self._others: dict[int, list[tuple[int, int, int]]] | None = {} if has_schema else None

    @property
    def left(self) -> int:
        """Number of rows that are in no file."""
        return self._places.count(0)

    @property
    def unanswered(self) -> bool:
        """Whether any row has no answer."""
        return any(_rank_of(self._kinds[place]) < Rank.ANSWER for place in self._places)

    def add(self, file: FileIO, raise_if_cancelled: Callable[[], None]) -> LineCounts:
        """Index the rows of a file, and prefer the answer of each row."""
        begin = self._end
        self._files.append((begin, file))
        counts = Counter[_Subject]()
        splitter = LineSplitter(result_lines.LONGEST_LINE_BYTES)
        while block := file.read(_BLOCK_BYTES):
            raise_if_cancelled()
            self._end += len(block)
            self._note_all(splitter.cut(block), begin, counts)
        last = [self._note(line.content, begin + line.offset, line.length, ended=False) for line in splitter.close()]
        counts.update(last)
        lines = counts.total() - counts[_Subject.BLANK]
        self.lines += lines - counts[_Subject.SETTLED_ROW]
        of_rows = counts[_Subject.ROW] + counts[_Subject.SETTLED_ROW]
        return LineCounts(lines, of_rows, counts[_Subject.ERROR_WITHOUT_ID])

    def _note_all(self, lines: Lines, begin: int, counts: Counter[_Subject]) -> None:
        """Index lines of a file, and count their subjects."""
        answers = result_codec.answers(lines.text, lines.texts) if lines.are_plain else None
        if answers is None:
            counts.update([self._note(line.content, begin + line.offset, line.length) for line in lines])
            return
        counts[_Subject.ROW] += len(answers)
        for text, offset in self._index_usual(answers, lines.texts, begin + lines.offset):
            counts[_Subject.ROW] -= 1
            counts[self._note(text[:-1], offset, len(text) - 1)] += 1

    def _index_usual(
        self, answers: list[result_codec.Answer], texts: list[bytes], end: int
    ) -> Iterator[tuple[bytes, int]]:
        """Index usual answers, of lines from the offset ``end`` on; yield every other line and its offset.

        Usual is the first answer of a row, which always is its result. Every row of a run passes through here, so it
        is indexed inline. Entries are in the order of the lines, so a line is to be indexed when it is yielded.
        """
        number_of, places, rows = self._numbers.get, self._places, self._rows
        kind_of, row_of = self._kinds.append, rows.append
        offset_of, length_of = self._offsets.append, self._lengths.append
        bodies: list[result_codec.BodyText] = []
        body_of = bodies.append
        after = 3  # bytes that follow a body in its line, as it was in the last line
        for answer, text in zip(answers, texts, strict=True):
            start, end = end, end + len(text)
            response, number = answer.response, number_of(answer.custom_id)
            if (
                number is not None
                and not places[number]
                and response is not None
                and response.status_code == OK
                and not answer.error
            ):
                body = response.body
                size = len(body)
                # The distance from the end that was right for the last line is tried first. Any match serves.
                at = len(text) - after - size
                if at < 0 or not text.startswith(body, at):
                    at = text.find(body)
                    after = len(text) - at - size
                if at >= 0 and text[at] == _OPENING:
                    body_of(body)
                    places[number] = len(rows)
                    kind_of(OK)
                    row_of(number)
                    offset_of(start + at)
                    length_of(size)
                    continue
            yield text, start
        self.usage += Usage(*result_codec.usage(bodies))

    def _note(self, content: bytes, offset: int, length: int, *, ended: bool = True) -> _Subject:
        """Index a line of any kind at an offset of the files, and return its subject."""
        whole = len(content) == length
        if not content or content.isspace():
            return _Subject.BLANK
        try:
            row = result_codec.decode_row(content) if whole else None
        except WireError:
            row = None
        custom_id = id_of_unreadable(content, whole=whole, ended=ended) if row is None else row.custom_id
        number = self._numbers.get(custom_id) if isinstance(custom_id, str) else None
        if number is None:
            return self._other_subject(row)
        kind, start, length = _text_of(row, content, whole=whole)
        if stray_reason(_rank_of(kind), _rank_of(self._kinds[self._places[number]])) is None:
            self._places[number] = len(self._rows)
            self._kinds.append(kind)
            self._rows.append(number)
            self._offsets.append(offset + start)
            self._lengths.append(length)
            if kind >= OK:
                self.usage += Usage(*result_codec.usage([content[start : start + length]]))
        elif self._others is not None and _rank_of(kind) is Rank.ANSWER:
            self._others.setdefault(number, []).append((kind, offset + start, length))
        return _Subject.ROW

    def _other_subject(self, row: result_codec.Row | None) -> _Subject:
        """Return the subject of a line that is about no row of the job."""
        if row is not None and isinstance(row.custom_id, str) and row.custom_id:
            return _Subject.SETTLED_ROW if row.custom_id in self._settled else _Subject.NOTHING_OF_THE_JOB
        return _Subject.ERROR_WITHOUT_ID if row is not None and row.error else _Subject.NOTHING_OF_THE_JOB

    def other_answers(self, custom_id: str) -> Iterator[tuple[int, bytes]]:
        """Yield the answers of a row after the first, if there is a schema: the kind of each text, and the text."""
        for kind, offset, length in (self._others or {}).get(self._numbers[custom_id], ()):
            yield kind, self._read(offset, length)

    def rows(self, raise_if_cancelled: Callable[[], None]) -> Iterator[tuple[Sequence[str], list[int], list[bytes]]]:
        """Yield all rows in order, some at a time: their ids, the kinds of their texts, and the texts."""
        start = held = 0
        lengths, kinds = self._lengths, self._kinds
        for number, place in enumerate(self._places, start=1):
            held += lengths[place]
            if held >= _TOGETHER_BYTES or number == len(self._places):
                raise_if_cancelled()
                places = self._places[start:number]
                ids = self._custom_ids[start:number]
                yield ids, [kinds[place] for place in places], self._read_all(start, places)
                start, held = number, 0

    def _read_all(self, start: int, places: array[int]) -> list[bytes]:
        """Return the texts of the rows from ``start`` on, read in the order of the files; near ones share a read.

        With one read per row, each would wait for the interpreter's lock, which is released during a read.
        """
        texts = [b""] * len(places)
        rows, offsets, lengths = self._rows, self._offsets, self._lengths
        wanted = sorted(filter(None, places))
        span = offsets[wanted[-1]] - offsets[wanted[0]] if wanted else 0
        ahead = _BLOCK_BYTES if span <= _GAP_BYTES * len(wanted) else 0
        block, begin, end = b"", 0, 0
        for place in wanted:
            offset, length = offsets[place], lengths[place]
            if offset + length > end:
                begin, block = offset, self._read(offset, max(length, ahead))
                end = begin + len(block)
            offset -= begin
            texts[rows[place] - start] = block[offset : offset + length]
        return texts

    def _read(self, begin: int, size: int) -> bytes:
        """Read ``size`` bytes of one of the files, which the operating system may return in pieces."""
        base, file = self._files[-1] if begin >= self._files[-1][0] else self._files[0]
        file.seek(begin - base)
        block = file.read(size)
        while len(block) < size and (more := file.read(size - len(block))):
            block += more
        return block
