"""Images of a request: URLs as they are, and local files of one directory as ``data:`` URLs."""

from __future__ import annotations

from base64 import b64encode
from mimetypes import guess_type
from typing import TYPE_CHECKING, cast

from together_batches._local.os_errors import reason_of
from together_batches._text import format_count, short
from together_batches._validation import path_of
from together_batches.errors import UsageError
from together_batches.jsonl._columns import BadCellError, value_in
from together_batches.jsonl._lines import MAX_LINE_BYTES

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from together_batches.jsonl._columns import Row

_URLS = ("https://", "http://", "data:")
_MAX_BYTES = MAX_LINE_BYTES * 3 // 4
"""Maximum bytes of an image: base64 makes four bytes of three, and a line is limited."""
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


class Images:
    """The images in a column: a URL, the path of a file in ``directory``, or a list of these."""

    def __init__(self, column: str, directory: str | os.PathLike[str] | None) -> None:
        self.column = column
        self._directory: Path | None = None
        if directory is not None:
            path = path_of("image_directory", directory)
            if not path.is_dir():
                message = f"image_directory is not a directory: {path}"
                raise UsageError(message)
            self._directory = path.resolve()

    def names_in(self, row: Row) -> list[str]:
        """Return the images of a row as they are written there; raise :class:`BadCellError` for anything else."""
        value = value_in(row, self.column)
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            problem = f"{short(value)} is not an image: write a URL, the path of a file, or a list of these"
            raise BadCellError(self.column, problem)
        for name in cast("list[object]", names):
            if not isinstance(name, str) or not name:
                problem = f"{short(name)} is not an image: write a URL, or the path of a file"
                raise BadCellError(self.column, problem)
        return list(cast("list[str]", names))

    def url_of(self, name: str) -> str:
        """Return the URL of an image; raise :class:`BadCellError` for a file that cannot be sent."""
        if name[:8].lower().startswith(_URLS):
            return name
        content = self._content(name)
        kind = _kind_of(content) or guess_type(name)[0] or ""
        if not kind.startswith("image/"):
            raise self._bad(name, "it is not an image")
        return f"data:{kind};base64,{b64encode(content).decode()}"

    def _content(self, name: str) -> bytes:
        if self._directory is None:
            raise self._bad(name, "local images need image_directory, and only those inside of it are sent")
        try:
            # Links are resolved first: a table from elsewhere must not send other files of this machine.
            path = (self._directory / name).resolve()
            if self._directory not in path.parents:
                raise self._bad(name, f"it is not inside image_directory, {self._directory}")
            if not path.is_file():
                raise self._bad(name, f"there is no such file in {self._directory}")
            size = path.stat().st_size
            if size > _MAX_BYTES:
                raise self._bad(name, f"it has {format_count(size)} bytes, more than {format_count(_MAX_BYTES)}")
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:  # ValueError: a zero byte; RuntimeError: a loop of links
            raise self._bad(name, f"it cannot be read: {reason_of(error)}") from error

    def _bad(self, name: str, problem: str) -> BadCellError:
        return BadCellError(self.column, f"the image {short(name)} cannot be sent: {problem}")


def _kind_of(content: bytes) -> str | None:
    """Return the media type of an image by its first bytes."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)
