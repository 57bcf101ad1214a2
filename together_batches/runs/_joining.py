"""Results into order: those of one job by the rows it was made from, and those of all jobs by the input.

A job's two files are written anew as one piece, a line for each row that was sent, in the order in which they were
sent. The output is made of the pieces in one go, line by line, without an index. All for a thread.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, NamedTuple

import attrs

from together_batches import _plain, _wire
from together_batches._results import read_row
from together_batches.errors import RunError
from together_batches.jsonl import split_lines
from together_batches.rows import BatchFailure, BatchMissing, BatchSuccess, Usage
from together_batches.runs import _rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from together_batches.runs._drafts import Draft
    from together_batches.runs._records import Attempt, Shard

__all__ = ["Arranged", "ForeignFileError", "arrange", "final_lines"]

_LONGEST_LINE_BYTES = 256_000_000
_BLOCK_BYTES = 1 << 18
_ROWS_BETWEEN_LOOKS = 500


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
    def is_whole(self) -> bool:
        """Whether the files account for every row, so that nothing more needs to be proved."""
        return not self.left


class ForeignFileError(Exception):
    """A file of results says nothing of the rows that the job was made of: it is not the file that it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class _Place(NamedTuple):
    file: IO[bytes]
    offset: int
    length: int
    whole: bool
    is_answer: bool

    def line(self) -> bytes:
        self.file.seek(self.offset)
        return self.file.read(self.length)


def arrange(
    custom_ids: Sequence[str],
    output: Path | None,
    errors: Path | None,
    target: Draft,
    *,
    completed: bool,
    absent: Callable[[str], BatchFailure | BatchMissing],
    check_in: Callable[[], None],
) -> Arranged:
    """Write the results of a job in the order of its rows; ``absent`` says what a row is that has none.

    An answer beats an error of the same row, in one file or in two; of two answers the first counts.

    Raises :class:`ForeignFileError`, before anything is written, where rows are left that a file should tell of: it
    has lines, and none is about a row of the job, or it is the output of a job that ``completed``, and has no line.
    """
    places: dict[str, _Place | None] = dict.fromkeys(custom_ids)
    lines = 0
    outcomes = bytearray()
    refusal: str | None = None
    prompt = completion = total = 0
    with ExitStack() as stack:
        foreign: Path | None = None
        for path in filter(None, (output, errors)):
            told = _find(stack.enter_context(path.open("rb")), places, check_in)
            lines += told.lines
            # Errors that name no row have been seen, and such rows cost nothing when they are sent again.
            is_ours = told.of_rows or (path is errors and told.of_errors)
            if not is_ours and (told.lines or (completed and path is output)):
                foreign = foreign or path
        left = sum(place is None for place in places.values())
        if foreign is not None and left:
            raise ForeignFileError(foreign)
        for number, (custom_id, place) in enumerate(places.items()):
            if number % _ROWS_BETWEEN_LOOKS == 0:
                check_in()
            result = absent(custom_id) if place is None else read_row(place.line(), whole=place.whole)
            if isinstance(result, BatchSuccess) and (usage := result.usage) is not None:
                prompt += usage.prompt_tokens
                completion += usage.completion_tokens
                total += usage.total_tokens
            outcome = _rules.outcome_of(result)
            outcomes.append(outcome)
            if outcome in _rules.FOR_THE_ACCOUNT and refusal is None and isinstance(result, BatchFailure):
                refusal = f"{result.code or result.status_code}: {result.message}"
            target.write(_wire.encode(_plain.to_dict(result)) + b"\n")
    strays = lines - (len(places) - left)
    return Arranged(
        outcomes=bytes(outcomes),
        usage=Usage(prompt, completion, total),
        strays=strays,
        left=left,
        refusal=refusal,
        output_bytes=None if output is None else output.stat().st_size,
        error_bytes=None if errors is None else errors.stat().st_size,
    )


class _Told(NamedTuple):
    """How many lines a file has, how many tell of a row of the job, and how many of an error without saying whose."""

    lines: int
    of_rows: int
    of_errors: int


def _find(file: IO[bytes], places: dict[str, _Place | None], check_in: Callable[[], None]) -> _Told:
    """Note the place of each row: of its answer, if there is one."""
    lines = of_rows = of_errors = 0
    for line in split_lines(_blocks(file, check_in), _LONGEST_LINE_BYTES):
        if not line.content.strip():
            continue
        lines += 1
        row = read_row(line.content, whole=line.whole)
        custom_id = row.custom_id
        if custom_id is None:
            of_errors += _is_error(line.content)
        elif custom_id in places:
            of_rows += 1
            before, is_answer = places[custom_id], isinstance(row, BatchSuccess)
            if before is None or (is_answer and not before.is_answer):
                places[custom_id] = _Place(file, line.offset, len(line.content), line.whole, is_answer)
    return _Told(lines, of_rows, of_errors)


def _blocks(file: IO[bytes], check_in: Callable[[], None]) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        check_in()
        yield block


def _is_error(line: bytes) -> bool:
    try:
        value = _wire.decode(line)
    except _wire.WireError:
        return False
    return isinstance(value, dict) and "error" in value


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
