"""Schemas that pydantic and jsonschema read: models, adapters, and JSON schemas as mappings."""

from __future__ import annotations

import socket
from typing import Annotated, Any, Literal

import pytest

from together_batches import BatchInvalid, BatchSuccess, UsageError
from together_batches._schema.adapters import adapter_of
from together_batches._schema.answers import parser
from together_batches._schema.json_schemas import is_same
from together_batches._schema.response_format import response_format

pydantic = pytest.importorskip("pydantic")
pytest.importorskip("jsonschema")

FITTING = '{"name": "Prague", "population": 1357326}'


class City(pydantic.BaseModel):
    name: str
    population: int


class Tree(pydantic.BaseModel):
    name: str
    branches: list[Tree] = pydantic.Field([])


@pydantic.dataclasses.dataclass
class Place:
    name: str
    population: int


SCHEMA = {
    "title": "A city!",
    "type": "object",
    "properties": {"name": {"type": "string"}, "population": {"$ref": "#/$defs/count"}},
    "required": ["name", "population"],
    "$defs": {"count": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("schema", "value", "name"),
    [
        (City, City(name="Prague", population=1357326), "City"),
        (Place, Place("Prague", 1357326), "Place"),
        (pydantic.TypeAdapter(City), City(name="Prague", population=1357326), "City"),
        (pydantic.TypeAdapter(dict[str, Any]), {"name": "Prague", "population": 1357326}, "answer"),
        (SCHEMA, {"name": "Prague", "population": 1357326}, "A_city"),
    ],
)
def test_an_answer_that_fits(schema: Any, value: object, name: str) -> None:
    """Pydantic reads its models, dataclasses and adapters; a JSON schema gives the JSON as it is."""
    adapter = adapter_of(schema)
    row = parser(adapter)(BatchSuccess("a", {"text": f"```json\n{FITTING}\n```"}))
    assert isinstance(row, BatchSuccess)
    assert row.parsed == value
    assert response_format(adapter)["json_schema"]["name"] == name


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (City, '{"name": "Prague"}', "population: Field required"),
        (City, '{"name": 7, "population": ""}', "name: Input should be a valid string; population: Input should be"),
        (SCHEMA, '{"name": "Prague", "population": -1}', r"-1 is less than the minimum of 0, at \$\.population"),
        (SCHEMA, '{"name": "Prague"}', r"'population' is a required property, at \$"),
    ],
)
def test_an_answer_that_does_not_fit(schema: Any, text: str, reason: str) -> None:
    """The reason names each field that does not fit, in one line, without the input and addresses."""
    row = parser(adapter_of(schema))(BatchSuccess("a", {"text": text}))
    assert isinstance(row, BatchInvalid)
    assert row.text == text
    with pytest.raises(AssertionError, match=f"the answer does not fit the schema: {reason}"):
        raise AssertionError(row.error)


def test_a_model_that_contains_itself() -> None:
    """A recursive model, whose schema is a reference at its root, is sent with the target in its place."""
    schema = adapter_of(Tree).json_schema()
    assert (schema["type"], "$ref" in schema, schema["$defs"].keys()) == ("object", False, {"Tree"})
    assert is_same(schema, pydantic.TypeAdapter(Tree).json_schema())


class _WithOpaque(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    field: socket.socket


class _Unresolved(pydantic.BaseModel):
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (_WithOpaque, "_WithOpaque cannot be sent as a JSON schema: Cannot generate a JsonSchema for"),
        (_Unresolved, "_Unresolved cannot be sent as a JSON schema: .* is not fully defined"),
        (City(name="Prague", population=1), "it is a value of type City: pass its class"),
        ({"type": "objekt"}, "the schema cannot be sent as a JSON schema: 'objekt' is not valid"),
        ({"properties": {"a": {"$ref": "https://schemas.example/a.json"}}}, "it refers to https://schemas.example"),
        ({"pattern": "("}, "'\\(' is not a 'regex'"),
    ],
)
def test_what_cannot_be_a_schema(schema: Any, reason: str) -> None:
    """A model without a JSON schema, and an invalid JSON schema, are refused with the reason."""
    with pytest.raises(UsageError, match=reason):
        adapter_of(schema)


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON schema that names its own address and draft is used without a connection."""
    monkeypatch.setattr(socket, "create_connection", None)
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://schemas.example/city.json",
        **SCHEMA,
    }
    assert adapter_of(schema).validate_json(FITTING) == {"name": "Prague", "population": 1357326}


class _Worded(pydantic.BaseModel):
    """What older versions of pydantic write in other words."""

    kind: Literal["city"]
    city: Annotated[City, pydantic.Field(description="The city.")]
    more: dict[str, Any] = pydantic.Field({})


def test_a_new_version_of_pydantic_words_a_schema_anew() -> None:
    """The schema of a class is the same in the words of pydantic 2.8: const with enum, allOf of one."""
    older = {
        "$defs": {"City": {**pydantic.TypeAdapter(City).json_schema(), "title": "City"}},
        "properties": {
            "kind": {"const": "city", "enum": ["city"], "title": "Kind", "type": "string"},
            "city": {"allOf": [{"$ref": "#/$defs/City"}], "description": "The city."},
            "more": {"default": {}, "title": "More", "type": "object"},
        },
        "required": ["kind", "city"],
        "title": "_Worded",
        "type": "object",
    }
    assert is_same(adapter_of(_Worded).json_schema(), older)
    assert not is_same(adapter_of(City).json_schema(), older)
