"""The commands with a JSON schema, which jsonschema reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import jsonl
from together_batches.cli import main
from together_batches.emulator import Answer, Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("jsonschema")

SCHEMA = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with requests and a schema, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    requests = [jsonl.chat_request(name, model="m", messages=[]) for name in "abc"]
    (tmp_path / "in.jsonl").write_bytes(b"".join(map(jsonl.encode, requests)))
    return tmp_path


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose jobs finish at once; the answer of row b does not fit."""

    def answer(row: Any) -> Answer:
        return Answer("five" if row["custom_id"] == "b" else '{"stars": 5}')

    timing = Timing(validating=0, running=0)
    with Emulator(timing=timing, answer=answer).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def run(*words: str) -> int:
    """Run a command, and return its exit code."""
    return int(main([*words]))


def test_a_run(service: Emulator, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run ends with 5 if an answer does not fit, and sends its row again on request."""
    words = ("run", "in.jsonl", "-o", "out.jsonl", "--schema", "schema.json", "--poll-interval", "0.05", "--json")
    assert run(*words) == 5
    report = json.loads(capsys.readouterr().out)
    assert (report["succeeded"], report["invalid_answers"], report["ok"]) == (2, 1, False)
    lines = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [line["result"] for line in lines] == ["success", "invalid", "success"]
    service.answer = None  # by the schema
    assert run(*words, "--retry-invalid") == 0
    assert json.loads(capsys.readouterr().out)["succeeded"] == 3
    assert len(service.jobs) == 2


def test_a_submission_and_its_results(service: Emulator, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A submission sends the schema, and results tell apart what fits."""
    assert run("submit", "in.jsonl", "--schema", "schema.json", "--wait") == 0
    (job,) = service.jobs
    assert b'"response_format":{"type":"json_schema"' in service.content(str(job["input_file_id"]))
    capsys.readouterr()
    words = ("results", str(job["id"]), "--schema", "schema.json", "--requests", "in.jsonl", "-o", "rows.jsonl")
    assert run(*words, "--json") == 5
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts == {"success": 2, "invalid": 1, "failure": 0, "missing": 0, "stray": 0}
    assert run(*words, "--overwrite") == 5
    assert "2 answered, 1 with an invalid answer; " in capsys.readouterr().err


def test_a_table(service: Emulator, here: Path) -> None:
    """Of a table, the requests have the schema in their prompts, too."""
    (here / "cities.csv").write_text("id,city\na,Prague\n")
    words = ("--prompt", "How many stars has {city}?", "--model", "m", "--schema", "schema.json")
    assert run("run", "cities.csv", "-o", "out.jsonl", *words, "--poll-interval", "0.05") == 0
    (row,) = map(json.loads, service.content(str(service.jobs[0]["input_file_id"])).splitlines())
    assert row["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert row["body"]["messages"][0]["role"] == "system"
