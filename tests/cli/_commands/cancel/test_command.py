"""The command ``cancel``."""

from __future__ import annotations

import csv
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from together_batches.cli._account.options import Common
from together_batches.cli._commands.cancel import command
from together_batches.cli._commands.cancel.command import cancel_confirmed
from together_batches.cli._commands.cancel.output import outcome_item, print_table
from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted
from together_batches.cli._terminal.text import as_json, format_count
from together_batches.emulator import Emulator, Fault, RateLimit, Timing
from together_batches.errors import APIConnectionError, ConflictError
from together_batches.models import BatchJob
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ran
    from together_batches.cli._listing.labels import Labels

    Run = Callable[..., Ran]
    Feed = Callable[..., None]


def seed(emulator: Emulator, count: int, **how: object) -> list[str]:
    return [emulator.add_job(**{"ends_as": "IN_PROGRESS", **how}) for _ in range(count)]


# --- ids as arguments


def test_one(run: Run, emulator: Emulator) -> None:
    """One id needs no confirmation; its line is on standard output, the summary on standard error."""
    (job_id,) = seed(emulator, 1)
    code, out, err = run("cancel", job_id)
    assert (code, out) == (0, f"{job_id}\tcanceling\tCANCELING\n")
    assert err.startswith("1 canceling; took ")
    assert emulator.job(job_id)["status"] == "CANCELING"


def test_several(run: Run, emulator: Emulator) -> None:
    """Each of several ids is reported once, even if it is repeated; a finished job is not a failure."""
    running, *_ = seed(emulator, 1)
    done = emulator.add_job(status="COMPLETED")
    ran = run("cancel", running, done, running)
    assert ran.code == 0
    assert sorted([f"{running}\tcanceling\tCANCELING", f"{done}\talready_finished\tCOMPLETED"]) == sorted(ran.lines)
    assert emulator.count("cancel") == 2


@pytest.mark.parametrize(
    ("fault", "result", "expected"),
    [
        (None, "not_found", Exit.NOT_FOUND),
        ({"status": 401}, "denied", Exit.DENIED),
        ({"status": 403}, "denied", Exit.DENIED),
        ({"status": 500}, "failed", Exit.FAILED),
        ({"lose": "answer"}, "failed", Exit.FAILED),
        ({"status": 200, "body": "<html>"}, "failed", Exit.FAILED),
    ],
)
def test_exit_code_of_one(
    run: Run, emulator: Emulator, fault: dict[str, object] | None, result: str, expected: Exit
) -> None:
    """The exit code of a single cancel depends on its result."""
    if fault is not None:
        emulator.fail(Fault(on="cancel", times=None, **fault))
    ran = run("cancel", "some-id")
    assert expected is ran.code
    assert ran.out.startswith(f"some-id\t{result}\t")
    assert f"1 {result.replace('_', ' ')};" in ran.err


def test_no_id(run: Run, emulator: Emulator) -> None:
    """An invalid id is a usage error, and nothing is sent."""
    assert run("cancel", "..").code == 2
    assert run("cancel", "").code == 2
    assert not emulator.requests


def test_some_failed(run: Run, emulator: Emulator) -> None:
    """One failure among many cancels stops none of the others, and decides the exit code."""
    ids = [*seed(emulator, 2), "unknown/?#%é"]
    ran = run("cancel", *ids)
    assert ran.code == 5
    assert len(ran.lines) == 3
    assert "2 canceling, 1 not found" in ran.err


def test_refused_key(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key stops the remaining cancels, and every id is still reported."""
    ids = seed(emulator, 300)
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp_not_this_one")
    ran = run("cancel", *ids, "--max-concurrency", "4")
    assert ran.code == 3
    assert set(ids) == {line.partition("\t")[0] for line in ran.lines}
    assert "not attempted" in ran.err
    assert emulator.count("cancel") <= 8
    assert "tgp_not_this_one" not in ran.out + ran.err


def test_wait(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """--wait reports how each job ended; one that completed in spite of its cancel counts as finished."""
    stopped, *_ = seed(emulator, 1)
    completed, *_ = seed(emulator, 1, cancels_as="COMPLETED")
    on_terminal("stderr")
    ran = run("cancel", stopped, completed, "--wait")
    assert ran.code == 0
    assert sorted([f"{stopped}\tcancelled\tCANCELLED", f"{completed}\talready_finished\tCOMPLETED"]) == sorted(
        ran.lines
    )
    assert "2 of 2" in ran.err  # the bar, because standard output is not a terminal here


def test_wait_in_json(run: Run, emulator: Emulator) -> None:
    """With --wait --json, a job is reported when its cancel is accepted and when it ends; others once."""
    (job_id,) = seed(emulator, 1, cancels_as="COMPLETED")
    done = emulator.add_job(status="COMPLETED")
    ran = run("cancel", job_id, done, "--wait", "--json")
    decoded = [json.loads(line) for line in ran.lines]
    events = [(outcome["event"], outcome["result"]) for outcome in decoded if outcome["job_id"] == job_id]
    assert events == [("accepted", "canceling"), ("ended", "already_finished")]
    assert [outcome["event"] for outcome in decoded if outcome["job_id"] == done] == ["ended"]
    assert "1 already finished, 1 completed anyway; took" in ran.err


@pytest.mark.parametrize(("count", "code"), [(1, 1), (2, 5)])
@pytest.mark.parametrize("status", [409, 400, 422])
def test_refused_while_it_goes_on(run: Run, emulator: Emulator, count: int, code: int, status: int) -> None:
    """A job that is still running after a refused cancel is a failure with the refusal, whatever its status code."""
    ids = seed(emulator, count)
    emulator.fail(Fault(on="cancel", times=None, status=status, body={"error": "not once processing begins"}))
    ran = run("cancel", *ids)
    assert ran.code == code
    assert all(
        "\tfailed\tthe service answered" in line and "not once processing begins" in line for line in ran.lines
    )
    assert f"{count} failed; took" in ran.err


def test_wait_that_cannot_follow(run: Run, emulator: Emulator) -> None:
    """A job that --wait cannot follow to its end counts as a failure, because it was not seen to stop."""
    (job_id,) = seed(emulator, 1)
    emulator.fail(Fault(on="retrieve", times=None, status=403))
    ran = run("cancel", job_id, "--wait")
    assert ran.code == 3
    assert ran.out.startswith(f"{job_id}\tcanceling\tthe service answered 403")


def test_json(run: Run, emulator: Emulator) -> None:
    """--json prints one complete object for each outcome, on a line of its own."""
    (job_id,) = seed(emulator, 1)
    ran = run("cancel", job_id, "\x1bodd", "--json", "--quiet")
    assert (ran.code, ran.err) == (5, "")
    decoded = {outcome["job_id"]: outcome for outcome in map(json.loads, ran.lines)}
    assert decoded[job_id]["result"] == "canceling"
    assert decoded[job_id]["job"]["id"] == job_id
    assert decoded["\x1bodd"]["error"]["status"] == 404
    assert "\x1b" not in ran.out


def test_control_characters_stay_off_the_terminal(run: Run, emulator: Emulator) -> None:
    """Control characters from the service or from the input are never written to the terminal."""
    emulator.fail(Fault(on="cancel", status=400, body={"error": "\x1b[2J\x9b31m\u202e"}))
    ran = run("cancel", "\x1b]0;title\x07")
    assert ran.code == 1
    assert ran.out.removesuffix("\n").replace("\t", "").isprintable()
    assert "\\x1b[2J" in ran.out


def test_dry_run_of_ids(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dry-run prints the ids, needs no key, and sends nothing."""
    monkeypatch.setenv("TOGETHER_BASE_URL", "http://127.0.0.1:9")
    assert run("cancel", "a", "b", "a", "--dry-run") == (0, "a\nb\n", "")
    assert run("cancel", "a", "--dry-run", "--json") == (0, '{"job_id":"a"}\n', "")


# --- limits


def test_deadline(run: Run, emulator: Emulator) -> None:
    """When --timeout expires, all ids are reported, the unfinished ones are named, and the exit code is its own."""
    ids = seed(emulator, 6)
    emulator.fail(Fault(on="cancel", times=None, delay=0.4))
    ran = run("cancel", *ids, "--timeout", "0.6", "--max-concurrency", "2")
    assert ran.code == 6
    assert set(ids) == {line.partition("\t")[0] for line in ran.lines}
    assert "timed out after 0.6 s" in ran.err
    assert "not attempted" in ran.err


def test_deadline_of_a_wait(run: Run, emulator: Emulator) -> None:
    """Jobs that are still stopping when --timeout expires count as unfinished."""
    (job_id,) = seed(emulator, 1)
    ran = run("cancel", job_id, "--wait", "--timeout", "0.3")
    assert (ran.code, ran.out) == (6, f"{job_id}\tcanceling\tCANCELING\n")


def test_deadline_while_listing(run: Run, emulator: Emulator) -> None:
    """If --timeout expires while jobs are listed, nothing is cancelled."""
    emulator.fail(Fault(on="list", delay=1))
    ran = run("cancel", "--all", "--yes", "--timeout", "0.1")
    assert ran.code == 6
    assert "nothing was cancelled" in ran.err


def test_time_limit_of_listing_is_another(run: Run, emulator: Emulator) -> None:
    """A request that exceeds --request-timeout is a failure, and does not end the command as --timeout does."""
    emulator.fail(Fault(on="list", delay=1, times=None))
    ran = run("cancel", "--all", "--yes", "--request-timeout", "0.05", "--timeout", "30")
    assert ran.code == 1
    assert "0.05 s" in ran.err


def test_deadline_that_is_kept(run: Run, emulator: Emulator) -> None:
    """A timeout that is not reached changes nothing."""
    seed(emulator, 2)
    assert run("cancel", "--all", "--yes", "--timeout", "30").code == 0


def test_rate(run: Run, emulator: Emulator) -> None:
    """With --rate, the service never has to refuse a request."""
    ids = seed(emulator, 10)
    emulator.rate_limit = RateLimit(40, 2)
    assert run("cancel", *ids, "--rate", "30").code == 0
    assert emulator.count("cancel") == 10


# --- ids from standard input


def test_standard_input(run: Run, emulator: Emulator, feed: Feed) -> None:
    """Ids are read from a file with Windows line ends, blank lines, comments and repetitions."""
    one, two = seed(emulator, 2)
    feed(f"# to stop\r\n{one}\r\n\r\n  {two}\r\n{one}\r\n".encode())
    ran = run("cancel", "-", "--yes")
    assert ran.code == 0
    assert {one, two} == {line.partition("\t")[0] for line in ran.lines}
    assert "2 jobs named on standard input" in ran.err


def test_output_of_list_and_cancel_is_input(run: Run, emulator: Emulator, feed: Feed) -> None:
    """The output of list and cancel, as columns or as JSON lines, is valid input of cancel."""
    (job_id,) = seed(emulator, 1)
    for printed in (run("list").out, run("get", job_id, "--json").out, run("cancel", job_id, "--json").out):
        feed(printed.encode())
        assert run("cancel", "-", "--yes").lines == [f"{job_id}\tcanceling\tCANCELING"]


def test_json_of_list_is_input(run: Run, emulator: Emulator, feed: Feed) -> None:
    """The array that `list --json` prints is valid input of cancel; that of an empty account contains no ids."""
    feed(run("list", "--json").out.encode())
    assert run("cancel", "-", "--yes").err.startswith("standard input has no ids")
    ids = seed(emulator, 3)
    feed(run("list", "--json").out.encode())
    assert {line.partition("\t")[0] for line in run("cancel", "-", "--yes").lines} == set(ids)


def test_several_ids_in_one_word(run: Run, emulator: Emulator, feed: Feed) -> None:
    """Several ids in one word are refused with a hint, and nothing is sent."""
    for argv, content, mend in (
        (["cancel", "a,b"], "", "give each id as an argument of its own"),
        (["cancel", "a b"], "", "give each id as an argument of its own"),
        (["cancel", "-", "--yes"], "a,b\n", "put each id on a line of its own"),
    ):
        feed(content.encode())
        ran = run(*argv)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.rstrip().endswith(mend)
    assert not emulator.requests


def test_standard_input_without_ids(run: Run, feed: Feed) -> None:
    """Empty standard input is reported, is not a failure, and needs no key."""
    feed(b"\r\n# nothing\n")
    assert run("cancel", "-") == (0, "", "standard input has no ids; there is nothing to cancel\n")


def test_standard_input_needs_yes(run: Run, emulator: Emulator, feed: Feed) -> None:
    """Ids from standard input need --yes if there is no terminal for a prompt."""
    feed(b"a\n")
    ran = run("cancel", "-")
    assert (ran.code, ran.out) == (2, "")
    assert "--yes" in ran.err
    assert not emulator.requests


def test_declined(run: Run, emulator: Emulator, feed: Feed, on_terminal: Callable[..., None]) -> None:
    """A declined prompt cancels nothing."""
    on_terminal("stderr")
    feed(b"a\nb\n", terminal=True)  # the end of the input declines as well
    ran = run("cancel", "-")
    assert ran.code == 1
    assert "Cancel 2 jobs? [y/N] nothing was cancelled" in ran.err
    assert not emulator.requests


# --- filters


def test_all(run: Run, emulator: Emulator) -> None:
    """--all selects every job that has not finished, and the jobs to cancel are shown first."""
    running = seed(emulator, 2)
    validating = emulator.add_job(status="VALIDATING", ends_as="VALIDATING")
    emulator.add_job(status="FAILED")
    ran = run("cancel", "--all", "--yes")
    assert ran.code == 0
    assert {*running, validating} == {line.partition("\t")[0] for line in ran.lines}
    assert ran.err.startswith("3 jobs: 2 IN_PROGRESS, 1 VALIDATING\n")
    assert emulator.count("cancel") == 3


def test_filters(run: Run, emulator: Emulator) -> None:
    """Several filters must all match."""
    (wanted,) = seed(emulator, 1, model_id="m/1", age_seconds=7_300)
    seed(emulator, 1, model_id="m/1")
    seed(emulator, 1, model_id="m/2", age_seconds=7_300)
    ran = run("cancel", "--model", "m/1", "--older-than", "2h", "--status", "in_progress", "--yes")
    assert ran.lines == [f"{wanted}\tcanceling\tCANCELING"]


def test_finished_ones_on_request(run: Run, emulator: Emulator) -> None:
    """A finished status as a filter selects finished jobs."""
    job_id = emulator.add_job(status="FAILED")
    assert run("cancel", "--status", "FAILED", "--yes").lines == [f"{job_id}\talready_finished\tFAILED"]


def test_mistyped_status(run: Run, emulator: Emulator) -> None:
    """A status that is neither known nor that of any job is an error: "nothing to cancel" would look like success."""
    seed(emulator, 1)
    ran = run("cancel", "--status", "RUNNING", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown status 'RUNNING', and no job has it; the known ones are VALIDATING" in ran.err


def test_several_models(run: Run, emulator: Emulator) -> None:
    """Several --model options are alternatives; the number of jobs without a model is shown before any prompt."""
    wanted = {*seed(emulator, 1, model_id="m/1"), *seed(emulator, 1, model_id="m/2")}
    seed(emulator, 1, model_id="m/3")
    for _ in range(2):
        emulator.add_job(status="VALIDATING", ends_as="VALIDATING", model_id=None)
    emulator.add_job(status="FAILED", model_id=None)
    ran = run("cancel", "--model", "m/1", "--model", "m/2", "--yes")
    assert {line.partition("\t")[0] for line in ran.lines} == wanted
    assert ran.err.startswith("note: 2 jobs without a model were left out: 2 VALIDATING\n2 jobs: 2 IN_PROGRESS\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_dry_run_of_filters(run: Run, emulator: Emulator, as_json: bool) -> None:
    """--dry-run with filters prints the jobs that would be cancelled, without a prompt, and cancels none."""
    ids = seed(emulator, 2)
    ran = run("cancel", "--all", "--dry-run", *(["--json"] if as_json else []))
    assert ran.code == 0
    assert set(ids) == {json.loads(line)["id"] if as_json else line for line in ran.lines}
    assert "2 jobs: 2 IN_PROGRESS" in ran.err
    assert not emulator.count("cancel")


def test_filters_need_yes(run: Run, emulator: Emulator) -> None:
    """Filters need --yes if there is no terminal for a prompt; the error shows how many jobs match."""
    seed(emulator, 1)
    ran = run("cancel", "--all")
    assert (ran.code, ran.out) == (2, "")
    assert "1 job: 1 IN_PROGRESS" in ran.err
    assert not emulator.count("cancel")


@pytest.mark.parametrize(("answer", "code", "sent"), [(b"y\n", 0, 1), (b"n\n", 1, 0)])
def test_asking(
    run: Run,
    emulator: Emulator,
    feed: Feed,
    on_terminal: Callable[..., None],
    answer: bytes,
    code: int,
    sent: int,
) -> None:
    """On a terminal the chosen jobs are shown with a prompt, whose answer decides."""
    seed(emulator, 1)
    on_terminal("stderr")
    feed(answer, terminal=True)
    ran = run("cancel", "--all")
    assert code == ran.code
    assert "Cancel 1 job? [y/N] " in ran.err
    assert sent == emulator.count("cancel")


def test_preview(run: Run, emulator: Emulator, feed: Feed, on_terminal: Callable[..., None]) -> None:
    """Before the prompt, the jobs are counted by model and status, those that name no model too."""
    seed(emulator, 2, model_id="m/1")
    seed(emulator, 1, model_id="m/1", status="IN_PROGRESS")
    emulator.add_job(status="VALIDATING", ends_as="VALIDATING", model_id=None)
    on_terminal("stderr")
    feed(b"n\n", terminal=True)
    ran = run("cancel", "--all")
    assert ran.err == (
        "4 jobs: 3 IN_PROGRESS, 1 VALIDATING\n"
        "  m/1       3 IN_PROGRESS\n"
        "  no model  1 VALIDATING\n"
        "Cancel 4 jobs? [y/N] nothing was cancelled\n"
    )


def test_preview_of_many_models(run: Run, emulator: Emulator) -> None:
    """The preview names the models with the most jobs, and counts the others."""
    for number in range(30):
        seed(emulator, 1, model_id=f"m/{number}")
    lines = run("cancel", "--all", "--dry-run").err.splitlines()
    assert len(lines) == 22
    assert lines[-1].split() == ["10", "more", "models", "10", "jobs"]


def test_dry_run_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """On a terminal, --dry-run prints the table of list."""
    (job_id,) = seed(emulator, 1, model_id="m/1", progress=5, age_seconds=3_610)
    on_terminal("stdout")
    header, row = run("cancel", "--all", "--dry-run").lines
    assert header.split() == ["ID", "STATUS", "DONE", "AGE", "MODEL"]
    assert row.split() == [job_id, "IN_PROGRESS", "5", "%", "1h", "m/1"]


@pytest.mark.parametrize("argv", [["-", "--yes"], ["job-a", "job-b", "job-c"]])
def test_except_among_ids(run: Run, emulator: Emulator, feed: Feed, argv: list[str]) -> None:
    """--except leaves out ids that are given, and one that is not among them is an error."""
    for job_id in ("job-a", "job-b", "job-c"):
        seed(emulator, 1, id=job_id)
    feed(b"job-a\njob-b\njob-c\n")
    ran = run("cancel", *argv, "--except", "job-d")
    assert (ran.code, ran.err) == (
        4,
        "together-batches: error: --except job-d is neither a job of the ids nor a file\n",
    )
    feed(b"job-a\njob-b\njob-c\n")
    ran = run("cancel", *argv, "--except", "job-b", "--except", "JOB-C")
    assert ran.lines == ["job-a\tcanceling\tCANCELING"]


def test_except_all(run: Run, emulator: Emulator) -> None:
    """If every id is left out, nothing is sent."""
    assert run("cancel", "a", "--except", "a") == (0, "", "every id is left out; there is nothing to cancel\n")
    assert not emulator.requests


# --- the report


def outcomes_in(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="") as file:
        return [(row["job_id"], row["result"]) for row in csv.DictReader(file)]


def test_report(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """--report records every id, then each outcome, also those of --wait; there is one for no jobs, too."""
    path = tmp_path / "stopped.csv"
    (job_id,) = seed(emulator, 1, model_id="m")
    assert run("cancel", "--model", "m", "--yes", "--wait", "--report", str(path)).code == 0
    assert outcomes_in(path) == [(job_id, "selected"), (job_id, "canceling"), (job_id, "cancelled")]
    ran = run("cancel", "--model", "m", "--yes", "--report", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert f"continue it with --resume {path}" in ran.err
    assert run("cancel", "--model", "m", "--yes", "--report", str(tmp_path / "none.csv")).code == 0
    assert outcomes_in(tmp_path / "none.csv") == []


def test_resume(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """--resume cancels those whose result is not final, without a prompt, and adds to the report."""
    path = tmp_path / "stopped.jsonl"
    one, two = seed(emulator, 2)
    seed(emulator, 1)
    emulator.fail(Fault(on="cancel", status=400, job_id=one, body={"error": "not now"}))
    assert run("cancel", one, two, "--report", str(path)).code == 5
    before = path.read_bytes()
    assert run("cancel", "--resume", str(path), "--dry-run").lines == [one, two]
    ran = run("cancel", "--resume", str(path), "--wait")
    assert (ran.code, sorted(ran.lines)) == (0, sorted(f"{job_id}\tcancelled\tCANCELLED" for job_id in (one, two)))
    assert path.read_bytes().startswith(before)
    sent = emulator.count("cancel")
    assert run("cancel", "--resume", str(path)) == (
        0,
        "",
        f"every result in {path} is final; there is nothing to cancel\n",
    )
    assert emulator.count("cancel") == sent


def test_report_of_a_cancel_that_is_interrupted(
    run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After Ctrl-C the report has every id, and the summary says how to continue it."""
    path = tmp_path / "stopped.csv"
    ids = seed(emulator, 3)

    def line(_: Common, outcome: CancelOutcome, *__: object) -> str:
        signal.raise_signal(signal.SIGINT)
        return outcome.job_id

    monkeypatch.setattr(command, "outcome_item", line)
    ran = run("cancel", *ids, "--max-concurrency", "1", "--report", str(path))
    assert ran.code == 130
    assert f"cancel --resume {path} resumes it" in ran.err
    assert outcomes_in(path)[:4] == [*((job_id, "selected") for job_id in ids), (ids[0], "canceling")]


# --- on a terminal


def test_many_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """Many jobs on a terminal get a bar, a table with every failure in full, one of the results, and the summary."""
    unknown = "unknown-" + "x" * 200
    ids = [*seed(emulator, 30), unknown]
    on_terminal("stdout", "stderr")
    ran = run("cancel", *ids)
    assert ran.code == 5
    assert ran.lines[:4] == ["ID", "  RESULT     STATUS", unknown, "  not_found  -"]
    assert ran.lines[4].startswith("  the service answered 404")
    assert "RESULT" in ran.lines[ran.lines.index("") + 1]
    assert not any(job_id in ran.out for job_id in ids[:30])
    assert "31 of 31" in ran.err
    assert "30 canceling, 1 not found" in ran.err
    assert "--wait follows it" in ran.err


def test_many_that_went_well(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """Many jobs without a failure get only the table."""
    ids = seed(emulator, 21)
    on_terminal("stdout")
    ran = run("cancel", *ids)
    assert ran.code == 0
    assert "RESULT" in ran.lines[0]
    assert len(ran.lines) == 2


def test_few_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """A few jobs get a line each and neither a bar nor a table."""
    ids = seed(emulator, 20)
    on_terminal("stdout", "stderr")
    ran = run("cancel", *ids)
    assert len(ran.lines) == 20
    assert "20 of 20" not in ran.err


def test_lines_on_a_terminal(
    run: Run, emulator: Emulator, on_terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal a line has blanks between its columns, and the error below it; a narrow one has the id alone."""
    (job_id,) = seed(emulator, 1)
    on_terminal("stdout")
    ran = run("cancel", job_id, "no", "--max-concurrency", "1")
    assert ran.lines[:2] == [f"{job_id}  canceling         CANCELING", f"{'no':36}  not_found         -"]
    assert ran.lines[2].startswith("  the service answered 404")
    monkeypatch.setenv("COLUMNS", "40")
    assert run("cancel", job_id).lines == [job_id, "  canceling         CANCELING"]


def test_quiet_on_a_terminal(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """--quiet leaves standard error empty."""
    ids = seed(emulator, 30)
    on_terminal("stderr")
    ran = run("cancel", *ids, "--quiet")
    assert (ran.code, len(ran.lines), ran.err) == (0, 30, "")


# --- interrupts


def test_interrupt(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a cancel reports the progress."""
    ids = seed(emulator, 3)

    def line(_: Common, outcome: CancelOutcome, *__: object) -> str:
        if outcome.job_id == ids[1]:
            signal.raise_signal(signal.SIGINT)
        return "reported"

    monkeypatch.setattr(command, "outcome_item", line)
    ran = run("cancel", *ids, "--max-concurrency", "1")
    assert (ran.code, ran.out) == (130, "reported\nreported\n")
    assert ran.err.startswith("interrupted: 2 accepted and still stopping, 1 in flight; run it again to resume")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("as_json", [False, True])
def test_interrupt_while_jobs_stop(
    run: Run, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, as_json: bool
) -> None:
    """After an interrupt, accepted cancels are in the summary and on standard output, so that no id is lost."""
    before = signal.getsignal(how)
    with Emulator(timing=Timing(canceling=600)).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        ids = seed(emulator, 30)
        ended = threading.Event()

        def interrupt() -> None:
            # The first read of the jobs that are stopping comes after all have been cancelled.
            while not emulator.count("list"):
                ended.wait(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, how)

        watching = threading.Thread(target=interrupt)
        watching.start()
        ran = run("cancel", *ids, "stray", "--wait", *(["--json"] if as_json else []))
        watching.join()
    assert ran.code == 130
    assert ran.err.startswith(
        "interrupted: 1 not found, 30 accepted and still stopping; run it again to resume, a repeated cancel"
    )
    if as_json:
        events = [(outcome["job_id"], outcome["event"]) for outcome in map(json.loads, ran.lines)]
        assert sorted(events) == sorted([*((job_id, "accepted") for job_id in ids), ("stray", "ended")])
    else:
        results = {line.split("\t")[0]: line.split("\t")[1] for line in ran.lines}
        assert results == {**dict.fromkeys(ids, "canceling"), "stray": "not_found"}
        assert len(ran.lines) == 31
    assert signal.getsignal(how) is before


def test_a_signal_that_is_ignored_stays_ignored(
    run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that is ignored when the command starts stays ignored, as SIGHUP is under nohup."""
    ids = seed(emulator, 2)
    original = command.outcome_item

    def line(common: Common, outcome: CancelOutcome, labels: Labels) -> str:
        signal.raise_signal(signal.SIGHUP)
        return original(common, outcome, labels)

    monkeypatch.setattr(command, "outcome_item", line)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("cancel", *ids).code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_interrupt_before_anything(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the first cancel reports only the interrupt."""

    async def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(command, "chosen_jobs", interrupted)
    assert run("cancel", "--all") == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, "the output was closed by its reader: 1 accepted and still stopping, 1 not sent"), (1, "")],
)
def test_reader_that_leaves(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    expected: str,
) -> None:
    """A reader that closes its pipe ends the command, which reports the jobs that were not reached."""
    ids = seed(emulator, count)

    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", closed)
    with pytest.raises(BrokenPipeError):
        command.cancel.main([*ids, "--max-concurrency", "1"], standalone_mode=False)
    err = capsys.readouterr().err
    assert err.startswith(expected)
    assert bool(expected) is bool(err)


# --- output


CANCELLED = CancelOutcome("a", CancelResult.CANCELLED, BatchJob(id="a", status="CANCELLED"), None, 1)
FAILED = CancelOutcome("b\t\x1b", CancelResult.FAILED, None, APIConnectionError("it\nbroke"), 5)
UNREAD = CancelOutcome("c", CancelResult.ALREADY_FINISHED, None, ConflictError("too late", status=409), 2)
FINISHED = CancelOutcome("d", CancelResult.ALREADY_FINISHED, BatchJob(id="d", status="COMPLETED"), None, 2)


def test_lines() -> None:
    """A line has three columns, whatever they contain."""
    draining = CancelOutcome("e", CancelResult.CANCELING, BatchJob(id="e"), None, 1)
    assert [outcome_item(Common(), outcome, {}) for outcome in (CANCELLED, FAILED, draining)] == [
        "a\tcancelled\tCANCELLED",
        "b\\t\\x1b\tfailed\tit\\nbroke",
        "e\tcanceling\t-",
    ]


def test_json_output() -> None:
    """JSON keeps the id unchanged, and every known field."""
    decoded = json.loads(as_json(FAILED))
    assert decoded["job_id"] == "b\t\x1b"
    assert decoded["result"] == "failed"
    assert decoded["error"] == {"type": "APIConnectionError", "message": "it\nbroke"}


def test_table_of_jobs_that_completed_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs that completed in spite of the cancel have a row of their own, apart from those that had ended before."""
    outran = CancelOutcome("e", CancelResult.ALREADY_FINISHED, BatchJob(id="e", status="COMPLETED"), accepted=True)
    print_table(CancelReport([FINISHED, outran]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        "already finished 1 had ended before: 1 COMPLETED",
        "completed anyway 1 accepted, and they completed all the same",
    ]
    print_table(CancelReport([outran]))
    assert "already finished" not in capsys.readouterr().out


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The table counts each result that occurred, with the final statuses of finished jobs if known."""
    print_table(CancelReport([CANCELLED, FAILED, UNREAD, FINISHED]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "RESULT JOBS WHICH MEANS",
        "cancelled 1 stopped; rows that were done are kept",
        "already finished 2 had ended before: 1 COMPLETED",
        "failed 1 refused, or the request failed, or the id is invalid",
    ]
    print_table(CancelReport([UNREAD]))
    assert capsys.readouterr().out.rstrip().endswith("had ended before")


def test_table_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: Callable[..., None]
) -> None:
    """A narrow terminal shows the results and their whole numbers alone."""
    monkeypatch.setenv("COLUMNS", "20")
    on_terminal("stdout")
    many = [CancelOutcome(str(number), CancelResult.NOT_ATTEMPTED) for number in range(12_345)]
    print_table(CancelReport([UNREAD, *many]))
    expected = ["RESULT", "  JOBS", "already finished", "  1", "not attempted", f"  {format_count(12_345)}"]
    assert capsys.readouterr().out.splitlines() == expected


# --- the choice of jobs


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "no jobs are given"),
        (["--wait", "--yes"], "no jobs are given"),
        (["a", "--all"], "ids or filters, not both"),
        (["-", "--status", "X"], "ids or filters, not both"),
        (["-", "a"], "beside ids"),
        (["-", "-"], "beside ids"),
        (["--except", "a"], "no jobs are given"),
        (["--resume", "a.csv", "b"], "no other ids or filters"),
        (["--resume", "a.csv", "--all"], "no other ids or filters"),
        (["--resume", "a.csv", "--except", "b"], "no other ids or filters"),
        (["--resume", "a.csv", "--report", "b.csv"], "leave out --report"),
        (["--all", "--dry-run", "--report", "b.csv"], "nothing for --report to record"),
    ],
)
def test_no_jobs_or_jobs_twice(run: Callable[..., Ran], argv: list[str], expected: str) -> None:
    """Exactly one of ids, standard input and filters must be given; the error states what to do."""
    ran = run("cancel", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("filters", [["--all", "--model", "m"], ["--status", "FAILED"], ["--older-than", "0s"]])
def test_every_filter_alone_is_enough(run: Callable[..., Ran], filters: list[str]) -> None:
    """Each filter is sufficient alone, even if it selects all jobs."""
    assert run("cancel", *filters, "--dry-run").err == "no job matches; there is nothing to cancel\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("y\n", True), ("YES \n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)],
)
def test_answers_at_the_prompt(
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    answer: str,
    expected: bool,
) -> None:
    """The prompt is on standard error, accepts only a clear yes, and restores the handler of Ctrl-C."""
    feed(answer.encode(), terminal=True)
    on_terminal("stderr")
    before = signal.getsignal(signal.SIGINT)
    assert expected is cancel_confirmed(40, yes=False)
    assert before is signal.getsignal(signal.SIGINT)
    assert capsys.readouterr() == ("", "Cancel 40 jobs? [y/N] ")


@pytest.mark.parametrize("terminals", [(), ("stdin",), ("stderr",)])
def test_no_terminal_for_a_prompt(
    feed: Callable[..., None], on_terminal: Callable[..., None], terminals: tuple[str, ...]
) -> None:
    """--yes is required if the prompt cannot be seen or answered."""
    feed(b"y\n", terminal="stdin" in terminals)
    on_terminal(*(name for name in terminals if name == "stderr"))
    with pytest.raises(CommandError, match="--yes"):
        cancel_confirmed(1, yes=False)
    assert cancel_confirmed(1, yes=True)


def test_interrupt_at_the_prompt(
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C at the prompt interrupts the read without a KeyboardInterrupt, which would break up a task."""
    feed(b"", terminal=True)
    on_terminal("stderr")
    monkeypatch.setattr(sys.stdin, "readline", lambda: signal.raise_signal(signal.SIGINT), raising=False)
    with pytest.raises(Interrupted):
        cancel_confirmed(1, yes=False)
    assert capsys.readouterr().err == "Cancel 1 job? [y/N] \n"
