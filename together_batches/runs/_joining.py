"""Results into order: those of one job by the rows it was made from, and those of all jobs by the input.

A job's two files are written anew as one piece, a line for each row that was sent, in the order in which they were
sent. The output is made of the pieces in one go, line by line, without an index. All for a thread.
"""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

import attrs

from together_batches import _plain, _result_lines, _wire
from together_batches._result_lines import is_answer, read_row, salvaged
from together_batches.errors import RunError
from together_batches.jsonl import LineSplitter
from together_batches.rows import BatchFailure, BatchMissing, BatchSuccess, Usage
from together_batches.runs import _rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from together_batches.jsonl import Line
    from together_batches.runs._drafts import Draft
    from together_batches.runs._records import Attempt, Shard

__all__ = ["Arranged", "ForeignFileError", "arrange", "final_lines"]

_BLOCK_BYTES = 1 << 18
_TOGETHER_BYTES = 2 << 20
"""So much text of rows is held at a time."""
_LONGEST_READ_BYTES = 1 << 20
_GAP_BYTES = 1 << 14
"""So much that is not wanted is read between two texts rather than to begin another read."""


@attrs.frozen(kw_only=True)
class Arranged:
    """What became of each row of an attempt, and the tokens.

    ``left`` rows are in no file, ``strays`` are rows of the files that belong to none of the attempt's. ``refusal``
    is what a row says that was refused for the account. Sizes are those of the files, None if there is none.
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
        """The size of the files."""
        return (self.output_bytes or 0) + (self.error_bytes or 0)

    @property
    def is_whole(self) -> bool:
        """Whether the files account for every row, so that nothing more needs to be proved."""
        return not self.left


class ForeignFileError(Exception):
    """A file of results says nothing of the rows that the job was made of: it is not the file that it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def arrange(
    custom_ids: Sequence[str],
    output: Path | None,
    errors: Path | None,
    target: Draft,
    *,
    completed: bool,
    absent: Callable[[str], BatchFailure | BatchMissing],
    check_in: Callable[[], None],
    settled: Collection[str] = (),
) -> Arranged:
    """Write the results of a job in the order of its rows; ``absent`` says what a row is that has none.

    ``settled`` are the ids of rows that the job has as well, and another job has settled.

    An answer beats an error of the same row, in one file or in two; of two answers the first counts. Answers are
    copied from the files without being decoded.

    Raises :class:`ForeignFileError`, before anything is written, where rows are left that a file should tell of: it
    has lines, and none is about a row of the job, or it is the output of a job that ``completed``, and has no line.
    """
    index = _Index(custom_ids, settled)
    outcomes = bytearray()
    refusal: str | None = None
    with ExitStack() as stack:
        foreign: Path | None = None
        for path in filter(None, (output, errors)):
            found = index.add(stack.enter_context(path.open("rb", buffering=0)), check_in)
            # Errors that name no row have been seen, and such rows cost nothing when they are sent again.
            is_ours = found.of_rows or (path is errors and found.of_errors)
            if not is_ours and (found.lines or (completed and path is output)):
                foreign = foreign or path
        index.salvage()
        left = index.kinds.count(_ABSENT)
        if foreign is not None and left:
            raise ForeignFileError(foreign)
        for some in index.rows(check_in):
            for custom_id, kind, status_code, text in some:
                if kind == _ANSWER:
                    target.write(_plain.success_line(custom_id, text, status_code) + b"\n")
                    outcomes.append(_rules.SUCCEEDED)
                    continue
                result = absent(custom_id) if kind == _ABSENT else _result(custom_id, kind, text)
                outcome = _rules.outcome_of(result)
                outcomes.append(outcome)
                if outcome in _rules.FOR_THE_ACCOUNT and refusal is None and isinstance(result, BatchFailure):
                    refusal = f"{result.code or result.status_code}: {result.message}"
                if isinstance(result, BatchSuccess):
                    index.usage += result.usage or Usage()
                target.write(_plain.line_of(result) + b"\n")
    return Arranged(
        outcomes=bytes(outcomes),
        usage=index.usage,
        strays=index.lines - (len(custom_ids) - left),
        left=left,
        refusal=refusal,
        output_bytes=None if output is None else output.stat().st_size,
        error_bytes=None if errors is None else errors.stat().st_size,
    )


_ABSENT, _ANSWER, _UNUSUAL_ANSWER, _FAILURE, _ODD, _LONG = range(6)
"""What there is of a row: nothing; the text of an answer; the line of one whose text cannot be copied; the line of a
failure; a line that cannot be read, or that is too long, and is of the row by its ``custom_id`` alone."""
_ANSWERS = frozenset({_ANSWER, _UNUSUAL_ANSWER})


def _result(custom_id: str, kind: int, line: bytes) -> BatchSuccess | BatchFailure:
    return read_row(line) if kind in {_UNUSUAL_ANSWER, _FAILURE} else salvaged(custom_id, line, whole=kind == _ODD)


class _LineCounts(NamedTuple):
    """How many lines a file has, how many tell of a row of the job, and how many of an error without saying whose."""

    lines: int
    of_rows: int
    of_errors: int


_NOTHING, _A_ROW, _AN_ERROR, _SETTLED = range(4)
"""What a line is about: nothing of the job; a row of it; an error that does not say whose it is; a settled row."""


class _Index:
    """Where in the files each row is: arrays, since a job may have 50,000 rows, and several are read at a time."""

    def __init__(self, custom_ids: Sequence[str], settled: Collection[str]) -> None:
        self._custom_ids = custom_ids
        self._settled = settled
        self._numbers = {custom_id: number for number, custom_id in enumerate(custom_ids)}
        self._files: list[FileIO] = []
        self.kinds = bytearray(len(custom_ids))
        self._file_of = bytearray(len(custom_ids))
        self._offsets = array("Q", bytes(8 * len(custom_ids)))
        self._lengths = array("L", bytes(array("L").itemsize * len(custom_ids)))
        self._status_codes = array("H", bytes(2 * len(custom_ids)))
        self._odd: list[tuple[int, int, int, int, int]] = []
        self.usage = Usage()
        self.lines = 0

    def add(self, file: FileIO, check_in: Callable[[], None]) -> _LineCounts:
        """Note where the rows are in a file: the answer of each, if there is one."""
        self._files.append(file)
        counts = Counter[int]()
        splitter = LineSplitter(_result_lines.LONGEST_LINE_BYTES)
        while block := file.read(_BLOCK_BYTES):
            check_in()
            self._note(splitter.feed(block), counts)
        self._note(splitter.close(), counts, have_ends=False)
        self.lines += counts.total() - counts[_SETTLED]
        return _LineCounts(counts.total(), counts[_A_ROW] + counts[_SETTLED], counts[_AN_ERROR])

    def _note(self, lines: Iterable[Line], counts: Counter[int], *, have_ends: bool = True) -> None:
        """Note lines, and count what they are about."""
        # Every row of a run goes through here, which is why nothing in this loop is a method of ours.
        decode_row, usage, answered = _wire.decode_row, _wire.usage, _ANSWERS
        numbers, kinds = self._numbers, self.kinds
        file_of, offsets, lengths, file = self._file_of, self._offsets, self._lengths, len(self._files) - 1
        rows = prompt = completion = total = 0
        for line in lines:
            _, offset, content, length = line
            if not content or content.isspace():
                continue
            if len(content) != length:
                counts[self._note_odd(line, _LONG)] += 1
                continue
            try:
                row = decode_row(content)
            except _wire.WireError:
                # A last line that ends within itself was cut, and more of it may come.
                counts[self._note_odd(line, _ODD) if have_ends else _NOTHING] += 1
                continue
            custom_id = row.custom_id
            number = numbers.get(custom_id) if isinstance(custom_id, str) else None
            if number is None:
                counts[self._without_a_row(row)] += 1
                continue
            rows += 1
            answers = is_answer(row)
            if kinds[number] and (kinds[number] in answered or not answers):
                continue
            kind, body = _UNUSUAL_ANSWER if answers else _FAILURE, row.body
            if answers and body is not None and (place := _place_of(body, content)) >= 0:
                kind, offset, length = _ANSWER, offset + place, len(body)
                self._status_codes[number] = cast("int", row.status_code)
                if (tokens := usage(body)) is not None:
                    prompt += tokens[0]
                    completion += tokens[1]
                    total += tokens[2]
            kinds[number] = kind
            file_of[number] = file
            offsets[number] = offset
            lengths[number] = length
        counts[_A_ROW] += rows
        self.usage += Usage(prompt, completion, total)

    def _without_a_row(self, row: _wire.Row) -> int:
        """What the line of a row is about that is none of these."""
        custom_id = row.custom_id
        if isinstance(custom_id, str) and custom_id:
            return _SETTLED if custom_id in self._settled else _NOTHING
        return _AN_ERROR if row.error else _NOTHING

    def _note_odd(self, line: Line, kind: int) -> int:
        custom_id = _wire.salvaged_id(line.content)
        number = None if custom_id is None else self._numbers.get(custom_id)
        if number is None:
            return _NOTHING
        self._odd.append((number, kind, len(self._files) - 1, line.offset, len(line.content)))
        return _A_ROW

    def salvage(self) -> None:
        """Give the rows that have no other line those that are theirs by their ``custom_id`` alone."""
        for number, kind, file, offset, length in self._odd:
            if self.kinds[number] == _ABSENT:
                self.kinds[number] = kind
                self._file_of[number] = file
                self._offsets[number], self._lengths[number] = offset, length

    def rows(self, check_in: Callable[[], None]) -> Iterator[Iterable[tuple[str, int, int, bytes]]]:
        """All rows in order, some at a time: the id, what there is of it, the status of its answer, and its text."""
        start = held = 0
        for number, length in enumerate(self._lengths, start=1):
            held += length
            if held >= _TOGETHER_BYTES or number == len(self._lengths):
                check_in()
                rows = slice(start, number)
                yield zip(
                    self._custom_ids[rows],
                    self.kinds[rows],
                    self._status_codes[rows],
                    self._texts(start, number),
                    strict=True,
                )
                start, held = number, 0

    def _texts(self, start: int, end: int) -> list[bytes]:
        """The texts of these rows, read in the order of the files: what is near in one is read in one go.

        To read row by row would have each wait for its turn at the interpreter's lock, which is let go for a read.
        """
        texts = [b""] * (end - start)
        offsets, lengths = self._offsets, self._lengths
        for number_of_file, file in enumerate(self._files):
            wanted = [
                number
                for number in range(start, end)
                if self.kinds[number] and self._file_of[number] == number_of_file
            ]
            wanted.sort(key=offsets.__getitem__)
            first = 0
            while first < len(wanted):
                begin = offsets[wanted[first]]
                stop = begin + lengths[wanted[first]]
                last = first + 1
                while last < len(wanted):
                    offset = offsets[wanted[last]]
                    if offset - stop > _GAP_BYTES or stop - begin > _LONGEST_READ_BYTES:
                        break
                    stop = offset + lengths[wanted[last]]
                    last += 1
                file.seek(begin)
                block = _read(file, stop - begin)
                for number in wanted[first:last]:
                    place = offsets[number] - begin
                    texts[number - start] = block[place : place + lengths[number]]
                first = last
        return texts


def _place_of(body: bytes, line: bytes) -> int:
    """Where the text of an answer is in its line; -1 if a carriage return in it was replaced."""
    # Nearly always the two objects around it end right after it, and to look for it takes longer.
    place = len(line) - len(body) - 2
    return place if line.startswith(body, place) else line.find(body)


def _read(file: FileIO, size: int) -> bytes:
    """So many bytes, which the operating system may give in pieces."""
    block = file.read(size)
    while len(block) < size and (more := file.read(size - len(block))):
        block += more
    return block


def final_lines(
    shard: Shard, pieces: Sequence[tuple[Attempt, Path]], *, directory: Path
) -> Iterator[tuple[int, bytes]]:
    """What became of each row of a shard in the end, and its line: that of the last attempt it was in."""
    with ExitStack() as stack:
        sources = [
            (iter(_rules.outcomes_of(attempt)), stack.enter_context(path.open("rb")), path)
            for attempt, path in pieces
            if attempt.rows
        ]
        for _ in range(shard.rows):
            outcome, line = _rules.MISSING, b""
            for outcomes, file, path in sources:
                outcome, line = next(outcomes), file.readline()
                if not line.endswith(b"\n"):
                    message = (
                        f"{path} has been cut short: remove it and run again, and its results are downloaded anew"
                    )
                    raise RunError(message, directory=str(directory))
                if outcome in {_rules.SUCCEEDED, _rules.FAILED}:
                    break
            yield outcome, line
