"""JSON schemas as data: references, and schemas that say the same in other words."""

from __future__ import annotations

from typing import Any

import pytest

from together_batches._schema.json_schemas import endless_reference, inlined, is_same, lost_reference

TEXT = {"type": "string"}
NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"$ref": "#/$defs/A", "$defs": {"A": TEXT, "B": TEXT}}, TEXT),
        ({"$ref": "#/definitions/A", "definitions": {"A": TEXT}, "title": "T"}, {**TEXT, "title": "T"}),
        ({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, {**NODE, "$defs": {"Node": NODE}}),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"$ref": "#x"}, "d": {"$anchor": "x"}}}, {"$anchor": "x"}),
        ({"$ref": "#/$defs/A", "$defs": {"A": True}}, {}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"items": {"$dynamicRef": "#/$defs/B"}}, "B": TEXT}},
            {"items": {"$dynamicRef": "#/$defs/B"}, "$defs": {"B": TEXT}},
        ),
        ({"$ref": "#/$defs/A", "minLength": 2, "$defs": {"A": TEXT}}, {"minLength": 2, "allOf": [TEXT]}),
        ({"type": "object", "$defs": {"A": TEXT}}, {"type": "object", "$defs": {"A": TEXT}}),
    ],
)
def test_a_reference_at_the_root(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    """A reference at the root is replaced by its target; definitions that nothing uses go with it."""
    assert inlined(schema) == expected


@pytest.mark.parametrize(
    ("schema", "lost"),
    [
        ({"$ref": "#"}, None),
        ({"properties": {"$ref": TEXT}}, None),
        ({"enum": [{"$ref": "#/no"}], "default": {"$ref": "#/no"}}, None),
        ({"items": [{"$ref": "#/items/1"}, TEXT]}, None),
        ({"items": {"$ref": "a.json#/x"}, "$defs": {"a": {"$id": "a.json", "x": TEXT}}}, None),
        ({"items": [{"$ref": "#/items/7"}]}, "#/items/7"),
        ({"anyOf": [{"not": {"$ref": "#/$defs/A"}}]}, "#/$defs/A"),
        ({"additionalProperties": {"$dynamicRef": "#no"}}, "#no"),
        ({"patternProperties": {"x": {"$ref": "file:///etc/passwd"}}}, "file:///etc/passwd"),
    ],
)
def test_a_reference_that_leads_nowhere(schema: dict[str, Any], lost: str | None) -> None:
    """A reference leads to a part of the schema; texts in values and names of properties are not references."""
    assert lost_reference(schema) == lost


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"title": "A", "description": "B", "default": 1, **TEXT}, TEXT),
        ({"type": "object", "required": ["a", "b"]}, {"required": ["b", "a"], "type": "object"}),
        ({"properties": {"title": TEXT}}, {"properties": {"title": {**TEXT, "title": "Title"}}}),
        ({"items": {"$ref": "#/$defs/A"}, "$defs": {"A": TEXT}}, {"items": TEXT}),
        ({"items": {"allOf": [{"$ref": "#/$defs/A"}], "default": 3}, "$defs": {"A": TEXT}}, {"items": TEXT}),
        (
            {"$ref": "#/$defs/A", "minLength": 2, "$defs": {"A": TEXT}},
            {"$ref": "#/$defs/B", "minLength": 2, "$defs": {"B": TEXT}},
        ),
        ({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, {**NODE, "$defs": {"Node": {**NODE, "title": "N"}}}),
        ({"const": "a"}, {"enum": ["a"], "type": "string"}),
        ({"const": "a", "enum": ["a"], "type": "string"}, {"const": "a", "type": "string"}),
        ({"type": "object", "additionalProperties": True}, {"type": "object"}),
        ({"type": "array", "items": {}}, {"type": "array"}),
        ({"anyOf": [TEXT, {}]}, {"anyOf": [TEXT, True]}),
        ({"not": {"title": "x"}}, {"not": True}),
    ],
)
def test_the_same_in_other_words(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Titles, descriptions, defaults, order and the place of definitions do not count, nor what says nothing."""
    assert is_same(one, other)
    assert is_same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, {"type": "integer"}),
        (TEXT, {**TEXT, "minLength": 1}),
        ({"properties": {"title": TEXT}}, {"properties": {}}),
        ({"properties": {"default": TEXT}}, {"properties": {"title": TEXT}}),
        ({"required": ["a"]}, {"required": ["a", "b"]}),
        ({"enum": [1]}, {"enum": [True]}),
        ({"enum": ["a"], "type": "integer"}, {"enum": ["a"]}),
        ({"anyOf": [TEXT]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"items": True}, {"items": False}),
        (
            {"items": {"$ref": "#/$defs/A"}, "$defs": {"A": TEXT}},
            {"items": {"$ref": "#/$defs/A"}, "$defs": {"A": NODE}},
        ),
        ({"format": "date"}, {"format": "time"}),
        ({"items": {"$ref": "#/items"}}, {"items": TEXT}),
        ({"additionalProperties": False}, {}),
    ],
)
def test_another_schema(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Any other difference counts."""
    assert not is_same(one, other)
    assert not is_same(other, one)


@pytest.mark.parametrize(
    ("a", "b", "endless"),
    [
        ({"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}, True),
        ({"allOf": [{"$ref": "#/$defs/a"}]}, {}, True),
        ({"if": {"$ref": "#/$defs/b"}}, {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}, True),
        ({"properties": {"next": {"$ref": "#/$defs/a"}}}, {}, False),
        ({"anyOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, {"items": {"$ref": "#/$defs/a"}}, False),
    ],
)
def test_a_reference_that_leads_to_itself(a: dict[str, object], b: dict[str, object], endless: bool) -> None:
    """A schema may contain itself for a part of a value, and not for the whole value: no answer could be read."""
    schema: dict[str, object] = {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": a, "b": b}}
    assert (endless_reference(schema) is not None) is endless


@pytest.mark.parametrize("keyword", ["dependencies", "dependentSchemas"])
def test_a_reference_of_a_dependency(keyword: str) -> None:
    """References in schemas that apply if a member is present are found, too."""
    assert lost_reference({keyword: {"a": {"$ref": "http://a/b"}, "c": ["d"]}}) == "http://a/b"
