"""Lines of an output or an error file, and their reading as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from together_batches._protocol import json_codec, result_codec
from together_batches._protocol.carried_body import Body
from together_batches._text import format_count
from together_batches.errors import APIResponseValidationError
from together_batches.rows import BatchFailure, BatchSuccess

LONGEST_LINE_BYTES = 256_000_000
"""Maximum bytes of a line: an answer has no limit of its own (an input line has: 10 MB), but memory has."""
_LEVELS_IN_DOUBT = 256
"""Number of brackets below which JSON is certainly not nested too deeply."""
_UNREADABLE = object()


def read_row(line: bytes, *, whole: bool = True) -> BatchSuccess | BatchFailure:
    """Return the row in a line of an output or an error file; never raise.

    ``whole=False`` is for the start of a line. See https://docs.together.ai/docs/inference/batch/overview. Both files
    are read alike: in either an answer may be an error with a status.
    """
    if not whole:
        message = f"the line has more than {format_count(LONGEST_LINE_BYTES)} bytes; this is its beginning"
        return BatchFailure(None, None, message, raw=as_text(line))
    try:
        row = result_codec.decode_row(line)
    except json_codec.WireError as error:
        return BatchFailure(None, None, f"the line is {error.problem}", raw=as_text(line))
    return _row_of(row, line)


def _row_of(row: result_codec.Row, line: bytes) -> BatchSuccess | BatchFailure:
    """Return the row in a decoded line."""
    status, problem = row.status_code, row.error
    custom_id = row.custom_id if isinstance(row.custom_id, str) and row.custom_id else None
    status_code = status if isinstance(status, int) and not isinstance(status, bool) else None
    if custom_id is not None and is_answer(row):
        answered = cast("int", status_code)
        if row.body is not None:
            return _success(custom_id, row.body, answered, line)
        return BatchSuccess(custom_id, cast("dict[str, object]", row.value), answered, as_text(line))
    good = not problem and status_code is not None and 200 <= status_code < 300
    if problem:
        code, message = _reason(problem)
    else:
        answer = _answer_in(row)
        if good:
            code = None
            message = "the row names no custom_id" if isinstance(answer, dict) else f"the answer is {_kind(answer)}"
        elif status_code is not None:
            code, message = _reason(answer)
            message = message or f"the service answered {status_code}"
        else:
            code, message = None, "the row has neither an answer nor an error"
    return BatchFailure(custom_id, code, message or "the service gave no reason", status_code, as_text(line))


def _success(custom_id: str, body: bytes, status_code: int, line: bytes) -> BatchSuccess:
    """Return a row that was answered with the object whose text is ``body``."""
    answer = Body(body)
    # Decoded only to detect nesting that is too deep, and only if the number of brackets leaves a doubt.
    if _may_be_deep(body):
        try:
            answer.decode()
        except APIResponseValidationError:
            return BatchSuccess(custom_id, answer, status_code, as_text(line))
    return BatchSuccess(custom_id, answer, status_code)


def _may_be_deep(body: bytes) -> bool:
    """Return whether a text has so many brackets that it may be nested too deeply."""
    for bracket in (b"{", b"["):
        place = -1
        for _ in range(_LEVELS_IN_DOUBT // 2):  # a search jumps to the next one; a count would look at each byte
            place = body.find(bracket, place + 1)
            if place < 0:
                break
        else:
            return True
    return False


def _answer_in(row: result_codec.Row) -> object:
    if row.body is None:
        return row.value
    try:
        return json_codec.read(row.body)
    except json_codec.WireError:
        return _UNREADABLE


def _kind(answer: object) -> str:
    return "nested too deeply" if answer is _UNREADABLE else json_codec.kind(answer)


def states_error(failure: BatchSuccess | BatchFailure) -> bool:
    """Return True for a failure that the service states: a line that says that its row failed.

    Any other line for a row, however unusual, may be an answer that was paid for, and is no reason to send the row
    again. A failure without a line is believed.
    """
    if isinstance(failure, BatchSuccess):
        return False
    if not failure.raw:
        return True
    try:
        row = result_codec.decode_row(failure.raw.encode("utf-8", "surrogatepass"))
    except json_codec.WireError:
        return False
    status = failure.status_code
    return bool(row.error) or (status is not None and not 200 <= status < 300)


def is_answer(row: result_codec.Row) -> bool:
    """Return True if a line answers some row with an object."""
    status = row.status_code
    if type(status) is not int or not 200 <= status < 300 or row.error:
        return False
    return isinstance(row.value, dict) if row.body is None else row.body[:1] == b"{"


def salvaged(custom_id: str, line: bytes, *, whole: bool) -> BatchFailure:
    """Return the failure of a row whose line cannot be read."""
    return attrs.evolve(cast("BatchFailure", read_row(line, whole=whole)), custom_id=custom_id)


def _reason(error: object) -> tuple[str | None, str]:
    """Return code and message of an error: an object, a text or a number, or an object around one of these."""
    if isinstance(error, Mapping):
        facts = cast("Mapping[str, object]", error)
        if inner := facts.get("error"):
            return _reason(inner)
        code, message = facts.get("code") or facts.get("type"), facts.get("message")
        return None if code is None else str(code), message if isinstance(message, str) else ""
    if isinstance(error, int) and not isinstance(error, bool):
        return str(error), ""
    return None, error if isinstance(error, str) else ""


def as_text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
