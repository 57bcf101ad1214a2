"""Columns of a table, and the values in them: as text, as an id, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from numbers import Integral
from typing import Any

from together_batches._protocol import json_codec
from together_batches._text import short
from together_batches.errors import UsageError

Row = Mapping[str, Any]
"""A row of a table: the value of each column by its name."""

_LISTED_COLUMNS = 20


def chosen(name: str, columns: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the columns that are wanted, or all; raise :class:`UsageError` if one is absent, or is there twice."""
    there = Counter(columns)
    for column in columns if wanted is None else wanted:
        if there[column] != 1:
            listed = ", ".join(map(short, columns[:_LISTED_COLUMNS])) + (
                ", …" if len(columns) > _LISTED_COLUMNS else ""
            )
            what = "two columns" if there[column] else "no column"
            # A prompt that has JSON as an example is likely to be the reason.
            advice = "; write a brace of a prompt's own text twice" if '"' in column or "\n" in column else ""
            if column == "id" and columns and not there[column]:  # the usual one, which the user need not have named
                advice = "; custom_id names the column with the ids"
            if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
                advice = "; the values of a CSV file are separated by commas"
            message = f"{name} has {what} {short(column)}; its columns are {listed or 'none'}{advice}"
            raise UsageError(message)
    return list(columns if wanted is None else wanted)


class BadCellError(Exception):
    """A value of a row that cannot be used, and its column, if it has one; it never leaves the package."""

    def __init__(self, column: str | None, problem: str) -> None:
        super().__init__(column, problem)
        self.column = column
        self.problem = problem


def value_in(row: Row, column: str) -> object:
    """Return the value of a column in a row; raise :class:`BadCellError` if it is absent, null or broken text."""
    value: object = row.get(column)
    if isinstance(value, str):
        try:
            if not value.isascii():
                value.encode()
        except UnicodeEncodeError:  # as bytes of another encoding are read
            problem = "the text is not UTF-8: save the table as UTF-8, for example with iconv"
            raise BadCellError(column, problem) from None
    elif _is_null(value):
        raise BadCellError(column, "the value is null" if column in row else "the value is missing")
    return value


def text_in(row: Row, column: str) -> str:
    """Return the value of a column as text: as it is, as Python writes numbers and times, otherwise as JSON."""
    value = value_in(row, column)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float):
        return float.__repr__(value)  # repr of a number of numpy has the name of its type
    if isinstance(value, Decimal) or _is_integer(value):
        return str(value)
    try:
        return json_codec.encode(value).decode()
    except json_codec.WireError as error:
        raise BadCellError(column, f"the value cannot be written as text: {error.problem}") from None


def id_in(row: Row, column: str) -> str:
    """Return the id in a column: text, or an integer as text.

    Floats are refused, because integers that a null has made floats would give ids that match nothing.
    """
    value = value_in(row, column)
    if isinstance(value, str):
        if not value:
            raise BadCellError(column, "the id is empty")
        return str.__str__(value)
    if _is_integer(value):
        return str(value)
    problem = f"the id {short(value)} is of type {type(value).__name__}: an id is text or an integer"
    raise BadCellError(column, problem)


def _is_null(value: object) -> bool:
    if isinstance(value, float | datetime):
        return value != value  # NaN, or NaT of pandas
    return value is None or type(value).__name__ == "NAType"  # of pandas, which neither is nor compares as anything


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
