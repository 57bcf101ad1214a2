"""Answers read by a schema, as columns beside those of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from together_batches._protocol.json_codec import plain_of
from together_batches._schema.adapters import adapter_of, reason_of
from together_batches._schema.answers import UnfitError, parse_text
from together_batches.tables._columns import RESULT_COLUMNS, Column, Record, kind_of, unique

if TYPE_CHECKING:
    from collections.abc import Sequence

    from together_batches._protocol.result_rows import ResultRow
    from together_batches._schema.adapters import Schema

_WHOLE = "parsed"
"""The column of answers that are not objects with known members."""


class Answers:
    """A schema, and its ``columns``: one for each member of its answers, or one for the whole answers."""

    def __init__(self, schema: Schema) -> None:
        self._adapter = adapter_of(cast("type[Any]", schema))
        kind = kind_of(self._adapter.plain_schema())
        members = kind.members if isinstance(kind, Record) else ()
        self._names = [member.name for member in members]
        taken = [column.name for column in RESULT_COLUMNS]
        self.columns: list[Column] = []
        for column in members or (Column(_WHOLE, kind),):
            self.columns.append(Column(unique(column.name, "answer_", taken), column.kind))
            taken.append(self.columns[-1].name)

    def read(self, rows: list[ResultRow]) -> tuple[list[ResultRow], list[Sequence[Any]]]:
        """Return rows, of which those whose answers do not fit are invalid, and the values of the columns."""
        read: list[ResultRow] = []
        values: list[object] = []
        for row in rows:
            value = None
            if row.result == "success":
                try:
                    value = row.parsed
                    if value is None:
                        value = parse_text(row.text, row.finish_reason, self._adapter)
                except UnfitError as error:
                    row = row._replace(result="invalid", error=str(error))
                try:
                    value = plain_of(value)
                except Exception as error:  # noqa: BLE001  # code of a class may run here, and other rows have values
                    value, row = None, row._replace(error=f"the value cannot be written: {reason_of(error)}")
            read.append(row)
            values.append(value)
        if not self._names:
            return read, [values]
        objects = [cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None for value in values]
        return read, [[None if each is None else each.get(name) for each in objects] for name in self._names]
