"""Types of columns, and those of a JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from together_batches.tables._columns import Column, Kind, ListOf, Record, kind_of, unique

POINT = Record((Column("x", "number"),))
POINTS = {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "format": "date"}, "text"),
        ({"type": "integer", "minimum": 1}, "integer"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"enum": ["red", "green", None]}, "text"),
        ({"const": 3}, "integer"),
        ({"enum": [1, 2.5]}, "number"),
        ({"enum": [True, "yes"]}, "json"),
        ({"type": ["string", "null"]}, "text"),
        ({"type": ["integer", "number"]}, "number"),
        ({"type": ["integer", "string"]}, "json"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "json"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "text"),
        ({"allOf": [{"type": "boolean"}]}, "boolean"),
        ({"type": "array", "items": {"type": "string"}}, ListOf("text")),
        ({"type": "array"}, "json"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "json"),
        ({"type": "object", "properties": {"x": {"type": "number"}}}, POINT),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "json"),
        ({"type": "object", "properties": {}}, "json"),
        ({}, "json"),
        ({"type": "array", "items": {"$ref": "#/$defs/Point"}, "$defs": POINTS}, ListOf(POINT)),
        ({"$ref": "#/$defs/None", "$defs": {}}, "json"),
    ],
)
def test_the_type_for_a_schema(schema: dict[str, Any], kind: Kind) -> None:
    """A schema of one type has that type, nulls aside; whatever may be of several types is JSON as text."""
    assert kind_of(schema) == kind


def test_a_type_that_contains_itself() -> None:
    """Where a type contains itself, the inner one is JSON as text."""
    node = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}}}
    inner = Record((Column("name", "text"), Column("next", "json")))
    assert kind_of({**node, "$defs": {"Node": node}}) == Record((Column("name", "text"), Column("next", inner)))


def test_a_name_that_is_taken() -> None:
    """A name that another column has gets a prefix."""
    assert unique("label", "answer_", ["text"]) == "label"
    assert unique("text", "answer_", ["text"]) == "answer_text"
    assert unique("text", "answer_", ["text", "answer_text"]) == "answer_answer_text"
