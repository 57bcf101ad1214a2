"""The emulator as a command."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from together_batches.cli import _emulate
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Emulator]:
    """The emulators that the command starts; each is stopped by Ctrl-C as soon as it runs."""
    made: list[Emulator] = []
    sleep_forever = anyio.sleep_forever

    class Noted(Emulator):
        async def start(self) -> None:
            await super().start()
            made.append(self)

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await sleep_forever()

    monkeypatch.setattr(_emulate, "Emulator", Noted)
    monkeypatch.setattr(_emulate.anyio, "sleep_forever", interrupt)
    return made


def test_exports(run: Run, started: list[Emulator]) -> None:
    """It prints the two lines that point a shell to it, and ends well by Ctrl-C."""
    ran = run("emulator", "--jobs", "7")
    (emulator,) = started
    assert ran.code == 0
    assert [
        f"export TOGETHER_BASE_URL={emulator.base_url}",
        f"export TOGETHER_API_KEY={emulator.api_key}",
    ] == ran.lines
    assert "7 jobs until Ctrl-C" in ran.err
    assert len(emulator.jobs) == 7
    assert emulator.rate_limit is None


def test_rate_limit(run: Run, started: list[Emulator]) -> None:
    """A rate limit has a burst of its own, or of a second."""
    run("emulator", "--rate-limit", "2.5")
    run("emulator", "--rate-limit", "2.5", "--burst", "9")
    limits = [emulator.rate_limit for emulator in started]
    assert [(limit.per_second, limit.burst) for limit in limits if limit] == [(2.5, 3), (2.5, 9)]
    assert run("emulator", "--burst", "9").code == 2


def test_port_that_is_taken(run: Run, started: list[Emulator]) -> None:
    """A port that somebody else has is one sentence."""
    with Emulator().running_in_thread() as other:
        ran = run("emulator", "--port", str(other.port))
    assert (ran.code, ran.out) == (1, "")
    assert "in use" in ran.err
    assert ran.err.count("\n") == 1
