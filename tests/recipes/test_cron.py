"""The script for cron, started again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from together_batches.emulator import Timing

if TYPE_CHECKING:
    from recipes.recipe import Recipe

pytestmark = pytest.mark.timeout(240)


def _script(recipe: Recipe) -> str:
    return (recipe.directory / "run-inbox.sh").read_text("utf-8").replace("/srv/nightly", str(recipe.directory))


def test_a_killed_start_is_resumed(recipe: Recipe) -> None:
    """The next start resumes what was killed, and makes no second job; one more start has nothing to do."""
    script = _script(recipe)
    recipe.run_after_kills(script)
    recipe.run(script)
    recipe.assert_done_once()


def test_a_file_that_is_in_use_is_passed_over(recipe: Recipe) -> None:
    """While an earlier start works on a file, the next one takes another."""
    script = _script(recipe)
    with recipe.running(script, until="retrieve"):
        recipe.emulator.timing = Timing(validating=0, running=0)
        recipe.write_requests("later")
        recipe.run(script)
    assert [path.name for path in recipe.answers.parent.glob("*.jsonl")] == ["later.jsonl"]
    assert recipe.emulator.count("create") == 2
