"""The recipe for DBOS, on SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipes.recipe import DAY

if TYPE_CHECKING:
    from recipes.recipe import Recipe

pytestmark = pytest.mark.timeout(600)

LAUNCH = """
from dbos import DBOS, SetWorkflowID
from nightly_dbos import nightly

DBOS(config={"name": "nightly", "system_database_url": "sqlite:///dbos.sqlite", "log_level": "ERROR"})
DBOS.launch()
"""
START = f"""{LAUNCH}
with SetWorkflowID("{DAY}"):
    nightly("inbox/{DAY}.jsonl", "answers/{DAY}.jsonl")
"""
RECOVER = f"""{LAUNCH}
print(DBOS.retrieve_workflow("{DAY}").get_result())
DBOS.destroy()
"""
REFUSED = f"""{LAUNCH}
try:
    nightly("inbox/{DAY}.jsonl", "answers/{DAY}.jsonl")
except Exception as error:
    print(type(error).__name__)
DBOS.destroy()
"""


def test_a_killed_workflow_is_recovered(recipe: Recipe) -> None:
    """The launch of the next process recovers the workflow, which makes no second job."""
    assert recipe.run_after_kills(START, RECOVER) == "20\n"
    recipe.assert_done_once()


def test_what_is_not_retried(recipe: Recipe) -> None:
    """Without a key the workflow ends with the error, and without a retry after minutes."""
    assert recipe.run(REFUSED, TOGETHER_API_KEY="") == "UsageError\n"
