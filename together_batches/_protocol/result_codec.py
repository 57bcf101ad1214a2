"""Lines of results: cut from their text, one by one or many together, without decoding the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Raw, Struct

from together_batches._protocol.carried_body import Body
from together_batches._protocol.json_codec import UNREADABLE, WireError, decode, each_of, is_utf8, kind, read
from together_batches._protocol.json_members import members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from together_batches.rows import BatchSuccess

_Object = dict[str, object]


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
        error = None if row.error is _ABSENT else decode(bytes(row.error))
        # Skipped text is not checked for broken characters.
        if line.isascii() or line.decode():
            body = bytes(row.response.body).replace(b"\r", b" ")
            return Row(row.custom_id, row.response.status_code, error, body or None)
    except (*UNREADABLE, WireError):
        pass
    try:
        found = members(line)
        custom_id, status_code, error = map(_small, map(found.get, _SMALL))
        body = found.get(("response", "body"), b"").replace(b"\r", b" ")
        return Row(custom_id, status_code, error, body or None)
    except (ValueError, RecursionError):
        value = read(line)
    if not isinstance(value, dict):
        problem = f"{kind(value)} instead of an object"
        raise WireError(problem)
    fields = cast("_Object", value)
    answer = fields.get("response")
    response = cast("_Object", answer) if isinstance(answer, dict) else {}
    return Row(fields.get("custom_id"), response.get("status_code"), fields.get("error"), value=response.get("body"))


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


def answers(text: bytes, lines: list[bytes]) -> list[Answer] | None:
    """Decode lines of results together, leaving the bodies as text; None unless all have a usual shape.

    ``text`` is that of all ``lines``. A line may still hold two results if another is part of one.
    """
    return each_of(text, len(lines), _read_answers) if is_utf8(text, lines) else None


BodyText = bytes | Raw
"""Text of an answer, as a copy or within its line."""


class _Tokens(Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Usage(Struct, gc=False):
    usage: _Tokens | None = None


_read_usage = msgspec.json.Decoder(_Usage).decode


def usage(bodies: Sequence[BodyText]) -> tuple[int, int, int]:
    """Return the tokens that answers took: of the prompts, of the completions and in all.

    Each body is the text of an object, cut from its line.
    """
    found: list[_Usage] | list[BatchSuccess]
    try:
        found = [_read_usage(body) for body in bodies]
    except UNREADABLE:  # a number as text, for example
        from together_batches.rows import BatchSuccess  # a client that reads no results does without it

        found = [BatchSuccess("", Body(bytes(body))) for body in bodies]
    used = [row.usage for row in found if row.usage is not None]
    return (
        sum([tokens.prompt_tokens for tokens in used]),
        sum([tokens.completion_tokens for tokens in used]),
        sum([tokens.total_tokens for tokens in used]),
    )
