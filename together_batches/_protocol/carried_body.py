"""The body of an answer or of a request, carried as text."""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Struct

from together_batches._fields import Carried, Outline, outline_in
from together_batches._protocol.json_codec import UNREADABLE, WireError, kind, read
from together_batches.errors import APIResponseValidationError


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

    def outline(self) -> Outline:
        """Return the text and the tokens of an answer, without decoding the rest; empty if it is unreadable."""
        try:
            return read_usual_answer(self.text).outline()
        except UNREADABLE:
            pass
        try:
            return outline_in(self.decode())
        except APIResponseValidationError:
            return Outline()

    def _excerpt(self) -> str:
        return self.text[:_EXCERPT_BYTES].decode("utf-8", "replace")


_EXCERPT_BYTES = 200


class _Message(Struct, frozen=True, gc=False):
    content: str | None = None


class _Choice(Struct, gc=False):
    message: _Message = _Message()
    finish_reason: str | None = None


class _Tokens(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


_NO_TOKENS = _Tokens()


class UsualAnswer(Struct, gc=False):
    """What is read of an answer of chat, or of a transcription, whose members have their usual types."""

    choices: list[_Choice] = []
    text: str | None = None
    usage: _Tokens | None = None

    def outline(self) -> Outline:
        """Return its values by the names of columns."""
        text, finish_reason, tokens = self.text, None, self.usage or _NO_TOKENS
        if self.choices:
            choice = self.choices[0]
            finish_reason = choice.finish_reason
            if choice.message.content is not None:
                text = choice.message.content
        return Outline(text, finish_reason, tokens.prompt_tokens, tokens.completion_tokens, tokens.total_tokens)


read_usual_answer = msgspec.json.Decoder(UsualAnswer).decode
