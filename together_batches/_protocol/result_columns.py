"""Results as the columns of a table: from the lines of an output, many together, or from values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from msgspec import Struct

from together_batches._fields import carried
from together_batches._protocol import json_codec
from together_batches._protocol.json_codec import UNREADABLE, WireError
from together_batches._protocol.result_lines import read_row
from together_batches._protocol.to_dict import to_dict
from together_batches.rows import BatchResult, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Columns(NamedTuple):
    """The columns that every table of results has, each with a value for each row."""

    custom_id: list[str | None]
    result: list[str]
    text: list[str | None]
    finish_reason: list[str | None]
    prompt_tokens: list[int | None]
    completion_tokens: list[int | None]
    error_code: list[str | None]
    error: list[str | None]


# What a line of an output holds of these columns. Numbers, texts and nulls are not tracked by the garbage collector,
# and a row refers to nothing that refers back to it.


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


class _Success(Struct, gc=False):
    body: _Answer | None = None


class ResultRow(Struct, gc=False):
    """One result. The members are those of its line; ``answer`` is that of a result that does not fit its schema."""

    custom_id: str | None
    result: str
    body: _Answer | None = None
    answer: _Success | None = None
    text: str | None = None
    code: str | None = None
    status_code: int | None = None
    message: str | None = None
    reason: str | None = None
    error: str | None = None
    raw: str | None = None

    @property
    def content(self) -> str | None:
        """The text of the answer, if there is one."""
        if self.text is not None:
            return self.text
        body = self.body
        if body is None:
            return None
        choice = body.choices[0] if body.choices else None
        content = None if choice is None or choice.message is None else choice.message.content
        return body.text if content is None else content


_read_rows = msgspec.json.Decoder(ResultRow).decode_lines
_read_row = msgspec.json.Decoder(ResultRow).decode
_read_answer = msgspec.json.Decoder(_Answer).decode


def rows_of(text: bytes, lines: list[bytes]) -> list[ResultRow] | None:
    """Decode lines of an output together; None unless all have a usual shape. ``text`` is that of all ``lines``."""
    rows = json_codec.each_of(text, len(lines), _read_rows)
    return None if rows is None else [_complete(row) for row in rows if row.raw is None]


def row_of_line(line: bytes) -> ResultRow:
    """Return the result in a line of an output, also of one that the service wrote.

    Raises :class:`WireError` if the line holds no result.
    """
    try:
        row = _read_row(line)
        if row.raw is None:
            return row
    except UNREADABLE:
        pass
    value = json_codec.read(line)
    if not isinstance(value, dict):
        problem = f"{json_codec.kind(value)} in place of a result"
        raise WireError(problem)
    found = cast("dict[str, Any]", value)
    if isinstance(found.get("result"), str):
        return _row_of_members(found)
    if found.keys() & {"response", "error"}:
        return row_of_result(read_row(line))
    problem = "an object without a result" if "body" not in found else "a request in place of a result"
    raise WireError(problem)
