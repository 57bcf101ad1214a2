"""Fixtures that run the command within the test, against an emulator in a thread of its own."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from together_batches.cli import main
from together_batches.cli._account import client
from together_batches.config import RetryPolicy
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the environment that runs the tests, and the pauses between retries."""
    for name in ("TOGETHER_API_KEY", "TOGETHER_BASE_URL", "CI", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(client, "RETRY", RetryPolicy(max_attempts=3, base_delay=0))


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator().running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_API_KEY", str(running.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*argv: str) -> Ran:
        code = main(argv)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put bytes on standard input, from a pipe or from a terminal."""

    def feed(content: bytes, *, terminal: bool = False) -> None:
        stream = io.TextIOWrapper(io.BytesIO(content))
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, "stdin", stream)

    feed(b"")
    return feed


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Make standard output, standard error, or both look like a terminal."""

    def on_terminal(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)

    return on_terminal
