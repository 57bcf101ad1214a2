"""Marks: white space that gives a file of requests unique content, so that it identifies a job of the file.

The service has no idempotency key and no field for a label. But it names the input file in each job, and it gives
equal content the same file. So unique content makes the file's id an idempotency key: a job of it can only be the one
that was created from it. Spaces and tabs between the tokens of a JSON object have no meaning for any reader
(https://www.rfc-editor.org/rfc/rfc8259#section-2).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

MARK_BYTES = 64
_BOM = b"\xef\xbb\xbf"
_LONGEST_STEM = 60
_LONGEST_SUFFIX = 10
"""The service limits the length of file names without naming the limit (its changelogs of October 2026)."""


class Mark(NamedTuple):
    """The white space, and ``tag``: the same bits as 16 hexadecimal digits, for the file's name."""

    white_space: bytes
    tag: str


def mark_of(*parts: object) -> Mark:
    """Return the mark of these parts: 64 spaces and tabs, one for each bit of a hash of them."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[: MARK_BYTES // 8]
    bits = f"{int.from_bytes(digest):0{MARK_BYTES}b}"
    return Mark(bits.replace("0", " ").replace("1", "\t").encode(), digest.hex())


def place_in(beginning: bytes) -> int | None:
    """Return the place of a mark in a file with this beginning: right after the first ``{``; None if there is none.

    A byte order mark, white space and blank lines may precede it.
    """
    start = len(_BOM) if beginning.startswith(_BOM) else 0
    rest = beginning[start:].lstrip(b" \t\r\n")
    return len(beginning) - len(rest) + 1 if rest.startswith(b"{") else None


def sendable(name: str) -> str:
    """Return the name of a file, with a question mark for each byte of it that is not UTF-8."""
    return name.encode(errors="replace").decode()


def tagged_name(name: str, mark: Mark) -> str:
    """Return the name of a marked file: its own, shortened if it is long, with the tag before the suffix."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > _LONGEST_SUFFIX:
        stem, dot, suffix = name, "", ""
    return f"{stem[:_LONGEST_STEM]}-{mark.tag}{dot}{suffix}"
