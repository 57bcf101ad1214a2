"""Sockets that read a server's answer although the server closed the connection, and into small buffers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

# Without super(), whose object takes time with each request.
_recv = socket.socket.recv
_send = socket.socket.send
_BROKEN = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


_SMALL_BUFFER_BYTES = 1 << 16
"""Size of a first read. The C library maps each larger buffer, and unmaps it: two system calls and two page faults,
a tenth of the cost of a small request. An event loop offers 256 KB (without TLS, which has one buffer for all)."""


class PatientSocket(socket.socket):
    """A socket that reports a broken connection on reads, never on writes, and reads little at a time at first.

    A server that refuses a file (413, 403) answers and closes while the file is still being sent. An event loop that
    meets the broken connection in a write closes the socket, and loses the unread answer. So bytes that cannot be
    written any more count as written; the next read returns the answer, and then the end of the connection.
    """

    __slots__ = ("_buffer_bytes",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._buffer_bytes = _SMALL_BUFFER_BYTES

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive up to ``size`` bytes, or up to 64 KB unless the last read was of as many or more."""
        limit = min(size, self._buffer_bytes)
        data = _recv(self, limit, flags)
        self._buffer_bytes = size if len(data) >= _SMALL_BUFFER_BYTES else _SMALL_BUFFER_BYTES
        return data

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Send, or drop the data if the connection is broken."""
        try:
            return _send(self, data, flags)
        except _BROKEN:
            return memoryview(data).nbytes

    def sendmsg(self, buffers: Iterable[Buffer], *rest: object) -> int:
        """Send several buffers, or drop them if the connection is broken."""
        parts = list(buffers)
        try:
            return super().sendmsg(parts, *rest)  # type: ignore[arg-type]
        except _BROKEN:
            return sum(memoryview(part).nbytes for part in parts)


def open_socket(
    address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]],
) -> socket.socket:
    """Return a socket for an address, as ``socket.getaddrinfo`` describes it."""
    family, kind, protocol, _, _ = address
    return PatientSocket(family, kind, protocol)
