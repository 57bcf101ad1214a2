"""Values as plain data, ready for JSON: the public :func:`to_dict`, and a row as a line of JSON."""

from __future__ import annotations

import json
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import attrs

from together_batches._fields import Plain, carried, written
from together_batches._protocol import json_codec
from together_batches.errors import APIResponseValidationError, APIStatusError, BatchesError
from together_batches.models import BatchJob, FileObject
from together_batches.outcomes import CancelOutcome, CancelReport
from together_batches.rows import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchResult,
    BatchStray,
    BatchSuccess,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_RESULTS: dict[type, str] = {
    BatchSuccess: "success",
    BatchInvalid: "invalid",
    BatchFailure: "failure",
    BatchMissing: "missing",
    BatchStray: "stray",
}


def to_dict(
    value: BatchJob | FileObject | CancelOutcome | CancelReport | BatchResult[object] | Usage | Plain,
) -> dict[str, Any]:
    """Return a value of the package as plain data, ready for JSON.

    Absent fields are omitted, times are text in UTC with ``Z``, and the entries of a job's ``extra`` are beside its
    fields, as the service sent them: ``job_from_dict(to_dict(job)) == job``. The row of a batch has its kind in
    ``result``: ``success``, ``invalid``, ``failure``, ``missing`` or ``stray``; its ``custom_id`` is null if it has
    none. An answer that JSON cannot represent (it has a NaN) is omitted, and is then in ``raw``, within the line as
    received. A ``parsed`` value is omitted: it is the text of the answer.
    The values of ``together_batches.runs`` (reports, events, views) are accepted as well.
    """
    if isinstance(value, BatchJob | FileObject):
        return {**_fields(value, without=("extra", "seen_at")), **value.extra}
    if isinstance(value, CancelOutcome):
        return _outcome(value)
    if isinstance(value, CancelReport):
        return {
            "ok": value.ok,
            "counts": {str(result): count for result, count in value.counts.items()},
            "outcomes": [_outcome(outcome) for outcome in value],
        }
    if isinstance(value, Plain):
        return value.__to_dict__()
    kind = _RESULTS.get(type(value))
    if kind is None:
        message = f"to_dict takes the values of this package, not {type(value).__name__}"
        raise TypeError(message)
    if isinstance(value, BatchSuccess):
        return _answered(value, kind)
    if isinstance(value, BatchInvalid):
        return {**_answered(value.answer, kind), "error": value.error}
    # An absent id is written as null; an empty raw text is omitted.
    fields = {name: field for name, field in _fields(value).items() if field != ""}
    return {"custom_id": value.custom_id, "result": kind, **fields}


def _answered(row: BatchSuccess[object], kind: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"custom_id": row.custom_id, "result": kind}
    try:
        body = row.body
        if row.raw:
            json_codec.encode(body)
        plain["body"] = body
    except (APIResponseValidationError, json_codec.WireError):
        pass
    plain["status_code"] = row.status_code
    return {**plain, "raw": row.raw} if row.raw else plain


def line_of(row: BatchResult[object]) -> bytes:
    """Return a row as a line of JSON without its line end: its :func:`to_dict`, with the answer as received."""
    if isinstance(row, BatchSuccess) and (text := carried(row)) is not None:
        return success_line(row.custom_id, text, row.status_code)
    if isinstance(row, BatchInvalid) and (text := carried(row.answer)) is not None:
        parts = (json_codec.quoted(row.custom_id), text, row.answer.status_code, json_codec.quoted(row.error))
        return b'{"custom_id":%b,"result":"invalid","body":%b,"status_code":%d,"error":%b}' % parts
    plain = to_dict(row)
    try:
        return json_codec.encode(plain)
    except json_codec.WireError:  # half of a surrogate pair in an id, which only an escape can represent
        return json.dumps(plain, separators=(",", ":")).encode()


def success_line(custom_id: str, body: bytes, status_code: int) -> bytes:
    """Return the line of a row that was answered, around the text of the answer, without its line end."""
    return success_lines([custom_id], [body], status_code)[:-1]


def success_lines(custom_ids: Iterable[str], bodies: Iterable[bytes], status_code: int) -> bytes:
    """Return the lines, with their line ends, of rows that were answered with the same status."""
    parts = (
        repeat(b'{"custom_id":'),
        map(json_codec.quoted, custom_ids),
        repeat(b',"result":"success","body":'),
        bodies,
        repeat(b',"status_code":%d}\n' % status_code),
    )
    # One join of all parts takes half the time of formatting each line.
    return b"".join(chain.from_iterable(zip(*parts, strict=False)))


def _fields(value: attrs.AttrsInstance, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the present fields in serialised form: a body is plain data already."""
    names = [field.name for field in attrs.fields(type(value)) if field.name not in without]
    return {name: written(field) for name in names if (field := getattr(value, name)) is not None}


def _outcome(outcome: CancelOutcome) -> dict[str, Any]:
    facts: dict[str, Any] = {"job_id": outcome.job_id}
    if outcome.event is not None:
        facts["event"] = outcome.event
    facts |= {"result": str(outcome.result), "attempts": outcome.attempts, "accepted": outcome.accepted}
    for name in ("status_before", "requested_at"):
        value = getattr(outcome, name)
        if value is not None:
            facts[name] = written(value)
    if outcome.job is not None:
        facts["job"] = to_dict(outcome.job)
    if outcome.error is not None:
        facts["error"] = _error(outcome.error)
    return facts


def _error(error: BatchesError) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, APIStatusError):
        facts |= {"status": error.status, "request_id": error.request_id}
    return facts
