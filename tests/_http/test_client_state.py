"""The state of a client: its session, its event loop and process, its end.

Time is virtual here: nothing waits for real, except for the few limits of sockets themselves.
"""

from __future__ import annotations

import asyncio
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from wires import KEY, RawServer, VirtualLoop, in_virtual_time, stable, transport

from _http.sender import OK, OVERLOADED, READ, between
from together_batches import (
    AsyncBatches,
    UsageError,
)
from together_batches._http.client_state import CallState, ClientState
from together_batches._http.transport import Transport
from together_batches.config import Config

if TYPE_CHECKING:
    from wires import Reply


# --- event loops, processes and closed clients ----------------------------------------------------------------


def test_a_loop_of_another_library_is_refused_in_a_sentence() -> None:
    """Without an asyncio loop, as under trio, a call raises a clear error, whatever runs the coroutine."""
    sender = Transport(Config.from_env({}, api_key=KEY), ClientState(None, max_concurrency=1))
    with pytest.raises(UsageError, match="no asyncio event loop is running here; with trio"):
        sender.send(READ, CallState()).send(None)


def test_trio_is_recognised_where_no_call_is_made_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio is recognised before a bulk creates tasks, for which asyncio would raise its own error."""
    trio = SimpleNamespace(lowlevel=SimpleNamespace(in_trio_run=lambda: True))
    monkeypatch.setitem(sys.modules, "trio", trio)
    connection = ClientState(None, max_concurrency=1)
    with pytest.raises(UsageError, match="with trio or curio, call Batches in a worker thread"):
        connection.check()
    with pytest.raises(UsageError, match="with trio or curio, call Batches in a worker thread"):
        _ = AsyncBatches(KEY).files
    trio.lowlevel.in_trio_run = lambda: False
    connection.check()


@pytest.mark.parametrize("session", ["x", 5, object()], ids=stable)
def test_a_session_is_a_session(session: Any) -> None:
    """An invalid session is refused when the client is created."""
    with pytest.raises(UsageError, match=r"^session must be an aiohttp\.ClientSession"):
        ClientState(session, max_concurrency=1)


def test_a_connection_belongs_to_one_loop() -> None:
    """A connection raises an error on another loop, also when all its slots are taken."""
    sender = Transport(Config.from_env({}, api_key=KEY), ClientState(None, max_concurrency=1))

    async def hold() -> None:
        async with sender.state.slots:
            sender.state.session()
            await sender.state.close()

    async def use() -> None:
        await sender.send(READ, CallState())

    asyncio.run(hold())
    sender.state.closed = False
    with pytest.raises(UsageError, match="belongs to another event loop"):
        asyncio.run(use())

    async def take_a_slot() -> None:
        await sender.state.slots.acquire()

    asyncio.run(take_a_slot())
    with pytest.raises(UsageError, match="belongs to another event loop"):
        asyncio.run(use())


async def test_a_closed_connection_says_so(emulator: object) -> None:
    """A closed connection raises an error, and may be closed twice."""
    sender = transport("http://127.0.0.1:1")
    await sender.state.close()
    await sender.state.close()
    with pytest.raises(UsageError, match="this client is closed"):
        await sender.send(READ, CallState())


@pytest.mark.parametrize("moment", ["under way", "in the back-off"])
def test_closing_ends_what_is_under_way(moment: str) -> None:
    """Closing ends a call with an error that says why, and that is not a failure of the service."""

    @in_virtual_time
    async def run() -> None:
        reply: Reply = (asyncio.Event(),) if moment == "under way" else OVERLOADED
        async with between(reply) as (sender, server):
            task = asyncio.create_task(sender.send(READ, CallState()))
            await asyncio.sleep(0.1)
            await sender.state.close()
            with pytest.raises(UsageError, match="closed"):
                await task
            assert len(server.requests) == 1

    run()


async def test_a_session_that_was_closed_elsewhere() -> None:
    """A session that the caller passed and closed raises an error that says whose it was."""
    session = aiohttp.ClientSession()
    config = Config.from_env({}, api_key=KEY, base_url="http://127.0.0.1:1")
    sender = Transport(config, ClientState(session, max_concurrency=1))
    await session.close()
    with pytest.raises(UsageError, match="the session that this client was given is closed"):
        await sender.send(READ, CallState())


@in_virtual_time
async def test_a_session_that_is_closed_elsewhere_meanwhile() -> None:
    """A session that is closed while a call waits for a permit is not a failure of the service, and not retried."""
    async with RawServer(OK) as server:
        session = aiohttp.ClientSession()
        config = Config.from_env({}, api_key=KEY, base_url=server.base_url)
        clock = asyncio.get_running_loop().time
        sender = Transport(config, ClientState(session, max_concurrency=1, clock=clock))
        bulk = sender.bulk(1)
        await sender.send(READ, bulk.call())
        waiting = asyncio.create_task(sender.send(READ, bulk.call()))
        await asyncio.sleep(0.5)
        await session.close()
        with pytest.raises(UsageError, match="the session that this client was given was closed"):
            await waiting


def test_a_fork_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a fork precedes any about loops, so that a child with its own loop is not misled."""
    sender = transport_without_loop()
    monkeypatch.setattr(os, "getpid", lambda: -1)

    async def use() -> None:
        with pytest.raises(UsageError, match="made in another process"):
            await sender.send(READ, CallState())
        await sender.state.close()

    asyncio.run(use())


def transport_without_loop() -> Transport:
    async def make() -> Transport:
        sender = transport("http://127.0.0.1:1")
        sender.state.session()
        await sender.state.close()
        sender.state.closed = False
        return sender

    return asyncio.run(make())


def test_time_is_virtual_here() -> None:
    """Time is virtual in these tests, because they would take minutes otherwise."""
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600
    loop.close()
