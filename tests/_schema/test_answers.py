"""Answers read by a schema: a value if they fit, an invalid row if they do not, never an error."""

from __future__ import annotations

from typing import Any

import pytest

from tests._schema.answers import FITTING, City, answer
from together_batches import BatchInvalid, BatchSuccess
from together_batches._schema.adapters import adapter_of
from together_batches._schema.answers import parser

PRAGUE = City("Prague", 1357326)


@pytest.mark.parametrize(
    "text",
    [
        FITTING,
        f"\n{FITTING} ",
        f"```json\n{FITTING}\n```",
        f"```\n{FITTING}```\n",
        f"~~~JSON\n\n{FITTING}\n\n~~~",
        '```json\n{"name": "Prague", "population": 1357326, "note": "```"}\n```',
    ],
)
def test_an_answer_that_fits(text: str) -> None:
    """JSON that fits is the value of the row, also within one Markdown fence; the text stays as it came."""
    row = answer(text)
    parsed = parser(adapter_of(City))(row)
    assert isinstance(parsed, BatchSuccess)
    assert (parsed.parsed, parsed.text, parsed.custom_id, parsed.status_code) == (PRAGUE, text, "row-1", 200)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Prague is a city.", "the answer is not JSON"),
        ("", "the answer is not JSON"),
        (FITTING[:20], "the answer is not JSON"),
        ("```", "the answer is not JSON"),
        (f"```json\n{FITTING}\n```\n```json\n{FITTING}\n```", "the answer is not JSON"),
        ("\ud83d", "the answer is not JSON"),
        ("[]", "the answer does not fit the schema: Expected `object`, got `array`"),
        (
            '```json\n{"name": "Prague"}\n```',
            "the answer does not fit the schema: Object missing required field `population`",
        ),
        (None, "the answer has no text"),
    ],
)
def test_an_answer_that_does_not_fit(text: str | None, reason: str) -> None:
    """An answer that does not fit is an invalid row, with its text and the reason."""
    row = answer(text)
    assert parser(adapter_of(City))(row) == BatchInvalid("row-1", text, reason, row)


def test_an_answer_that_was_cut_off() -> None:
    """An answer that was cut off is invalid whatever it says: a number may have lost digits."""
    invalid = parser(adapter_of(City))(answer(FITTING, finish_reason="length"))
    assert isinstance(invalid, BatchInvalid)
    assert invalid.error == "the answer was cut off (finish_reason is length): allow more max_tokens"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"text": FITTING}, FITTING),
        ({"choices": []}, None),
        ({"choices": [{"message": {"content": [FITTING]}, "finish_reason": "stop"}]}, None),
        ({"choices": [{"message": {"content": FITTING}, "finish_reason": 7}]}, FITTING),
    ],
)
def test_an_unusual_answer(body: dict[str, Any], text: str | None) -> None:
    """Answers of other forms are read as ``text`` reads them."""
    row = BatchSuccess("row-1", body)
    parsed = parser(adapter_of(City))(row)
    assert (parsed.text, isinstance(parsed, BatchSuccess)) == (text, text is not None)


class _Broken:
    def validate_json(self, data: str | bytes, /) -> object:
        raise ZeroDivisionError("x" * 1000 + "\n")

    def json_schema(self) -> dict[str, Any]:
        return {}


def test_an_error_of_another_kind() -> None:
    """Whatever a validator raises belongs to its row; the reason is one line of bounded length."""
    invalid = parser(_Broken())(answer(FITTING))
    assert isinstance(invalid, BatchInvalid)
    assert invalid.error == f"the answer does not fit the schema: {'x' * 300}…"
