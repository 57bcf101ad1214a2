"""The messages of errors, read from the code: the page that lists them, and the search that finds a printed one."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import Directive

import together_batches
from together_batches import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

PAGE = "reference/messages"
VARIABLE = "…"
"""What stands for a part that differs from error to error."""

_TITLES = {name: name for name in [*errors.__all__, "TypeError"]}
_TITLES |= dict.fromkeys(("CommandError", "BadParameter"), "The command")
_TITLES["faults.append"] = "ValidationError"  # what is wrong with a line
_OTHERS = "Parts of messages, and warnings"
_FEWEST_WORDS = 2


@cache
def messages() -> dict[str, list[str]]:
    """Return the messages of each class of errors, and of the command."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    package = Path(together_batches.__file__).parent
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] != "emulator":
            for title, text in _in_module(ast.parse(path.read_text("utf-8"))):
                if _words(text) >= _FEWEST_WORDS:
                    found[title].add(re.sub(f"(%s|{VARIABLE})+", VARIABLE, " ".join(text.split())))
    titles = sorted(found, key=lambda title: (title == _OTHERS, title))
    return {title: sorted(found[title], key=str.casefold) for title in titles}


def _in_module(module: ast.Module) -> Iterator[tuple[str, str]]:
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    titles = _TITLES | {function.name: title for function in functions if (title := _made_by(function))}
    constants = {
        name: [_text(node.value)]
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.BinOp | ast.JoinedStr)
        for name in _names(*node.targets)
    }
    for function in functions:
        yield from _in_function(function, titles, {**constants})
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name in _TITLES:
            yield from ((node.name, text) for text in _in_error(node))


def _made_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Return the class of the error that a function makes of texts that it is passed."""
    named = _names(*filter(None, [function.returns]))
    if any(argument.arg == "message" for argument in function.args.args):
        named += sorted(_names(*ast.walk(function)))
    return next((_TITLES[name] for name in named if name in _TITLES), None)


def _in_function(
    function: ast.AST, titles: dict[str, str], assigned: dict[str, list[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the texts that errors are made of; a name stands for whatever was assigned to it before."""
    steps = [node for node in ast.walk(function) if isinstance(node, ast.Call | ast.Assign | ast.AugAssign)]
    for step in sorted(steps, key=lambda step: (step.end_lineno or 0, step.end_col_offset or 0)):
        if not isinstance(step, ast.Call):
            targets = step.targets if isinstance(step, ast.Assign) else [step.target]
            before = VARIABLE if isinstance(step, ast.AugAssign) else ""
            for name in _names(*targets):
                assigned.setdefault(name, []).append(before + _text(step.value))
        elif found := [titles[name] for name in _names(step.func, *step.args) if name in titles]:
            texts = [_text(part) for part in step.args if isinstance(part, ast.JoinedStr | ast.Constant)]
            texts += [text for name in _names(*step.args) for text in assigned.pop(name, ())]
            yield from ((found[0], text) for text in texts)
    yield from ((_OTHERS, text) for text in assigned.get("message", ()))


def _in_error(error: ast.ClassDef) -> Iterator[str]:
    """Yield the texts that an error gives itself."""
    for function in error.body:
        name = function.name if isinstance(function, ast.FunctionDef) else ""
        for node in ast.walk(function):
            if name == "__str__" and isinstance(node, ast.Return) and node.value:
                yield _text(node.value)
            elif name == "__init__" and isinstance(node, ast.Call):
                yield from (_text(part) for part in node.args if isinstance(part, ast.JoinedStr))


def _names(*expressions: ast.AST) -> list[str]:
    return [name for node in expressions if (name := _name(node))]


def _name(node: ast.AST) -> str | None:
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(owner), name):
            return f"{owner}.{name}"
    return None


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(map(_text, node.values))
        case ast.BinOp(op=ast.Add()):
            return _text(node.left) + _text(node.right)
    return VARIABLE


def _words(text: str) -> int:
    return sum(any(map(str.isalpha, word)) for word in text.split())


def _anchor(title: str, number: int) -> str:
    return f"{nodes.make_id(title)}-{number}"


class Messages(Directive):
    """The directive ``error-messages``: a section for each class of errors, with its messages."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        return [self._section(title, texts) for title, texts in messages().items()]

    def _section(self, title: str, texts: list[str]) -> nodes.section:
        items = [
            nodes.list_item("", nodes.paragraph("", "", nodes.literal(text, text)), ids=[_anchor(title, number)])
            for number, text in enumerate(texts)
        ]
        heading = nodes.title("", "", nodes.literal(title, title) if title in _TITLES else nodes.Text(title))
        return nodes.section("", heading, nodes.bullet_list("", *items), ids=[nodes.make_id(title)], names=[title])


def _add_to_search(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Give the page of the search the messages, because its own index finds only pages that have every word."""
    if pagename == "search":
        found = {
            f"{PAGE}.html#{_anchor(title, place)}": text
            for title, texts in messages().items()
            for place, text in enumerate(texts)
        }
        app.add_js_file(None, body=f"const ERROR_MESSAGES = {json.dumps(found)};")
        app.add_js_file("search-messages.js")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("error-messages", Messages)
    app.connect("html-page-context", _add_to_search)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
