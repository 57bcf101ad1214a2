"""The client of a command: its key, its URL, its time limits, its log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from together_batches.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran
    from together_batches.emulator import Emulator

    Run = Callable[..., Ran]


def test_no_key(run: Run) -> None:
    """The error about a missing key names the variable and login, without advice for code."""
    assert run("list") == (
        3,
        "",
        "together-batches: error: no API key: set TOGETHER_API_KEY, or run 'together-batches login'\n",
    )


def test_broken_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_impossible_urls(run: Run, monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    """An invalid URL is a usage error, with or without a key."""
    code, out, err = run("list", "--base-url", url)
    assert (code, out) == (2, "")
    assert expected in err
    assert "allow_insecure_http" not in err
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    assert run("list", "--base-url", url) == (2, "", err)


def test_refused_connection(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection logs a warning at once, and ends with an error in one sentence."""
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    code, out, err = run("list", "--base-url", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    warning, error = err.splitlines()
    assert "no answer yet from http://127.0.0.1:9/v1 (no connection to 127.0.0.1:9" in warning
    assert error.startswith("together-batches: error: no connection to 127.0.0.1:9")


def test_time_limit_of_an_attempt(run: Run, emulator: Emulator) -> None:
    """--request-timeout ends each attempt of a request."""
    emulator.fail(Fault(on="list", times=None, delay=0.5))
    code, _, err = run("list", "--request-timeout", "0.05")
    assert code == 1
    assert "0.05 s" in err
    assert emulator.count("list") == 3


@pytest.mark.parametrize(
    "argv", [["list"], ["get", "a", "b"], ["results", "a"], ["files", "list"], ["files", "get", "a"]]
)
def test_time_limit_of_the_whole(run: Run, emulator: Emulator, argv: list[str]) -> None:
    """--timeout ends the command in any phase."""
    emulator.fail(Fault(times=None, delay=5))
    assert run(*argv, "--timeout", "0.1") == (6, "", "together-batches: error: timed out after 0.1 s\n")


def test_verbose(run: Run, emulator: Emulator) -> None:
    """-v logs retries on standard error as harmless text, and leaves the logger as it was."""
    emulator.fail(Fault(on="list", status=500, body={"error": "\x1b[2J"}))
    code, _, err = run("list", "-v")
    assert code == 0
    assert "attempt 1 failed" in err
    assert "\x1b" not in err
    assert str(emulator.api_key) not in err
    assert logging.getLogger("together_batches").level == logging.NOTSET
    assert run("list", "--quiet") == (0, "", "")
