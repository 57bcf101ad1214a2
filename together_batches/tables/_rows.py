"""Tables of a file of results, or of results as they come, and the rows of both, some at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from together_batches._local.os_errors import explained
from together_batches._protocol import result_rows
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.result_lines import LONGEST_LINE_BYTES
from together_batches._text import format_count
from together_batches._validation import path_of
from together_batches.errors import UsageError, ValidationError
from together_batches.jsonl import LineSplitter
from together_batches.jsonl._arrow import ROWS_TOGETHER
from together_batches.jsonl._lines import cut_lines
from together_batches.jsonl._sources import blocks_of
from together_batches.tables._table import AnswerTable

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from together_batches._protocol.result_rows import ResultRow
    from together_batches._schema.adapters import Schema
    from together_batches.jsonl._lines import Line
    from together_batches.rows import BatchResult
    from together_batches.tables._inputs import InputSource

_BLOCK_BYTES = 1 << 20


def read(
    path: str | os.PathLike[str],
    *,
    schema: Schema | None = None,
    requests: InputSource | None = None,
    custom_id: str = "id",
) -> AnswerTable:
    """Return the table of a file of results, as a run or the command ``results`` writes it.

    The file is read again each time that the table is used. The columns of the ``schema`` hold the answers that fit
    it; a row whose answer does not fit has ``"invalid"`` as its ``result``, and the reason in ``error``.

    Parameters:
        path: the file, JSON Lines.
        schema: a schema of the answers, such as a pydantic model, a dataclass or a JSON schema. It adds a column for
            each member, or the column ``parsed`` if the answers are not objects.
        requests: the input of the results, in the same order, whose columns are added. A file of requests adds
            ``prompt`` and ``request``.
        custom_id: the column of that table with the ids.

    Raises:
        UsageError: the file cannot be read, the schema or the input is invalid, or no Arrow library is installed.
            While the table is used: the input is in another order.
        ValidationError: while the table is used: a line is not a result.
    """
    place = path_of("path", path)
    with explained("read", place):
        place.stat()
    return AnswerTable(
        str(place), partial(_rows_of_file, place), schema=schema, requests=requests, custom_id=custom_id
    )


def from_results(results: Iterable[BatchResult[object]], *, schema: Schema | None = None) -> AnswerTable:
    """Return the table of results as they come, such as those of ``Batches.results()``. It can be used once.

    Async code passes its results to :func:`write_parquet` instead.

    Parameters:
        results: the results.
        schema: as in :func:`read`; the values of results that were read by a schema before are taken as they are.

    Raises:
        UsageError: the schema is invalid, or no Arrow library is installed.
    """
    given: object = results
    if isinstance(given, AsyncIterable):
        message = "results of async code cannot be read by a table: use await tables.write_parquet(results, path)"
        raise UsageError(message)
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        message = f"results are an iterable of them, as Batches.results() returns it, not {type(results).__name__}"
        raise UsageError(message)
    left = [results]

    def rows() -> Iterator[list[ResultRow]]:
        if not left:
            message = "this table was used before, and its results come once: write them to a file, and read that"
            raise UsageError(message)
        return rows_of_results(left.pop())

    return AnswerTable("results", rows, schema=schema)


def _rows_of_file(path: Path) -> Iterator[list[ResultRow]]:
    """Yield the rows of a file of results; skip blank lines.

    Raises :class:`UsageError` if the file cannot be read, and :class:`ValidationError` at a line without a result.
    """
    for lines in cut_lines(blocks_of(path, _BLOCK_BYTES), LineSplitter(LONGEST_LINE_BYTES)):
        rows = result_rows.rows_of_lines(lines.text, lines.texts) if lines.are_plain else None
        yield [row for line in lines for row in _row_of(path, line)] if rows is None else rows


def _row_of(path: Path, line: Line) -> Iterator[ResultRow]:
    if not line.content.strip():
        return
    try:
        if not line.whole:
            problem = f"more than {format_count(LONGEST_LINE_BYTES)} bytes"
            raise WireError(problem)
        yield result_rows.row_of_line(line.content)
    except WireError as error:
        problem = f"line {line.number} is {error.problem}"
        message = f"{path}: {problem}; a table is made of a file that run or results has written"
        raise ValidationError(message, problems=[problem]) from error


def rows_of_results(results: Iterable[BatchResult[object]]) -> Iterator[list[ResultRow]]:
    """Yield the rows of results."""
    rows: list[ResultRow] = []
    size = 0
    for result in results:
        row = result_rows.row_of_result(result)
        rows.append(row)
        size += len(row.text or "")
        if len(rows) >= ROWS_TOGETHER or size >= _BLOCK_BYTES:
            yield rows
            rows, size = [], 0
    yield rows
