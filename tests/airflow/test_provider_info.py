"""The provider as Airflow finds it, without Airflow."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import together_batches.airflow

_ROOT = Path(__file__).parents[2]


def test_the_provider_is_found_by_its_entry_points() -> None:
    """Airflow and its provider common-ai find the package by its entry points."""
    project = (_ROOT / "pyproject.toml").read_text("utf-8")
    assert 'provider_info = "together_batches.airflow:get_provider_info"' in project
    assert 'together = "together_batches.airflow.adapter:TogetherBatchAdapter"' in project
    for found in entry_points(group="apache_airflow_provider"):
        if found.value.startswith("together_batches"):
            assert found.load() is together_batches.airflow.get_provider_info


def test_the_modules_of_the_info_exist() -> None:
    """Every module and class that the info names is a file of the package."""
    info = together_batches.airflow.get_provider_info()
    named = [
        name for kind in ("operators", "sensors", "hooks", "triggers") for name in info[kind][0]["python-modules"]
    ]
    named += [item["hook-class-name"].rpartition(".")[0] for item in info["connection-types"]]
    assert [name for name in named if not (_ROOT / (name.replace(".", "/") + ".py")).is_file()] == []


def test_the_form_of_a_connection() -> None:
    """The form shows the base URL and the key under their names, and a proxy, which may hold a password, hidden."""
    (connection,) = together_batches.airflow.get_provider_info()["connection-types"]
    assert connection["connection-type"] == "together"
    assert connection["ui-field-behaviour"]["relabeling"] == {"host": "Base URL", "password": "API key"}
    assert set(connection["conn-fields"]) == {"timeout", "max_concurrency", "proxy", "allow_insecure_http"}
    assert connection["conn-fields"]["proxy"]["schema"]["format"] == "password"


@pytest.mark.parametrize(
    "code", ["", "together_batches.airflow.get_provider_info()", "dir(together_batches.airflow)"]
)
def test_airflow_pays_nothing_for_the_provider(code: str) -> None:
    """Each process of Airflow reads the info, and loads neither Airflow nor the client for it."""
    script = f"import together_batches.airflow\n{code}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=30)
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert loaded & {"airflow", "aiohttp", "anyio", "cattrs", "msgspec", "asyncio"} == set()


def test_a_name_that_is_none() -> None:
    """An unknown name raises an :class:`AttributeError`, as in any module; the others are in ``dir``."""
    with pytest.raises(AttributeError, match="has no attribute 'TogetherSubmitOperator'"):
        together_batches.airflow.TogetherSubmitOperator  # noqa: B018
    assert {*together_batches.airflow.__all__} <= {*dir(together_batches.airflow)}
