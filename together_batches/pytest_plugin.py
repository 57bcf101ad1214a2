"""Pytest fixtures for users of this package: ``pytest_plugins = ["together_batches.pytest_plugin"]``.

The fixture ``emulator`` is a running :class:`~together_batches.emulator.Emulator`, one for each test; clients that
are created without arguments use it. To choose the arguments of that ``Emulator``, override ``emulator_options``.
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
    """Return the arguments of the ``emulator`` fixture's ``Emulator``: none, unless a test overrides this fixture."""
    return {}


@pytest.fixture
def emulator(emulator_options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Generator[Emulator, None, None]:
    """Yield a running emulator, with ``TOGETHER_BASE_URL`` and ``TOGETHER_API_KEY`` set to it.

    It has a loop and a thread of its own, not those of the test, so synchronous tests can use it, and asynchronous
    tests under any runner.
    """
    with Emulator(**emulator_options).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        # An emulator that accepts any key still requires one.
        monkeypatch.setenv("TOGETHER_API_KEY", running.api_key or "any-key")
        for name in ("NO_PROXY", "no_proxy"):
            # If a proxy is configured, requests to this machine must not go to it.
            monkeypatch.setenv(name, running.base_url.split("/")[2].rpartition(":")[0].strip("[]"), prepend=",")
        yield running
