"""The command ``wait``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches._jobs import awaited_job
from together_batches.cli._commands import wait
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]


def test_one(run: Run, emulator: Emulator) -> None:
    """A finished job is a line on standard output, with the duration on standard error."""
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    ran = run("wait", job_id)
    assert (0, [f"{job_id}\tCOMPLETED\tfile-o\t-\t-"]) == (ran.code, ran.lines)
    assert ran.err.startswith("1 of 1 job finished: 1 COMPLETED; took ")
    assert run("wait", job_id, "--quiet").err == ""


def test_one_that_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of status is printed on standard error."""
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)
    with Emulator(timing=Timing(running=0.2)).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        job_id = emulator.add_job()
        ran = run("wait", job_id, "--patience", "0")
    assert (ran.code, len(ran.lines)) == (0, 1)
    assert ran.err.startswith("IN_PROGRESS, ")
    assert ran.err.splitlines()[0].endswith(" % done")


def test_several(run: Run, emulator: Emulator) -> None:
    """Each job is printed once, and one that ended badly decides the exit code."""
    good = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    bad = emulator.add_job(status="FAILED", error="no\x1b")
    ran = run("wait", good, bad, good)
    assert ran.code == 7
    assert sorted(ran.lines) == sorted([f"{good}\tCOMPLETED\tfile-o\t-\t-", f"{bad}\tFAILED\t-\t-\tno\\x1b"])
    assert "2 of 2 jobs finished: 1 " in ran.err


def test_json(run: Run, emulator: Emulator) -> None:
    """--json prints one object a line."""
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(3)]
    decoded = [json.loads(line) for line in run("wait", *ids, "--json").lines]
    assert sorted(ids) == sorted(job["id"] for job in decoded)


def test_standard_input(run: Run, emulator: Emulator, feed: Callable[..., None]) -> None:
    """The output of list is valid input of wait."""
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    feed(run("list").out.encode())
    assert [job_id] == [line.split("\t")[0] for line in run("wait", "-").lines]
    feed(b"")
    assert run("wait", "-") == (0, "", "standard input has no ids; there is nothing to wait for\n")
    assert run("wait", "-", job_id).code == 2


def test_too_long(run: Run, emulator: Emulator) -> None:
    """When --timeout expires, finished jobs have been printed, and unfinished ones are named."""
    done, running = emulator.add_job(status="FAILED"), emulator.add_job(ends_as="IN_PROGRESS")
    for ids in ([running], [done, running]):
        ran = run("wait", *ids, "--timeout", "0.2")
        assert (6, len(ids) - 1) == (ran.code, len(ran.lines))
        assert f"timed out after 0.2 s, and 1 job was still pending; left alone: {running} " in ran.err
    assert emulator.count("cancel") == 0


@pytest.mark.parametrize(("fault", "expected"), [(None, 4), (401, 3), (403, 3)])
def test_one_in_vain(run: Run, emulator: Emulator, fault: int | None, expected: int) -> None:
    """The exit code states why a job cannot be waited for."""
    if fault is not None:
        emulator.fail(Fault(on="retrieve", status=fault, times=None))
    ran = run("wait", "nowhere", "--quiet")
    assert (ran.code, ran.out) == (expected, "")
    error, *hint = ran.err.splitlines()
    assert error.startswith("together-batches: error: the service answered")
    assert hint == (["the key is that of TOGETHER_API_KEY"] if expected == 3 else [])


def test_some_in_vain(run: Run, emulator: Emulator) -> None:
    """The other jobs are waited for, and each that cannot be is named."""
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    ran = run("wait", "nowhere", job_id, "elsewhere")
    assert (ran.code, len(ran.lines)) == (5, 1)
    assert ran.err.count("together-batches: error: the service answered 404") == 2
    assert run("wait", "nowhere", job_id).code == 5
    assert run("wait", "..", job_id).code == 2


def test_files_that_are_late(run: Run, emulator: Emulator) -> None:
    """A job that completed without files is printed with a warning when --patience expires."""
    job_id, other = (emulator.add_job(status="COMPLETED", output_file_id=None) for _ in range(2))
    ran = run("wait", job_id, "--patience", "0")
    assert (ran.code, ran.lines) == (0, [f"{job_id}\tCOMPLETED\t-\t-\t-"])
    assert f"job {job_id} is COMPLETED and names no file of results; they may appear later" in ran.err
    assert emulator.count("retrieve") == 1
    assert len(run("wait", job_id, other, "--patience", "0.01").lines) == 2
    assert emulator.count("retrieve") == 1 + 2 * 2


@pytest.mark.parametrize("patience", ["-1", "nan", "soon"])
def test_a_patience_that_cannot_be(run: Run, emulator: Emulator, patience: str) -> None:
    """An invalid --patience is a usage error, and nothing is sent."""
    ran = run("wait", "a", "--patience", patience)
    assert (ran.code, ran.out) == (2, "")
    assert f"{patience!r} is not a number, zero or above" in ran.err
    assert len(emulator.requests) == 0


def test_a_warning_is_shown(run: Run, emulator: Emulator) -> None:
    """A warning is shown unless --quiet is given."""
    emulator.fail(Fault(on="retrieve", status=503, times=6))
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    assert "1 of 1 jobs could not be read, and will be read again" in run("wait", job_id, "--timeout", "0.2").err
    assert "could not be read" not in run("wait", job_id, "--quiet", "--timeout", "0.2").err


def test_interrupted(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted wait reports its progress, and that the jobs are still running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    monkeypatch.setattr(wait, "print_finished", interrupt)
    ran = run("wait", job_id)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "interrupted: 1 of 1 job finished: 1 COMPLETED; the jobs were left alone\n"


def test_a_bar_where_lines_go_elsewhere(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """Several jobs get a bar if standard output is not the terminal."""
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(2)]
    on_terminal("stderr")
    assert "Waiting" in run("wait", *ids).err
    assert "Waiting" not in run("wait", *ids, "--quiet").err


def test_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """On a terminal a finished job is a line with blanks between its columns, with the error below it."""
    failed = emulator.add_job(status="FAILED", error="no such model\x1b")
    on_terminal("stdout")
    assert run("wait", failed).lines == [f"{failed}  FAILED", "  no such model\\x1b"]
