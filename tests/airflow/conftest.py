"""Airflow on a database of its own, in this process, against the emulator.

Tests that need Airflow are collected only if it is installed: ``nox -s airflow`` runs them.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HAS_AIRFLOW = find_spec("airflow") is not None and find_spec("airflow.sdk") is not None

if not HAS_AIRFLOW:
    collect_ignore_glob = ["test_with_*.py"]
else:
    # Read when Airflow is imported, and so before any test is.
    _HOME = tempfile.TemporaryDirectory(prefix="together-batches-airflow-")
    Path(_HOME.name, "dags").mkdir()
    os.environ |= {
        "AIRFLOW_HOME": _HOME.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the warnings of Airflow and its libraries to them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets fields of the connection ``together_default``."""

    def set_fields(**fields: Any) -> None:
        connection = {"conn_type": "together", "password": KEY, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_TOGETHER_DEFAULT", json.dumps(connection))

    return set_fields


@pytest.fixture
def service(connect: Callable[..., None]) -> Iterator[Emulator]:
    """An emulator in a thread, and the connection to it. Its jobs are short, and end earlier on :meth:`advance`."""
    with Emulator(api_key=KEY, timing=Timing(validating=0.1, running=0.5)).running_in_thread() as running:
        connect(host=running.base_url)
        yield running


@pytest.fixture(scope="session")
def database() -> None:
    """The database of Airflow, made once."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def airflow(database: None) -> LocalAirflow:
    """A scheduler, a worker and a triggerer in this process."""
    return LocalAirflow()


class LocalAirflow:
    """Runs DAGs, and single tasks of them, as ``dag.test()`` does."""

    def run(self, dag: Any) -> Any:
        """Run a DAG, and return its run."""
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        from airflow.utils.session import create_session

        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        with create_session() as session:
            DagBundlesManager().sync_bundles_to_db(session=session)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test()

    def clear(self, dag: Any, run: Any, task_id: str, *, map_index: int = -1, until_deferred: bool = False) -> str:
        """Clear a task and run it again, to its end or until it is deferred; return its state."""
        from airflow.models.taskinstance import TaskInstance, clear_task_instances
        from airflow.sdk.definitions.dag import _run_task
        from airflow.utils.session import create_session
        from sqlalchemy import select

        chosen = select(TaskInstance).where(
            TaskInstance.dag_id == dag.dag_id,
            TaskInstance.run_id == run.run_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
        )
        with create_session() as session:
            clear_task_instances(list(session.scalars(chosen)), session)
        with create_session() as session:
            (ti,) = session.scalars(chosen)
            ti.try_number += 1
            session.flush()
            session.expunge(ti)
        _run_task(ti=ti, task=dag.task_dict[task_id], run_triggerer=not until_deferred)
        with create_session() as session:
            (ti,) = session.scalars(chosen)
            return str(ti.state)

    def states(self, run: Any) -> dict[str, str]:
        """Return the state of each task of a run; the index of a mapped one is added to its name."""
        return {
            f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: str(ti.state)
            for ti in run.get_task_instances()
        }

    def result(self, run: Any, task_id: str) -> Any:
        """Return the result of a task."""
        ti, *_ = (ti for ti in run.get_task_instances() if ti.task_id == task_id)
        return ti.xcom_pull(task_ids=task_id)
