"""Tables that the command writes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import jsonl
from together_batches.cli import main
from together_batches.emulator import Answer, Emulator, Failure, Timing
from together_batches.runs._ledger import NAME as LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("arro3.io")
pl = pytest.importorskip("polars")

NAMES = ["a", "b", "bad", "c"]
RUN = ("run", "requests.jsonl", "-o", "answers.parquet", "--poll-interval", "0.02", "--retry-delays", "0")


def answer(row: dict[str, Any]) -> Answer | Failure:
    name = row["custom_id"]
    return Failure("no such thing", code="400") if name == "bad" else Answer(f"to {name}")


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run in a directory with a file of requests, against an emulator whose jobs finish at once."""
    monkeypatch.chdir(tmp_path)
    requests = (jsonl.chat_request(name, model="m", messages=[]) for name in NAMES)
    jsonl.write(requests, tmp_path / "requests.jsonl")
    with Emulator(timing=Timing(validating=0, running=0), answer=answer).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def rows(path: Path) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = pl.read_parquet(path)["custom_id", "result", "text"].rows()
    return found


ROWS = [("a", "success", "to a"), ("b", "success", "to b"), ("bad", "failure", None), ("c", "success", "to c")]


def test_results(service: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The results of a job are written as a table if the name ends in .parquet, and are counted."""
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode() + b"\n"
    job_id = service.add_job(status="COMPLETED", output_file_id=service.add_file(line))
    assert main(["results", job_id, "-o", "results.parquet"]) == 0
    assert capsys.readouterr().err == "1 answered, in results.parquet\n"
    assert rows(tmp_path / "results.parquet") == [("a", "success", "yes")]
    assert main(["results", job_id, "-o", "results.parquet"]) == 2
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"river": {"type": "string"}}}')
    assert main(["results", job_id, "-o", "invalid.parquet", "--schema", "schema.json"]) == 5
    assert pl.read_parquet(tmp_path / "invalid.parquet")["result", "river"].rows() == [("invalid", None)]


def test_a_run(service: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run writes its lines, and a table of them; the same command goes on, and makes the table again."""
    assert main(RUN) == 5
    assert capsys.readouterr().err.endswith("failures.jsonl\ntable: answers.parquet\n")
    assert rows(tmp_path / "answers.parquet") == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("answers.parquet", "answers.parquet.failures.jsonl", "answers.parquet.jsonl", "answers.parquet.run"),
        "requests.jsonl",
    ]
    (tmp_path / "answers.parquet").unlink()
    for _ in range(2):
        assert main(RUN) == 5
        assert rows(tmp_path / "answers.parquet") == ROWS
    assert len(service.jobs) == 1


def test_a_run_with_a_schema(tmp_path: Path) -> None:
    """The table of a run with a schema has a column for each member."""
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"river": {"type": "string"}}}')
    assert main([*RUN, "--schema", "schema.json"]) == 5
    table = pl.read_parquet(tmp_path / "answers.parquet")
    assert table["result", "river"].rows() == [*[("invalid", None)] * 2, ("failure", None), ("invalid", None)]


def test_a_run_that_stops_early_has_no_table(tmp_path: Path) -> None:
    """There is no table before the run is complete."""
    assert main([*RUN, "--stop-after-rows", "2", "--max-rows-per-job", "2"]) == 5
    assert not (tmp_path / "answers.parquet").exists()
    assert main([*RUN, "--max-rows-per-job", "2"]) == 5
    assert rows(tmp_path / "answers.parquet") == ROWS


def test_a_run_of_a_table_keeps_its_columns(tmp_path: Path) -> None:
    """The columns of a table that is the input are beside those of the answers."""
    (tmp_path / "cities.csv").write_text("id,city\na,Prague\nb,Brno\n")
    prompt = ["--prompt", "Which river flows through {city}?", "--model", "m"]
    assert main(["run", "cities.csv", "-o", "cities.parquet", "--poll-interval", "0.02", *prompt]) == 0
    assert pl.read_parquet(tmp_path / "cities.parquet")["city", "text"].rows() == [
        ("Prague", "to a"),
        ("Brno", "to b"),
    ]


def test_a_table_that_cannot_be_made(service: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that a table cannot have, and a directory in its place, are found before anything is sent."""
    (tmp_path / "cities.csv").write_text("id,city,note,note\na,Prague,,\n")
    run = ["run", "cities.csv", "--prompt", "Where is {city}?", "--model", "m", "-o", "cities.parquet"]
    assert main(run) == 2
    assert "cities.csv has two columns 'note'" in capsys.readouterr().err
    (tmp_path / "answers.parquet").mkdir()
    assert main([*RUN, "--overwrite"]) == 2
    assert "cannot write answers.parquet: it is a directory" in capsys.readouterr().err
    assert service.jobs == []


@pytest.mark.parametrize("others", [b"mine", None])
def test_another_file_is_left_alone(
    service: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: bytes | None
) -> None:
    """A file that is not of the run is refused before anything is sent, and is replaced on request."""
    path = tmp_path / "answers.parquet"
    if others is None:
        pl.DataFrame({"mine": [1]}).write_parquet(path)
        others = path.read_bytes()
    path.write_bytes(others)
    assert main(RUN) == 2
    assert "answers.parquet exists already, and is left alone; --overwrite replaces it" in capsys.readouterr().err
    assert (path.read_bytes(), len(service.jobs)) == (others, 0)
    assert main([*RUN, "--overwrite"]) == 5
    assert rows(path) == ROWS


def test_a_ledger_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the reason that is given, and not that the table belongs to another run."""
    assert main(RUN) == 5
    (tmp_path / "answers.parquet.run" / LEDGER).write_bytes(b"damaged" * 1000)
    capsys.readouterr()
    assert main(RUN) == 1
    err = capsys.readouterr().err
    assert "exists already" not in err
    assert "the ledger of the run in answers.parquet.run cannot be read" in err


def test_a_file_that_took_the_place_of_a_table(tmp_path: Path) -> None:
    """A file that is put in the place of the table of a run is not replaced by the next call."""
    assert main(RUN) == 5
    (tmp_path / "answers.parquet").write_bytes(b"mine")
    assert main(RUN) == 2
    assert (tmp_path / "answers.parquet").read_bytes() == b"mine"


def test_a_library_that_is_missing(
    service: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The extra is named before anything is sent."""
    for name in ("arro3.core", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(RUN) == 2
    assert 'pip install "together_batches[arrow]"' in capsys.readouterr().err
    assert len(service.jobs) == 0
