"""Whole DAGs, run in this process on SQLite, against the emulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from together_batches import jsonl
from together_batches.airflow import (
    TogetherBatchOperator,
    TogetherBatchSensor,
    TogetherCancelOperator,
    _common,
    together_run,
)
from together_batches.airflow._airflow import HAS_ON_KILL, version
from together_batches.emulator import Answer, Emulator, Failure, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FAST = Timing(validating=0, running=0, canceling=0)


@pytest.fixture
def service(connect: Callable[..., None]) -> Iterator[Emulator]:
    """An emulator whose jobs end at once; rows whose question says so fail."""
    first_job = dict[str, int]()

    def answer(row: Mapping[str, Any]) -> Answer | Failure:
        question = row["body"]["messages"][0]["content"]
        jobs = len(running.jobs)
        is_first = first_job.setdefault(row["custom_id"], jobs) == jobs
        if question == "fail" or (question == "fail once" and is_first):
            return Failure("Internal Server Error", "batch_client_error")
        return Answer(body={"choices": [{"message": {"content": question.upper()}}]})

    with Emulator(timing=FAST, answer=answer).running_in_thread() as running:
        connect(host=running.base_url, password=running.api_key)
        yield running


def _write(path: Path, count: int, questions: Mapping[int, str] | None = None) -> str:
    """Write requests, and return their URI."""
    rows = ((number, (questions or {}).get(number, f"question {number}")) for number in range(count))
    chats = (
        jsonl.chat_request(f"row-{number}", model="m", messages=[{"role": "user", "content": question}])
        for number, question in rows
    )
    jsonl.write(chats, path, overwrite=True)
    return path.as_uri()


def _ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text("utf-8").splitlines()]


def _all(count: int) -> list[str]:
    return [f"row-{number}" for number in range(count)]


def _batch(dag_id: str, tmp_path: Path, *, rows: int = 4, **options: Any) -> tuple[Any, Path]:
    """Return a DAG with one batch, and the place of its results."""
    results = tmp_path / "out" / "answers.jsonl"
    requests = tmp_path / "requests.jsonl"
    if not requests.exists():
        _write(requests, rows)
    with DAG(dag_id) as dag:
        TogetherBatchOperator(
            task_id="ask",
            requests_uri=requests.as_uri(),
            results_uri=results.as_uri(),
            retry_delays=(),
            patience=0.5,
            **options,
        )
    return dag, results


# --- one batch ----------------------------------------------------------------------------------------------------


def test_a_batch(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """Requests from a URI become results at a URI, in their order; XCom has a small manifest."""
    dag, results = _batch("batch", tmp_path, rows=20)
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": "success"}
    assert _ids(results) == _all(20)
    manifest = airflow.result(run, "ask")
    (job,) = service.jobs
    assert manifest["results_uri"] == results.as_uri()
    assert (manifest["rows"], manifest["succeeded"], manifest["failures_uri"]) == (20, 20, None)
    assert manifest["job_ids"] == [job["id"]]
    assert len(json.dumps(manifest)) < 1000


def test_requests_in_a_list(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A few requests may stand in the DAG. They are no template: braces are sent as they are."""
    results = tmp_path / "answers.jsonl"
    requests = [{"custom_id": "a", "body": {"model": "m", "messages": [{"role": "user", "content": "{{ ds }}"}]}}]
    with DAG("requests_in_a_list") as dag:
        TogetherBatchOperator(task_id="ask", requests=requests, results_uri=results.as_uri())
    assert airflow.states(airflow.run(dag)) == {"ask": "success"}
    assert "{{ DS }}" in results.read_text("utf-8")


def test_rows_that_fail(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """Rows that failed are sent again alone; those that never succeed are in a file of their own."""
    _write(tmp_path / "requests.jsonl", 6, {1: "fail once", 4: "fail"})
    dag, results = _batch("rows_that_fail", tmp_path, max_attempts=2)
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": "success"}
    assert _ids(results) == _all(6)
    assert _ids(tmp_path / "out" / "answers.failures.jsonl") == ["row-4"]
    manifest = airflow.result(run, "ask")
    assert (manifest["succeeded"], manifest["failed"], len(manifest["job_ids"])) == (5, 1, 2)


@pytest.mark.parametrize(("fail_when", "state"), [("any", "failed"), ("all", "success"), ("never", "success")])
def test_when_rows_fail_the_task(service: Emulator, airflow: Any, tmp_path: Path, fail_when: Any, state: str) -> None:
    """A task may fail if rows have no answer; the results and the manifest are there all the same."""
    _write(tmp_path / "requests.jsonl", 3, {1: "fail"})
    dag, results = _batch(f"fail_when_{fail_when}", tmp_path, max_attempts=1, fail_when=fail_when)
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": state}
    assert _ids(results) == _all(3)
    assert airflow.result(run, "ask")["failed"] == 1


# --- again --------------------------------------------------------------------------------------------------------


def test_a_success_is_cleared(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A cleared task that had succeeded makes no new job; a new DAG run does."""
    dag, results = _batch("a_success_is_cleared", tmp_path)
    run = airflow.run(dag)
    before = airflow.result(run, "ask")
    assert airflow.clear(dag, run, "ask") == "success"
    assert airflow.result(run, "ask") == before
    assert service.count("create") == 1
    results.unlink()
    assert airflow.clear(dag, run, "ask") == "success"
    assert _ids(results) == _all(4)
    assert service.count("create") == 1
    airflow.run(dag)
    assert service.count("create") == 2


def test_more_attempts_after_a_failure(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A task that failed because of its rows sends them again when it is cleared with more attempts allowed."""
    _write(tmp_path / "requests.jsonl", 3, {1: "fail once"})
    dag, results = _batch("more_attempts", tmp_path, max_attempts=1, fail_when="any")
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": "failed"}
    assert airflow.clear(dag, run, "ask") == "failed"
    assert service.count("create") == 1
    dag.task_dict["ask"].max_attempts = 2
    assert airflow.clear(dag, run, "ask") == "success"
    assert service.count("create") == 2
    assert "QUESTION 0" in results.read_text("utf-8")
    assert "FAIL ONCE" in results.read_text("utf-8")


def _deferred(service: Emulator, airflow: Any, tmp_path: Path, dag_id: str, **options: Any) -> tuple[Any, Any, Path]:
    """Return a DAG and its run, whose task has been cleared and is deferred with a running job."""
    dag, results = _batch(dag_id, tmp_path, **options)
    ask = dag.task_dict["ask"]
    uri, ask.requests_uri = ask.requests_uri, "file:///nowhere.jsonl"
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": "failed"}
    ask.requests_uri = uri
    service.timing = Timing(validating=0, running=3600, canceling=0)
    assert airflow.clear(dag, run, "ask", until_deferred=True) == "deferred"
    return dag, run, results


def test_a_cleared_task_sends_the_rest(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """With on_kill="cancel" a clear cancels the job; the task collects what it answered, and sends only the rest."""
    dag, run, results = _deferred(service, airflow, tmp_path, "sends_the_rest", rows=10)
    (job,) = service.jobs
    service.advance(1800)
    with dag_client(service) as client:
        client.cancel(job["id"])
    service.timing = FAST
    assert airflow.clear(dag, run, "ask") == "success"
    manifest = airflow.result(run, "ask")
    assert (manifest["succeeded"], service.count("create")) == (10, 2)
    _, second = sorted(service.jobs, key=lambda item: str(item["created_at"]))
    sent = service.content(str(second["input_file_id"])).count(b"\n")
    assert 0 < sent < 10
    assert _ids(results) == _all(10)


def test_what_begins_a_try(service: Emulator, airflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try and a clear are recognised by what Airflow says of a try; before 3.3 a clear is a retry."""
    found = list[str]()

    def start_of(*args: Any) -> str:
        found.append(_common.start_of(*args))
        return found[-1]

    monkeypatch.setattr("together_batches.airflow.operators.start_of", start_of)
    dag, _ = _batch("what_begins_a_try", tmp_path)
    run = airflow.run(dag)
    assert set(found) == {"first"}
    found.clear()
    for _ in range(2):
        assert airflow.clear(dag, run, "ask") == "success"
    assert set(found) == {"clear" if version() >= HAS_ON_KILL else "retry"}


def test_a_cleared_task_takes_its_job_up(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """With on_kill="leave" a cleared task takes the running job up again."""
    dag, run, results = _deferred(service, airflow, tmp_path, "takes_its_job_up", on_kill="leave")
    assert airflow.clear(dag, run, "ask", until_deferred=True) == "deferred"
    service.advance(7200)
    assert airflow.clear(dag, run, "ask") == "success"
    assert (service.count("create"), _ids(results)) == (1, _all(4))


def test_a_job_that_was_cancelled_by_somebody_else(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A job that is cancelled while its task waits is not wanted: the task fails, and a clear sends the rest."""
    service.ends_as = "CANCELLED"
    dag, _ = _batch("cancelled_by_somebody_else", tmp_path)
    run = airflow.run(dag)
    assert airflow.states(run) == {"ask": "failed"}
    assert service.count("create") == 1
    service.ends_as = "COMPLETED"
    assert airflow.clear(dag, run, "ask") == "success"
    assert service.count("create") == 2


def test_a_lost_create(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """The job of a lost create is searched for by deferring, and is then created again."""
    service.fail(Fault(on="create", lose="request"))
    dag, results = _batch("a_lost_create", tmp_path)
    assert airflow.states(airflow.run(dag)) == {"ask": "success"}
    assert (service.count("create"), len(service.jobs), _ids(results)) == (2, 1, _all(4))


def test_a_changed_input(service: Emulator, airflow: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that changed since the first try are refused: its answers would be those of other questions."""
    dag, _ = _batch("a_changed_input", tmp_path)
    run = airflow.run(dag)
    _write(tmp_path / "requests.jsonl", 5)
    assert airflow.clear(dag, run, "ask") == "failed"
    assert service.count("create") == 1


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"requests_uri": "file:///nowhere/requests.jsonl"},
        {"requests_uri": "nosuch://bucket/requests.jsonl"},
        {"results_uri": "file:///proc/answers.jsonl"},
        {"requests_uri": None},
        {"conn_id": "together_without_key"},
        {"endpoint": "/v1/chat/complete"},
    ],
)
def test_bad_input_costs_nothing(
    service: Emulator,
    airflow: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """A task with invalid arguments fails without a retry before anything is uploaded."""
    monkeypatch.setenv("AIRFLOW_CONN_TOGETHER_WITHOUT_KEY", '{"conn_type": "together"}')
    given = {
        "requests_uri": _write(tmp_path / "requests.jsonl", 2),
        "results_uri": (tmp_path / "answers.jsonl").as_uri(),
    }
    with DAG("bad_input") as dag:
        TogetherBatchOperator(task_id="ask", retries=1, **(given | options))
    assert airflow.states(airflow.run(dag)) == {"ask": "failed"}
    assert service.count("begin_upload") == 0


# --- other tasks --------------------------------------------------------------------------------------------------


def dag_client(service: Emulator) -> Any:
    """Return a client of the emulator."""
    from together_batches import Batches

    return Batches(service.api_key, base_url=service.base_url)


def test_a_sensor_and_a_cancel(service: Emulator, airflow: Any) -> None:
    """A sensor waits for a job of any origin; a cancel of ids or by filters reports what became of them."""
    finished = service.add_job(ends_as="COMPLETED")
    service.advance(3600)
    running = [service.add_job(model_id="a", ends_as="IN_PROGRESS") for _ in range(3)]
    with DAG("sensor_and_cancel") as dag:
        wait = TogetherBatchSensor(task_id="wait", job_id=finished)
        one = TogetherCancelOperator(task_id="one", job_ids=running[0])
        rest = TogetherCancelOperator(task_id="rest", model_id="a")
        wait >> one >> rest
    run = airflow.run(dag)
    assert airflow.states(run) == {"wait": "success", "one": "success", "rest": "success"}
    assert airflow.result(run, "wait")["status"] == "COMPLETED"
    assert airflow.result(run, "one")["failures"] == []
    assert sum(airflow.result(run, "rest")["counts"].values()) == 2
    assert {service.job(job_id)["status"] for job_id in running} <= {"CANCELING", "CANCELLED"}


def test_a_cancel_that_fails(service: Emulator, airflow: Any) -> None:
    """A cancel fails if a job could not be cancelled, and says which in XCom."""
    with DAG("cancel_that_fails") as dag:
        TogetherCancelOperator(task_id="cancel", job_ids=["no-such-job"], retries=1)
    run = airflow.run(dag)
    assert airflow.states(run) == {"cancel": "failed"}
    (failure,) = airflow.result(run, "cancel")["failures"]
    assert (failure["job_id"], failure["result"]) == ("no-such-job", "not_found")


@pytest.mark.parametrize(
    "options", [{}, {"job_ids": ["a"], "status": "IN_PROGRESS"}, {"job_ids": "a", "all_jobs": True}]
)
def test_an_ambiguous_cancel(service: Emulator, airflow: Any, options: dict[str, Any]) -> None:
    """Ids, or filters, or all jobs: no cancel does more than what was written."""
    with DAG("ambiguous_cancel") as dag:
        TogetherCancelOperator(task_id="cancel", **options)
    assert airflow.states(airflow.run(dag)) == {"cancel": "failed"}
    assert len(service.requests) == 0


# --- a dataset ----------------------------------------------------------------------------------------------------


def test_a_dataset(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A dataset is cut into shards, and its results come in its order, with the rows that failed beside them."""
    requests_uri = _write(tmp_path / "requests.jsonl", 23, {3: "fail once", 12: "fail", 22: "fail once"})
    results = tmp_path / "answers.jsonl"
    with DAG("dataset") as dag:
        together_run(
            "nightly",
            requests_uri=requests_uri,
            results_uri=results.as_uri(),
            max_rows_per_job=5,
            max_attempts=2,
            retry_delays=(),
        )
    run = airflow.run(dag)
    assert set(airflow.states(run).values()) == {"success"}
    assert sum(name.startswith("nightly.shards[") for name in airflow.states(run)) == 5
    assert _ids(results) == _all(23)
    assert _ids(tmp_path / "answers.failures.jsonl") == ["row-12"]
    manifest = airflow.result(run, "nightly.join")
    assert (manifest["rows"], manifest["succeeded"], manifest["failed"], manifest["jobs"]) == (23, 22, 1, 8)
    assert service.count("create") == 8
    assert airflow.clear(dag, run, "nightly.first") == "success"
    assert airflow.clear(dag, run, "nightly.plan") == "success"
    assert airflow.clear(dag, run, "nightly.join") == "success"
    assert service.count("create") == 8


def test_a_dataset_with_a_schema(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """A schema is a class by its import path; answers that do not fit it go again, and are counted."""
    service.answer = lambda row: Answer("no JSON" if row["custom_id"] == "row-0" else '{"name": "Prague"}')
    with DAG("dataset_with_a_schema") as dag:
        together_run(
            "run",
            requests_uri=_write(tmp_path / "requests.jsonl", 4),
            results_uri=(tmp_path / "answers.jsonl").as_uri(),
            schema="local_airflow.Name",
            retry_invalid=True,
            max_attempts=2,
            max_rows_per_job=2,
            retry_delays=(),
        )
    run = airflow.run(dag)
    assert set(airflow.states(run).values()) == {"success"}
    manifest = airflow.result(run, "run.join")
    assert (manifest["succeeded"], manifest["invalid"], manifest["failures_uri"], manifest["jobs"]) == (3, 1, None, 3)


def test_too_many_shards(service: Emulator, airflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More shards than Airflow maps are refused before anything is sent, with what to do."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    with DAG("too_many_shards") as dag:
        together_run(
            "run",
            requests_uri=_write(tmp_path / "requests.jsonl", 4),
            results_uri=(tmp_path / "answers.jsonl").as_uri(),
            max_rows_per_job=1,
        )
    run = airflow.run(dag)
    assert airflow.states(run)["run.plan"] == "failed"
    assert service.count("begin_upload") == 0


# --- common-ai ----------------------------------------------------------------------------------------------------


def test_llm_batch(service: Emulator, airflow: Any, tmp_path: Path) -> None:
    """``@task.llm_batch`` of common-ai finds the adapter by the prefix of its model."""
    pytest.importorskip("airflow.providers.common.ai.batch", reason="the provider common.ai is not installed")
    with DAG("llm_batch") as dag:

        @task.llm_batch(
            llm_conn_id="together_default", model_id="together:m", result_path=tmp_path.as_uri(), deferrable=True
        )
        def prompts() -> list[str]:
            return ["one", "two", "fail"]

        prompts()
    run = airflow.run(dag)
    assert airflow.states(run) == {"prompts": "success"}
    counts = airflow.result(run, "prompts")["counts"]
    assert (counts["succeeded"], counts["errored"]) == (2, 1)
