"""Tests of the sessions that a client opens: what each request of them sends."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from multidict import CIMultiDict
from wires import RawServer, http

from together_batches._http.sessions import Connector, open_session

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

SAMPLES = Path(__file__).parents[1] / "samples"


def _sent(server: RawServer) -> list[tuple[str, str]]:
    lines = server.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


async def test_the_headers_of_the_session_are_sent_as_they_are() -> None:
    """Each header is sent once, in the given order, and what aiohttp adds comes last."""
    async with RawServer(http(200, {})) as server:
        host = server.base_url.split("/")[2]
        given = CIMultiDict({"Host": host, "User-Agent": "a", "Accept": "b", "Content-Type": "c"})
        async with open_session(Connector(), headers=given) as session:
            async with session.post(server.base_url) as response:
                assert response.status == 200
            assert list(given) == ["Host", "User-Agent", "Accept", "Content-Type"]
        sent = _sent(server)
        assert sent[:4] == list(given.items())
        assert [name for name, _ in sent[4:]] == ["Accept-Encoding", "Content-Length"]


async def test_a_header_of_a_request_replaces_that_of_the_session() -> None:
    """A request may change a header, for itself alone."""
    async with RawServer(http(200, {}), http(200, {})) as server:
        given = CIMultiDict({"Host": server.base_url.split("/")[2], "Accept": "b"})
        async with open_session(Connector(), headers=given) as session:
            for headers in ({"accept": "x", "X-Team": "blue"}, None):
                async with session.get(server.base_url, headers=headers):
                    pass
        assert [request.lower().count(b"accept: x") for request in server.requests] == [1, 0]
        assert [request.count(b"X-Team: blue") for request in server.requests] == [1, 0]


async def test_a_session_without_headers_names_the_host_by_itself() -> None:
    """Without a Host among its headers the session adds that of the URL, first."""
    async with RawServer(http(200, {})) as server:
        async with open_session(Connector()) as session, session.get(server.base_url):
            pass
        assert _sent(server)[0] == ("Host", server.base_url.split("/")[2])


async def test_no_cookie_is_returned() -> None:
    """A cookie of a response is not sent with the next request."""
    replies = http(200, {}, headers={"Set-Cookie": "a=b"}), http(200, {})
    async with RawServer(*replies) as server:
        async with open_session(Connector()) as session:
            for _ in range(2):
                async with session.get(server.base_url):
                    pass
        assert b"cookie" not in server.requests[1].lower()


# --- connections --------------------------------------------------------------------------------------------------


def company() -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(SAMPLES / "company-server.pem")
    return tls


def trust() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=SAMPLES / "company-authority.pem")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it lacks what Python 3.13 requires
    return context


async def test_the_last_response_of_a_connection(client_sockets: list[socket.socket]) -> None:
    """A session leaves no socket open that waits for the server's end of TLS."""
    async with RawServer(http(200, b"x"), tls=company()) as server:
        async with open_session(Connector()) as session, session.get(server.base_url, ssl=trust()) as response:
            assert await response.read() == b"x"
        assert [each.fileno() for each in client_sockets] == [-1]


async def test_a_response_that_is_left(client_sockets: list[socket.socket]) -> None:
    """A response that is left unread, when all of it is here and the server is gone, leaves no socket open."""
    may_leave = asyncio.Event()
    async with RawServer((http(200, b"x" * 800_000), may_leave, "reset"), tls=company()) as server:
        async with open_session(Connector()) as session, session.get(server.base_url, ssl=trust()):
            await asyncio.sleep(0.1)  # as much arrives as is read ahead
            may_leave.set()
            await asyncio.sleep(0.1)
        assert [each.fileno() for each in client_sockets] == [-1]


async def test_a_request_that_the_server_does_not_read(client_sockets: list[socket.socket]) -> None:
    """A request that is cancelled leaves no socket open that waits for the server to read the rest."""
    begun = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        begun.set()
        yield bytes(20_000_000)  # more than the system takes before it is read

    async with RawServer(("unread", asyncio.Event())) as server, open_session(Connector()) as session:
        sending = asyncio.create_task(session.put(server.base_url, data=content()))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.sleep(0)
        assert [each.fileno() for each in client_sockets] == [-1]


async def test_a_tunnel_that_a_proxy_does_not_open(client_sockets: list[socket.socket]) -> None:
    """The end of a session ends a request that waits for the proxy, and leaves no socket open."""
    async with RawServer((asyncio.Event(),)) as proxy:
        async with open_session(Connector()) as session:
            getting = asyncio.create_task(session.get("https://service.test", proxy=proxy.origin))
            while not proxy.requests:  # noqa: ASYNC110  # it notes requests, and notifies no one
                await asyncio.sleep(0)
        assert [each.fileno() for each in client_sockets] == [-1]
        with pytest.raises(aiohttp.ClientError):
            await getting
