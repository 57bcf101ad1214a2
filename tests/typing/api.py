"""The public names as users use them: never run, only type-checked by mypy and pyright in strict mode."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO, TypedDict, assert_never, assert_type

import pydantic

from together_batches import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncBatches,
    AuthenticationError,
    Batches,
    BatchesError,
    BatchFailure,
    BatchInvalid,
    BatchJob,
    BatchJobStatus,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
    CancelOutcome,
    CancelReport,
    CancelResult,
    CreateUnconfirmedError,
    FileObject,
    JobNotCreatedError,
    Price,
    RateLimitError,
    Response,
    ResultsUnavailableError,
    RetryPolicy,
    RunError,
    RunInUseError,
    Timeout,
    Usage,
    ValidationError,
    WaitTimeoutError,
    __version__,
    events,
    failed_requests,
    job_from_dict,
    jsonl,
    runs,
    tables,
    to_dict,
)
from together_batches.emulator import Answer, Emulator, Failure, Fault, Missing, RecordedRequest, Reply
from together_batches.typing import (
    ClientEvent,
    Follower,
    Ids,
    LoopIterator,
    Order,
    Requests,
    Schema,
    SchemaAdapter,
    Source,
    Stream,
)

if TYPE_CHECKING:
    from aiohttp import ClientSession


def note(outcome: CancelOutcome) -> None:
    print(outcome.job_id, outcome.result.words)


def on_client_event(event: ClientEvent) -> None:
    match event:
        case events.RequestFinished(method="GET", route=route):
            assert_type(route, str | None)
        case events.RequestFinished():
            assert_type(event.status, int | None)
        case events.RetryScheduled():
            assert_type(event.wait, float)
        case events.RateChanged():
            assert_type(event.rate, float | None)
        case events.JobCreated():
            assert_type(event.found, bool)
        case events.JobChanged():
            assert_type(event.status, BatchJobStatus | None)
        case events.RunChanged():
            assert_type(event.kind, str)
            assert_type(event.kind == runs.RunEventKind.FINISHED, bool)
        case _:
            assert_never(event)


async def make_clients(session: ClientSession) -> None:
    AsyncBatches()
    AsyncBatches("key", on_event=on_client_event)
    AsyncBatches("key", on_event=print)
    client = AsyncBatches(
        api_key="key",
        base_url="https://api.together.ai",
        timeout=10,
        retry=RetryPolicy(max_attempts=3, base_delay=0.1, max_delay=1, max_elapsed=60),
        max_concurrency=10,
        session=session,
        headers={"X-Team": "blue"},
        proxy="http://proxy.example:3128",
        allow_insecure_http=True,
    )
    patient = client.with_options(timeout=Timeout(connect=5, read=30, total=60), retry=RetryPolicy(), headers={})
    assert_type(patient, AsyncBatches)
    await client.close()


async def one_job(client: AsyncBatches) -> None:
    job = await client.create(
        "file-1", endpoint="/v1/chat/completions", completion_window="24h", model_id="model", priority=1
    )
    assert_type(job, BatchJob)
    assert_type(await client.create("file-1"), BatchJob)
    assert_type(await client.retrieve("id"), BatchJob)
    assert_type(await client.retrieve(job), BatchJob)
    assert_type(await client.cancel("id"), BatchJob)
    assert_type(await client.cancel(job), BatchJob)


async def lists(client: AsyncBatches) -> None:
    jobs = await client.list(
        status="IN_PROGRESS",
        model_id="model",
        endpoint="/v1/chat/completions",
        input_file_id="file-1",
        created_after=datetime.now(UTC) - timedelta(hours=2),
        created_before=timedelta(hours=1),
    )
    assert_type(jobs, list[BatchJob])
    await client.list(status=BatchJobStatus.IN_PROGRESS)
    await client.list(status=[BatchJobStatus.IN_PROGRESS, "VALIDATING"])
    await client.cancel_many(jobs)


async def many_jobs(client: AsyncBatches, source: AsyncIterator[str]) -> None:
    report = await client.cancel_many(
        ["a", "b"], max_concurrency=500, rate=50, wait=True, timeout=60, on_outcome=note
    )
    assert_type(report, CancelReport)
    await client.cancel_many(line.strip() for line in ("a\n", "b\n"))
    await client.cancel_many(source)
    await client.cancel_many(("a", BatchJob(id="b")))
    await client.cancel_many({"a": 1})

    async for outcome in client.iter_cancel(["a"], max_concurrency=5, rate=0.5, wait=True):
        assert_type(outcome, CancelOutcome)
    async for row in client.results("a", requests=["a"], order="input"):
        assert_type(row, BatchSuccess | BatchInvalid | BatchFailure | BatchMissing | BatchStray)
        if isinstance(row, BatchSuccess):
            assert_type(row.text, str | None)
            assert_type(row.usage, Usage | None)
    async with client.iter_cancel(source) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome.job, BatchJob | None)
            assert_type(outcome.error, BatchesError | None)
            assert_type(outcome.attempts, int)
            assert_type(outcome.accepted, bool)
            assert_type(outcome.completed_anyway, bool)
            assert_type(outcome.status_before, BatchJobStatus | None)
            assert_type(outcome.requested_at, datetime | None)
            assert_type(outcome.event, Literal["accepted", "ended"] | None)
            assert_type(outcome.ok, bool)


def reports(report: CancelReport) -> None:
    for outcome in report:
        assert_type(outcome, CancelOutcome)
    assert_type(report["a"], CancelOutcome)
    assert_type(report[BatchJob(id="a")], CancelOutcome)
    assert_type(report.counts, Mapping[CancelResult, int])
    assert_type(report.counts[CancelResult.NOT_FOUND], int)
    assert_type(report.ok, bool)
    assert_type(report.failures, tuple[CancelOutcome, ...])
    assert_type(len(report), int)
    assert_type("a" in report, bool)
    assert_type(str(report), str)
    report.raise_for_failures()


def results(outcome: CancelOutcome) -> str:
    match outcome.result:
        case CancelResult.CANCELLED | CancelResult.CANCELING:
            return "stopped"
        case CancelResult.ALREADY_FINISHED:
            return "too late"
        case CancelResult.NOT_FOUND | CancelResult.DENIED | CancelResult.FAILED | CancelResult.NOT_ATTEMPTED:
            return str(outcome.error)


async def the_raw_door(client: AsyncBatches) -> None:
    response = await client.request("GET", "/files", params={"purpose": "batch-api"})
    assert_type(response, Response)
    assert_type(response.status, int)
    assert_type(response.headers, Mapping[str, str])
    assert_type(response.body, bytes)
    assert_type(response.request_id, str | None)
    await client.request("POST", "/batches", json={"input_file_id": "file-1"})


async def contexts() -> None:
    async with AsyncBatches() as client:
        assert_type(client, AsyncBatches)
    with Batches() as batches:
        assert_type(batches, Batches)


def the_synchronous_client() -> None:
    batches = Batches("key", base_url="https://api.together.ai", timeout=10, max_concurrency=10, headers={})
    assert_type(batches.create("file-1"), BatchJob)
    assert_type(batches.retrieve("id"), BatchJob)
    assert_type(batches.list(status="FAILED"), list[BatchJob])
    assert_type(batches.cancel(BatchJob(id="a")), BatchJob)
    assert_type(batches.cancel_many(["a"], progress=True, on_outcome=note), CancelReport)
    assert_type(batches.request("GET", "/batches"), Response)
    assert_type(batches.with_options(timeout=5), Batches)
    for outcome in batches.iter_cancel(["a"]):
        assert_type(outcome, CancelOutcome)
    with batches.results(batches.retrieve("a"), requests="requests.jsonl") as rows:
        assert_type(list(failed_requests("requests.jsonl", rows)), list[BatchRequest])
    with batches.iter_cancel(["a"]) as outcomes:
        plain: Iterator[CancelOutcome] = outcomes
        assert_type(next(plain), CancelOutcome)
    batches.close()


def jobs(job: BatchJob) -> None:
    assert_type(job.id, str)
    assert_type(job.status, BatchJobStatus)
    assert_type(job.progress, float | None)
    assert_type(job.endpoint, str | None)
    assert_type(job.model_id, str | None)
    assert_type(job.input_file_id, str | None)
    assert_type(job.output_file_id, str | None)
    assert_type(job.error_file_id, str | None)
    assert_type(job.error, str | None)
    assert_type(job.user_id, str | None)
    assert_type(job.warning, str | None)
    assert_type(job.file_size_bytes, int | None)
    assert_type(job.created_at, datetime | None)
    assert_type(job.completed_at, datetime | None)
    assert_type(job.job_deadline, datetime | None)
    assert_type(job.extra, Mapping[str, object])
    assert_type(job.is_terminal, bool)
    assert_type(hash(job), int)
    assert_type(job.status.is_terminal, bool)
    assert_type(str(job.status), str)
    if job.status == "COMPLETED" or job.status is BatchJobStatus.FAILED:
        print(job.output_file_id)
    made = BatchJob(id="a", status="PAUSED", progress=50, created_at=datetime.now(UTC), extra={"label": 1})
    assert_type(job_from_dict(to_dict(made)), BatchJob)
    print({made: 1}, __version__)


def plain_data(job: BatchJob, outcome: CancelOutcome, report: CancelReport) -> list[Mapping[str, object]]:
    return [to_dict(job), to_dict(outcome), to_dict(report)]


def requests() -> Iterator[BatchRequest]:
    question = [{"role": "user", "content": "Name a river."}]
    yield assert_type(jsonl.chat_request("a", model="model", messages=question, max_tokens=32), BatchRequest)
    yield jsonl.audio_request("b", model="model", file="https://media.example/7.wav", language="en")
    yield BatchRequest("c", {"model": "model"}, method="FILE")
    assert_type(jsonl.write(requests(), Path("requests.jsonl"), overwrite=True), int)
    for request in jsonl.read("requests.jsonl"):
        assert_type(request.body, Mapping[str, Any])
        text: str = request.body["messages"][0]["content"]
        print(text)
        assert_type(jsonl.decode(jsonl.encode(request)), BatchRequest)
    found = assert_type(jsonl.validate(b"{}", endpoint="/v1/chat/completions"), jsonl.Validation)
    for problem in found.problems:
        assert_type((problem.line, problem.offset, problem.custom_id), tuple[int | None, int | None, str | None])
    assert_type(jsonl.split(requests(), "pieces", max_rows=100, prefix="piece"), list[Path])


def requests_of_tables(rows: list[dict[str, int]], opened: TextIO) -> None:
    made = assert_type(jsonl.requests(rows, prompt="{a}", model="model", max_tokens=3), jsonl.TableRequests)
    assert_type(list(made), list[BatchRequest])
    assert_type(made.fingerprint, Mapping[str, str])

    def prompt(row: Mapping[str, Any]) -> list[dict[str, object]]:
        return [{"role": "user", "content": row["a"]}]

    given: jsonl.Prompt = prompt
    table: jsonl.Table = csv.DictReader(opened)
    jsonl.requests(table, prompt=given, model="model", system="Be brief.", custom_id="a")
    jsonl.requests(Path("cities.csv"), prompt=prompt, model="model")
    jsonl.requests("a.parquet", prompt="?", model="model", images="picture", image_directory=Path("pictures"))
    with Batches() as batches:
        assert_type(batches.run(made, "answers.jsonl", dedupe=True).different_requests, int | None)
        batches.submit(made)


async def a_whole_life(client: AsyncBatches, opened: IO[bytes], source: AsyncIterator[BatchRequest]) -> None:
    job = await client.submit("requests.jsonl", endpoint="/v1/chat/completions", model_id="model", priority=1)
    assert_type(job, BatchJob)
    await client.submit(Path("requests.jsonl"), on_progress=print, on_uploaded=lambda file: print(file.id))
    await client.submit(b"{}")
    await client.submit(opened)
    await client.submit(requests())
    await client.submit(source)
    assert_type(await client.wait(job, timeout=60, poll_interval=5, on_update=print), BatchJob)
    assert_type(await client.wait("a", patience=0, progress=True), BatchJob)
    assert_type(client.as_completed([job], patience=2.5), Stream[BatchJob])
    assert_type(await client.follower(poll_interval=5).ended(job, timeout=60, on_update=print), BatchJob)
    assert_type(client.results(job, requests=["a"], patience=0), Stream[BatchResult])
    async with client.as_completed([job, "id"], timeout=60) as jobs:
        async for finished in jobs:
            assert_type(finished, BatchJob)


class City(pydantic.BaseModel):
    name: str


@dataclass
class Person:
    name: str


class Place(TypedDict):
    name: str


class Numbers:
    def validate_json(self, data: str | bytes, /) -> int:
        return len(data)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer"}


async def answers(client: AsyncBatches, batches: Batches, schema: Schema, adapter: SchemaAdapter[bytes]) -> None:
    assert_type(client.results("a", schema=City), Stream[BatchResult[City]])
    assert_type(batches.results("a", schema=Person), LoopIterator[BatchResult[Person]])
    assert_type(client.results("a", schema=Place), Stream[BatchResult[Place]])
    assert_type(client.results("a", schema=pydantic.TypeAdapter(list[int])), Stream[BatchResult[list[int]]])
    assert_type(client.results("a", schema=Numbers()), Stream[BatchResult[int]])
    assert_type(client.results("a", schema=adapter), Stream[BatchResult[bytes]])
    assert_type(batches.results("a", schema={"type": "object"}), LoopIterator[BatchResult[object]])
    client.results("a", schema=7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await client.submit(requests(), schema=City)
    batches.submit(requests(), schema=schema)
    jsonl.chat_request("a", model="model", messages=[], schema=Place, schema_in_prompt=False)
    async for row in client.results("a", schema=City):
        match row:
            case BatchSuccess():
                assert_type(row.parsed, City)
                assert_type(row.finish_reason, str | None)
            case BatchInvalid():
                assert_type((row.custom_id, row.text, row.error), tuple[str, str | None, str])
                assert_type(row.answer, BatchSuccess)
                assert_type(row.answer.parsed, None)
            case BatchFailure() | BatchMissing() | BatchStray():
                assert_type(row.custom_id, str | None)
    rows: list[BatchResult[City]] = [row async for row in client.results("a", schema=City)]
    assert_type(list(failed_requests(requests(), rows)), list[BatchRequest])
    print([to_dict(row) for row in rows])


def the_same_without_async(batches: Batches) -> list[BatchRequest]:
    job = assert_type(batches.wait(batches.submit(requests())), BatchJob)
    for finished in batches.as_completed([job]):
        assert_type(finished, BatchJob)
    follower: Follower = batches.follower(patience=5)
    assert_type(follower.ended("a", timeout=60, on_update=print), BatchJob)
    return list(failed_requests(requests(), batches.results(job, requests=requests(), order="input")))


async def files(client: AsyncBatches, batches: Batches, opened: IO[bytes]) -> None:
    file = assert_type(await client.files.upload(opened, via="api", on_progress=print), FileObject)
    await client.files.upload([BatchRequest("row-1", {})])
    await client.files.download("file-1", "out.jsonl", overwrite=True, patience=2.5)
    assert_type(await client.files.retrieve(file), FileObject)
    assert_type(await client.files.list(), list[FileObject])
    assert_type(await client.files.download(file, "out.jsonl", on_progress=print), Path)
    async with client.files.content(file) as pieces:
        async for piece in pieces:
            assert_type(piece, bytes)
    await client.files.delete(file)
    assert_type(batches.files.upload(b"{}"), FileObject)
    assert_type(batches.files.list(), list[FileObject])
    with batches.files.content("file-1") as plain:
        assert_type(next(plain), bytes)


async def annotated(client: AsyncBatches, ids: Ids, source: Source) -> Stream[CancelOutcome]:
    await client.cancel_many(ids)
    await client.submit(source)
    await client.files.upload(source)
    assert_type(client.as_completed(ids), Stream[BatchJob])
    assert_type(client.files.content("file-1"), Stream[bytes])
    return client.iter_cancel(ids)


def annotated_without_async(batches: Batches, requests: Requests, order: Order) -> LoopIterator[bytes]:
    rows: LoopIterator[BatchResult]
    rows = batches.results("id", requests=requests, order=order)
    rows.close()
    ids: Ids = ["a", BatchJob(id="b")]
    assert_type(batches.iter_cancel(ids), LoopIterator[CancelOutcome])
    return batches.files.content("file-1")


async def errors(client: AsyncBatches) -> None:
    try:
        await client.cancel("id")
    except AuthenticationError as error:
        assert_type(error.status, int)
        assert_type(error.request_id, str | None)
        assert_type(error.body, object)
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIStatusError as error:
        assert_type(error.message, str)
    except APITimeoutError as error:
        timeout: TimeoutError = error
        print(timeout)
    except APIConnectionError as error:
        assert_type(error.request_sent, bool)
        assert_type(error.status, int | None)
    except APIResponseValidationError as error:
        assert_type((error.expected, error.where, error.excerpt), tuple[str, str, str])
    except APIError as error:
        assert_type((error.method, error.url), tuple[str, str])
    except JobNotCreatedError as error:
        assert_type(error.warning, str | None)
    except CreateUnconfirmedError as error:
        assert_type(error.input_file_id, str)
        assert_type(error.candidates, tuple[BatchJob, ...])
    except ResultsUnavailableError as error:
        assert_type((error.job_id, error.file_ids), tuple[str | None, tuple[str, ...]])
    except WaitTimeoutError as error:
        assert_type(error.jobs, tuple[BatchJob, ...])
    except RunInUseError as error:
        assert_type((error.pid, error.host), tuple[int | None, str | None])
    except RunError as error:
        assert_type(error.directory, str)
    except ValidationError as error:
        value_error: ValueError = error
        print(value_error, assert_type(error.problems, tuple[str, ...]))
    except BatchesError as error:
        print(error)


def on_event(event: runs.RunEvent) -> None:
    assert_type(event.kind, runs.RunEventKind)
    assert_type(event.answered, int)
    assert_type(event.rows, int)
    print(event.message, event.at.isoformat(), event.shard, event.job_id)


async def a_durable_run(client: AsyncBatches, requests: AsyncIterator[BatchRequest]) -> None:
    report = await client.run(
        "in.jsonl", Path("out.jsonl"), max_jobs=5, stop_after_rows=1_000, with_text=True, on_event=on_event
    )
    prices = await client.prices()
    assert_type(prices, dict[str, Price])
    sampled = await client.run("in.jsonl", "out.jsonl", sample=20, stop_after_cost=5, prices=prices)
    assert_type(sampled.cost, float | None)
    assert_type(sampled.expected_usage, Usage | None)
    assert_type(jsonl.estimate("in.jsonl", prices=prices["m"]).max_cost, float | None)
    assert_type(prices["m"].of(sampled.usage), float)
    assert_type(report, runs.RunReport)
    assert_type((report.output, report.complete, report.stopped), tuple[Path | None, bool, str | None])
    await client.run(requests, "out.jsonl", directory=Path("run"), model_id="m", priority=1, with_text=True)
    assert_type(await client.cancel_run(report.directory), CancelReport)
    unfinished = assert_type(await client.unfinished_jobs(report.directory), runs.UnfinishedJobs)
    assert_type((unfinished.jobs, unfinished.unconfirmed), tuple[tuple[BatchJob, ...], tuple[str, ...]])
    view = runs.read("out.jsonl.run")
    for shard in view.shards:
        for attempt in shard.attempts:
            assert_type(
                (attempt.job_id, attempt.status, attempt.progress), tuple[str | None, str | None, float | None]
            )


def a_durable_run_without_async(batches: Batches, requests: list[BatchRequest]) -> None:
    assert_type(batches.run(requests, "out.jsonl", overwrite=True), runs.RunReport)
    assert_type(batches.cancel_run("out.jsonl.run"), CancelReport)
    assert_type(batches.unfinished_jobs("out.jsonl.run"), runs.UnfinishedJobs)


async def tables_of_answers(client: AsyncBatches, batches: Batches, frame: jsonl.ArrowTable) -> None:
    table = assert_type(tables.read("out.jsonl", requests=frame, custom_id="id"), tables.AnswerTable)
    assert_type(table.write_parquet(Path("out.parquet"), overwrite=True, on_progress=print), int)
    again: jsonl.ArrowTable = tables.read(Path("out.jsonl"), schema={"type": "object"}, requests="in.jsonl")
    tables.read("out.jsonl", requests=again)
    tables.from_results(batches.results("id"), schema=BatchJob)
    assert_type(await tables.write_parquet(client.results("id"), "out.parquet"), int)
    assert_type(await tables.write_parquet(table, "out.parquet"), int)
    tables.from_results(client.results("id"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def answer(row: Mapping[str, object]) -> Answer | Failure | Missing | None:
    if row["custom_id"] == "a":
        return Answer("The Elbe.")
    return Failure("no") if row["custom_id"] == "b" else Missing()


def respond(request: RecordedRequest, usual: Callable[[], Reply]) -> Reply:
    return Reply(404, b"none") if request.operation == "retrieve" else usual()


async def the_emulator() -> None:
    async with (
        Emulator(faults=[Fault(status=503)], answer=answer, fail_rows=0.1, respond=respond) as emulator,
        AsyncBatches(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        assert_type(await client.list(), list[BatchJob])


def misuse(client: AsyncBatches, batches: Batches) -> None:
    # Each of these is an error to a type checker; an ignore that is not needed is one too.
    client.retrieve(7)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    client.cancel_many(7)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    batches.cancel("a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Batches(session=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BatchJob("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    batches.submit(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BatchJob(id="a").status = None  # type: ignore[misc, assignment]  # pyright: ignore[reportAttributeAccessIssue]
