"""Secrets that a server sends back, and their removal from what is kept of its answer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Redactor"]

_SHORTEST = 8
"""A shorter secret is one of a test, and stands in many an answer by accident."""
_MARK = "[secret]"
_NAMES_A_SECRET = re.compile("auth|token|key|secret|cookie|pass|cred|sign|session", re.IGNORECASE).search


class Redactor:
    """Removes the key, and values of headers that the caller chose.

    A header that is named as one of a secret (``X-Gateway-Token``) is removed from everything, as the key is. Any
    other one is removed from what is shown: errors, excerpts, headers. A good answer may hold such a value for a
    reason of its own (the name of a model, of a project), and its body keeps it.
    """

    # Slots, and no repr: neither shows what is in them.
    __slots__ = ("_all", "_always", "_texts")

    def __init__(self, key: str, headers: Mapping[str, str]) -> None:
        always = {key, *(value.strip() for name, value in headers.items() if _NAMES_A_SECRET(name))}
        every = always | {value.strip() for value in headers.values()}
        self._always = _encoded(_spellings(always))
        self._texts = _spellings(every)
        self._all = _encoded(self._texts)

    def good_body(self, body: bytes) -> bytes:
        """The body of a good answer, without the key and the like."""
        return _replaced(body, self._always)

    def bad_body(self, body: bytes) -> bytes:
        """The body of a refusal, without any secret."""
        return _replaced(body, self._all)

    def text(self, text: str) -> str:
        """A text that is shown, without any secret."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, _MARK)
        return text

    def is_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """True if the value of a header holds a secret."""
        for secret in self._all:
            for _, value in headers:
                if secret in value:
                    return True
        return False


def _replaced(body: bytes, secrets: tuple[bytes, ...]) -> bytes:
    for secret in secrets:
        if secret in body:
            body = body.replace(secret, _MARK.encode())
    return body


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets as they are, and as JSON, HTML and URLs write them; the longest first, for it may hold another."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            found |= {
                secret,
                json.dumps(secret)[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
                _as_html(secret),
                quote(secret, safe=""),
            }
    return tuple(sorted(found, key=len, reverse=True))


def _as_html(text: str) -> str:
    # Python's module for it takes longer to load than all that a client does before its first call.
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(character, escape)
    return text


def _encoded(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)
