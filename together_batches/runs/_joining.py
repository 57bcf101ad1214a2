"""Ordering of results: those of one job by its rows, and those of all jobs by the input.

A job's two files are rewritten as one piece, with a line for each row that was sent, in that order. The output is
made from the pieces in one pass, line by line, without an index. All functions block and run in a thread.
"""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

import attrs

from together_batches._protocol import result_codec, result_lines, to_dict
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.json_members import salvaged_id
from together_batches._protocol.result_lines import is_answer, read_row, salvaged
from together_batches.errors import RunError
from together_batches.jsonl import Line, LineSplitter
from together_batches.rows import BatchFailure, BatchMissing, BatchSuccess, Usage
from together_batches.runs import rules
from together_batches.runs._binary import BinaryInput

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches.jsonl._lines import Lines
    from together_batches.runs._binary import BinarySource
    from together_batches.runs._records import Attempt, Shard

__all__ = ["Arranged", "ForeignFileError", "arrange", "final_lines"]

_BLOCK_BYTES = 1 << 18
_TOGETHER_BYTES = 1 << 22
"""Bytes of row text held at a time. The fewer, the more often the files are read through, if in another order."""
_LINES_TOGETHER = 200
_READ_BYTES = 1 << 18
_GAP_BYTES = 1 << 14
"""Average distance of texts up to which those in between are read rather than skipped by another read."""


@attrs.frozen(kw_only=True)
class Arranged:
    """Outcome of each row of an attempt, and the tokens used.

    ``left`` rows are in no file; ``strays`` are rows of the files that match no row of the attempt. ``refusal`` is
    the message of a row that was refused for the account. Sizes are those of the files, None without a file.
    """

    outcomes: bytes
    usage: Usage
    strays: int = 0
    left: int = 0
    refusal: str | None = None
    output_bytes: int | None = None
    error_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return (self.output_bytes or 0) + (self.error_bytes or 0)

    @property
    def is_whole(self) -> bool:
        """Whether the files contain every row, so that no more evidence is needed."""
        return not self.left


class ForeignFileError(Exception):
    """A file of results contains none of the job's rows, and so is not the right file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def arrange(
    custom_ids: Sequence[str],
    output: Path | None,
    errors: Path | None,
    target: AtomicFile,
    *,
    completed: bool,
    absent: Callable[[str], BatchFailure | BatchMissing],
    raise_if_cancelled: Callable[[], None],
    settled: Container[str] = (),
) -> Arranged:
    """Write the results of a job in the order of its rows; ``absent`` returns the result of a row that has none.

    ``settled`` are the ids of rows that the job also contains, but that another job has settled.

    An answer takes precedence over an error of the same row, in one file or in two; of two answers the first counts.
    Answers are copied from the files without decoding.

    Raises :class:`ForeignFileError`, before anything is written, if a file has lines and none is about a row of the
    job: an output unless each row is answered elsewhere, errors if rows are left. If rows are left, an output of a
    job that ``completed`` must have lines.
    """
    index = _Index(custom_ids, settled)
    outcomes = bytearray()
    refusal: str | None = None
    with ExitStack() as stack:
        foreign: Path | None = None
        is_page = False
        for path in filter(None, (output, errors)):
            found = index.add(stack.enter_context(path.open("rb", buffering=0)), raise_if_cancelled)
            # Errors that name no row do occur, and such rows cost nothing when they are sent again.
            is_ours = found.of_rows or (path is errors and found.of_errors)
            if not is_ours and (found.lines or (completed and path is output)):
                foreign = foreign or path
                is_page = bool(found.lines) and path is output
        index.salvage()
        left = index.left
        # Errors for all rows do not exclude answers in an output that was replaced by a page (such as HTML).
        if foreign is not None and (left or (is_page and index.unanswered)):
            raise ForeignFileError(foreign)
        for ids, kinds, texts in index.rows(raise_if_cancelled):
            if kinds.count(_OK) == len(kinds):
                for start in range(0, len(ids), _LINES_TOGETHER):
                    some = slice(start, start + _LINES_TOGETHER)
                    target.write(to_dict.success_lines(ids[some], texts[some], _OK))
                outcomes += bytes([rules.SUCCEEDED]) * len(kinds)
                texts.clear()  # before the next ones are read
                continue
            for custom_id, kind, text in zip(ids, kinds, texts, strict=True):
                if kind >= _OK:
                    target.write(to_dict.success_line(custom_id, text, kind) + b"\n")
                    outcomes.append(rules.SUCCEEDED)
                    continue
                result = absent(custom_id) if kind == _ABSENT else _result(custom_id, kind, text)
                outcome = rules.outcome_of(result)
                outcomes.append(outcome)
                if outcome in rules.FOR_THE_ACCOUNT and refusal is None and isinstance(result, BatchFailure):
                    refusal = f"{result.code or result.status_code}: {result.message}"
                if isinstance(result, BatchSuccess):
                    index.usage += result.usage or Usage()
                target.write(to_dict.line_of(result) + b"\n")
    return Arranged(
        outcomes=bytes(outcomes),
        usage=index.usage,
        strays=index.lines - (len(custom_ids) - left),
        left=left,
        refusal=refusal,
        output_bytes=None if output is None else output.stat().st_size,
        error_bytes=None if errors is None else errors.stat().st_size,
    )


_ABSENT, _UNUSUAL_ANSWER, _FAILURE, _ODD, _LONG = range(5)
"""Kinds of row content: none; the line of an answer whose text cannot be copied; the line of a failure; a line that
cannot be parsed, or is too long, and belongs to the row only by its ``custom_id``. The kind of a copyable answer is
its status instead."""
_OK = 200
_ANSWERS = frozenset({_UNUSUAL_ANSWER, *range(200, 300)})


def _result(custom_id: str, kind: int, line: bytes) -> BatchSuccess | BatchFailure:
    return read_row(line) if kind in {_UNUSUAL_ANSWER, _FAILURE} else salvaged(custom_id, line, whole=kind == _ODD)


class _LineCounts(NamedTuple):
    """Number of lines in a file, of those about a row of the job, and of those with an error but no id."""

    lines: int
    of_rows: int
    of_errors: int


_BLANK, _NOTHING, _A_ROW, _AN_ERROR, _OF_ANOTHER_JOB = range(5)
"""Subjects of a line: none (blank); nothing of the job; a row of it; an error without an id; a settled row."""


class _Index:
    """Index of the lines of the files by row, in arrays, because a job may have 50,000 rows.

    The entries are in the order of the lines, and each row has only the place of its entry, because sequential memory
    access is fast and random access is slow::

        place     0 (no line)   1      2           3       ...
        _kinds    _ABSENT       200    _FAILURE    200          what the text is
        _rows                   7      3           0            whose it is
        _offsets, _lengths                                      where the text is
        _places   of row 0: 3, of row 1: 0, ..., of row 7: 1

    Offsets are counted through both files, as if the second directly followed the first.
    """

    def __init__(self, custom_ids: Sequence[str], settled: Container[str]) -> None:
        self._custom_ids = custom_ids
        self._settled = settled
        self._numbers = {custom_id: number for number, custom_id in enumerate(custom_ids)}
        self._files: list[tuple[int, FileIO]] = []
        self._end = 0
        self._places = array("L", [0]) * len(custom_ids)
        # Place 0 is the entry of a row that is in no file.
        self._kinds, self._rows = array("H", [_ABSENT]), array("L", [0])
        self._offsets, self._lengths = array("Q", [0]), array("Q", [0])
        self._odd: list[tuple[int, int, int, int]] = []
        self.usage = Usage()
        self.lines = 0

    @property
    def left(self) -> int:
        """Number of rows that are in no file."""
        return self._places.count(0)

    @property
    def unanswered(self) -> bool:
        """Whether any row has no answer."""
        return any(self._kinds[place] not in _ANSWERS for place in self._places)

    def add(self, file: FileIO, raise_if_cancelled: Callable[[], None]) -> _LineCounts:
        """Index the rows of a file, and prefer the answer of each row."""
        begin = self._end
        self._files.append((begin, file))
        counts = Counter[int]()
        splitter = LineSplitter(result_lines.LONGEST_LINE_BYTES)
        while block := file.read(_BLOCK_BYTES):
            raise_if_cancelled()
            self._end += len(block)
            self._note_all(splitter.cut(block), begin, counts)
        counts.update(self._note(line, begin, ends=False) for line in splitter.close())
        lines = counts.total() - counts[_BLANK]
        self.lines += lines - counts[_OF_ANOTHER_JOB]
        return _LineCounts(lines, counts[_A_ROW] + counts[_OF_ANOTHER_JOB], counts[_AN_ERROR])

    def _note_all(self, lines: Lines, begin: int, counts: Counter[int]) -> None:
        """Index lines of a file, and count their subjects."""
        answers = result_codec.answers(lines.text, lines.texts) if lines.odd is None else None
        if answers is None:
            counts.update([self._note(line, begin) for line in lines])
            return
        # Every row of a run passes through here, so the first answer of a row is indexed inline.
        usage_of, number_of, places = result_codec.usage, self._numbers.get, self._places
        kind_of, row_of = self._kinds.append, self._rows.append
        offset_of, length_of = self._offsets.append, self._lengths.append
        of_rows = prompt = completion = total = 0
        after = 3  # bytes that follow a body in its line, as it was in the last line
        end = begin + lines.offset
        for place, (answer, text) in enumerate(zip(answers, lines.texts, strict=True)):
            start, end = end, end + len(text)
            response, number = answer.response, number_of(answer.custom_id or "")
            if (
                number is not None
                and not places[number]
                and response is not None
                and response.status_code == _OK
                and not answer.error
                and (body := bytes(response.body)).startswith(b"{")
            ):
                # Any place in the line with this text serves, and usually as much follows it as in the line before.
                size = len(body)
                at = len(text) - after - size
                if at < 0 or not text.startswith(body, at):
                    at = text.find(body)
                    after = len(text) - at - size
                if at >= 0:
                    used = usage_of(body)
                    if used is not None:
                        prompt += used[0]
                        completion += used[1]
                        total += used[2]
                    places[number] = len(self._rows)
                    kind_of(_OK)
                    row_of(number)
                    offset_of(start + at)
                    length_of(size)
                    of_rows += 1
                    continue
            line = Line(lines.number + place, start - begin, text[:-1], len(text) - 1)
            counts[self._note(line, begin)] += 1
        counts[_A_ROW] += of_rows
        self.usage += Usage(prompt, completion, total)

    def _put(self, number: int, kind: int, offset: int, length: int) -> None:
        """Assign a row its content at an offset of the files."""
        self._places[number] = len(self._kinds)
        self._kinds.append(kind)
        self._rows.append(number)
        self._offsets.append(offset)
        self._lengths.append(length)

    def _note(self, line: Line, begin: int, *, ends: bool = True) -> int:
        """Index a line of any kind, and return its subject."""
        _, offset, content, length = line
        offset += begin
        if not content or content.isspace():
            return _BLANK
        if len(content) != length:
            return self._note_odd(content, offset, _LONG)
        try:
            row = result_codec.decode_row(content)
        except WireError:
            # A last line without an end was truncated, and the rest may still appear.
            return self._note_odd(content, offset, _ODD) if ends else _NOTHING
        custom_id = row.custom_id
        number = self._numbers.get(custom_id) if isinstance(custom_id, str) else None
        if number is None:
            if isinstance(custom_id, str) and custom_id:
                return _OF_ANOTHER_JOB if custom_id in self._settled else _NOTHING
            return _AN_ERROR if row.error else _NOTHING
        answers, body = is_answer(row), row.body
        before = self._kinds[self._places[number]]
        if before != _ABSENT and (before in _ANSWERS or not answers):
            return _A_ROW
        if answers and body is not None and (start := content.find(body)) >= 0:  # -1: a carriage return was replaced
            self._put(number, cast("int", row.status_code), offset + start, len(body))
            self.usage += Usage(*(result_codec.usage(body) or ()))
        else:
            self._put(number, _UNUSUAL_ANSWER if answers else _FAILURE, offset, length)
        return _A_ROW

    def _note_odd(self, content: bytes, offset: int, kind: int) -> int:
        custom_id = salvaged_id(content)
        number = None if custom_id is None else self._numbers.get(custom_id)
        if number is None:
            return _NOTHING
        self._odd.append((number, kind, offset, len(content)))
        return _A_ROW

    def salvage(self) -> None:
        """Assign rows that have no other line those that match only by ``custom_id``."""
        for number, kind, offset, length in self._odd:
            if not self._places[number]:
                self._put(number, kind, offset, length)

    def rows(self, raise_if_cancelled: Callable[[], None]) -> Iterator[tuple[Sequence[str], list[int], list[bytes]]]:
        """Yield all rows in order, some at a time: their ids, kinds and texts."""
        start = held = 0
        lengths, kinds = self._lengths, self._kinds
        for number, place in enumerate(self._places, start=1):
            held += lengths[place]
            if held >= _TOGETHER_BYTES or number == len(self._places):
                raise_if_cancelled()
                places = self._places[start:number]
                ids = self._custom_ids[start:number]
                yield ids, [kinds[place] for place in places], self._texts(start, places)
                start, held = number, 0

    def _texts(self, start: int, places: array[int]) -> list[bytes]:
        """Return the texts of the rows from ``start`` on, read in the order of the files; near ones share a read.

        With one read per row, each would wait for the interpreter's lock, which is released during a read.
        """
        texts = [b""] * len(places)
        rows, offsets, lengths = self._rows, self._offsets, self._lengths
        wanted = sorted(filter(None, places))
        if self._odd:  # these were indexed last, whatever their offset
            wanted.sort(key=offsets.__getitem__)
        span = offsets[wanted[-1]] - offsets[wanted[0]] if wanted else 0
        ahead = _READ_BYTES if span <= _GAP_BYTES * len(wanted) else 0
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


def final_lines(
    shard: Shard, pieces: Sequence[tuple[Attempt, BinarySource]], *, directory: Path | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines of a shard, some at a time, and those of them whose rows were not answered.

    The line of a row comes from the last attempt that contained it. The pieces of a run are checked before this;
    without a ``directory`` of a run, each is compared with its hash while it is read.
    """
    with ExitStack() as stack:
        tries = [
            _Try(attempt, stack, BinaryInput.of(piece, "a piece"), directory)
            for attempt, piece in pieces
            if attempt.rows
        ]
        if tries and tries[0].all_succeeded:
            yield from ((block, b"") for block in tries[0].blocks())
            return
        left = shard.rows if tries else 0
        while left:
            outcomes, lines = tries[0].take(_BLOCK_BYTES)
            left -= len(lines)
            for outcome, line in zip(outcomes, lines, strict=True):
                for again in tries[1:]:
                    if outcome in _SETTLED:
                        break
                    (outcome,), (line,) = again.take(1)
                yield line, b"" if outcome == rules.SUCCEEDED else line
        for each in tries:
            each.finish()


_SETTLED = frozenset({rules.SUCCEEDED, rules.FAILED})


class _Try:
    """Outcomes of an attempt and lines of its piece, in order."""

    def __init__(self, attempt: Attempt, stack: ExitStack, piece: BinaryInput, directory: Path | None) -> None:
        self._outcomes = rules.outcomes_of(attempt)
        self._file = stack.enter_context(piece.lines("" if directory else attempt.piece_sha256))
        self._piece = piece
        self._directory = directory
        self._taken = 0

    @property
    def all_succeeded(self) -> bool:
        """Whether all of its rows were answered."""
        return self._outcomes.count(rules.SUCCEEDED) == len(self._outcomes)

    def blocks(self) -> Iterator[bytes]:
        """Yield all lines as blocks, which are not cut into lines: that would take longer than copying them."""
        lines, last = 0, b""
        while block := self._file.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
            yield block
            last = block
        if lines != len(self._outcomes) or not last.endswith(b"\n"):
            raise self._differs("has been cut short")

    def take(self, size: int) -> tuple[bytes, list[bytes]]:
        """Return those of the next rows, up to about ``size`` bytes of lines."""
        lines = self._file.readlines(size)
        outcomes = self._outcomes[self._taken : self._taken + len(lines)]
        self._taken += len(lines)
        if not lines or not lines[-1].endswith(b"\n") or len(outcomes) < len(lines):
            raise self._differs("has been cut short")
        return outcomes, lines

    def finish(self) -> None:
        """Check that all rows were taken."""
        if self._file.read(1):
            raise self._differs("has more lines than its attempt has rows")

    def _differs(self, how: str) -> RunError:
        if self._directory is None:
            return RunError(f"{self._piece} {how}: collect its attempt again", directory="")
        message = f"{self._piece} {how}: remove it and run again, and its results are downloaded anew"
        return RunError(message, directory=str(self._directory))
