"""Fields of the values: read from JSON, on first use if that saves work, and written as plain data."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, TypeVar, cast

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""A time before all others, of what has none."""


def time_of(text: str) -> datetime | None:
    """Return the time in ISO 8601 text, in UTC; None for the zero time of a Go backend.

    A text without an offset is in UTC, as all times of the service are. Raises ValueError for an invalid time.
    """
    # Since Python 3.11 this accepts "Z", and 0 to 9 fractional digits (truncated to six).
    time = datetime.fromisoformat(text)
    if time.tzinfo is not UTC:
        return in_utc(time if time.tzinfo else time.replace(tzinfo=UTC))
    return time if time.year > 1 else None


def in_utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if time.tzinfo is None:
        message = f"invalid time {time.isoformat()}: it has no time zone; pass an aware datetime"
        raise ValueError(message)
    # The zero time cannot be converted to UTC if its offset is east of Greenwich.
    return time.astimezone(UTC) if time.year > 1 else None


def read_text(value: object) -> str:
    """Return a text of JSON as it is; like its siblings here, raise TypeError for any other value."""
    return value if isinstance(value, str) else _wrong(value)


def read_integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else _wrong(value)


def read_number(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _wrong(value)


def read_truth(value: object) -> bool:
    return value if isinstance(value, bool) else _wrong(value)


def read_time(value: object) -> datetime | None:
    """Return the time in a value of JSON, which must be a text for :func:`time_of`."""
    return time_of(value) if isinstance(value, str) else _wrong(value)


def _wrong(value: object) -> NoReturn:
    message = f"a field cannot be {type(value).__name__}"
    raise TypeError(message)


_READERS: dict[object, Callable[[object], object]] = {
    int | None: read_integer,
    float | None: read_number,
    bool | None: read_truth,
    datetime | None: read_time,
}


def fields_of(value_type: type[attrs.AttrsInstance]) -> dict[str, attrs.Attribute[Any]]:
    """Return the fields of a class by their names, with their types as types and not as texts."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(value_type))
    return {field.name: field for field in fields}


def reader_of(field: attrs.Attribute[Any]) -> Callable[[object], object]:
    """Return the function that makes the value of a field from a value of JSON that is not null.

    It raises TypeError, ValueError or OverflowError for a value that does not fit.
    """
    return _READERS.get(field.type, read_text)


class ReadLater:
    """A value whose fields may be unset at first: they are read from their source on first use of one.

    A list may have 50,000 jobs, and making all of their fields takes most of its time.
    """

    __slots__ = ("_source",)

    if TYPE_CHECKING:  # not for users: neither a field of the value, nor any name for one
        _source: Callable[[Any], None]
    else:

        def __getattr__(self, name: str) -> object:
            if name not in type(self).__slots__:
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message)
            self._source(self)
            return getattr(self, name)


READ_LATER: Callable[[ReadLater, Callable[[Any], None]], None] = ReadLater.__dict__["_source"].__set__
"""Set the source of a value; a frozen one, too."""


class _LoadedByPydantic:
    """The serializer of the values, for fields of which pydantic does not know the type: ``Any``, ``dict``."""

    def __get__(self, instance: object, owner: type[Plain]) -> object:
        # Tools that inspect classes read it, too, and must not load pydantic.
        if "pydantic_core" not in sys.modules:
            message = "__pydantic_serializer__"
            raise AttributeError(message)
        return _pydantic().serializer()


class _FieldsOfAttrs:
    """The list in which attrs finds the fields of a class, as an attribute of the base class of all values.

    msgspec writes an instance of a class that has such a list of its own by its attributes, without its body and with
    its nulls, and never calls the ``enc_hook``.
    """

    def __get__(self, instance: object, owner: type[Plain]) -> object:
        return owner.__fields_of_attrs__


class Plain:
    """A value that :func:`together_batches.to_dict` writes: by default its fields, but for those that are absent.

    What other libraries look for leads to the same plain data: pydantic its schema, and encoders ``__dict__`` (that
    of FastAPI, of a handler without a type; ``json.dumps(value, default=vars)``).
    """

    __slots__ = ()
    __derived__: ClassVar[tuple[str, ...]] = ()
    """Properties that are part of the plain data."""

    def __to_dict__(self) -> dict[str, Any]:
        names = [field.name for field in attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))]
        return present(self, *names, *self.__derived__)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        return pydantic_schema(cls, handler)

    if TYPE_CHECKING:
        __fields_of_attrs__: ClassVar[object]
    else:
        __pydantic_serializer__ = _LoadedByPydantic()
        __attrs_attrs__ = _FieldsOfAttrs()

        @property
        def __dict__(self) -> dict[str, object]:
            return self.__to_dict__()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__attrs_attrs__" in cls.__dict__:
            cls.__fields_of_attrs__ = cls.__dict__["__attrs_attrs__"]
            del cls.__attrs_attrs__  # type: ignore[attr-defined]  # pyright: ignore


def pydantic_schema(value_type: type, handler: object) -> Any:
    """Return the schema of a type for pydantic, which calls this."""
    return _pydantic().schema_of(value_type, handler)


def _pydantic() -> Any:
    # By name, because it knows how values are read and written, and so is not a room below this one.
    return import_module("together_batches._pydantic")


def present(value: object, *names: str) -> dict[str, Any]:
    """Return these attributes as plain data, without those that are None."""
    return {name: written(found) for name in names if (found := getattr(value, name)) is not None}


def written(value: object) -> object:
    """Return the value of a field as plain data: a time in UTC with ``Z``, a path and a status as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Plain):
        return value.__to_dict__()
    if isinstance(value, tuple):
        return [written(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    return str(cast("object", value)) if isinstance(value, os.PathLike | StrEnum) else value


class Carried:
    """An object as its JSON ``text``, which is passed on unchanged, and decoded on first access."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    @abstractmethod
    def decode(self) -> Mapping[str, object]:
        """Return the value; raise :class:`APIResponseValidationError` if it cannot be decoded."""

    @abstractmethod
    def outline(self) -> Outline:
        """Return the text and the tokens of an answer, without decoding the rest; empty if it is unreadable."""


def carried(row: Any) -> bytes | None:
    """Return the original text of a row's body if it was not decoded, otherwise None."""
    body: object = row._body
    return body.text if isinstance(body, Carried) else None


class Outline(NamedTuple):
    """What is read of most answers; None if it is absent, or of an unusual type. A table has all but the last."""

    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


def outline_of(row: Any) -> Outline:
    """Return the outline of a row's body."""
    body: object = row._body
    return body.outline() if isinstance(body, Carried) else outline_in(body)


def outline_in(answer: object) -> Outline:
    """Return the outline of a decoded answer, of which each member is taken by itself, if it has its usual type."""
    choices = cast("list[object] | None", member(answer, "choices", list))
    choice, usage = choices[0] if choices else None, member(answer, "usage", object)
    text = member(member(choice, "message", object), "content", str)
    if text is None:
        text = member(answer, "text", str)
    tokens = [member(usage, name, int) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    return Outline(text, member(choice, "finish_reason", str), *tokens)


def member(value: object, name: str, kind: type[T]) -> T | None:
    """Return a member of a decoded object, if it is one and the member is of this kind; otherwise None."""
    found = cast("Mapping[str, object]", value).get(name) if isinstance(value, (dict, Mapping)) else None
    return found if isinstance(found, kind) and not isinstance(found, bool) else None
