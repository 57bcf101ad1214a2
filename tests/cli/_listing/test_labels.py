"""Labels of jobs: kept in a file of this machine, and shown wherever a job is."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from together_batches._jobs import awaited_job
from together_batches.cli._account.places import data_directory, locked
from together_batches.cli._listing import filters, labels
from together_batches.cli._listing.labels import Labeller, keep_labels, labels_of
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]

REQUEST = b'{"custom_id": "%d", "body": {"model": "openai/gpt-oss-20b", "messages": []}}\n'


@pytest.fixture(autouse=True)
def silent_before() -> None:
    """Forget what earlier tests of this process have printed."""
    labels._say_once.cache_clear()


@pytest.fixture
def file() -> Path:
    """Return the file of the labels, which is absent."""
    return data_directory() / "labels.jsonl"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return an emulator whose jobs finish at once, unless they are added in another state."""
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)
    with Emulator(timing=Timing(validating=0, running=0, canceling=0.1)).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_API_KEY", str(running.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def requests(tmp_path: Path) -> str:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(REQUEST % 1 + REQUEST % 2)
    return str(path)


def kept(path: Path, *lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines))


# --- the command label


def test_label_and_take_off(run: Run, feed: Callable[..., None]) -> None:
    """`label` adds and removes labels of jobs, by argument or standard input, and prints those that each has."""
    assert run("label", "a", "b", "--label", "x", "--label", "y") == (0, "a\tx, y\nb\tx, y\n", "")
    assert run("label", "a", "--label", "z", "--remove", "x").out == "a\ty, z\n"
    feed(b"b\tIN_PROGRESS\nA\n")
    assert run("label", "-", "--remove", "y").out == "b\tx\nA\tz\n"
    assert json.loads(run("label", "a", "--remove", "z", "--json").out) == {"job_id": "a", "labels": []}
    assert labels_of(["a", "B", "c"]) == {"B": ("x",)}
    ran = run("label", "a")
    assert (ran.code, ran.out) == (2, "")
    assert "there is nothing to change; give --label, --remove, or both" in ran.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a label is not empty"),
        (" \t", "a label is not empty"),
        ("x" * 101, "is longer than 100 characters"),
        ("a\x1b[2J", "has a character that cannot be printed"),
        ("a\u202eb", "has a character that cannot be printed"),
        ("a\udcff", "has a character that cannot be printed"),
        ("a,b", "has a comma in it; give each label by an option of its own"),
    ],
)
def test_what_is_no_label(run: Run, emulator: Emulator, requests: str, text: str, expected: str) -> None:
    """A label is one to a hundred printable characters without a comma; otherwise nothing is sent."""
    ran = run("submit", requests, "--label", text)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert not emulator.requests


def test_equal_letters(run: Run) -> None:
    """White space around a label is not part of it, and letters of two characters are those of one."""
    run("label", "a", "--label", " Cafe\u0301 ")
    assert labels_of(["a"]) == {"a": ("Caf\u00e9",)}


# --- where labels are set


def test_submit(run: Run, emulator: Emulator, requests: str) -> None:
    """`submit --label` labels the job, and prints its labels after what it prints of every job."""
    ran = run("submit", requests, "--label", "nightly", "--label", "v2")
    (job,) = emulator.jobs
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.split("\t")[3:] == ["nightly, v2\n"]
    assert json.loads(run("submit", requests, "--json", "--label", "b").out)["labels"] == ["b"]
    assert len(run("submit", requests).out.split("\t")) == 3
    assert labels_of(str(each["id"]) for each in emulator.jobs).keys() >= {job["id"]}
    ran = run("submit", requests, "--wait", "--label", "waited")
    assert ran.out.strip().split("\t")[-1] == "waited"


def test_run(run: Run, emulator: Emulator, requests: str, tmp_path: Path) -> None:
    """`run --label` labels all jobs of the run, those of earlier calls and those found again, and reports it."""
    argv = ("run", requests, "-o", str(tmp_path / "out.jsonl"), "--max-rows-per-job", "1", "--poll-interval", "0.01")
    assert run(*argv, "--stop-after-rows", "1").code == 5
    assert labels_of(str(job["id"]) for job in emulator.jobs) == {}
    emulator.fail(Fault(on="create", lose="answer"))
    ran = run(*argv, "--label", "nightly")
    assert (ran.code, ran.err.splitlines()[-1]) == (0, "labels of its jobs: nightly")
    ids = [str(job["id"]) for job in emulator.jobs]
    assert len(ids) == 2
    assert labels_of(ids) == dict.fromkeys(ids, ("nightly",))
    assert json.loads(run(*argv, "--json", "--overwrite").out)["labels"] == ["nightly"]


def test_run_that_is_resumed(run: Run, emulator: Emulator, requests: str, tmp_path: Path) -> None:
    """A run that is resumed labels the jobs of earlier processes at its start, even if it fails again."""
    emulator.fail(Fault(on="content", times=None, status=400))
    argv = ("run", requests, "-o", str(tmp_path / "out.jsonl"), "--poll-interval", "0.01")
    assert run(*argv).code == 1
    assert run(*argv, "--label", "nightly").code == 1
    assert [*labels_of(str(job["id"]) for job in emulator.jobs).values()] == [("nightly",)]


# --- where labels are shown


@pytest.fixture
def jobs(run: Run, emulator: Emulator) -> tuple[str, str, str]:
    """Return a job with one label, one with another, and one that has none."""
    made = (*(emulator.add_job(ends_as="IN_PROGRESS", model_id="m", age_seconds=age) for age in (10, 20, 30)),)
    run("label", made[0], "--label", "a", "--label", "b")
    run("label", made[1], "--label", "b")
    return made


def test_list(run: Run, jobs: tuple[str, str, str], on_terminal: Callable[..., None]) -> None:
    """`list` has a last column of labels if any of its jobs has one, in a pipe, in a table and in JSON."""
    assert [line.split("\t")[10] for line in run("list").lines] == ["a, b", "b", "-"]
    assert run("list", "--header").lines[0].endswith("\terror_file\tlabels")
    assert run("list", "--columns", "labels", "--sort", "labels").lines == ["a, b", "b", "-"]
    assert [job.get("labels") for job in json.loads(run("list", "--json").out)] == [["a", "b"], ["b"], None]
    assert run("list", "--count-by", "labels").lines == ["a, b\t1", "b\t1", "-\t1"]
    assert len(run("list", "--except", jobs[0], "--except", jobs[1]).lines[0].split("\t")) == 10
    on_terminal("stdout")
    header, first, *_ = run("list").lines
    assert header.split() == ["ID", "STATUS", "DONE", "AGE", "MODEL", "LABELS"]
    assert first.endswith("  a, b")
    run("label", jobs[0], "--label", "x" * 100)
    assert {len(line) <= 80 for line in run("list").lines} == {True}


def test_list_of_labels(run: Run, jobs: tuple[str, str, str]) -> None:
    """--label chooses the jobs with one of the labels; one of no job is an error, which names those there are."""

    def chosen(*argv: str) -> list[str]:
        return run("list", "--columns", "id", *argv).lines

    assert chosen("--label", "a") == [jobs[0]]
    assert chosen("--label", "b") == chosen("--label", "a", "--label", "b") == [*jobs[:2]]
    assert run("list", "--label", "b", "--status", "FAILED").code == 0
    ran = run("list", "--label", "c")
    assert (ran.code, ran.out) == (4, "")
    assert "no job has the label 'c'; the labels are b (2 jobs), a (1 job)" in ran.err


def test_get(run: Run, jobs: tuple[str, str, str]) -> None:
    """`get` shows the labels as a field."""
    assert [line.split()[1:] for line in run("get", jobs[0]).lines if line.startswith("labels")] == [["a,", "b"]]
    first, last = (json.loads(line) for line in run("get", jobs[0], jobs[2], "--json").lines)
    assert (first["labels"], "labels" in last) == (["a", "b"], False)


def test_wait(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """`wait` prints the labels last, if a job that is waited for has one."""
    ids = [emulator.add_job(status="COMPLETED") for _ in range(2)]
    run("label", ids[0], "--label", "a")
    assert {line.split("\t")[5] for line in run("wait", *ids).lines} == {"a", "-"}
    assert len(run("wait", ids[1]).lines[0].split("\t")) == 5
    assert json.loads(run("wait", ids[0], "--json").out)["labels"] == ["a"]
    on_terminal("stdout")
    assert run("wait", ids[0]).lines[0].split() == [ids[0], "COMPLETED", "a"]


def test_what_would_be_cancelled(run: Run, jobs: tuple[str, str, str], on_terminal: Callable[..., None]) -> None:
    """A dry run shows labels on a terminal and in JSON, and has ids alone in a pipe; labels are counted beside."""
    ran = run("cancel", "--label", "b", "--dry-run")
    assert ran.lines == [*jobs[:2]]
    assert ran.err.endswith("  2 jobs labelled b\n  1 job labelled a\n")
    assert run("cancel", *jobs, "--dry-run").lines == [*jobs]
    for choice in (("--label", "a"), (jobs[0],)):
        assert json.loads(run("cancel", *choice, "--dry-run", "--json").out)["labels"] == ["a", "b"]
    on_terminal("stdout")
    assert run("cancel", "--all", "--dry-run").lines[0].endswith("LABELS")
    assert run("cancel", *jobs, "--dry-run").lines[0].split() == [jobs[0], "a,", "b"]


def test_cancel(
    run: Run, jobs: tuple[str, str, str], on_terminal: Callable[..., None], feed: Callable[..., None], tmp_path: Path
) -> None:
    """The outcome of a cancel, and each line of its report, ends with the labels of the job."""
    report = tmp_path / "report.csv"
    assert [line.split("\t")[3:] for line in run("cancel", *jobs).lines] == [["a, b"], ["b"], ["-"]]
    assert json.loads(run("cancel", jobs[0], "--json").out)["labels"] == ["a", "b"]
    assert run("cancel", jobs[2]).out.count("\t") == 2
    feed("\n".join(jobs).encode())
    ran = run("cancel", "-", "--yes", "--report", str(report))
    assert ran.err.startswith("3 jobs named on standard input\n  2 jobs labelled b\n  1 job labelled a\n")
    assert [line.rpartition("Z,")[2] for line in report.read_text().splitlines()[1:4]] == ['"a, b"', "b", ""]
    on_terminal("stdout")
    assert run("cancel", jobs[0]).lines[0].split()[-2:] == ["a,", "b"]


def test_failures_of_a_large_cancel(run: Run, jobs: tuple[str, str, str], on_terminal: Callable[..., None]) -> None:
    """The table of failures has a column of labels, too."""
    strays = [f"stray-{number:02}" for number in range(20)]
    run("label", strays[3], "--label", "typo")
    on_terminal("stdout")
    lines = run("cancel", jobs[0], *strays).lines
    assert lines[0].split() == ["ID", "RESULT", "STATUS", "LABELS"]
    assert [line.split()[-1] for line in lines if line.startswith("stray-03")] == ["typo"]


def test_runs_show(
    run: Run,
    emulator: Emulator,
    requests: str,
    tmp_path: Path,
    on_terminal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`runs show` has the labels of the jobs at the end of its lines, in its JSON, and above its picture."""
    argv = ("run", requests, "-o", str(tmp_path / "out.jsonl"), "--max-rows-per-job", "1", "--poll-interval", "0.01")
    assert run(*argv).code == 0
    show = ("runs", "show", str(tmp_path / "out.jsonl.run"))
    assert {line.count("\t") for line in run(*show).lines} == {13}
    run("label", str(emulator.jobs[0]["id"]), "--label", "nightly")
    assert sorted(line.split("\t")[14] for line in run(*show).lines) == ["-", "nightly"]
    attempts = [shard["attempts"][0] for shard in json.loads(run(*show, "--json").out)["shards"]]
    assert sorted(attempt.get("labels", []) for attempt in attempts) == [[], ["nightly"]]
    on_terminal("stdout")
    assert run(*show).lines[0] == "labels: nightly"
    monkeypatch.setenv("COLUMNS", "12")
    assert run(*show).lines[0] == "labels: nig…"


# --- the file


def test_the_file(run: Run, file: Path) -> None:
    """The file is private, and has a line for each job and change."""
    run("label", "a", "--label", "x")
    run("label", "a", "--label", "x")
    assert file.read_bytes() == b'{"job_id":"a","labels":["x"]}\n'
    if sys.platform != "win32":
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_that_is_absent(run: Run, emulator: Emulator, file: Path) -> None:
    """Commands without labels create nothing and print nothing of it."""
    emulator.add_job()
    assert run("list").err == ""
    assert not file.parent.exists()


@pytest.mark.parametrize("end", [b'{"job_id":"b","lab', b"{", b'{"job_id":"b","labels":["y"]}'])
def test_a_line_without_an_end(run: Run, file: Path, end: bytes) -> None:
    """A line that was cut off is left out, and one that only lacks its line end counts; nothing is printed."""
    kept(file, b'{"job_id":"a","labels":["x"]}', end)
    expected = {"a": ("x",), "b": ("y",)} if end.endswith(b"}") else {"a": ("x",)}
    assert labels_of(["a", "b"]) == expected
    assert run("label", "c", "--label", "z").err == ""
    assert labels_of(["a", "b", "c"]) == expected | {"c": ("z",)}
    assert file.read_bytes().endswith(b"\n")
    assert [path.name for path in file.parent.iterdir() if "damaged" in path.name] == []


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 100,
        b"\xff\xfe\n<<<<<<< HEAD",
        b"[]",
        b'{"job_id":"b","labels":"y"}',
        b'{"job_id":7,"labels":[]}',
        b'{"job_id":"b","lab\n',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file(run: Run, emulator: Emulator, file: Path, damage: bytes) -> None:
    """A damaged file is set aside unchanged, with one warning; its other lines still count."""
    job_id = emulator.add_job()
    kept(file, b'{"job_id":"%b","labels":["x"]}' % job_id.encode(), damage)
    before = file.read_bytes()
    ran = run("list", "--label", "x")
    assert (ran.code, len(ran.lines), ran.err.count("\n")) == (0, 1, 1)
    (aside,) = file.parent.glob("labels.jsonl.damaged-*")
    assert ran.err.startswith("warning: ")
    assert str(aside) in ran.err
    assert aside.read_bytes() == before
    assert run("list", "--label", "x").err == ""
    run("label", job_id, "--label", "y")
    assert labels_of([job_id]) == {job_id: ("x", "y")}


def test_a_damaged_file_that_cannot_be_set_aside(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels that can be read are shown all the same."""
    kept(file, b"?", b'{"job_id":"a","labels":["x"]}', b"")
    monkeypatch.setattr(type(file), "replace", _full)
    assert labels_of(["a"]) == {"a": ("x",)}
    assert file.read_bytes().startswith(b"?\n")


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_no_file(run: Run, emulator: Emulator, requests: str, file: Path) -> None:
    """Labels are off if something else has the place of the file: it is printed once, and stops no command."""
    file.mkdir(parents=True)
    emulator.add_job(ends_as="IN_PROGRESS")
    note = f"cannot read {file}: it is not a file\n"
    ran = run("cancel", "--all", "--dry-run")
    assert (ran.code, ran.err.count(note)) == (0, 1)
    ran = run("submit", requests, "--label", "x")
    assert (ran.code, ran.err) == (0, f"warning: labels are not kept: {note}")
    assert run("label", "a", "--label", "x").err == f"together-batches: error: {note}"
    assert run("list", "--label", "x").code == 2


def test_a_directory_that_cannot_be_written(run: Run, emulator: Emulator, requests: str, file: Path) -> None:
    """Without a directory, jobs are created and listed as ever, and only labels that are given are missed."""
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.touch()
    ran = run("submit", requests, "--label", "x")
    assert (ran.code, ran.out.count("\t")) == (0, 2)
    assert ran.err.startswith(f"warning: labels are not kept: cannot write in {file.parent}: ")
    assert run("label", "a", "--label", "x").code == 1


def test_a_lock_that_is_held(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds the lock for long delays a label, and no command fails of it."""
    monkeypatch.setattr("together_batches.cli._account.places._MOST_TRIES", 1)
    with locked(file.parent):
        keep_labels(["a"], ["x"])
        assert labels_of(["a"]) == {}
        ran = run("label", "a", "--label", "x")
    assert ran.code == 1
    assert "another process holds" in ran.err


def test_a_full_disk(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that does not fit is not begun: what was there stays, and the next change counts."""
    run("label", "a", "--label", "x")
    before = file.read_bytes()
    created = labels.created

    def full(path: Path, mode: str, **options: int) -> object:
        file = created(path, mode, **options)
        if path.name == "labels.jsonl":
            write = file.write
            monkeypatch.setattr(file, "write", lambda piece: write(piece[:5]) if len(piece) > 30 else _full())
        return file

    with monkeypatch.context() as patched:
        patched.setattr(labels, "created", full)
        ran = run("label", "b", "--label", "y" * 20)
    assert (ran.code, file.read_bytes()) == (1, before)


async def test_a_run_beside_a_lock_that_is_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that a run creates while the lock is held are labelled together, and the event loop waits for nothing."""
    tries: list[list[str]] = []
    ended: list[bool] = []
    begun, may_end = threading.Event(), threading.Event()

    def keep(job_ids: list[str], labels: Sequence[str]) -> None:
        tries.append(job_ids)
        begun.set()
        ended.append(may_end.wait(10))
        keep_labels(job_ids, labels)

    monkeypatch.setattr(labels, "keep_labels", keep)
    ids = [f"job-{number}" for number in range(100)]
    async with Labeller(["x"], file.parent) as labeller:
        labeller.add([ids[0]])
        assert begun.wait(10)
        for job_id in ids[1:]:
            labeller.add([job_id])
        asyncio.get_running_loop().call_soon(may_end.set)
    assert (tries, ended) == ([ids[:1], ids[1:]], [True, True])
    assert len(labels_of(ids)) == 100


def test_labels_are_read_beside_the_event_loop(
    run: Run, emulator: Emulator, requests: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of labels that is slow to read delays no request and no notification."""
    places: list[bool] = []

    def read(job_ids: Iterable[str], **options: bool) -> Mapping[str, tuple[str, ...]]:
        places.append(threading.current_thread() is threading.main_thread())
        return labels_of(job_ids, **options)

    done = emulator.add_job(status="COMPLETED")
    keep_labels([done], ["x"])
    for module in (labels, filters):
        monkeypatch.setattr(module, "labels_of", read)
    running, _ = (emulator.add_job(ends_as="IN_PROGRESS") for _ in range(2))
    for argv in (
        ("wait", done),
        ("watch", done),
        ("watch", "--label", "x", "--status", "completed"),
        ("submit", requests),
        ("cancel", running),
        ("cancel", "--all", "--yes"),
        ("run", requests, "-o", str(tmp_path / "answers.jsonl")),
    ):
        before = len(places)
        assert run(*argv).code == 0
        assert len(places) > before
    assert not any(places)


def test_old_lines(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that no longer count are removed now and then."""
    monkeypatch.setattr(labels, "_MOST_OLD_LINES", 10)
    for number in range(40):
        run("label", "a", "b", "--label", f"x{number}", "--remove", f"x{number - 1}")
        assert labels_of(["a", "b"]) == {"a": (f"x{number}",), "b": (f"x{number}",)}
    assert file.read_bytes().count(b"\n") <= 16


def test_many_jobs(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow for ever: of very many jobs, those that were labelled last keep their labels."""
    monkeypatch.setattr(labels, "_MOST_BYTES", 2_000)
    for number in range(200):
        keep_labels([f"job-{number:03}"], ["x"])
    there = [*labels_of(f"job-{number:03}" for number in range(200))]
    assert file.stat().st_size <= 2_000
    assert there == [f"job-{number:03}" for number in range(200 - len(there), 200)]
    assert len(there) > 20
    ran = run("label", *(f"job-{number:03}" for number in range(200)), "--label", "y")
    assert (ran.code, labels_of(there).keys()) == (1, {*there})
    assert "cannot label 200 jobs at once" in ran.err


def test_a_link(run: Run, file: Path, tmp_path: Path) -> None:
    """A link to the file stays, and its target is written."""
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "elsewhere.jsonl")
    run("label", "a", "--label", "x")
    run("label", "b", "--label", "x")
    assert file.is_symlink()
    assert (tmp_path / "elsewhere.jsonl").read_bytes().count(b"\n") == 2


def test_completion(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The shell completes labels, without a word if the file cannot be read."""
    run("label", "a", "--label", "nightly", "--label", "v2")
    monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "together-batches list --label n")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run() == (0, "plain,nightly\n", "")
    file.unlink()
    file.mkdir()
    assert run() == (0, "\n", "")


def test_writers_at_the_same_time(file: Path) -> None:
    """Ten writers, each with a lock of its own as processes have, lose no label."""

    def label(writer: int) -> None:
        for number in range(10):
            keep_labels([f"job-{writer}-{number}", "shared"], [f"label-{writer}"])

    with ThreadPoolExecutor(10) as writers:
        [*writers.map(label, range(10))]
    assert len(labels_of(f"job-{writer}-{number}" for writer in range(10) for number in range(10))) == 100
    assert {*labels_of(["shared"])["shared"]} == {f"label-{writer}" for writer in range(10)}
