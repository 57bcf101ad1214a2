"""Values as plain data, ready for JSON: the public :func:`to_dict`, and a row as a line of JSON."""

from __future__ import annotations

import json
import re
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from together_batches._fields import Plain, carried
from together_batches._protocol import json_codec
from together_batches.rows import BatchInvalid, BatchResult, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def to_dict(value: Plain) -> dict[str, Any]:
    """Return a value of the package as plain data, ready for JSON.

    Absent fields are omitted, times are text in UTC with ``Z``, and the entries of a job's ``extra`` are beside its
    fields, as the service sent them: ``job_from_dict(to_dict(job)) == job``. The row of a batch has its kind in
    ``result``: ``success``, ``invalid``, ``failure``, ``missing`` or ``stray``; its ``custom_id`` is null if it has
    none. An answer that JSON cannot represent (it has a NaN) is omitted, and is then in ``raw``, within the line as
    received. A ``parsed`` value is omitted: it is the text of the answer.

    A JSON library that accepts a function for unknown types accepts this one: ``json.dumps(value, default=to_dict)``.
    """
    given: object = value
    if not isinstance(given, Plain):
        message = f"to_dict takes the values of this package, not {type(given).__name__}"
        raise TypeError(message)
    return given.__to_dict__()


def line_of(row: BatchResult[object]) -> bytes:
    """Return a row as a line of JSON without its line end: its :func:`to_dict`, with the answer as received."""
    if isinstance(row, BatchSuccess) and (text := carried(row)) is not None:
        return success_line(row.custom_id, text, row.status_code)
    if isinstance(row, BatchInvalid) and (text := carried(row.answer)) is not None:
        parts = (
            json_codec.quoted_text(row.custom_id),
            text,
            row.answer.status_code,
            json_codec.quoted_text(row.error),
        )
        return b'{"custom_id":%b,"result":"invalid","body":%b,"status_code":%d,"error":%b}' % parts
    plain = to_dict(row)
    try:
        return json_codec.encode(plain)
    except json_codec.WireError:  # half of a surrogate pair in an id, which only an escape can represent
        return json.dumps(plain, separators=(",", ":")).encode()


_LINE = re.compile(rb'\{"custom_id":"(?:[^"\\]|\\.)*"')


def renamed_line(line: bytes, custom_id: str) -> bytes:
    """Return the line of a row, as :func:`line_of` makes it, as that of another row with the same result."""
    found = _LINE.match(line)
    assert found is not None  # noqa: S101  # lines of results have text as their id, which comes first
    return b"".join((b'{"custom_id":', json_codec.quoted_text(custom_id), line[found.end() :]))


def success_line(custom_id: str, body: bytes, status_code: int) -> bytes:
    """Return the line of a row that was answered, around the text of the answer, without its line end."""
    return success_lines([custom_id], [body], status_code)[:-1]


def success_lines(custom_ids: Sequence[str], bodies: Sequence[bytes], status_code: int) -> bytes:
    """Return the lines, with their line ends, of rows that were answered with the same status."""

    def joined(quoted: Callable[[str], bytes]) -> bytes:
        parts = (
            repeat(b'{"custom_id":'),
            map(quoted, custom_ids),
            repeat(b',"result":"success","body":'),
            bodies,
            repeat(b',"status_code":%d}\n' % status_code),
        )
        # One join of all parts takes half the time of formatting each line.
        return b"".join(chain.from_iterable(zip(*parts, strict=False)))

    try:
        return joined(json_codec.quoted)
    except UnicodeEncodeError:  # an id is rarely half of a surrogate pair
        return joined(json_codec.quoted_text)
