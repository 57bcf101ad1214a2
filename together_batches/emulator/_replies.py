"""Responses: the error format of each part of the service, downloads, and how a response is sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

import msgspec
from aiohttp import web

from together_batches.emulator._content import content_of, gzipped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from together_batches.emulator._content import Content
    from together_batches.emulator._faults import Fault
    from together_batches.emulator._files import StoredFile
    from together_batches.emulator._requests import Route

ERROR_TEXTS = {
    400: "bad request",
    401: "Unauthorized",
    403: "forbidden",
    404: "Job not found",
    429: "too many requests",
    500: "internal error",
}
_ERROR_TYPES = {401: "invalid_request_error", 404: "not_found", 429: "rate_limit"}
_STORAGE_CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


class Refusal(Exception):  # noqa: N818  # an answer of the service, not a fault of this program
    """A refusal by the service: an HTTP status and a text, in the format of the part that was called.

    ``code`` is the error code of the storage.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code


class Reply(NamedTuple):
    """A response. With ``gzip`` the body is compressed while it is sent, and its length is not announced."""

    status: int
    body: bytes | Content
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    gzip: bool = False

    def read(self) -> bytes:
        """Return the body, which may be generated now."""
        return self.body if isinstance(self.body, bytes) else self.body.read()


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a value as a JSON response."""
    return Reply(status, msgspec.json.encode(value))


def refused(route: Route, status: int, message: str, request_id: str, code: str = "") -> Reply:
    """Return an error in the format of this part of the service.

    It is XML for the storage, a text for batches, an object for everything else.
    """
    if route.about_storage:
        code = code or _STORAGE_CODES.get(status, "BadRequest" if status < 500 else "ServiceUnavailable")
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>{request_id}</RequestId></Error>"
        )
        return Reply(status, text.encode(), "application/xml")
    if route.about_batches:
        # The request id in the body was seen with 404 and not with 409; the real service is not more regular.
        return json_reply(
            {"error": message, "request_id": request_id} if status == 404 else {"error": message}, status
        )
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return json_reply({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


def download(
    file: StoredFile, request_headers: Mapping[str, str], content_type: str, *, ranges: bool, gzip: bool
) -> Reply:
    """Return the response that the request headers ask for, as far as ``ranges`` and ``gzip`` allow.

    One range is served; a request for several, or with an invalid one, gets the whole content.
    """
    content, etag = file.content, f'"{file.id.removeprefix("file-")}{file.revision}"'
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


async def send(
    request: web.BaseRequest,
    reply: Reply,
    headers: Mapping[str, str],
    fault: Fault | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> web.StreamResponse:
    """Send a response; a fault may truncate it or send it byte by byte, with ``sleep`` in between."""
    cut_after, drip = (None, None) if fault is None else (fault.cut_after, fault.drip)
    if isinstance(reply.body, bytes) and not reply.gzip and cut_after is None and drip is None:
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    content = content_of(reply.body) if isinstance(reply.body, bytes) else reply.body
    response = web.StreamResponse(status=reply.status, headers=headers)
    pieces = content.pieces()
    if reply.gzip:
        response.headers["Content-Encoding"] = "gzip"
        response.enable_chunked_encoding()
        pieces = gzipped(pieces)
    else:
        response.content_length = content.size
    if cut_after is not None:
        pieces = _up_to(cut_after, pieces)
    if drip is not None:
        pieces = (bytes([byte]) for piece in pieces for byte in piece)
    sent = 0
    try:
        await response.prepare(request)
        for piece in pieces:
            sent += len(piece)
            await response.write(piece)
            if drip is not None and sleep is not None:
                await sleep(drip)
    except OSError:
        return drop(request, response)  # the client disconnected, or the file of the content was removed
    # Also if a function or a file returned less than its size: the connection must not continue out of step.
    is_cut = cut_after is not None or (not reply.gzip and sent < content.size)
    return drop(request, response) if is_cut else response


def drop(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection after the data already written; whatever aiohttp writes afterwards is discarded."""
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()


def _up_to(limit: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if limit <= 0:
            return
        yield piece[:limit]
        limit -= len(piece)
