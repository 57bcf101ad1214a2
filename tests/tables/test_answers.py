"""Answers read by a schema, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date  # noqa: TC003  # read by the schema

import pytest

from together_batches._protocol.result_rows import ResultRow
from together_batches.errors import UsageError
from together_batches.tables._answers import Answers
from together_batches.tables._columns import Column, ListOf


@dataclass
class Verdict:
    """What a model says about a text; one of its members has the name of a column."""

    label: str
    error: str | None = None
    tags: list[str] = field(default_factory=list)
    day: date | None = None
    level: int = 3


def test_members_are_columns() -> None:
    """Each member of the answers is a column, and is renamed if there is such a column already."""
    assert Answers(Verdict).columns == [
        Column("label", "text"),
        Column("answer_error", "text"),
        Column("tags", ListOf("text")),
        Column("day", "text"),
        Column("level", "integer"),
    ]


def test_answers_are_values_of_the_columns() -> None:
    """An answer is read by the schema, which sets defaults; what JSON has no type for is text."""
    rows = [
        ResultRow("a", "success", '{"label": "good", "tags": ["x"], "day": "2026-11-28"}'),
        ResultRow("b", "missing"),
        ResultRow("c", "success", '```json\n{"label": "bad", "error": "rude"}\n```'),
    ]
    read, values = Answers(Verdict).read(rows)
    assert read == rows
    assert values == [
        ["good", None, "bad"],
        [None, None, "rude"],
        [["x"], None, []],
        ["2026-11-28", None, None],
        [3, None, 3],
    ]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (ResultRow("a", "success", "no"), "the answer is not JSON"),
        (ResultRow("a", "success", '{"label": 3}'), "the answer does not fit the schema: "),
        (ResultRow("a", "success", '{"label": "g', "length"), "the answer was cut off"),
        (ResultRow("a", "success"), "the answer has no text"),
    ],
)
def test_an_answer_that_does_not_fit_is_invalid(row: ResultRow, error: str) -> None:
    """A row whose answer does not fit is invalid, with the reason, and keeps its text."""
    (read,), values = Answers(Verdict).read([row])
    assert read.result == "invalid"
    assert read.error is not None
    assert read.error.startswith(error)
    assert read.text == row.text
    assert values == [[None]] * 5


def test_a_value_that_was_read_before() -> None:
    """The value of a row that was read by a schema before is taken as it is."""
    row = ResultRow("a", "success", "another text", parsed=Verdict("good"))
    assert Answers(Verdict).read([row]) == ([row], [["good"], [None], [[]], [None], [3]])


def test_a_row_that_is_invalid_already() -> None:
    """A row that a run or ``results`` found invalid stays so, with its reason."""
    row = ResultRow("a", "invalid", '{"label": "good"}', error="of another schema")
    assert Answers(Verdict).read([row]) == ([row], [[None]] * 5)


class Odd:
    """A schema of its own, whose values cannot be written."""

    def validate_json(self, data: str | bytes, /) -> object:
        """Return a list that contains itself."""
        value: list[object] = []
        value.append(value)
        return value

    def json_schema(self) -> dict[str, object]:
        """Return the schema of anything."""
        return {}


def test_a_value_that_cannot_be_written() -> None:
    """Its row has the reason, and remains a success; other rows have their values."""
    (row,), values = Answers(Odd()).read([ResultRow("a", "success", "[]")])
    assert row.result == "success"
    assert row.error is not None
    assert row.error.startswith("the value cannot be written: ")
    assert values == [[None]]


def test_what_is_no_schema() -> None:
    """What cannot be a schema is an error."""
    with pytest.raises(UsageError, match="a schema is"):
        Answers(3)  # type: ignore[arg-type]
