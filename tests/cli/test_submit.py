"""``together-batches submit``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches import _waiting, jsonl
from together_batches.cli import _submit
from together_batches.client import AsyncBatches
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]

LINES = b"".join(jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in "ab")


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """A file of two requests."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(LINES)
    return str(file)


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose jobs take no time, and is looked at often."""
    monkeypatch.setattr(_waiting, "_SHORTEST_SECONDS", 0.02)
    with Emulator(timing=Timing(validating=0.1, running=0.1)).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def test_submit(run: Run, emulator: Emulator, requests: str) -> None:
    """A line on standard output, that can be waited for."""
    ran = run("submit", requests)
    (job,) = emulator.jobs
    assert (0, f"{job['id']}\tVALIDATING\t{job['input_file_id']}\n", "") == ran
    assert emulator.content(str(job["input_file_id"])) == LINES
    assert emulator.files[0]["filename"] == "requests.jsonl"


def test_json(run: Run, emulator: Emulator, requests: str) -> None:
    """The job, whole."""
    ran = run("submit", requests, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["id"] == emulator.jobs[0]["id"]


def test_what_is_asked_of_the_job(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """Goes with the create."""
    clip = jsonl.audio_request("clip", model="m", file="https://media.example/clip.wav")
    (tmp_path / "clips.jsonl").write_bytes(jsonl.encode(clip))
    options = ["--endpoint", "/v1/audio/transcriptions", "--model", "m", "--priority", "-2"]
    assert run("submit", str(tmp_path / "clips.jsonl"), *options).code == 0
    create = json.loads(emulator.requests[-1].body)
    assert (create["endpoint"], create["model_id"], create["priority"]) == ("/v1/audio/transcriptions", "m", -2)


def test_standard_input(run: Run, emulator: Emulator, feed: Callable[..., None]) -> None:
    """Is a file as any other."""
    feed(LINES)
    assert run("submit", "-").code == 0
    assert emulator.content(str(emulator.jobs[0]["input_file_id"])) == LINES
    feed(b"no JSON")
    ran = run("submit", "-")
    assert (ran.code, ran.out) == (1, "")
    assert "1 problem: line 1" in ran.err


def test_nothing_is_sent_of_what_cannot_be_a_job(run: Run, emulator: Emulator, requests: str, tmp_path: Path) -> None:
    """The first problem is told, and how to see the others."""
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(LINES + LINES)
    ran = run("submit", str(bad))
    assert (ran.code, ran.out) == (1, "")
    assert f"{bad}: 2 problems in lines 3, 4; the first: line 3 " in ran.err
    assert ran.err.endswith(f"nothing was sent; to see all problems: together-batches validate {bad}\n")
    assert run("submit", str(tmp_path / "nowhere.jsonl")).code == 2
    assert run("submit", str(tmp_path)).code == 2
    assert run("submit", requests, "--deadline", "5").code == 2
    assert len(emulator.requests) == 0


def test_what_the_service_says(run: Run, emulator: Emulator, requests: str) -> None:
    """Its advice beside the job, its refusal in place of one."""
    job = {"id": "job-1", "status": "VALIDATING"}
    emulator.fail(Fault(on="create", status=201, body={"job": job, "warning": "busy\x1b"}))
    assert run("submit", requests) == (0, "job-1\tVALIDATING\t-\n", "the service warns: busy\\x1b\n")
    emulator.fail(Fault(on="create", status=201, body={"job": None, "warning": "quota exceeded"}))
    ran = run("submit", requests)
    assert (ran.code, ran.out) == (1, "")
    assert "quota exceeded" in ran.err
    emulator.fail(Fault(on="begin_upload", status=401))
    assert run("submit", requests).code == 3


def test_wait(run: Run, swift: Emulator, requests: str) -> None:
    """The line is that of ``wait``; what happens meanwhile is told."""
    ran = run("submit", requests, "--wait")
    (job,) = swift.jobs
    assert (ran.code, ran.out) == (0, f"{job['id']}\tCOMPLETED\t{job['output_file_id']}\t-\t-\n")
    assert ran.err.startswith(f"job {job['id']} was created from {job['input_file_id']}\n")
    ran = run("submit", requests, "--wait", "--quiet", "--json", "--deadline", "60")
    assert (ran.code, ran.err, json.loads(ran.out)["status"]) == (0, "", "COMPLETED")


def test_wait_for_a_job_that_ends_badly(run: Run, swift: Emulator, tmp_path: Path) -> None:
    """Is told by the exit code."""
    file = tmp_path / "requests.jsonl"
    file.write_bytes(jsonl.encode(jsonl.chat_request("a", model="dedicated/m", messages=[])))
    ran = run("submit", str(file), "--wait")
    assert ran.code == 7
    assert ran.out.split("\t")[:2] == [swift.jobs[0]["id"], "FAILED"]


def test_wait_too_long(run: Run, emulator: Emulator, requests: str) -> None:
    """The job is told all the same, as it was last seen, and left alone."""
    ran = run("submit", requests, "--wait", "--deadline", "0.2")
    assert (6, f"{emulator.jobs[0]['id']}\tVALIDATING\t-\t-\t-\n") == (ran.code, ran.out)
    assert "was still pending; left alone" in ran.err
    emulator.fail(Fault(on="retrieve", status=401, times=None))
    ran = run("submit", requests, "--wait")
    assert (3, emulator.jobs[1]["id"]) == (ran.code, ran.out.split("\t")[0])
    assert emulator.count("cancel") == 0


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("upload", "no job was created"),
        ("create", "a job may have been created from file-1; look with together-batches list --input-file file-1"),
        ("wait", "job job-1 was created, and was left alone"),
    ],
)
def test_interrupted(
    run: Run, emulator: Emulator, requests: str, monkeypatch: pytest.MonkeyPatch, verb: str, expected: str
) -> None:
    """What is left behind is told."""

    async def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file_id = emulator.add_file(LINES)
    emulator.fail(Fault(on="create", status=201, body={"job": {"id": "job-1", "status": "VALIDATING"}}))
    if verb == "upload":
        monkeypatch.setattr(_submit._submitting, "submit", interrupt)
    else:
        monkeypatch.setattr(AsyncBatches, verb, interrupt)
    ran = run("submit", requests, "--wait", "--quiet")
    assert ran == (130, "", f"interrupted: {expected.replace('file-1', file_id)}\n")


def test_a_bar(run: Run, emulator: Emulator, requests: str, on_terminal: Callable[..., None]) -> None:
    """Of the upload, where somebody sees it."""
    on_terminal("stderr")
    assert "Uploading" in run("submit", requests).err
    assert "Uploading" not in run("submit", requests, "--quiet").err
