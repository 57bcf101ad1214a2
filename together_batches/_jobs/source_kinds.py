"""The kinds of source of an upload: each is opened as one file that can be read from any position, and again.

These functions block, and run in a worker thread.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import attrs

from together_batches._local.os_errors import explained
from together_batches._protocol.upload_marks import sendable
from together_batches.errors import UsageError
from together_batches.jsonl._sources import checked_bytes, name_of_file

if TYPE_CHECKING:
    import threading

    from together_batches._jobs.upload_source import Source
    from together_batches.jsonl._files import RequestLines

UNNAMED = "requests.jsonl"
"""The default file name of an upload: the service determines the type by the suffix."""
READ_BYTES = 1 << 20


@attrs.frozen
class OpenedSource:
    """A file whose content begins at ``start``; messages call it ``title``, and it is uploaded as ``name``."""

    file: IO[bytes]
    title: str
    name: str = UNNAMED
    start: int = 0
    is_ours: bool = True
    """Whether it was opened here, and is to be closed here."""


class Spool:
    """An unnamed temporary file for what can be read only once; nothing is written after ``stop`` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self.file: IO[bytes] = io.BytesIO()
        self.stop = stop

    def write(self, content: bytes) -> None:
        """Append to the file, which is created now if it does not exist."""
        with explained("write to", "the directory for temporary files"):
            if self.stop.is_set():
                return
            if isinstance(self.file, io.BytesIO):
                self.file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  # closed by its owner
            self.file.write(content)


def open_source(source: Source, lines: RequestLines, spool: Spool) -> OpenedSource:
    """Open a source of any kind. Requests become ``lines`` in the spool; async ones have been written already."""
    if isinstance(source, str | os.PathLike):
        return _open_path(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return OpenedSource(io.BytesIO(source), "the content")
    if callable(getattr(source, "read", None)):
        return _open_file(cast("IO[bytes]", source), spool)
    if isinstance(source, Iterable):
        for line in lines.of(source):
            if spool.stop.is_set():
                break
            spool.write(line)
    elif not isinstance(source, AsyncIterable):
        message = (
            "an upload comes from a path, bytes, a file opened in binary mode or an iterable of "
            f"BatchRequest, not from {type(source).__name__}"
        )
        raise UsageError(message)
    return OpenedSource(spool.file, "the requests")


def _open_path(path: str | os.PathLike[str]) -> OpenedSource:
    return OpenedSource(open_file(path), os.fspath(path), sendable(Path(path).name))


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file; raise :class:`UsageError` if there is none."""
    with explained("read", os.fspath(path)):
        kind = Path(path).stat().st_mode  # before it is opened: opening a pipe would wait for its other end
        if not stat.S_ISREG(kind):
            message = f"cannot read {os.fspath(path)}: it is {'a directory' if stat.S_ISDIR(kind) else 'not a file'}"
            raise UsageError(message)
        return Path(path).open("rb", buffering=0)


def _open_file(file: IO[bytes], spool: Spool) -> OpenedSource:
    """Take a file that can be read again as it is, from its current position; copy any other."""
    title, name = "the file", UNNAMED
    given_name = name_of_file(file)
    if given_name is not None:
        title = name = sendable(Path(given_name).name) or UNNAMED
    with explained("read", title):
        checked_bytes(file.read(0), title)
        seekable = getattr(file, "seekable", None)
        if seekable is not None and seekable():
            return OpenedSource(file, title, name, file.tell(), is_ours=False)
        while not spool.stop.is_set() and (block := file.read(READ_BYTES)):
            spool.write(block)
    return OpenedSource(spool.file, title, name)
