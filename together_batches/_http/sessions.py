"""The sessions of aiohttp that a client opens: without cookies, retries and redirects, and with wide limits.

Their connections are closed at once, and all of them by the end of a session.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict

from together_batches._http.sockets import open_socket

if TYPE_CHECKING:
    from types import SimpleNamespace

    from aiohttp.typedefs import LooseHeaders

_LONGEST_HEADER_BYTES = (1 << 16) + 512
"""Maximum bytes of a header: a 64 KB value and its name. Gateways and login pages far exceed the usual 8 KB."""

SESSION_SETTINGS: dict[str, Any] = {
    "max_line_size": _LONGEST_HEADER_BYTES,
    "max_field_size": _LONGEST_HEADER_BYTES,
    "max_headers": 1_000,
    "auto_decompress": True,
    "raise_for_status": False,
}
"""The settings of each session of ours. A session of the caller gets them with each request, which takes longer."""


def open_session(
    connector: aiohttp.BaseConnector | None,
    *,
    owns_connector: bool = True,
    headers: CIMultiDict[str] | None = None,
    notes_sends: bool = False,
) -> aiohttp.ClientSession:
    """Return a session that sends ``headers`` with each request.

    With ``notes_sends`` it sets ``sent`` on the context of a request when the request itself has been sent, after the
    steps of a proxy.
    """
    session = aiohttp.ClientSession(
        connector=connector,
        connector_owner=owns_connector,
        # The service needs no cookies, and those of the gateway would only add weight.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        request_class=_Request,
        # They cost time with each request, and only with a proxy is it unclear whether a request was sent.
        trace_configs=[_notes_what_is_sent()] if notes_sends else None,
        **SESSION_SETTINGS,
    )
    # aiohttp itself resends a GET, PUT or DELETE when a connection breaks: retries belong to this package.
    session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
    return session


class _Connection(ResponseHandler):
    """A connection that is closed at once.

    That of aiohttp stays open until the peer has read what was written, and has answered the end of TLS: for half a
    minute, and beyond the end of its session and its loop.
    """

    def close(self) -> None:
        """Close the connection; what is not sent yet is dropped."""
        self.abort()


class Connector(aiohttp.TCPConnector):
    """Connections over our sockets, all of which are closed at the end of :meth:`close`.

    There is no limit to their number: the callers decide how many calls run at once.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, socket_factory=open_socket)  # pyright: ignore[reportUnknownMemberType]
        self._made = WeakSet[_Connection]()
        self._factory = partial(_made, self._loop, self._made)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, also those to a proxy that has not opened its tunnel yet: aiohttp omits these."""
        if not self._loop.is_closed():  # a closed loop can close nothing: it ended before its session
            for connection in list(self._made):
                connection.close()
        await super().close(abort_ssl=abort_ssl)
        await asyncio.sleep(0)  # the loop closes their sockets in its next round


def _made(loop: asyncio.AbstractEventLoop, made: WeakSet[_Connection]) -> ResponseHandler:
    connection = _Connection(loop)
    made.add(connection)
    return connection


class _Request(aiohttp.ClientRequest):
    """A request that takes over complete headers.

    The session has already made a copy of its headers for this request, and aiohttp would make another one, header
    by header. If a version of aiohttp does not call this method, it does so, which costs 2 % of a small request.
    """

    def update_headers(self, headers: LooseHeaders | None) -> None:
        """Set the headers of the request."""
        if isinstance(headers, CIMultiDict) and "Host" in headers:
            self.headers = headers
        else:
            super().update_headers(headers)


def _notes_what_is_sent() -> aiohttp.TraceConfig:
    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace
