"""The recipe for Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipes.recipe import DAY

if TYPE_CHECKING:
    from recipes.recipe import Recipe

pytestmark = pytest.mark.timeout(600)

SETTINGS = {"DAGSTER_DISABLE_TELEMETRY": "1"}
MATERIALIZE = f"""
import dagster as dg
from nightly_dagster import answers

result = dg.materialize([answers], partition_key="{DAY}")
(made,) = result.asset_materializations_for_node("answers")
print(made.metadata["answered"].value)
"""
IS_RETRIED = f"""
import os
import dagster as dg
from nightly_dagster import answers

for key in (os.environ["TOGETHER_API_KEY"], ""):
    os.environ["TOGETHER_API_KEY"] = key
    try:
        answers(dg.build_asset_context(partition_key="{DAY}"))
    except (dg.RetryRequested, dg.Failure) as error:
        print(type(error).__name__, getattr(error, "allow_retries", ""))
"""


def test_a_killed_run_is_resumed(recipe: Recipe) -> None:
    """A partition that is materialized again is resumed, and makes no second job."""
    assert recipe.run_after_kills(MATERIALIZE, **SETTINGS) == "20\n"
    recipe.assert_done_once()


def test_what_is_retried(recipe: Recipe) -> None:
    """A run that another worker works on is retried; a wrong key is not."""
    with recipe.running(MATERIALIZE, until="retrieve", **SETTINGS):
        assert recipe.run(IS_RETRIED, **SETTINGS) == "RetryRequested \nFailure False\n"
