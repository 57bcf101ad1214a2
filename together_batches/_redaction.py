"""Secrets that a server sends back, and their removal from what is kept of its answer."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Redactor"]

_SHORTEST = 8
"""A shorter secret is one of a test, and stands in many an answer by accident."""
_MARK = "[secret]"


class Redactor:
    """Removes the key from everything, and other secrets from what is shown: errors, excerpts, headers.

    The others are values of headers that the caller chose. A good answer may hold such a value for a reason of its
    own (the name of a model, of a project), so its body keeps them.
    """

    # Slots, and no repr: neither shows what is in them.
    __slots__ = ("_all", "_all_texts", "_key")

    def __init__(self, key: str, others: Iterable[str] = ()) -> None:
        self._key = key.encode() if len(key) >= _SHORTEST else b""
        texts: set[str] = set()
        for secret in (key, *(other.strip() for other in others)):
            if len(secret) >= _SHORTEST:
                texts |= _spellings(secret)
        # The longest first: a shorter one may be a part of it.
        self._all_texts = tuple(sorted(texts, key=len, reverse=True))
        self._all = tuple(text.encode() for text in self._all_texts)

    def good_body(self, body: bytes) -> bytes:
        """The body of a good answer, without the key."""
        key = self._key
        return body.replace(key, _MARK.encode()) if key and key in body else body

    def bad_body(self, body: bytes) -> bytes:
        """The body of a refusal, without any secret."""
        for secret in self._all:
            if secret in body:
                body = body.replace(secret, _MARK.encode())
        return body

    def text(self, text: str) -> str:
        """A text that is shown, without any secret."""
        for secret in self._all_texts:
            if secret in text:
                text = text.replace(secret, _MARK)
        return text

    def is_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """True if the value of a header holds a secret."""
        for secret in self._all:
            for _, value in headers:
                if len(value) >= len(secret) and secret in value:
                    return True
        return False


def _spellings(secret: str) -> set[str]:
    """The secret as it is, and as JSON, HTML and URLs write it."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        quote(secret, safe=""),
    }
