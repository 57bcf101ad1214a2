"""The command ``submit``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from together_batches import jsonl
from together_batches._jobs import awaited_job, submit
from together_batches._jobs import create as _create
from together_batches.client import AsyncBatches
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.conftest import Ran

    Run = Callable[..., Ran]

LINES = b"".join(jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in "ab")


def unmarked(content: bytes) -> bytes:
    """Return an upload without the 64 spaces and tabs that each submission adds."""
    return re.sub(rb"\{[ \t]{64}", b"{", content)


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """Return a file of two requests."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(LINES)
    return str(file)


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return an emulator whose jobs finish at once, with short intervals between reads."""
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)
    with Emulator(timing=Timing(validating=0.1, running=0.1)).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def test_submit(run: Run, emulator: Emulator, requests: str) -> None:
    """A submission prints a line on standard output that ``wait`` accepts as input."""
    ran = run("submit", requests)
    (job,) = emulator.jobs
    assert (0, f"{job['id']}\tVALIDATING\t{job['input_file_id']}\n", "") == ran
    assert unmarked(emulator.content(str(job["input_file_id"]))) == LINES
    assert re.fullmatch(r"requests-[0-9a-f]{16}\.jsonl", str(emulator.files[0]["filename"]))


def test_json(run: Run, emulator: Emulator, requests: str) -> None:
    """--json prints the complete job."""
    ran = run("submit", requests, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["id"] == emulator.jobs[0]["id"]


def test_on_a_terminal(run: Run, emulator: Emulator, requests: str, on_terminal: Callable[..., None]) -> None:
    """A terminal shows the file on a line of its own, since id, status and file are wider than 80 columns."""
    on_terminal("stdout")
    first, second = run("submit", requests).lines
    assert re.fullmatch("[0-9a-f-]{36}  VALIDATING", first)
    assert re.fullmatch("  file-[0-9a-f-]{36}", second)


def test_settings_of_the_job(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """Options of the job are sent with the create."""
    clip = jsonl.audio_request("clip", model="m", file="https://media.example/clip.wav")
    (tmp_path / "clips.jsonl").write_bytes(jsonl.encode(clip))
    options = ["--endpoint", "/v1/audio/transcriptions", "--model", "m", "--priority", "-2"]
    assert run("submit", str(tmp_path / "clips.jsonl"), *options).code == 0
    create = json.loads(emulator.requests[-1].body)
    assert (create["endpoint"], create["model_id"], create["priority"]) == ("/v1/audio/transcriptions", "m", -2)


def test_standard_input(run: Run, emulator: Emulator, feed: Callable[..., None]) -> None:
    """Standard input is accepted like any other file."""
    feed(LINES)
    assert run("submit", "-").code == 0
    assert unmarked(emulator.content(str(emulator.jobs[0]["input_file_id"]))) == LINES
    feed(b"no JSON")
    ran = run("submit", "-")
    assert (ran.code, ran.out) == (1, "")
    assert "1 problem: line 1" in ran.err


def test_nothing_is_sent_of_what_cannot_be_a_job(run: Run, emulator: Emulator, requests: str, tmp_path: Path) -> None:
    """An invalid file is not sent; the error shows the first problem, and how to see the others."""
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(LINES + LINES)
    ran = run("submit", str(bad))
    assert (ran.code, ran.out) == (1, "")
    assert f"{bad}: 2 problems in lines 3, 4; the first: line 3 " in ran.err
    assert ran.err.endswith(f"nothing was sent; to see all problems: together-batches validate {bad}\n")
    assert run("submit", str(tmp_path / "nowhere.jsonl")).code == 2
    assert run("submit", str(tmp_path)).code == 2
    assert len(emulator.requests) == 0


def test_what_the_service_says(run: Run, emulator: Emulator, requests: str) -> None:
    """A warning of the service is printed beside the job, and its refusal as the error."""
    job = {"id": "job-1", "status": "VALIDATING"}
    emulator.fail(Fault(on="create", status=201, body={"job": job, "warning": "busy\x1b"}))
    assert run("submit", requests) == (0, "job-1\tVALIDATING\t-\n", "the service warns: busy\\x1b\n")
    emulator.fail(Fault(on="create", status=201, body={"job": None, "warning": "quota exceeded"}))
    ran = run("submit", requests)
    assert (ran.code, ran.out) == (1, "")
    assert "quota exceeded" in ran.err
    assert emulator.count("list") == 0
    emulator.fail(Fault(on="begin_upload", status=401))
    assert run("submit", requests).code == 3


def test_the_same_file_twice(run: Run, emulator: Emulator, requests: str) -> None:
    """The same file twice becomes two jobs with two uploaded files, and stays unchanged itself."""
    ids = {tuple(run("submit", requests).out.split("\t")) for _ in range(2)}
    assert len({job for job, _, _ in ids}) == len({file for _, _, file in ids}) == 2
    assert Path(requests).read_bytes() == LINES


def test_a_lost_answer(run: Run, emulator: Emulator, requests: str) -> None:
    """After a lost response, the created job is looked for and found."""
    emulator.fail(Fault(on="create", lose="answer"))
    ran = run("submit", requests)
    (job,) = emulator.jobs
    assert (ran.code, ran.out.split("\t")[0]) == (0, job["id"])


def test_patience(run: Run, emulator: Emulator, requests: str) -> None:
    """--patience limits the search for a job whose create may have worked; then the error names its file."""
    emulator.fail(Fault(on="create", lose="request", times=None))
    ran = run("submit", requests, "--patience", "0")
    assert (ran.code, ran.out) == (1, "")
    assert f"a create for {emulator.files[0]['id']} was sent, its answer was lost" in ran.err
    assert "look at the list before you create again" in ran.err
    assert (emulator.count("create"), emulator.count("list")) == (2, 2)
    assert run("submit", requests, "--patience", "-1").code == 2


def test_wait(run: Run, swift: Emulator, requests: str) -> None:
    """--wait prints the line of ``wait``, and each change of status before it."""
    ran = run("submit", requests, "--wait")
    (job,) = swift.jobs
    assert (ran.code, ran.out) == (0, f"{job['id']}\tCOMPLETED\t{job['output_file_id']}\t-\t-\n")
    assert ran.err.startswith(f"job {job['id']} was created from {job['input_file_id']}\n")
    ran = run("submit", requests, "--wait", "--quiet", "--json", "--timeout", "60")
    assert (ran.code, ran.err, json.loads(ran.out)["status"]) == (0, "", "COMPLETED")


def test_wait_for_a_job_that_ends_badly(run: Run, swift: Emulator, tmp_path: Path) -> None:
    """A job that ends badly sets the exit code of --wait."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(jsonl.encode(jsonl.chat_request("a", model="dedicated/m", messages=[])))
    ran = run("submit", str(file), "--wait")
    assert ran.code == 7
    assert ran.out.split("\t")[:2] == [swift.jobs[0]["id"], "FAILED"]


def test_wait_too_long(run: Run, emulator: Emulator, requests: str) -> None:
    """If --timeout expires during --wait, the job is printed as last read, and left alone."""
    ran = run("submit", requests, "--wait", "--timeout", "1")
    assert (6, f"{emulator.jobs[0]['id']}\tVALIDATING\t-\t-\t-\n") == (ran.code, ran.out)
    assert "was still pending; left alone" in ran.err
    emulator.fail(Fault(on="retrieve", status=401, times=None))
    ran = run("submit", requests, "--wait")
    assert (3, emulator.jobs[1]["id"]) == (ran.code, ran.out.split("\t")[0])
    assert emulator.count("cancel") == 0


def test_too_long_before_there_is_a_job(run: Run, emulator: Emulator, requests: str) -> None:
    """--timeout covers the whole call; before the create, the error names what may exist."""
    emulator.fail(Fault(on="create", delay=60))
    ran = run("submit", requests, "--timeout", "1")
    assert (ran.code, ran.out) == (6, "")
    (file,) = emulator.files
    assert f"timed out after 1 s: a job may have been created from {file['id']}; look with" in ran.err


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((submit, "submit"), "no job was created"),
        (
            (_create, "create_once"),
            "a job may have been created from file-1; look with together-batches list --input-file file-1",
        ),
        ((AsyncBatches, "wait"), "job job-1 was created, and was left alone"),
    ],
    ids=["upload", "create", "wait"],
)
def test_interrupted(
    run: Run,
    emulator: Emulator,
    requests: str,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[object, str],
    expected: str,
) -> None:
    """An interrupted submission reports what exists at the service."""

    async def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    emulator.fail(Fault(on="create", status=201, body={"job": {"id": "job-1", "status": "VALIDATING"}}))
    monkeypatch.setattr(*place, interrupt)
    ran = run("submit", requests, "--wait", "--quiet")
    file_id = next((str(file["id"]) for file in emulator.files), "")
    assert ran == (130, "", f"interrupted: {expected.replace('file-1', file_id)}\n")


def test_a_bar(run: Run, emulator: Emulator, requests: str, on_terminal: Callable[..., None]) -> None:
    """On a terminal, an upload shows a bar."""
    on_terminal("stderr")
    assert "Uploading" in run("submit", requests).err
    assert "Uploading" not in run("submit", requests, "--quiet").err
