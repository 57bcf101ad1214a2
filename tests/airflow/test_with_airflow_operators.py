"""Operators and the sensor, called as a worker calls them: what they refuse, and how they wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, TaskGroup

from together_batches import jsonl
from together_batches.airflow import (
    TogetherBatchOperator,
    TogetherBatchSensor,
    TogetherCancelOperator,
    together_run,
)
from together_batches.airflow._airflow import AirflowFailException
from together_batches.airflow._common import failing_for_good
from together_batches.airflow._dataset_tasks import JoinOperator, PlanOperator, ShardOperator
from together_batches.airflow.triggers import TogetherBatchTrigger, TogetherPauseTrigger
from together_batches.emulator import Answer, Fault, Timing
from together_batches.errors import APIError, BatchesError, InternalServerError, UsageError

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before 3.2
    from airflow.exceptions import TaskDeferred

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from together_batches.emulator import Emulator

CONTEXT = {"ti": SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1, max_tries=0)}


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """A file of four requests."""
    path = tmp_path / "requests.jsonl"
    jsonl.write((jsonl.chat_request(f"row-{n}", model="m", messages=[]) for n in range(4)), path)
    return path


def _batch(source: Path, **options: Any) -> TogetherBatchOperator:
    results = (source.parent / "out" / "answers.jsonl").as_uri()
    given: Any = {"requests_uri": source.as_uri(), "results_uri": results} | options
    return TogetherBatchOperator(task_id="task", **given)


def _wait(call: Callable[..., Any], *args: Any, **kwargs: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        call(*args, **kwargs)
    return deferred.value


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number, 1 or more"),
        ({"retry_delays": 30}, "retry_delays is a list of seconds; it is 30"),
        ({"retry_delays": (-1,)}, "retry_delays must be a number, zero or more; it is -1"),
        ({"patience": -1}, "patience must be a number"),
        ({"poll_interval": 0}, "poll_interval must be a number, more than zero"),
        ({"fail_when": "some"}, "fail_when is one of 'any', 'all', 'never'; it is 'some'"),
        ({"on_kill": "kill"}, "on_kill is one of"),
        ({"requests": "{{ rows }}"}, "requests is a list of requests that is known when the DAG is parsed, not str"),
        ({"requests": 5}, "not int: for others, write a file and give requests_uri"),
        ({"retry_invalid": True}, "retry_invalid needs a schema"),
        ({"schema": jsonl.Problem}, "because Airflow stores a DAG as JSON; it is together_batches.jsonl"),
        ({"schema": 5}, "because Airflow stores a DAG as JSON; it is int"),
    ],
)
def test_invalid_options(requests: Path, options: dict[str, Any], expected: str) -> None:
    """Invalid options are errors of the DAG file, and not of a task at night."""
    with pytest.raises(UsageError, match=expected):
        _batch(requests, **options)


def test_the_result_of_another_task_as_requests(requests: Path) -> None:
    """Requests that another task returns would be rows in XCom: they belong in a file."""
    with DAG("requests_of_a_task"):
        other = _batch(requests)
        with pytest.raises(UsageError, match="not PlainXComArg: for others, write a file and give requests_uri"):
            TogetherBatchOperator(task_id="other", requests=other.output, results_uri="s3://bucket/answers.jsonl")


def test_an_invalid_request(service: Emulator, requests: Path) -> None:
    """A problem of a request is reported with its number, whether the requests are given or in a file."""
    rows: list[Any] = [jsonl.chat_request("a", model="m", messages=[]), {"custom_id": "b", "body": {}}]
    with pytest.raises(AirflowFailException, match=r"line 2 .*custom_id 'b': body.model is missing"):
        _batch(requests, requests_uri=None, requests=rows).execute(CONTEXT)
    assert len(service.requests) == 0


def test_an_invalid_option_of_a_dataset() -> None:
    """What applies to the last task of a dataset is checked before the first one runs, too."""
    with DAG("invalid_dataset"), pytest.raises(UsageError, match="fail_when is one of"):
        together_run("group", requests_uri="s3://b/in", results_uri="s3://b/out", fail_when="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("answers.jsonl", "results_uri is relative, which each worker would read differently"),
        ("{place}/", "results_uri must be the URI of a file, and names a directory"),
        ("{place}", "it is a directory; name the file to write in it"),
        ("{place}/requests.jsonl", "the results would replace the requests in"),
    ],
)
def test_invalid_places(service: Emulator, requests: Path, results: str, expected: str) -> None:
    """Results that could not be written, or would replace their requests, are refused before anything is sent."""
    results = results.replace("{place}", requests.parent.as_uri())
    with pytest.raises(AirflowFailException, match=expected):
        _batch(requests, results_uri=results).execute(CONTEXT)
    plan = PlanOperator(
        task_id="plan",
        requests_uri=requests.as_uri(),
        results_uri=results,
        endpoint="/v1/chat/completions",
        max_rows_per_job=2,
        group="group",
    )
    with pytest.raises(AirflowFailException, match=expected):
        plan.execute(CONTEXT)
    assert len(service.requests) == 0


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("no_such_module.Review", "schema 'no_such_module.Review' cannot be imported on this worker: ModuleNotFound"),
        ("together_batches.jsonl.Nothing", "cannot be imported on this worker: "),
        ("Review", "cannot be imported on this worker: ModuleNotFound"),
        ("together_batches.jsonl.chat_request", "a schema is a pydantic model"),
        ({"type": "nothing"}, "invalid schema"),
    ],
)
def test_invalid_schemas(service: Emulator, requests: Path, schema: Any, expected: str) -> None:
    """A schema that cannot be loaded, or sent, fails the task without a retry before anything is sent."""
    with pytest.raises(AirflowFailException, match=expected):
        _batch(requests, schema=schema).execute(CONTEXT)
    plan, _ = _dataset(requests)
    plan.schema = schema
    with pytest.raises(AirflowFailException, match=expected):
        plan.execute(CONTEXT)
    assert len(service.requests) == 0


def test_a_schema_as_a_dict(service: Emulator, requests: Path) -> None:
    """A JSON schema is sent with each request."""
    service.timing = Timing(validating=0, running=0)
    service.answer = lambda row: Answer('{"name": "Prague"}' if row["custom_id"] == "row-0" else '{"city": 5}')
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    manifest = _batch(requests, schema=schema, max_attempts=1).execute(CONTEXT)
    assert (manifest["succeeded"], manifest["invalid"]) == (1, 3)
    assert service.content(str(service.jobs[0]["input_file_id"])).count(b'"required":["name"]') == 4


# --- waiting ------------------------------------------------------------------------------------------------------


def test_a_triggerer_that_cannot_follow(service: Emulator, requests: Path) -> None:
    """If the triggerer cannot follow a job that a worker can read, the task waits longer and longer, and ends."""
    service.timing = Timing(validating=0, running=3600)
    task = _batch(requests)
    assert isinstance(_wait(task.execute, CONTEXT).trigger, TogetherBatchTrigger)
    refused = {"job_id": "job", "status": None, "error": "AuthenticationError: the key was refused"}
    outages = 0
    for expected in (1, 2):
        pause = _wait(task.execute_complete, CONTEXT, refused, outages)
        assert isinstance(pause.trigger, TogetherPauseTrigger)
        assert pause.kwargs is not None
        outages = pause.kwargs["outages"]
        assert outages == expected
        again = _wait(task.execute_complete, CONTEXT, {"moment": "now"}, outages)
        assert isinstance(again.trigger, TogetherBatchTrigger)
    service.advance(7200)
    assert task.execute_complete(CONTEXT, refused, outages)["succeeded"] == 4
    assert service.count("create") == 1


def test_a_triggerer_without_the_package(service: Emulator, requests: Path) -> None:
    """A trigger that the triggerer cannot load fails the task with what to do; a retry takes the job up."""
    service.timing = Timing(validating=0, running=3600)
    task = _batch(requests)
    _wait(task.execute, CONTEXT)
    failure = {"error": "Trigger failure", "traceback": ["ModuleNotFoundError: No module named 'together_batches'"]}
    for waiting in (task, TogetherBatchSensor(task_id="wait", job_id="job-1")):
        with pytest.raises(BatchesError, match="must be installed where the triggerer runs"):
            waiting.resume_execution("__fail__", failure, CONTEXT)
    _wait(task.execute, CONTEXT)
    assert service.count("create") == 1


def test_a_storage_that_may_recover(tmp_path: Path) -> None:
    """A time-out of the storage is retried by Airflow; a file that does not exist is not."""
    with pytest.raises(UsageError), failing_for_good():
        raise UsageError("cannot write s3://bucket/answers.jsonl: timed out") from TimeoutError()
    with pytest.raises(AirflowFailException), failing_for_good():
        raise UsageError("cannot read s3://bucket/requests.jsonl: there is no such file") from FileNotFoundError()


@pytest.mark.parametrize(
    ("fault", "is_lasting"),
    [
        (Fault(on="create", status=400, body={"error": {"message": "this model has no such endpoint"}}), True),
        (Fault(on="create", status=422), True),
        (Fault(on="create", status=402), True),
        (Fault(on="create", status=403), True),
        (Fault(on="begin_upload", status=404), False),
        (Fault(on="begin_upload", status=409), False),
    ],
    ids=lambda value: f"{value.on}-{value.status}" if isinstance(value, Fault) else None,
)
def test_what_the_service_refuses(service: Emulator, requests: Path, fault: Fault, is_lasting: bool) -> None:
    """A request that the service refuses as such uses up no retries of Airflow; what may pass does."""
    service.fail(fault)
    with pytest.raises(AirflowFailException if is_lasting else APIError):
        _batch(requests, patience=0).execute(CONTEXT)
    assert len(service.jobs) == 0


def test_a_service_that_may_recover() -> None:
    """An outage is left to the retries of Airflow."""
    outage = InternalServerError("overloaded", status=503)
    with pytest.raises(InternalServerError), failing_for_good():
        raise outage


def test_an_invalid_endpoint(service: Emulator, requests: Path) -> None:
    """An invalid endpoint is a mistake that no retry mends."""
    with pytest.raises(AirflowFailException, match="endpoint"):
        _batch(requests, endpoint="/v1/chat/complete").execute(CONTEXT)
    assert len(service.requests) == 0


def test_a_refused_create_that_is_mended(service: Emulator, requests: Path) -> None:
    """A task whose create was refused makes one job when the mistake is mended and the task cleared."""
    service.timing = Timing(validating=0, running=3600)
    service.fail(Fault(on="create", status=400))
    with pytest.raises(AirflowFailException):
        _batch(requests, priority=7).execute(CONTEXT)
    _wait(_batch(requests).execute, CONTEXT)
    assert len(service.jobs) == 1


def test_a_sensor_that_the_triggerer_fails(service: Emulator) -> None:
    """If the triggerer could not follow a job, a worker reads it: a job that has ended is a result."""
    task = TogetherBatchSensor(task_id="wait", job_id=service.add_job(ends_as="COMPLETED"))
    event = {"job_id": task.job_id, "status": None, "error": "APIConnectionError: no route"}
    with pytest.raises(BatchesError, match="the triggerer could not follow the job: APIConnectionError: no route"):
        task.execute_complete(CONTEXT, event)
    service.advance(7200)
    assert task.execute_complete(CONTEXT, event)["status"] == "COMPLETED"


# --- datasets -----------------------------------------------------------------------------------------------------


def test_groups_of_one_name() -> None:
    """Groups of one name within two others are two: neither takes the jobs of the other."""
    with DAG("groups_of_one_name") as dag:
        for outer in ("a", "b"):
            with TaskGroup(outer):
                together_run("reviews", requests_uri="s3://b/in", results_uri=f"s3://b/{outer}")
    first = [task for task in dag.tasks if task.task_id.endswith(".first")]
    assert [task.group for task in first] == ["a.reviews", "b.reviews"]


def _dataset(requests: Path, **options: Any) -> tuple[PlanOperator, Any]:
    shared: Any = {"results_uri": (requests.parent / "answers.jsonl").as_uri(), "group": "group"}
    plan = PlanOperator(
        task_id="plan",
        requests_uri=requests.as_uri(),
        endpoint="/v1/chat/completions",
        max_rows_per_job=2,
        **shared,
    )
    return plan, shared


def test_a_mapped_task_without_a_result(service: Emulator, requests: Path) -> None:
    """A mapped task that a person marked as successful has no result: the join names it, and writes nothing."""
    plan, shared = _dataset(requests)
    assert plan.execute(CONTEXT) == [1, 2]
    service.timing = Timing(validating=0, running=0)
    second = ShardOperator(task_id="shards", shard=2, requests_uri=requests.as_uri(), **shared)
    join = JoinOperator(task_id="join", manifests=[second.execute(CONTEXT)], fail_when="never", **shared)
    with pytest.raises(AirflowFailException, match="clear those with index 0"):
        join.execute(CONTEXT)
    assert not (requests.parent / "answers.jsonl").exists()


def test_a_mapped_task_reads_its_page(requests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped task reads a page of the plan, so that what all tasks read grows no faster than they do."""
    monkeypatch.setattr("together_batches.airflow._dataset_tasks._SHARDS_ON_PAGE", 2)
    plan, _ = _dataset(requests)
    plan.max_rows_per_job = 1
    assert plan.execute(CONTEXT) == [1, 2, 3, 4]
    (directory,) = (requests.parent / "answers.jsonl.run").iterdir()
    assert {path.name for path in directory.iterdir()} == {"plan.json", "plan-1.json", "plan-2.json"}


# --- cancels and sensors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job_ids", "expected"),
    [("['a', 'b']", "set render_template_as_native_obj=True on the DAG"), (5, "a list of ids, not int")],
)
def test_invalid_ids(service: Emulator, job_ids: Any, expected: str) -> None:
    """Ids that are no list, such as a list that a template made text of, are refused with what to do."""
    with pytest.raises(AirflowFailException, match=expected):
        TogetherCancelOperator(task_id="cancel", job_ids=job_ids).execute(CONTEXT)
    assert len(service.requests) == 0


def test_the_statuses_of_a_sensor(service: Emulator) -> None:
    """One status may be given as text; an unknown one is refused, as no job would ever have it."""
    job_id = service.add_job(status="COMPLETED")
    found = TogetherBatchSensor(task_id="wait", job_id=job_id, allowed_statuses="completed").execute(CONTEXT)
    assert found["status"] == "COMPLETED"
    with pytest.raises(AirflowFailException, match="unknown status DONE in allowed_statuses"):
        TogetherBatchSensor(task_id="wait", job_id=job_id, allowed_statuses=["DONE"]).execute(CONTEXT)


def test_a_sensor_without_a_key(service: Emulator, connect: Callable[..., None]) -> None:
    """A connection that makes no client fails a sensor without a retry, as it does any task."""
    connect(password="")
    with pytest.raises(AirflowFailException, match="has no API key: set its password"):
        TogetherBatchSensor(task_id="wait", job_id="job-1").execute(CONTEXT)
