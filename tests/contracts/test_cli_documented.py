"""The reference of the command lists exactly the options of each command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from together_batches.cli import COMMANDS
from together_batches.cli._terminal.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
SECTIONS = {
    title.strip("`"): text for title, text in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, flags=re.MULTILINE)
}
SUMMARIES = dict(COMMANDS.summaries())
WITHOUT_THE_SERVICE = {
    "demo",
    "emulator",
    "validate",
    "split",
    "runs list",
    "runs show",
    "label",
    "login",
    "logout",
    "profiles",
}


def options(words: str) -> Iterator[tuple[str, str | None]]:
    """Yield each option of a command, with the name of its value if it takes one."""
    found: click.Command | None = COMMANDS
    for word in words.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None
    for param in found.params:
        if isinstance(param, click.Option):
            yield from ((name, param.metavar) for name in param.opts)


def documented(section: str) -> dict[str, str | None]:
    """Return each option in the first column of the tables of a section, with the name of its value."""
    cells = re.findall(r"^\| (`-.*?`) \|", SECTIONS[section], flags=re.MULTILINE)
    return {name: value or None for cell in cells for name, value in re.findall(r"`(--?[\w-]+)(?: ([\w=]+))?`", cell)}


def test_every_command_has_its_section() -> None:
    """Every command has a section and every section a command; the table has the summaries of the help."""
    assert set(SUMMARIES) == {title for title in SECTIONS if f"## `{title}`" in PAGE}
    assert dict(re.findall(r"^\| \[`([\w ]+)`\]\(.*?\) \| (.+) \|$", PAGE, flags=re.MULTILINE)) == SUMMARIES


@pytest.mark.parametrize("command", SUMMARIES)
def test_every_option_is_documented(command: str) -> None:
    """The options of a command and those on the page are the same, including the names of values."""
    common = {} if command in WITHOUT_THE_SERVICE else documented("Common options")
    own = documented(command)
    assert not own.keys() & common.keys()
    assert dict(options(command)) == {**own, **common}


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes equals the enumeration."""
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", SECTIONS["Exit codes"], flags=re.MULTILINE)} == set(
        Exit
    )
