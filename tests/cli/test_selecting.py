"""The choice of jobs for a cancel."""

from __future__ import annotations

import io
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._exits import CommandError, Interrupted
from together_batches.cli._selecting import by_status, confirmed, ids_or_input, read_ids
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "no jobs are given"),
        (["--wait", "--yes"], "no jobs are given"),
        (["a", "--all"], "ids or filters, not both"),
        (["-", "--status", "X"], "ids or filters, not both"),
        (["-", "a"], "beside ids"),
        (["-", "-"], "beside ids"),
    ],
)
def test_no_jobs_or_jobs_twice(run: Callable[..., Ran], argv: list[str], expected: str) -> None:
    """Exactly one of ids, standard input and filters must be given; the error states what to do."""
    ran = run("cancel", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("filters", [["--all", "--model", "m"], ["--status", "FAILED"], ["--older-than", "0s"]])
def test_every_filter_alone_is_enough(run: Callable[..., Ran], filters: list[str]) -> None:
    """Each filter is sufficient alone, even if it selects all jobs."""
    assert run("cancel", *filters, "--dry-run").err == "no job matches; there is nothing to cancel\n"


def test_reading_ids() -> None:
    """Windows line ends, blank lines, comments, a byte order mark and columns after a tab are not part of an id."""
    text = "\ufeffone\r\n\r\n  # not this\n two \nthree\tcancelled\tCANCELLED\n\nfür\u2028vier\nlast"
    assert list(read_ids(io.BytesIO(text.encode()))) == ["one", "two", "three", "für\u2028vier", "last"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": "one", "status": "X"}\r\n{"job_id": "two"}\nthree\n', ["one", "two", "three"]),
        ('"one"\n"two"\n', ["one", "two"]),
        ('[{"id": "one"},\n{"id": "two", "error": "[1]"}]\nthree', ["one", "two", "three"]),
        ('["one", " two\\n"]', ["one", "two"]),
        ('{\n  "id": "one",\n  "x": [\n  ]\n}\n{\n  "id": "two"\n}\n# three', ["one", "two"]),
        ('{"id": "one"} {"job_id": "two"}["three"]\n', ["one", "two", "three"]),
        ('[["one"], [[{"id": "two"}]], []]', ["one", "two"]),
        ("[]", []),
        ("\ufeff[]\n", []),
    ],
)
def test_reading_json(text: str, expected: list[str]) -> None:
    """Ids are read from JSON texts, arrays and objects, as --json and jq print them, over any number of lines."""
    assert list(read_ids(io.BytesIO(text.encode()))) == expected


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1}',
        b'{"name": "x"}',
        b"{",
        b"{" * 100_000,
        b"[" * 100_000,
        b'["a", 7]',
        b"[null]",
        b'"a", "b"',
        b'"a",',
        b'"  "',
        b'"a" b',
        b'"a',
        b"null",
    ],
    ids=lambda line: line[:20],
)
def test_no_id_in_json(line: bytes) -> None:
    """A line that looks like JSON without an id is an error that names the line."""
    with pytest.raises(CommandError, match="line 2 of standard input"):
        list(read_ids(io.BytesIO(b"fine\n" + line)))


@pytest.mark.parametrize("content", ["one\n{\n}\nbad id\n", '{"id":\n "x"\n}\n\nbad id'])
def test_lines_are_counted_over_json(content: str) -> None:
    """An error after JSON over several lines names the line of the file."""
    with pytest.raises(CommandError, match=r"line (2|5) of standard input"):
        list(read_ids(io.BytesIO(content.encode())))


@pytest.mark.parametrize(("line", "name"), [("one,two", "a comma"), ("one, two", "a comma"), ("one two", "a blank")])
def test_several_ids_on_a_line(line: str, name: str) -> None:
    """Several ids on a line are refused, because the whole line is the id of no job."""
    with pytest.raises(
        CommandError, match=f"line 1 of standard input has {name} in it .* each id on a line of its own"
    ):
        list(read_ids(io.BytesIO(line.encode())))


def test_undecodable_line() -> None:
    """Bytes that are not UTF-8 are an error that names the line."""
    with pytest.raises(CommandError, match="line 3 of standard input is not UTF-8"):
        list(read_ids(io.BytesIO(b"one\ntwo\n\xff\xfe\n")))


def test_by_status() -> None:
    """Jobs are counted by status, the most frequent first, including jobs without a status."""
    jobs = [BatchJob(id=str(n), status=status) for n, status in enumerate(["A", "B", "B", None])]
    assert by_status(jobs) == "2 B, 1 A, 1 without a status"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("y\n", True), ("YES \n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)],
)
def test_asking(
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    answer: str,
    expected: bool,
) -> None:
    """The prompt is on standard error, accepts only a clear yes, and restores the handler of Ctrl-C."""
    feed(answer.encode(), terminal=True)
    on_terminal("stderr")
    before = signal.getsignal(signal.SIGINT)
    assert expected is confirmed(40, yes=False)
    assert before is signal.getsignal(signal.SIGINT)
    assert capsys.readouterr() == ("", "Cancel 40 jobs? [y/N] ")


@pytest.mark.parametrize("terminals", [(), ("stdin",), ("stderr",)])
def test_no_terminal_for_a_prompt(
    feed: Callable[..., None], on_terminal: Callable[..., None], terminals: tuple[str, ...]
) -> None:
    """--yes is required if the prompt cannot be seen or answered."""
    feed(b"y\n", terminal="stdin" in terminals)
    on_terminal(*(name for name in terminals if name == "stderr"))
    with pytest.raises(CommandError, match="--yes"):
        confirmed(1, yes=False)
    assert confirmed(1, yes=True)


def test_interrupt_at_the_prompt(
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C at the prompt interrupts the read without a KeyboardInterrupt, which would break up a task."""
    feed(b"", terminal=True)
    on_terminal("stderr")
    monkeypatch.setattr(sys.stdin, "readline", lambda: signal.raise_signal(signal.SIGINT), raising=False)
    with pytest.raises(Interrupted):
        confirmed(1, yes=False)
    assert capsys.readouterr().err == "Cancel 1 job? [y/N] \n"


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids from a closed standard input are an error."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CommandError, match="closed"):
        ids_or_input(["-"])


def test_typed_ids(feed: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """If ids are typed on a terminal, a message states how the list ends."""
    feed(b"a\nb\na\n", terminal=True)
    assert ids_or_input(["-"]) == ["a", "b"]
    assert "Ctrl-D" in capsys.readouterr().err
