"""Answers read by a schema."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from together_batches._protocol.carried_body import read_usual_answer
from together_batches._protocol.json_codec import WireError, read
from together_batches._schema.adapters import reason_of
from together_batches.rows import BatchInvalid, BatchSuccess

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches._schema.adapters import SchemaAdapter

    Parse = Callable[[BatchSuccess[Any]], BatchSuccess[T] | BatchInvalid]

_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*\s*")
_FENCES = ("```", "~~~")


class UnfitError(Exception):
    """A text does not fit the schema, and why; it never leaves the package."""


def parser(adapter: SchemaAdapter[T]) -> Parse[T]:
    """Return the function that reads answers by a schema: as a value in ``parsed``, or as invalid; it never raises.

    It sets ``parsed`` of the row that it gets, which nothing else uses yet: another row would take as much time as
    everything else.
    """
    validate = adapter.validate_json

    def parse(row: BatchSuccess[Any]) -> BatchSuccess[T] | BatchInvalid:
        try:
            choice = read_usual_answer(_body_of(row).text).choices[0]
            text = choice.message.content
            if text is None or choice.finish_reason == "length":
                return _parse_slowly(row, adapter)
            _set_parsed(row, validate(text))
        except Exception:  # noqa: BLE001  # another form, or a text that does not fit: found out below
            return _parse_slowly(row, adapter)
        return row

    return parse


_body_of: Callable[[object], Any] = attrgetter("_body")
_set_parsed: Callable[[object, object], None] = BatchSuccess.__dict__["parsed"].__set__


def _parse_slowly(row: BatchSuccess[Any], adapter: SchemaAdapter[T]) -> BatchSuccess[T] | BatchInvalid:
    text = row.text
    try:
        _set_parsed(row, parse_text(text, row.finish_reason, adapter))
    except UnfitError as error:
        return BatchInvalid(row.custom_id, text, str(error), row)
    return row


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
    """Return the text within the one Markdown fence that an answer consists of; None if the answer is anything else.

    Some backends fence JSON in spite of the schema.
    """
    text = text.strip()
    for fence in _FENCES:
        if text.startswith(fence) and text.endswith(fence):
            inner = text.strip(fence[0])  # JSON neither begins nor ends with such a character
            language = _LANGUAGE.match(inner)
            return inner[language.end() :] if language else inner
    return None
