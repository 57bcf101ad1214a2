"""The response to a request for a file's content: whole, in part, or compressed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from together_batches.emulator._replies import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from together_batches.emulator._files import StoredFile

__all__ = ["download"]


def download(
    file: StoredFile, request_headers: Mapping[str, str], content_type: str, *, ranges: bool, gzip: bool
) -> Reply:
    """Return the response that the request headers ask for, as far as ``ranges`` and ``gzip`` allow.

    One range is served; a request for several, or with an invalid one, gets the whole content.
    """
    content, etag = file.content, f'"{file.id.removeprefix("file-")}"'
    if gzip and "gzip" in request_headers.get("Accept-Encoding", ""):
        # Content compressed on the fly has no positions to resume from: no ranges, and a weak ETag.
        return Reply(200, content, content_type, {"ETag": f"W/{etag}", "Vary": "Accept-Encoding"}, gzip=True)
    headers = {"ETag": etag}
    if not ranges:
        return Reply(200, content, content_type, headers)
    headers["Accept-Ranges"] = "bytes"
    part = (
        _part(request_headers.get("Range", ""), content.size)
        if request_headers.get("If-Range", etag) == etag
        else None
    )
    if part is None:
        return Reply(200, content, content_type, headers)
    start, stop = part
    if start >= stop:
        return Reply(416, b"", content_type, {**headers, "Content-Range": f"bytes */{content.size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    return Reply(206, content.part(start, stop), content_type, headers)


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Return where the part begins and ends; an empty one if it does not exist, None for the whole content."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size
