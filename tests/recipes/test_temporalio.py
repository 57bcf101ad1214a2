"""The recipe for Temporal: its activity in Temporal's test environment, which needs no server, and its workflow."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from recipes.recipe import DAY, SECONDS

if TYPE_CHECKING:
    from recipes.recipe import Recipe

pytestmark = pytest.mark.timeout(600)

ACTIVITY = f"""
import asyncio
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from nightly_temporal import answer

environment = ActivityEnvironment()
heartbeats = []
environment.on_heartbeat = lambda *details: heartbeats.append(details)

async def main():
    try:
        answered = await environment.run(answer, "inbox/{DAY}.jsonl", "answers/{DAY}.jsonl")
        print(answered, len(heartbeats) > 0)
    except ApplicationError as error:
        print(error.type, "not retried" if error.non_retryable else "retried")

asyncio.run(main())
"""
CANCELLED_FOR = f"""
import asyncio, os, sys
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment
from nightly_temporal import answer

environment = ActivityEnvironment()

async def main():
    running = asyncio.create_task(environment.run(answer, "inbox/{DAY}.jsonl", "answers/{DAY}.jsonl"))
    await asyncio.to_thread(sys.stdin.readline)
    environment.cancel(ActivityCancellationDetails(**{{os.environ["REASON"]: True}}))
    try:
        await running
    except asyncio.CancelledError:
        print("cancelled")

asyncio.run(main())
"""
WORKFLOW = """
import asyncio, sys
from temporalio.client import WorkflowHistory
from temporalio.worker import Interceptor, Replayer, WorkflowInboundInterceptor, WorkflowOutboundInterceptor
from nightly_temporal import Nightly

class Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input):
        print(input.activity, list(input.args), input.heartbeat_timeout, input.cancellation_type.name)
        return super().start_activity(input)

class Inbound(WorkflowInboundInterceptor):
    def init(self, outbound):
        super().init(Outbound(outbound))

class Recording(Interceptor):
    def workflow_interceptor_class(self, input):
        return Inbound

history = WorkflowHistory.from_json("nightly", sys.stdin.readline())
asyncio.run(Replayer(workflows=[Nightly], interceptors=[Recording()]).replay_workflow(history))
"""


def _payloads(*values: object) -> dict[str, Any]:
    encoded = [base64.b64encode(json.dumps(value).encode()).decode() for value in values]
    encoding = base64.b64encode(b"json/plain").decode()
    return {"payloads": [{"metadata": {"encoding": encoding}, "data": data} for data in encoded]}


def _history(*arguments: str) -> str:
    """Return what a server records of a workflow that schedules the activity, gets 20 from it and returns that."""
    began = {
        "workflowType": {"name": "Nightly"},
        "taskQueue": {"name": "nightly"},
        "input": _payloads(*arguments),
        "originalExecutionRunId": "run",
    }
    events: list[tuple[str, dict[str, Any]]] = [
        ("workflowExecutionStarted", began),
        ("workflowTaskScheduled", {}),
        ("workflowTaskStarted", {"scheduledEventId": "2"}),
        ("workflowTaskCompleted", {"scheduledEventId": "2", "startedEventId": "3"}),
        ("activityTaskScheduled", {"activityId": "1", "activityType": {"name": "answer"}}),
        ("activityTaskStarted", {"scheduledEventId": "5"}),
        ("activityTaskCompleted", {"scheduledEventId": "5", "startedEventId": "6", "result": _payloads(20)}),
        ("workflowTaskScheduled", {}),
        ("workflowTaskStarted", {"scheduledEventId": "8"}),
        ("workflowTaskCompleted", {"scheduledEventId": "8", "startedEventId": "9"}),
        ("workflowExecutionCompleted", {"result": _payloads(20)}),
    ]
    listed = [
        {
            "eventId": str(number),
            "eventTime": "2026-11-27T02:00:00Z",
            "eventType": "EVENT_TYPE_" + re.sub("([A-Z])", r"_\1", name).upper(),
            f"{name}EventAttributes": attributes,
        }
        for number, (name, attributes) in enumerate(events, start=1)
    ]
    return json.dumps({"events": listed})


def test_a_killed_activity_is_resumed(recipe: Recipe) -> None:
    """An activity that is tried again resumes, and makes no second job; it sends heartbeats."""
    assert recipe.run_after_kills(ACTIVITY) == "20 True\n"
    recipe.assert_done_once()


def test_what_is_retried(recipe: Recipe) -> None:
    """A run that another worker works on is retried; a wrong key is not."""
    with recipe.running(ACTIVITY, until="retrieve"):
        assert recipe.run(ACTIVITY) == "RunInUseError retried\n"
    assert recipe.run(ACTIVITY, TOGETHER_API_KEY="") == "UsageError not retried\n"


@pytest.mark.parametrize(("reason", "cancels"), [("cancel_requested", 1), ("worker_shutdown", 0), ("timed_out", 0)])
def test_only_a_requested_cancellation_cancels_the_job(recipe: Recipe, reason: str, cancels: int) -> None:
    """A worker that shuts down, or is too late, leaves the job to the next try."""
    with recipe.running(CANCELLED_FOR, until="retrieve", REASON=reason) as process:
        printed, errors = process.communicate("\n", timeout=SECONDS)
    assert (printed, errors) == ("cancelled\n", "")
    assert recipe.emulator.count("cancel") == cancels


def test_the_workflow_is_deterministic(recipe: Recipe) -> None:
    """The workflow loads in the sandbox of a worker, schedules the activity, and can be replayed."""
    printed = recipe.run(WORKFLOW, typed=_history("in.jsonl", "out.jsonl"))
    assert printed == "answer ['in.jsonl', 'out.jsonl'] 0:01:00 WAIT_CANCELLATION_COMPLETED\n"
