"""Sending of responses: piece by piece, and faulty if a fault requires it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from together_batches.emulator._content import content_of, gzipped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from together_batches.emulator._faults import Fault
    from together_batches.emulator._replies import Reply

__all__ = ["drop", "send"]


async def send(
    request: web.BaseRequest,
    reply: Reply,
    headers: Mapping[str, str],
    fault: Fault | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> web.StreamResponse:
    """Send a response; a fault may truncate it or send it byte by byte, with ``sleep`` in between."""
    badly = fault is not None and (fault.cut_after is not None or fault.drip is not None)
    if isinstance(reply.body, bytes) and not reply.gzip and not badly:
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
    if fault is not None and fault.cut_after is not None:
        pieces = _up_to(fault.cut_after, pieces)
    sent = 0
    try:
        await response.prepare(request)
        for piece in pieces:
            sent += len(piece)
            if fault is None or fault.drip is None or sleep is None:
                await response.write(piece)
                continue
            for position in range(len(piece)):
                await response.write(piece[position : position + 1])
                await sleep(fault.drip)
    except OSError:
        return drop(request, response)  # the client disconnected, or the file of the content was removed
    cut = fault is not None and fault.cut_after is not None
    # Also if a function or a file returned less than its size: the connection must not continue out of step.
    return drop(request, response) if cut or (not reply.gzip and sent < content.size) else response


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
