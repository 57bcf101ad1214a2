"""The command ``runs list``."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import pytest

from together_batches.runs._ledger import NAME, create
from together_batches.runs._lock import locked
from together_batches.runs._records import Run, Shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ran

    Command = Callable[..., Ran]

BEGAN = datetime(2026, 9, 14, 10, 20, 30, tzinfo=UTC)
RUN = Run(
    id="0",
    input_name="requests.jsonl",
    input_bytes=100,
    input_sha256="0" * 64,
    spooled=False,
    endpoint="/v1/chat/completions",
    model_id=None,
    priority=None,
    max_attempts=3,
    invalid=1,
    started_at=BEGAN,
)
SHARD = Shard(number=1, first_line=1, rows=3, offset=0, size=100, sha256="0" * 64)


def make_run(directory: Path, **facts: object) -> None:
    directory.mkdir(parents=True)
    with locked(directory):
        create(directory, attrs.evolve(RUN, **facts), [SHARD])


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an interrupted run and one that is finished, and go there."""
    make_run(tmp_path / "a.jsonl.run")
    make_run(tmp_path / "deep" / "er" / "b.jsonl.run", finished_at=BEGAN.replace(hour=12))
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_a_pipe(run: Command, two_runs: Path) -> None:
    """Each run below the current directory is a line; those that are finished come last."""
    ran = run("runs", "list")
    assert (ran.code, ran.err) == (0, "")
    start, noted = "2026-09-14T10:20:30Z", "2026-09-14T12:20:30Z"
    assert [line.split("\t") for line in ran.lines] == [
        ["a.jsonl.run", "interrupted", "4", "0", "1", "0", "3", "0", start, start, "-", "requests.jsonl"],
        ["deep/er/b.jsonl.run", "finished", "4", "0", "1", "0", "3", "0", start, noted, noted, "requests.jsonl"],
    ]


def test_one_that_is_running(run: Command, two_runs: Path) -> None:
    """A run that a process holds is running, and comes first."""
    with locked(two_runs / "deep" / "er" / "b.jsonl.run"):
        first, second = run("runs", "list", "--columns", "directory,state,process").lines
    assert first.startswith("deep/er/b.jsonl.run\trunning\t")
    assert second == "a.jsonl.run\tinterrupted\t-"


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_on_a_terminal(
    run: Command,
    two_runs: Path,
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    """On a terminal the runs are a table, in which the directories are never cut."""
    on_terminal("stdout")
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("runs", "list").lines
    assert lines[0].split()[0] == "DIRECTORY"
    assert "deep/er/b.jsonl.run" in " ".join(lines).split()
    assert all(len(line) <= max(columns, len("deep/er/b.jsonl.run")) for line in lines)


def test_json(run: Command, two_runs: Path) -> None:
    """--json prints an array with all that is known, but the shards."""
    first, second = json.loads(run("runs", "list", str(two_runs), "--json").out)
    assert (first["state"], second["finished_at"]) == ("interrupted", "2026-09-14T12:20:30Z")
    assert (first["jobs_in_progress"], "shards" in first) == (0, False)


def test_another_directory(run: Command, two_runs: Path) -> None:
    """The directory may be that of a run, or have none; hidden ones are not searched."""
    assert len(run("runs", "list", "deep/er/b.jsonl.run").lines) == 1
    assert run("runs", "list", "none") == (0, "", "no run was found in none\n")
    assert run("runs", "list", "nowhere") == (2, "", "together-batches: error: there is no directory nowhere\n")
    shutil.move("deep", ".deep")
    assert len(run("runs", "list").lines) == 1


def test_one_that_cannot_be_read(run: Command, two_runs: Path) -> None:
    """A damaged run is named, and the others are listed; a database of other programs is no run."""
    (two_runs / "a.jsonl.run" / NAME).write_bytes(b"damaged")
    sqlite3.connect(two_runs / "none" / NAME).close()
    ran = run("runs", "list", "--sort", "-rows", "--limit", "1")
    assert (ran.code, len(ran.lines)) == (5, 1)
    assert "a.jsonl.run" in ran.err
    assert "none" not in ran.err
