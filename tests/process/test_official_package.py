"""The official package and its command use the emulator as they use the service.

They are independent of this project: what they upload, create, poll, list, cancel and download here shows that
the emulator behaves as the service does, and not merely as our client expects. They run under an interpreter of
their own, because their requirements differ from ours; ``nox -s official`` creates one for each of the three
generations in use.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from contracts.run_page import blocks

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OFFICIAL = os.environ.get("TOGETHER_BATCHES_OFFICIAL_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not (OFFICIAL and hasattr(os, "fork")),
    reason="TOGETHER_BATCHES_OFFICIAL_PYTHON names no interpreter that has the official package; see nox -s official",
)

CHAT = "/v1/chat/completions"
ROWS = 20


def _generation() -> int:
    """Return the major version of the official package: only the third has some calls, and another base URL."""
    command = [OFFICIAL, "-c", "import importlib.metadata; print(importlib.metadata.version('together'))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return int(done.stdout.partition(".")[0])


GENERATION = _generation() if OFFICIAL else 3

later_than_first = pytest.mark.skipif(
    GENERATION == 1, reason="the first SDK sends no checksum and has no such command"
)

# The same calls in the API of the first SDK, and of later ones.
DIALECTS = {
    1: """
        upload = lambda: client.files.upload("in.jsonl", purpose="batch-api")
        create = lambda file_id: client.batches.create_batch(file_id, CHAT)
        retrieve, cancel = client.batches.get_batch, client.batches.cancel_batch
        list_jobs = client.batches.list_batches
        fields, model = lambda value: value.model_dump(mode="json"), lambda job: job.model_id
        def read(file_id):
            client.files.retrieve_content(file_id, output="content")
            return open("content").read()
        async def async_job(client):
            file = upload()  # its asynchronous client has none
            return file, await client.batches.create_batch(file.id, CHAT)
        async def async_status(client, job_id):
            return (await client.batches.get_batch(job_id)).status
    """,
    2: """
        upload = lambda: client.files.upload("in.jsonl", purpose="batch-api")
        create = lambda file_id: client.batches.create(input_file_id=file_id, endpoint=CHAT).job
        retrieve, cancel, list_jobs = client.batches.retrieve, client.batches.cancel, client.batches.list
        fields, model = lambda value: value.to_dict(), lambda job: job.x_model_id
        read = lambda file_id: client.files.content(file_id).read().decode()
        async def async_job(client):
            file = await client.files.upload("in.jsonl", purpose="batch-api")
            return file, (await client.batches.create(input_file_id=file.id, endpoint=CHAT)).job
        async def async_status(client, job_id):
            return (await client.batches.retrieve(job_id)).status
    """,
}


def lines() -> bytes:
    """Return a chat line for each row, one in five for a model that does not exist."""
    models = ["unknown/model" if number % 5 == 0 else "openai/gpt-oss-20b" for number in range(ROWS)]
    rows = [
        {"custom_id": f"row-{number}", "body": {"model": model, "messages": [{"role": "user", "content": "Hello"}]}}
        for number, model in enumerate(models)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    # Longer in each state than a slow machine takes to read it.
    with Emulator(timing=Timing(validating=20, canceling=20)).running_in_thread() as running:
        yield running


@pytest.fixture
def environment(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    """Return their environment: a base URL, without ``/v1`` since the third SDK, an empty home, and no other host."""
    base_url = emulator.base_url if GENERATION < 3 else emulator.base_url.removesuffix("/v1")
    return {
        **_without_service(tmp_path),
        "TOGETHER_BASE_URL": base_url,
        "TOGETHER_API_KEY": str(emulator.api_key),
    }


def _without_service(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "NO_PROXY": "*",
        "TERM": "dumb",
        "TOGETHER_TELEMETRY_DISABLED": "1",
        "TOGETHER_DISABLE_VERSION_CHECK": "1",
    }


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines())
    return path


INTERPRETER = """
import contextlib, importlib.metadata, json, os, sys, traceback
import together
commands = importlib.metadata.entry_points(group="console_scripts", name="tg")
for command in commands:
    command.load()
for line in sys.stdin:
    if os.fork():
        os.wait()
        continue
    environment, folder, script = json.loads(line)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    names = {"together": together, "commands": commands}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(script, names)
        answer = {"answer": names["answer"]}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """An interpreter that has imported the official package, which takes longer than a test: each has a fork."""
    command, environment = [OFFICIAL, "-c", INTERPRETER], _without_service(tmp_path_factory.mktemp("home"))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as running:
        yield running


@pytest.fixture
def there(
    interpreter: subprocess.Popen[str], environment: dict[str, str], requests_file: Path
) -> Callable[[str], Any]:
    """Run a script in the official interpreter, and return what it assigns to ``answer``."""

    def run_there(script: str) -> Any:
        assert interpreter.stdin is not None
        assert interpreter.stdout is not None
        print(json.dumps([environment, str(requests_file.parent), script]), file=interpreter.stdin, flush=True)
        came = json.loads(interpreter.stdout.readline())
        assert "answer" in came, came["error"]
        return came["answer"]

    return run_there


@pytest.fixture
def sdk(there: Callable[[str], Any]) -> Callable[..., Any]:
    """Run these statements with the official client, and return what they assign to ``answer``."""

    def run_there(source: str, **known: str) -> Any:
        given = "\n".join(f"{name} = {value!r}" for name, value in {"CHAT": CHAT, **known}.items())
        head = "client = together.Together(max_retries=0)\n"
        return there(f"{head}{given}\n{dedent(DIALECTS[min(GENERATION, 2)])}\n{dedent(source)}\n")

    return run_there


COMMAND = """
import contextlib, io, sys
printed = io.TextIOWrapper(io.BytesIO(), write_through=True)
code = 0
with contextlib.redirect_stdout(printed):
    try:
        commands["tg"].load()()
    except SystemExit as ended:
        code = ended.code
answer = [code, printed.buffer.getvalue().decode()]
"""


@pytest.fixture
def tg(there: Callable[[str], Any]) -> Callable[..., str]:
    """Run the official command by its entry point, and return its output."""

    def run_there(*arguments: str) -> str:
        code, printed = there(f"import sys\nsys.argv = {['tg', *arguments, '--non-interactive']!r}\n{COMMAND}")
        assert not code, printed
        return printed

    return run_there


def ids_in(path: Path) -> set[str]:
    return {json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()}


UNKNOWN = {f"row-{number}" for number in range(0, ROWS, 5)}
KNOWN = {f"row-{number}" for number in range(ROWS)} - UNKNOWN


def test_the_sdk_uploads_through_the_storage(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """An upload takes a form, a redirect, a presigned PUT and preprocess; the storage gets every byte and no key."""
    file = sdk("answer = fields(upload())")
    assert [emulator.count(step) for step in ("begin_upload", "store", "preprocess")] == [1, 1, 1]
    (begun,) = [request for request in emulator.requests if request.operation == "begin_upload"]
    encoding = "application/x-www-form-urlencoded" if GENERATION == 1 else "multipart/form-data"
    assert begun.headers["Content-Type"].startswith(encoding)
    assert emulator.content(file["id"]) == lines()
    assert (file["filename"], file["purpose"], file["bytes"]) == ("in.jsonl", "batch-api", len(lines()))
    (stored,) = [request for request in emulator.requests if request.operation == "store"]
    assert "Authorization" not in stored.headers


@later_than_first
def test_the_sdk_is_told_that_content_is_known(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """For known content, the SDK uses the existing file."""
    file_id = emulator.add_file(lines())
    assert file_id == sdk("answer = upload().id")
    assert emulator.count("store") == 0


def test_the_sdk_sees_a_job_through(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """A job is created, polled until it has ended, and listed, and its two files contain all rows."""
    created = sdk(
        """
        job = create(upload().id)
        answer = {"id": job.id, "status": job.status, "seen": retrieve(job.id).status}
        """
    )
    assert (created["status"], created["seen"]) == ("VALIDATING", "VALIDATING")
    emulator.advance(60)
    done = sdk(
        """
        job = retrieve(job_id)
        answer = {
            "status": job.status,
            "model": model(job),
            "listed": [other.id for other in list_jobs()],
            "output": read(job.output_file_id),
            "errors": read(job.error_file_id),
        }
        """,
        job_id=created["id"],
    )
    assert (done["status"], done["listed"]) == ("COMPLETED", [created["id"]])
    assert done["model"] == "unknown/model"  # of the first row
    output = [json.loads(line) for line in done["output"].splitlines()]
    errors = [json.loads(line) for line in done["errors"].splitlines()]
    assert {row["custom_id"] for row in output} == KNOWN
    assert {row["custom_id"] for row in errors} == UNKNOWN
    answer = output[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert answer == "You said: Hello"


def test_the_sdk_cancels(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """A cancel gives CANCELING at once; for a job that has ended, 409 with the service's message."""
    running, ended = emulator.add_job(), emulator.add_job(status="COMPLETED")
    answer = sdk(
        """
        status = cancel(running).status
        try:
            cancel(ended)
        except Exception as error:  # the first SDK fails an assertion of its own over this shape of error
            answer = [status, str(error)]
        """,
        running=running,
        ended=ended,
    )
    sentence = "Cannot cancel job - already in terminal state: COMPLETED"
    assert (answer[0], sentence in answer[1]) == ("CANCELING", True)
    assert [request.status for request in emulator.requests] == [200, 409]


def test_the_asynchronous_sdk_does_the_same(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """The asynchronous SDK uploads, creates, reads and deletes."""
    answer = sdk(
        """
        import asyncio
        async def main():
            client = together.AsyncTogether()
            file, job = await async_job(client)
            status = await async_status(client, job.id)
            deleted = await client.files.delete(file.id)
            return status, deleted.deleted
        answer = asyncio.run(main())
        """
    )
    assert answer == ["VALIDATING", True]
    assert emulator.files == []


def test_the_sdk_gets_null_for_an_empty_account(sdk: Callable[..., Any]) -> None:
    """An empty account is null, a quirk of the service, despite the type hint; only the first SDK makes it a list."""
    assert sdk("answer = list_jobs()") == ([] if GENERATION == 1 else None)


def test_the_sdk_reads_a_seeded_job(emulator: Emulator, sdk: Callable[..., Any]) -> None:
    """A seeded job is read with its files, also if its input file does not exist."""
    done = emulator.add_job(status="COMPLETED")
    answer = sdk(
        """
        job = retrieve(done)
        failed = create("file-gone")
        answer = [read(job.input_file_id), read(job.output_file_id), failed.status]
        """,
        done=done,
    )
    questions, answers = ([json.loads(line)["custom_id"] for line in text.splitlines()] for text in answer[:2])
    assert (sorted(questions), answer[2]) == (sorted(answers), "VALIDATING")


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "coming-from-the-official-sdk.md"
third = pytest.mark.skipif(GENERATION < 3, reason="the page is about the third SDK")


@third
def test_the_calls_on_the_page_exist(there: Callable[[str], Any]) -> None:
    """Each call of the official client in the table of the page is one of it, with arguments of these names."""
    table = re.findall(r"^\| (.+?) \| `batches", PAGE.read_text("utf-8"), re.MULTILINE)
    calls = re.findall(r"`(client\.[\w.]+)(?:\((.*?)\))?`", "\n".join(table))
    assert len(calls) > 10
    named = [[call, re.findall(r"(\w+)=", arguments)] for call, arguments in calls]
    script = f"""
        import inspect
        client, answer = together.Together(), []
        for call, names in {named!r}:
            found = client
            for part in call.split(".")[1:]:
                found = getattr(found, part, None)
            if found is None or not set(names) <= set(inspect.signature(found).parameters if names else ()):
                answer.append(call)
    """
    assert there(dedent(script)) == []


@third
def test_the_program_on_the_page_runs(there: Callable[[str], Any]) -> None:
    """What the page shows as the program before the move is one that works."""
    (program,) = (block for block in blocks(PAGE.read_text("utf-8")) if block.not_run)
    with Emulator(timing=Timing(validating=0, running=0)).running_in_thread() as swift:
        base_url = swift.base_url.removesuffix("/v1")
        settings = (
            f"import os\nos.environ.update(TOGETHER_BASE_URL={base_url!r}, TOGETHER_API_KEY={swift.api_key!r})\n"
        )
        there(settings + program.text.replace("time.sleep(30)", "pass") + "answer = row['custom_id']\n")
        assert swift.count("create") == 1


@later_than_first
def test_the_command_sees_a_job_through(emulator: Emulator, tg: Callable[..., str], requests_file: Path) -> None:
    """The command submits a job from a file, reads and lists it, and downloads its two files."""
    submitted = json.loads(tg("batches", "submit", requests_file.name, "chat.completions", "--json"))
    job_id = submitted["job"]["id"]
    assert emulator.count("store") == 1
    assert json.loads(tg("batches", "retrieve", job_id, "--json"))["status"] == "VALIDATING"
    emulator.advance(60)
    assert job_id in tg("batches", "list", "--json")
    tg("batches", "download", job_id, "-o", "out.jsonl")
    assert ids_in(requests_file.with_name("out.jsonl")) == KNOWN
    assert ids_in(requests_file.with_name("out.errors.jsonl")) == UNKNOWN


@later_than_first
def test_the_command_cancels(emulator: Emulator, tg: Callable[..., str]) -> None:
    """The command cancels a job after it has requested the owner of the key."""
    job_id = emulator.add_job()
    assert json.loads(tg("batches", "cancel", job_id, "--json"))["status"] == "CANCELING"
    assert emulator.job(job_id)["status"] == "CANCELING"
    assert emulator.count("whoami") == 1


@later_than_first
def test_the_command_keeps_files(emulator: Emulator, tg: Callable[..., str], requests_file: Path) -> None:
    """The command uploads, lists, describes, reads and deletes files."""
    uploaded = json.loads(tg("files", "upload", requests_file.name, "--purpose", "batch-api", "--json"))
    file_id = uploaded["id"]
    assert file_id in tg("files", "list", "--json")
    assert json.loads(tg("files", "retrieve", file_id, "--json"))["bytes"] == len(lines())
    assert "row-1" in tg("files", "retrieve-content", file_id, "--stdout")
    tg("files", "delete", file_id, "--json")
    assert emulator.files == []
