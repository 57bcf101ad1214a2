"""The recipes of a how-to guide, each in the engine that it is for.

``nox -s recipes`` runs the tests of each engine in an environment that has it; elsewhere they are not collected.
None is on Windows, which has no SIGKILL.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipes.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if sys.platform == "win32" or (path.stem != "test_cron" and find_spec(path.stem.removeprefix("test_")) is None)
]


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Recipe]:
    made = Recipe(tmp_path)
    with made.emulator.running_in_thread():
        yield made
