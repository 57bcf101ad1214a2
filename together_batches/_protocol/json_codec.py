"""JSON to values and back: one value, or many lines together."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_TYPES_KEPT = 128


class WireError(Exception):
    """A defect in JSON and its place; it never leaves the package: the caller decides whose fault it is.

    For text that is not JSON, ``reason`` has the cause, and ``at`` the byte, if known.
    """

    def __init__(self, problem: str, where: str = "$", *, reason: str = "", at: int | None = None) -> None:
        super().__init__(problem, where)
        self.problem = problem
        self.where = where
        self.reason = reason or problem
        self.at = at


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode


def decode(body: bytes) -> object:
    """Return the JSON value in ``body``; raise :class:`WireError` if it is not (``NaN`` and broken UTF-8 are not).

    Integers are exact, whatever their length. Of two values with one key the last counts.
    """
    try:
        return cast("object", _decode(body))
    except UNREADABLE as error:
        raise _no_json(body, error) from error


def read(body: bytes | Raw) -> object:
    """Return the value in ``body``, even with content that Python reads and JSON excludes.

    Raises :class:`WireError` if Python rejects it, too. Such content is ``NaN``, a number beyond the range of floats,
    half a surrogate pair, half a character, a raw control character. In a place where it does no harm it is no reason
    to lose the rest of a response.
    """
    try:
        return cast("object", _decode(body))
    except UNREADABLE as error:
        text = bytes(body)
        try:
            return cast("object", json.loads(text.decode("utf-8", "replace"), strict=False))
        except (ValueError, RecursionError):
            raise _no_json(text, error) from error


def reader_of(kind: Any) -> Callable[[bytes | str], Any]:
    """Return the function that reads JSON as a value of a dataclass, attrs class, TypedDict or Struct.

    It raises an error of msgspec for JSON that does not fit. Raises TypeError or NameError for other types, and for
    annotations that cannot be resolved.
    """
    return cast("Callable[[bytes | str], Any]", msgspec.json.Decoder(kind).decode)


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of such a type; raise TypeError if there is none, or NameError."""
    try:
        return msgspec.json.schema(kind)
    except TypeError as error:
        raise TypeError(str(error).rpartition("\n")[2]) from error  # above are hints for users of msgspec


def plain_of(value: object) -> object:
    """Return a value that was read by a schema as plain data, with the names of its JSON."""
    if type(value) in _PLAIN:
        return value
    serializer: Any = getattr(value, "__pydantic_serializer__", None)
    if serializer is not None:
        return cast("object", serializer.to_python(value, mode="json", by_alias=True))
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return msgspec.to_builtins({key: plain_of(each) for key, each in members.items()}, str_keys=True)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_of(item) for item in cast("list[object]", value)]
    # Field by field, because msgspec leaves out those of a dataclass that have the default of their class.
    kind: Any = type(value)
    names = _fields_of(kind)
    if names is not None:
        return {name: plain_of(getattr(value, name)) for name in names}
    if isinstance(value, msgspec.Struct) and not kind.__struct_config__.array_like:
        config = kind.__struct_config__
        tag = {} if config.tag_field is None else {config.tag_field: config.tag}
        pairs = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
        return tag | {name: plain_of(getattr(value, field)) for name, field in pairs}
    return cast("object", msgspec.to_builtins(value, str_keys=True, enc_hook=str))


_PLAIN = frozenset({str, int, float, bool, type(None)})


def _no_json(body: bytes, error: Exception) -> WireError:
    problem = "invalid JSON" if body else "an empty body"
    if isinstance(error, RecursionError):
        return WireError(problem, reason="it is nested too deeply")
    reason, _, place = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
    if place:
        return WireError(problem, reason=reason, at=int(place.rstrip(")")))
    if isinstance(error, msgspec.ValidationError):
        return WireError(problem, reason="a number is out of range")
    if isinstance(error, UnicodeDecodeError):
        return WireError(problem, reason="it is not UTF-8")
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return WireError(problem, reason="unexpected end of data", at=len(body))
    return WireError(problem, reason="half of a surrogate pair")  # msgspec reports it as the end


def encode(value: object) -> bytes:
    """Return ``value`` as JSON; raise :class:`WireError` if JSON cannot represent it.

    msgspec writes NaN as null, bytes as base64, a decimal as text and a number as a key: each would silently change
    the caller's value, so the whole value is checked first. Dataclasses, attrs classes, enums, mappings and the
    numbers of numpy are written as their content.
    """
    try:
        return msgspec.json.encode(_plain(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise WireError(problem) from error


def _plain(value: object) -> object:
    # The values of most keys are written as they are, and a call for each would take most of the time.
    kind = type(value)
    if kind is dict:
        return {
            key if type(key) is str else _key(key): field if type(field) in _AS_IT_IS else _plain(field)
            for key, field in cast("dict[object, object]", value).items()
        }
    if kind is list or kind is tuple:
        return [item if type(item) in _AS_IT_IS else _plain(item) for item in cast("list[object]", value)]
    if kind is float:
        if math.isfinite(cast("float", value)):
            return value
        message = "a number is not finite"
        raise ValueError(message)
    return value if kind in _AS_IT_IS else _plain(_unwrapped(value))


_AS_IT_IS = frozenset({str, int, bool, type(None), datetime, date, time, UUID})


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    message = f"Dict key must be str, not {type(key).__name__}"
    raise TypeError(message)


def _unwrapped(value: object) -> object:
    """Return the content of a value that is not JSON's own, unwrapped by one step."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    kind: Any = type(value)
    if (fields := _fields_of(kind)) is not None:
        return {name: getattr(value, name) for name in fields if not name.startswith("_")}
    numpy: Any = sys.modules.get("numpy")  # a number of numpy exists only if numpy is imported
    if numpy is not None:
        for kind, number in ((numpy.bool_, bool), (numpy.integer, int), (numpy.floating, float)):
            if isinstance(value, kind):
                return cast("Callable[[object], object]", number)(value)
    message = f"Type is not JSON serializable: {type(value).__name__}"
    raise TypeError(message)


@lru_cache(_TYPES_KEPT)
def _fields_of(owner: Any) -> list[str] | None:
    fields: Any = getattr(owner, "__attrs_attrs__", None)
    if fields is None and dataclasses.is_dataclass(owner):
        fields = dataclasses.fields(owner)
    return None if fields is None else [field.name for field in fields]


def kind(value: object) -> str:
    """Return the type of a decoded JSON value, in the terms of JSON."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


quoted: Callable[[str], bytes] = msgspec.json.Encoder().encode
"""Encode a text as JSON; raise UnicodeEncodeError for half of a surrogate pair."""


def quoted_text(text: str) -> bytes:
    """Encode any text as JSON, with an escape for half of a surrogate pair."""
    try:
        return quoted(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


# --- many lines ---------------------------------------------------------------------------------------------------


def are_objects(lines: list[bytes]) -> bool:
    """Return whether lines, each with its end, all begin and end like an object; then none is blank.

    JSON has no line end between two such brackets except between two texts, so that each line has at least one text.
    """
    return set(map(_first_of, lines)) == {ord("{")} and set(map(_last_of, lines)) == {ord("}")}


_first_of, _last_of = itemgetter(0), itemgetter(-2)


def is_utf8(text: bytes, lines: list[bytes]) -> bool:
    """Return whether the text has no broken characters; the decoder does not check what it skips."""
    try:
        if not text.isascii():
            for line in lines:
                if not line.isascii():
                    line.decode()
    except UnicodeDecodeError:
        return False
    return True


def each_of(text: bytes, number: int, read: Callable[[bytes], list[_T]]) -> list[_T] | None:
    """Decode a ``number`` of lines together, which is faster than one by one; None unless all match."""
    try:
        found = read(text)
    except UNREADABLE:
        return None
    return found if len(found) == number else None
