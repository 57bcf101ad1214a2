"""The part of Airflow that the provider uses, from wherever the installed version has it.

No other module of the provider imports Airflow. Each name is loaded on first use, because triggers and object storage
take time to import, and a DAG file that is parsed needs neither. Type checkers find the names in Airflow, or in
``typings/`` of the repository, by which the package is checked without Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import NEVER_EXPIRE as NEVER_EXPIRE
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import Connection as Connection
    from airflow.sdk import Context as Context
    from airflow.sdk import ObjectStoragePath as ObjectStoragePath
    from airflow.sdk import TaskGroup as TaskGroup
    from airflow.sdk import chain as chain
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import TaskDeferralError as TaskDeferralError
    from airflow.triggers.base import BaseTrigger as BaseTrigger
    from airflow.triggers.base import TriggerEvent as TriggerEvent
else:
    from importlib import import_module

    _HOMES = {
        "AirflowFailException": ("airflow.sdk.exceptions", "airflow.exceptions"),
        "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
        "BaseOperator": ("airflow.sdk",),
        "BaseSensorOperator": ("airflow.sdk",),
        "BaseTrigger": ("airflow.triggers.base",),
        "NEVER_EXPIRE": ("airflow.sdk",),
        "ObjectStoragePath": ("airflow.sdk",),
        "TaskDeferralError": ("airflow.sdk.exceptions", "airflow.exceptions"),
        "TaskGroup": ("airflow.sdk",),
        "conf": ("airflow.sdk.configuration", "airflow.configuration"),
        "chain": ("airflow.sdk",),
        "TriggerEvent": ("airflow.triggers.base",),
    }
    """The modules that have each name: those of the newest version first."""

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        if version() < (3, 0):
            raise ImportError(_TOO_OLD.format(found=_found()))
        for home in _HOMES[name]:
            try:
                value = getattr(import_module(home), name)
            except (ImportError, AttributeError):
                continue
            globals()[name] = value
            return value
        if name == "NEVER_EXPIRE":  # new in 3.3
            return None
        message = f"{name} is in none of the modules where Airflow {_found()} is expected to have it"
        raise ImportError(message)


_TOO_OLD = (
    "together_batches.airflow needs Apache Airflow 3.0 or newer, and {found} is installed; on Airflow 2, call "
    "together_batches.Batches().run() in a task, on a directory that survives the worker"
)


def _found() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apache-airflow-core")  # since Airflow 3
    except PackageNotFoundError:
        pass
    try:
        return version("apache-airflow")
    except PackageNotFoundError:
        return "none"


def version() -> tuple[int, int]:
    """Return the installed version of Airflow, (0, 0) if there is none."""
    parts = _found().split(".")
    return (int(parts[0]), int(parts[1])) if parts[0].isdecimal() else (0, 0)


HAS_ON_KILL = (3, 3)
"""The first version that calls ``on_kill`` of triggers, and that has the task state store."""
