"""Tests that need optional libraries; ``nox -s extras`` installs all of them.

Each module begins with ``pytest.importorskip``, so that other sessions skip it.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory, and leave them out of coverage, which has no such libraries."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.extras)
            item.add_marker("unmeasured")
