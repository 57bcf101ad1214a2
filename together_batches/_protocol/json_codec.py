"""JSON to values and back: the only module that knows msgspec and cattrs.

Nothing that the service sends is trusted: each field is checked for its type (cattrs by itself would turn a number
into text). Usual input is read by msgspec into a struct with the fields of :class:`BatchJob`; other input is read
field by field, so that an invalid field affects only itself.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypedDict, TypeVar, cast
from uuid import UUID

import attrs
import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from together_batches._fields import Carried, OnDemand, time_of
from together_batches._protocol.json_members import members, salvaged_id
from together_batches._protocol.paging import sign_of_more
from together_batches.errors import APIResponseValidationError, ValidationError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "UNREADABLE",
    "UNSET",
    "Answer",
    "Body",
    "RequestLine",
    "Row",
    "Tokens",
    "WireError",
    "answers",
    "are_objects",
    "carried_request",
    "custom_ids",
    "decode",
    "decode_row",
    "encode",
    "entries",
    "file",
    "job",
    "job_from_dict",
    "kind",
    "quoted",
    "read",
    "request",
    "request_body",
    "requests",
    "salvaged_id",
    "usage",
]


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
    problem = "no JSON" if body else "nothing at all"
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


# --- a field ------------------------------------------------------------------------------------------------------


def _wrong(value: object, expected: str) -> NoReturn:
    message = f"{kind(value)} in place of {expected}"
    raise TypeError(message)


def _identity(value: object, _: object) -> str:
    if isinstance(value, str) and value:
        return value
    if value is None or value == "":
        message = "no id"
        raise TypeError(message)
    _wrong(value, "an id")


def _text(value: object, _: object) -> str:
    return value if isinstance(value, str) else _wrong(value, "text")


def _integer(value: object, _: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else _wrong(value, "a whole number")


def _number(value: object, _: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _wrong(value, "a number")


def _kept(value: object, _: object) -> object:
    return value


def _truth(value: object, _: object) -> bool:
    return value if isinstance(value, bool) else _wrong(value, "true or false")


def _status(value: object, _: object) -> BatchJobStatus:
    return BatchJobStatus(value) if isinstance(value, str) else _wrong(value, "a status")


def _time(value: object, _: object) -> datetime | None:
    """Return the time in a text, as jobs have it; files have seconds since 1970."""
    return time_of(value) if isinstance(value, str) else _wrong(value, "a time")


def _moment(value: object, _: object) -> datetime | None:
    """Return the time of a file: seconds since 1970, or text as in jobs."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _time(value, None)
    return datetime.fromtimestamp(value, UTC) if value else None


_HOOKS: dict[object, Callable[[object, object], object]] = {
    str: _identity,
    str | None: _text,
    int | None: _integer,
    float | None: _number,
    bool | None: _truth,
    BatchJobStatus | None: _status,
    datetime | None: _time,
}
_EXTRA = "\0extra"  # no JSON of the service has this key, while it might have "extra"
_SENT_AS = {"file_type": "FileType", "processed": "Processed", "line_count": "LineCount", "extra": _EXTRA}
"""Names of fields in the input, if they differ from those of the class."""


# --- a job, a file ------------------------------------------------------------------------------------------------

_Value = TypeVar("_Value", BatchJob, FileObject)
_T = TypeVar("_T")


def job(sent: object, where: str = "$") -> BatchJob:
    """Return the job in a JSON value, decoded or as its text; raise :class:`WireError` if it is not a job.

    A job needs an id. An invalid optional field becomes None, and its value is kept in ``extra``.
    """
    try:
        if isinstance(sent, _TEXT):
            return _made(_read_usual(sent), _Later(bytes(sent)))
        usual = msgspec.convert(sent, _Usual)
        return _made(usual, {name: value for name, value in cast("_Object", sent).items() if name not in _NAMES})
    except (*UNREADABLE, ValueError, OverflowError):
        return _structured(BatchJob, read(sent) if isinstance(sent, _TEXT) else sent, where)


def file(sent: object, where: str = "$") -> FileObject:
    """Return the file in a JSON value, read as :func:`job` reads a job."""
    return _structured(FileObject, read(sent) if isinstance(sent, _TEXT) else sent, where)


def entries(body: bytes) -> list[object]:
    """Return the entries of a list for :func:`job` or :func:`file`, bare or in an object as ``data``; null is empty.

    An entry stays text as long as possible: decoding all entries before the first job is made takes twice the time,
    because 50,000 dicts are a heavy load for the garbage collector.
    """
    try:
        return cast("list[object]", _read_entries(body) or [])
    except UNREADABLE:
        value = read(body)
    if isinstance(value, dict):
        page = cast("_Object", value)
        value = page.get("data", cast("object", value))
        sign = sign_of_more(page, len(cast("list[object]", value)) if isinstance(value, list) else 0)
        if sign is not None:
            raise WireError("it is only a part of one, and no paging is known", f"$.{sign}")
    if value is None:
        return []
    if not isinstance(value, list):
        problem = f"{kind(value)} in place of a list"
        raise WireError(problem)
    return cast("list[object]", value)


def job_from_dict(mapping: Mapping[str, object]) -> BatchJob:
    """Return the job in a mapping such as :func:`together_batches.to_dict` or the service makes.

    Entries of the mapping beyond the fields of :class:`BatchJob`, and invalid values of fields, are kept in
    ``extra``. Raises :class:`ValidationError`, whose text names the field, if the mapping has no id.
    """
    given: object = mapping
    if not isinstance(given, Mapping):
        message = f"this is no batch job: expected a mapping, not {type(given).__name__}"
        raise ValidationError(message, problems=[message])
    try:
        return job(dict(mapping))
    except WireError as error:
        message = f"this is no batch job: {error.problem} at {error.where}"
        raise ValidationError(message, problems=[message]) from error


_Object = dict[str, object]
_TEXT = (bytes, Raw)
_SOME_TEXT: Any = Annotated[str, Meta(min_length=1)]
_PERCENTAGE: Any = Annotated[float, Meta(ge=0, le=100)]
_USUAL: dict[object, object] = {
    str: _SOME_TEXT,
    str | None: _SOME_TEXT | None,
    int | None: int | None,
    float | None: _PERCENTAGE | None,
    BatchJobStatus | None: BatchJobStatus | None,
    datetime | None: _SOME_TEXT | None,
}
"""The type from which a field of each type is read if the input is usual."""


def _fields(value_type: type[attrs.AttrsInstance]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields with their types, which are only texts before they are resolved."""
    return cast("tuple[attrs.Attribute[Any], ...]", attrs.fields(attrs.resolve_types(value_type)))


_FIELDS = [field for field in _fields(BatchJob) if field.name != "extra"]
_NAMES = frozenset(field.name for field in _FIELDS)
_Usual = msgspec.defstruct(
    "_Usual",
    [(field.name, _USUAL[field.type], msgspec.NODEFAULT if field.name == "id" else None) for field in _FIELDS],
    gc=False,
)
_read_usual = msgspec.json.Decoder(_Usual).decode
_read_entries = msgspec.json.Decoder(list[Raw] | None).decode


def _maker() -> Callable[[Struct, _Object | _Later], BatchJob]:
    """Return a function that makes a job from the input, with a line for each field, as attrs writes an ``__init__``.

    Calling :class:`BatchJob` checks everything once more, which takes longer than all other steps; a loop over the
    fields takes half as long again.
    """
    names: dict[str, Any] = {"new": object.__new__, "cls": BatchJob, "time": time_of}
    lines = ["def make(usual, extra):", "job = new(cls)"]
    for field in _fields(BatchJob):
        slot: Any = getattr(BatchJob, field.name)
        value = f"usual.{field.name}"
        if isinstance(slot, OnDemand):
            slot, value = slot.slot, field.name
        elif field.type == datetime | None:
            value = f"{value} and time({value})"
        elif field.type == BatchJobStatus | None:
            value = f"{value} or None"  # an empty text is an unknown status
        names[f"set_{field.name}"] = slot.__set__
        lines.append(f"set_{field.name}(job, {value})")
    exec("\n ".join([*lines, "return job"]), names)  # noqa: S102
    return cast("Callable[[Struct, _Object | _Later], BatchJob]", names["make"])


_made = _maker()


class _Later(Struct, gc=False):
    """The ``extra`` of a job, read from its text on first use."""

    text: bytes

    def __call__(self) -> _Object:
        try:
            sent = cast("_Object", read(self.text))
        except WireError:  # too deep to be read; the readable parts have been read
            return {}
        return {name: value for name, value in sent.items() if name not in _NAMES}


@cache
def _structure(value_type: type[Any]) -> Callable[[_Object, type[Any]], Any]:
    """Return the converter of cattrs; it is created, and cattrs imported, only for unusual input, which is rare."""
    from cattrs.gen import make_dict_structure_fn, override
    from cattrs.preconf.msgspec import make_converter

    hooks = _HOOKS if value_type is BatchJob else {**_HOOKS, datetime | None: _moment}
    overrides: dict[str, Any] = {
        field.name: override(rename=_SENT_AS.get(field.name, field.name), struct_hook=hooks.get(field.type, _kept))
        for field in _fields(value_type)
    }
    return make_dict_structure_fn(value_type, make_converter(), **overrides)


def _structured(value_type: type[_Value], sent: object, where: str) -> _Value:
    """Return the value, read field by field by cattrs, which names each invalid field."""
    from cattrs.errors import ClassValidationError

    if not isinstance(sent, dict):
        problem = f"{kind(sent)} in place of an object"
        raise WireError(problem, where)
    rest = cast("_Object", sent).copy()
    names = {field.name: _SENT_AS.get(field.name, field.name) for field in _fields(value_type)}
    found = {name: rest.pop(name, None) for name in names.values() if name != _EXTRA}
    known = {name: value for name, value in found.items() if value is not None and value != ""}
    structure: Callable[[_Object, type[_Value]], _Value] = _structure(cast("Any", value_type))
    try:
        return structure({**known, _EXTRA: rest}, value_type)
    except ClassValidationError as error:
        wrong = {note.name: cause for cause, note in error.group_exceptions()[0]}
        if "id" in wrong:
            problem = str(wrong["id"]) if "id" in known else "no id"
            raise WireError(problem, f"{where}.id") from error
    for name in wrong:
        rest[names[name]] = known.pop(names[name])
    return structure({**known, _EXTRA: rest}, value_type)


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


def usage(body: bytes) -> tuple[int, int, int] | None:
    """Return the tokens that an answer took: of the prompt, of the completion and in all, if present."""
    try:
        found = _read_usage(body).usage
        return None if found is None else (found.prompt_tokens, found.completion_tokens, found.total_tokens)
    except UNREADABLE:
        pass
    try:
        value: Any = read(body)
        counts = [value["usage"].get(name) for name in Tokens.__struct_fields__]
    except (WireError, AttributeError, LookupError, TypeError):
        return None
    prompt, completion, total = (count if isinstance(count, int) else 0 for count in counts)
    return prompt, completion, total


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


class Tokens(Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Usage(Struct, gc=False):
    usage: Tokens | None = None


_read_row = msgspec.json.Decoder(_Line).decode


class Answer(Struct, gc=False):
    custom_id: str | None = None
    response: _AnswerResponse | None = None
    error: Any = None


class _AnswerResponse(Struct, gc=False):
    status_code: int
    body: Raw


_read_answers = msgspec.json.Decoder(Answer).decode_lines
_read_usage = msgspec.json.Decoder(_Usage).decode
_OPENING = ord("{")


def answers(lines: bytes, number: int) -> list[Answer] | None:
    """Decode a ``number`` of lines of results, leaving the bodies as text; None unless all have a usual shape.

    A line may still hold two of them if another is part of one.
    """
    return _each(lines, number, _read_answers)


def are_objects(lines: bytes, number: int) -> bool:
    """Return whether a ``number`` of lines, with their ends, all begin and end like an object: then none is blank.

    JSON has no line end between two such brackets except between two texts, so that each line has at least one text.
    """
    if not (lines.startswith(b"{") and lines.endswith(b"}\n")):
        return False
    # The search is faster for more text, and the lines of most files begin alike.
    return lines.count(b"}\n" + lines[:8]) == number - 1 or lines.count(b"}\n{") == number - 1


def _each(lines: bytes, number: int, read: Callable[[bytes], list[_T]]) -> list[_T] | None:
    """Decode lines together, which is faster than one by one; None unless all match."""
    try:
        found = read(lines)
        if not lines.isascii():
            lines.decode()  # text that is skipped is not checked for broken characters
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


def requests(lines: bytes, number: int) -> list[RequestLine] | None:
    """Decode a ``number`` of lines of requests, skipping most of each; None unless each is one such object."""
    return _each(lines, number, _read_requests) if are_objects(lines, number) else None


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
