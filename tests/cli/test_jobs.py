"""The commands ``list`` and ``get``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._jobs import by_status
from together_batches.emulator import Fault
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran
    from together_batches.emulator import Emulator

    Run = Callable[..., Ran]


def test_list_in_a_pipe(run: Run, emulator: Emulator) -> None:
    """In a pipe, list prints only ten columns between tabs, newest first."""
    old = emulator.add_job(
        age_seconds=100, ends_as="IN_PROGRESS", model_id="m\t\x1b", input_file_id="file-1", progress=7
    )
    new = emulator.add_job(status="COMPLETED", output_file_id="file-o", error_file_id="file-e")
    ran = run("list")
    assert (ran.code, ran.err) == (0, "")
    first, second = (line.split("\t") for line in ran.lines)
    assert [new, "COMPLETED", "100"] == first[:3]
    assert first[3].endswith("Z")
    assert first[4].endswith("Z")
    assert first[8:] == ["file-o", "file-e"]
    assert [old, "IN_PROGRESS", "7"] == second[:3]
    assert second[4:] == ["-", "/v1/chat/completions", "m\\t\\x1b", "file-1", "-", "-"]


def test_list_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """On a terminal, list prints a table under a header, and cuts no id."""
    long = "x" * 300
    emulator.add_job(id=long, ends_as="IN_PROGRESS", progress=41.6)
    emulator.add_job(status="FAILED")
    on_terminal("stdout")
    ran = run("list")
    assert ran.code == 0
    assert ran.lines[0].split() == ["ID", "STATUS", "DONE", "CREATED", "MODEL"]
    assert any(line.startswith(f"{long}  IN_PROGRESS  42 %  20") for line in ran.lines)
    assert sorted(ran.err.strip().split(", ")) == ["1 FAILED", "1 IN_PROGRESS"]


def test_list_json(run: Run, emulator: Emulator) -> None:
    """--json prints one complete array, including fields that this version does not know."""
    job_id = emulator.add_job(ends_as="IN_PROGRESS", colour="blue", error="\x1b")
    emulator.add_job()
    decoded = json.loads(run("list", "--json").out)
    assert len(decoded) == 2
    assert {job_id: "blue"} == {job["id"]: job["colour"] for job in decoded if "colour" in job}


def test_list_of_nothing(run: Run, emulator: Emulator) -> None:
    """An empty account gives an empty output, or an empty array, and a message on standard error."""
    assert run("list") == (0, "", "no job matches\n")
    assert run("list", "--quiet") == (0, "", "")
    assert run("list", "--json") == (0, "[]\n", "")


def test_list_filters(run: Run, emulator: Emulator) -> None:
    """Each filter works alone, and all of them work together."""
    wanted = emulator.add_job(
        ends_as="IN_PROGRESS",
        age_seconds=5_400,
        model_id="m",
        endpoint="/v1/audio/translations",
        input_file_id="file-1",
    )
    emulator.add_job(status="COMPLETED")
    emulator.add_job(status="FAILED", age_seconds=90_000)
    for argv in (
        ["--status", "in_progress"],
        ["--model", "m"],
        ["--endpoint", "/v1/audio/translations"],
        ["--input-file", "file-1"],
        ["--older-than", "1h", "--newer-than", "2h"],
        ["--status", "IN_PROGRESS", "--model", "m", "--newer-than", "1d"],
    ):
        assert [line.split("\t")[0] for line in run("list", *argv).lines] == [wanted]
    assert len(run("list", "--status", "COMPLETED", "--status", "FAILED").lines) == 2
    ran = run("list", "--status", "open")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown status 'open', and no job has it" in ran.err


def test_list_of_several_models(run: Run, emulator: Emulator) -> None:
    """Several --model options are alternatives; jobs without a model, which may be of one of them, are counted."""
    wanted = [emulator.add_job(model_id=f"m/{number}") for number in (1, 2)]
    emulator.add_job(model_id="m/3")
    emulator.add_job(status="VALIDATING", ends_as="VALIDATING", model_id=None)
    ran = run("list", "--model", "m/1", "--model", "m/2")
    assert {line.split("\t")[0] for line in ran.lines} == set(wanted)
    assert ran.err == "note: 1 job that names no model (yet) was left: 1 VALIDATING\n"


def test_get_of_ids_in_one_word(run: Run, emulator: Emulator) -> None:
    """Ids separated by a comma are refused with a hint, and nothing is sent."""
    ran = run("get", "a,b")
    assert (ran.code, ran.out) == (2, "")
    assert "has a comma in it ('a,b'), and no id has; give each id as an argument of its own" in ran.err
    assert not emulator.requests


def test_list_refused(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key has its own exit code."""
    monkeypatch.setenv("TOGETHER_API_KEY", "other")
    ran = run("list")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("together-batches: error: the service answered 401")


def test_get(run: Run, emulator: Emulator) -> None:
    """get prints a block with every known field for each job, in the order of the ids."""
    one = emulator.add_job(ends_as="IN_PROGRESS", colour={"a": [1]}, model_id="m\x1b")
    two = emulator.add_job(status="FAILED", error="line one\nline two")
    ran = run("get", two, one)
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.split("\n\n")
    assert first.splitlines()[0].split() == ["id", two]
    assert "error  " in first
    assert "line one\\nline two" in first
    assert second.splitlines()[0].split() == ["id", one]
    assert '{"a":[1]}' in second
    assert "m\\x1b" in second
    assert "Z\n" in second


def test_get_json(run: Run, emulator: Emulator) -> None:
    """--json prints one object a line."""
    ids = [emulator.add_job() for _ in range(3)]
    assert ids == [json.loads(line)["id"] for line in run("get", *ids, "--json").lines]


@pytest.mark.parametrize(("fault", "expected"), [(None, 4), (401, 3), (403, 3), (500, 1)])
def test_get_one_in_vain(run: Run, emulator: Emulator, fault: int | None, expected: int) -> None:
    """The exit code states why a job could not be read."""
    if fault is not None:
        emulator.fail(Fault(on="retrieve", status=fault, times=None))
    ran = run("get", "nowhere")
    assert (ran.code, ran.out) == (expected, "")
    assert ran.err.startswith("together-batches: error: the service answered")
    assert ran.err.count("\n") == 1


def test_get_some_in_vain(run: Run, emulator: Emulator) -> None:
    """Jobs that can be read are printed, and each of the others is named."""
    job_id = emulator.add_job()
    ran = run("get", "nowhere", job_id, "..")
    assert ran.code == 5
    assert job_id in ran.out
    assert "error: nowhere: the service answered 404" in ran.err
    assert "error: ..: '..' is no job id" in ran.err


def test_by_status() -> None:
    """Jobs are counted by status, the most frequent first, including jobs without a status."""
    jobs = [BatchJob(id=str(n), status=status) for n, status in enumerate(["A", "B", "B", None])]
    assert by_status(jobs) == "2 B, 1 A, 1 without a status"
