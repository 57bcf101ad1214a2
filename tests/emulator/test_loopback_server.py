"""The server on a loopback port, and its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from together_batches.emulator._loopback_server import LoopbackServer

if TYPE_CHECKING:
    import pytest


async def test_request_that_ends_as_it_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A request that ends in the moment in which a closing server drops it is not logged as an error."""
    begun = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        while True:
            waiter = request.protocol._handler_waiter  # pyright: ignore[reportPrivateUsage]
            if waiter is not None and waiter.cancelled():
                return web.Response()
            await asyncio.sleep(0)

    server = await LoopbackServer.open(handler, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await begun.wait()
    await server.close()
    writer.close()
    assert not caplog.records
