"""The public API equals ``__all__``, and its imports cost no more than necessary."""

from __future__ import annotations

import ast
import builtins
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import together_batches

_PACKAGE = Path(together_batches.__file__).parent


def _public_modules() -> list[str]:
    names = []
    for file in sorted(_PACKAGE.rglob("*.py")):
        parts = file.relative_to(_PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return names


def _told_apart(body: list[ast.stmt], *, front_door: bool) -> set[str]:
    """Return the public names that a module defines and, for a front door, re-exports."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
        elif front_door and isinstance(statement, ast.ImportFrom):
            if (statement.module or "").startswith("together_batches"):
                names |= {alias.asname or alias.name for alias in statement.names}
        elif front_door and isinstance(statement, ast.If):
            names |= _told_apart(statement.body, front_door=True)  # TYPE_CHECKING: names that are loaded on first use
    return {name for name in names if not name.startswith("_") or name == "__version__"}


# The command's package re-exports nothing, so its imports are private.
_FRONT_DOORS = {
    "together_batches",
    "together_batches.airflow",
    "together_batches.emulator",
    "together_batches.jsonl",
    "together_batches.runs",
    "together_batches.tables",
    "together_batches.typing",
}


def test_the_public_modules() -> None:
    """The list of public modules is deliberate, because a new one is a promise."""
    assert set(_public_modules()) == {
        "together_batches",
        "together_batches.airflow",
        "together_batches.airflow.adapter",
        "together_batches.airflow.dataset",
        "together_batches.airflow.hook",
        "together_batches.airflow.operators",
        "together_batches.airflow.sensors",
        "together_batches.airflow.triggers",
        "together_batches.cli",
        "together_batches.client",
        "together_batches.config",
        "together_batches.emulator",
        "together_batches.errors",
        "together_batches.events",
        "together_batches.files",
        "together_batches.jsonl",
        "together_batches.models",
        "together_batches.otel",
        "together_batches.outcomes",
        "together_batches.pytest_plugin",
        "together_batches.rows",
        "together_batches.runs",
        "together_batches.runs.rules",
        "together_batches.sync",
        "together_batches.tables",
        "together_batches.typing",
    }


@pytest.mark.parametrize("name", _public_modules())
def test_all_is_all(name: str) -> None:
    """``__all__`` equals the public names of the module, sorted and without repetitions, and each can be imported."""
    if name.startswith("together_batches.airflow"):
        pytest.importorskip("airflow.providers.common.ai", reason="nox -s airflow runs it")
    if name == "together_batches.otel":
        pytest.importorskip("opentelemetry", reason="nox -s extras runs it")
    module = importlib.import_module(name)
    assert module.__file__ is not None
    body = ast.parse(Path(module.__file__).read_text("utf-8")).body
    assert set(module.__all__) == _told_apart(body, front_door=name in _FRONT_DOORS)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    assert module.__doc__


def test_the_front_door_has_everything() -> None:
    """Values, errors and clients can be imported from the package itself."""
    from together_batches import errors, models, outcomes, rows

    values = {*errors.__all__, *models.__all__, *outcomes.__all__, *rows.__all__}
    rest = {"AsyncBatches", "Batches", "RetryPolicy", "Timeout", "__version__"}
    rest |= {"failed_requests", "job_from_dict", "jsonl", "runs", "tables", "to_dict"}
    assert set(together_batches.__all__) == values | rest


@pytest.mark.parametrize("client", ["AsyncBatches", "Batches"])
def test_what_signatures_name_can_be_imported(client: str) -> None:
    """Types in signatures are exported by the package or ``together_batches.typing``, or are commonly known."""
    known = {*together_batches.__all__, *importlib.import_module("together_batches.typing").__all__}
    known |= {*vars(builtins), "builtins", "Any", "Callable", "ClientSession", "Iterable", "Mapping", "Self"}
    known |= {
        *importlib.import_module("together_batches.runs").__all__,
        "os",
        "datetime",
        "timedelta",
        "SSLContext",
        "TracebackType",
        "AsyncFiles",
        "Files",
    }
    named = set[str]()
    for name, method in vars(getattr(together_batches, client)).items():
        if callable(method) and (not name.startswith("_") or name == "__init__"):
            for annotation in method.__annotations__.values():
                named |= {node.id for node in ast.walk(ast.parse(annotation)) if isinstance(node, ast.Name)}
    assert {"Ids", "Source", "Requests", "Order"} <= named
    assert named - known == set()


@pytest.mark.parametrize("name", together_batches.__all__)
def test_a_public_name_is_listed_and_can_be_imported(name: str) -> None:
    """A public name can be imported, and is in ``dir`` before it is loaded on first use."""
    assert name in dir(together_batches)
    namespace: dict[str, object] = {}
    exec(f"from together_batches import {name}", namespace)
    assert namespace[name] is getattr(together_batches, name)


def test_the_front_door_shows_nothing_else() -> None:
    """``dir`` of the package shows no loaded submodule and no import that is private."""
    shown = {name for name in dir(together_batches) if not name.startswith("__")}
    assert shown == {*together_batches.__all__} - {"__version__"}
    assert together_batches.jsonl is importlib.import_module("together_batches.jsonl")
    assert together_batches.runs is importlib.import_module("together_batches.runs")


def test_a_name_that_is_none() -> None:
    """An unknown name raises an :class:`AttributeError`, as in any module."""
    unknown = "Batch"
    with pytest.raises(AttributeError, match="module 'together_batches' has no attribute 'Batch'"):
        getattr(together_batches, unknown)
    with pytest.raises(ImportError):
        exec("from together_batches import Batch", {})


def _imported_by(code: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after running ``code``."""
    return {name.partition(".")[0] for name in _modules_of(code)}


def _modules_of(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=_PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return set(ended.stdout.split())


_HEAVY = {"aiohttp", "cattrs", "msgspec", "rich", "anyio", "asyncio", "yarl", "ssl", "pytest", "pydantic"}


@pytest.mark.parametrize(
    "code",
    [
        "import together_batches",
        "from together_batches import BatchJob, CancelReport, NotFoundError, RetryPolicy, Timeout",
        "import together_batches; dir(together_batches)",
        "import together_batches.errors, together_batches.models, together_batches.outcomes, together_batches.config",
    ],
)
def test_values_and_errors_cost_little(code: str) -> None:
    """The import of values and errors loads neither the transport nor its libraries."""
    assert _imported_by(code) & _HEAVY == set()


def test_plain_data_costs_no_wire() -> None:
    """``to_dict`` loads the JSON libraries, but not those of HTTP."""
    assert _imported_by("from together_batches import to_dict") & {"aiohttp", "rich", "anyio", "asyncio"} == set()


def test_a_client_costs_no_more_than_the_wire() -> None:
    """A client loads no emulator, no table printer and no test framework."""
    loaded = _imported_by("from together_batches import AsyncBatches, Batches")
    assert loaded & {"rich", "pytest"} == set()
    assert "aiohttp" in loaded


def test_a_client_costs_what_every_client_needs() -> None:
    """A client loads modules for files, rows, results and waiting only on first use."""
    loaded = _modules_of("from together_batches import AsyncBatches; AsyncBatches('key')")
    later = {
        "files",
        "jsonl",
        "rows",
        "_jobs.results",
        "_jobs.wait",
        "_jobs.upload_source",
        "_http.streaming",
        "_protocol.files",
        "_protocol.to_dict",
    }
    assert {f"together_batches.{name}" for name in later} & loaded == set()


@pytest.mark.parametrize("name", ["AsyncBatches", "Batches"])
def test_a_client_is_found_by_pickle_under_its_public_name(name: str) -> None:
    """The client classes can be pickled, as any class; their instances refuse."""
    cls = getattr(together_batches, name)
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_the_package_is_typed() -> None:
    """The package has the marker for type checkers."""
    assert (_PACKAGE / "py.typed").exists()
