"""``submit`` of both clients, against the emulator: one job for each submission, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import io
import random
import re
import tempfile
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from wires import AT_ONCE, KEY

from together_batches import (
    APIError,
    AsyncBatches,
    AuthenticationError,
    Batches,
    BatchesError,
    BatchJob,
    BatchRequest,
    BatchSuccess,
    CreateUnconfirmedError,
    FileObject,
    JobNotCreatedError,
    RetryPolicy,
    UsageError,
    ValidationError,
    jsonl,
)
from together_batches._jobs.upload_source import open_upload
from together_batches._protocol.upload_marks import mark_of
from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

STEPS = ("begin_upload", "store", "preprocess", "create")
BODY = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": "Name a river."}]}
REQUESTS = [BatchRequest(name, BODY) for name in "abc"]
LINES = b"".join(map(jsonl.encode, REQUESTS))


@pytest.fixture
async def batches(emulator: Emulator) -> AsyncIterator[AsyncBatches]:
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as client:
        yield client


async def _one_by_one(*more: BatchRequest) -> AsyncIterator[BatchRequest]:
    for request in (*REQUESTS, *more):
        yield request


def unmarked(content: bytes) -> bytes:
    """Return the uploaded content without the 64 spaces and tabs that each submission adds."""
    given, marks = re.subn(rb"\{[ \t]{64}", b"{", content)
    assert marks == 1
    return given


async def _asked(emulator: Emulator, operation: str) -> None:
    while emulator.count(operation) == 0:  # noqa: ASYNC110  # an emulator does not call back
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "iterable", "dicts", "async iterable"])
async def test_submit(emulator: Emulator, batches: AsyncBatches, tmp_path: Path, kind: str) -> None:
    """A submission takes four requests; the job runs, and every request is answered."""
    path = tmp_path / "rivers.jsonl"
    path.write_bytes(LINES)
    sources: dict[str, Any] = {
        "path": path,
        "bytes": LINES,
        "file": io.BytesIO(LINES),
        "iterable": iter(REQUESTS),
        "dicts": [{"custom_id": name, "body": BODY} for name in "abc"],
        "async iterable": _one_by_one(),
    }
    job = await batches.submit(sources[kind])
    assert [request.operation for request in emulator.requests] == list(STEPS)
    assert (job.status, job.endpoint, job.warning) == ("VALIDATING", "/v1/chat/completions", None)
    assert job.input_file_id is not None
    assert unmarked(emulator.content(job.input_file_id)) == LINES
    (file,) = emulator.files
    stem = "rivers" if kind == "path" else "requests"
    assert re.fullmatch(rf"{stem}-[0-9a-f]{{16}}\.jsonl", str(file["filename"]))
    assert file["purpose"] == "batch-api"

    emulator.advance(60)
    rows = [row async for row in batches.results(job.id, requests=REQUESTS)]
    assert [type(row) for row in rows] == [BatchSuccess] * 3


@attrs.frozen
class River:
    name: str


@pytest.mark.parametrize("kind", ["bytes", "iterable", "async iterable"])
async def test_a_schema_is_sent_with_each_request(emulator: Emulator, batches: AsyncBatches, kind: str) -> None:
    """A schema is inserted as ``response_format`` where a request has none; no other byte changes."""
    own = BatchRequest("own", {**BODY, "response_format": {"type": "text"}})
    sources: dict[str, Any] = {
        "bytes": LINES + jsonl.encode(own),
        "iterable": iter([*REQUESTS, own]),
        "async iterable": _one_by_one(own),
    }
    job = await batches.submit(sources[kind], schema=River)
    sent = unmarked(emulator.content(str(job.input_file_id))).splitlines(keepends=True)
    member = (
        b'"response_format":{"type":"json_schema","json_schema":{"name":"River","schema":{"title":"River",'
        b'"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}}},'
    )
    assert b"".join(line.replace(member, b"") for line in sent) == LINES + jsonl.encode(own)
    assert [line.count(member) for line in sent] == [1, 1, 1, 0]


async def test_a_schema_that_cannot_be_sent(emulator: Emulator, batches: AsyncBatches) -> None:
    """A schema for another endpoint, an invalid one, and one that makes requests too long, are refused at once.

    Problems of the requests themselves have the places that they have in the source.
    """
    with pytest.raises(UsageError, match="a schema is for answers of /v1/chat/completions, and the endpoint"):
        await batches.submit(LINES, schema=River, endpoint="/v1/audio/transcriptions")
    with pytest.raises(UsageError, match="use /v1/chat/completions"):
        await batches.submit(LINES, schema=River, endpoint="/v1/chat/completion")
    with pytest.raises(UsageError, match="a schema is a pydantic model"):
        await batches.submit(LINES, schema=int)
    with pytest.raises(ValidationError) as caught:
        await batches.submit(LINES + b'{"custom_id": 7}\n', schema=River)
    assert caught.value.problems[0].startswith(f"line 4 (byte {len(LINES)}): custom_id is a number")
    almost = jsonl.encode(BatchRequest("a", {**BODY, "x": "x" * 9_999_800}))
    assert jsonl.validate(almost).ok
    with pytest.raises(ValidationError, match=r"10 000 \d+ bytes, more than 10 000 000"):
        await batches.submit(almost, schema=River)
    assert not emulator.requests


async def test_what_is_asked_of_the_job(emulator: Emulator, batches: AsyncBatches) -> None:
    """Options of the job are sent with the create, and its endpoint is the one of the checks."""
    clip = jsonl.audio_request("clip", model="openai/whisper-large-v3", file="https://media.example/clip.wav")
    await batches.submit([clip], endpoint="/v1/audio/transcriptions", model_id="m", priority=2)
    (create,) = [request for request in emulator.requests if request.operation == "create"]
    for part in (b'"endpoint":"/v1/audio/transcriptions"', b'"model_id":"m"', b'"priority":2'):
        assert part in create.body


async def test_how_far_it_is(emulator: Emulator, batches: AsyncBatches) -> None:
    """``on_progress`` receives the number of bytes sent, and ``on_uploaded`` the file before the job exists."""
    sent: list[tuple[int, int]] = []
    uploaded: list[str] = []

    def on_uploaded(file: FileObject) -> None:
        assert emulator.count("create") == 0
        uploaded.append(file.id)

    job = await batches.submit(LINES, on_progress=lambda *sizes: sent.append(sizes), on_uploaded=on_uploaded)
    assert uploaded == [job.input_file_id]
    size = len(emulator.content(uploaded[0]))
    assert sent[-1] == (size, size)


async def test_a_callback_is_a_plain_function(emulator: Emulator, batches: AsyncBatches) -> None:
    """A coroutine function as callback would not be awaited, and is refused before anything is sent."""

    async def on_uploaded(file: FileObject) -> None:
        pass

    with pytest.raises(TypeError, match="on_uploaded must be a plain function"):
        await batches.submit(LINES, on_uploaded=on_uploaded)  # type: ignore[arg-type]
    assert not emulator.requests


async def test_the_key_goes_to_the_service_alone(emulator: Emulator, batches: AsyncBatches) -> None:
    """The key is sent to the service only; the storage receives the bytes and nothing else."""
    await batches.submit(LINES)
    assert {name: request.headers.get("Authorization") for name, request in _by_operation(emulator).items()} == {
        "begin_upload": f"Bearer {KEY}",
        "store": None,
        "preprocess": f"Bearer {KEY}",
        "create": f"Bearer {KEY}",
    }


def _by_operation(emulator: Emulator) -> dict[str, Any]:
    return {request.operation: request for request in emulator.requests}


async def test_nothing_is_sent_of_what_cannot_be_a_job(
    emulator: Emulator, batches: AsyncBatches, tmp_path: Path
) -> None:
    """Invalid lines, invalid requests, no requests and a missing file are reported before anything is sent."""
    (tmp_path / "bad.jsonl").write_bytes(LINES + b'{"custom_id": "a"}\n\n{')
    with pytest.raises(ValidationError, match=r"bad\.jsonl: \d problems in lines 4, 5, 6") as raised:
        await batches.submit(tmp_path / "bad.jsonl")
    assert [problem.partition(" (")[0] for problem in raised.value.problems] == ["line 4"] * 2 + ["line 5", "line 6"]
    for source in ([*REQUESTS, REQUESTS[0]], [BatchRequest("", BODY)], b"no JSON", b'{"custom_id": NaN}'):
        with pytest.raises(ValidationError):
            await batches.submit(source)
    none: list[Any] = [tmp_path, tmp_path / "missing.jsonl", tmp_path / "a\0b", b"", [], io.StringIO("text"), 7]
    for source in none:
        with pytest.raises(UsageError):
            await batches.submit(source)
    with pytest.raises(UsageError, match="invalid endpoint '/v1/chat/completion': use /v1/chat/completions"):
        await batches.submit(REQUESTS, endpoint="/v1/chat/completion")
    with pytest.raises(UsageError, match="endpoint must be a path"):
        await batches.submit(LINES, endpoint="chat")
    assert len(emulator.requests) == 0


async def test_a_file_that_changes_meanwhile_makes_no_job(
    emulator: Emulator, batches: AsyncBatches, tmp_path: Path
) -> None:
    """A file that changes between check and upload, or during a retry, makes no job."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    emulator.fail(Fault(on="begin_upload", delay=0.2, status=503))
    submitting = asyncio.create_task(batches.submit(path))
    await _asked(emulator, "begin_upload")
    path.write_bytes(LINES + LINES)
    with pytest.raises(UsageError, match=r"requests\.jsonl changed while it was uploaded"):
        await submitting
    assert (emulator.count("create"), emulator.files) == (0, [])


async def test_the_service_s_advice(emulator: Emulator, batches: AsyncBatches) -> None:
    """The service's advice is returned with the job."""
    advice = {"job": {"id": "job-1", "status": "VALIDATING"}, "warning": "model is busy"}
    emulator.fail(Fault(on="create", status=201, body=advice))
    job = await batches.submit(LINES)
    assert (job.id, job.warning) == ("job-1", "model is busy")


async def test_the_service_declines(emulator: Emulator, batches: AsyncBatches) -> None:
    """A declined create raises with the reason and is not retried; the uploaded file remains for another attempt."""
    emulator.fail(Fault(on="create", status=201, body={"job": None, "warning": "quota exceeded"}))
    with pytest.raises(JobNotCreatedError, match="quota exceeded") as raised:
        await batches.submit(LINES)
    assert raised.value.warning == "quota exceeded"
    assert (emulator.count("create"), len(emulator.files)) == (1, 1)


@pytest.mark.parametrize("step", STEPS)
async def test_a_refusal(emulator: Emulator, batches: AsyncBatches, step: str) -> None:
    """A refusal ends the submission at the step that was refused."""
    emulator.fail(Fault(on=step, status=401, body={"error": "Unauthorized"}, times=None))
    with pytest.raises(APIError if step == "store" else AuthenticationError):
        await batches.submit(LINES)
    assert emulator.requests[-1].operation == step
    assert emulator.jobs == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_what_is_lost(emulator: Emulator, batches: AsyncBatches, step: str, lost: Any) -> None:
    """A loss at any step is recovered: one file's content, one job."""
    emulator.fail(Fault(on=step, lose=lost))
    job = await batches.submit(LINES, patience=0)
    assert [shown["id"] for shown in emulator.jobs] == [job.id]
    assert unmarked(emulator.content(str(job.input_file_id))) == LINES
    assert len(emulator.files) == 1
    assert (emulator.count("list"), emulator.count("create")) == {
        "create request": (1, 2),
        "create answer": (1, 1),
    }.get(f"{step} {lost}", (0, 1))


async def test_the_list_is_lost_too(emulator: Emulator, batches: AsyncBatches) -> None:
    """If the list is lost too, the outcome is unknown and the job is not created again."""
    emulator.fail(Fault(on="create", lose="answer"))
    emulator.fail(Fault(on="list", status=503, times=None))
    with pytest.raises(CreateUnconfirmedError) as raised:
        await batches.submit(LINES, patience=0)
    (job,) = emulator.jobs
    assert raised.value.input_file_id == job["input_file_id"]
    assert emulator.count("create") == 1


# --- unique content -----------------------------------------------------------------------------------------------


async def test_the_same_requests_twice(emulator: Emulator, batches: AsyncBatches, tmp_path: Path) -> None:
    """The same requests submitted twice, in sequence or at once, make two jobs of two files, and none is mixed up."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    first = await batches.submit(path)
    emulator.fail(Fault(on="create", lose="answer", times=2))
    others = await asyncio.gather(batches.submit(path), batches.submit(REQUESTS))
    jobs = [first, *others]
    assert len({job.id for job in jobs}) == len({job.input_file_id for job in jobs}) == len(emulator.jobs) == 3
    assert {unmarked(emulator.content(str(job.input_file_id))) for job in jobs} == {LINES}
    assert path.read_bytes() == LINES


async def test_a_job_of_the_file_is_the_job(emulator: Emulator, batches: AsyncBatches) -> None:
    """A job of the file is adopted even if its time differs, because no other submission has the file."""
    emulator.fail(Fault(on="create", lose="request"))
    submitting = asyncio.create_task(batches.submit(LINES, patience=10))
    await _asked(emulator, "list")
    job_id = emulator.add_job(input_file_id=str(emulator.files[0]["id"]), age_seconds=86_400, created_at=None)
    assert (await submitting).id == job_id
    assert emulator.count("create") == 1


async def test_an_upload_that_is_repeated_is_recognised(emulator: Emulator, batches: AsyncBatches) -> None:
    """Within one submission a repeated upload has the same content, and is stored once."""
    async with open_upload(LINES, None, mark=mark_of("a submission")) as content:
        first, again = await batches.files.upload(content), await batches.files.upload(content)
    assert first.id == again.id
    assert emulator.count("store") == 1


async def test_a_file_that_is_uploaded_by_itself_is_as_it_is(emulator: Emulator, batches: AsyncBatches) -> None:
    """``files.upload`` adds nothing to the content, and a file that the service already stores is used again."""
    files = [await batches.files.upload(LINES) for _ in range(2)]
    assert emulator.content(files[0].id) == LINES
    assert (files[0].filename, files[0].id) == ("requests.jsonl", files[1].id)
    assert (emulator.count("store"), len(emulator.files)) == (1, 1)


# --- the end of a submission --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
async def test_cancelled(
    emulator: Emulator, batches: AsyncBatches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    """A cancelled submission ends at once at any step, and leaves no temporary file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    emulator.fail(Fault(on=step, delay=60))
    submitting = asyncio.create_task(batches.submit(_one_by_one()))
    await _asked(emulator, step)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(submitting, 5)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


def test_the_same_without_async(tmp_path: Path) -> None:
    """The sync client returns plain values and raises plain errors; a generator is consumed in another thread."""
    (tmp_path / "bad.jsonl").write_bytes(b"{}\n")
    threads = set[int]()

    def generated() -> Any:
        for request in REQUESTS:
            threads.add(threading.get_ident())
            yield request

    with (
        Emulator(api_key=KEY, timing=Timing(validating=0, running=0)).running_in_thread() as emulator,
        Batches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches,
    ):
        emulator.fail(Fault(on="create", lose="answer"))
        job = batches.submit(generated(), priority=1)
        assert [shown["id"] for shown in emulator.jobs] == [job.id]
        assert threading.get_ident() not in threads
        with pytest.raises(ValidationError, match="2 problems"):
            batches.submit(tmp_path / "bad.jsonl")
        with batches.results(batches.wait(job), requests=REQUESTS) as rows:
            assert {(type(row), row.custom_id) for row in rows} == {(BatchSuccess, name) for name in "abc"}


# --- random losses ------------------------------------------------------------------------------------------------

SEEDS = 100
TROUBLES: tuple[dict[str, Any], ...] = (
    {"lose": "request"},
    {"lose": "answer"},
    {"status": 500},
    {"status": 503, "acts": True, "body": "<html>", "content_type": "text/html"},
    {"status": 429, "body": {"error": "slow down"}},
    {"cut_after": 5},
    {"status": 200, "acts": True, "body": b"no JSON"},
    {"status": 303, "acts": True},
    {"status": 409, "acts": True, "body": {"error": "there is one"}},
)


def _faults(chance: random.Random) -> list[Fault]:
    """Some failures at some steps, from none to more than the retries outlast."""
    faults: list[Fault] = []
    for _ in range(chance.randrange(7)):
        trouble = chance.choice(TROUBLES)
        step = chance.choice((*STEPS, "create", "list", "list", "file", "*"))
        # Rate limits slow every call, and more of them slow it longer; one covers as much as six.
        times = 1 if trouble.get("status") == 429 else chance.choice((1, 2, 3, 6))
        faults.append(Fault(on=step, times=times, chance=chance.choice((0.3, 1.0)), **trouble))
    return faults


async def _submitted(batches: AsyncBatches, content: bytes) -> BatchJob | BatchesError:
    try:
        return await batches.submit(content, patience=0)
    except (APIError, CreateUnconfirmedError) as error:
        return error


async def _accidents(seed: int) -> Counter[str]:
    """Make three submissions at once, some of the same content, and return how they ended."""
    chance = random.Random(seed)
    contents = [jsonl.encode(BatchRequest(f"row-{chance.randrange(3)}", BODY)) for _ in range(3)]
    policy = RetryPolicy(max_attempts=3, base_delay=0, max_delay=0)
    async with Emulator(api_key=KEY, seed=seed, faults=_faults(chance)) as emulator:
        async with AsyncBatches(KEY, base_url=emulator.base_url, retry=policy) as batches:
            outcomes = await asyncio.gather(*(_submitted(batches, content) for content in contents))
        made = {job["id"]: unmarked(emulator.content(str(job["input_file_id"]))) for job in emulator.jobs}

    good = [(job.id, content) for job, content in zip(outcomes, contents, strict=True) if isinstance(job, BatchJob)]
    assert len(dict(good)) == len(good), f"seed {seed}: two submissions were given the same job"
    assert dict(good).items() <= made.items(), f"seed {seed}: a submission was given no job of its own"
    assert Counter(made.values()) <= Counter(contents), f"seed {seed}: a submission made two jobs"
    return Counter(returned=len(good), raised=len(contents) - len(good), hidden=len(made) - len(good))


async def _many_accidents(seeds: Iterator[int]) -> Counter[str]:
    return sum([await _accidents(seed) for seed in seeds], Counter[str]())


@pytest.mark.unmeasured
def test_whatever_is_lost_no_submission_makes_two_jobs() -> None:
    """After any losses, each submission that returns has one job, and each that raises has at most one."""

    async def run() -> Counter[str]:
        seeds = iter(range(SEEDS))  # some at once, since a refusal for the rate takes its time
        return sum(await asyncio.gather(*(_many_accidents(seeds) for _ in range(30))), Counter[str]())

    with asyncio.Runner(debug=False) as runner:  # which takes three times as long
        ended = runner.run(run())
    # To be sure that all three outcomes are covered: each occurs, and not rarely.
    assert ended.total() >= 3 * SEEDS
    assert ended["returned"] > SEEDS
    assert ended["raised"] > SEEDS / 2
    assert ended["hidden"] > SEEDS / 30
