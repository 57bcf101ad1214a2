"""Removal of secrets that a server sends back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHORTEST = 8
"""Minimum length of a secret: a shorter one belongs to a test, and occurs in many answers by accident."""
_MARK = b"[secret]"
_NAMES_A_SECRET = re.compile("auth|token|key|secret|cookie|pass|cred|sign|session", re.IGNORECASE).search


class Redactor:
    """A filter that removes the key, and values of headers that the caller chose.

    A header whose name suggests a secret (``X-Gateway-Token``) is removed from everything, as the key is. Any other
    one is removed from what is shown: errors, excerpts, headers. A successful response may contain such a value for a
    reason of its own (the name of a model, of a project), and its body keeps it.
    """

    # Slots, and no repr: neither shows the contents.
    __slots__ = ("_all", "_always", "_texts")

    def __init__(self, key: str, headers: Mapping[str, str]) -> None:
        always = {key, *(value.strip() for name, value in headers.items() if _NAMES_A_SECRET(name))}
        every = always | {value.strip() for value in headers.values()}
        self._always = _encoded(_spellings(always))
        self._texts = _spellings(every)
        self._all = _encoded(self._texts)

    def success_body(self, body: bytes) -> bytes:
        """Return the body of a successful response without the key and other named secrets."""
        return _replaced(body, self._always)

    def error_body(self, body: bytes) -> bytes:
        """Return the body of a refusal without any secret."""
        return _replaced(body, self._all)

    def text(self, text: str) -> str:
        """Return a text to be shown without any secret."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, _MARK.decode())
        return text

    def is_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return True if the value of a header contains a secret."""
        values = b"\n".join([value for _, value in headers])  # no secret contains a line end
        return _replaced(values, self._all) is not values


def _replaced(body: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return the body without the secrets; the same object if it contains none."""
    # Without a test by "in" first: for bytes that raises and discards an exception, which takes longer than a search.
    for secret in secrets:
        body = body.replace(secret, _MARK)
    return body


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the secrets, also as JSON, HTML and URLs spell them, longest first: one may contain another."""
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
    # Python's own module for this takes longer to import than all other work before a client's first call.
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(character, escape)
    return text


def _encoded(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)
