"""What every test stands on: an empty environment, an emulator with a key worth hiding, aioresponses made to work."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aioresponses.core
import pytest
from aiohttp import ClientResponse
from hypothesis import settings
from wires import KEY

from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# No deadline: a busy machine is not a failure. Fewer examples than Hypothesis's 100: every run draws others.
settings.register_profile("suite", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("thorough", settings.get_profile("suite"), max_examples=1_000)
settings.load_profile("suite")


def _without_stacks(_loop: asyncio.AbstractEventLoop) -> bool:
    """Answer ``loop.get_debug()``: what decides if each future and handle keeps the stack that made it.

    The debug mode of the tests is there for the check that a loop is used from its own thread only, and that one does
    not go through this method. The stacks make a test take three times as long.
    """
    return False


def pytest_configure() -> None:
    """Debug loops without stacks; and Ctrl-C, which a shell has background jobs ignore, with all that they start."""
    asyncio.BaseEventLoop.get_debug = _without_stacks  # type: ignore[method-assign]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """The same name in every worker: not that of an address, nor that of bytes that a compression made."""
    if isinstance(val, bytes) and not val.isascii():
        return argname
    return None


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys and proxies of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith("TOGETHER_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A running emulator that takes :data:`wires.KEY` and no other."""
    async with Emulator(api_key=KEY) as running:
        yield running


@pytest.fixture
def aioresponses_for_aiohttp_3_14(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give aioresponses 0.7.9 the ``stream_writer`` that aiohttp wants for each response since 3.14.

    To be deleted once https://github.com/pnuckowski/aioresponses/issues/289 is closed by a release.
    """

    class Response(ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, stream_writer=SimpleNamespace(output_size=0), **kwargs)

    monkeypatch.setattr(aioresponses.core, "ClientResponse", Response)


@pytest.fixture
def answers(aioresponses_for_aiohttp_3_14: None) -> Iterator[aioresponses.core.aioresponses]:
    """Canned answers for requests that are never sent: for the shape of requests and sequences of replies only.

    It knows no sockets, and so tells nothing about redirects, time limits or broken connections.
    """
    with aioresponses.core.aioresponses() as canned:
        yield canned
