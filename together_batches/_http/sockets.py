"""Sockets that read a server's answer although the server closed the connection."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

__all__ = ["PatientSocket", "open_socket"]

_send = socket.socket.send  # found without super(), whose object costs time with each request
_BROKEN = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class PatientSocket(socket.socket):
    """A socket that reports a broken connection on reads, never on writes.

    A server that refuses a file (413, 403) answers and closes while the file is still being sent. An event loop that
    meets the broken connection in a write closes the socket, and loses the unread answer. So bytes that cannot be
    written any more count as written; the next read returns the answer, and then the end of the connection.
    """

    __slots__ = ()

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
