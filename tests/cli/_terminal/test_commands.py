"""The command line: options and arguments, help, usage errors and completion."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import pytest

from together_batches.cli import COMMANDS
from together_batches.cli._commands.cancel.command import cancel

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]

KEEPING = {"label", "login", "logout", "profiles"}
NAMES = [name for name, _ in COMMANDS.summaries()]
TALKING = [
    name for name in NAMES if name.split()[0] not in {"demo", "emulator", "validate", "split", "runs", *KEEPING}
]


def test_ids_and_options_in_any_order(run: Run) -> None:
    """Ids and options may be mixed; every argument after -- is an id."""
    assert run("cancel", "a", "--dry-run", "b", "--rate", "2", "--", "--c", "-1").lines == ["a", "b", "--c", "-1"]


def test_values() -> None:
    """Options are converted to values."""
    options = ["--older-than", "1h30m", "--status", "A", "--status", "B", "--timeout", "0.5"]
    params = cancel.make_context("cancel", options).params
    assert (timedelta(minutes=90),) == params["created_before"]
    assert params["status"] == ("A", "B")
    assert params["timeout"] == 0.5


def test_a_value_may_begin_with_a_dash(run: Run) -> None:
    """A number below zero is accepted as the value of an option."""
    assert "invalid --rate: '-1' is not a number above zero" in run("cancel", "a", "--rate", "-1").err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "no command given"),
        (["frobnicate"], "there is no command 'frobnicate';"),
        (["--json"], "there is no option --json "),
        (["list", "--frobnicate"], "there is no option --frobnicate;"),
        (["list", "stray"], "'stray' is one argument too many"),
        (["demo", "stray"], "'stray' is one argument too many"),
        (["list", "--stat", "X"], "there is no option --stat "),
        (["list", "-"], "'-' is one argument too many"),
        (["list", "--status"], "--status needs a value"),
        (["cancel", "--status", "--yes"], "--status needs a value"),
        (["list", "--json=yes"], "--json takes no value"),
        (["get"], "missing ID"),
        (["results", "a", "--order", "output"], "invalid --order: 'output' is not one of 'file', 'input'"),
        (["results", "a", "b"], "'b' is one argument too many"),
        (["list", "--older-than", "2"], "not a duration"),
        (["submit"], "missing FILE"),
        (["submit", "a", "--priority", "high"], "invalid --priority: 'high' is not a whole number"),
        (["validate", "a", "b"], "'b' is one argument too many"),
        (["split", "a", "--max-rows", "0"], "1 or more"),
        (["cancel", "a", "--max-concurrency", "0"], "1 or more"),
        (["get", "a", "--timeout", "nan"], "above zero"),
        (["get", "a", "--api-key", "secret"], "there is no option --api-key;"),
        (["cancel", "--api-key=secret"], "there is no option --api-key;"),
        (["cancel", "-ksecret"], "there is no option -k;"),
        (["files"], "no command given; see together-batches files --help"),
        (["files", "burn"], "there is no command 'burn'"),
        (["files", "burn", "--help"], "there is no command 'burn'"),
    ],
)
def test_usage_errors(run: Run, argv: list[str], expected: str) -> None:
    """An unknown or shortened option, a stray argument or an invalid value is one line that points to the help."""
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert ran.err.endswith("--help\n")
    assert ran.err.count("\n") == 1
    assert "secret" not in ran.err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["lst"], "did you mean list?"),
        (["files", "downlod"], "did you mean download?"),
        (["list", "--jsn"], "did you mean --json?"),
        (["run", "--max-row-per-job", "3"], "did you mean --max-rows-per-job"),
    ],
)
def test_did_you_mean(run: Run, argv: list[str], expected: str) -> None:
    """A mistyped command or option is an error that names the nearest one."""
    assert expected in run(*argv).err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["results", "a", "--force"], "--force is now --overwrite;"),
        (["files", "download", "a", "--force"], "--force is now --overwrite;"),
        (["runs", "show", "a", "--force"], "--force is now --overwrite;"),
        (["run", "a", "-o", "b", "--force"], "--force is now --overwrite;"),
        (["run", "a", "-o", "b", "--max-rows", "3"], "--max-rows is now --max-rows-per-job;"),
        (["cancel", "a", "--deadline", "3"], "--deadline is now --timeout;"),
        (["list", "--force"], "there is no option --force "),
    ],
)
def test_old_names(run: Run, argv: list[str], expected: str) -> None:
    """An option that was renamed is an error that names the new one."""
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


@pytest.mark.parametrize("command", ["", "files", "runs", *NAMES])
def test_help_leads_with_examples(run: Run, command: str) -> None:
    """Every help text begins with examples that can be typed unchanged, on lines of at most 80 characters."""
    ran = run(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: together-batches {command}".rstrip())
    examples = ran.out.index("examples:\n")
    assert examples < ran.out.index(f"together-batches {command}".strip(), examples) < ran.out.index("Options:")
    assert all(len(line) <= 80 for line in ran.lines)


@pytest.mark.parametrize("command", NAMES)
def test_help_says_where_the_key_is_read(run: Run, command: str) -> None:
    """The help of each command that needs a key names its environment variable, because the key has no option."""
    assert ("TOGETHER_API_KEY" in run(*command.split(), "--help").out) is (command in TALKING)


@pytest.mark.parametrize("command", NAMES)
def test_help_fits_a_narrow_terminal(
    run: Run, command: str, monkeypatch: pytest.MonkeyPatch, on_terminal: Callable[..., None]
) -> None:
    """On a narrow terminal no line of the help is wider than it, but for a long word, and no word is missing."""
    as_written = run(*command.split(), "--help").out
    monkeypatch.setenv("COLUMNS", "40")
    on_terminal("stdout")
    narrow = run(*command.split(), "--help").out
    assert re.sub(r"\s", "", narrow) == re.sub(r"\s", "", as_written)
    assert not [line for line in narrow.splitlines() if len(line) > 40 and len(line.split()) > 1]


def test_the_help_lists_every_command(run: Run) -> None:
    """The help lists every command with its summary, those of groups by their full names; -h is --help."""
    text = run("-h").out
    assert all(f"  {name}  " in text for name in NAMES)
    assert all(
        f"  {verb}  " in run("files", "--help").out for verb in ("upload", "list", "get", "download", "delete")
    )


@pytest.mark.parametrize("command", NAMES)
def test_every_option_is_explained(command: str) -> None:
    """Each option and argument has a line in the help."""
    assert all(
        param.help for param in command_named(command).params if isinstance(param, click.Option | click.Argument)
    )


def command_named(words: str) -> click.Command:
    found: click.Command = COMMANDS
    for word in words.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word) or pytest.fail(f"no command {words}")
    return found


# --- completion


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return the completions that bash gets at the end of a line."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        ran = run()
        assert (ran.code, ran.err) == (0, "")
        return list(filter(None, ran.lines))

    return complete


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("together-batches c", ["plain,cancel"]),
        ("together-batches files d", ["plain,download", "plain,delete"]),
        ("together-batches list --new", ["plain,--newer-than"]),
        ("together-batches list --status c", ["plain,CANCELING", "plain,COMPLETED", "plain,CANCELLED"]),
        ("together-batches results ID --order in", ["plain,input"]),
        ("together-batches submit req", ["file,req"]),
        ("together-batches run a.jsonl -o ans", ["file,ans"]),
        ("together-batches runs show ans", ["dir,ans"]),
        ("together-batches cancel ", []),
    ],
)
def test_completion(complete: Callable[[str], list[str]], line: str, expected: list[str]) -> None:
    """Commands, options, statuses and choices are completed; paths are left to the shell."""
    assert complete(line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """Each shell gets a script that calls the command for its completions."""
    monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", f"{shell}_source")
    ran = run()
    assert ran.code == 0
    assert f"_TOGETHER_BATCHES_COMPLETE={shell}_complete" in ran.out


def test_completion_in_fish(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions stand beside the commands, groups included; the script cuts none of them at a comma."""
    monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "together-batches r")
    monkeypatch.setenv("COMP_CWORD", "r")
    assert run().lines == [
        "plain,results\twrite the result of each row of a finished job",
        "plain,run\tget every answer to a file of any size; run it again to resume",
        "plain,runs\tlook at durable runs",
    ]
    monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", "fish_source")
    assert 'string split --max 1 "," $completion' in run().out
