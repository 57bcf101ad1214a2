"""Airflow on a database of its own, in this process, against the emulator.

Tests that need Airflow are collected only if it is installed: ``nox -s airflow`` runs them.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_airflow import LocalAirflow, prepare
from wires import KEY

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    version("apache-airflow-core")
except PackageNotFoundError:
    collect_ignore_glob = ["test_with_*.py"]
else:
    prepare()


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


@pytest.fixture
def airflow() -> LocalAirflow:
    """A scheduler, a worker and a triggerer in this process."""
    return LocalAirflow()
