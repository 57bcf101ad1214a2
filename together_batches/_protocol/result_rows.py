"""Results as flat rows of a table: from lines of an output, many together, or from values."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec
from msgspec import Struct

from together_batches._fields import carried
from together_batches._protocol import json_codec
from together_batches._protocol.json_codec import UNREADABLE, WireError
from together_batches._protocol.json_members import members
from together_batches._protocol.result_lines import read_row
from together_batches._protocol.to_dict import to_dict
from together_batches.errors import APIResponseValidationError
from together_batches.rows import BatchSuccess

if TYPE_CHECKING:
    from together_batches.rows import BatchResult

_Members = Mapping[str, object]
_NOTHING: _Members = {}


class ResultRow(NamedTuple):
    """A result as a row of a table: its columns and, if it was read by a schema before, its value."""

    custom_id: str | None
    result: str
    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error_code: str | None = None
    error: str | None = None
    parsed: object = None


class _Message(Struct, gc=False):
    content: str | None = None


class _Choice(Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None


class _Tokens(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(Struct, gc=False):
    choices: list[_Choice] = []
    text: str | None = None
    usage: _Tokens | None = None


class _Line(Struct, gc=False):
    custom_id: str | None
    result: str
    body: _Answer | None = None
    code: str | None = None
    status_code: int | None = None
    message: str | None = None  # of a failure; a stray row has a reason, and an answer that does not fit an error
    reason: str | None = None
    error: str | None = None
    raw: str | None = None  # the original line, for an answer that is not plain JSON the only one


_read_lines = msgspec.json.Decoder(_Line).decode_lines
_read_answer = msgspec.json.Decoder(_Answer).decode


def rows_of_lines(text: bytes, lines: list[bytes]) -> list[ResultRow] | None:
    """Return the rows in lines of an output, whose text is ``text``; None unless all have a usual shape."""
    found = json_codec.each_of(text, len(lines), _read_lines)
    return None if found is None else list(map(_row, found))


def with_texts(text: bytes) -> bytes:
    """Return whole lines of an output with the text of each answer as another member, ``text``, at the end."""
    lines = BytesIO(text).readlines()
    rows = rows_of_lines(text, lines) or [row_of_line(line) for line in lines]
    return b"".join(
        line
        if row.text is None
        else b'%b,"text":%b}\n' % (line[: line.rindex(b"}")], json_codec.quoted_text(row.text))
        for line, row in zip(lines, rows, strict=True)
    )


def row_of_line(line: bytes) -> ResultRow:
    """Return the row in a line of an output, also of one as the service writes it.

    Raises :class:`WireError` if the line holds no result.
    """
    try:
        value = json_codec.read(line)
    except WireError:
        value = _cut(line)
        if value is None:
            raise
    if not isinstance(value, dict):
        problem = f"{json_codec.kind(value)} in place of a result"
        raise WireError(problem)
    members = cast("_Members", value)
    if isinstance(members.get("result"), str):
        return _row(_line_of(members))
    if "response" in members or "error" in members:
        return row_of_result(read_row(line))
    problem = "a request in place of a result" if "body" in members else "an object that is not a result"
    raise WireError(problem)


def _cut(line: bytes) -> object:
    """Return what can be read of a line that is nested too deeply, None if it is not JSON at all."""
    try:
        found = members(line)
    except ValueError:
        return None
    value: dict[str, object] = {}
    body: dict[str, object] = {}
    for path, text in found.items():
        if path != ("body",):
            with suppress(WireError):
                (value if len(path) == 1 else body)[path[-1]] = json_codec.read(text)
    return {**value, "body": body}


def row_of_result(result: BatchResult[object]) -> ResultRow:
    """Return a result as a row."""
    if isinstance(result, BatchSuccess):
        return ResultRow(result.custom_id, "success", *_content(_answer_in(result)), parsed=result.parsed)
    return _row(_line_of(to_dict(result)))


def _row(line: _Line) -> ResultRow:
    custom_id, result, answer = line.custom_id, line.result, line.body
    if answer is None and result in _ANSWERED:
        answer = _answer_in(None if line.raw is None else read_row(line.raw.encode("utf-8", "surrogatepass")))
    if answer is not None:
        return ResultRow(custom_id, result, *_content(answer), None, line.error)
    code = str(line.status_code) if line.code is None and line.status_code is not None else line.code
    return ResultRow(custom_id, result, error_code=code, error=line.message or line.reason or line.error)


_ANSWERED = frozenset({"success", "invalid"})


def _content(answer: _Answer) -> tuple[str | None, str | None, int | None, int | None]:
    """Return text, finish reason and tokens of an answer."""
    text = finish_reason = prompt = completion = None
    if answer.choices:
        choice = answer.choices[0]
        finish_reason = choice.finish_reason
        if choice.message is not None:
            text = choice.message.content
    if answer.usage is not None:
        prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return answer.text if text is None else text, finish_reason, prompt, completion


def _answer_in(result: BatchResult[object] | None) -> _Answer:
    """Return what is read of an answer; nothing if it cannot be read."""
    if not isinstance(result, BatchSuccess):
        return _Answer()
    body = carried(result)
    if body is not None:
        try:
            return _read_answer(body)
        except UNREADABLE:
            pass
    try:
        return _answer_of(result.body)
    except APIResponseValidationError:
        return _Answer()


# What is decoded at once has the usual types; of other values each member is taken by itself, if it has its type.


def _line_of(members: _Members) -> _Line:
    body, status_code = members.get("body"), members.get("status_code")
    return _Line(
        _text(members, "custom_id"),
        str(members["result"]),
        _answer_of(cast("_Members", body)) if isinstance(body, Mapping) else None,
        _text(members, "code"),
        status_code if isinstance(status_code, int) else None,
        _text(members, "message"),
        _text(members, "reason"),
        _text(members, "error"),
        _text(members, "raw"),
    )


def _answer_of(body: _Members) -> _Answer:
    choices, usage = body.get("choices"), _object(body.get("usage"))
    choice = _object(cast("list[object]", choices)[0]) if isinstance(choices, list) and choices else _NOTHING
    message = _Message(_text(_object(choice.get("message")), "content"))
    tokens = _Tokens(_integer(usage, "prompt_tokens"), _integer(usage, "completion_tokens"))
    return _Answer([_Choice(message, _text(choice, "finish_reason"))], _text(body, "text"), tokens)


def _object(value: object) -> _Members:
    return cast("_Members", value) if isinstance(value, Mapping) else _NOTHING


def _text(members: _Members, name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None


def _integer(members: _Members, name: str) -> int | None:
    value = members.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
