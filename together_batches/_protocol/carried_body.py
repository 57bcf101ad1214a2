"""The body of an answer or of a request, carried as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

import msgspec
from msgspec import Struct

from together_batches._fields import Carried
from together_batches._protocol.json_codec import UNREADABLE, WireError, kind, read
from together_batches.errors import APIResponseValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Body(Carried):
    """The body of an answer or of a request, carried as text."""

    __slots__ = ()

    def decode(self) -> dict[str, object]:
        """Return the value; raise :class:`APIResponseValidationError` if it cannot be read."""
        try:
            value = read(self.text)
            if isinstance(value, dict):
                return cast("dict[str, object]", value)
            problem = f"it is {kind(value)}"
        except WireError as error:
            problem = error.reason
        message = f"{problem}; its text is in raw, and in the output of a run"
        raise APIResponseValidationError(message, expected="an answer that can be decoded", excerpt=self._excerpt())

    def outline(self) -> Mapping[str, object]:
        """Return the members that hold texts and tokens, without decoding the others; empty if unreadable."""
        try:
            return cast("Mapping[str, object]", _read_outline(self.text))
        except UNREADABLE:
            pass
        try:
            return self.decode()
        except APIResponseValidationError:
            return {}

    def _excerpt(self) -> str:
        return self.text[:_EXCERPT_BYTES].decode("utf-8", "replace")


_EXCERPT_BYTES = 200


class _Message(TypedDict, total=False):
    content: Any


class _Choice(TypedDict, total=False):
    message: _Message
    finish_reason: Any


class _Outline(TypedDict, total=False):
    choices: list[_Choice]
    text: Any
    usage: Any


_read_outline = msgspec.json.Decoder(_Outline).decode


class _ChatMessage(Struct, gc=False):
    content: str | None


class _ChatChoice(Struct, gc=False):
    message: _ChatMessage
    finish_reason: str | None = None


class _ChatAnswer(Struct, gc=False):
    choices: list[_ChatChoice]


read_chat_answer = msgspec.json.Decoder(_ChatAnswer).decode
"""Decode the text of a usual chat response, and why it ended; raise an error for others."""
