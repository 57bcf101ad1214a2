"""Ordering of results: those of one job by its rows, and those of all jobs by the input.

A job's two files are rewritten as one piece, with a line for each row that was sent, in that order. The output is
made from the pieces in one pass, line by line, without an index. All functions block and run in a thread.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from together_batches._protocol import to_dict
from together_batches._protocol.carried_body import Body
from together_batches._protocol.result_lines import read_row, salvaged
from together_batches._schema.answers import parser
from together_batches.errors import RunError
from together_batches.rows import BatchFailure, BatchInvalid, BatchMissing, BatchSuccess, Usage
from together_batches.runs import rules
from together_batches.runs._binary import BinaryInput
from together_batches.runs._result_index import OK, Kind, ResultIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches._schema.adapters import SchemaAdapter
    from together_batches._schema.answers import Parse
    from together_batches.runs._binary import BinarySource
    from together_batches.runs._records import Attempt, Shard
    from together_batches.runs._result_index import LineCounts

_BLOCK_BYTES = 1 << 18
_LINES_TOGETHER = 200


@attrs.frozen(kw_only=True)
class Arranged:
    """Outcome of each row of an attempt, and the tokens used.

    ``left`` rows are in no file; ``strays`` are rows of the files that match no row of the attempt. ``refusal`` is
    the message of a row that was refused for the account. Sizes are those of the files, None without a file;
    ``piece_sha256`` is the hash of the lines that were written.
    """

    outcomes: bytes
    usage: Usage
    strays: int = 0
    left: int = 0
    refusal: str | None = None
    output_bytes: int | None = None
    error_bytes: int | None = None
    piece_sha256: str = ""

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
    schema: SchemaAdapter[Any] | None = None,
) -> Arranged:
    """Write the results of a job in the order of its rows; ``absent`` returns the result of a row that has none.

    ``settled`` are the ids of rows that the job also contains, but that another job has settled.

    An answer takes precedence over an error of the same row, in one file or in two; of two answers the first counts.
    Answers are copied from the files without decoding, unless there is a ``schema``: then each is read by it, and the
    first that fits counts.

    Raises :class:`ForeignFileError`, before anything is written, if a file has lines and none is about a row of the
    job: an output unless each row is answered elsewhere, errors if rows are left. If rows are left, an output of a
    job that ``completed`` must have lines.
    """
    index = ResultIndex(custom_ids, settled, has_schema=schema is not None)
    with ExitStack() as stack:
        counts = {
            path: index.add(stack.enter_context(path.open("rb", buffering=0)), raise_if_cancelled)
            for path in (output, errors)
            if path is not None
        }
        _refuse_foreign(index, counts, output, completed=completed)
        left = index.left
        outcomes, refusal = _write_rows(index, target, absent, schema, raise_if_cancelled)
    return Arranged(
        outcomes=outcomes,
        usage=index.usage,
        strays=index.lines - (len(custom_ids) - left),
        left=left,
        refusal=refusal,
        output_bytes=None if output is None else output.stat().st_size,
        error_bytes=None if errors is None else errors.stat().st_size,
    )


def _refuse_foreign(
    index: ResultIndex, counts: Mapping[Path, LineCounts], output: Path | None, *, completed: bool
) -> None:
    """Raise :class:`ForeignFileError` for a file that is not of the job."""
    foreign: Path | None = None
    is_page = False
    for path, found in counts.items():
        # Errors that name no row do occur, and such rows cost nothing when they are sent again.
        is_ours = found.of_rows or (path != output and found.of_errors)
        if not is_ours and (found.lines or (completed and path == output)):
            foreign = foreign or path
            is_page = bool(found.lines) and path == output
    # Errors for all rows do not exclude answers in an output that was replaced by a page (such as HTML).
    if foreign is not None and (index.left or (is_page and index.unanswered)):
        raise ForeignFileError(foreign)


def _write_rows(
    index: ResultIndex,
    target: AtomicFile,
    absent: Callable[[str], BatchFailure | BatchMissing],
    schema: SchemaAdapter[Any] | None,
    raise_if_cancelled: Callable[[], None],
) -> tuple[bytes, str | None]:
    """Write the result of each row; return their outcomes, and the message of a row refused for the account."""
    parse = None if schema is None else parser(schema)
    outcomes = bytearray()
    refusal: str | None = None
    for ids, kinds, texts in index.rows(raise_if_cancelled):
        if parse is None and kinds.count(OK) == len(kinds):
            for start in range(0, len(ids), _LINES_TOGETHER):
                some = slice(start, start + _LINES_TOGETHER)
                target.write(to_dict.success_lines(ids[some], texts[some], OK))
            outcomes += bytes([rules.SUCCEEDED]) * len(kinds)
            texts.clear()  # before the next ones are read
            continue
        for custom_id, kind, text in zip(ids, kinds, texts, strict=True):
            if kind >= OK and parse is None:
                target.write(to_dict.success_line(custom_id, text, kind) + b"\n")
                outcomes.append(rules.SUCCEEDED)
                continue
            result: BatchSuccess[Any] | BatchInvalid | BatchFailure | BatchMissing
            result = absent(custom_id) if kind == Kind.NONE else _result(custom_id, kind, text)
            if isinstance(result, BatchSuccess) and kind == Kind.UNUSUAL_ANSWER:
                index.usage += result.usage or Usage()
            if isinstance(result, BatchSuccess) and parse is not None:
                result = _parsed(result, parse, index)
            outcome = rules.outcome_of(result)
            outcomes.append(outcome)
            if outcome in rules.FOR_THE_ACCOUNT and refusal is None and isinstance(result, BatchFailure):
                refusal = f"{result.code or result.status_code}: {result.message}"
            target.write(to_dict.line_of(result) + b"\n")
    return bytes(outcomes), refusal


def _parsed(answer: BatchSuccess, parse: Parse[Any], index: ResultIndex) -> BatchSuccess[Any] | BatchInvalid:
    """Return an answer as read by a schema; if it does not fit, another answer of its row that does."""
    result = parse(answer)
    if isinstance(result, BatchInvalid):
        for kind, text in index.other_answers(answer.custom_id):
            other = _result(answer.custom_id, kind, text)
            if isinstance(other, BatchSuccess) and isinstance(parsed := parse(other), BatchSuccess):
                return parsed
    return result


def _result(custom_id: str, kind: int, line: bytes) -> BatchSuccess | BatchFailure:
    if kind >= OK:
        return BatchSuccess(custom_id, Body(line), kind)
    if kind in {Kind.UNUSUAL_ANSWER, Kind.FAILURE}:
        return read_row(line)
    return salvaged(custom_id, line, whole=kind == Kind.UNREADABLE)


def known_sha256(shards: Sequence[tuple[Shard, Sequence[Attempt]]]) -> str:
    """Return the hash of all final lines if these are the piece of a single job; otherwise an empty text."""
    if len(shards) != 1:
        return ""
    first = next((attempt for attempt in shards[0][1] if attempt.rows), None)
    return first.piece_sha256 if first is not None and _all_succeeded(rules.outcomes_of(first)) else ""


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
        if tries and tries[0].has_succeeded:
            yield from ((block, b"") for block in tries[0].blocks())
            return
        if tries:
            first, *others = tries
            for outcome, line in islice(first.rows, shard.rows):
                for again in others:
                    if outcome in again.sent_again:
                        new, new_line = next(again.rows)
                        if rules.outweighs(new, outcome):
                            outcome, line = new, new_line
                yield line, b"" if outcome in rules.ANSWERED else line
        for each in tries:
            each.finish()


def _all_succeeded(outcomes: bytes) -> bool:
    return outcomes.count(rules.SUCCEEDED) == len(outcomes)


class _Try:
    """Outcomes of an attempt and lines of its piece, in order."""

    def __init__(self, attempt: Attempt, stack: ExitStack, piece: BinaryInput, directory: Path | None) -> None:
        self._outcomes = outcomes = rules.outcomes_of(attempt)
        self.has_succeeded = _all_succeeded(outcomes)
        self.sent_again = rules.sent_again(retry_invalid=attempt.retries_invalid)
        self.rows = self._read_rows()
        self._file = stack.enter_context(piece.lines("" if directory else attempt.piece_sha256))
        self._is_hashed = bool(attempt.piece_sha256)
        self._piece = piece
        self._directory = directory

    def blocks(self) -> Iterator[bytes]:
        """Yield all lines as blocks, which are not cut into lines: that would take longer than copying them.

        They are counted only in a piece without a hash, because that takes as long, too.
        """
        left, last = len(self._outcomes), b""
        while block := self._file.read(_BLOCK_BYTES):
            yield block
            last = block
            if not self._is_hashed:
                left -= block.count(b"\n")
        if not last.endswith(b"\n") or (left and not self._is_hashed):
            raise self._differs("has been cut short")

    def _read_rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the outcome and the line of each row. It is an error to ask for more of them than there are."""
        for outcome, line in zip(self._outcomes, self._file, strict=False):
            if not line.endswith(b"\n"):
                break
            yield outcome, line
        raise self._differs("has been cut short")

    def finish(self) -> None:
        """Check that all rows were taken."""
        if self._file.read(1):
            raise self._differs("has more lines than its attempt has rows")

    def _differs(self, how: str) -> RunError:
        if self._directory is None:
            return RunError(f"{self._piece} {how}: collect its attempt again", directory="")
        message = f"{self._piece} {how}: remove it and run again, and its results are downloaded again"
        return RunError(message, directory=str(self._directory))
