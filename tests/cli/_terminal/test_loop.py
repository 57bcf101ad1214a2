"""The event loop of a command, its signals, and its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted
from together_batches.cli._terminal.loop import in_loop, report_early_end, time_limit
from together_batches.errors import APITimeoutError


@in_loop
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
    """uvloop is used if it is installed, without any setting."""
    assert the_sum(1, 2) == (3, QuickLoop)


@pytest.mark.usefixtures("installed")
def test_uvloop_is_left_alone_where_a_standard_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop is not used if a standard stream is closed: it would reuse its number, and abort the process."""
    monkeypatch.setattr(sys, "stdin", None)
    total, loop = the_sum(1, 2)
    assert total == 3
    assert loop is not QuickLoop


def test_without_it_the_loop_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop, which is an extra, the standard event loop is used."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    total, loop = the_sum(1, 2)
    assert total == 3
    assert "uvloop" not in loop.__module__


def test_signals_of_one_ctrl_c_are_one() -> None:
    """Signals of Ctrl-C that come together, as those of ``timeout``, cancel a command once; its cleanup ends."""
    before = signal.getsignal(signal.SIGINT)
    steps: list[str] = []

    @in_loop
    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps.append("cancelled")
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
            steps.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["cancelled", "cleaned up"]
    assert signal.getsignal(signal.SIGINT) is before


def test_last_words_of_an_interrupted_command() -> None:
    """The last words of an interrupted command report the state at its end."""
    done: list[str] = []

    def interrupted() -> None:
        with report_early_end(lambda: f"{len(done)} is done"):
            done.append("a")
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"^interrupted: 1 is done$"):
        interrupted()


def test_last_words_at_the_end_of_the_time() -> None:
    """The state is printed on one line after the error of a timeout; other errors pass unchanged."""
    with pytest.raises(CommandError, match=r"^timed out: one; two$"), report_early_end(lambda: "one\ntwo"):
        raise CommandError("timed out", Exit.TIMED_OUT)
    with pytest.raises(CommandError, match=r"^no$"), report_early_end(lambda: "one"):
        raise CommandError("no")


async def test_time_limit() -> None:
    """An expired time limit is an error with its own exit code; None means no limit."""
    with pytest.raises(CommandError, match=r"^timed out after 0.01 s while waiting$") as caught:
        async with time_limit(0.01, " while waiting"):
            await asyncio.get_running_loop().create_future()
    assert caught.value.code is Exit.TIMED_OUT
    async with time_limit(None):
        pass


async def test_time_limit_of_a_request_is_another() -> None:
    """An error of the client that is also a TimeoutError passes unchanged."""
    with pytest.raises(APITimeoutError):
        async with time_limit(30):
            raise APITimeoutError("slow")
