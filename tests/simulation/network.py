"""A simulated network: bytes written at one end arrive at the other, later, or never.

HTTP is real on both sides; only the bytes travel through lists. The connections of a killed process are reset, and
what it had sent still arrives: a job may be created after the death of the process that requested it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .machine import Process, step

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from random import Random

    from .machine import Loop

    Address = tuple[str, int]

_FIRST_PORT = 10_000


class Network:
    """All connections. ``reset_chance`` is the probability that a piece of bytes resets its connection."""

    def __init__(self, loop: Loop, random: Random) -> None:
        self.loop = loop
        self.reset_chance = 0.0
        self.slow_chance = 0.0
        self.is_away = False
        self._random = random
        self._servers: dict[Address, _Server] = {}
        self._reached: WeakKeyDictionary[socket.socket, Address] = WeakKeyDictionary()
        self._ends: set[_End] = set()
        self._vanished: list[_End] = []
        loop.network = self

    def listen(self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int) -> _Server:
        """Open a server; for port 0 at the next free one."""
        address = host, port or _FIRST_PORT + len(self._servers)
        self._servers[address] = server = _Server(self, protocol_factory, address)
        return server

    def forget(self, address: Address) -> None:
        """Close a server."""
        self._servers.pop(address, None)

    async def reach(self, sock: socket.socket, address: Address) -> None:
        """Connect a socket: take the time, and leave the socket itself as it is."""
        step(f"connect to port {address[1]}")
        await asyncio.sleep(self.latency())
        if address not in self._servers or self.is_away:
            raise ConnectionRefusedError(111, "Connection refused")
        self._reached[sock] = address

    def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], sock: socket.socket
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Return the client's end of a new connection to the address that this socket has reached."""
        server = self._servers[self._reached.pop(sock)]
        sock.close()
        local = _End(self, contextvars.copy_context())
        remote = _End(self, server.context, is_server=True)
        local.peer, remote.peer = remote, local
        self._ends |= {local, remote}
        protocol = protocol_factory()
        local.protocol = protocol
        protocol.connection_made(local)
        remote.soon(lambda: remote.accept(server.protocol_factory))
        return local, protocol

    def cut(self, process: Process) -> None:
        """Cut the connections of a dead process; their other ends will notice."""
        for end in sorted((end for end in self._ends if end.process is process), key=lambda end: end.number):
            self._vanished.append(end)
            end.vanish()

    def go_away(self) -> None:
        """Take the server away for as long as ``is_away`` returns true: its connections are reset."""
        self.is_away = True
        for end in sorted((end for end in self._ends if end.is_server), key=lambda end: end.number):
            end.abort()

    def bury(self, process: Process) -> None:
        """Notify the remains of a dead process that its connections are gone."""
        for end in [end for end in self._vanished if end.process is process]:
            self._vanished.remove(end)
            end.perish()

    def latency(self) -> float:
        """Return the seconds that the next bytes take."""
        slow = self.slow_chance and self._random.random() < self.slow_chance
        return self._random.uniform(1, 4) if slow else self._random.uniform(0.001, 0.02)

    def resets(self) -> bool:
        """Return whether the next bytes reset their connection."""
        return bool(self.reset_chance) and self._random.random() < self.reset_chance

    def drop(self, end: _End) -> None:
        """Remove this end, which is closed."""
        self._ends.discard(end)


class _Listening:
    """The parts of a listening socket that are used."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class _Server(asyncio.AbstractServer):
    def __init__(self, network: Network, protocol_factory: Callable[[], asyncio.Protocol], address: Address) -> None:
        self.protocol_factory = protocol_factory
        self.context = contextvars.copy_context()
        self.sockets = (_Listening(address),)
        self._network = network
        self._address = address

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    def close(self) -> None:
        self._network.forget(self._address)


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: _End
    protocol: asyncio.Protocol | None = None
    _count = 0

    def __init__(self, network: Network, context: contextvars.Context, *, is_server: bool = False) -> None:
        super().__init__()
        _End._count += 1
        self.is_server = is_server
        self.number = _End._count
        self.process = context.run(Process.current)
        self._network = network
        self._context = context
        self._arrives = 0.0
        self._closing = False
        self._reading = True
        self._on_the_wire: deque[Callable[[], None]] = deque()
        self._inbox: deque[Callable[[], None]] = deque()

    def accept(self, protocol_factory: Callable[[], asyncio.Protocol]) -> None:
        """Accept the connection on the server's side."""
        self.protocol = protocol_factory()
        self.protocol.connection_made(self)

    def soon(self, happens: Callable[[], None]) -> None:
        """Schedule a callback at this end, after the latency and after everything in transit."""
        loop = self._network.loop
        self._arrives = max(self._arrives, loop.time() + self._network.latency())
        self._on_the_wire.append(happens)
        loop.call_at(self._arrives, self._arrive, context=self._context)

    def _arrive(self) -> None:
        # The next item, whichever timer this is: of two timers due together a loop may run the later one first.
        self._inbox.append(self._on_the_wire.popleft())
        self._take_in()

    def _take_in(self) -> None:
        while self._inbox and self._reading and not self._closing:
            self._inbox.popleft()()

    # --- the interface that protocols use ---

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        sent = bytes(data)
        if self.process is not None:
            self.process.step(f"send {_first_line(sent)}")
        if self._network.resets():
            self.abort()
            return
        self.peer.soon(lambda: self.peer.receive(sent))

    def receive(self, data: bytes) -> None:
        """Receive bytes."""
        if self.protocol is not None:
            self.protocol.data_received(data)

    def close(self) -> None:
        self._close(None, self.peer.end_of_file)

    def abort(self) -> None:
        self._close(None, self.peer.broken)

    def vanish(self) -> None:
        """Remove the process of this end."""
        self._closing = True
        self._network.drop(self)
        self.peer.soon(self.peer.broken)

    def perish(self) -> None:
        """Notify the remaining protocol that the connection is lost."""
        if self.protocol is not None:
            self._network.loop.call_soon(self.protocol.connection_lost, None, context=self._context)

    def end_of_file(self) -> None:
        """Receive the end of the stream from the other side."""
        if self.protocol is not None and not self.protocol.eof_received():
            self.close()

    def broken(self) -> None:
        """Lose the other side."""
        self._close(ConnectionResetError(104, "Connection reset by peer"), None)

    def _close(self, error: Exception | None, peer_learns: Callable[[], None] | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._network.drop(self)
        if self.protocol is not None:
            self._network.loop.call_soon(self.protocol.connection_lost, error, context=self._context)
        if peer_learns is not None:
            self.peer.soon(peer_learns)

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._network.loop.call_soon(self._take_in, context=self._context)

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def _first_line(sent: bytes) -> str:
    """Return a piece of bytes as one line of a trace."""
    line = sent.partition(b"\r\n")[0].partition(b"?")[0][:200].decode("ascii", "replace")
    return line if line.startswith(("GET", "POST", "PUT", "DELETE", "HTTP")) else f"{len(sent)} bytes of a body"
