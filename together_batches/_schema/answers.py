"""Answers read by a schema."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from together_batches._protocol.carried_body import read_chat_answer
from together_batches._protocol.json_codec import WireError, read
from together_batches._schema.reasons import reason_of
from together_batches.rows import BatchInvalid, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches._schema.adapters import SchemaAdapter

    Parse = Callable[[BatchSuccess[Any]], BatchSuccess[Any] | BatchInvalid]

T = TypeVar("T")

_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*\s*")
_FENCES = ("```", "~~~")


def parse_answer(row: BatchSuccess[Any], adapter: SchemaAdapter[T]) -> BatchSuccess[T] | BatchInvalid:
    """Return a row with its text as a value in ``parsed``, or as invalid if that does not fit; never raise."""
    return parser(adapter)(attrs.evolve(row))


def parser(adapter: SchemaAdapter[T]) -> Callable[[BatchSuccess[Any]], BatchSuccess[T] | BatchInvalid]:
    """Return the function that reads answers by a schema, like :func:`parse_answer`.

    It sets ``parsed`` of the row that it gets, which nobody else has yet: a second row would take as much time as
    everything else.
    """
    validate = adapter.validate_json

    def parse(row: BatchSuccess[Any]) -> BatchSuccess[T] | BatchInvalid:
        try:
            choice = read_chat_answer(_body_of(row).text).choices[0]
            text = choice.message.content
            if text is None or choice.finish_reason == "length":
                return _parse_slowly(row, validate)
            _set_parsed(row, validate(text))
        except Exception:  # noqa: BLE001  # another form, or a text that does not fit: found out below
            return _parse_slowly(row, validate)
        return row

    return parse


_body_of: Callable[[object], Any] = attrgetter("_body")
_set_parsed: Callable[[object, object], None] = BatchSuccess.__dict__["parsed"].__set__


def _parse_slowly(row: BatchSuccess[Any], validate: Callable[[str], Any]) -> BatchSuccess[Any] | BatchInvalid:
    """Return a row as :func:`parser` does, whatever its form."""
    text = row.text
    if text is None:
        return BatchInvalid(row.custom_id, None, "the answer has no text", row)
    if row.finish_reason == "length":
        reason = "the answer was cut off (finish_reason is length): allow more max_tokens"
        return BatchInvalid(row.custom_id, text, reason, row)
    try:
        value = validate(text)
    except Exception as error:  # noqa: BLE001  # a validator of a class may raise anything, and other rows fit
        inner = _unfenced(text)
        if inner is None:
            return _unfit(row, text, error)
        try:
            value = validate(inner)
        except Exception as within:  # noqa: BLE001  # likewise
            return _unfit(row, text, within)
    _set_parsed(row, value)
    return row


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
