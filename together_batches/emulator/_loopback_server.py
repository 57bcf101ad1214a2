"""A server on a loopback port, which can be stopped at once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

# Thousands of clients may connect in one burst; with asyncio's 100 some would wait for a second SYN.
_BACKLOG = 4096


class LoopbackServer:
    """One port and its server, on the loop that opened it."""

    def __init__(self, listener: asyncio.Server, server: web.Server, log: logging.Logger) -> None:
        self._listener = listener
        self._server = server
        self._log = log
        self.port: int = listener.sockets[0].getsockname()[1]

    @classmethod
    async def open(
        cls, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> Self:
        """Start to listen. Raises OSError if the port is taken."""
        # Without lingering, because the only body that is not read completely is one whose end does not arrive.
        log = logging.Logger("aiohttp.server")  # noqa: LOG001  # its own, because closing turns it off
        log.parent = logging.getLogger("aiohttp.server")
        server = web.Server(handler, access_log=None, lingering_time=0, logger=log)
        listener = await asyncio.get_running_loop().create_server(server, host, port, backlog=_BACKLOG)
        return cls(listener, server, log)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it was opened on."""
        return self._listener.get_loop()

    async def close(self) -> None:
        """Stop at once, and drop requests in flight."""
        # asyncio fails (an assertion in Server._attach) on a connection that is being accepted when its server is
        # closed. So first stop accepting, and let pending connections arrive.
        for listening in self._listener.sockets:
            with suppress(NotImplementedError):  # Windows' loop has no readers, and not this defect either
                self.loop.remove_reader(listening)
        await _settle()
        self._listener.close()
        transports = [connection.transport for connection in self._server.connections]
        # aiohttp reports a request that is dropped just as it ends as a defect of its own (InvalidStateError).
        self._log.disabled = True
        self._server.pre_shutdown()
        # The shortest grace period; aiohttp treats 0 as no limit.
        await self._server.shutdown(timeout=0.001)
        for transport in transports:
            if isinstance(transport, asyncio.Transport):
                transport.abort()  # a client that does not read must not keep the socket open
        await _settle()


async def _settle() -> None:
    """Let pending callbacks of the loop run for a few steps: callbacks that schedule callbacks, and no more."""
    for _ in range(4):
        await asyncio.sleep(0)
