"""The map in docs/contributing.md matches the layout: each room imports only from rooms below it in the table.

The table also names the libraries of each room, and the drawing below it shows every import between rooms; another
table has the rooms of the command. All are compared with the imports, so that none can lag. Imports under
``TYPE_CHECKING`` do not count. To redraw the map after a change: ``python tests/contracts/test_layout.py``.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from string import ascii_letters
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]
_PACKAGE = _ROOT / "together_batches"
_PAGE = _ROOT / "docs" / "contributing.md"
_FILES = sorted(_PACKAGE.rglob("*.py"))

_FRONT = "__init__.py"
"""The root package, which imports the version at once and the rest on first use; no room imports from it."""
_APART = "emulator/"
"""The other side of the wire, which shares no code with the client."""
_STARTS_THE_EMULATOR = {"cli/", "pytest_plugin.py"}
_VALUES = {"_version.py", "config.py", "errors.py", "models.py", "outcomes.py"}
_EVERYWHERE = {"attrs"}
"""A library of values, which every room may use."""
_CODECS = {
    "cattrs": {"_protocol/job_codec.py"},
    "msgspec": {
        "_protocol/carried_body.py",
        "_protocol/job_codec.py",
        "_protocol/json_codec.py",
        "_protocol/request_codec.py",
        "_protocol/result_codec.py",
        "_protocol/result_rows.py",
    },
}
"""The files that may import a library of JSON."""


class Room(NamedTuple):
    """A row of the table."""

    name: str
    libraries: set[str]


def _rooms() -> list[Room]:
    rows = re.findall(r"^\| `([\w/]+(?:/|\.py))` \|[^|]*\| ([^|]*)\|$", _PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return [Room(name, set(re.findall(r"`([\w.]+)`", libraries))) for name, libraries in rows]


_ROOMS = _rooms()
_ORDER = [room.name for room in _ROOMS]


def _room_of(module: str) -> str:
    """Return the room of a module, from the part of its name after the package's."""
    first = module.partition(".")[0]
    return f"{first}/" if (_PACKAGE / first).is_dir() else f"{first}.py"


def _room(file: Path) -> str:
    parts = file.relative_to(_PACKAGE).parts
    return parts[0] if len(parts) == 1 else f"{parts[0]}/"


def _imports(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield each import that happens at run time, early or late, as (module, names)."""
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


@cache
def _of(file: Path) -> list[tuple[str, list[str]]]:
    return list(_imports(ast.parse(file.read_text("utf-8"))))


def _rooms_imported(file: Path) -> set[str]:
    rooms: set[str] = set()
    known = {_room(other) for other in _FILES}
    for module, names in _of(file):
        if module == "together_batches":
            found = {_room_of(name) for name in names}
            rooms |= {room if room in known else _FRONT for room in found or {_FRONT}}
        elif module.startswith("together_batches."):
            rooms.add(_room_of(module.removeprefix("together_batches.")))
    return rooms


def _libraries_imported(file: Path) -> set[str]:
    tops = {module.partition(".")[0] for module, _ in _of(file)}
    return tops - sys.stdlib_module_names - {"together_batches"}


def _libraries(room: str) -> set[str]:
    used = {library for file in _FILES if _room(file) == room for library in _libraries_imported(file)}
    return used - _EVERYWHERE


def _draw() -> str:
    """Return the imports between rooms: a row for each room that imports, a mark for each room that it imports."""
    width = max(map(len, _ORDER))
    lines = [" " * (width + 3) + ascii_letters[: len(_ORDER)]]
    for number, room in enumerate(_ORDER):
        imported = {other for file in _FILES if _room(file) == room for other in _rooms_imported(file)}
        marks = "".join(
            "\\" if column == number else "●" if other in imported else " " if column < number else "·"
            for column, other in enumerate(_ORDER)
        )
        lines.append(f"{ascii_letters[number]} {room:<{width}} {marks}")
    return "\n".join(line.rstrip() for line in lines)


_DRAWING = re.compile(r"(?<=```text\n)( +abc.*?)(?=\n```)", flags=re.DOTALL)
_BESIDE = re.compile(r"`([\w/]+\.py)` \(([^()|]*`[^()|]*)\)")
"""A file in the table of where things go, and what stands beside it in parentheses."""


def _name(file: Path) -> str:
    return str(file.relative_to(_PACKAGE))


def test_every_room_is_on_the_map() -> None:
    """Every room has a row, and every row has files."""
    assert sorted(_ORDER) == sorted({_room(file) for file in _FILES} - {_FRONT})


def test_every_module_is_named() -> None:
    """The page names every module, so that a search of it for a file finds what the file does."""
    page = _PAGE.read_text("utf-8")
    modules = {_name(file) for file in _FILES if file.name != "__init__.py"}
    assert {name for name in modules if not re.search(rf"[`/]{re.escape(Path(name).name)}`", page)} == set()


def test_what_the_map_names_exists() -> None:
    """The functions and classes that "Where things go" names are in the files beside which they stand."""
    table = _PAGE.read_text("utf-8").partition("### Where things go")[2].partition("\n### ")[0]
    named = [(file, name) for file, names in _BESIDE.findall(table) for name in re.findall(r"`(\w+)`", names)]
    assert len(named) > 30
    assert [(file, name) for file, name in named if not _defines(_PACKAGE / file, name)] == []


def _defines(file: Path, name: str) -> bool:
    pattern = rf"^\s*(?:(?:async )?def|class|type) {name}\b|^\s*{name}\b(?::.*)? = "
    return re.search(pattern, file.read_text("utf-8"), flags=re.MULTILINE) is not None


def _allowed(room: str) -> set[str]:
    """Return the rooms from which this one may import."""
    if room == _FRONT:
        return _VALUES  # imports in ``__getattr__`` are by name, on first use
    if room == _APART:
        return {_APART}
    below = set(_ORDER[_ORDER.index(room) :])
    return below if room in _STARTS_THE_EMULATOR else below - {_APART}


def test_imports_point_down() -> None:
    """A room imports only from itself and from rooms further down the table."""
    wrong = {_name(file): _rooms_imported(file) - _allowed(_room(file)) for file in _FILES}
    assert {file: rooms for file, rooms in wrong.items() if rooms} == {}


def test_rooms_of_the_command() -> None:
    """Within ``cli/``, too, each room has a row, and imports only from itself and from rooms further down."""
    table = _PAGE.read_text("utf-8").partition("### The command")[2].partition("\n### ")[0]
    order = re.findall(r"^\| `(_\w+)/` \|", table, flags=re.MULTILINE)
    command = _PACKAGE / "cli"
    rooms = {file: file.relative_to(command).parts[0] for file in command.glob("_*/**/*.py")}
    assert sorted(order) == sorted({*rooms.values()})
    imported = {
        file: {
            path.split(".")[2]
            for module, names in _of(file)
            for path in [module, *(f"{module}.{name}" for name in names)]
            if path.startswith("together_batches.cli.")
        }
        for file in rooms
    }
    wrong = {_name(file): imported[file] - {*order[order.index(room) :]} for file, room in rooms.items()}
    assert {file: others for file, others in wrong.items() if others} == {}


def test_libraries_stay_in_their_rooms() -> None:
    """The table names exactly the libraries that a room imports."""
    assert {room.name: _libraries(room.name) for room in _ROOMS} == {room.name: room.libraries for room in _ROOMS}


def test_json_is_read_in_the_codecs() -> None:
    """The JSON libraries are imported in the codecs, and in the emulator, which shares no code."""
    readers = {
        (library, _name(file))
        for file in _FILES
        if _room(file) != _APART
        for library in _libraries_imported(file) & _CODECS.keys()
    }
    assert [(library, file) for library, file in readers if file not in _CODECS[library]] == []


def test_the_drawing_shows_the_imports() -> None:
    """The drawing equals the imports; ``python tests/contracts/test_layout.py`` redraws it."""
    found = _DRAWING.search(_PAGE.read_text("utf-8"))
    assert found is not None
    assert found.group() == _draw()


def test_only_the_configuration_reads_the_environment() -> None:
    """Only the configuration reads the environment, except for the command's terminal; the plugin writes to it."""
    texts = {_name(file): file.read_text("utf-8") for file in _FILES if _room(file) not in {"cli/", _APART}}
    assert [file for file, text in texts.items() if "os.environ" in text or "getenv" in text] == ["config.py"]


def test_the_command_does_without_the_synchronous_client() -> None:
    """The command does not import the synchronous client: it runs one event loop, and no second thread."""
    used = {room for file in _FILES if _room(file) == "cli/" for room in _rooms_imported(file)}
    assert used & {"sync.py", "_loop_thread.py"} == set()


def test_late_imports_count() -> None:
    """Late imports count, but not those for type checkers."""
    text = """
import a.b
from together_batches import _stream
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


if __name__ == "__main__":
    page = _PAGE.read_text("utf-8")
    _PAGE.write_text(_DRAWING.sub(lambda _: _draw(), page), "utf-8")
