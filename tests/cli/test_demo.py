"""The command ``demo``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from together_batches.cli import _demo_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from cli.conftest import Ran

    Run = Callable[..., Ran]


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch, on_terminal: Callable[..., None]) -> None:
    """The demo needs no key, ignores the environment, accounts for every id, and names the next step."""
    monkeypatch.setenv("TOGETHER_API_KEY", "not a key at all")
    monkeypatch.setenv("TOGETHER_BASE_URL", "ftp://nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")
    on_terminal("stderr")
    ran = run("demo", "--jobs", "60")
    assert ran.code == 0
    words = [line.split() for line in ran.lines]
    counts = [next(int(word) for word in line if word.isdigit()) for line in words[2 : words.index([], 2)]]
    assert sum(counts) == 63
    assert ran.out.startswith("\nRESULT")
    assert "63 ids in" in ran.out
    assert ran.out.endswith("together-batches cancel --all --dry-run\n")
    assert "63 of 63, 3 failed" in ran.err
    assert "not a key" not in ran.out + ran.err


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the demo with a message."""

    def interrupt(*_: object) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return ["a"]

    monkeypatch.setattr(_demo_jobs, "populate", interrupt)
    ran = run("demo")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith("interrupted: 0 ids answered: no jobs; the jobs were the emulator's own\n")
