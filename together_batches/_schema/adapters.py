"""What can be a schema, and which library reads answers by it: the kind of type decides, never what is installed.

Pydantic reads its models and adapters, msgspec dataclasses, attrs classes, TypedDicts and Structs, jsonschema plain
JSON schemas. A library is imported only if a schema needs it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, cast, get_origin, is_typeddict, overload

import attrs

from together_batches._protocol import json_codec
from together_batches._schema.json_schemas import endless_reference, inlined, lost_reference
from together_batches._text import escape
from together_batches.errors import UsageError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SchemaAdapter(Protocol[T_co]):
    """A schema with its own way to read answers, such as a ``pydantic.TypeAdapter``."""

    def validate_json(self, data: str | bytes, /) -> T_co:
        """Return the value in a text of JSON; raise any error if the text does not fit."""
        ...

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema that is sent to the service."""
        ...


Schema = type[Any] | SchemaAdapter[Any] | Mapping[str, object]
"""A pydantic model or ``TypeAdapter``, a dataclass, attrs class, TypedDict or msgspec Struct, or a JSON schema."""

_KINDS = (
    "a schema is a pydantic model or TypeAdapter, a dataclass, an attrs class, a TypedDict, a msgspec Struct, or a "
    "JSON schema as a mapping"
)
_ADAPTERS_KEPT = 128
_NAME_CHARACTERS = 64
_REASON_CHARACTERS = 300
_MOST_PROBLEMS = 5


@attrs.frozen(eq=False)
class Adapter(Generic[T_co]):
    """A schema that was checked: its name, the function that reads answers by it, and its JSON schema as text.

    ``plain_schema`` is the JSON schema of the values as plain data, whose names and types may be others.
    """

    name: str
    validate_json: Callable[[str | bytes], T_co]
    text: bytes
    plain_schema: Callable[[], dict[str, Any]]

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema, whose root is not a reference."""
        return cast("dict[str, Any]", json_codec.decode(self.text))


@overload
def adapter_of(schema: type[T] | SchemaAdapter[T]) -> Adapter[T]: ...
@overload
def adapter_of(schema: Mapping[str, object]) -> Adapter[object]: ...
def adapter_of(schema: Schema) -> Adapter[Any]:
    """Return the adapter of a schema of any kind.

    It is made once for each type, so this may be called for each request. Raises :class:`UsageError` if the schema
    cannot be used, or needs a library that is not installed.
    """
    given: object = schema
    if isinstance(given, Adapter):
        return given
    if isinstance(given, Mapping):
        try:
            return _of_mapping(json_codec.encode(given))
        except json_codec.WireError as error:
            raise _refused("the schema", f"it cannot be written as JSON: {error.problem}") from error
    if isinstance(given, type) or get_origin(given) is not None:
        return _cached(_of_type, given)
    if not all(callable(getattr(given, name, None)) for name in ("validate_json", "json_schema")):
        hint = ": pass its class" if _has_fields(type(given)) or _is_of_pydantic(type(given)) else ""
        message = f"{_KINDS}; it is a value of type {type(given).__name__}{hint}"
        raise UsageError(message)
    return _cached(_of_adapter, given)


def _cached(make: Any, given: object) -> Adapter[Any]:
    """Return what ``make`` makes of a schema, once for each that can be recognised."""
    try:
        hash(given)
    except TypeError:
        make = make.__wrapped__
    return cast("Adapter[Any]", make(given))


@lru_cache(_ADAPTERS_KEPT)
def _of_adapter(adapter: Any) -> Adapter[Any]:
    return _made(None, adapter.validate_json, adapter.json_schema)


@lru_cache(_ADAPTERS_KEPT)
def _of_type(kind: Any) -> Adapter[Any]:
    name = str(getattr(kind, "__name__", kind))
    owner: Any = get_origin(kind) or kind
    if _is_of_pydantic(owner):
        from pydantic import TypeAdapter

        def adapter() -> tuple[Any, Any]:
            made: Any = TypeAdapter(kind)
            return made.validator.validate_json, made.json_schema  # without the checks of options in between

    elif _has_fields(owner):

        def adapter() -> tuple[Any, Any]:
            return json_codec.reader_of(kind), lambda: json_codec.schema_of(kind)

    else:
        hint = ": pydantic 1 is not supported" if hasattr(owner, "parse_raw") else ""
        message = f"{_KINDS}; it is {name}{hint}"
        raise UsageError(message)
    try:
        validate, schema = adapter()
    except Exception as error:  # code of the class runs here, and may raise anything
        raise _refused(name, reason_of(error)) from error
    return _made(name, validate, schema)


def _is_of_pydantic(kind: type) -> bool:
    """Return whether this is a model or a dataclass of pydantic, without importing pydantic."""
    return hasattr(kind, "__pydantic_validator__")


def _has_fields(kind: Any) -> bool:
    """Return whether msgspec reads values of this type as objects with fields."""
    return (
        dataclasses.is_dataclass(kind)
        or is_typeddict(kind)
        or hasattr(kind, "__attrs_attrs__")
        or hasattr(kind, "__struct_fields__")
    )


@lru_cache(_ADAPTERS_KEPT)
def _of_mapping(text: bytes) -> Adapter[object]:
    try:
        import jsonschema
        import referencing
    except ImportError as error:
        message = 'a JSON schema needs jsonschema: pip install "together_batches[schema]"'
        raise UsageError(message) from error
    library, registries = cast("Any", jsonschema), cast("Any", referencing)
    schema = cast("dict[str, Any]", json_codec.decode(text))
    try:
        kind = library.validators.validator_for(schema, default=library.Draft202012Validator)
        kind.check_schema(schema)
    except Exception as error:
        raise _refused("the schema", reason_of(error)) from error
    # An empty registry: the default of jsonschema fetches what a schema refers to.
    validator = kind(schema, registry=registries.Registry())

    def validate(data: str | bytes) -> object:
        value = json_codec.decode(data.encode() if isinstance(data, str) else data)
        error = library.exceptions.best_match(validator.iter_errors(value))
        if error is not None:
            message = f"{error.message}, at {error.json_path}"
            raise ValueError(message)
        return value

    return _made(None, validate, lambda: schema)


def _made(name: str | None, validate: Callable[..., Any], schema: Callable[[], object]) -> Adapter[Any]:
    """Return the adapter, after a check of its JSON schema."""
    who = name or "the schema"
    try:
        document = json_codec.decode(json_codec.encode(schema()))
        if not isinstance(document, dict):
            message = f"its JSON schema is {json_codec.kind(document)}"
            raise TypeError(message)
        document = cast("dict[str, object]", document)
        lost = lost_reference(document)
        if lost is not None:
            message = f"it refers to {lost}, which is not in it, and nothing is fetched"
            raise ValueError(message)
        endless = endless_reference(document)
        if endless is not None:
            message = f"$ref {endless} leads to itself"
            raise ValueError(message)
        document = inlined(document)
        text = json_codec.encode(document)
    except Exception as error:  # code of a class or of an adapter runs here, and may raise anything
        raise _refused(who, reason_of(error)) from error
    title = document.get("title")
    return Adapter(
        _sendable(name or (title if isinstance(title, str) else "")), validate, text, _plain_schema(schema, document)
    )


def _plain_schema(schema: Callable[..., object], document: dict[str, object]) -> Callable[[], dict[str, Any]]:
    """Return the function that returns the schema of plain values: pydantic may write other names than it reads."""
    owner = getattr(schema, "__self__", None)
    if not hasattr(owner, "core_schema"):
        return lambda: document

    def plain_schema() -> dict[str, Any]:
        try:
            return inlined(cast("dict[str, object]", schema(mode="serialization")))
        except Exception:  # noqa: BLE001  # what cannot be written can be read
            return document

    return plain_schema


def _refused(who: str, reason: str) -> UsageError:
    message = f"invalid schema: {who} cannot be sent as a JSON schema: {reason}"
    return UsageError(message)


def _sendable(name: str) -> str:
    """Return a name as the service takes it: up to 64 ASCII letters, digits, underscores and hyphens."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:_NAME_CHARACTERS].strip("_") or "answer"


def reason_of(error: Exception) -> str:
    """Return an error of any library in one line of bounded length."""
    reason = _problems_of(error)
    if not reason:
        text = error.reason if isinstance(error, json_codec.WireError) else getattr(error, "message", None) or error
        reason = str(text).partition("\n")[0].strip() or type(error).__name__
    if isinstance(error, AttributeError | KeyError | NameError):
        reason = f"{type(error).__name__}: {reason}"
    reason = escape(reason)
    return reason if len(reason) <= _REASON_CHARACTERS else reason[:_REASON_CHARACTERS] + "…"


def _problems_of(error: Any) -> str:
    """Return the problems that an error of pydantic lists: its text has a line for each, with input and address."""
    try:
        problems: Any = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem["loc"] else str(problem["msg"])
            for problem in problems[:_MOST_PROBLEMS]
        )
    except Exception:  # noqa: BLE001  # an error of another library, whose attributes mean something else
        return ""
