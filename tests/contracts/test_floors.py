"""Imports point down.

A module may import from the floors below its own, from within its own package, and, on its own floor, from what
stands before it in its row. The emulator stands apart: it imports nothing of the rest, since it and the client are
to meet on the wire only. What is imported under ``TYPE_CHECKING`` is not imported.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import together_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

# A row reads from left to right: each may import those before it.
_HOUSE: dict[int, list[list[str]]] = {
    10: [["__main__"]],
    9: [["cli"], ["sync"]],
    8: [["client"], ["typing"]],
    7: [["runs"]],
    6: [["files"]],
    5: [["_jobs"]],
    4: [["_http"], ["jsonl"]],
    3: [["_protocol"]],
    2: [["_local"], ["_loop_thread"]],
    1: [["_paging"], ["_stream"], ["pytest_plugin"]],
    0: [["_fields", "_text", "_version", "errors", "_validation", "rows", "config", "models", "outcomes"]],
}
_FRONT = ""
"""The front door, ``together_batches/__init__.py``: it imports the words, and nobody within comes in through it."""
_APART = "emulator"
_IMPORTS_THE_EMULATOR = {"cli", "pytest_plugin", "emulator"}

_LIBRARIES: dict[str, set[str]] = {
    "aiohttp": {"_http", "emulator"},
    "yarl": {"_http", "emulator"},
    "multidict": {"_http", "emulator"},
    "cattrs": {"_protocol"},
    "msgspec": {"_protocol", "emulator"},
    "rich": {"cli"},
    "click": {"cli"},
    "pytest": {"pytest_plugin"},
    "anyio": {
        "_local",
        "_jobs",
        "runs",
        "client",
        "_loop_thread",
        "cli",
    },
    "attrs": {room for rows in _HOUSE.values() for row in rows for room in row} | {"emulator"},
}
"""Who may import what is not ours and not Python's; whatever is not named here nobody may."""

_PACKAGE = Path(together_batches.__file__).parent
_FILES = sorted(_PACKAGE.rglob("*.py"))


def _room(parts: tuple[str, ...]) -> str:
    """The room that a module is in: its own name, or that of its package."""
    return _FRONT if parts[:1] == ("__init__",) else parts[0]


def _parts(file: Path) -> tuple[str, ...]:
    return file.relative_to(_PACKAGE).with_suffix("").parts


def _imports(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Each import that happens when the module runs, early or late, as (module, names)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in node.orelse:
                yield from _imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node.module or "", [alias.name for alias in node.names]
        else:
            yield from _imports(node)


def _of(file: Path) -> list[tuple[str, list[str]]]:
    return list(_imports(ast.parse(file.read_text("utf-8"))))


def _rooms_imported(file: Path) -> set[str]:
    rooms: set[str] = set()
    for module, names in _of(file):
        if module == "together_batches":
            known = {_room(_parts(other)) for other in _FILES}
            rooms |= {name if name in known else _FRONT for name in names or [""]}
        elif module.startswith("together_batches."):
            rooms.add(module.split(".")[1])
    return rooms


def _may_import(room: str) -> set[str]:
    if room == _APART:
        return {_APART}
    if room == _FRONT:
        return {name for row in _HOUSE[0] for name in row}
    (floor,) = {number for number, rows in _HOUSE.items() for row in rows if room in row}
    below = {name for number in range(floor) for row in _HOUSE[number] for name in row}
    before = {name for row in _HOUSE[floor] if room in row for name in row[: row.index(room)]}
    return {room} | below | before | ({_APART} if room in _IMPORTS_THE_EMULATOR else set())


def _name(file: Path) -> str:
    return "/".join(_parts(file))


_each_file = pytest.mark.parametrize("file", _FILES, ids=_name)


@_each_file
def test_every_module_has_a_place(file: Path) -> None:
    """A new one is put on a floor, on purpose."""
    rooms = {name for rows in _HOUSE.values() for row in rows for name in row}
    assert _room(_parts(file)) in rooms | {_APART, _FRONT}


@_each_file
def test_imports_point_down(file: Path) -> None:
    """To lower floors, within a package, or along a row."""
    room = _room(_parts(file))
    assert _rooms_imported(file) <= _may_import(room)


@_each_file
def test_libraries_stay_in_their_rooms(file: Path) -> None:
    """HTTP in one room on this side of the wire, JSON in one, and no library that nobody decided upon."""
    room = _room(_parts(file))
    foreign = {
        top
        for module, _ in _of(file)
        if (top := module.partition(".")[0]) not in sys.stdlib_module_names and top != "together_batches"
    }
    assert {library for library in foreign if room not in _LIBRARIES.get(library, set())} == set()


@pytest.mark.parametrize(
    "file", [file for file in _FILES if _room(_parts(file)) not in {"cli", "emulator"}], ids=_name
)
def test_only_the_configuration_reads_the_environment(file: Path) -> None:
    """Everybody else is told; the command also looks at what its terminal can do, and the plugin writes."""
    text = file.read_text("utf-8")
    reads = "os.environ" in text or "getenv" in text
    assert reads is (_name(file) == "config")


def test_the_command_does_without_the_synchronous_client() -> None:
    """One ``anyio.run`` for each command, and no second thread."""
    used = {room for file in _FILES if _room(_parts(file)) == "cli" for room in _rooms_imported(file)}
    assert used & {"sync", "_loop_thread"} == set()


def test_this_test_sees() -> None:
    """Late imports count, those for type checkers do not."""
    text = """
import a.b
from together_batches import _wire
if TYPE_CHECKING:
    import only_for_checkers
else:
    import at_run_time
def late():
    try:
        from c import d
    except ImportError:
        pass
"""
    found = [module for module, _ in _imports(ast.parse(text))]
    assert found == ["a.b", "together_batches", "at_run_time", "c"]
