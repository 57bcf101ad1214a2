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


class UnfitError(Exception):
    """A text does not fit the schema, and why; it never leaves the package."""


def parse_answer(row: BatchSuccess[Any], adapter: SchemaAdapter[T]) -> BatchSuccess[T] | BatchInvalid:
    """Return a row with its text as a value in ``parsed``, or as invalid if that does not fit; never raise."""
    body = body_of(row)
    found = chat_answer(body.text) if isinstance(body, Carried) else None
    text, finish_reason = (row.text, row.finish_reason) if found is None else found
    try:
        value = parse_text(text, finish_reason, adapter)
    except UnfitError as error:
        return BatchInvalid(row.custom_id, text, str(error), row)
    return BatchSuccess(row.custom_id, body, row.status_code, row.raw, value)


def parse_text(text: str | None, finish_reason: str | None, adapter: SchemaAdapter[T]) -> T:
    """Return the text of an answer as a value; raise :class:`UnfitError` if it does not fit."""
    if text is None:
        message = "the answer has no text"
        raise UnfitError(message)
    if finish_reason == "length":
        message = "the answer was cut off (finish_reason is length): allow more max_tokens"
        raise UnfitError(message)
    try:
        return adapter.validate_json(text)
    except Exception as error:  # a validator of a class may raise anything, and other rows fit
        inner = _unfenced(text)
        if inner is None:
            raise _unfit(text, error) from error
    try:
        return adapter.validate_json(inner)
    except Exception as error:  # likewise
        raise _unfit(inner, error) from error


def _unfit(text: str, error: Exception) -> UnfitError:
    try:
        read(text.encode())
    except (WireError, UnicodeEncodeError):
        return UnfitError("the answer is not JSON")
    return UnfitError(f"the answer does not fit the schema: {reason_of(error)}")


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
