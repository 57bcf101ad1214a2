"""The event loop of a command, its signals, and its client."""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted
from together_batches.cli._terminal.loop import in_loop, report_early_end, time_limit
from together_batches.emulator import Fault
from together_batches.errors import APITimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.emulator import Emulator


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


# --- client


def test_no_key(run: Callable[..., tuple[int, str, str]]) -> None:
    """The error about a missing key names the variable and login, without advice for code."""
    assert run("list") == (
        3,
        "",
        "together-batches: error: no API key: set TOGETHER_API_KEY, or run 'together-batches login'\n",
    )


def test_broken_key(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in an invalid format is reported as a refused key, and is not shown."""
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp key")
    code, _, err = run("get", "a")
    assert code == 3
    assert "white space" in err
    assert "tgp" not in err


@pytest.mark.parametrize(
    ("url", "expected"),
    [("ftp://example", "https://"), ("http://192.0.2.1", "plain HTTP"), ("https://h:port", "not a URL")],
)
def test_impossible_urls(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    """An invalid URL is a usage error, with or without a key."""
    code, out, err = run("list", "--base-url", url)
    assert (code, out) == (2, "")
    assert expected in err
    assert "allow_insecure_http" not in err
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    assert run("list", "--base-url", url) == (2, "", err)


def test_refused_connection(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection logs a warning at once, and ends with an error in one sentence."""
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    code, out, err = run("list", "--base-url", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    warning, error = err.splitlines()
    assert "no answer yet from http://127.0.0.1:9/v1 (no connection to 127.0.0.1:9" in warning
    assert error.startswith("together-batches: error: no connection to 127.0.0.1:9")


def test_time_limit_of_an_attempt(run: Callable[..., tuple[int, str, str]], emulator: Emulator) -> None:
    """--request-timeout ends each attempt of a request."""
    emulator.fail(Fault(on="list", times=None, delay=0.5))
    code, _, err = run("list", "--request-timeout", "0.05")
    assert code == 1
    assert "0.05 s" in err
    assert emulator.count("list") == 3


@pytest.mark.parametrize(
    "argv", [["list"], ["get", "a", "b"], ["results", "a"], ["files", "list"], ["files", "get", "a"]]
)
def test_time_limit_of_the_whole(
    run: Callable[..., tuple[int, str, str]], emulator: Emulator, argv: list[str]
) -> None:
    """--timeout ends the command in any phase."""
    emulator.fail(Fault(times=None, delay=5))
    assert run(*argv, "--timeout", "0.1") == (6, "", "together-batches: error: timed out after 0.1 s\n")


def test_verbose(run: Callable[..., tuple[int, str, str]], emulator: Emulator) -> None:
    """-v logs retries on standard error as harmless text, and leaves the logger as it was."""
    emulator.fail(Fault(on="list", status=500, body={"error": "\x1b[2J"}))
    code, _, err = run("list", "-v")
    assert code == 0
    assert "attempt 1 failed" in err
    assert "\x1b" not in err
    assert str(emulator.api_key) not in err
    assert logging.getLogger("together_batches").level == logging.NOTSET
    assert run("list", "--quiet") == (0, "", "")
