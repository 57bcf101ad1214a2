"""The reference of the provider lists the parameters of each class."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "reference" / "airflow.md").read_text("utf-8")
_SECTIONS = dict(re.findall(r"^## (\w+)\n((?:(?!## ).*\n)*)", _PAGE, flags=re.MULTILINE))
_MODULES = {
    "TogetherBatchOperator": "operators",
    "TogetherBatchSensor": "sensors",
    "TogetherBatchTrigger": "triggers",
    "TogetherCancelOperator": "operators",
    "together_run": "dataset",
}


def _parameters(name: str) -> set[str]:
    """Return the parameters of a class or a function."""
    tree = ast.parse((_ROOT / "together_batches" / "airflow" / f"{_MODULES[name]}.py").read_text("utf-8"))
    (found,) = (node for node in ast.walk(tree) if getattr(node, "name", None) == name)
    if isinstance(found, ast.ClassDef):
        found = next(node for node in found.body if getattr(node, "name", None) == "__init__")
    assert isinstance(found, ast.FunctionDef)
    return {arg.arg for arg in (*found.args.args, *found.args.kwonlyargs)} - {"self"}


@pytest.mark.parametrize("name", _MODULES)
def test_every_parameter_is_documented(name: str) -> None:
    """The table of a class has its parameters, and no others."""
    (table,) = re.findall(r"^\| parameter \|.*\n((?:\|.*\n)+)", _SECTIONS[name], flags=re.MULTILINE)
    cells = (row.split("|")[1] for row in table.splitlines())
    assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} == _parameters(name)
