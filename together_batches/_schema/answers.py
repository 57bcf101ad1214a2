"""Answers read by a schema."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from together_batches._fields import Carried, body_of
from together_batches._protocol.carried_body import chat_answer
from together_batches._protocol.json_codec import WireError, read
from together_batches._schema.reasons import reason_of
from together_batches.rows import BatchInvalid, BatchSuccess

if TYPE_CHECKING:
    from together_batches._schema.adapters import SchemaAdapter

T = TypeVar("T")

_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*\s*")
_FENCES = ("```", "~~~")


def parse_answer(row: BatchSuccess[Any], adapter: SchemaAdapter[T]) -> BatchSuccess[T] | BatchInvalid:
    """Return a row with its text as a value in ``parsed``, or as invalid if that does not fit; never raise."""
    body = body_of(row)
    found = chat_answer(body.text) if isinstance(body, Carried) else None
    text, finish_reason = (row.text, row.finish_reason) if found is None else found
    if text is None:
        return BatchInvalid(row.custom_id, None, "the answer has no text", row)
    if finish_reason == "length":
        reason = "the answer was cut off (finish_reason is length): allow more max_tokens"
        return BatchInvalid(row.custom_id, text, reason, row)
    try:
        value = adapter.validate_json(text)
    except Exception as error:  # noqa: BLE001  # a validator of a class may raise anything, and other rows fit
        inner = _unfenced(text)
        if inner is None:
            return _unfit(row, text, error)
        try:
            value = adapter.validate_json(inner)
        except Exception as within:  # noqa: BLE001  # likewise
            return _unfit(row, text, within)
    return BatchSuccess(row.custom_id, body, row.status_code, row.raw, value)


def _unfit(row: BatchSuccess[Any], text: str, error: Exception) -> BatchInvalid:
    try:
        read((_unfenced(text) or text).encode())
    except (WireError, UnicodeEncodeError):
        return BatchInvalid(row.custom_id, text, "the answer is not JSON", row)
    return BatchInvalid(row.custom_id, text, f"the answer does not fit the schema: {reason_of(error)}", row)


def _unfenced(text: str) -> str | None:
    """Return the text within the one Markdown fence that an answer consists of; None if it is no such answer.

    Some backends fence JSON in spite of the schema.
    """
    text = text.strip()
    for fence in _FENCES:
        if text.startswith(fence) and text.endswith(fence):
            inner = text.strip(fence[0])  # JSON neither begins nor ends with such a character
            language = _LANGUAGE.match(inner)
            return inner[language.end() :] if language else inner
    return None
