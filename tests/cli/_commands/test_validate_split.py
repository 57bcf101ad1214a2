"""The commands ``validate`` and ``split``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from together_batches import jsonl

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]

GOOD = b"".join(jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in "ab")
BAD = b'{"custom_id": "a\\u001b"}\n\n' + GOOD[:-1] + b"}\n"


def test_a_good_file(run: Run, tmp_path: Path) -> None:
    """A valid file prints nothing on standard output, and a summary on standard error."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(GOOD)
    assert run("validate", str(file)) == (0, "", f"{file}: 2 rows, {len(GOOD)} bytes, no problems\n")


def test_every_problem(run: Run, tmp_path: Path) -> None:
    """Every problem is a line with its position, without control characters."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(BAD)
    ran = run("validate", str(file))
    assert ran.code == 1
    assert ran.lines[:2] == ["1\ta\\x1b\tbody is missing", "2\t-\tthe line is blank"]
    assert [line.split("\t")[:2] for line in ran.lines[2:]] == [["4", "-"]]
    assert ran.err == f"{file}: 3 rows, {len(BAD)} bytes, 3 problems\n"


def test_json(run: Run, tmp_path: Path) -> None:
    """--json prints one object with every problem, and nothing else."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(BAD)
    ran = run("validate", str(file), "--json")
    assert (ran.code, ran.err, len(ran.lines)) == (1, "", 1)
    decoded = json.loads(ran.out)
    problems = decoded.pop("problems")
    assert decoded == {
        "source": str(file),
        "ok": False,
        "rows": 3,
        "bytes": len(BAD),
        "models": {"m": 1},
        "problem_count": 3,
    }
    assert problems[0] == {"line": 1, "offset": 0, "custom_id": "a\x1b", "message": "body is missing"}


def test_more_problems_than_anybody_reads(run: Run, tmp_path: Path) -> None:
    """Only the first thousand problems are printed, with the total; those of the whole file have no line number."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"\n" * 1200)
    ran = run("validate", str(file))
    assert len(ran.lines) == 1000
    assert ran.err.endswith("1 200 problems; the first 1 000 are listed\n")
    file.write_bytes(b"\0")
    assert run("validate", str(file)).out.startswith("-\t-\tthe file holds zero bytes")


def test_the_endpoint(run: Run, tmp_path: Path) -> None:
    """The endpoint determines what a valid request is."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(GOOD)
    ran = run("validate", str(file), "--endpoint", "/v1/audio/transcriptions")
    assert (ran.code, ran.lines[0]) == (1, '1\ta\tmethod is missing; for audio it must be "FILE"')
    assert run("validate", str(file), "--endpoint", "audio").code == 2


def test_standard_input(run: Run, feed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is read for ``-``; on a terminal a message asks the user to type."""
    feed(GOOD)
    assert run("validate", "-") == (0, "", f"the file: 2 rows, {len(GOOD)} bytes, no problems\n")
    feed(GOOD, terminal=True)
    assert run("validate", "-").err.startswith("one request a line, as JSON; Ctrl-D ends them\n")
    monkeypatch.setattr(sys, "stdin", None)
    assert run("validate", "-").err.endswith("requests are to come from standard input, and it is closed\n")


@pytest.mark.parametrize(("name", "expected"), [("nowhere", "there is no such file"), (".", "it is a directory")])
def test_a_file_that_is_none(run: Run, tmp_path: Path, name: str, expected: str) -> None:
    """A file that does not exist, or is a directory, is a usage error that names it."""
    ran = run("validate", str(tmp_path / name))
    assert (ran.code, ran.out) == (2, "")
    assert f"cannot read {tmp_path / name}: {expected}" in ran.err


# --- split


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


def test_standard_input_split(run: Run, source: str, feed: Callable[..., None]) -> None:
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
