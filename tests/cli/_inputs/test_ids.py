"""Ids as arguments and from standard input."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._inputs.ids import ids_or_input, read_ids
from together_batches.cli._terminal.exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable


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
