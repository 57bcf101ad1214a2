"""What may be typed, and what may not."""

from __future__ import annotations

import argparse
from datetime import timedelta

import pytest

from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._parser import build_parser, parse

FILES = ["upload", "list", "get", "download", "delete"]
COMMANDS = [
    *("demo", "cancel", "list", "get"),
    *("validate", "split", "submit", "results", "wait", "run", "runs show"),
    *[f"files {verb}" for verb in FILES],
    "emulator",
]


def test_ids_and_options_in_any_order() -> None:
    """An id after an option is an id like the others, and after -- anything is."""
    arguments = parse(["cancel", "a", "--wait", "b", "--rate", "2", "--", "--c"])
    assert arguments.ids == ["a", "b", "--c"]
    assert arguments.wait
    assert arguments.rate == 2


def test_values() -> None:
    """Options arrive as values, not as text."""
    arguments = parse(["cancel", "--older-than", "1h30m", "--status", "A", "--status", "B", "--deadline", "0.5"])
    assert timedelta(minutes=90) == arguments.older_than
    assert arguments.status == ["A", "B"]
    assert arguments.deadline == 0.5


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "no command given"),
        (["frobnicate"], "invalid choice"),
        (["--json"], "required: COMMAND"),
        (["list", "--frobnicate"], "no option --frobnicate;"),
        (["list", "stray"], "'stray' is one argument too many"),
        (["demo", "stray"], "'stray' is one argument too many"),
        (["list", "--stat", "X"], "no option --stat;"),
        (["list", "-"], "'-' is one argument too many"),
        (["list", "--status"], "expected one argument"),
        (["get"], "required: ID"),
        (["results", "a", "--order", "output"], "invalid choice: 'output'"),
        (["results", "a", "b"], "'b' is one argument too many"),
        (["list", "--older-than", "2"], "not a duration"),
        (["submit"], "required: FILE"),
        (["submit", "a", "--priority", "high"], "invalid int value: 'high'"),
        (["validate", "a", "b"], "'b' is one argument too many"),
        (["split", "a", "--max-rows", "0"], "1 or more"),
        (["cancel", "a", "--max-concurrency", "0"], "1 or more"),
        (["get", "a", "--timeout", "nan"], "above zero"),
        (["get", "a", "--api-key", "secret"], "no option --api-key;"),
        (["cancel", "--api-key=secret"], "no option --api-key;"),
    ],
)
def test_refusals(argv: list[str], expected: str) -> None:
    """An unknown option, a shortened one, a stray argument or a bad value is an error that points to the help."""
    with pytest.raises(CommandError) as caught:
        parse(argv)
    assert expected in str(caught.value)
    assert str(caught.value).endswith("--help")
    assert "secret" not in str(caught.value)
    assert Exit.USAGE is caught.value.code


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_leads_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every help ends well, and begins with examples that may be typed as they stand, on lines of 80 letters."""
    with pytest.raises(SystemExit) as caught:
        parse([*command.split(), "--help"])
    assert not caught.value.code
    told = capsys.readouterr().out
    assert -1 < told.index("examples:") < told.index(f"together-batches {command}".strip(), told.index("examples:"))
    assert told.index("examples:") < told.index("options")
    examples = build_parser().commands[command].description if command else build_parser().description
    assert examples is not None
    assert all(len(line) <= 80 for line in examples.splitlines())


@pytest.mark.parametrize("command", ["cancel", "list", "get"])
def test_help_says_where_the_key_is_read(command: str) -> None:
    """The key has no option, and the help says what it has instead."""
    assert "TOGETHER_API_KEY" in (build_parser().commands[command].description or "")


def test_commands_of_the_help_are_those_there_are() -> None:
    """The list in the help and the parsers behind it cannot drift apart."""
    top = build_parser()
    (listed,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    assert COMMANDS == list(top.commands) == list(listed.choices)


@pytest.mark.parametrize(("group", "verbs"), [("files", FILES), ("runs", ["show"])])
def test_help_of_a_group(capsys: pytest.CaptureFixture[str], group: str, verbs: list[str]) -> None:
    """What may follow `files` or `runs` is told by its help, with a word about each."""
    with pytest.raises(SystemExit) as caught:
        parse([group, "--help"])
    assert not caught.value.code
    told = capsys.readouterr().out
    assert all(f"    {verb} " in told for verb in verbs)


@pytest.mark.parametrize("argv", [["files"], ["files", "burn"], ["files", "burn", "--help"]])
def test_a_group_without_a_verb_of_its_own(argv: list[str]) -> None:
    """`files` alone, or with what is none of its verbs, is told what there is."""
    with pytest.raises(CommandError, match=r"together-batches files --help"):
        parse(argv)
