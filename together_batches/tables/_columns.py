"""Columns of a table: their names and types, as plain values that know no library; those of a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs

from together_batches._schema.json_schemas import target_of

if TYPE_CHECKING:
    from collections.abc import Collection

Scalar = Literal["text", "integer", "number", "boolean", "json"]
"""The type of single values; ``json`` is JSON as text, for values of which a schema leaves the type open."""


@attrs.frozen
class ListOf:
    """The type of lists whose items are of one type."""

    item: Kind


@attrs.frozen
class Record:
    """The type of objects with known members."""

    members: tuple[Column, ...]


Kind = Scalar | ListOf | Record


@attrs.frozen
class Column:
    """A column, or a member of an object."""

    name: str
    kind: Kind


RESULT_COLUMNS = (
    Column("custom_id", "text"),
    Column("result", "text"),
    Column("text", "text"),
    Column("finish_reason", "text"),
    Column("prompt_tokens", "integer"),
    Column("completion_tokens", "integer"),
    Column("error_code", "text"),
    Column("error", "text"),
)
"""The columns that every table of results begins with."""
_TYPES: dict[object, Scalar] = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_TYPES_OF_VALUES: dict[type, Scalar] = {str: "text", int: "integer", float: "number", bool: "boolean"}
_NULLS: tuple[object, ...] = ({"type": "null"}, {"const": None}, {"enum": [None]})


def unique(name: str, prefix: str, taken: Collection[str]) -> str:
    """Return a name, with a prefix if another column has it."""
    while name in taken:
        name = prefix + name
    return name


def kind_of(schema: Mapping[str, Any]) -> Kind:
    """Return the type for the values of a JSON schema.

    Objects with properties are records, arrays of one type of item are lists, and a value that may be null is of the
    other type. What may be of several types, an object with any members, and a type that contains itself are JSON.
    """
    return _Reading(schema).kind(schema, ())


class _Reading:
    """The reading of one document, to whose parts references lead."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def kind(self, schema: object, within: tuple[str, ...]) -> Kind:
        """Return the type for a part of the document; ``within`` are the references that led to it."""
        if not isinstance(schema, Mapping):
            return "json"
        rules = cast("Mapping[str, Any]", schema)
        reference = rules.get("$ref")
        if isinstance(reference, str):
            return (
                "json" if reference in within else self.kind(target_of(self._root, reference), (*within, reference))
            )
        for keyword in ("anyOf", "oneOf", "allOf"):
            if isinstance(rules.get(keyword), list):
                options = [option for option in rules[keyword] if option not in _NULLS]
                return _one([self.kind(option, within) for option in options])
        if "const" in rules or isinstance(rules.get("enum"), list):
            values: list[object] = rules["enum"] if "const" not in rules else [rules["const"]]
            return _one([_TYPES_OF_VALUES.get(type(value), "json") for value in values if value is not None])
        types: object = rules.get("type")
        listed = cast("list[object]", types) if isinstance(types, list) else [types]
        return _one([self._of_type(kind, rules, within) for kind in listed if kind != "null"])

    def _of_type(self, name: object, rules: Mapping[str, Any], within: tuple[str, ...]) -> Kind:
        if name == "array" and "prefixItems" not in rules and isinstance(rules.get("items"), Mapping):
            return ListOf(self.kind(rules["items"], within))
        properties: object = rules.get("properties")
        if name == "object" and isinstance(properties, Mapping) and properties:
            named = cast("Mapping[str, object]", properties)
            return Record(tuple(Column(member, self.kind(value, within)) for member, value in named.items()))
        return _TYPES.get(name, "json")


def _one(kinds: list[Kind]) -> Kind:
    """Return the type that values of all these types have in common."""
    distinct = list(dict.fromkeys(kinds))
    if distinct == ["integer", "number"] or distinct == ["number", "integer"]:
        return "number"
    return distinct[0] if len(distinct) == 1 else "json"
