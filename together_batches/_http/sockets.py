"""Sockets that read what a server said before it closed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

__all__ = ["PatientSocket", "open_socket"]

_BROKEN = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class PatientSocket(socket.socket):
    """A socket whose broken connection is noticed by reading, never by writing.

    A server that refuses a file (413, 403) answers and closes while the file is still on its way. An event loop that
    meets the broken connection in a write closes the socket, and loses the answer that lies there unread. So what
    cannot be written any more counts as written; the next read finds the answer, and then the end of the connection.
    """

    __slots__ = ()

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Send, or drop what can reach nothing any more."""
        try:
            return super().send(data, flags)
        except _BROKEN:
            return memoryview(data).nbytes

    def sendmsg(self, buffers: Iterable[Buffer], *rest: object) -> int:
        """Send several buffers, or drop what can reach nothing any more."""
        parts = list(buffers)
        try:
            return super().sendmsg(parts, *rest)  # type: ignore[arg-type]
        except _BROKEN:
            return sum(memoryview(part).nbytes for part in parts)


def open_socket(
    address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]],
) -> socket.socket:
    """A socket for an address, as ``socket.getaddrinfo`` describes it."""
    family, kind, protocol, _, _ = address
    return PatientSocket(family, kind, protocol)
