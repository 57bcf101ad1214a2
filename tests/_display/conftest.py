"""A notebook: the part of IPython that a bar uses."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Notebook:
    """The displays of a notebook: for each, the texts that it showed one after the other."""

    def __init__(self) -> None:
        self.bundles: list[list[dict[str, str]]] = []

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        """Show a new display, as ``IPython.display.display`` does, and return its handle."""
        assert raw
        assert display_id
        shown = [bundle]
        self.bundles.append(shown)
        return SimpleNamespace(update=lambda bundle, *, raw: shown.append(bundle))

    @property
    def lines(self) -> list[list[str]]:
        """The displays as plain text."""
        return [[bundle["text/plain"] for bundle in shown] for shown in self.bundles]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """A notebook that this process seems to be the kernel of."""
    shown = Notebook()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    vars(display)["display"] = shown.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown
