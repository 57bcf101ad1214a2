"""What the provider costs when Airflow parses a DAG file."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, time
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, TaskGroup
from together_batches.airflow._airflow import BaseHook
with DAG("before"):
    BaseOperator(task_id="task")
before, modules = time.process_time(), set(sys.modules)
from together_batches.airflow import TogetherBatchOperator, TogetherBatchSensor, TogetherCancelOperator, together_run
with DAG("parsed"):
    for number in range(8):
        TogetherBatchOperator(task_id=f"ask{number}", requests_uri="s3://bucket/in", results_uri="s3://bucket/out")
    TogetherCancelOperator(task_id="cancel", job_ids="job-1")
    TogetherBatchSensor(task_id="wait", job_id="job-1")
seconds = time.process_time() - before
with DAG("dataset"):
    together_run("run", requests_uri="s3://bucket/in", results_uri="s3://bucket/out", schema="answers.Review")
print(seconds, *(set(sys.modules) - modules))
"""
_HEAVY = {"aiohttp", "anyio", "attrs", "cattrs", "fsspec", "msgspec", "sqlite3", "upath"}


def test_parsing_costs_little() -> None:
    """A DAG file with ten operators takes at most 50 ms longer to parse, and loads neither the client nor storage."""
    costs = list[float]()
    for _ in range(3):  # the least of three, because the machine does other things
        command = [sys.executable, "-c", _SCRIPT]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        seconds, *loaded = ended.stdout.splitlines()[-1].split()
        costs.append(float(seconds))
        assert {name.partition(".")[0] for name in loaded} & _HEAVY == set()
    assert min(costs) <= 0.05
