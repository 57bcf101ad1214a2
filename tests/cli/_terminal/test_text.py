"""Text on standard streams."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._terminal.text import (
    as_json,
    block,
    can_redraw,
    format_time,
    in_ascii,
    is_terminal,
    print_err,
    print_error,
    terminal,
)
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from pathlib import Path


def test_json_is_ascii_on_one_line() -> None:
    """JSON keeps the text exactly, without characters that a terminal or an encoding cannot handle."""
    value = {"id": "\x1b\u202eü\n"}
    assert as_json(value).isascii()
    assert "\n" not in as_json(value)
    assert value == json.loads(as_json(value))


def test_json_that_is_there_already() -> None:
    """Existing JSON becomes ASCII with an equal value."""
    line = '{"x": "caf\u00e9 \U0001f600 \u2028", "y": 1E400, "z": "\\\\ud83d"}'.encode()
    text = in_ascii(line)
    assert text.isascii()
    assert json.loads(text) == json.loads(line)
    assert "1E400" in text
    assert in_ascii(b'{"x": 1.50}') == '{"x": 1.50}'


def test_times() -> None:
    """Times are in UTC and in whole seconds."""
    assert format_time(datetime(2026, 9, 14, 10, 20, 30, 481925, tzinfo=UTC)) == "2026-09-14T10:20:30Z"
    assert format_time(None) == "-"


@pytest.mark.parametrize(("columns", "width"), [("132", 132), ("0", 80), ("wide", 80), ("", 80)])
def test_width_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, width: int
) -> None:
    """COLUMNS overrides the width of a terminal; one of unknown width has 80."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert terminal(sys.stdout) == (width, "…")


def test_without_a_terminal_everything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe or a file nothing is cut, whatever COLUMNS says; an encoding without an ellipsis gets three dots."""
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal(io.TextIOWrapper(io.BytesIO(), "ascii")) == (10_000, "...")


def test_messages_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Any message is written as one harmless line on standard error."""
    print_error("bad\x1b[2J\n")
    assert capsys.readouterr() == ("", "together-batches: error: bad\\x1b[2J\\n\n")


def test_messages_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal gets a message in lines that end between words; a word that is longer than a line is kept whole."""
    monkeypatch.setenv("COLUMNS", "20")
    print_err("in a pipe a message is one line")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    print_err("it goes on with cancel --resume stopped-in-november.csv")
    print_err("  3 jobs that were labelled")
    assert capsys.readouterr().err.splitlines() == [
        "in a pipe a message is one line",
        *("it goes on with", "cancel --resume", "stopped-in-november.csv"),
        *("  3 jobs that were", "  labelled"),
    ]


def test_a_block_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A value for which its line has no room is on the next line, so that an id is not broken."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    job = BatchJob(id="d67e55fd-642b-4a42-aef9-c00b8a64c1b9", status=BatchJobStatus.FAILED)
    assert block(job) == f"id\n{job.id}\nstatus  FAILED\n"


def test_messages_come_after_what_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message comes after the data that was printed before it, if both streams go to one place."""
    place = tmp_path / "out"
    with place.open("a") as stdout, place.open("a") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        print("data")
        print_err("done")
    assert place.read_text() == "data\ndone\n"


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard stream that was closed from the start is not a terminal, and messages to it are dropped."""
    monkeypatch.setattr(sys, "stderr", None)
    print_err("to a closed stream")
    assert not is_terminal(None)
    assert terminal(None) == (10_000, "...")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"TERM": "dumb"}, False), ({"CI": "true"}, False), ({"NO_COLOR": "1"}, True)],
)
def test_where_a_bar_is_drawn(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool) -> None:
    """A bar needs a capable terminal that is not a build server's; NO_COLOR does not disable it."""
    stream = io.StringIO()
    for name in ("CI", "TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not can_redraw(stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert expected is can_redraw(stream)
