"""A transport in front of a scripted server, and the requests and responses of its tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from wires import RawServer, http, job, transport

from together_batches import (
    APIError,
)
from together_batches._http.client_state import CallState
from together_batches._protocol.jobs import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wires import Reply

    from together_batches._http.transport import Transport


READ = Request("GET", "/batches/job-1", repeatable=True)
CANCEL = Request("POST", "/batches/job-1/cancel", repeatable=True)
CREATE = Request("POST", "/batches", repeatable=False, body=b'{"input_file_id":"file-1"}')

OK = http(200, job())
OVERLOADED = http(503, {"error": "overloaded"})
TOO_MANY = http(429, {"error": "too many requests"})


@asynccontextmanager
async def between(*replies: Reply, **options: object) -> AsyncIterator[tuple[Transport, RawServer]]:
    async with RawServer(*replies) as server:
        sender = transport(server.base_url, **options)
        try:
            yield sender, server
        finally:
            await sender.state.close()


async def failure(sender: Transport, request: Request, call: CallState | None = None) -> APIError:
    with pytest.raises(APIError) as caught:
        await sender.send(request, call or CallState())
    return caught.value
