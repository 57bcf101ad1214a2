"""The command ``run``."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import jsonl, runs
from together_batches.cli._account import options as common
from together_batches.cli._terminal import text as output
from together_batches.client import AsyncBatches
from together_batches.emulator import Answer, Emulator, Failure, Fault, Timing
from together_batches.errors import RunLedgerError
from together_batches.runs._lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.conftest import Ran
    from together_batches.runs import RunView

    Run = Callable[..., Ran]

NAMES = ["a", "b", "c", "d", "e"]
OFTEN = ("--poll-interval", "0.02")


def answer(row: dict[str, Any]) -> Answer | Failure | None:
    """Return the emulator's result of a row: "bad" fails, and would fail again."""
    return Failure("no such thing", code="400") if row["custom_id"] == "bad" else Answer(f"to {row['custom_id']}")


def written(path: Path, names: list[str]) -> str:
    path.write_bytes(b"".join(jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in names))
    return str(path)


def rows_of(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def unreadable(*_: object) -> RunView:
    """Fail as the reading of a run does."""
    message = "too many open files"
    raise RunLedgerError(message, directory="answers.jsonl.run")


@pytest.fixture
def requests(here: Path) -> str:
    """Return a file of five requests."""
    return written(here / "requests.jsonl", NAMES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return an emulator whose jobs finish at once."""
    timing = Timing(validating=0, running=0)
    with Emulator(timing=timing, answer=answer).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def test_run(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A run writes every answer in order to one file, prints its events as lines, and ends with a summary."""
    ran = run("run", requests, "-o", "answers.jsonl", "--max-rows-per-job", "2", *OFTEN)
    assert (ran.code, ran.out) == (0, "")
    assert rows_of(here / "answers.jsonl") == NAMES
    assert len(swift.jobs) == 3
    lines = ran.err.splitlines()
    assert lines[0] == "5 rows of requests.jsonl in 3 shards"
    assert sum("is created" in line for line in lines if line.startswith("shard ")) == 3
    assert lines[-2].startswith("5 answered; 3 jobs, ")
    assert "; took " in lines[-2]
    assert lines[-1] == "answers: answers.jsonl"


def test_again(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A finished run that is started again creates no job."""
    run("run", requests, "-o", "answers.jsonl", *OFTEN)
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, len(swift.jobs)) == (0, 1)
    assert ran.err.splitlines()[-1] == "answers: answers.jsonl"


def test_quiet(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """--quiet prints nothing."""
    assert run("run", requests, "-o", "answers.jsonl", "--quiet", *OFTEN) == (0, "", "")


def test_json(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """--json prints the complete report."""
    ran = run("run", requests, "-o", "answers.jsonl", "--json", "--quiet", *OFTEN)
    report = json.loads(ran.out)
    assert (ran.code, report["succeeded"], report["ok"], report["output"]) == (0, 5, True, "answers.jsonl")
    assert report["job_ids"] == [job["id"] for job in swift.jobs]


def test_settings_of_the_jobs(run: Run, swift: Emulator, here: Path) -> None:
    """Options of the jobs are sent with each create, and each file is written to the requested path."""
    clip = jsonl.audio_request("clip", model="m", file="https://media.example/clip.wav")
    (here / "clips.jsonl").write_bytes(jsonl.encode(clip))
    options = ["--endpoint", "/v1/audio/transcriptions", "--model", "m", "--priority", "-2", "--run-dir", "kept"]
    options += ["--max-jobs", "1", "--max-enqueued-rows", "10", "--max-attempts", "2", "--stop-after-tokens", "900"]
    assert run("run", "clips.jsonl", "-o", "answers.jsonl", *options, *OFTEN).code == 0
    (create,) = [json.loads(request.body) for request in swift.requests if request.operation == "create"]
    assert (create["endpoint"], create["model_id"], create["priority"]) == ("/v1/audio/transcriptions", "m", -2)
    assert (here / "kept").is_dir()


def test_rows_that_fail(run: Run, swift: Emulator, here: Path) -> None:
    """Failed rows set the exit code, and are written to a file of their own."""
    requests = written(here / "requests.jsonl", ["a", "bad"])
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 5
    assert ran.err.splitlines()[-3].startswith("1 answered, 1 failed; ")
    assert ran.err.splitlines()[-1] == "rows that were not answered: answers.failures.jsonl"
    assert run("run", requests, "-o", "other.jsonl", "--failures", "failures.jsonl", *OFTEN).code == 5
    assert rows_of(here / "failures.jsonl") == ["bad"]


def test_bad_lines(run: Run, swift: Emulator, here: Path) -> None:
    """Invalid lines are refused with their line numbers, or set aside with --skip-invalid."""
    requests = Path(written(here / "requests.jsonl", ["a", "b"]))
    requests.write_bytes(b"no JSON\n" + requests.read_bytes() + b'{"custom_id": "c"}\n')
    ran = run("run", str(requests), "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, ran.out) == (1, "")
    text = ran.err.splitlines()
    assert text[0].startswith("together-batches: error: ")
    assert [line.split(" (")[0] for line in text[1:-1]] == ["line 1", "line 4"]
    assert text[0].endswith("fix this, or set bad lines aside with --skip-invalid")
    assert text[-1] == "nothing was sent"
    assert len(swift.jobs) == 0
    ran = run("run", str(requests), "-o", "answers.jsonl", "--skip-invalid", *OFTEN)
    assert ran.code == 5
    assert rows_of(here / "answers.jsonl") == ["a", "b"]
    bad = ran.err.splitlines()[-1].removeprefix("bad lines: ")
    assert len(Path(bad).read_text().splitlines()) == 2


def test_a_stop_on_spending(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A run that a spending limit stopped is not finished, and the same command sends more."""
    ran = run("run", requests, "-o", "answers.jsonl", "--max-rows-per-job", "2", "--stop-after-rows", "2", *OFTEN)
    assert ran.code == 5
    assert "2 answered, 3 not sent; 1 job" in ran.err
    assert ran.err.endswith("run the same command again to resume; the run is kept in answers.jsonl.run\n")
    assert not (here / "answers.jsonl").exists()
    assert run("run", requests, "-o", "answers.jsonl", "--max-rows-per-job", "2", *OFTEN).code == 0
    assert len(swift.jobs) == 3


def test_standard_input(run: Run, swift: Emulator, feed: Callable[..., None], here: Path, requests: str) -> None:
    """Standard input is kept in the run directory, so that the same command resumes; other requests are refused."""
    content = Path(requests).read_bytes()
    feed(content)
    assert run("run", "-", "-o", "answers.jsonl", *OFTEN).code == 0
    assert rows_of(here / "answers.jsonl") == NAMES
    for again in (content, b""):
        feed(again)
        assert run("run", "-", "-o", "answers.jsonl", *OFTEN).code == 0
    assert len(swift.jobs) == 1
    feed(content + content)
    ran = run("run", "-", "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 1
    assert "what is read now is not what the run in answers.jsonl.run began with" in ran.err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["requests.jsonl"], "a run takes a file of requests and, with -o, the file for the answers"),
        (["-o", "answers.jsonl"], "a run takes a file of requests and, with -o, the file for the answers"),
        (["requests.jsonl", "-o", "-"], "-o - would be standard output, and a run writes files"),
        (["requests.jsonl", "-o", "answers.jsonl", "--failures", "-"], "--failures - would be standard output"),
        (["requests.jsonl", "-o", "/dev/null"], "cannot write /dev/null: it is not a file"),
        (["requests.jsonl", "-o", "answers.jsonl", "--wait"], "--wait is for --cancel"),
        (["requests.jsonl", "--cancel", "answers.jsonl.run"], "--cancel takes the directory of a run"),
        (["--cancel", "answers.jsonl.run", "--max-jobs", "2"], "--cancel takes the directory of a run"),
        (["--cancel", "answers.jsonl.run"], "there is no directory answers.jsonl.run"),
        (["--cancel", "."], "there is no run in ."),
        (["--cancel", "x" * 300], "file name too long"),
        (
            ["requests.jsonl", "-o", "there.jsonl"],
            "there.jsonl exists already, and is left alone; --overwrite replaces",
        ),
        (["requests.jsonl", "-o", "requests.jsonl"], "the same file"),
        (["requests.jsonl", "-o", "answers.jsonl", "--max-rows-per-job", "50001"], "--max-rows-per-job is at most "),
        (["nowhere.jsonl", "-o", "answers.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be(
    run: Run, swift: Emulator, here: Path, requests: str, argv: list[str], complaint: str
) -> None:
    """Invalid combinations are refused before anything is sent, with the names of the options."""
    (here / "there.jsonl").write_text("mine")
    ran = run("run", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert "=True" not in ran.err
    assert len(swift.requests) == 0


def test_force(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """An existing output is replaced with --overwrite."""
    (here / "answers.jsonl").write_text("old")
    assert run("run", requests, "-o", "answers.jsonl", "--overwrite", *OFTEN).code == 0
    assert rows_of(here / "answers.jsonl") == NAMES


def test_an_input_that_changed(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A changed input is refused, because the answers would be of two inputs."""
    run("run", requests, "-o", "answers.jsonl", *OFTEN)
    written(here / "requests.jsonl", ["x"])
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 1
    assert len(swift.jobs) == 1


def test_a_run_in_use(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A run in use is refused, and the error names the process that has it."""
    directory = here / "answers.jsonl.run"
    directory.mkdir()
    with locked(directory):
        ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 1
    assert "in use by process " in ran.err


def test_a_key_that_is_refused(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A refused key ends the run with its own exit code."""
    swift.fail(Fault(on="begin_upload", status=401, times=None))
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 3
    assert ran.err.splitlines()[-1].startswith("the key is that of TOGETHER_API_KEY")


@pytest.fixture
def left(
    run: Run, emulator: Emulator, here: Path, requests: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Return a run that is interrupted while its three jobs are still running."""
    created = 0

    def print_err(text: str) -> None:
        nonlocal created
        output.print_err(text)
        created += text.endswith("is created")
        if created == 3:
            created += 1
            signal.raise_signal(signal.SIGINT)

    emulator.timing = Timing(validating=0, running=3_600)
    monkeypatch.setattr(common, "print_err", print_err)
    return lambda *options: run("run", requests, "-o", "answers.jsonl", "--max-rows-per-job", "2", *OFTEN, *options)


def test_interrupted(left: Callable[..., Ran], emulator: Emulator) -> None:
    """An interrupted run prints how to resume and how to cancel, and leaves the jobs alone."""
    ran = left()
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-2:] == [
        "interrupted: 0 of 5 rows are done; run the same command again to resume",
        "3 jobs still run at the service; to cancel: together-batches run --cancel answers.jsonl.run",
    ]
    assert emulator.count("cancel") == 0


def test_cancel_on_interrupt(left: Callable[..., Ran], emulator: Emulator) -> None:
    """With --cancel-on-interrupt, an interrupt cancels the jobs."""
    ran = left("--cancel-on-interrupt")
    assert ran.code == 130
    assert ran.err.endswith(
        "3 jobs had to be cancelled; to make sure: together-batches run --cancel answers.jsonl.run\n"
    )
    assert {job["status"] for job in emulator.jobs} <= {"CANCELING", "CANCELLED"}


def test_too_long(run: Run, emulator: Emulator, here: Path, requests: str) -> None:
    """When --timeout expires, the jobs are left alone, and the error states how to resume."""
    ran = run("run", requests, "-o", "answers.jsonl", "--timeout", "1")
    assert (ran.code, ran.out) == (6, "")
    assert "timed out after 1 s: 0 of 5 rows are done; run the same command again to resume" in ran.err
    assert emulator.count("cancel") == 0


def test_cancel(left: Callable[..., Ran], run: Run, emulator: Emulator) -> None:
    """--cancel cancels the unfinished jobs of the run without a prompt, with the output of ``cancel``."""
    left()
    ran = run("run", "--cancel", "answers.jsonl.run")
    assert ran.code == 0
    assert sorted(line.split("\t")[0] for line in ran.lines) == sorted(str(job["id"]) for job in emulator.jobs)
    assert all(line.split("\t")[1:] == ["canceling", "CANCELING"] for line in ran.lines)
    assert ran.err.startswith("3 jobs of the run in answers.jsonl.run\n3 canceling; took ")
    ran = run("run", "--cancel", "answers.jsonl.run", "--json", "--quiet")
    assert [json.loads(line)["result"] for line in ran.lines] == ["canceling"] * 3
    assert ran.err == ""


def test_cancel_what_has_ended(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """--cancel on a finished run does nothing."""
    run("run", requests, "-o", "answers.jsonl", *OFTEN)
    ran = run("run", "--cancel", "answers.jsonl.run")
    assert ran == (0, "", "every job of the run in answers.jsonl.run has ended; there is nothing to cancel\n")


def test_interrupted_before_anything_was_begun(
    run: Run, swift: Emulator, here: Path, requests: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted before it starts prints no hint to resume."""

    async def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AsyncBatches, "run", interrupt)
    ran = run("run", requests, "-o", "answers.jsonl")
    assert ran == (130, "", "interrupted: nothing was sent; run the same command again to start over\n")


def test_a_bar(run: Run, swift: Emulator, here: Path, requests: str, on_terminal: Callable[..., None]) -> None:
    """On a terminal, a run draws a bar instead of the lines."""
    on_terminal("stderr")
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert ran.code == 0
    assert "Reading the input" in ran.err
    assert "is created" not in ran.err
    assert ran.err.splitlines()[-1] == "answers: answers.jsonl"


def test_a_ledger_that_cannot_be_read_meanwhile(
    run: Run,
    swift: Emulator,
    here: Path,
    requests: str,
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the bar shows is read nowhere, so a run that finishes is a success, whatever happens to its reader."""
    monkeypatch.setattr(runs, "read", unreadable)
    on_terminal("stderr")
    ran = run("run", requests, "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, rows_of(here / "answers.jsonl")) == (0, NAMES)
    assert "5 of 5 rows" in ran.err
    assert ran.err.splitlines()[-1] == "answers: answers.jsonl"


def test_interrupted_when_its_ledger_cannot_be_read(
    left: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said that nothing was sent, because jobs may run."""
    monkeypatch.setattr(runs, "read", unreadable)
    ran = left()
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "interrupted: too many open files; run the same command again to resume"


# --- tables


CITIES = "id,city\n1,Paris\n2,London\n"
PROMPT = ("--prompt", "Where is {city}?", "--model", "m")


def test_a_table(run: Run, swift: Emulator, here: Path) -> None:
    """With ``--prompt``, each row of a table becomes a request; ``--model`` is that of the requests."""
    (here / "cities.csv").write_text(CITIES)
    options = ("--system", "Be brief.", "--parameter", "max_tokens=5", "--parameter", "tool_choice=none")
    ran = run("run", "cities.csv", *PROMPT, *options, "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("2 rows of cities.csv in 1 shard\n")
    assert rows_of(here / "answers.jsonl") == ["1", "2"]
    (job,) = swift.jobs
    first = json.loads(swift.content(job["input_file_id"]).splitlines()[0])
    assert first == {
        "custom_id": "1",
        "body": {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Paris?"}],
            "max_tokens": 5,
            "tool_choice": "none",
        },
    }
    again = run("run", "cities.csv", *PROMPT, *options, "-o", "answers.jsonl", *OFTEN)
    assert again.err.startswith("2 rows of cities.csv in 1 shard: 2 are done")


def test_a_table_that_changed(run: Run, swift: Emulator, here: Path) -> None:
    """Another table, or another prompt, is refused; the message names it."""
    (here / "cities.csv").write_text(CITIES)
    assert run("run", "cities.csv", *PROMPT, "-o", "answers.jsonl", *OFTEN).code == 0
    ran = run("run", "cities.csv", *PROMPT, "--system", "x", "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, "were made with another system" in ran.err) == (1, True)
    (here / "cities.csv").write_text(f"{CITIES}3,Rome\n")
    ran = run("run", "cities.csv", *PROMPT, "-o", "answers.jsonl", *OFTEN)
    assert (ran.code, "were made with another table" in ran.err) == (1, True)


def test_a_long_value_of_a_table(run: Run, swift: Emulator, here: Path) -> None:
    """The command reads values of CSV up to the limit of a line."""
    before = csv.field_size_limit()
    (here / "cities.csv").write_text(f"id,city\n1,{'x' * 200_000}\n")
    assert run("run", "cities.csv", *PROMPT, "-o", "answers.jsonl", *OFTEN).code == 0
    assert csv.field_size_limit() == before


def test_problems_of_a_table(run: Run, swift: Emulator, here: Path) -> None:
    """Each is listed with its row and column, and names options; nothing is sent."""
    (here / "cities.csv").write_text("id,city\n1,Paris\n1,\n")
    ran = run("run", "cities.csv", *PROMPT, "--images", "city", "-o", "answers.jsonl")
    assert (ran.code, swift.jobs) == (1, [])
    first = (
        "row 1, column 'city': the image 'Paris' cannot be sent: local images need --image-directory, and only those "
        "inside of it are sent"
    )
    assert ran.err.splitlines() == [
        f"together-batches: error: cities.csv: {first}; 2 problems in all",
        first,
        "row 2, column 'city': '' is not an image: write a URL, or the path of a file",
        "nothing was sent",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "cities.csv is a table: --prompt, with its columns in braces, makes a request of each row"),
        (("--custom-id", "city"), 2, "--custom-id is for a table: add --prompt"),
        (("--parameter", "a=1"), 2, "--parameter is for a table: add --prompt"),
        (("--prompt", "{city}"), 2, "--prompt makes requests: name their model with --model"),
        (("--prompt", "hello", "--model", "m"), 2, "the prompt names no column, so all requests would be equal"),
        ((*PROMPT, "--custom-id", "key"), 2, "cities.csv has no column 'key'; its columns are 'id', 'city'"),
        ((*PROMPT, "--parameter", "a"), 2, "invalid --parameter: 'a' is not NAME=VALUE, such as max_tokens=32"),
        ((*PROMPT, "--parameter", "prompt=1"), 2, "invalid --parameter: prompt has an option of its own, or none"),
        (
            (*PROMPT, "--image-directory", "absent", "--images", "city"),
            2,
            "--image-directory is not a directory: absent",
        ),
    ],
)
def test_options_of_tables_that_cannot_be(
    run: Run, swift: Emulator, here: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """The error says what to do, and nothing is sent."""
    (here / "cities.csv").write_text(CITIES)
    ran = run("run", "cities.csv", "-o", "answers.jsonl", *arguments)
    assert ran.code == code
    assert message in ran.err
    assert swift.jobs == []


# --- a sample first ---

SAMPLE = ("-o", "answers.jsonl", "--sample", "2", "--price-in", "1000", "--price-out", "1000", *OFTEN)


def test_a_sample_needs_yes_without_a_terminal(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """Without a terminal the other rows are sent only with --yes, and no row twice."""
    ran = run("run", requests, *SAMPLE, "--json")
    assert (ran.code, json.loads(ran.out)["not_sent"], swift.count("create")) == (2, 3, 1)
    assert "3 rows left; all rows need about" in ran.err.splitlines()[-1]
    assert ran.err.endswith("at list prices; they are sent only with --yes\n")
    ran = run("run", requests, *SAMPLE, "--json", "--yes")
    assert (ran.code, json.loads(ran.out)["succeeded"], swift.count("create")) == (0, 5, 2)
    assert rows_of(here / "answers.jsonl") == NAMES
    assert "batches may cost less than list prices" in ran.err


@pytest.mark.parametrize(("typed", "code", "sent"), [(b"y\n", 0, 2), (b"n\n", 1, 1)])
def test_a_sample_asks_on_a_terminal(
    run: Run,
    swift: Emulator,
    here: Path,
    requests: str,
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    typed: bytes,
    code: int,
    sent: int,
) -> None:
    """On a terminal the figures are in the question, whose answer decides."""
    feed(typed, terminal=True)
    on_terminal("stderr")
    ran = run("run", requests, *SAMPLE, "--quiet")
    assert (ran.code, swift.count("create")) == (code, sent)
    assert " at list prices. Send them? [y/N] " in ran.err


def test_interrupted_at_the_prompt(
    run: Run,
    swift: Emulator,
    here: Path,
    requests: str,
    feed: Callable[..., None],
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C at the prompt ends the command with the state of the run."""
    feed(b"", terminal=True)
    on_terminal("stderr")
    monkeypatch.setattr(sys.stdin, "readline", lambda: signal.raise_signal(signal.SIGINT), raising=False)
    ran = run("run", requests, *SAMPLE, "--quiet")
    assert (ran.code, swift.count("create")) == (130, 1)
    assert ran.err.endswith("interrupted: 2 of 5 rows are done; run the same command again to resume\n")


def test_a_sample_without_an_answer(run: Run, swift: Emulator, here: Path) -> None:
    """If no row of the sample was answered, the others are not sent, also with --yes."""
    source = written(here / "bad.jsonl", ["bad", *NAMES])
    ran = run("run", source, "-o", "answers.jsonl", "--sample", "1", "--yes", *OFTEN)
    assert (ran.code, swift.count("create")) == (5, 1)
    assert "stopped: only the sample was to be sent" in ran.err
    assert "not finished: run the command without --sample to send the other rows" in ran.err


def test_yes_without_a_sample(run: Run, here: Path, requests: str) -> None:
    """--yes belongs to --sample."""
    ran = run("run", requests, "-o", "answers.jsonl", "--yes")
    assert (ran.code, ran.err) == (2, "together-batches: error: --yes is for --sample, the only prompt of a run\n")


def test_a_budget_needs_a_price(run: Run, swift: Emulator, here: Path, requests: str) -> None:
    """A budget in dollars is refused if no price is known, in the words of the options."""
    ran = run("run", requests, "-o", "answers.jsonl", "--stop-after-cost", "5", *OFTEN)
    assert ran.code == 2
    assert ran.err.endswith(
        "--stop-after-cost needs the price of m, which is not known: pass --price-in and --price-out\n"
    )
    assert swift.count("create") == 0
