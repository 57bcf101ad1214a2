"""Tests of the socket that reports a broken connection only on reads, and reads little at first."""

from __future__ import annotations

import socket
import struct

import pytest

from together_batches._http.sockets import PatientSocket, open_socket


@pytest.fixture
def refused() -> tuple[socket.socket, socket.socket]:
    """A connection, and the server's side of it, which has answered and then reset it while we were sending."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        ours = open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", door.getsockname()))
        ours.connect(door.getsockname())
        theirs, _ = door.accept()
    ours.send(b"unread")
    theirs.sendall(b"413")
    # A reset, and not an orderly end.
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return ours, theirs


def test_what_was_said_before_the_end_is_read(refused: tuple[socket.socket, socket.socket]) -> None:
    """An answer before the reset is read, because bytes that cannot be sent count as written."""
    ours, theirs = refused
    assert ours.recv(3, socket.MSG_PEEK) == b"413"
    theirs.shutdown(socket.SHUT_RDWR)
    theirs.close()
    with ours:
        for _ in range(5):
            assert ours.send(memoryview(b"a part of a file")) == 16
            assert ours.sendmsg([b"a part", b"another"]) == 13
        assert ours.recv(100) == b"413"


def test_reading_finds_the_end(refused: tuple[socket.socket, socket.socket]) -> None:
    """A read after the reset ends the stream or raises an error, and never waits."""
    ours, theirs = refused
    ours.settimeout(5)
    theirs.close()
    with ours:
        ours.send(b"a part of a file")
        try:
            while ours.recv(100):
                pass
        except ConnectionError:
            pass
        assert ours.send(b"a part of a file") == 16


def test_a_read_is_small_until_much_arrives() -> None:
    """Reads are of up to 64 KB, and as large as the caller wants while they are full."""
    ours, theirs = socket.socketpair()
    with PatientSocket(fileno=ours.detach()) as reader, theirs:
        for end in (reader, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(bytes(150_000))
        assert [len(reader.recv(1 << 18)) for _ in range(2)] == [65_536, 150_000 - 65_536]
        theirs.sendall(b"little")
        assert reader.recv(3) == b"lit"
        assert reader.recv(1 << 18) == b"tle"
        theirs.sendall(bytes(100_000))
        assert len(reader.recv(1 << 18)) == 65_536
