"""Fixtures for the tests of people who use this package: `pytest_plugins = ["together_batches.pytest_plugin"]`.

- `emulator`: a running `together_batches.emulator.Emulator`, one for each test; clients made without
  arguments find it.
- `emulator_options`: override it to choose the arguments of that `Emulator`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["emulator", "emulator_options"]


@pytest.fixture
def emulator_options() -> Mapping[str, Any]:
    """The arguments of the `emulator` fixture's `Emulator`: none, unless a test overrides this fixture."""
    return {}


@pytest.fixture
def emulator(emulator_options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Generator[Emulator, None, None]:
    """An emulator that runs while the test does, with TOGETHER_BASE_URL and TOGETHER_API_KEY pointing at it.

    It has a loop and a thread of its own rather than the test's: so synchronous tests can use it, and
    asynchronous ones under any runner.
    """
    with Emulator(**emulator_options).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        # An emulator that takes any key still wants one.
        monkeypatch.setenv("TOGETHER_API_KEY", running.api_key or "any-key")
        for name in ("NO_PROXY", "no_proxy"):
            # Where a proxy is configured, requests to this machine must not go to it.
            monkeypatch.setenv(name, running.base_url.split("/")[2].rpartition(":")[0].strip("[]"), prepend=",")
        yield running
