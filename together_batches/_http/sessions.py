"""The sessions of aiohttp that a client opens: without cookies, retries and redirects, and with wide limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict

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
