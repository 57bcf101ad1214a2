"""What can be a schema: the kind of type decides which library reads answers by it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from tests._schema.answers import FITTING, City
from together_batches import UsageError
from together_batches._schema.adapters import adapter_of

T = TypeVar("T")


@attrs.define
class Attrs:
    name: str
    population: int


class Typed(TypedDict):
    name: str
    population: int


class Struct(msgspec.Struct):
    name: str
    population: int


@dataclass
class Pair(Generic[T]):
    name: str
    population: T


_PROPERTIES = {"name": {"type": "string"}, "population": {"type": "integer"}}


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        (City, City("Prague", 1357326), "City"),
        (Attrs, Attrs("Prague", 1357326), "Attrs"),
        (Typed, {"name": "Prague", "population": 1357326}, "Typed"),
        (Struct, Struct("Prague", 1357326), "Struct"),
        (Pair[int], Pair("Prague", 1357326), "Pair"),
    ],
)
def test_a_class_with_fields(kind: Any, value: object, name: str) -> None:
    """A dataclass, attrs class, TypedDict or Struct reads JSON strictly; its schema has no reference at its root."""
    adapter = adapter_of(kind)
    assert adapter.validate_json(FITTING) == adapter.validate_json(FITTING.encode()) == value
    schema = adapter.json_schema()
    assert (schema["type"], schema["properties"], schema.keys() & {"$ref", "$defs"}) == ("object", _PROPERTIES, set())
    assert adapter.name == name
    with pytest.raises(Exception, match="Expected `int`"):
        adapter.validate_json('{"name": "Prague", "population": "many"}')


def test_the_adapter_of_a_class_is_made_once() -> None:
    """The adapter of a class is made once, so that each of a million requests may have it."""
    assert adapter_of(City) is adapter_of(City)
    assert adapter_of(adapter_of(City)) is adapter_of(City)


class _Own:
    """An adapter of the user's own, without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def validate_json(self, data: str | bytes, /) -> int:
        return len(data)

    def json_schema(self) -> dict[str, Any]:
        return {"title": "Größe, in Zeichen " + "x" * 80, "type": "object"}


def test_an_adapter_of_ones_own() -> None:
    """Anything with ``validate_json`` and ``json_schema`` is a schema; its name is written as it may be sent."""
    adapter = adapter_of(_Own())
    assert adapter.validate_json("1234") == 4
    assert len(adapter.name) == 64
    assert adapter.name.startswith("Gr_e_in_Zeichen_x")


class _Opaque:
    pass


@dataclass
class _WithOpaque:
    field: _Opaque


@dataclass
class _Unresolved:
    field: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037


class _NoObject(_Own):
    def json_schema(self) -> dict[str, Any]:
        return []  # type: ignore[return-value]


class _Raising(_Own):
    def json_schema(self) -> dict[str, Any]:
        raise KeyError("colour")


class _Elsewhere(_Own):
    def json_schema(self) -> dict[str, Any]:
        return {"properties": {"a": {"$ref": "https://schemas.example/a.json"}}}


class _Circle(_Own):
    def json_schema(self) -> dict[str, Any]:
        return {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (int, r"a schema is a pydantic model .* as a mapping; it is int"),
        (_Opaque, r"it is _Opaque"),
        (City("Prague", 1), r"it is a value of type City: pass its class"),
        (None, r"it is a value of type NoneType"),
        ([City], r"it is a value of type list"),
        (_WithOpaque, r"_WithOpaque cannot be sent as a JSON schema: type <class '.*_Opaque'> is not supported"),
        (Pair[Annotated[int, []]], r"Pair cannot be sent as a JSON schema: unhashable type"),
        (_Unresolved, r"_Unresolved cannot be sent as a JSON schema: NameError: name 'Nowhere' is not defined"),
        (_NoObject(), r"its JSON schema is a list"),
        (_Raising(), r"KeyError: 'colour'"),
        (_Elsewhere(), r"it refers to https://schemas\.example/a\.json, which is not in it, and nothing is fetched"),
        (_Circle(), r"\$ref #/\$defs/a leads to itself"),
        ({"minimum": float("nan")}, r"it cannot be written as JSON: a number is not finite"),
    ],
)
def test_what_cannot_be_a_schema(schema: Any, reason: str) -> None:
    """Anything else is refused with the reason, before any request."""
    with pytest.raises(UsageError, match=reason):
        adapter_of(schema)


def test_a_schema_loads_no_library_that_it_does_not_need() -> None:
    """A dataclass loads neither pydantic nor jsonschema; without jsonschema, a JSON schema names the extra."""
    script = """
import sys
from dataclasses import dataclass
sys.modules["jsonschema"] = None
from together_batches import UsageError
from together_batches._schema.adapters import adapter_of
@dataclass
class City:
    name: str
adapter_of(City).validate_json('{"name": "Prague"}')
try:
    adapter_of({"type": "object"})
except UsageError as error:
    print(error)
print("pydantic" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert ended.stdout.splitlines() == [
        'a JSON schema needs jsonschema: pip install "together_batches[schema]"',
        "False",
    ]
