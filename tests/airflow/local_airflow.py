"""Airflow on a database of its own, in this process."""

from __future__ import annotations

import atexit
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

__all__ = ["LocalAirflow", "prepare"]


@cache
def prepare() -> None:
    """Give Airflow a directory of its own. It reads the environment when it is imported, so call this before."""
    home = tempfile.TemporaryDirectory(prefix="together-batches-airflow-", ignore_cleanup_errors=True)
    atexit.register(home.cleanup)
    Path(home.name, "dags").mkdir()
    os.environ |= {
        "AIRFLOW_HOME": home.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }


@cache
def _make_database() -> None:
    from airflow.utils.db import initdb

    initdb()


def _bags() -> Any:
    """Return the module of DAG bags."""
    try:
        return import_module("airflow.dag_processing.dagbag")
    except ImportError:  # before 3.2
        return import_module("airflow.models.dagbag")


@dataclass
class Name:
    """A schema that workers import."""

    name: str


class LocalAirflow:
    """Runs DAGs, and single tasks of them, as ``dag.test()`` does."""

    def run(self, dag: Any) -> Any:
        """Run a DAG, and return its run."""
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.utils.session import create_session

        _make_database()
        with create_session() as session:
            DagBundlesManager().sync_bundles_to_db(session=session)
        bags = _bags()
        bag = bags.DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        if hasattr(bags, "sync_bag_to_db"):
            bags.sync_bag_to_db(bag, "dags-folder", None)
        else:  # 3.0
            dag.relative_fileloc = "dag.py"
            bag.sync_to_db("dags-folder", None)
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
            clear_task_instances(list(session.scalars(chosen)), session, dag_run_state=False)
        with create_session() as session:
            (ti,) = session.scalars(chosen)
            ti.try_number += 1
        task = dag.task_dict[task_id]
        given = {"task": task} if "task" in signature(_run_task).parameters else {}
        while True:
            with create_session() as session:
                (ti,) = session.scalars(chosen)
                session.expunge(ti)
            ti.task = task  # read before 3.1
            _run_task(ti=ti, run_triggerer=not until_deferred, **given)
            with create_session() as session:
                (ti,) = session.scalars(chosen)
                if ti.state != "scheduled":  # after a pause it goes on
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
