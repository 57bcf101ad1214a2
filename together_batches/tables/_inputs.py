"""The columns of the input beside those of the results: a merge of two tables that are in one order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from together_batches._fields import carried
from together_batches._protocol import json_codec
from together_batches._text import short
from together_batches._validation import path_of
from together_batches.errors import UsageError, ValidationError
from together_batches.jsonl import ArrowTable, LineSplitter, TableRequests, decode
from together_batches.jsonl._arrow import ROWS_TOGETHER, parts
from together_batches.jsonl._lines import cut_lines
from together_batches.jsonl._sources import blocks_of, is_arrow
from together_batches.jsonl._tables import rows_in
from together_batches.tables._columns import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from together_batches._protocol.result_rows import ResultRow
    from together_batches.rows import BatchRequest
    from together_batches.tables._arrow import Arrow


InputSource = str | os.PathLike[str] | ArrowTable | TableRequests
"""The input of results: the path of a file of requests, CSV or Parquet; a frame; or requests made of one of these."""

_TABLES = frozenset({".csv", ".parquet"})
_REQUEST_COLUMNS = (Column("custom_id", "text"), Column("prompt", "text"), Column("request", "text"))
"""The columns of a file of requests: the last message of the user if it is text, and the whole body."""


class Input:
    """The input of results, and the column with its ids."""

    def __init__(self, source: InputSource, id_column: str, arrow: Arrow) -> None:
        table: object = source
        if isinstance(table, TableRequests):
            id_column = table.id_column
            table = table.table
        if not (is_arrow(table) or isinstance(table, str | os.PathLike)):
            kind = type(table).__name__
            message = (
                "requests is the path of a file, a frame with __arrow_c_stream__, or what jsonl.requests made of one "
                f"of these, not {'requests made of ' if table is not source else ''}{kind}: the columns need types"
            )
            raise UsageError(message)
        self._table = table if is_arrow(table) else path_of("requests", cast("str | os.PathLike[str]", table))
        self._name = str(self._table) if isinstance(self._table, Path) else "the input"
        self._kind = self._table.suffix.lower() if isinstance(self._table, Path) else ""
        self._id_column = id_column if self._kind in _TABLES or is_arrow(table) else _REQUEST_COLUMNS[0].name
        self._arrow = arrow
        self._opened: tuple[Any, Iterator[Any]] | None = None
        self._opened = schema, _ = self._open()
        names: list[str] = list(schema.names)
        if names.count(self._id_column) != 1:
            listed = ", ".join(map(repr, names))
            message = (
                f"{self._name} has no column {self._id_column!r} with the ids; custom_id= names another of {listed}"
            )
            raise UsageError(message)
        self._places = [place for place, name in enumerate(names) if name != self._id_column]
        self.fields = [arrow.plain_field(schema.field(place)) for place in self._places]

    def _open(self) -> tuple[Any, Iterator[Any]]:
        """Return the schema and the batches; what was opened to read the schema is used first."""
        opened, self._opened = self._opened, None
        if opened is not None:
            return opened
        if not isinstance(self._table, Path):
            return self._arrow.read_table(self._table)
        if self._kind == ".parquet":
            return self._arrow.read_parquet(self._table)
        columns, rows = (_csv_rows if self._kind == ".csv" else _request_rows)(self._table)
        schema = self._arrow.schema(self._arrow.fields(columns))
        return schema, _batches(rows, schema, self._arrow)

    def merge(self) -> Merge:
        """Return a new pass over the input."""
        return Merge(self._name, self._open()[1], self._id_column, self._places, self._arrow)


_Row = Sequence[str | None]


def _batches(rows: Iterator[_Row], schema: Any, arrow: Arrow) -> Iterator[Any]:
    """Yield rows of texts as batches."""
    while some := list(islice(rows, ROWS_TOGETHER)):
        yield arrow.batch([arrow.array("text", values) for values in zip(*some, strict=True)], schema)


def _csv_rows(path: Path) -> tuple[Sequence[Column], Iterator[_Row]]:
    rows = rows_in(path, None)
    first = next(rows, None)
    if first is None:
        raise _empty(str(path))
    return [Column(name, "text") for name in first], (tuple(row.values()) for row in chain([first], rows))


def _request_rows(path: Path) -> tuple[Sequence[Column], Iterator[_Row]]:
    def rows() -> Iterator[_Row]:
        for lines in cut_lines(blocks_of(path), LineSplitter()):
            for line in lines:
                # A run sets bad lines aside, and no result is about them.
                with suppress(ValidationError):
                    request = decode(line.content)
                    body = carried(request) or json_codec.encode(request.body)
                    yield request.custom_id, _prompt_of(request), body.decode()

    return _REQUEST_COLUMNS, rows()


def _prompt_of(request: BatchRequest) -> str | None:
    """Return the last message of the user, if it is text."""
    messages: object = request.body.get("messages")
    for message in reversed(cast("list[object]", messages) if isinstance(messages, list) else []):
        if isinstance(message, dict) and (found := cast("dict[str, object]", message)).get("role") == "user":
            content = found.get("content")
            return content if isinstance(content, str) else None
    return None


class Merge:
    """One pass over an input, whose rows are found in the order of the results.

    Each result goes with the next row of the input that has its id; rows in between have no result, and are passed
    over. A stray result, which belongs to no row, goes with nulls.
    """

    def __init__(self, name: str, batches: Iterator[Any], id_column: str, others: list[int], arrow: Arrow) -> None:
        self._name = name
        self._parts = parts(name, batches)
        self._id_column = id_column
        self._others = others
        self._arrow = arrow
        self._part: Any = None
        self._places: dict[str, int] = {}
        self._next = 0
        self._before: str | None = None

    def beside(self, rows: list[ResultRow]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the columns of the input beside results, some rows at a time, each with the number of the rows."""
        places: list[int | None] = []
        for custom_id, result, *_ in rows:
            if custom_id is None or result == "stray":
                places.append(None)
                continue
            while (place := self._places.get(custom_id, -1)) < self._next:
                if places and self._part is not None:
                    yield self._taken(places)
                    places = []
                if not self._turn():
                    raise self._lost(custom_id)
            places.append(place)
            self._next = place + 1
            self._before = custom_id
        if self._part is None and not self._turn():
            raise _empty(self._name)
        if places:
            yield self._taken(places)

    def _turn(self) -> bool:
        """Go to the next part of the input; return False if there is none."""
        part = next(self._parts, None)
        if part is None:
            return False
        ids = [_id_of(self._name, value) for value in part.column(self._id_column).to_pylist()]
        self._part, self._next = part, 0
        self._places = {custom_id: place for place, custom_id in enumerate(ids)}
        return True

    def _taken(self, places: list[int | None]) -> tuple[int, list[Any]]:
        first, count = places[0], len(places)
        columns = [self._part.column(place) for place in self._others]
        if first is not None and places == list(range(first, first + count)):
            taken = [column.slice(first, count) for column in columns]
        else:
            taken = [self._arrow.take(column, places) for column in columns]
        return count, [self._arrow.plain(column) for column in taken]

    def _lost(self, custom_id: str) -> UsageError:
        where = "" if self._before is None else f" after {self._before!r}"
        return UsageError(
            f"{self._name} has no row {custom_id!r}{where}: results are joined with their own input in its order, as "
            "run writes them, and results with --order input"
        )


def _empty(name: str) -> UsageError:
    return UsageError(f"{name} has no rows, so it is not the input of these results")


def _id_of(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    message = f"{name} has {short(value)} in the column of its ids, which are text or integers"
    raise UsageError(message)
