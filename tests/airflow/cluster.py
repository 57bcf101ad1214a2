"""A whole Airflow, whose parts are killed while a dataset is answered: ``nox -s airflow -- --cluster``.

The API server, the DAG processor, the scheduler with LocalExecutor, and the triggerer run as processes on SQLite, or
on the PostgreSQL that ``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN`` names, and the emulator in this one. Two runs of one
DAG work on the same requests at once. Processes of tasks are killed after an upload, between the record of an intent
and the response to its create, after a create, and while results are collected; then the triggerer, and the
scheduler with its workers. At the end every file must have one job, and the output must be that of
:meth:`AsyncBatches.run`, byte for byte apart from the ids of failed rows. Then a third run is marked as failed, and
every job must be cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from together_batches import AsyncBatches, jsonl
from together_batches.emulator import Answer, Emulator, Failure, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from together_batches.emulator import RecordedRequest

ROWS_OF_A_SHARD = 10
_BETWEEN_LINES_SECONDS = 15
DAG_FILE = """
from airflow.sdk import DAG
from together_batches.airflow import together_run

with DAG("cluster", max_active_runs=3) as dag:
    together_run(
        "run",
        requests_uri={requests!r},
        results_uri={results!r} + "/{{{{ run_id }}}}.jsonl",
        max_rows_per_job={rows},
        max_attempts=2,
        retry_delays=(1,),
        patience=5,
        poll_interval=2,
        default_args={{"retries": 50, "retry_delay": 1}},
    )
"""


def answer(row: Mapping[str, Any]) -> Answer | Failure:
    """Answer a row; one of seven always fails, with an error that may pass."""
    number = int(str(row["custom_id"]).rpartition("-")[2])
    if number % 7 == 3:
        return Failure("Internal Server Error", "batch_client_error")
    return Answer(body={"choices": [{"message": {"content": f"answer {number}"}}]})


_PLACES = {"preprocess": "after an upload", "create": "after an intent", "content": "while results are collected"}
"""The operations at which processes are killed."""


class Kills:
    """Deaths of the processes of tasks, at requests that the emulator sees."""

    def __init__(self) -> None:
        self.done = Counter[str]()
        self.scheduler: psutil.Process | None = None
        self._seen = Counter[str]()

    def see(self, request: RecordedRequest) -> None:
        """Kill the processes of tasks at every few requests of some kinds; called by the emulator."""
        operation = request.operation
        self._seen[operation] += 1
        if operation in _PLACES and self._seen[operation] % 6 == 5:
            self._kill(_PLACES[operation])
        elif operation == "create" and self._seen[operation] % 6 == 2:
            threading.Timer(0.05, self._kill, ["soon after a create"]).start()

    def _kill(self, place: str) -> None:
        if self.scheduler is None or self.done[place] >= 4:
            return
        for worker in self.scheduler.children():
            for process in worker.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    self.done[place] += 1


class Cluster:
    """The processes of an Airflow in a directory."""

    def __init__(self, home: Path, emulator: Emulator) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = home
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "of-this-run-alone-0123456789abcdef0123456789abcdef",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW_CONN_TOGETHER_DEFAULT": json.dumps(
                {"conn_type": "together", "password": emulator.api_key, "host": emulator.base_url}
            ),
            "PYTHONUNBUFFERED": "1",
        }
        os.environ.update(self.environment)  # this process reads the same database
        self.processes: dict[str, psutil.Popen] = {}

    def command(self, *words: str) -> None:
        """Run a command of Airflow."""
        ended = subprocess.run(
            ["airflow", *words], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        if ended.returncode:
            raise RuntimeError(f"airflow {' '.join(words)}: {ended.stdout}{ended.stderr}")

    def start(self, name: str) -> psutil.Popen:
        """Start a part of Airflow, whose output goes to a file in the directory."""
        log = (self.home / f"{name}.log").open("ab")
        process = psutil.Popen(
            ["airflow", name], env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.home
        )
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """Kill a part of Airflow and all of its children, at once."""
        process = self.processes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=10)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run all parts during the block."""
        try:
            for name in ("api-server", "dag-processor", "scheduler", "triggerer"):
                self.start(name)
            yield
        finally:
            for name in list(self.processes):
                self.kill(name)

    def states(self, run_id: str) -> Counter[str]:
        """Return how many tasks of a run have each state."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            chosen = select(TaskInstance.state).where(TaskInstance.run_id == run_id)
            return Counter(str(state) for state in session.scalars(chosen))

    def run_state(self, run_id: str) -> str:
        """Return the state of a run."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return str(session.scalar(select(DagRun.state).where(DagRun.run_id == run_id)))

    def mark_failed(self, run_id: str) -> None:
        """Mark a run as failed, as a person does in the UI."""
        from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
        from airflow.models.dagbag import DBDagBag
        from airflow.utils.session import create_session

        with create_session() as session:
            dag = DBDagBag().get_latest_version_of_dag("cluster", session=session)
            set_dag_run_state_to_failed(dag=dag, run_id=run_id, commit=True, session=session)


def until(what: str, condition: Callable[[], bool], seconds: float, show: Callable[[], object]) -> None:
    """Wait until a condition holds; raise an error after some time."""
    end, shown_at = time.monotonic() + seconds, 0.0
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: {show()}")
        if time.monotonic() > shown_at + _BETWEEN_LINES_SECONDS:
            print(time.strftime("%X"), f"{what}: {show()}", flush=True)
            shown_at = time.monotonic()
        time.sleep(1)


def undisturbed(emulator: Emulator, requests: Path, output: Path) -> bytes:
    """Return the output of a run on one machine, without deaths."""

    async def run() -> None:
        async with AsyncBatches(emulator.api_key, base_url=emulator.base_url) as client:
            await client.run(
                requests, output, max_rows_per_job=ROWS_OF_A_SHARD, max_attempts=2, retry_delays=0, poll_interval=0.5
            )

    asyncio.run(run())
    return output.read_bytes()


def play(home: Path, shards: int) -> None:
    """Run everything, and raise an error for whatever is not as it must be."""
    requests, results = home / "requests.jsonl", home / "results"
    results.mkdir()
    jsonl.write(
        (
            jsonl.chat_request(f"row-{number}", model="m", messages=[{"role": "user", "content": f"row {number}"}])
            for number in range(shards * ROWS_OF_A_SHARD)
        ),
        requests,
    )
    (home / "dags").mkdir()
    (home / "dags" / "cluster.py").write_text(
        DAG_FILE.format(requests=requests.as_uri(), results=results.as_uri(), rows=ROWS_OF_A_SHARD)
    )
    with Emulator(timing=Timing(validating=0, running=0), answer=answer).running_in_thread() as calm:
        expected = undisturbed(calm, requests, home / "expected.jsonl")
        attempts = calm.count("create")
    kills = Kills()
    timing = Timing(validating=0.5, running=20, canceling=0.5)
    with Emulator(timing=timing, answer=answer, on_request=kills.see).running_in_thread() as emulator:
        cluster = Cluster(home, emulator)
        cluster.command("db", "migrate")
        cluster.command("dags", "reserialize")
        with cluster.running():
            kills.scheduler = psutil.Process(cluster.processes["scheduler"].pid)
            names = ["first", "second"]
            cluster.command("dags", "unpause", "cluster")
            for name in names:
                cluster.command("dags", "trigger", "cluster", "--run-id", name)

            def shown() -> object:
                return {name: dict(cluster.states(name)) for name in names}, dict(kills.done)

            def deferred() -> int:
                return sum(cluster.states(name)["deferred"] for name in names)

            until("jobs that are waited for", lambda: deferred() >= shards // 2, 600, shown)
            print("the triggerer is killed", flush=True)
            cluster.kill("triggerer")
            cluster.start("triggerer")
            until("jobs that were collected", lambda: emulator.count("content") >= shards, 600, shown)
            print("the scheduler and its workers are killed", flush=True)
            kills.scheduler = None
            cluster.kill("scheduler")
            kills.scheduler = psutil.Process(cluster.start("scheduler").pid)
            until(
                "runs that end",
                lambda: {cluster.run_state(name) for name in names} <= {"success", "failed"},
                1800,
                shown,
            )
            assert [cluster.run_state(name) for name in names] == ["success", "success"], shown()
            check(emulator, attempts * 2, expected, [results / f"{name}.jsonl" for name in names])
            print(f"kills: {dict(kills.done)}", flush=True)
            kills.scheduler = None
            mark_failed(cluster, emulator, shards)


def check(emulator: Emulator, attempts: int, expected: bytes, outputs: list[Path]) -> None:
    """Compare what was created with what was needed, and the outputs with the one of an undisturbed run."""
    jobs_of_files = Counter(str(job["input_file_id"]) for job in emulator.jobs)
    second = {file: count for file, count in jobs_of_files.items() if count > 1}
    print(f"{emulator.count('create')} creates, {len(emulator.jobs)} jobs, {attempts} needed", flush=True)
    assert not second, second
    assert len(emulator.jobs) == attempts
    for output in outputs:
        assert without_ids(output.read_bytes()) == without_ids(expected), f"{output} differs"
    print("the outputs are those of an undisturbed run, byte for byte", flush=True)


def without_ids(output: bytes) -> bytes:
    """Return an output without the ids that the emulator gives each failed row, other ones in each job."""
    return re.sub(rb"br_[0-9a-f]+", b"br_", output)


def mark_failed(cluster: Cluster, emulator: Emulator, shards: int) -> None:
    """Mark a run as failed while all of its jobs run, and wait until every one is cancelled."""
    before = {str(job["id"]) for job in emulator.jobs}
    emulator.timing = Timing(validating=0.5, running=7200, canceling=0.5)
    cluster.command("dags", "trigger", "cluster", "--run-id", "third")

    def jobs() -> Counter[str]:
        return Counter(str(job["status"]) for job in emulator.jobs if job["id"] not in before)

    def is_waited_for() -> bool:
        return jobs()["IN_PROGRESS"] == shards and cluster.states("third")["deferred"] == shards

    until("jobs that run", is_waited_for, 600, lambda: (dict(cluster.states("third")), dict(jobs())))
    cluster.mark_failed("third")
    until("jobs that are cancelled", lambda: jobs() == {"CANCELLED": shards}, 120, lambda: dict(jobs()))
    print(f"marked as failed: {shards} of {shards} jobs are cancelled", flush=True)


def main() -> None:
    """Read the command line, and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--home", type=Path, help="an empty directory that is kept; by default one that is removed")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = given.home or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        home.mkdir(exist_ok=True)
        started = time.monotonic()
        play(home.resolve(), given.shards)
        print(f"done in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
