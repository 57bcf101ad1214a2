"""Rows of results, some at a time: from a file of lines, or from a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._protocol import result_rows
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.result_lines import LONGEST_LINE_BYTES
from together_batches._text import format_count
from together_batches.errors import ValidationError
from together_batches.jsonl import LineSplitter
from together_batches.jsonl._arrow import ROWS_TOGETHER
from together_batches.jsonl._lines import cut_lines
from together_batches.jsonl._sources import blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from together_batches._protocol.result_rows import ResultRow
    from together_batches.jsonl._lines import Line
    from together_batches.rows import BatchResult

BLOCK_BYTES = 1 << 20


def rows_of_file(path: Path) -> Iterator[list[ResultRow]]:
    """Yield the rows of a file of results; skip blank lines.

    Raises :class:`UsageError` if the file cannot be read, and :class:`ValidationError` at a line without a result.
    """
    for lines in cut_lines(blocks_of(path, BLOCK_BYTES), LineSplitter(LONGEST_LINE_BYTES)):
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
        if len(rows) >= ROWS_TOGETHER or size >= BLOCK_BYTES:
            yield rows
            rows, size = [], 0
    yield rows
