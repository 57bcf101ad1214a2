"""The commands ``list`` and ``get``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def test_list_on_a_terminal(
    run: Run, emulator: Emulator, on_terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, list prints a table with ages, in which models are shortened and ids are not."""
    job_id = emulator.add_job(
        ends_as="IN_PROGRESS",
        progress=41.6,
        model_id="meta-llama/Llama-3.3-70B-Instruct-Turbo",
        age_seconds=3_610,
    )
    emulator.add_job(status="FAILED", age_seconds=7_300)
    on_terminal("stdout")
    ran = run("list")
    assert ran.code == 0
    header, first, second = ran.lines
    assert header.split() == ["ID", "STATUS", "DONE", "AGE", "MODEL"]
    assert first.split() == [job_id, "IN_PROGRESS", "42", "%", "1h", "meta-lla…ct-Turbo"]
    assert second.split()[1:] == ["FAILED", "0", "%", "2h1m", "-"]
    assert len(first) == 80
    assert sorted(ran.err.strip().split(", ")) == ["1 FAILED", "1 IN_PROGRESS"]
    monkeypatch.setenv("COLUMNS", "40")
    assert run("list").lines[2:4] == [job_id, "  IN_PROGRESS  42 %    1h  meta-l…-Turbo"]


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
    assert ran.err == "note: 1 job without a model was left out: 1 VALIDATING\n"


def test_get_of_ids_in_one_word(run: Run, emulator: Emulator) -> None:
    """Ids separated by a comma are refused with a hint, and nothing is sent."""
    ran = run("get", "a,b")
    assert (ran.code, ran.out) == (2, "")
    assert "has a comma in it ('a,b'), and no id has; give each id as an argument of its own" in ran.err
    assert not emulator.requests


@pytest.mark.parametrize("screen", [False, True])
def test_columns(run: Run, emulator: Emulator, on_terminal: Callable[..., None], screen: bool) -> None:
    """--columns names what is printed, on a terminal and in a pipe; --header names it in a pipe, too."""
    job_id = emulator.add_job(ends_as="IN_PROGRESS", model_id="m", progress=7, age_seconds=3_610)
    if screen:
        on_terminal("stdout")
    assert run("list", "--columns", "id, progress,age").lines[-1].split() == [job_id, "7", *["%"] * screen, "1h"]
    header = run("list", "--columns", "model,id", "--header").lines[0].split()
    assert header == (["MODEL", "ID"] if screen else ["model", "id"])
    if not screen:
        assert run("list", "--header").lines[0].startswith("id\tstatus\tprogress\tcreated\tcompleted\t")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--columns", "id,colour"], "there is no column 'colour'; the columns are id, status"),
        (["--sort", "colour"], "there is no column 'colour'"),
        (["--sort", "id,status"], "there is no column 'id status'"),
        (["--count-by", "id"], "there is no column 'id'; the columns are model, status"),
        (["--count-by", "model", "--sort", "id"], "leave out --columns and --sort"),
        (["--columns", "id", "--json"], "--json has every field"),
        (["--limit", "0"], "'0' is not a whole number, 1 or more"),
    ],
)
def test_views_that_cannot_be(run: Run, emulator: Emulator, argv: list[str], expected: str) -> None:
    """Unknown columns, and options that exclude each other, are usage errors, and nothing is sent."""
    ran = run("list", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert not emulator.requests


def test_sort_and_limit(run: Run, emulator: Emulator) -> None:
    """--sort orders numbers and times as such, in reverse with -; what has no value is last. --limit cuts it."""
    for number, progress in enumerate([9, 80, None, 70]):
        emulator.add_job(
            id=f"job-{number}", ends_as="IN_PROGRESS", age_seconds=100 * number, progress=progress, input_file_id="f"
        )

    def ids(*argv: str) -> list[str]:
        return run("list", "--columns", "id", *argv).lines

    assert ids() == ["job-0", "job-1", "job-2", "job-3"]
    assert ids("--sort", "progress")[:3] == ["job-0", "job-3", "job-1"]
    assert ids("--sort", "-progress")[:3] == ["job-1", "job-3", "job-0"]
    assert ids("--sort", "-age") == ids("--sort", "created") == ["job-3", "job-2", "job-1", "job-0"]
    assert ids("--sort", "completed") == ids()
    ran = run("list", "--columns", "id", "--sort", "-age", "--limit", "2")
    assert (ran.lines, ran.err) == (["job-3", "job-2"], "the first 2 of 4 jobs\n")
    assert [job["id"] for job in json.loads(run("list", "--limit", "1", "--json").out)] == ["job-0"]


def test_count_by(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """--count-by prints how many jobs there are of each kind, the most frequent first, also as JSON."""
    for model, status, many in (("m/1", "FAILED", 1), ("m/2", "COMPLETED", 3), ("m/1", "COMPLETED", 2)):
        for _ in range(many):
            emulator.add_job(status=status, model_id=model)
    emulator.add_job(status="VALIDATING", ends_as="VALIDATING", model_id=None)
    argv = ("list", "--count-by", "model,status")
    lines = ["m/2\tCOMPLETED\t3", "m/1\tCOMPLETED\t2"]
    ran = run(*argv)
    assert (ran.code, ran.lines[:2], sorted(ran.lines[2:])) == (0, lines, ["-\tVALIDATING\t1", "-\tFAILED\t1"][::-1])
    assert run(*argv, "--header", "--limit", "1").lines == ["model\tstatus\tjobs", lines[0]]
    assert json.loads(run(*argv, "--json", "--model", "m/2").out) == [
        {"model": "m/2", "status": "COMPLETED", "jobs": 3}
    ]
    assert run(*argv, "--status", "EXPIRED") == (0, "", "no job matches\n")
    on_terminal("stdout")
    assert run("list", "--count-by", "model").lines[:2] == ["MODEL  JOBS", "m/2       3"]


def test_reasons(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """`list --status FAILED` shows why each job failed, in full, below its row; in a pipe by --columns."""
    reason = "Failed to calculate tokens: input format error: Line 2 (within chunk): Invalid JSON format\x1b[2J"
    failed = emulator.add_job(status="FAILED", error=reason)
    emulator.add_job(status="COMPLETED")
    assert run("list", "--status", "FAILED", "--columns", "id,error").lines == [
        f"{failed}\t{reason.replace(chr(27), '?x1b').replace('?', chr(92))}"
    ]
    on_terminal("stdout")
    lines = run("list", "--status", "failed").lines
    assert lines[1].startswith(failed)
    assert " ".join(line.strip() for line in lines[2:]).startswith(reason.partition("\x1b")[0])
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert "Failed to" not in run("list").out


@pytest.mark.parametrize("command", [["list"], ["cancel", "--all", "--dry-run"]])
def test_model_of_no_job(run: Run, emulator: Emulator, command: list[str]) -> None:
    """A model that no job has is an error that names the models there are; one of other jobs is none."""
    emulator.add_job(ends_as="IN_PROGRESS", model_id="m/1")
    emulator.add_job(status="COMPLETED", model_id="m/2")
    ran = run(*command, "--model", "m/1", "--model", "M/1")
    assert (ran.code, ran.out) == (4, "")
    assert "no job has the model 'M/1'; the models are m/" in ran.err
    assert "m/2 (1 job)" in ran.err
    ran = run(*command, "--model", "m/2", "--status", "FAILED")
    assert (ran.code, ran.out) == (0, "")
    assert "no job matches" in ran.err


def test_repeated_filters(run: Run, emulator: Emulator) -> None:
    """Values of one filter are alternatives; of several ages all must hold."""
    emulator.add_job(id="a", ends_as="IN_PROGRESS", age_seconds=5_000, input_file_id="f1", endpoint="/v1/x")
    emulator.add_job(id="b", ends_as="IN_PROGRESS", age_seconds=9_000, input_file_id="f2", endpoint="/v1/y")
    emulator.add_job(id="c", ends_as="IN_PROGRESS", age_seconds=100_000, input_file_id="f3", endpoint="/v1/z")
    for argv, expected in (
        ("--input-file f1 --input-file f3", "ac"),
        ("--endpoint /v1/y --endpoint /v1/z", "bc"),
        ("--older-than 1h --older-than 2h", "bc"),
        ("--newer-than 2d --newer-than 1d", "ab"),
    ):
        assert "".join(run("list", "--columns", "id", *argv.split()).lines) == expected
        assert "".join(run("cancel", "--dry-run", *argv.split()).lines) == expected


def test_except(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """--except leaves out a job, whatever the case of its id, and those that a file names."""
    for job_id in ("job-a", "job-b", "job-c", "job-d"):
        emulator.add_job(id=job_id, ends_as="IN_PROGRESS")
    emulator.add_job(id="job-e", status="COMPLETED")
    keep = tmp_path / "keep.txt"
    keep.write_text("# to keep\njob-b\tIN_PROGRESS\njob-x\n")
    argv = ["--except", "JOB-A", "--except", str(keep), "--except", "job-e"]
    assert set(run("list", "--columns", "id", *argv).lines) == {"job-c", "job-d"}
    ran = run("cancel", "--all", *argv, "--dry-run")
    assert set(ran.lines) == {"job-c", "job-d"}
    assert ran.err.startswith(f"note: of the 2 ids in {keep}, 1 are no jobs of the account\n")


def test_except_what_is_not_there(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """An id that is left out and that no job has is an error, because it may be a misspelt file."""
    emulator.add_job(ends_as="IN_PROGRESS")
    ran = run("cancel", "--all", "--yes", "--except", str(tmp_path / "keep.txt"))
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.endswith("keep.txt is neither a job of the account nor a file\n")
    (tmp_path / "bad.txt").write_bytes(b"a\nb c\n")
    ran = run("cancel", "--all", "--yes", "--except", str(tmp_path / "bad.txt"))
    assert ran.code == 2
    assert f"line 2 of {tmp_path}/bad.txt has a blank in it" in ran.err
    assert not emulator.count("cancel")


def test_get_from_standard_input(run: Run, emulator: Emulator, feed: Callable[..., None]) -> None:
    """`get -` reads ids as cancel does, from the output of list as well, with its header."""
    ids = {emulator.add_job(), emulator.add_job()}
    feed(run("list", "--header").out.encode())
    assert {json.loads(line)["id"] for line in run("get", "-", "--json").lines} == ids


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
    error, *hint = ran.err.splitlines()
    assert error.startswith("together-batches: error: the service answered")
    assert hint == (["the key is that of TOGETHER_API_KEY"] if expected == 3 else [])


def test_get_some_in_vain(run: Run, emulator: Emulator) -> None:
    """Jobs that can be read are printed, and each of the others is named."""
    job_id = emulator.add_job()
    ran = run("get", "nowhere", job_id, "..")
    assert ran.code == 5
    assert job_id in ran.out
    assert "error: nowhere: the service answered 404" in ran.err
    assert "error: ..: invalid job id '..'" in ran.err
