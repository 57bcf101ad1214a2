"""Log records carry their subject in fields, whose names a page documents."""

from __future__ import annotations

import ast
import re
from functools import cache
from logging import LogRecord
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "log-and-debug.md"


@cache
def _calls() -> list[tuple[str, ast.Call]]:
    """Return every call of a logger in the package, with its location."""
    found: list[tuple[str, ast.Call]] = []
    for path in sorted((ROOT / "together_batches").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)) if level != "isEnabledFor":
                    found.append((f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", node))
                case _:
                    pass
    return found


def _extra(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)


def test_every_record_has_fields() -> None:
    """Every record has fields, because a message alone cannot be searched by job."""
    calls = _calls()
    assert calls
    assert [place for place, call in calls if _extra(call) is None] == []


def test_the_names_are_those_of_the_page() -> None:
    """The fields on the page are exactly those of the records."""
    section = PAGE.read_text("utf-8").partition("## Fields of log records")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    used = {
        key.value
        for _, call in _calls()
        for node in ast.walk(_extra(call) or call)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert used == documented
    assert not used & set(vars(LogRecord("", 0, "", 0, "", (), None))), "logging refuses the names of its own"
