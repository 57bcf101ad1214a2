"""The commands ``runs …``."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import attrs
import pytest

from together_batches import jsonl, runs, to_dict
from together_batches.cli._commands.runs import show
from together_batches.emulator import Emulator, Timing
from together_batches.runs._ledger import NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished run with three rows in two jobs."""
    from together_batches import Batches

    here = tmp_path_factory.mktemp("finished")
    rows = [jsonl.chat_request(name, model="m", messages=[]) for name in "abc"]
    jsonl.write(rows, here / "requests.jsonl")
    with (
        Emulator(timing=Timing(validating=0, running=0)).running_in_thread() as emulator,
        Batches(str(emulator.api_key), base_url=emulator.base_url) as batches,
    ):
        batches.run(here / "requests.jsonl", here / "answers.jsonl", max_rows_per_job=2, poll_interval=0.02)
    return here / "answers.jsonl.run"


def test_lines(run: Run, finished: Path) -> None:
    """In a pipe, each attempt is a line with tabs between its columns."""
    ran = run("runs", "show", str(finished))
    view = runs.read(finished)
    first, second = (shard.attempts[0] for shard in view.shards)
    counts = ["0", "0", "0"]
    files = [[item.job_id, item.file_id, item.output_file_id, "-", "-"] for item in (first, second)]
    assert [line.split("\t") for line in ran.lines] == [
        ["1", "1", "2", "collected", "COMPLETED", "2", *counts, *files[0]],
        ["2", "1", "1", "collected", "COMPLETED", "1", *counts, *files[1]],
    ]
    assert (ran.code, ran.err) == (0, "requests.jsonl: finished: 3 answered\n")


def test_json(run: Run, finished: Path) -> None:
    """--json prints every field."""
    ran = run("runs", "show", str(finished), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == json.loads(json.dumps(to_dict(runs.read(finished))))


def test_on_a_terminal(run: Run, finished: Path, on_terminal: Callable[..., None]) -> None:
    """On a terminal, the run is drawn."""
    on_terminal("stdout")
    ran = run("runs", "show", str(finished))
    assert (ran.code, ran.err) == (0, "")
    assert "requests.jsonl: finished" in ran.lines[0]
    assert any(line.startswith("    2  ") and line.endswith("all 1") for line in ran.lines)


def test_files(run: Run, finished: Path, tmp_path: Path) -> None:
    """The picture is written as SVG and in an HTML page, and existing files are not replaced."""
    svg, html = tmp_path / "run.svg", tmp_path / "run.html"
    ran = run("runs", "show", str(finished), "--svg", str(svg), "--html", str(html))
    assert ran == (0, "", f"the picture is in {svg}\nthe picture is in {html}\n")
    assert ElementTree.fromstring(svg.read_text("utf-8")).tag == "{http://www.w3.org/2000/svg}svg"
    assert html.read_text("utf-8").startswith("<!DOCTYPE html>")
    svg.write_text("mine")
    ran = run("runs", "show", str(finished), "--svg", str(svg))
    assert (ran.code, svg.read_text()) == (2, "mine")
    assert f"{svg} exists already; --overwrite replaces it" in ran.err
    assert run("runs", "show", str(finished), "--svg", str(svg), "--overwrite", "--json").code == 0
    assert svg.read_text("utf-8").startswith("<svg")
    assert run("runs", "show", str(finished), "--html", str(tmp_path)).code == 2
    assert run("runs", "show", str(finished), "--html", str(tmp_path / "no" / "run.html")).code == 2


def test_where_there_is_no_run(run: Run, tmp_path: Path) -> None:
    """A directory without a run is a usage error."""
    ran = run("runs", "show", str(tmp_path / "nowhere"))
    assert (ran.code, ran.out) == (2, "")
    assert f"there is no directory {tmp_path / 'nowhere'}; name that of a run" in ran.err
    ran = run("runs", "show", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert f"there is no run in {tmp_path}; name that of a run" in ran.err


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0"])
def test_a_ledger_that_cannot_be_read(run: Run, tmp_path: Path, content: bytes) -> None:
    """An unreadable ledger is an error in one sentence, and is not taken for an empty one."""
    (tmp_path / NAME).write_bytes(content)
    ran = run("runs", "show", str(tmp_path))
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert str(tmp_path) in ran.err


def test_a_newer_version(run: Run, finished: Path, tmp_path: Path) -> None:
    """A ledger of a newer version is refused."""
    newer = tmp_path / NAME
    newer.write_bytes((finished / NAME).read_bytes())
    ledger = sqlite3.connect(newer)
    ledger.execute("PRAGMA user_version = 999")
    ledger.close()
    ran = run("runs", "show", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "newer version" in ran.err


def test_watch(run: Run, finished: Path, on_terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch redraws the run until it has finished."""
    on_terminal("stdout")
    monkeypatch.setattr(show, "_SECONDS_BETWEEN_FRAMES", 0)
    last = runs.read(finished)
    views = iter([attrs.evolve(last, state="running"), attrs.evolve(last, state="interrupted"), last])
    monkeypatch.setattr(runs, "read", lambda _: next(views))
    ran = run("runs", "show", str(finished), "--watch")
    assert (ran.code, ran.err) == (0, "")
    assert list(dict.fromkeys(re.findall(r"requests.jsonl: (\w+)", ran.out))) == [
        "running",
        "interrupted",
        "finished",
    ]
    assert list(views) == []


def test_watch_as_json(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch --json prints a line after each change."""
    monkeypatch.setattr(show, "_SECONDS_BETWEEN_FRAMES", 0)
    last = runs.read(finished)
    running = attrs.evolve(last, state="running")
    views = iter([running, running, last])
    monkeypatch.setattr(runs, "read", lambda _: next(views))
    ran = run("runs", "show", str(finished), "--watch", "--json")
    assert [json.loads(line)["state"] for line in ran.lines] == ["running", "finished"]


def test_watch_until_ctrl_c(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is a normal end of --watch."""

    def read(_: Path) -> runs.RunView:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "read", read)
    assert run("runs", "show", str(finished), "--watch", "--json") == (0, "", "")


def test_where_nothing_can_be_watched(run: Run, finished: Path, tmp_path: Path) -> None:
    """If a run cannot be watched, the error states the reason."""
    assert "--watch needs a terminal to draw on" in run("runs", "show", str(finished), "--watch").err
    ran = run("runs", "show", str(finished), "--watch", "--svg", str(tmp_path / "run.svg"))
    assert ran.code == 2
    assert not (tmp_path / "run.svg").exists()
