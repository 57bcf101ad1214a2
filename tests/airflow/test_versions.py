"""Versions of Airflow that the provider does not work with."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from together_batches.airflow import _airflow


@pytest.mark.parametrize("found", ["2.11.0", "none"])
def test_an_airflow_that_is_too_old(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """Without Airflow 3, an import says which version is needed, which one is installed, and what to do."""
    monkeypatch.setattr(_airflow, "_found", lambda: found)
    expected = (
        rf"needs Apache Airflow 3.0 or newer, and {found} is installed; on Airflow 2, call .*Batches\(\)\.run\(\)"
    )
    with pytest.raises(ImportError, match=expected):
        _airflow.__getattr__("BaseHook")


@pytest.mark.parametrize(
    ("found", "expected"), [("3.3.2", (3, 3)), ("3.0.6", (3, 0)), ("2.11.0", (2, 11)), ("none", (0, 0))]
)
def test_the_version(monkeypatch: pytest.MonkeyPatch, found: str, expected: tuple[int, int]) -> None:
    """The version decides what a task may expect of Airflow."""
    monkeypatch.setattr(_airflow, "_found", lambda: found)
    assert _airflow.version() == expected


def test_a_name_that_is_none() -> None:
    """An unknown name raises an :class:`AttributeError`, as in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'BaseOperatorLink'"):
        _airflow.__getattr__("BaseOperatorLink")


def test_what_type_checkers_see() -> None:
    """For type checkers, each name is that of the newest Airflow: tasks of users are checked against its classes."""
    tree = ast.parse(Path(_airflow.__file__).read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {name.name: node.module for node in checked.body for name in node.names}  # type: ignore[attr-defined]
    assert imported.items() >= {name: homes[0] for name, homes in _airflow._HOMES.items()}.items()
