"""A port that is listened on, and how to stop listening at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

__all__ = ["LoopbackServer"]

# Thousands of clients may connect in one burst; asyncio's 100 would leave some waiting for a second SYN.
BACKLOG = 4096


class LoopbackServer:
    """One port and the server behind it, on the loop that opened it."""

    def __init__(self, listener: asyncio.Server, server: web.Server) -> None:
        self._listener = listener
        self._server = server
        self.port: int = listener.sockets[0].getsockname()[1]

    @classmethod
    async def open(
        cls, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> Self:
        """Listen. Raises OSError if the port is taken."""
        # Without lingering: the one body that is not read to its end is one whose end does not come.
        server = web.Server(handler, access_log=None, lingering_time=0)
        return cls(await asyncio.get_running_loop().create_server(server, host, port, backlog=BACKLOG), server)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it was opened on."""
        return self._listener.get_loop()

    async def close(self) -> None:
        """Stop at once: what is in flight is dropped."""
        # asyncio breaks (an assertion in Server._attach) on a connection whose accepting has begun when its
        # server is closed. So first stop accepting, and let those arrive that are on the way.
        for listening in self._listener.sockets:
            with suppress(NotImplementedError):  # Windows' loop has no readers, and not this fault either
                self.loop.remove_reader(listening)
        await _settle()
        self._listener.close()
        transports = [connection.transport for connection in self._server.connections]
        self._server.pre_shutdown()
        # The least grace there is; aiohttp takes 0 for "wait without end".
        await self._server.shutdown(timeout=0.001)
        for transport in transports:
            if isinstance(transport, asyncio.Transport):
                transport.abort()  # a client that does not read must not keep the socket open
        await _settle()


async def _settle() -> None:
    """Let what is under way on the loop take its next few steps: callbacks that call callbacks, and no more."""
    for _ in range(4):
        await asyncio.sleep(0)
