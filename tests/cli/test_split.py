"""The command ``split``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from together_batches import jsonl

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]

LINES = [jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in "abcde"]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a file of five requests in the working directory of the command."""
    monkeypatch.chdir(tmp_path)
    Path("all.jsonl").write_bytes(b"".join(LINES))
    return "all.jsonl"


def test_files_here(run: Run, source: str) -> None:
    """The paths of the files are on standard output, in order, and their number on standard error."""
    ran = run("split", source, "--max-rows", "2")
    assert ran == (0, "all-001.jsonl\nall-002.jsonl\nall-003.jsonl\n", "3 files in .\n")
    assert [Path(path).read_bytes() for path in ran.lines] == [
        LINES[0] + LINES[1],
        LINES[2] + LINES[3],
        LINES[4],
    ]


def test_files_elsewhere(run: Run, source: str) -> None:
    """The output directory is created if necessary; --json prints the files as objects."""
    ran = run("split", source, "-o", "in/pieces", "--max-bytes", str(len(LINES[0]) * 4), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [json.loads(line) for line in ran.lines] == [
        {"path": str(Path("in/pieces/all-001.jsonl")), "bytes": len(LINES[0]) * 4},
        {"path": str(Path("in/pieces/all-002.jsonl")), "bytes": len(LINES[0])},
    ]


def test_one_file_is_enough(run: Run, source: str) -> None:
    """Requests within the limits of the service are written to one file."""
    assert run("split", source, "-o", "pieces") == (0, f"{Path('pieces/all-001.jsonl')}\n", "1 file in pieces\n")


def test_standard_input(run: Run, source: str, feed: Callable[..., None]) -> None:
    """The pieces of standard input, which has no name, are called requests."""
    feed(LINES[0])
    assert run("split", "-").out == "requests-001.jsonl\n"


def test_what_cannot_be_split(run: Run, source: str) -> None:
    """A problem in the input, existing pieces or a missing file is an error, and nothing is written."""
    Path("bad.jsonl").write_bytes(LINES[0] + LINES[0])
    ran = run("split", "bad.jsonl")
    assert (ran.code, ran.out) == (1, "")
    assert "bad.jsonl: 1 problem: line 2 " in ran.err
    assert run("split", "nowhere.jsonl").code == 2
    assert run("split", source, "--endpoint", "/v1/audio/translations").code == 1
    assert sorted(path.name for path in Path().iterdir()) == ["all.jsonl", "bad.jsonl"]
    assert run("split", source).code == 0
    ran = run("split", source)
    assert ran.code == 2
    assert "all-001.jsonl exists already" in ran.err
