"""The loop of a command."""

from __future__ import annotations

import asyncio
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from together_batches.cli import _loop


async def the_sum(left: int, right: int) -> tuple[int, type[asyncio.AbstractEventLoop]]:
    return left + right, type(asyncio.get_running_loop())


class QuickLoop(asyncio.SelectorEventLoop):
    pass


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = ModuleType("uvloop")
    uvloop.__spec__ = ModuleSpec("uvloop", None)
    monkeypatch.setattr(uvloop, "new_event_loop", QuickLoop, raising=False)
    for name in ("uvloop", "winloop"):  # its name on Windows
        monkeypatch.setitem(sys.modules, name, uvloop)


@pytest.mark.usefixtures("installed")
def test_uvloop_is_taken_where_it_is_installed() -> None:
    """Nobody has to ask for it."""
    assert _loop.run(the_sum, 1, 2) == (3, QuickLoop)


@pytest.mark.usefixtures("installed")
def test_uvloop_is_left_alone_where_a_standard_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process, since it takes the number of that stream for a file of its own."""
    monkeypatch.setattr(sys, "stdin", None)
    total, loop = _loop.run(the_sum, 1, 2)
    assert total == 3
    assert loop is not QuickLoop


def test_without_it_the_loop_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and nothing is missed where it is not there."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    total, loop = _loop.run(the_sum, 1, 2)
    assert total == 3
    assert "uvloop" not in loop.__module__
