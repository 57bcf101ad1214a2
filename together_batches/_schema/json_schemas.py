"""JSON schemas as plain data: their references, and whether two of them say the same in other words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

_Object = dict[str, object]

_NAMED = frozenset({"$defs", "definitions", "properties", "patternProperties", "dependentSchemas"})
"""Keywords whose values are schemas by name; a name may be that of a keyword."""
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_SAME_VALUE = frozenset({"allOf", "anyOf", "else", "if", "not", "oneOf", "then"})
"""Keywords whose schemas are about the same value, and not about a part of it."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_UNORDERED = frozenset({"enum", "required", "type"})
_DEFINITIONS = ("$defs", "definitions")
_WORDING = frozenset({"$comment", "$schema", "default", "description", "examples", "title", *_DEFINITIONS})
"""Keywords that decide about no value: a program may word them differently. Definitions count where they are used."""
_FREE = ("additionalProperties", "items")
"""Keywords that say nothing if they accept anything."""
_TYPES: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    type(None): ("null",),
}
_MOST_STEPS = 100
"""Maximum references that are followed one after another: one may lead to itself."""


# --- references ---------------------------------------------------------------------------------------------------


def _object(value: object) -> _Object | None:
    return cast("_Object", value) if isinstance(value, dict) else None


def _list(value: object) -> list[object] | None:
    return cast("list[object]", value) if isinstance(value, list) else None


def _within(schema: object) -> Iterator[_Object]:
    """Yield a schema and all schemas within it, as far as they are objects."""
    left = [schema]
    while left:
        found = _object(left.pop())
        if found is None:
            continue
        yield found
        for keyword, value in found.items():
            if keyword in _NAMED or keyword == "dependencies":
                left += (_object(value) or {}).values()
            elif keyword in _LISTED or keyword in _SINGLE:
                left += [value] if (items := _list(value)) is None else items


def target_of(root: object, reference: object) -> object:
    """Return what a reference within the document ``root`` leads to; None if that is not in it."""
    if not isinstance(reference, str):
        return None
    address, _, fragment = reference.partition("#")
    target = root
    if address:
        target = next((found for found in _within(root) if found.get("$id") == address), None)
    if not fragment.startswith("/"):
        named = (found for found in _within(target) if found.get("$anchor") == fragment)
        return next(named, None) if fragment else target
    for step in fragment[1:].split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        items = _list(target)
        if items is None:
            target = (_object(target) or {}).get(name)
        else:
            target = items[int(name)] if name.isdecimal() and int(name) < len(items) else None
    return target


def lost_reference(schema: _Object) -> str | None:
    """Return a reference to what is not in the schema, or None. Nothing is fetched, here and at the service."""
    for found in _within(schema):
        for keyword in _REFERENCES:
            reference = found.get(keyword)
            if isinstance(reference, str) and target_of(schema, reference) is None:
                return reference
    return None


def endless_reference(schema: _Object) -> str | None:
    """Return a reference that leads back to itself for the same value, or None. No answer could be read by it."""
    passed = set[int]()
    for start in _within(schema):
        # Depth first; a schema is left when all that it applies to the same value are done.
        within, left = dict[int, str](), [(start, "", False)]
        while left:
            found, reference, is_done = left.pop()
            if is_done:
                within.pop(id(found))
                passed.add(id(found))
            elif id(found) in within:
                return reference or within[id(found)]
            elif id(found) not in passed:
                within[id(found)] = reference
                left.append((found, reference, True))
                left += [(each, name, False) for each, name in _for_same_value(schema, found)]
    return None


def _for_same_value(root: _Object, schema: _Object) -> Iterator[tuple[_Object, str]]:
    """Yield the schemas that a schema applies to the same value, each with the reference that leads to it, if any."""
    for keyword, value in schema.items():
        reference = value if keyword in _REFERENCES and isinstance(value, str) else ""
        given = [target_of(root, reference)] if reference else []
        if keyword in _SAME_VALUE:
            given = [value] if (items := _list(value)) is None else items
        elif keyword == "dependentSchemas":
            given = [*(_object(value) or {}).values()]
        for each in given:
            found = _object(each)
            if found is not None:
                yield found, reference


def inlined(schema: _Object) -> _Object:
    """Return a schema whose root is the target of its reference, if it is one, and without unused definitions.

    Its references are within it. Raises ValueError if the reference leads to itself.
    """
    found = schema
    passed: list[object] = []
    while isinstance(reference := found.get("$ref"), str):
        if reference in passed:
            message = f"$ref {reference} leads to itself"
            raise ValueError(message)
        passed.append(reference)
        target = _object(target_of(schema, reference))
        rest = {keyword: value for keyword, value in found.items() if keyword != "$ref"}
        if target is None:
            found = rest  # true, the schema of anything
        elif rest.keys() <= _WORDING:
            found = {**target, **rest}
        else:
            found = {**rest, "allOf": [target, *(_list(rest.get("allOf")) or [])]}
    return _pruned(found) if passed else found


def _pruned(schema: _Object) -> _Object:
    """Return a schema without the definitions to which nothing refers."""
    used = {id(target_of(schema, found.get(keyword))) for found in _within(schema) for keyword in _REFERENCES}
    kept = dict(schema)
    for keyword in _DEFINITIONS:
        named = _object(kept.pop(keyword, None)) or {}
        some = {name: value for name, value in named.items() if any(id(each) in used for each in _within(value))}
        if some:
            kept[keyword] = some
    return kept


# --- comparison ---------------------------------------------------------------------------------------------------


def is_same(one: _Object, other: _Object) -> bool:
    """Return whether two schemas accept the same values by the same rules, in whatever words.

    Titles, descriptions, defaults, the order of keys and the place of definitions do not count: a new version of a
    library may word the schema of a class differently.
    """
    try:
        return _Comparison(one, other).are_same(one, other)
    except RecursionError:
        return one == other


class _Comparison:
    """A comparison of two documents. Schemas may refer to each other in a circle, so a pair is compared once."""

    def __init__(self, one: _Object, other: _Object) -> None:
        self._roots = one, other
        self._assumed = set[tuple[int, int]]()

    def are_same(self, one: object, other: object) -> bool:
        """Return whether these schemas, each within its document, are the same."""
        one, other = _resolved(self._roots[0], one), _resolved(self._roots[1], other)
        rules, others = _object(one), _object(other)
        if rules is None or others is None:
            return one is other  # true or false
        pair = id(one), id(other)
        if pair in self._assumed:
            return True
        self._assumed.add(pair)
        rules, others = _rules(rules), _rules(others)
        return rules.keys() == others.keys() and all(
            self._agree(keyword, rules[keyword], others[keyword]) for keyword in rules
        )

    def _agree(self, keyword: str, one: object, other: object) -> bool:
        if keyword in _NAMED:
            named, others = _object(one) or {}, _object(other) or {}
            return named.keys() == others.keys() and all(self.are_same(named[key], others[key]) for key in named)
        if keyword in _LISTED or keyword in _SINGLE:
            items, others_items = _list(one) or [one], _list(other) or [other]
            return len(items) == len(others_items) and all(map(self.are_same, items, others_items))
        if keyword == "$ref":
            return self.are_same({"$ref": one}, {"$ref": other})
        if keyword in _UNORDERED:
            return set(map(_text, _list(one) or [one])) == set(map(_text, _list(other) or [other]))
        return _text(one) == _text(other)


def _resolved(root: _Object, schema: object) -> object:
    """Return the schema that stands behind references, and behind an ``allOf`` of one; True for an empty one."""
    for _ in range(_MOST_STEPS):
        rules = {key: value for key, value in (_object(schema) or {}).items() if key not in _WORDING}
        items = _list(rules.get("allOf")) or []
        if not rules:
            return True if isinstance(schema, dict) else schema
        if rules.keys() == {"$ref"}:
            schema = target_of(root, rules["$ref"])
        elif rules.keys() == {"allOf"} and len(items) == 1:
            schema = items[0]
        else:
            break
    return schema


def _rules(schema: _Object) -> _Object:
    """Return the keywords that decide about values, each in one form of those in use."""
    rules = {key: value for key, value in schema.items() if key not in _WORDING}
    for keyword in _FREE:
        if rules.get(keyword) in (True, {}):
            del rules[keyword]
    if "const" in rules and rules.get("enum", [rules["const"]]) == [rules["const"]]:
        rules["enum"] = [rules.pop("const")]
    kind, values = rules.get("type"), _list(rules.get("enum"))
    if values is not None and all(kind in _TYPES.get(type(value), ()) for value in values):
        rules.pop("type", None)  # the values are of this type anyway
    return rules


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
