"""Results as flat rows of a table: from lines of an output, many together, or from values."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec
from msgspec import Struct

from together_batches._fields import Outline, member, outline_in, outline_of
from together_batches._protocol import json_codec
from together_batches._protocol.carried_body import UsualAnswer  # noqa: TC001  # msgspec reads annotations
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.json_members import members
from together_batches._protocol.result_lines import read_row
from together_batches._protocol.to_dict import to_dict
from together_batches.rows import BatchSuccess

if TYPE_CHECKING:
    from together_batches.rows import BatchResult

_Members = Mapping[str, object]


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


class _Line(Struct, gc=False):
    custom_id: str | None
    result: str
    body: UsualAnswer | None = None
    code: str | None = None
    status_code: int | None = None
    message: str | None = None  # of a failure; a stray row has a reason, and an answer that does not fit an error
    reason: str | None = None
    error: str | None = None
    raw: str | None = None  # the original line, for an answer that is not plain JSON the only one


_read_lines = msgspec.json.Decoder(_Line).decode_lines


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
        problem = f"{json_codec.kind(value)} instead of a result"
        raise WireError(problem)
    members = cast("_Members", value)
    if isinstance(members.get("result"), str):
        return _unusual_row(members)
    if "response" in members or "error" in members:
        return row_of_result(read_row(line))
    problem = "a request instead of a result" if "body" in members else "an object that is not a result"
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
        return ResultRow(result.custom_id, "success", *outline_of(result)[:4], parsed=result.parsed)
    return _unusual_row(to_dict(result))


def _row(line: _Line) -> ResultRow:
    return _row_with(line, None if line.body is None else line.body.outline())


def _row_with(line: _Line, answer: Outline | None) -> ResultRow:
    custom_id, result = line.custom_id, line.result
    if answer is None and result in _ANSWERED:
        row = None if line.raw is None else read_row(line.raw.encode("utf-8", "surrogatepass"))
        answer = outline_of(row) if isinstance(row, BatchSuccess) else Outline()
    if answer is not None:
        return ResultRow(custom_id, result, *answer[:4], None, line.error)
    code = str(line.status_code) if line.code is None and line.status_code is not None else line.code
    return ResultRow(custom_id, result, error_code=code, error=line.message or line.reason or line.error)


_ANSWERED = frozenset({"success", "invalid"})


def _unusual_row(members: _Members) -> ResultRow:
    """Return the row in a decoded line, of which each member is taken by itself, if it has its usual type."""
    line = _Line(
        member(members, "custom_id", str),
        str(members["result"]),
        None,
        member(members, "code", str),
        member(members, "status_code", int),
        member(members, "message", str),
        member(members, "reason", str),
        member(members, "error", str),
        member(members, "raw", str),
    )
    body = members.get("body")
    return _row_with(line, outline_in(cast("object", body)) if isinstance(body, Mapping) else None)
