"""Sources of requests: files, objects that can be read like one, and iterables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, cast

from together_batches._local.os_errors import explained
from together_batches._text import short
from together_batches.errors import UsageError
from together_batches.jsonl._requests import RequestLike

_BLOCK = 1 << 18


class Readable(Protocol):
    """An object that can be read like a file opened in binary mode."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, and none at the end."""
        ...


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Iterable[RequestLike]
"""The sources of requests: a path, the bytes of a file, a file opened in binary mode (read from its current position
and left open), or requests, also as mappings with their fields."""
Bytes = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""The sources that provide the bytes of a file."""


def is_arrow(table: object) -> bool:
    """Return whether a value is a table with Arrow's C stream interface, such as a data frame."""
    return hasattr(table, "__arrow_c_stream__")


def is_file(source: object) -> bool:
    """Return whether a source is one of :data:`Bytes`."""
    is_readable = callable(getattr(source, "read", None))
    return is_readable or isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)


def holds_requests(source: object) -> bool:
    """Return True for an iterable of requests, False for the bytes of a file; raise :class:`UsageError` otherwise."""
    if is_file(source):
        return False
    given = source
    if is_arrow(source):  # iterated, it gives columns
        message = "a frame is a table: jsonl.requests makes a request of each of its rows, and takes its prompt"
        raise UsageError(message)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return True
    message = (
        f"requests come from a path, bytes, a binary file or an iterable of BatchRequest, not from {short(given)}"
    )
    raise UsageError(message)


def name_of(source: object) -> str:
    """Return the name of a source in messages."""
    if isinstance(source, str | os.PathLike):
        return str(Path(cast("str | os.PathLike[str]", source)))
    if holds_requests(source):
        return "the requests"
    return name_of_file(source) or "the file"


def name_of_file(file: object) -> str | None:
    """Return the name of an open file, if it has one that is text."""
    name: object = getattr(file, "name", None)
    return name if isinstance(name, str) and name else None


def checked_bytes(content: object, name: str = "the file") -> bytes:
    """Return what was read from a file; raise :class:`UsageError` if it is not bytes."""
    if isinstance(content, bytes):
        return content
    message = f"{name} gives {type(content).__name__} instead of bytes: open it in binary mode"
    raise UsageError(message)


def blocks_of(source: Bytes, size: int = _BLOCK) -> Iterator[bytes]:
    """Yield the bytes of a source in blocks of at most ``size`` bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        for start in range(0, len(source), size):
            yield bytes(source[start : start + size])
        return
    with explained("read", name_of(source)), ExitStack() as stack:
        if isinstance(source, str | os.PathLike):
            source = stack.enter_context(Path(source).open("rb", buffering=0))
        while block := checked_bytes(source.read(size)):
            yield block
