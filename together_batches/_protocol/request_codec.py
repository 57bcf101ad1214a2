"""Lines of requests: decoded, or cut from their text without decoding the bodies."""

from __future__ import annotations

import json
from itertools import chain
from typing import NamedTuple, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from together_batches._protocol.carried_body import Body
from together_batches._protocol.json_codec import UNREADABLE, WireError, are_objects, decode, each_of, is_utf8, read
from together_batches._protocol.json_members import members

__all__ = [
    "UNSET",
    "Measured",
    "RequestLine",
    "carried_request",
    "custom_ids",
    "measured",
    "packed_copies",
    "packed_ids",
    "request",
    "request_body",
    "requests",
    "unpacked_copies",
    "unpacked_ids",
    "with_response_format",
]

_OPENING = ord("{")


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
    is_usual = are_objects(lines) and is_utf8(text, lines)
    return each_of(text, len(lines), _read_requests) if is_usual else None


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


class Measured(NamedTuple):
    """The size of a request: its model, the bytes of its body, and the most tokens of its answer, if limited."""

    model: str
    body_bytes: int
    most_tokens: int | None


def measured(line: bytes) -> Measured:
    """Return the size of a request; raise :class:`WireError` if the line is not a request."""
    try:
        body = _read_body(line).body
        limits = _read_limits(body)
    except UNREADABLE as error:
        raise WireError(str(error)) from error
    given = limits.max_tokens if limits.max_completion_tokens is None else limits.max_completion_tokens
    most = given if isinstance(given, int) and not isinstance(given, bool) else None
    answers = limits.n if isinstance(limits.n, int) and limits.n > 0 else 1
    return Measured(limits.model, len(memoryview(body)), None if most is None else most * answers)


class _Limits(Struct, gc=False):
    model: str
    max_tokens: object = None
    max_completion_tokens: object = None
    n: object = None


_read_limits = msgspec.json.Decoder(_Limits).decode


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
    named = each_of(lines, lines.count(b"\n"), _read_ids)
    return (
        [_custom_id(line) for line in lines.split(b"\n")[:-1]] if named is None else [row.custom_id for row in named]
    )


def packed_ids(ids: list[str]) -> bytes:
    """Return ids as a line of JSON."""
    return _encode(ids) + b"\n"


def unpacked_ids(lines: bytes) -> list[str]:
    """Return the ids in such lines; raise :class:`WireError` if they contain anything else."""
    try:
        return list(chain.from_iterable(_read_packed(lines)))
    except UNREADABLE as error:
        problem = "not lines of ids"
        raise WireError(problem) from error


def packed_copies(rows: list[tuple[str, int]]) -> bytes:
    """Return lines of JSON, each with the id of a row, and the place of the row that is sent for it."""
    return _encode_lines(rows)


def unpacked_copies(lines: bytes) -> list[tuple[str, int]]:
    """Return what such lines contain; raise :class:`WireError` if they contain anything else."""
    try:
        return _read_copies(lines)
    except UNREADABLE as error:
        problem = "not lines of ids and places"
        raise WireError(problem) from error


_encode_lines = msgspec.json.Encoder().encode_lines
_read_copies = msgspec.json.Decoder(tuple[str, int]).decode_lines
_encode = msgspec.json.Encoder().encode
_read_packed = msgspec.json.Decoder(list[str]).decode_lines


def _custom_id(line: bytes) -> str:
    try:
        fields = read(line)
    except WireError:
        return ""
    found = cast("dict[str, object]", fields).get("custom_id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""


class _Named(Struct, gc=False):
    custom_id: str


_read_ids = msgspec.json.Decoder(_Named).decode_lines


# --- a member that is added to bodies -----------------------------------------------------------------------------

_BOM = b"\xef\xbb\xbf"


class _Format(Struct, gc=False):
    response_format: Raw | UnsetType = UNSET


_read_format = msgspec.json.Decoder(_Format).decode


def response_format_member(value: bytes) -> bytes:
    """Return the member ``response_format`` with this value, as JSON."""
    return b'"response_format":' + value


def with_response_format(line: bytes, member: bytes) -> bytes:
    """Return the line of a request with a member at the beginning of its body, unless that has a ``response_format``.

    No other byte changes, and a line that is not a request is returned as it is.
    """
    if line.startswith(_BOM):
        return _BOM + with_response_format(line[len(_BOM) :], member)
    body, has_format = _body_in(line)
    if has_format or body[:1] != b"{":
        return line
    begin = b"{" + member + (b"" if body[1:].lstrip().startswith(b"}") else b",")
    place = line.find(body)
    while True:
        changed = line[:place] + begin + line[place + 1 :]
        place = line.find(body, place + 1)
        # The same text may be in another member, too.
        if place < 0 or _body_in(changed)[0] == begin + body[1:]:
            return changed


def _body_in(line: bytes) -> tuple[bytes, bool]:
    """Return the text of the body in a line, empty if there is none, and whether it has a ``response_format``."""
    try:
        body = _read_body(line).body
        return bytes(body), _read_format(body).response_format is not UNSET
    except UNREADABLE:
        pass
    try:
        found = members(line)
    except (ValueError, RecursionError):
        return b"", False
    return found.get(("body",), b""), ("body", "response_format") in found
