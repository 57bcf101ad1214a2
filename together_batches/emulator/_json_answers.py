"""Answers in JSON, for requests whose ``response_format`` is a JSON schema: the simplest value that usually fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

_DEEPEST = 16
_FORMATS = {
    "date": "2026-09-14",
    "date-time": "2026-09-14T10:20:30Z",
    "time": "10:20:30Z",
    "email": "someone@mail.example",
    "uri": "https://www.example",
    "uuid": "5b0c2d6e-8f14-4a7b-9c33-0e5d7a61f2b8",
}

_Object = Mapping[str, object]


def json_answer(response_format: object, words: str) -> str | None:
    """Return JSON for a ``response_format``, with ``words`` instead of free texts; None if it asks for no schema."""
    schema = _at(_at(response_format, "json_schema"), "schema")
    if _at(response_format, "type") != "json_schema" or not isinstance(schema, Mapping):
        return None
    return json.dumps(_Sample(_fields(schema), words).of(_fields(schema)), ensure_ascii=False)


def _fields(value: Any) -> _Object:
    return cast("_Object", value) if isinstance(value, Mapping) else {}


def _at(value: object, name: str) -> object:
    return _fields(value).get(name)


def _items(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


class _Sample:
    """Sample values of the schemas in a document."""

    def __init__(self, root: object, words: str) -> None:
        self._root = root
        self._words = words

    def of(self, schema: object, depth: int = 0) -> object:
        """Return a value for a schema; None for one that asks for nothing, or is nested too deeply."""
        rules = _fields(schema)
        if depth > _DEEPEST:
            return None
        if "$ref" in rules:
            return self.of(self._target(str(rules["$ref"])), depth + 1)
        if "const" in rules:
            return rules["const"]
        for name in ("enum", "examples"):
            if values := _items(rules.get(name)):
                return values[0]
        for name in ("anyOf", "oneOf"):
            if choices := _items(rules.get(name)):
                return self.of(choices[0], depth + 1)
        if parts := _items(rules.get("allOf")):
            values = [self.of(part, depth + 1) for part in parts]
            fields = {key: field for value in values for key, field in _fields(value).items()}
            return fields or values[0]
        return self._plain(rules, depth)

    def _plain(self, rules: _Object, depth: int) -> object:
        kind: object = rules.get("type")
        kind = next(iter(_items(kind)), kind)
        if kind == "object" or (kind is None and "properties" in rules):
            required, properties = _items(rules.get("required")), _fields(rules.get("properties"))
            return {name: self.of(each, depth + 1) for name, each in properties.items() if name in required}
        if kind == "array":
            first = _items(rules.get("prefixItems"))
            few = rules.get("minItems")
            many = (few if isinstance(few, int) else 1) - len(first) if "items" in rules else 0
            return [self.of(each, depth + 1) for each in [*first, *[rules.get("items")] * min(many, 100)]]
        if kind in {"integer", "number"}:
            lowest, above = rules.get("minimum"), rules.get("exclusiveMinimum")
            return lowest if lowest is not None else above + 1 if isinstance(above, int | float) else 0
        if kind == "boolean":
            return True
        return self._text(rules) if kind == "string" else None

    def _text(self, rules: _Object) -> str:
        text = _FORMATS.get(str(rules.get("format")), self._words)
        least, most = rules.get("minLength"), rules.get("maxLength")
        text = text.ljust(least, ".") if isinstance(least, int) else text
        return text[:most] if isinstance(most, int) else text

    def _target(self, reference: str) -> object:
        target: object = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = _at(target, step.replace("~1", "/").replace("~0", "~")) if step else target
        return target
