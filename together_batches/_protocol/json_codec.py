"""JSON to values and back, rows of results and requests; jobs and files are in :mod:`.job_codec`."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from together_batches._fields import Carried
from together_batches._protocol.json_members import members, salvaged_id
from together_batches.errors import APIResponseValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.rows import Usage

__all__ = [
    "UNREADABLE",
    "UNSET",
    "Answer",
    "Body",
    "RequestLine",
    "Row",
    "WireError",
    "answers",
    "are_objects",
    "carried_request",
    "custom_ids",
    "decode",
    "decode_row",
    "encode",
    "kind",
    "quoted",
    "read",
    "request",
    "request_body",
    "requests",
    "salvaged_id",
    "usage",
]


_Object = dict[str, object]
_T = TypeVar("_T")


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


# --- JSON ---------------------------------------------------------------------------------------------------------

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
    if (fields := _fields_of(type(value))) is not None:
        return {name: getattr(value, name) for name in fields if not name.startswith("_")}
    numpy: Any = sys.modules.get("numpy")  # a number of numpy exists only if numpy is imported
    if numpy is not None:
        for kind, number in ((numpy.bool_, bool), (numpy.integer, int), (numpy.floating, float)):
            if isinstance(value, kind):
                return cast("Callable[[object], object]", number)(value)
    message = f"Type is not JSON serializable: {type(value).__name__}"
    raise TypeError(message)


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


# --- a row --------------------------------------------------------------------------------------------------------


class Row(Struct, frozen=True, gc=False):
    """A line of results, cut and not decoded. ``body`` is the text of the answer as in the line.

    ``body`` is None if the line has no answer, or is not JSON: then ``value`` has the answer as Python reads it.
    """

    custom_id: object = None
    status_code: object = None
    error: object = None
    body: bytes | None = None
    value: object = None


def decode_row(line: bytes) -> Row:
    """Return the content of a line of an output or an error file; raise :class:`WireError` if no object can be read.

    The text of the answer is a copy, because a slice of the line would keep all of it; a carriage return in it is
    between two tokens, and becomes a space.
    """
    try:
        row = _read_row(line)
        error = None if row.error is _ABSENT else cast("object", _decode(row.error))
        # Skipped text is not checked for broken characters.
        if line.isascii() or line.decode():
            body = bytes(row.response.body).replace(b"\r", b" ")
            return Row(row.custom_id, row.response.status_code, error, body or None)
    except UNREADABLE:
        pass
    try:
        found = members(line)
        custom_id, status_code, error = map(_small, map(found.get, _SMALL))
        body = found.get(("response", "body"), b"").replace(b"\r", b" ")
        return Row(custom_id, status_code, error, body or None)
    except (ValueError, RecursionError):
        value = read(line)
    if not isinstance(value, dict):
        problem = f"{kind(value)} in place of an object"
        raise WireError(problem)
    fields = cast("_Object", value)
    answer = fields.get("response")
    response = cast("_Object", answer) if isinstance(answer, dict) else {}
    return Row(fields.get("custom_id"), response.get("status_code"), fields.get("error"), value=response.get("body"))


class Body(Carried):
    """The body of an answer or of a request, carried as text."""

    __slots__ = ()

    def decode(self) -> dict[str, object]:
        """Return the value; raise :class:`APIResponseValidationError` if it cannot be read."""
        try:
            value = read(self.text)
            if isinstance(value, dict):
                return cast("_Object", value)
            problem = f"it is {kind(value)}"
        except WireError as error:
            problem = error.reason
        message = f"{problem}; its text is in raw, and in the output of a run"
        raise APIResponseValidationError(message, expected="an answer that can be decoded", excerpt=self._excerpt())

    def outline(self) -> Mapping[str, object]:
        """Return the members that hold texts and tokens, without decoding the others; empty if unreadable."""
        try:
            return cast("Mapping[str, object]", _read_outline(self.text))
        except UNREADABLE:
            pass
        try:
            return self.decode()
        except APIResponseValidationError:
            return {}

    def _excerpt(self) -> str:
        return self.text[:_EXCERPT_BYTES].decode("utf-8", "replace")


_EXCERPT_BYTES = 200


class _Message(TypedDict, total=False):
    content: Any


class _Choice(TypedDict, total=False):
    message: _Message


class _Outline(TypedDict, total=False):
    choices: list[_Choice]
    text: Any
    usage: Any


_read_outline = msgspec.json.Decoder(_Outline).decode


class _Tokens(Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Usage(Struct, gc=False):
    usage: _Tokens | None = None


_read_usage = msgspec.json.Decoder(_Usage).decode


def usage(body: bytes) -> tuple[int, int, int] | None:
    """Return the tokens that an answer took: of the prompt, of the completion and in all, if present."""
    found: _Tokens | Usage | None
    try:
        found = _read_usage(body).usage
    except UNREADABLE:  # a number as text, for example
        from together_batches.rows import BatchSuccess  # a client that reads no results does without it

        found = BatchSuccess("", Body(body)).usage
    return None if found is None else (found.prompt_tokens, found.completion_tokens, found.total_tokens)


quoted: Callable[[str], bytes] = msgspec.json.Encoder().encode
"""Encode a text as JSON."""


def _small(text: bytes | None) -> object:
    return None if text is None else read(text)


_ABSENT = Raw()
_SMALL = (("custom_id",), ("response", "status_code"), ("error",))


class _Response(Struct, frozen=True, gc=False):
    status_code: Any = None
    body: Raw = _ABSENT


class _Line(Struct, gc=False):
    custom_id: Any = None
    response: _Response = _Response()
    error: Raw = _ABSENT


_read_row = msgspec.json.Decoder(_Line).decode


class Answer(Struct, gc=False):
    custom_id: str | None = None
    response: _AnswerResponse | None = None
    error: Any = None


class _AnswerResponse(Struct, gc=False):
    status_code: int
    body: Raw


_read_answers = msgspec.json.Decoder(Answer).decode_lines
_OPENING = ord("{")


def answers(text: bytes, lines: list[bytes]) -> list[Answer] | None:
    """Decode lines of results together, leaving the bodies as text; None unless all have a usual shape.

    ``text`` is that of all ``lines``. A line may still hold two results if another is part of one.
    """
    return _each(text, len(lines), _read_answers) if _is_utf8(text, lines) else None


def are_objects(lines: list[bytes]) -> bool:
    """Return whether lines, each with its end, all begin and end like an object; then none is blank.

    JSON has no line end between two such brackets except between two texts, so that each line has at least one text.
    """
    return {line[:1] for line in lines} == {b"{"} and {line[-2:] for line in lines} == {b"}\n"}


def _is_utf8(text: bytes, lines: list[bytes]) -> bool:
    """Return whether the text has no broken characters; the decoder does not check what it skips."""
    try:
        if not text.isascii():
            for line in lines:
                if not line.isascii():
                    line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _each(text: bytes, number: int, read: Callable[[bytes], list[_T]]) -> list[_T] | None:
    """Decode a ``number`` of lines together, which is faster than one by one; None unless all match."""
    try:
        found = read(text)
    except UNREADABLE:
        return None
    return found if len(found) == number else None


# --- a request ----------------------------------------------------------------------------------------------------


class _Asked(Struct, gc=False):
    model: str
    stream: bool | UnsetType = UNSET


class RequestLine(Struct, gc=False):
    custom_id: str
    body: _Asked
    method: str | None = None
    url: str | UnsetType = UNSET


_read_request = msgspec.json.Decoder(RequestLine).decode
_read_requests = msgspec.json.Decoder(RequestLine).decode_lines


def requests(text: bytes, lines: list[bytes]) -> list[RequestLine] | None:
    """Decode lines of requests together, skipping most of each; None unless each is one object that matches."""
    is_usual = are_objects(lines) and _is_utf8(text, lines)
    return _each(text, len(lines), _read_requests) if is_usual else None


def request(line: bytes) -> object:
    """Return the value in a line of a request; raise :class:`WireError` if it is not JSON.

    A number beyond the range of floats is JSON, and a row with one is carried.
    """
    try:
        return decode(line)
    except WireError:
        try:
            line.decode()
            _read_request(line)
        except UNREADABLE:
            pass
        else:
            return cast("object", json.loads(line, parse_int=float))
        raise


def carried_request(line: bytes) -> tuple[str, Body, str | None] | None:
    """Return the ``custom_id``, the body as in the line, and the method of a request; None if it is unusual."""
    try:
        row = _read_carried(line)
        text = bytes(row.body)
        if row.custom_id and text[0] == _OPENING and (line.isascii() or line.decode()):
            return row.custom_id, Body(text.replace(b"\r", b" ")), row.method
    except UNREADABLE:
        pass
    return None


def request_body(line: bytes) -> Body:
    """Return the body of a request, cut from its line, which is known to be JSON with an object as its body."""
    return Body(bytes(_read_body(line).body).replace(b"\r", b" "))


class _BodyOfRequest(Struct, gc=False):
    body: Raw


_read_body = msgspec.json.Decoder(_BodyOfRequest).decode


class _CarriedRequest(Struct, gc=False):
    custom_id: str
    body: Raw
    method: str | None = None


_read_carried = msgspec.json.Decoder(_CarriedRequest).decode


def custom_ids(lines: bytes) -> list[str]:
    """Return the ``custom_id`` of each of these requests, read without their bodies; an empty one if it has none."""
    named = _each(lines, lines.count(b"\n"), _read_ids)
    return (
        [_custom_id(line) for line in lines.split(b"\n")[:-1]] if named is None else [row.custom_id for row in named]
    )


def _custom_id(line: bytes) -> str:
    try:
        fields = read(line)
    except WireError:
        return ""
    found = cast("_Object", fields).get("custom_id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""


class _Named(Struct, gc=False):
    custom_id: str


_read_ids = msgspec.json.Decoder(_Named).decode_lines
