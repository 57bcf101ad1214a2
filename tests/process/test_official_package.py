"""The official package and its command use the emulator as they use the service.

They are strangers to this project: what they upload, create, poll, list, cancel and download here shows that it
speaks as the service does, and not merely as our client likes it. They run under an interpreter of their own,
since their requirements and ours are not the same; ``nox -s official`` makes one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OFFICIAL = os.environ.get("TOGETHER_BATCHES_OFFICIAL_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not OFFICIAL,
    reason="TOGETHER_BATCHES_OFFICIAL_PYTHON names no interpreter that has the official package; see nox -s official",
)

CHAT = "/v1/chat/completions"
ROWS = 20


def lines() -> bytes:
    """A chat line for each row, and one in five for a model that does not exist."""
    models = ["unknown/model" if number % 5 == 0 else "openai/gpt-oss-20b" for number in range(ROWS)]
    rows = [
        {"custom_id": f"row-{number}", "body": {"model": model, "messages": [{"role": "user", "content": "Hello"}]}}
        for number, model in enumerate(models)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator().running_in_thread() as running:
        yield running


@pytest.fixture
def environment(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    """Theirs: a base URL without ``/v1``, an empty home, and no word to anybody but the emulator."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(tmp_path),
        "NO_PROXY": "*",
        "TERM": "dumb",
        "TOGETHER_BASE_URL": emulator.base_url.removesuffix("/v1"),
        "TOGETHER_API_KEY": str(emulator.api_key),
        "TOGETHER_TELEMETRY_DISABLED": "1",
        "TOGETHER_DISABLE_VERSION_CHECK": "1",
    }


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines())
    return path


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def sdk(environment: dict[str, str], requests_file: Path) -> Callable[..., Any]:
    """Run these statements with the official client at hand; what they assign to ``answer`` comes back."""

    def run_there(source: str, **known: str) -> Any:
        given = "\n".join(f"{name} = {value!r}" for name, value in known.items())
        head = "import json\nimport together\nfrom together import Together\nclient = Together()\nanswer = None\n"
        script = f"{head}{given}\n{dedent(source)}\nprint(json.dumps(answer))\n"
        return json.loads(run([OFFICIAL, "-c", script], environment, requests_file.parent))

    return run_there


@pytest.fixture
def tg(environment: dict[str, str], requests_file: Path) -> Callable[..., str]:
    """Run the official command; what it prints comes back."""

    def run_there(*arguments: str) -> str:
        command = [str(Path(OFFICIAL).parent / "tg"), *arguments, "--non-interactive"]
        return run(command, environment, requests_file.parent)

    return run_there


def ids_in(path: Path) -> set[str]:
    return {json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()}


UNKNOWN = {f"row-{number}" for number in range(0, ROWS, 5)}
KNOWN = {f"row-{number}" for number in range(ROWS)} - UNKNOWN


def test_the_sdk_uploads_through_the_storage(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """Form, redirect, presigned PUT, preprocess; the storage has never seen the key, and got every byte."""
    file = sdk("answer = client.files.upload('in.jsonl', purpose='batch-api').to_dict()")
    assert [emulator.count(step) for step in ("begin_upload", "store", "preprocess")] == [1, 1, 1]
    assert emulator.content(file["id"]) == lines()
    assert (file["filename"], file["purpose"], file["bytes"]) == ("in.jsonl", "batch-api", len(lines()))
    (stored,) = [request for request in emulator.requests if request.operation == "store"]
    assert "Authorization" not in stored.headers


def test_the_sdk_is_told_that_content_is_known(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """And takes the file that is there."""
    file_id = emulator.add_file(lines())
    assert file_id == sdk("answer = client.files.upload('in.jsonl', purpose='batch-api').id")
    assert emulator.count("store") == 0


def test_the_sdk_sees_a_job_through(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """Created, polled until it has ended, listed, and both of its files read; all rows are there."""
    created = sdk(
        """
        file = client.files.upload("in.jsonl", purpose="batch-api")
        job = client.batches.create(input_file_id=file.id, endpoint=CHAT).job
        answer = {"id": job.id, "status": job.status, "seen": client.batches.retrieve(job.id).status}
        """,
        CHAT=CHAT,
    )
    assert (created["status"], created["seen"]) == ("VALIDATING", "VALIDATING")
    emulator.advance(60)
    done = sdk(
        """
        job = client.batches.retrieve(job_id)
        read = lambda file_id: client.files.content(file_id).read().decode()
        answer = {
            "status": job.status,
            "model": job.x_model_id,
            "listed": [other.id for other in client.batches.list()],
            "output": read(job.output_file_id),
            "errors": read(job.error_file_id),
            "purposes": [file.purpose for file in client.files.list().data],
        }
        """,
        job_id=created["id"],
    )
    assert (done["status"], done["listed"]) == ("COMPLETED", [created["id"]])
    output = [json.loads(line) for line in done["output"].splitlines()]
    errors = [json.loads(line) for line in done["errors"].splitlines()]
    assert {row["custom_id"] for row in output} == KNOWN
    assert {row["custom_id"] for row in errors} == UNKNOWN
    answer = output[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert answer == "You said: Hello"
    assert done["purposes"] == ["batch-api", "batch-generated", "batch-generated"]


def test_the_sdk_cancels(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """CANCELING at once; a job that has ended is a 409 with the service's sentence."""
    running, ended = emulator.add_job(), emulator.add_job(status="COMPLETED")
    answer = sdk(
        """
        status = client.batches.cancel(running).status
        try:
            client.with_options(max_retries=0).batches.cancel(ended)
        except together.ConflictError as error:
            answer = [status, error.body]
        """,
        running=running,
        ended=ended,
    )
    sentence = "Cannot cancel job - already in terminal state: COMPLETED"
    assert answer == ["CANCELING", {"error": sentence}]


def test_the_asynchronous_sdk_does_the_same(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """Upload, create, read, delete."""
    answer = sdk(
        """
        import asyncio
        async def main():
            async with together.AsyncTogether() as client:
                file = await client.files.upload("in.jsonl", purpose="batch-api")
                job = (await client.batches.create(input_file_id=file.id, endpoint=CHAT)).job
                status = (await client.batches.retrieve(job.id)).status
                return status, (await client.files.delete(file.id)).deleted
        answer = asyncio.run(main())
        """,
        CHAT=CHAT,
    )
    assert answer == ["VALIDATING", True]
    assert emulator.files == []


def test_the_sdk_gets_null_for_an_empty_account(sdk: Callable[..., Any]) -> None:
    """Whatever its type hint says: the service's own quirk."""
    assert sdk("answer = client.batches.list()") is None


def test_the_command_sees_a_job_through(emulator: Emulator, tg: Callable[..., str], requests_file: Path) -> None:
    """Submitted from a file, read, listed, and downloaded into two files."""
    submitted = json.loads(tg("batches", "submit", requests_file.name, "chat.completions", "--json"))
    job_id = submitted["job"]["id"]
    assert emulator.count("store") == 1
    assert json.loads(tg("batches", "retrieve", job_id, "--json"))["status"] == "VALIDATING"
    emulator.advance(60)
    assert job_id in tg("batches", "list", "--json")
    tg("batches", "download", job_id, "-o", "out.jsonl")
    assert ids_in(requests_file.with_name("out.jsonl")) == KNOWN
    assert ids_in(requests_file.with_name("out.errors.jsonl")) == UNKNOWN


def test_the_command_cancels(emulator: Emulator, tg: Callable[..., str]) -> None:
    """After it has asked to whom the key belongs."""
    job_id = emulator.add_job()
    assert json.loads(tg("batches", "cancel", job_id, "--json"))["status"] == "CANCELING"
    assert emulator.job(job_id)["status"] == "CANCELING"
    assert emulator.count("whoami") == 1


def test_the_command_keeps_files(emulator: Emulator, tg: Callable[..., str], requests_file: Path) -> None:
    """Uploads, lists, describes, reads and deletes."""
    uploaded = json.loads(tg("files", "upload", requests_file.name, "--purpose", "batch-api", "--json"))
    file_id = uploaded["id"]
    assert file_id in tg("files", "list", "--json")
    assert json.loads(tg("files", "retrieve", file_id, "--json"))["bytes"] == len(lines())
    assert "row-1" in tg("files", "retrieve-content", file_id, "--stdout")
    tg("files", "delete", file_id, "--json")
    assert emulator.files == []
