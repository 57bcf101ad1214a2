"""A schema as it is sent."""

from __future__ import annotations

import pytest

from tests._schema.answers import City
from together_batches._schema.adapters import adapter_of
from together_batches._schema.response_format import instruction, response_format, with_instruction

SCHEMA = {
    "title": "City",
    "description": "What most answers are about.",
    "type": "object",
    "properties": {"name": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["name", "population"],
}


def test_the_parameter() -> None:
    """A schema is the parameter ``response_format``, in the form that the service documents."""
    expected = {"type": "json_schema", "json_schema": {"name": "City", "schema": SCHEMA}}
    assert response_format(adapter_of(City)) == expected


USER = {"role": "user", "content": "Name a city."}


WORDS = {"role": "system", "content": "WORDS"}
BRIEF, PART = {"type": "text", "text": "Be brief."}, {"type": "text", "text": "WORDS"}
UNUSUAL: dict[str, object] = {"role": "system", "content": None}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [WORDS, USER]),
        ([], [WORDS]),
        ([{"role": "system", "content": "Be brief."}], [{"role": "system", "content": "Be brief.\n\nWORDS"}]),
        ([{"role": "system", "content": [BRIEF]}, USER], [{"role": "system", "content": [BRIEF, PART]}, USER]),
        ([UNUSUAL], [WORDS, UNUSUAL]),
    ],
)
def test_the_words_of_the_system_message(
    messages: list[dict[str, object]], expected: list[dict[str, object]]
) -> None:
    """The model is prompted for JSON in the system message, which is added if there is none."""
    before = [dict(message) for message in messages]
    assert with_instruction(messages, "WORDS") == expected
    assert messages == before


def test_the_words() -> None:
    """The words have the schema."""
    assert adapter_of(City).text.decode() in instruction(adapter_of(City))
