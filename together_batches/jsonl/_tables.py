"""Tables as rows: frames, iterables of mappings, CSV and Parquet files, read in parts of bounded size."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from together_batches._local.os_errors import explained
from together_batches._text import count_of, short
from together_batches._validation import path_of
from together_batches.errors import UsageError
from together_batches.jsonl._columns import chosen
from together_batches.jsonl._shapes import binary_format
from together_batches.jsonl._sources import is_arrow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from together_batches.jsonl._columns import Row

_BEGINNING_BYTES = 1 << 12


class ArrowTable(Protocol):
    """A table with Arrow's C stream interface, such as a frame of polars or pandas, or a relation of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        """Return the table as a capsule."""
        ...


Table = str | os.PathLike[str] | ArrowTable | Iterable[Mapping[str, Any]]
"""A table: the path of a CSV or Parquet file, an object with ``__arrow_c_stream__``, or rows as mappings."""


def check_table(table: object) -> None:
    """Raise :class:`UsageError` for a value that is not a table."""
    kind = type(table).__name__
    if isinstance(table, str | os.PathLike):
        path = path_of("the table", cast("str | os.PathLike[str]", table))
        if path.suffix.lower() not in {".csv", ".parquet"}:
            message = f"the table {path} is neither a .csv nor a .parquet file"
            raise UsageError(message)
    elif isinstance(table, bytes | bytearray | Mapping) or not (is_arrow(table) or isinstance(table, Iterable)):
        message = (
            "a table is the path of a CSV or Parquet file, a frame with __arrow_c_stream__, or an iterable of "
            f"mappings, not {kind}"
        )
        raise UsageError(message)


def table_name(table: object) -> str:
    """Return the name of a table in messages."""
    return str(Path(cast("str | os.PathLike[str]", table))) if isinstance(table, str | os.PathLike) else "the table"


def is_read_once(table: object) -> bool:
    """Return whether a table is an iterator, such as a generator or a reader of batches."""
    return isinstance(table, Iterator)


def rows_in(table: Table, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a table, with at least the columns that are wanted, or all.

    Raises :class:`UsageError` if a wanted column is absent, or the table cannot be read.
    """
    if isinstance(table, str | os.PathLike):
        path = Path(table)
        with explained("read", path):
            if path.suffix.lower() == ".csv":
                yield from _csv_rows(path, wanted)
                return
            from together_batches.jsonl._arrow import parquet_rows

            yield from parquet_rows(path, wanted)
    elif is_arrow(table):
        from together_batches.jsonl._arrow import stream_rows

        yield from stream_rows(table, wanted)
    else:
        yield from _mappings(cast("Iterable[Row]", table), wanted)


def _mappings(rows: Iterable[Row], wanted: Sequence[str] | None) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        given: object = row
        if not isinstance(given, Mapping):
            message = f"row {number} of the table is {short(given)}; it must be a mapping from columns to values"
            raise UsageError(message)
        if number == 1:
            chosen("the table", [*map(str, row)], wanted)
        yield row


def _csv_rows(path: Path, wanted: Sequence[str] | None) -> Iterator[Row]:
    with path.open("rb") as file:
        problem = binary_format(file.read(_BEGINNING_BYTES))
    if problem is not None:
        message = f"{path}: {problem}"
        raise UsageError(message)
    # Bytes that are not UTF-8 are refused in the columns that are used, with their row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        lines = _records(path, csv.reader(text, strict=True))
        header = next(lines, list[str]())
        chosen(str(path), header, wanted)
        for number, values in enumerate(lines, start=1):
            if len(values) != len(header):
                message = (
                    f"{path}: row {number} has {count_of(len(values), 'value')}, and the header has {len(header)}: "
                    "put a value with a comma or a line end in quotes"
                )
                raise UsageError(message)
            yield dict(zip(header, values, strict=True))


def _records(path: Path, lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield the records of a CSV file, without blank lines; the first is its header."""
    number = 0
    while True:
        try:
            values = next(lines, None)
        except csv.Error as error:
            place = f"row {number}" if number else "the header"
            advice = "; csv.field_size_limit(10_000_000) allows longer ones" if "field limit" in str(error) else ""
            message = f"{path}: {place} is not valid CSV: {error}{advice}"
            raise UsageError(message) from error
        if values is None:
            return
        if values:
            number += 1
            yield values
