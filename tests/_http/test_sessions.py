"""Tests of the sessions that a client opens: what each request of them sends."""

from __future__ import annotations

import aiohttp
from multidict import CIMultiDict
from wires import RawServer, http

from together_batches._http.sessions import open_session


def _sent(server: RawServer) -> list[tuple[str, str]]:
    lines = server.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


async def test_the_headers_of_the_session_are_sent_as_they_are() -> None:
    """Each header is sent once, in the given order, and what aiohttp adds comes last."""
    async with RawServer(http(200, {})) as server:
        host = server.base_url.split("/")[2]
        given = CIMultiDict({"Host": host, "User-Agent": "a", "Accept": "b", "Content-Type": "c"})
        async with open_session(aiohttp.TCPConnector(), headers=given) as session:
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
        async with open_session(aiohttp.TCPConnector(), headers=given) as session:
            for headers in ({"accept": "x", "X-Team": "blue"}, None):
                async with session.get(server.base_url, headers=headers):
                    pass
        assert [request.lower().count(b"accept: x") for request in server.requests] == [1, 0]
        assert [request.count(b"X-Team: blue") for request in server.requests] == [1, 0]


async def test_a_session_without_headers_names_the_host_by_itself() -> None:
    """Without a Host among its headers the session adds that of the URL, first."""
    async with RawServer(http(200, {})) as server:
        async with open_session(aiohttp.TCPConnector()) as session, session.get(server.base_url):
            pass
        assert _sent(server)[0] == ("Host", server.base_url.split("/")[2])


async def test_no_cookie_is_returned() -> None:
    """A cookie of a response is not sent with the next request."""
    replies = http(200, {}, headers={"Set-Cookie": "a=b"}), http(200, {})
    async with RawServer(*replies) as server:
        async with open_session(aiohttp.TCPConnector()) as session:
            for _ in range(2):
                async with session.get(server.base_url):
                    pass
        assert b"cookie" not in server.requests[1].lower()
