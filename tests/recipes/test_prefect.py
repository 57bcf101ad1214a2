"""The recipe for Prefect, with a temporary server of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipes.recipe import DAY

if TYPE_CHECKING:
    from recipes.recipe import Recipe

pytestmark = pytest.mark.timeout(600)

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "ERROR",
}
PARAMETERS = f'"inbox/{DAY}.jsonl", "answers/{DAY}.jsonl"'
FLOW = f"""
from nightly_prefect import nightly

print(nightly({PARAMETERS}))
"""
IS_RETRIED = f"""
import os
from nightly_prefect import answer, worth_a_retry

for key in (os.environ["TOGETHER_API_KEY"], ""):
    os.environ["TOGETHER_API_KEY"] = key
    state = answer.with_options(retries=0)({PARAMETERS}, return_state=True)
    print(worth_a_retry(answer, None, state))
"""
CANCELLED = f"""
from uuid import uuid4
from prefect.client.schemas.objects import FlowRun
from nightly_prefect import nightly

(hook,) = nightly.on_cancellation_hooks
hook(nightly, FlowRun(flow_id=uuid4(), parameters={{"output": "answers/{DAY}.jsonl"}}), None)
"""


def test_a_killed_flow_is_resumed(recipe: Recipe) -> None:
    """A flow that is started again with the same parameters resumes, and makes no second job."""
    assert recipe.run_after_kills(FLOW, **SETTINGS) == "20\n"
    recipe.assert_done_once()


def test_what_is_retried(recipe: Recipe) -> None:
    """A run that another worker works on is retried; a wrong key is not."""
    with recipe.running(FLOW, until="retrieve", **SETTINGS):
        assert recipe.run(IS_RETRIED, **SETTINGS) == "True\nFalse\n"


def test_a_cancelled_flow_run_cancels_its_jobs(recipe: Recipe) -> None:
    """The hook of a cancellation cancels the job that the killed flow left."""
    recipe.kill(FLOW, at="retrieve", **SETTINGS)
    assert recipe.emulator.count("cancel") == 0
    assert recipe.run(CANCELLED, **SETTINGS) == "1 canceling\n"
