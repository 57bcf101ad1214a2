"""``run`` and ``cancel_run`` of both clients, against the emulator: a file in, every answer out, once each."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from wires import AT_ONCE, KEY, VirtualTime

from together_batches import (
    AsyncBatches,
    AuthenticationError,
    Batches,
    BatchRequest,
    CreateUnconfirmedError,
    JobNotCreatedError,
    Price,
    ResultsUnavailableError,
    RunChangedError,
    RunError,
    RunInUseError,
    RunLedgerError,
    Usage,
    UsageError,
    ValidationError,
    jsonl,
    runs,
    to_dict,
)
from together_batches.emulator import Answer, Emulator, Failure, Fault, Missing, Timing
from together_batches.runs import RunEvent, RunEventKind, UnfinishedJobs

from .stage import QUICK, ROWS, Runner, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

IDS = [f"row-{number}" for number in range(ROWS)]


ANSWER = Answer(body={"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
PRICES = {"m": Price(1_000_000, 2_000_000)}
"""By which such an answer costs five dollars."""


# --- the normal course ---


async def test_a_whole_run(run: Runner, emulator: Emulator) -> None:
    """A run makes one job for every three rows, one line for each row in input order, and a report."""
    report = await run()
    assert str(report) == "10 answered; 4 jobs, 30 tokens"
    assert (report.ok, report.complete, report.stopped, report.usage) == (True, True, None, Usage(0, 0, 30))
    assert list(report.job_ids) == [job["id"] for job in emulator.jobs]
    assert (report.directory, report.output, report.failures) == (run.directory, run.output, None)
    assert report.started_at <= report.finished_at
    assert [line["custom_id"] for line in run.lines] == IDS
    assert {line["result"] for line in run.lines} == {"success"}
    assert not run.failures.exists()
    assert run.kinds[0] == RunEventKind.BEGUN
    assert run.kinds[-1] == RunEventKind.FINISHED
    for kind in (RunEventKind.UPLOADED, RunEventKind.CREATED, RunEventKind.ENDED, RunEventKind.COLLECTED):
        assert [event.shard for event in run.events if event.kind == kind] == [1, 2, 3, 4]
    assert list((run.directory / "pieces").iterdir()) == []


# --- a schema -----------------------------------------------------------------------------------------------------


@attrs.frozen
class City:
    """A city."""

    name: str


@attrs.frozen
class _Reworded:
    """The same in other words."""

    name: str


@attrs.frozen
class _Other:
    name: int


FITS = Answer('{"name": "Prague"}')
BAD = Answer("no JSON")


def _fates(run: Runner, **planned: list[Any]) -> None:
    run.fates.planned = {name: planned.get(name.replace("-", "_"), []) + [FITS] * 9 for name in IDS}


def _uploads(emulator: Emulator) -> list[list[Any]]:
    return [
        [json.loads(line) for line in emulator.content(job["input_file_id"]).splitlines()] for job in emulator.jobs
    ]


async def test_a_run_with_a_schema(run: Runner, emulator: Emulator) -> None:
    """Each request is sent with the schema, and an answer that does not fit is a number of its own, and a line."""
    _fates(run, row_1=[BAD], row_7=[Answer(FITS.text + " " + "x")], row_8=[Failure(code="400")])
    report = await run(schema=City)
    assert str(report).startswith("7 answered, 2 with an invalid answer, 1 failed; 4 jobs")
    counts = (report.succeeded, report.invalid_answers, report.failed, report.rows, report.ok)
    assert counts == (7, 2, 1, 10, False)
    results = [line["result"] for line in run.lines]
    assert [number for number, result in enumerate(results) if result == "invalid"] == [1, 7]
    assert run.lines[1]["error"] == "the answer is not JSON"
    assert run.lines[1]["body"]["choices"][0]["message"]["content"] == "no JSON"
    assert [json.loads(line)["custom_id"] for line in run.failures.read_bytes().splitlines()] == ["row-8"]
    sent = [row["body"]["response_format"] for rows in _uploads(emulator) for row in rows]
    assert len(sent) == ROWS
    assert sent[0]["json_schema"]["name"] == "City"
    assert all(each == sent[0] for each in sent)
    view = runs.read(run.directory)
    assert (view.invalid_answers, view.rows) == (2, ROWS)
    assert sum(shard.attempts[0].invalid_answers for shard in view.shards) == 2
    assert run.events[-1].invalid_answers == 2
    # It goes on in other words, with the schema as first sent, and creates nothing.
    assert str(await run(schema=_Reworded)) == str(report)
    assert len(emulator.jobs) == 4


async def test_rows_with_invalid_answers_are_sent_again(run: Runner, emulator: Emulator) -> None:
    """With ``retry_invalid`` they are sent again, in any call, up to the maximum, and keep an answer in any case."""
    _fates(run, row_1=[BAD, BAD, Failure("busy"), Failure(code="400")], row_4=[BAD], row_5=[Failure("busy")])
    report = await run(schema=City, retry_delays=0)
    assert (report.succeeded, report.invalid_answers) == (8, 2)
    report = await run(schema=_Reworded, retry_invalid=True, max_attempts=2, retry_delays=0)
    # The second shard has had two attempts: its row with an invalid answer is left.
    assert (report.succeeded, report.invalid_answers, report.complete) == (8, 2, True)
    report = await run(schema=City, retry_invalid=True, max_attempts=4, retry_delays=0)
    assert (report.succeeded, report.invalid_answers) == (9, 1)
    sent = [[row["custom_id"] for row in rows] for rows in _uploads(emulator)]
    assert sorted(row for row, *more in sent if not more) == ["row-1", "row-1", "row-1", "row-4", "row-5", "row-9"]
    formats = [row["body"]["response_format"] for rows in _uploads(emulator) for row in rows]
    assert {each["json_schema"]["name"] for each in formats} == {"City"}
    assert [line["result"] for line in run.lines].count("invalid") == 1
    assert run.lines[1]["result"] == "invalid"
    assert [line["custom_id"] for line in run.lines] == IDS


@pytest.mark.parametrize("options", [{"schema": City, "retry_invalid": True}, {"schema": City, "max_attempts": 2}])
async def test_a_finished_run_whose_results_are_gone(
    run: Runner, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Rows of a finished run are sent again only if the earlier results, which its output needs, can be read."""
    _fates(run, row_1=[BAD], row_4=[Failure("busy")])
    await run(schema=City, max_attempts=1)
    before = run.output.read_bytes()
    for job in list(emulator.jobs):
        emulator.delete_file(str(job["output_file_id"]))
    with pytest.raises(RunError, match="the output cannot be made again without them"):
        await run(**options, retry_delays=0, patience=0)
    assert len(emulator.jobs) == 4
    assert run.output.read_bytes() == before


async def test_a_run_with_another_schema(run: Runner) -> None:
    """A run resumes with the schema that it began with, and refuses another, none, and one that it had not."""
    _fates(run)
    with pytest.raises(UsageError, match="retry_invalid needs a schema"):
        await run(retry_invalid=True)
    with pytest.raises(UsageError, match="a schema is for answers of /v1/chat/completions"):
        await run(schema=City, endpoint="/v1/audio/transcriptions")
    await run(schema=City)
    with pytest.raises(RunChangedError, match="began with another schema"):
        await run(schema=_Other)
    with pytest.raises(RunChangedError, match="began with a schema, and this call has none"):
        await run()
    shutil.rmtree(run.directory)
    run.output.unlink()
    await run()
    with pytest.raises(RunChangedError, match="began without a schema, and this call has one"):
        await run(schema=City)


async def test_a_schema_has_room_in_each_job(
    run: Runner, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of a job and of a line count the schema: an upload never exceeds them."""
    _fates(run)
    monkeypatch.setattr("together_batches.jsonl.MAX_BYTES", 1_000)
    await run(schema=City, max_rows_per_job=10)
    sizes = [len(emulator.content(job["input_file_id"])) for job in emulator.jobs]
    assert max(sizes) <= 1_000
    assert len(sizes) > 2


@pytest.mark.parametrize("output", ["", "/", "."])
async def test_an_output_without_a_name(run: Runner, output: str) -> None:
    """An output without a file name is refused, with the value in the message."""
    with pytest.raises(UsageError, match="output is not the path of a file"):
        await run(output=output)


async def test_links_in_a_circle(run: Runner, tmp_path: Path) -> None:
    """An output path through a circle of links is refused."""
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UsageError, match=r"cannot write .*circle: too many levels of symbolic links"):
        await run(output=tmp_path / "circle")


async def test_events_count_the_rows(run: Runner) -> None:
    """The counts of each event put every row of the input into one bucket, with the bad lines that were set aside."""
    run.source.write_bytes(run.source.read_bytes() + b"{}\n")
    run.fates.planned = {"row-1": [Failure("four stops at most", "invalid_request_error")]}
    await run(skip_invalid=True)
    assert {event.rows for event in run.events} == {11}
    assert {event.invalid for event in run.events} == {1}
    first, last = run.events[0], run.events[-1]
    assert (first.not_sent, first.in_flight, first.succeeded) == (10, 0, 0)
    assert (last.not_sent, last.in_flight, last.succeeded, last.failed) == (0, 0, 9, 1)
    created = next(event for event in run.events if event.kind == RunEventKind.CREATED)
    assert (created.not_sent, created.in_flight) == (7, 3)
    collected = [event.succeeded for event in run.events if event.kind == RunEventKind.COLLECTED]
    assert collected == [2, 5, 8, 9]
    assert to_dict(first)["rows"] == 11


async def test_events_count_rows_that_jobs_under_way_have_answered(run: Runner) -> None:
    """Events count the rows that unfinished jobs have answered by their progress, until results are collected."""
    await run(max_rows_per_job=50)
    answered = [event.answered for event in run.events]
    assert 0 < max(answered) <= 10
    assert answered[-1] == 0
    assert all(event.in_flight >= event.answered for event in run.events)


async def test_requests_may_be_dicts(run: Runner) -> None:
    """Requests may be dicts with the fields of their lines."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    report = await run(source=[{"custom_id": name, "body": body} for name in "abc"])
    assert (report.ok, [line["custom_id"] for line in run.lines]) == (True, ["a", "b", "c"])


async def test_what_is_no_input_is_refused_before_an_upload(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """A wrong endpoint, a single request, and an array are refused before an upload, also with ``skip_invalid``."""
    array = tmp_path / "array.json"
    array.write_bytes(b'[{"custom_id": "a", "body": {"model": "m"}}]')
    with pytest.raises(UsageError, match="use /v1/chat/completions"):
        await run(endpoint="/v1/chat/completion", directory=tmp_path / "1")
    with pytest.raises(UsageError, match="the requests of a run come from"):
        await run(source={"custom_id": "a", "body": {}}, directory=tmp_path / "2")
    for number, skip_invalid in enumerate((False, True), start=3):
        with pytest.raises(ValidationError, match="is one JSON array"):
            await run(source=array, directory=tmp_path / str(number), skip_invalid=skip_invalid)
    assert len(emulator.requests) == 0


async def test_a_second_call_does_nothing(run: Runner, emulator: Emulator) -> None:
    """A further call on a finished run returns its report, without a request to the service."""
    report = await run()
    requested = len(emulator.requests)
    assert await run() == report
    assert (len(emulator.requests), run.kinds) == (requested, [RunEventKind.RESUMED])


async def test_lines_are_those_of_the_command_results(run: Runner, batches: AsyncBatches) -> None:
    """The lines have the same form as those of the command ``results``."""
    from together_batches import to_dict

    report = await run(max_rows_per_job=50)
    async with batches.results(report.job_ids[0], requests=run.source, order="input") as rows:
        assert [to_dict(row) async for row in rows] == run.lines


@pytest.mark.parametrize("options", [{}, {"max_rows_per_job": 50}, {"dedupe": True}])
async def test_lines_with_their_texts(run: Runner, options: dict[str, Any]) -> None:
    """On request each line has the text of its answer, too, however long, whatever the output is made of."""
    texts = {name: f"to {name}" for name in IDS} | {"row-2": "Elbe " * 60_000}  # longer than a block that is copied
    run.fates.planned = {name: [Answer(text)] for name, text in texts.items()}
    report = await run(with_text=True, **options)
    assert report.ok
    assert {line["custom_id"]: line.get("text") for line in run.lines} == texts
    assert await run(with_text=True, **options) == report  # the output is recognised


async def test_failed_rows_are_sent_again_alone(run: Runner, emulator: Emulator) -> None:
    """Rows with transient failures go again in a new job, others do not; each row has its last answer, in place."""
    gone, lost, bad = Failure(), Missing(), Failure("four stops at most", "invalid_request_error")
    run.fates.planned = {"row-1": [gone, lost], "row-2": [lost], "row-4": [bad], "row-9": [gone, gone, gone]}
    report = await run()
    assert (report.succeeded, report.failed, report.missing, report.not_sent) == (8, 2, 0, 0)
    assert (report.ok, report.complete, report.failures) == (False, True, run.failures)
    sent = [emulator.content(str(job["input_file_id"])).count(b"\n") for job in emulator.jobs]
    assert sorted(sent) == [1, 1, 1, 1, 2, 3, 3, 3]
    assert [line["custom_id"] for line in run.lines] == IDS
    failed = [line for line in run.lines if line["result"] != "success"]
    assert [(line["custom_id"], line["code"]) for line in failed] == [
        ("row-4", "invalid_request_error"),
        ("row-9", "batch_client_error"),
    ]
    assert [json.loads(line) for line in run.failures.read_bytes().splitlines()] == failed


async def test_rows_that_stay_missing(run: Runner) -> None:
    """Rows that never come are reported missing; a call with more attempts resumes and replaces both files."""
    run.fates.planned = {"row-5": [Missing()]}
    report = await run(max_attempts=1)
    assert (report.succeeded, report.missing, report.complete) == (9, 1, True)
    assert run.lines[5] == {"custom_id": "row-5", "result": "missing"}
    report = await run(max_attempts=3)
    assert (report.succeeded, report.missing, len(report.job_ids), report.failures) == (10, 0, 5, None)
    assert run.lines[5]["result"] == "success"
    assert not run.failures.exists()


async def test_a_job_that_failed_for_its_input(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """A job that failed for its input is not sent again; its rows failed, with its reason."""
    rows = [BatchRequest(name, {"model": "dedicated/m", "messages": []}) for name in "ab"]
    report = await run(source=rows)
    assert (report.failed, len(emulator.jobs)) == (2, 1)
    assert {line["code"] for line in run.lines} == {"job_failed"}
    assert "Unable to access non-serverless model" in run.lines[0]["message"]


@pytest.mark.parametrize("status", ["EXPIRED", "FAILED"])
async def test_jobs_that_end_badly(run: Runner, emulator: Emulator, status: str) -> None:
    """The rows of jobs that end badly go again, up to the maximum of attempts; completed rows are kept."""
    emulator.ends_as = status
    report = await run(max_attempts=2, max_rows_per_job=50)
    assert [job["status"] for job in emulator.jobs] == [status, status]
    assert report.complete
    assert report.succeeded + report.missing == ROWS
    assert report.missing


# --- the input ---


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_requests(run: Runner, emulator: Emulator, kind: str) -> None:
    """Requests of any iterable are stored, so that it is iterated once, whatever happens."""

    async def one_by_one() -> AsyncIterator[BatchRequest]:
        for request in requests():
            yield request

    made: dict[str, Callable[[], Any]] = {
        "list": lambda: list(requests()),
        "generator": requests,
        "async generator": one_by_one,
    }
    emulator.fail(Fault(on="create", status=402, body={"error": "no money"}))
    with pytest.raises(Exception, match="no money"):
        await run(source=made[kind]())
    assert (run.directory / "input.jsonl").read_bytes() == run.source.read_bytes()

    def not_again() -> Iterator[BatchRequest]:
        raise AssertionError
        yield

    report = await run(source=not_again())
    assert report.ok
    assert [line["custom_id"] for line in run.lines] == IDS


async def test_a_source_that_fails(run: Runner) -> None:
    """An exception of the source is raised as it is, and the run is not begun: the next call iterates a new one."""

    def broken() -> Iterator[BatchRequest]:
        yield next(requests())
        raise OSError("the database is away")

    with pytest.raises(OSError, match="the database is away"):
        await run(source=broken())
    with pytest.raises(ValidationError, match="request 2: 'b' is not a BatchRequest"):
        await run(source=[next(requests()), "b"])
    assert (await run(source=requests())).ok


async def test_bad_lines(run: Runner, emulator: Emulator) -> None:
    """Bad lines are refused with their numbers before a request is sent, or set aside in their own file."""
    run.source.write_bytes(b"no JSON\n" + run.source.read_bytes() + b"{}\n")
    with pytest.raises(ValidationError, match="problems in lines 1, 12;"):
        await run()
    assert len(emulator.requests) == 0
    report = await run(skip_invalid=True)
    assert (report.invalid, report.succeeded, report.rows, report.ok) == (2, 10, 12, False)
    assert report.invalid_lines is not None
    assert report.invalid_lines.read_bytes() == b"no JSON\n{}\n"
    assert [line["custom_id"] for line in run.lines] == IDS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"output": "in.jsonl"}, "output and the input are the same file"),
        ({"failures": "in.jsonl"}, "failures and the input are the same file"),
        ({"failures": "out.jsonl"}, "output and failures are the same file"),
        ({"output": "run/out.jsonl", "directory": "run"}, "output is in the directory of the run"),
        ({"output": "run/a/../out.jsonl", "directory": "run"}, "output is in the directory of the run"),
        ({"failures": "run/out.jsonl", "directory": "run"}, "failures is in the directory of the run"),
        ({"output": "there"}, "cannot write .*there: it is a directory"),
        ({"directory": "in.jsonl"}, "cannot make .*in.jsonl: file exists"),
        ({"source": "missing.jsonl"}, "cannot read .*missing.jsonl"),
    ],
)
async def test_invalid_paths(
    run: Runner, tmp_path: Path, options: dict[str, str], expected: str, emulator: Emulator
) -> None:
    """Invalid paths are refused before a request is sent."""
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match=expected):
        await run(**{name: tmp_path / place for name, place in options.items()})
    assert len(emulator.requests) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source": b"bytes"}, "come from a path, a binary file, or an iterable"),
        ({"source": 7}, "come from a path, a binary file, or an iterable"),
        ({"output": 7}, "output is a path, not int"),
        ({"output": "out.parquet"}, "a run writes JSON Lines, not Parquet: name its output out.jsonl"),
        ({"max_jobs": 0}, "max_jobs must be a whole number"),
        ({"max_attempts": 0}, "max_attempts must be a whole number"),
        ({"max_rows_per_job": 50_001}, "max_rows_per_job is at most 50 000"),
        ({"stop_after_rows": 0}, "stop_after_rows must be a whole number"),
        ({"poll_interval": 0}, "poll_interval must be a number"),
        ({"max_enqueued_rows": 2}, "max_enqueued_rows is 2, and the run has a job of 3 rows"),
        ({"endpoint": "chat"}, "endpoint must be a path"),
        ({"patience": -1}, "patience must be a number, zero or more"),
        ({"patience": float("nan")}, "patience must be a number, zero or more"),
        ({"patience": "long"}, "patience must be a number, zero or more"),
        ({"give_up": "job-1"}, "give_up is an iterable of ids"),
        ({"give_up": [7]}, "give_up takes ids of jobs or files, not 7"),
        ({"give_up": ["job-1"]}, "invalid give_up: 'job-1' is neither a job nor the input of a job of the run"),
        ({"retry_delays": "30"}, "retry_delays is a number of seconds, or several"),
        ({"retry_delays": [30, -1]}, "retry_delays must be a number, zero or more"),
    ],
)
async def test_invalid_arguments(run: Runner, options: dict[str, Any], expected: str) -> None:
    """Invalid arguments are refused with a message."""
    with pytest.raises(UsageError, match=expected):
        await run(**options)


async def test_a_callback_has_to_be_plain(run: Runner) -> None:
    """A callback must not be a coroutine function; its exception aborts the call as it is, and the next resumes."""

    async def coroutine(_: RunEvent) -> None: ...

    with pytest.raises(TypeError, match="on_event must be a plain function"):
        await run(on_event=coroutine)

    def broken(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            raise LookupError

    with pytest.raises(LookupError):
        await run(on_event=broken)
    assert (await run()).ok
    assert run.kinds.count(RunEventKind.CREATED) == 3


async def test_existing_files_are_left_alone(run: Runner, emulator: Emulator) -> None:
    """Existing files are refused before a request is sent; with ``overwrite`` they are replaced, only at the end."""
    run.output.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"out\.jsonl exists already, and is left alone; overwrite=True"):
        await run()
    assert (run.output.read_bytes(), len(emulator.requests)) == (b"precious", 0)
    assert (await run(overwrite=True)).ok
    assert len(run.lines) == ROWS
    run.output.write_bytes(b"changed")
    with pytest.raises(UsageError, match="exists already"):
        await run()
    assert (await run(overwrite=True)).ok
    assert len(run.lines) == ROWS


# --- resuming ---


async def _stopped(run: Runner, kind: RunEventKind, times: int = 1, **options: Any) -> None:
    """Begin a run, and cancel it at the given occurrence of this event."""
    task = asyncio.current_task()
    assert task is not None
    running = asyncio.ensure_future(run(on_event=lambda event: on_event(event), **options))
    seen: list[RunEventKind] = []

    def on_event(event: RunEvent) -> None:
        seen.append(event.kind)
        if seen.count(kind) == times:
            running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "kind",
    [
        RunEventKind.BEGUN,
        RunEventKind.UPLOADED,
        RunEventKind.CREATED,
        RunEventKind.PROGRESSED,
        RunEventKind.ENDED,
        RunEventKind.COLLECTED,
    ],
)
@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_and_continued(run: Runner, emulator: Emulator, kind: RunEventKind, times: int) -> None:
    """A run cancelled at any step leaves no final files, does not touch its jobs, and resumes without duplicates."""
    if kind == RunEventKind.BEGUN and times > 1:
        return
    await _stopped(run, kind, times)
    assert not run.output.exists()
    assert emulator.count("cancel") == 0
    view = runs.read(run.directory)
    assert (view.state, view.rows, view.succeeded + view.in_flight + view.not_sent) == ("interrupted", 10, 10)
    report = await run()
    assert report.ok
    assert run.kinds[0] == RunEventKind.RESUMED
    assert len(emulator.jobs) == 4
    assert [line["custom_id"] for line in run.lines] == IDS


async def test_the_job_of_a_lost_create_is_found(run: Runner, emulator: Emulator) -> None:
    """A create whose answer was lost is not sent again: its job is looked for, by the service's clock."""
    await _stopped(run, RunEventKind.UPLOADED)
    view = runs.read(run.directory)
    file_id = view.shards[0].attempts[0].file_id
    async with AsyncBatches(KEY, base_url=emulator.base_url) as another:
        job = await another.create(str(file_id))
    with closing(sqlite3.connect(run.directory / "ledger.sqlite", isolation_level=None)) as ledger:
        # The recorded intent is of a machine whose own clock was far ahead then.
        since = job.created_at
        assert since is not None
        ledger.execute("UPDATE attempt SET since = ?, creating_at = '2999-01-01T00:00:00+00:00'", [since.isoformat()])
    report = await run()
    assert report.ok
    assert report.job_ids[0] == job.id
    assert RunEventKind.FOUND in run.kinds
    assert len(emulator.jobs) == 4
    assert runs.read(run.directory).shards[0].attempts[0].found


async def test_several_jobs_could_be_it(run: Runner, emulator: Emulator) -> None:
    """If several jobs match, one with results, or one that runs, is adopted, and the others are named."""
    await _stopped(run, RunEventKind.UPLOADED)
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    ours = emulator.add_job(input_file_id=file_id, status="IN_PROGRESS", ends_as="COMPLETED")
    other = emulator.add_job(input_file_id=file_id, status="IN_PROGRESS", ends_as="IN_PROGRESS")
    with closing(sqlite3.connect(run.directory / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE attempt SET creating_at = planned_at")
    await run.batches.cancel(other)
    report = await run()
    assert (report.ok, report.job_ids[0], len(emulator.jobs)) == (True, ours, 5)
    (found,) = [event for event in run.events if event.kind == RunEventKind.FOUND]
    assert re.search(f"job {ours} is found again; .*created from its file as well.*{other}", found.message)


class _SecondJob:
    """A second job of a create, with an answer for each of some rows, that appears when the first is collected."""

    def __init__(self, emulator: Emulator, file_id: str, answers: dict[str, Any]) -> None:
        self.job_id = ""
        self._emulator = emulator
        self._file_id = file_id
        rows = [{"custom_id": name, "response": {"status_code": 200, "body": body}} for name, body in answers.items()]
        self._output = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def __call__(self, event: RunEvent) -> None:
        if event.kind == RunEventKind.COLLECTED and not self.job_id:
            files = {"output_file_id": self._emulator.add_file(self._output), "error_file_id": None}
            self.job_id = self._emulator.add_job(input_file_id=self._file_id, status="COMPLETED", **files)


async def test_a_second_job_of_a_create(run: Runner, emulator: Emulator) -> None:
    """A second job of a create supplies what the first lacks; the rest goes again, without counting as an attempt."""
    run.fates.planned = {"row-1": [Failure(), Answer("third")], "row-2": [Failure()]}
    await _stopped(run, RunEventKind.UPLOADED)
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    first = emulator.add_job(input_file_id=file_id, status="COMPLETED")
    second = _SecondJob(emulator, file_id, {"row-0": {"by": "second"}, "row-1": {"by": "second"}})
    report = await run(max_attempts=2, on_event=second)
    assert (report.ok, len(emulator.jobs)) == (True, 6)
    assert report.job_ids[:2] == (first, second.job_id)
    assert [line["body"].get("by") for line in run.lines[:3]] == [None, "second", None]
    sent = {str(job["id"]): emulator.content(str(job["input_file_id"])).count(b"\n") for job in emulator.jobs}
    assert sent[report.job_ids[2]] == 1
    found = [event.message for event in run.events if event.kind == RunEventKind.FOUND]
    assert [message.split()[1] for message in found] == [first, second.job_id]
    assert not any("belong to no request" in event.message for event in run.events)


async def test_a_second_job_whose_answer_fits(run: Runner, emulator: Emulator) -> None:
    """An answer of a second job that fits replaces one of the first that does not, also without ``retry_invalid``."""
    _fates(run, row_0=[BAD], row_2=[Failure()])
    await _stopped(run, RunEventKind.UPLOADED, schema=City)
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    emulator.add_job(input_file_id=file_id, status="COMPLETED")
    body = {"choices": [{"message": {"content": '{"name": "Prague", "population": 1}'}, "finish_reason": "stop"}]}
    second = _SecondJob(emulator, file_id, dict.fromkeys(["row-0", "row-1", "row-2"], body))
    report = await run(schema=City, on_event=second)
    assert (report.succeeded, report.invalid_answers, report.ok) == (ROWS, 0, True)
    assert report.job_ids[1] == second.job_id
    assert len(emulator.jobs) == 5
    assert [line["custom_id"] for line in run.lines] == IDS


async def test_two_jobs_of_a_create_without_results(run: Runner, emulator: Emulator) -> None:
    """Two jobs of a create, both without results, are given up in turn: each is adopted once, then rows go again."""
    await _stopped(run, RunEventKind.UPLOADED)
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    without = {"output_file_id": None, "error_file_id": None}
    jobs = {emulator.add_job(input_file_id=file_id, status="COMPLETED", **without) for _ in range(2)}
    given_up: list[str] = []
    for _ in range(2):
        with pytest.raises(ResultsUnavailableError, match="names no file of results") as caught:
            await run(give_up=given_up[-1:])
        given_up.append(str(caught.value.job_id))
    assert set(given_up) == jobs
    assert (await run(give_up=given_up[-1:])).ok
    assert len(emulator.jobs) == 2 + 4


async def test_an_input_that_changed(run: Runner, emulator: Emulator) -> None:
    """A changed input, or other settings, are refused with advice; the run resumes when they are restored."""
    await _stopped(run, RunEventKind.CREATED)
    content = run.source.read_bytes()
    run.source.write_bytes(content.replace(b"row-9", b"row-8"))
    with pytest.raises(RunChangedError, match=r"in.jsonl is not what .* began with \(its bytes differ\): put"):
        await run()
    run.source.write_bytes(content + content)
    with pytest.raises(RunChangedError, match=r"it has [\d ]+ bytes, and had"):
        await run()
    run.source.write_bytes(content)
    with pytest.raises(RunChangedError, match="began with model_id=None, and this call has model_id='m'"):
        await run(model_id="m")
    with pytest.raises(RunChangedError, match="endpoint="):
        await run(endpoint="/v1/audio/translations")
    with pytest.raises(RunChangedError, match=r"began from a file, in\.jsonl: pass its path"):
        await run(source=requests())
    assert (await run()).ok
    assert len(emulator.jobs) == 4


def _table(rows: int = ROWS, prompt: str = "{city}", **options: Any) -> jsonl.TableRequests:
    cities = [{"id": f"row-{number}", "city": f"city {number}"} for number in range(rows)]
    return jsonl.requests(cities, prompt=prompt, model="m", **options)


async def test_requests_of_a_table(run: Runner) -> None:
    """A run of a table goes on if the table and what is made of it are equal; otherwise it says what differs."""
    await _stopped(run, RunEventKind.CREATED, source=_table())
    changed = {
        r"another table": _table(rows=9),
        r"another prompt": _table(prompt="Where is {city}?"),
        r"another max_tokens and another system": _table(max_tokens=3, system="Be brief."),
    }
    for difference, source in changed.items():
        with pytest.raises(RunChangedError, match=rf"were made with {difference}: use the former, or begin"):
            await run(source=source)
    with pytest.raises(
        RunChangedError, match="began with requests of a table, and this call has requests that are not"
    ):
        await run(source=requests())
    assert (await run(source=_table())).ok
    assert [line["custom_id"] for line in run.lines] == IDS


async def test_requests_of_a_table_that_is_read_once(run: Runner) -> None:
    """A table that can be read only once is not read again; the rest is compared."""

    def rows(city: str) -> Iterator[dict[str, str]]:
        yield from ({"id": custom_id, "city": city} for custom_id in IDS)

    await _stopped(run, RunEventKind.CREATED, source=jsonl.requests(rows("Paris"), prompt="{city}", model="m"))
    with pytest.raises(RunChangedError, match="another prompt"):
        await run(source=jsonl.requests(rows("Paris"), prompt="{id}", model="m"))
    assert (await run(source=jsonl.requests(rows("Rome"), prompt="{city}", model="m"))).ok


async def test_a_table_that_cannot_be_used(run: Runner, emulator: Emulator) -> None:
    """Nothing is sent, and all problems are named; mended, the same call begins the run."""
    rows: list[dict[str, Any]] = [{"id": 1.0, "city": "a"}, {"id": 2, "city": None}]
    with pytest.raises(
        ValidationError, match=r"the table: row 1, column 'id': the id 1.0 is of type float"
    ) as caught:
        await run(source=jsonl.requests(rows, prompt="{city}", model="m"))
    assert len(caught.value.problems) == 2
    with pytest.raises(UsageError, match="the table has no column 'town'; its columns are 'id', 'city'"):
        await run(source=jsonl.requests(rows, prompt="{town}", model="m"))
    assert not emulator.requests
    rows = [{"id": custom_id, "city": "a"} for custom_id in IDS]
    assert (await run(source=jsonl.requests(rows, prompt="{city}", model="m"))).ok


async def test_requests_of_no_table_are_not_those_of_one(run: Runner) -> None:
    """A run that was begun with other requests does not go on with those of a table: they cannot be compared."""
    await _stopped(run, RunEventKind.CREATED, source=requests())
    with pytest.raises(RunChangedError, match="began with requests that are not of a table, and this call"):
        await run(source=_table())


async def test_moved_to_another_machine(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """The directory and the input resume on another machine, under other names."""
    await _stopped(run, RunEventKind.COLLECTED)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(run.directory, elsewhere / "kept")
    shutil.move(run.source, elsewhere / "moved.jsonl")
    output = elsewhere / "answers.jsonl"
    report = await run(source=elsewhere / "moved.jsonl", output=output, directory=elsewhere / "kept")
    assert report.ok
    assert len(emulator.jobs) == 4
    assert len(output.read_bytes().splitlines()) == ROWS


async def test_two_at_once(run: Runner, emulator: Emulator) -> None:
    """A second call on a run is refused, and the message names the first."""
    refused: list[RunInUseError] = []

    async def second() -> None:
        with pytest.raises(RunInUseError) as raised:
            await run.batches.run(run.source, run.output.with_name("other.jsonl"), directory=run.directory)
        refused.append(raised.value)
        emulator.timing = QUICK
        emulator.advance(1_000)

    seconds: list[asyncio.Task[None]] = []
    emulator.timing = Timing(validating=100, running=100)

    def begin(event: RunEvent) -> None:
        if event.kind == RunEventKind.BEGUN:
            seconds.append(asyncio.create_task(second()))

    first = asyncio.create_task(run(on_event=begin))
    assert (await first).ok
    await asyncio.gather(*seconds)
    assert len(refused) == 1


async def test_a_ledger_that_is_gone_or_broken(run: Runner, emulator: Emulator) -> None:
    """A missing or damaged ledger is an error, and never a new run."""
    await _stopped(run, RunEventKind.COLLECTED)
    ledger = run.directory / "ledger.sqlite"
    content = ledger.read_bytes()
    for cut in (b"", content[: len(content) // 2]):
        ledger.write_bytes(cut)
        with pytest.raises(RunLedgerError):
            await run()
    ledger.unlink()
    with pytest.raises(RunLedgerError, match=r"holds a run and no ledger\.sqlite: put it back"):
        await run()
    ledger.write_bytes(content)
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_an_output_that_was_removed(run: Runner, emulator: Emulator) -> None:
    """A removed output is made again from the jobs' files, byte for byte; an error says if those are gone too."""
    run.fates.planned = {"row-1": [Missing()]}
    await run()
    content = run.output.read_bytes()
    run.output.unlink()
    await run()
    assert run.output.read_bytes() == content
    assert len(emulator.jobs) == 5
    run.output.unlink()
    emulator.fail(Fault(on="content", status=404, body={"error": {"message": "gone"}}, times=1_000))
    with pytest.raises(RunError, match="are not at the service any more as they were"):
        await run()
    emulator.clear_faults()
    await run()
    assert run.output.read_bytes() == content


async def test_answers_that_came_after_the_end(run: Runner, emulator: Emulator) -> None:
    """A row that is answered by the time that the output is made again is answered in the report, too."""
    run.fates.planned = {"row-5": [Missing()]}
    report = await run(max_rows_per_job=50, max_attempts=1)
    assert (report.succeeded, report.missing, run.failures.exists()) == (9, 1, True)
    run.output.unlink()
    late = {"custom_id": "row-5", "response": {"status_code": 200, "body": {"choices": []}}}
    content = emulator.content(str(emulator.jobs[0]["output_file_id"])) + json.dumps(late).encode() + b"\n"
    emulator.fail(Fault(on="content", status=200, body=content))
    for _ in range(2):
        report = await run(max_attempts=1)
        assert (report.ok, report.succeeded, report.failures) == (True, 10, None)
    assert [line["result"] for line in run.lines] == ["success"] * ROWS
    assert not run.failures.exists()
    assert len(emulator.jobs) == 1


async def test_killed_while_the_output_is_made_again(run: Runner, emulator: Emulator) -> None:
    """Results that a killed process downloaded again, and did not record, are downloaded again by the next call."""
    await run()
    content = run.output.read_bytes()
    run.output.unlink()
    emulator.fail(Fault(on="content", status=404, body={"error": {"message": "gone"}}))
    await _stopped(run, RunEventKind.TROUBLE)
    (run.directory / "pieces" / "00001-1.jsonl").write_bytes(content.splitlines(keepends=True)[0] * 3)
    assert (await run()).ok
    assert run.output.read_bytes() == content


async def test_killed_right_after_the_output_was_written(run: Runner) -> None:
    """What a killed process left of the results of single jobs is removed by the next call."""
    await run()
    left = run.directory / "pieces" / "00001-1.jsonl"
    left.write_bytes(b"{}\n")
    assert (await run()).ok
    assert not left.exists()


# --- limits ---


async def test_a_stop_on_rows(run: Runner, emulator: Emulator) -> None:
    """With a limit of rows no job is created beyond it, running jobs are collected, and a larger limit resumes."""
    report = await run(stop_after_rows=7)
    assert str(report).startswith("6 answered, 4 not sent; 2 jobs")
    assert (report.complete, report.output, report.ok) == (False, None, False)
    assert report.stopped == "6 rows were sent, the next job has 3, and the limit is 7"
    assert RunEventKind.STOPPED in run.kinds
    assert not run.output.exists()
    report = await run(stop_after_rows=10)
    assert (report.ok, report.stopped, len(emulator.jobs)) == (True, None, 4)


async def test_jobs_that_are_larger_than_the_quota(run: Runner, emulator: Emulator) -> None:
    """A run whose jobs are larger than ``max_enqueued_rows`` is not begun, so the next call can cut smaller ones."""
    with pytest.raises(UsageError, match="which could never be sent"):
        await run(max_enqueued_rows=2)
    report = await run(max_enqueued_rows=2, max_rows_per_job=2)
    assert (report.ok, len(emulator.jobs)) == (True, 5)
    with pytest.raises(UsageError, match="which could never be sent"):
        await run(max_enqueued_rows=1)


async def test_a_stop_on_tokens(run: Runner, emulator: Emulator) -> None:
    """With a limit of tokens no job is created as soon as they are used."""
    report = await run(stop_after_tokens=10)
    assert (report.usage.total_tokens, report.not_sent, len(emulator.jobs)) == (18, 4, 2)
    assert report.stopped == "18 tokens were used, and the limit is 10"
    assert (await run()).ok


async def test_tokens_of_results_that_are_collected_again(run: Runner, emulator: Emulator) -> None:
    """Tokens count once, however often the results are collected."""
    run.fates.planned = {"row-0": [Failure()]}

    def change(event: RunEvent) -> None:
        if event.kind == RunEventKind.COLLECTED and event.shard == 2:
            output = str(emulator.jobs[0]["output_file_id"])
            emulator.fail(Fault(on="file", status=200, body={"id": output, "bytes": 5}))

    report = await run(max_rows_per_job=5, stop_after_tokens=28, on_event=change)
    assert (report.ok, report.stopped, report.usage.total_tokens) == (True, None, 30)
    collected = [(event.shard, event.attempt) for event in run.events if event.kind == RunEventKind.COLLECTED]
    assert collected == [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2)]


async def test_tokens_of_results_that_are_given_up(run: Runner, emulator: Emulator) -> None:
    """Tokens of the rows that could still be read of results that are given up count, too."""
    run.fates.planned = {"row-1": [Failure("four stops at most", "invalid_request_error")]}
    with pytest.raises(ResultsUnavailableError):
        await run(stop_after_rows=3, patience=0, on_event=_deleting(emulator, "error_file_id"))
    report = await run(give_up=[str(emulator.jobs[0]["id"])], stop_after_tokens=6)
    assert (report.usage.total_tokens, report.stopped) == (6, "6 tokens were used, and the limit is 6")
    assert len(emulator.jobs) == 1


@pytest.mark.unmeasured
@pytest.mark.parametrize(("limits", "expected"), [({"max_jobs": 2}, 2), ({"max_jobs": 9, "max_enqueued_rows": 7}, 3)])
async def test_no_more_in_flight_than_allowed(
    run: Runner, emulator: Emulator, limits: dict[str, int], expected: int
) -> None:
    """No more jobs, or rows, are in flight than allowed; the rest is released as earlier jobs end."""
    under_way: list[int] = []

    def watch(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            under_way.append(sum(job["status"] != "COMPLETED" for job in emulator.jobs))

    emulator.timing = Timing(validating=10, running=10)
    report = await run(**limits, on_event=watch, max_rows_per_job=2, poll_interval=2)
    assert (report.ok, len(emulator.jobs), max(under_way)) == (True, 5, expected)


# --- cancelling ---


@pytest.mark.parametrize(
    ("timing", "max_jobs"),
    [
        (Timing(validating=0, running=1e9, canceling=0), 1),
        (Timing(validating=300, canceling=60), 9),
    ],
    ids=["a running job", "the first job while it is validated"],
)
async def test_a_run_that_is_cancelled_from_outside(
    run: Runner, emulator: Emulator, timing: Timing, max_jobs: int
) -> None:
    """A run cancelled from outside creates no job, collects results and ends; the next call sends the rest again."""
    emulator.timing = timing
    outcomes: list[str] = []

    async def cancel() -> None:
        outcomes.append(str(await run.batches.cancel_run(run.directory)))

    cancelling: list[asyncio.Task[None]] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.PROGRESSED and not cancelling:
            cancelling.append(asyncio.create_task(cancel()))

    report = await run(on_event=on_event, max_jobs=max_jobs, poll_interval=5)
    await asyncio.gather(*cancelling)
    assert outcomes in (["1 canceling"], ["1 cancelled"])
    assert (report.complete, report.not_sent) == (False, 10)
    assert report.stopped == f"job {report.job_ids[0]} was cancelled"
    emulator.timing = QUICK
    assert (await run(max_attempts=1)).ok
    assert len(emulator.jobs) == 5


async def test_cancel_on_interrupt(run: Runner, emulator: Emulator) -> None:
    """With ``cancel_on_interrupt`` the jobs do not outlive the call; the next one sends their rows again."""
    emulator.timing = Timing(validating=0, running=1e9, canceling=0)
    created = asyncio.Event()

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.set()

    running = asyncio.create_task(run(on_event=on_event, cancel_on_interrupt=True))
    await created.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [job["status"] for job in emulator.jobs] == ["CANCELLED"]
    assert str(await run.batches.cancel_run(run.directory)) == "1 cancelled"
    emulator.timing = QUICK
    assert (await run()).ok
    assert len(emulator.jobs) == 5


async def test_unfinished_jobs(run: Runner, emulator: Emulator) -> None:
    """Jobs that have not ended are listed, and so is the input file of a create without a listed job."""
    await _stopped(run, RunEventKind.UPLOADED)
    assert await run.batches.unfinished_jobs(run.directory) == UnfinishedJobs((), ())
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    with closing(sqlite3.connect(run.directory / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE attempt SET creating_at = planned_at")
    assert await run.batches.unfinished_jobs(run.directory) == UnfinishedJobs((), (file_id,))
    job_id = emulator.add_job(input_file_id=file_id)
    found = await run.batches.unfinished_jobs(run.directory)
    assert ([job.id for job in found.jobs], found.unconfirmed) == ([job_id], ())


async def test_cancelling_the_job_of_a_lost_create(run: Runner, emulator: Emulator) -> None:
    """A job whose create was not answered is found and cancelled; a run without jobs has none; no run is an error."""
    await _stopped(run, RunEventKind.UPLOADED)
    assert str(await run.batches.cancel_run(run.directory)) == "no jobs"
    file_id = str(runs.read(run.directory).shards[0].attempts[0].file_id)
    job_id = emulator.add_job(input_file_id=file_id)
    with closing(sqlite3.connect(run.directory / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE attempt SET creating_at = planned_at")
    report = await run.batches.cancel_run(run.directory)
    assert [outcome.job_id for outcome in report] == [job_id]
    with pytest.raises(RunLedgerError, match="is not the directory of a run"):
        await run.batches.cancel_run(run.source.parent)


# --- failures ---


async def test_transient_failures_are_waited_out(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Failures at every step are retried however often they return, with pauses of up to a minute."""
    for step in ("begin_upload", "store", "preprocess", "file", "list", "retrieve", "content"):
        emulator.fail(Fault(on=step, status=503, times=7))
    emulator.fail(Fault(on="create", status=503))
    assert (await run()).ok
    assert len(emulator.jobs) == 4
    assert {5, 10} <= set(time.slept)
    assert max(set(time.slept) - {600}) <= 60
    assert RunEventKind.TROUBLE in run.kinds


@pytest.mark.parametrize("step", ["begin_upload", "create", "retrieve", "content"])
async def test_a_refusal_ends_it(run: Runner, emulator: Emulator, step: str) -> None:
    """A refusal ends the run with the service's own error, and the next call resumes."""
    emulator.fail(Fault(on=step, status=401, body={"error": "Unauthorized"}))
    with pytest.raises(AuthenticationError):
        await run()
    assert not run.output.exists()
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_the_service_declines(run: Runner, emulator: Emulator) -> None:
    """If the service declines a create, its reason is raised, nothing is created, and the next call tries again."""
    emulator.fail(Fault(on="create", status=201, body={"job": None, "warning": "quota exceeded"}))
    with pytest.raises(JobNotCreatedError, match="quota exceeded"):
        await run()
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_answers_that_are_lost(run: Runner, emulator: Emulator) -> None:
    """Lost answers never lead to a second job."""
    emulator.fail(Fault(on="create", lose="answer", times=3))
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_creates_that_are_refused_in_an_odd_way(run: Runner, emulator: Emulator) -> None:
    """Creates refused in an odd way are sent at most twice; the other jobs end, and the error says how to resume."""
    emulator.fail(Fault(on="create", status=503, times=2))
    with pytest.raises(
        CreateUnconfirmedError, match=r"503.*Run it again to look again.*with give_up: file-"
    ) as caught:
        await run()
    assert (emulator.count("create"), len(emulator.jobs)) == (5, 3)
    file_id = caught.value.input_file_id
    with pytest.raises(CreateUnconfirmedError):
        await run()
    assert emulator.count("create") == 5
    assert (await run(give_up=[file_id])).ok
    assert len(emulator.jobs) == 4
    assert (await run(give_up=[file_id])).ok  # given up again, which changes nothing


async def test_a_job_that_answers_404_for_a_moment(run: Runner, emulator: Emulator) -> None:
    """A job with a passing 404 is looked for in the list, and read again; nothing is sent a second time."""
    emulator.fail(Fault(on="retrieve", status=404, body={"error": "Job not found"}, times=3))
    report = await run()
    assert (report.ok, len(emulator.jobs)) == (True, 4)


@pytest.mark.unmeasured
async def test_results_that_stay_absent(run: Runner, emulator: Emulator) -> None:
    """Results that stay absent are not paid for again: the rest completes, and the next call reads again."""
    gone = Fault(on="content", status=404, body={"error": {"message": "File not found"}}, times=1_000)
    emulator.fail(gone)
    with pytest.raises(ResultsUnavailableError, match="is absent") as caught:
        await run(max_jobs=1)
    assert len(emulator.jobs) == 4
    first = emulator.jobs[0]
    assert (caught.value.job_id, caught.value.file_ids[0]) == (first["id"], first["output_file_id"])
    for job in emulator.jobs:
        assert str(job["id"]) in str(caught.value)
    emulator.clear_faults()
    assert (await run()).ok
    assert len(emulator.jobs) == 4


async def test_results_that_are_given_up(run: Runner, emulator: Emulator) -> None:
    """Results given up by the user are read as far as possible, and the rest is sent again."""
    run.fates.planned = {"row-1": [Failure("four stops at most", "invalid_request_error")]}
    with pytest.raises(ResultsUnavailableError):
        await run(stop_after_rows=3, on_event=_deleting(emulator, "output_file_id"))
    (job,) = emulator.jobs
    with pytest.raises(UsageError, match=r"invalid give_up: 'file-x' is neither a job nor the input of a job"):
        await run(give_up=["file-x"])
    with pytest.raises(UsageError, match=f"is the input of job {job['id']}: name the job"):
        await run(give_up=[str(job["input_file_id"])])
    report = await run(give_up=[str(job["id"])])
    assert (report.succeeded, report.failed, len(emulator.jobs)) == (9, 1, 5)
    sent = [emulator.content(str(job["input_file_id"])).count(b"\n") for job in emulator.jobs]
    assert sorted(sent) == [1, 2, 3, 3, 3]


def _deleting(emulator: Emulator, field: str) -> Callable[[RunEvent], None]:
    """Delete a file of the first job's results as soon as it has ended."""

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.ENDED and event.shard == 1:
            emulator.delete_file(str(emulator.jobs[0][field]))

    return on_event


async def test_a_job_that_runs_cannot_be_given_up(run: Runner, emulator: Emulator) -> None:
    """A running job cannot be given up: it would be paid for, and its rows sent again."""
    emulator.timing = Timing(validating=0, running=1e9)
    await _stopped(run, RunEventKind.CREATED)
    with pytest.raises(UsageError, match=r"has not ended \(IN_PROGRESS\); cancel it first"):
        await run(give_up=[str(emulator.jobs[0]["id"])])
    assert len(emulator.jobs) == 1


@pytest.mark.parametrize("code", ["401", "402", "403"])
async def test_rows_that_are_refused_for_the_account(run: Runner, emulator: Emulator, code: str) -> None:
    """Rows refused for the account stop the run with an error that names it; the next call sends them again."""
    run.fates.planned = {"row-1": [Failure("Credit limit exceeded", code)]}
    report = await run()
    assert (report.complete, report.not_sent, len(emulator.jobs)) == (False, 8, 1)
    assert report.stopped == (
        f"rows are refused for the account ({code}: Credit limit exceeded): put it in order, and run it again"
    )
    assert (await run()).ok
    assert len(emulator.jobs) == 5


@pytest.mark.parametrize(("code", "goes_on"), [("401", True), ("402", True), ("403", False)])
async def test_a_refusal_for_the_account_is_no_attempt(run: Runner, code: str, goes_on: bool) -> None:
    """A 401 or 402 is not counted as an attempt; a 403 is, because it may be for the row itself."""
    run.fates.planned = {"row-9": [Failure("no", code)]}
    report = await run(max_attempts=1)
    assert report.complete is not goes_on
    report = await run(max_attempts=1)
    assert (report.succeeded, report.failed) == ((10, 0) if goes_on else (9, 1))


async def test_an_ineligible_model_costs_three_jobs(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """An ineligible model costs three jobs in sequence, for any number of shards; a new call counts from zero."""
    rows = [BatchRequest(f"row-{number}", {"model": "dedicated/m", "messages": []}) for number in range(10)]
    report = await run(source=rows, max_rows_per_job=1, max_jobs=100)
    assert (len(emulator.jobs), report.failed, report.not_sent, report.complete) == (3, 3, 7, False)
    assert report.stopped is not None
    assert report.stopped.startswith("3 jobs in a row failed as a whole, the last one: ")
    assert "Unable to access non-serverless model" in report.stopped
    await run(source=[], max_jobs=100)
    assert len(emulator.jobs) == 6


@pytest.mark.parametrize(
    ("options", "gaps"),
    [({}, [30, 120]), ({"retry_delays": [50, 70]}, [50, 70]), ({"retry_delays": 0, "patience": 10}, [10, 10])],
    ids=["usual", "set", "none but for the evidence"],
)
async def test_jobs_that_fail_are_spaced_out(
    run: Runner, emulator: Emulator, time: VirtualTime, options: dict[str, Any], gaps: list[float]
) -> None:
    """Pauses after failed jobs grow, and include waits for evidence, so that a passing failure costs no attempt."""
    created: list[float] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.append(time.seconds)
            job_id = str(emulator.jobs[-1]["id"])
            emulator.ends_as = "FAILED" if len(created) < 2 else None
            emulator.change_job(job_id, progress=0, **({} if len(created) > 2 else {"output_file_id": None}))

    emulator.ends_as = "FAILED"
    report = await run(on_event=on_event, max_rows_per_job=50, poll_interval=1, **options)
    assert (report.ok, len(created)) == (True, 3)
    assert [after - before for before, after in itertools.pairwise(created)] == pytest.approx(gaps, abs=4)


async def test_error_rows_wait_and_a_new_call_does_not(run: Runner, emulator: Emulator, time: VirtualTime) -> None:
    """Error rows go again 30 s after the end of their job, or at once if the run is called again."""
    run.fates.planned = {"row-1": [Failure(), Failure()]}
    created: list[float] = []

    def on_event(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.append(time.seconds)

    report = await run(on_event=on_event, max_rows_per_job=50, max_attempts=2)
    assert report.failed == 1
    assert created[1] - created[0] == pytest.approx(30, abs=4)
    report = await run(on_event=on_event, max_rows_per_job=50, max_attempts=3)
    assert report.ok
    assert created[2] - created[1] < 10


async def test_rows_that_go_again_hold_no_place_back(run: Runner, emulator: Emulator) -> None:
    """Rows that go again wait for shards that were not sent yet: their jobs come first."""
    run.fates.planned = {"row-1": [Failure()], "row-4": [Failure()]}
    assert (await run(max_jobs=1, retry_delays=0)).ok
    created = [(event.shard, event.attempt) for event in run.events if event.kind == RunEventKind.CREATED]
    assert created == [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2)]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("validating", "others"), [(100, 100), (5_000, 600)])
async def test_the_first_job_goes_ahead_alone(
    run: Runner, emulator: Emulator, time: VirtualTime, validating: float, others: float
) -> None:
    """The first job runs alone until it leaves VALIDATING, for at most ten minutes; then the others follow."""
    emulator.timing = Timing(validating=validating, running=1_000)
    created: list[float] = []

    def note(event: RunEvent) -> None:
        if event.kind == RunEventKind.CREATED:
            created.append(time.seconds)

    assert (await run(max_jobs=100, on_event=note, poll_interval=50)).ok
    assert created[0] < 5
    assert others <= min(created[1:]) <= max(created) <= others + 50


PAGE = "<html>\nSign in to this network\n</html>\n"


def _page(times: int, body: str | bytes = PAGE) -> Fault:
    return Fault(on="content", status=200, body=body, content_type="text/html", times=times)


@pytest.mark.parametrize("body", [PAGE, b""], ids=["a page", "nothing"])
async def test_a_page_in_place_of_results(run: Runner, emulator: Emulator, body: str | bytes) -> None:
    """A page instead of results is transient: the results are requested again."""
    emulator.fail(_page(2, body))
    assert (await run()).ok
    assert len(emulator.jobs) == 4
    assert RunEventKind.TROUBLE in run.kinds


@pytest.mark.unmeasured
async def test_results_with_none_of_the_rows(run: Runner, emulator: Emulator) -> None:
    """A file with none of the rows is not taken for the results: rows that may have been paid for do not go again."""
    emulator.fail(_page(1_000))
    with pytest.raises(ResultsUnavailableError, match="has none of the rows") as caught:
        await run()
    assert str(emulator.jobs[0]["output_file_id"]) in str(caught.value)
    assert len(emulator.jobs) == 4
    emulator.clear_faults()
    assert (await run()).ok
    assert len(emulator.jobs) == 4


@pytest.mark.parametrize("kind", [RunEventKind.CREATED, RunEventKind.UPLOADED])
async def test_another_account(run: Runner, kind: RunEventKind, tmp_path: Path) -> None:
    """Another account does not know the run; that is no reason to send everything again."""
    await _stopped(run, kind)
    with closing(sqlite3.connect(run.directory / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE attempt SET creating_at = planned_at")
    async with Emulator(api_key=KEY) as other, VirtualTime(other) as time, time.client() as batches:
        with pytest.raises(RunError, match="seems to be the key, or the base URL, of another account"):
            await batches.run(run.source, run.output)
        assert other.jobs == []
        assert time.slept == [10]
    assert (await run()).ok


# --- without async ---


def test_the_same_without_async(tmp_path: Path) -> None:
    """The synchronous client gives the same report of the same files."""
    with (
        Emulator(api_key=KEY, timing=QUICK).running_in_thread() as emulator,
        Batches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches,
    ):
        events: list[RunEvent] = []
        report = batches.run(requests(), tmp_path / "out.jsonl", max_rows_per_job=4, on_event=events.append)
        assert (report.ok, len(emulator.jobs)) == (True, 3)
        assert events[-1].kind == RunEventKind.FINISHED
        assert str(batches.cancel_run(report.directory)) == "no jobs"
        assert runs.read(report.directory).state == "finished"


async def test_a_copied_directory(run: Runner, emulator: Emulator, tmp_path: Path) -> None:
    """A copied directory finds the jobs that its original has made since the copy: none is created twice."""
    await run(stop_after_rows=3)
    copy = tmp_path / "copy.run"
    shutil.copytree(run.directory, copy)
    await run()
    report = await run(output=tmp_path / "copy.jsonl", directory=copy)
    assert (report.ok, len(emulator.jobs)) == (True, 4)
    assert (tmp_path / "copy.jsonl").read_bytes() == run.output.read_bytes()


# --- a sample, and the cost ---


@pytest.fixture
def priced(run: Runner) -> Runner:
    """Return a run whose answers have usage of both kinds."""
    run.fates.planned = {name: [ANSWER] for name in IDS}
    return run


def _sent(emulator: Emulator) -> list[int]:
    """Return the number of rows in each job, in the order of the creates."""
    files = [
        json.loads(request.body)["input_file_id"] for request in emulator.requests if request.operation == "create"
    ]
    return [emulator.content(file).count(b"\n") for file in files]


async def test_a_sample_and_then_the_rest(priced: Runner, emulator: Emulator) -> None:
    """A sample is a job of the first rows, whose tokens the report scales; a call without it sends the others."""
    first = await priced(sample=2, prices=PRICES)
    assert (first.succeeded, first.not_sent, first.output) == (2, 8, None)
    assert (first.usage, first.cost) == (Usage(2, 4, 6), 10.0)
    assert (first.expected_usage, first.expected_cost) == (Usage(10, 20, 30), 50.0)
    assert (
        str(first)
        == "2 answered, 8 not sent; 1 job, 6 tokens ($10.00 at list prices); stopped: only the sample was to be sent"
    )
    assert priced.kinds[0] == RunEventKind.BEGUN
    assert (await priced(sample=2)).not_sent == 8
    report = await priced(prices=PRICES)
    assert (report.ok, report.stopped, report.cost, report.expected_usage) == (True, None, 50.0, None)
    assert _sent(emulator) == [2, 3, 3, 2]
    assert [line["custom_id"] for line in priced.lines] == IDS


async def test_rows_of_a_sample_that_fail(run: Runner, emulator: Emulator) -> None:
    """What fails in a sample is sent again as in any run, and nothing else is."""
    run.fates.planned = {"row-1": [Missing(), ANSWER]}
    report = await run(sample=2, retry_delays=0)
    assert (report.succeeded, report.not_sent, _sent(emulator)) == (2, 8, [2, 1])


async def test_a_sample_of_all_rows(run: Runner) -> None:
    """An input that is not larger than the sample is a whole run."""
    report = await run(sample=50, max_rows_per_job=50)
    assert (report.complete, report.stopped) == (True, None)


async def test_a_sample_of_a_run_that_began_without_one(run: Runner, emulator: Emulator) -> None:
    """A run whose first job is larger than the sample refuses it, and nothing is sent."""
    await run(stop_after_rows=3)
    with pytest.raises(UsageError, match=r"begins with a job of 3 rows, so a sample of 2 cannot be sent first"):
        await run(sample=2)
    assert _sent(emulator) == [3]


async def test_jobs_under_way_beside_a_sample(run: Runner, emulator: Emulator) -> None:
    """A call with a sample waits for jobs that exist, and sends no row of theirs again."""
    await run(sample=2)
    run.fates.planned = {"row-3": [Missing()]}
    emulator.fail(Fault(on="content", status=404, times=None))
    with pytest.raises(ResultsUnavailableError):
        await run(patience=0, max_jobs=1, stop_after_rows=5)
    emulator.clear_faults()
    report = await run(sample=2, retry_delays=0)
    assert (report.succeeded, report.not_sent, _sent(emulator)) == (4, 6, [2, 3])


async def test_a_budget_in_dollars(priced: Runner, emulator: Emulator) -> None:
    """No job is created once the tokens have cost so much; a call with more money goes on."""
    report = await priced(stop_after_cost=15, prices=PRICES)
    assert (report.succeeded, report.cost, _sent(emulator)) == (3, 15.0, [3])
    assert report.stopped == "the tokens cost $15.00 at list prices, and the limit is $15.00"
    assert (await priced(stop_after_cost=45.1, prices=Price(1_000_000, 2_000_000))).cost == 50.0


async def test_list_prices_of_the_service(run: Runner, emulator: Emulator) -> None:
    """Without prices, those of the service are used; if the model is not among them, a budget is refused at once."""
    with pytest.raises(UsageError, match=r"stop_after_cost needs the price of m, which is not known: pass prices$"):
        await run(stop_after_cost=15)
    emulator.fail(Fault(on="models", status=403, times=None))
    with pytest.raises(UsageError, match=r"pass prices, because the list prices cannot be read: .* 403"):
        await run(stop_after_cost=15)
    assert not (run.directory / "run.sqlite").exists()
    emulator.clear_faults()
    page = {"data": [{"name": "m", "pricing": {"input": 1, "output": 1}}]}
    emulator.fail(Fault(on="models", body=page, times=None))
    assert (await run(stop_after_cost=15)).cost == 0.0


async def test_a_sample_without_prices(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """A sample goes on without prices, with a warning; a usual run does not ask for them."""
    report = await run(sample=2)
    assert (report.cost, report.expected_cost) == (None, None)
    assert "the cost is not counted, because no price of m is known" in caplog.text


async def test_several_models_count_at_the_highest_price(run: Runner) -> None:
    """The tokens of a job are not known by model, so the highest price counts."""
    source = [*requests(1), jsonl.chat_request("other", model="dear", messages=[])]
    run.fates.planned = {"row-0": [ANSWER], "other": [ANSWER]}
    report = await run(source=source, prices={"m": Price(1_000_000, 0), "dear": Price(0, 3_000_000)})
    assert report.cost == 14.0


@pytest.mark.parametrize("wrong", [{"prices": 3}, {"prices": {"m": 3}}, {"sample": 0}, {"stop_after_cost": -1}])
async def test_invalid_budgets(run: Runner, wrong: dict[str, Any]) -> None:
    """An invalid price, sample or cost is refused before anything is read."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        await run(**wrong)
