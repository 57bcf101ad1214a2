"""The command ``results``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]

BODY = {
    "choices": [{"message": {"content": "Größe\u2028"}}],
    "usage": {"prompt_tokens": 2_000, "completion_tokens": 500, "total_tokens": 2_500},
}


def line(custom_id: str, **fields: object) -> bytes:
    fields = fields or {"response": {"status_code": 200, "body": BODY}}
    return json.dumps({"custom_id": custom_id, **fields}).encode() + b"\n"


@pytest.fixture
def job_id(emulator: Emulator) -> str:
    """Return the id of a completed job whose rows were all answered."""
    return emulator.add_job(status="COMPLETED", output_file_id=emulator.add_file(line("b") + line("a")))


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """Return a file of three requests, one of which is missing in the output."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"".join(line(name, body={"model": "m"}) for name in "abc"))
    return str(file)


def rows(text: str) -> list[tuple[str, str]]:
    return [(row["result"], row["custom_id"]) for row in map(json.loads, text.split("\n")[:-1])]


def test_rows_on_standard_output(run: Run, job_id: str) -> None:
    """Rows are printed as one object a line, in ASCII, and counts on standard error."""
    ran = run("results", job_id)
    assert ran.code == 0
    assert ran.out.isascii()
    assert json.loads(ran.lines[0]) == {"custom_id": "b", "result": "success", "status_code": 200, "body": BODY}
    assert rows(ran.out) == [("success", "b"), ("success", "a")]
    assert ran.err == "2 answered; 5 000 tokens (4 000 in, 1 000 out)\n"
    assert run("results", job_id, "--json").out == ran.out
    assert run("results", job_id, "--quiet").err == ""


def test_rows_with_their_texts(run: Run, job_id: str, tmp_path: Path) -> None:
    """With --text each line has the text of its answer, on standard output and in a file."""
    ran = run("results", job_id, "--text")
    assert [json.loads(line)["text"] for line in ran.lines] == ["Größe\u2028"] * 2
    assert ran.out.isascii()
    run("results", job_id, "--text", "-o", str(tmp_path / "results.jsonl"))
    assert [json.loads(line)["text"] for line in (tmp_path / "results.jsonl").read_bytes().splitlines()] == [
        "Größe\u2028"
    ] * 2


def test_rows_in_a_file(run: Run, job_id: str, tmp_path: Path) -> None:
    """Rows are written to a file in the service's order, with no other file beside it; --json prints the counts."""
    target = tmp_path / "results.jsonl"
    ran = run("results", job_id, "-o", str(target), "--json")
    assert ran.code == 0
    decoded: dict[str, Any] = json.loads(ran.out)
    assert decoded["job"]["id"] == job_id
    assert decoded["output"] == str(target)
    assert decoded["counts"] == {"success": 2, "failure": 0, "missing": 0, "stray": 0}
    assert decoded["usage"] == {"prompt_tokens": 4_000, "completion_tokens": 1_000, "total_tokens": 5_000}
    assert rows(target.read_text("utf-8")) == [("success", "b"), ("success", "a")]
    assert "Gr\\u00f6\\u00dfe" in target.read_text("utf-8")  # as the service wrote it
    assert list(tmp_path.iterdir()) == [target]


def test_every_request_is_printed(run: Run, job_id: str, requests: str) -> None:
    """Missing rows are reported and set the exit code; the order of the input is optional."""
    ran = run("results", job_id, "--requests", requests)
    assert ran.code == 5
    assert rows(ran.out) == [("success", "b"), ("success", "a"), ("missing", "c")]
    assert ran.err.startswith("2 answered, 1 missing; ")
    ran = run("results", job_id, "--requests", requests, "--order", "input")
    assert rows(ran.out) == [("success", "a"), ("success", "b"), ("missing", "c")]


def test_rows_that_failed(run: Run, emulator: Emulator) -> None:
    """Failed rows count as some failures among many."""
    errors = emulator.add_file(line("a", error={"code": "timeout", "message": "too slow"}) * 2)
    ran = run("results", emulator.add_job(status="COMPLETED", error_file_id=errors))
    assert ran.code == 5
    assert rows(ran.out) == [("failure", "a"), ("stray", "a")]
    assert ran.err == "1 failed, 1 stray\n"


def test_a_job_that_ended_badly(run: Run, emulator: Emulator) -> None:
    """For a job that ended early, the finished rows are written, and the error states the reason."""
    job_id = emulator.add_job(status="EXPIRED", output_file_id=emulator.add_file(line("a")))
    ran = run("results", job_id, "--quiet")
    assert (ran.code, rows(ran.out)) == (7, [("success", "a")])
    assert ran.err == f"together-batches: error: job {job_id} is EXPIRED\n"
    job_id = emulator.add_job(status="FAILED", error="Line 2: Invalid JSON format")
    ran = run("results", job_id)
    assert (ran.code, ran.out) == (7, "")
    assert ran.err == f"no rows\ntogether-batches: error: job {job_id} is FAILED: Line 2: Invalid JSON format\n"


def test_a_job_without_results(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """An unfinished job is a usage error, an unknown id is not found, and neither creates a file."""
    target = tmp_path / "results.jsonl"
    ran = run("results", emulator.add_job(ends_as="IN_PROGRESS"), "-o", str(target))
    assert ran.code == 2
    assert "is IN_PROGRESS and has no results yet: wait until it has finished" in ran.err
    assert run("results", "nowhere", "-o", str(target)).code == 4
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_absent(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """Absent results are an error that names them when --patience expires, not missing rows, and create no file."""
    target = str(tmp_path / "results.jsonl")
    bare = emulator.add_job(status="COMPLETED", output_file_id=None)
    ran = run("results", bare, "-o", target, "--patience", "0.01")
    assert (ran.code, ran.out) == (1, "")
    assert f"error: job {bare} is COMPLETED and names no file of results" in ran.err
    assert emulator.count("retrieve") == 3
    gone = emulator.add_job(status="COMPLETED", output_file_id="file-gone")
    ran = run("results", gone, "-o", target, "--patience", "0.01")
    assert (ran.code, ran.out) == (1, "")
    assert f"error: the results of job {gone} in file-gone are absent" in ran.err
    assert emulator.count("content") == 2
    assert run("results", gone, "--patience", "0").code == 1
    assert emulator.count("content") == 3
    assert run("results", gone, "--patience", "-1").code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_exists(run: Run, job_id: str, tmp_path: Path) -> None:
    """An existing target is replaced with --overwrite; without it, no request is sent."""
    target = tmp_path / "results.jsonl"
    target.write_text("precious")
    ran = run("results", job_id, "-o", str(target))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"together-batches: error: {target} exists already; --overwrite replaces it\n"
    assert target.read_text() == "precious"
    assert run("results", job_id, "-o", str(target), "--overwrite").code == 0
    assert len(rows(target.read_text("utf-8"))) == 2


@pytest.mark.parametrize(
    ("target", "expected"),
    [(".", "is a directory"), ("nowhere/r.jsonl", "no such file"), ("/dev/null", "is not a file")],
)
def test_a_target_that_cannot_be(run: Run, job_id: str, tmp_path: Path, target: str, expected: str) -> None:
    """An invalid target is an error in one sentence, with --overwrite too."""
    ran = run("results", job_id, "-o", str(tmp_path / target), "--overwrite")
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


def test_requests_that_cannot_be_read(run: Run, job_id: str, tmp_path: Path) -> None:
    """Unreadable requests are a usage error, and so is --order input without --requests."""
    ran = run("results", job_id, "--requests", str(tmp_path / "nowhere.jsonl"))
    assert ran.code == 2
    assert "nowhere.jsonl" in ran.err
    assert run("results", job_id, "--order", "input").code == 2


def test_a_download_that_breaks(run: Run, emulator: Emulator, job_id: str, tmp_path: Path) -> None:
    """A broken download leaves no file, complete or partial; rows already on standard output remain."""
    emulator.fail(Fault(on="content", status=500, times=None))
    target = tmp_path / "results.jsonl"
    ran = run("results", job_id, "-o", str(target))
    assert (ran.code, ran.out) == (1, "")
    assert "the service answered 500" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read schema.json: No such file or directory"),
        ("{", "schema.json is not JSON: unexpected end of data"),
        ("[]", "schema.json is a list, and a JSON schema is an object"),
    ],
)
@pytest.mark.parametrize("command", ["results a", "submit in.jsonl", "run in.jsonl -o out.jsonl"])
def test_a_file_that_is_no_schema(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, content: str | None, complaint: str
) -> None:
    """A file that is no JSON schema is a usage error, before anything is sent."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "schema.json").write_text(content)
    ran = run(*command.split(), "--schema", "schema.json")
    assert (ran.code, complaint in ran.err) == (2, True)
