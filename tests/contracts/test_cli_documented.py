"""The reference of the command names what the parser takes, and nothing else."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from together_batches.cli._parser import Parser, build_parser

from together_batches.cli._exits import Exit

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
SECTIONS = {
    title.strip("`"): text for title, text in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, flags=re.MULTILINE)
}
COMMANDS = build_parser().commands
TALKING = {"cancel", "get", "list", "results", "run", "submit", "wait"} | {
    name for name in COMMANDS if name.startswith("files ")
}


def accepted(parser: Parser) -> dict[str, str | None]:
    """Each option of a parser, with the word for its value, if it takes one."""
    return {
        name: action.metavar if isinstance(action.metavar, str) else None
        for action in parser._actions
        for name in action.option_strings
        if not isinstance(action, argparse._HelpAction)
    }


def documented(section: str) -> dict[str, str | None]:
    """Each option in the first column of the tables of a section, with the word for its value."""
    cells = re.findall(r"^\| (`-.*?`) \|", SECTIONS[section], flags=re.MULTILINE)
    return {name: value or None for cell in cells for name, value in re.findall(r"`(--?[\w-]+)(?: (\w+))?`", cell)}


def test_every_command_has_its_section() -> None:
    """A command without a section, or a section of a command that is none, fails."""
    assert set(COMMANDS) == {title for title in SECTIONS if f"## `{title}`" in PAGE}
    assert set(COMMANDS) == set(re.findall(r"^\| \[`([\w ]+)`\]", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    """The options of a command and those on the page are the same, names of values included."""
    common = documented("Common options") if command in TALKING else {}
    told = documented(command)
    assert not told.keys() & common.keys()
    assert accepted(COMMANDS[command]) == {**told, **common}


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes is that of the program."""
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", SECTIONS["Exit codes"], flags=re.MULTILINE)} == set(
        Exit
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    """Each option and argument is explained in --help too."""
    assert all(action.help for action in COMMANDS[command]._actions)
