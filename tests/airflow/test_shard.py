"""The work of one task, killed before and after each of its records is written; no Airflow is needed."""

from __future__ import annotations

import io
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, NoReturn

import attrs
import pytest

from together_batches import AsyncBatches, RetryPolicy, jsonl
from together_batches._schema.adapters import adapter_of
from together_batches.airflow import _storage
from together_batches.airflow._shard import Finished, PausedError, ShardWork, Waiting, Work
from together_batches.airflow._state import ObjectEntries, TaskEntries, TaskLedger
from together_batches.emulator import Answer, Emulator, Failure, Fault, Timing
from together_batches.errors import (
    BatchesError,
    CreateUnconfirmedError,
    InternalServerError,
    ResultsUnavailableError,
    RunChangedError,
    RunError,
    RunLedgerError,
    UsageError,
)
from together_batches.runs import rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

_SOON = Timing(validating=0, running=0, canceling=0)
_LOG = logging.getLogger(__name__)


class Local:
    """A file of this machine as a location on object storage."""

    protocol = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def path(self) -> str:
        return str(self._path)

    @property
    def parent(self) -> Local:
        return Local(self._path.parent)

    def __truediv__(self, name: str) -> Local:
        return Local(self._path / name)

    def __str__(self) -> str:
        return str(self._path)

    def open(self, mode: str) -> IO[bytes]:
        return self._path.open(mode)  # type: ignore[return-value]

    @property
    def fs(self) -> Any:
        return SimpleNamespace(exists=os.path.exists, rm_file=os.remove)


class Killed(BaseException):
    """The end of a process."""


class Entries:
    """Records in memory, and the death of the process before or after one of them is written."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.count = 0
        self.dies_at: tuple[int, str] | None = None

    def get(self, name: str) -> dict[str, Any] | None:
        return json.loads(self.written[name]) if name in self.written else None

    def set(self, name: str, value: Mapping[str, Any]) -> None:
        self.count += 1
        if self.dies_at == (self.count, "before"):
            raise Killed
        self.written[name] = json.dumps(value)
        if self.dies_at == (self.count, "after"):
            raise Killed


class Task:
    """A task that is started as often as it dies."""

    def __init__(self, service: Emulator, place: Path, *, entries: Any = None, **options: Any) -> None:
        self.service = service
        self.place = place
        self.entries = Entries() if entries is None else entries
        self.requests = place / "requests.jsonl"
        self.opened = 0
        self.results = place / "answers.jsonl"
        self.options = options
        self.kill: Callable[[], str | None] = lambda: None
        self.before: Any = None
        self.ahead = timedelta(0)
        self._starts = 0

    def write(self, count: int, failing: Mapping[int, str] | None = None) -> None:
        """Write the requests."""
        questions = ((number, (failing or {}).get(number, "question")) for number in range(count))
        jsonl.write(
            (
                jsonl.chat_request(f"row-{number}", model="m", messages=[{"role": "user", "content": question}])
                for number, question in questions
            ),
            self.requests,
            overwrite=True,
        )

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + self.ahead

    def wait(self, outcome: object) -> float:
        """Let a pause pass, and return its seconds."""
        assert isinstance(outcome, PausedError)
        seconds = (outcome.moment - self.now()).total_seconds()
        self.ahead += timedelta(seconds=seconds)
        return seconds

    async def start(self, *, is_new: bool = True) -> Any:
        """Start a process, and work until there is something to wait for."""
        self._starts += 1
        scratch = self.place / f"scratch-{self._starts}"
        scratch.mkdir()
        work = Work(
            identity="dag/run/task/-1",
            source=self._open,
            source_name=str(self.requests),
            results=Local(self.results),
            pieces=Local(self.place / "answers.jsonl.run"),
            **({"retry_delays": (), "patience": 0.2} | self.options),
        )
        once = RetryPolicy(max_attempts=1)
        async with AsyncBatches(self.service.api_key, base_url=self.service.base_url, retry=once) as client:
            ledger = TaskLedger(self.entries, self.before)
            shard = ShardWork(work, client, ledger, scratch=scratch, now=self.now, log=_LOG)
            self.kill = shard.kill
            try:
                return await (shard.begin() if is_new else shard.go_on())
            except PausedError as paused:
                return paused

    def _open(self) -> IO[bytes]:
        self.opened += 1
        return self.requests.open("rb")

    async def finish(self) -> dict[str, Any]:
        """Start processes until the task has finished, and return the manifest."""
        is_new = True
        while not isinstance(outcome := await self.proceed(is_new=is_new), Finished):
            assert isinstance(outcome, Waiting)
            is_new = False
        return outcome.manifest

    async def proceed(self, *, is_new: bool = True) -> Any:
        """Start processes, letting each pause pass, until there is something else to wait for."""
        while isinstance(outcome := await self.start(is_new=is_new), PausedError):
            self.wait(outcome)
            is_new = False
        return outcome

    def ids(self) -> list[str]:
        """Return the ids in the results."""
        return [json.loads(line)["custom_id"] for line in self.results.read_text("utf-8").splitlines()]


class Killing(Entries):
    """Records, and a signal that ends the task when the first of some kind is written."""

    def __init__(self, task: Task, when: Callable[[Mapping[str, Any]], bool]) -> None:
        super().__init__()
        self._task = task
        self._when = when
        self._done = False

    def set(self, name: str, value: Mapping[str, Any]) -> None:
        super().set(name, value)
        if not self._done and self._when(value):
            self._done = True
            self._task.kill()


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """An emulator whose jobs end at once, where rows fail as their questions say."""
    first_job = dict[str, int]()

    def answer(row: Mapping[str, Any]) -> Answer | Failure:
        question = row["body"]["messages"][0]["content"]
        is_first = first_job.setdefault(row["custom_id"], len(running.jobs)) == len(running.jobs)
        if question == "fail" or (question == "fail once" and is_first):
            return Failure("Internal Server Error", "batch_client_error")
        return Answer(body={"choices": []})

    async with Emulator(timing=_SOON, answer=answer) as running:
        yield running


@pytest.fixture
def task(service: Emulator, tmp_path: Path) -> Task:
    """A task of six rows, one of which fails once."""
    task = Task(service, tmp_path, max_attempts=3)
    task.write(6, {2: "fail once"})
    return task


# --- deaths -------------------------------------------------------------------------------------------------------


def _deaths() -> Iterator[tuple[int, str]]:
    for number in range(1, 13):
        yield from ((number, "before"), (number, "after"))


@pytest.mark.unmeasured
@pytest.mark.parametrize("death", list(_deaths()), ids=lambda death: f"{death[1]}-record-{death[0]}")
async def test_a_death_at_each_record(task: Task, death: tuple[int, str]) -> None:
    """Wherever the process dies, the next one goes on: one job for each attempt, each row once, in order."""
    task.entries.dies_at = death
    with pytest.raises(Killed):
        await task.finish()
    task.entries.dies_at = None
    manifest = await task.finish()
    assert task.service.count("create") == 2
    assert task.ids() == [f"row-{number}" for number in range(6)]
    assert (manifest["succeeded"], len(manifest["job_ids"])) == (6, 2)


async def test_how_many_records_there_are(task: Task) -> None:
    """The deaths above are at all records that a task of two attempts writes."""
    await task.finish()
    assert task.entries.count == max(number for number, _ in _deaths())


async def test_a_kill_sends_nothing_more(task: Task) -> None:
    """A process that is ended by a signal, which it may survive for a while, begins no other job; a retry does."""
    task.entries = Killing(task, lambda record: bool(record.get("collected_at")))
    with pytest.raises(BatchesError, match="the task was ended, so nothing more is sent; a retry goes on"):
        await task.start()
    assert task.service.count("create") == 1
    assert (await task.finish())["succeeded"] == 6
    assert task.service.count("create") == 2


# --- what is waited for -------------------------------------------------------------------------------------------


async def test_a_running_job_is_waited_for(task: Task) -> None:
    """A task waits for its job without a process; each start until the end says so again, and sends nothing."""
    task.service.timing = Timing(validating=0, running=3600)
    first = await task.start()
    assert first == await task.start(is_new=False) == await task.start()
    assert isinstance(first, Waiting)
    assert task.service.count("create") == 1


async def test_a_try_checks_the_requests_once(task: Task) -> None:
    """A try that finds its job running has read the requests once, which may be large and far away."""
    task.service.timing = Timing(validating=0, running=3600)
    assert isinstance(await task.start(), Waiting)
    task.opened = 0
    assert isinstance(await task.start(), Waiting)
    assert task.opened == 1


async def test_rows_are_sent_again_later(task: Task) -> None:
    """Rows that failed are sent again after a delay, which counts from the end of their job."""
    task.options["retry_delays"] = (3600,)
    paused = await task.start()
    assert isinstance(paused, PausedError)
    assert 3500 < task.wait(paused) <= 3600
    assert task.service.count("create") == 1
    assert isinstance(await task.start(is_new=False), Finished)
    assert task.service.count("create") == 2


# --- ends ---------------------------------------------------------------------------------------------------------


async def test_rows_that_never_succeed(task: Task) -> None:
    """Rows without an answer are in the results as failures, and in a file of their own."""
    task.write(4, {1: "fail"})
    manifest = await task.finish()
    assert task.ids() == [f"row-{number}" for number in range(4)]
    assert (manifest["succeeded"], manifest["failed"], len(manifest["job_ids"])) == (3, 1, 3)
    assert manifest["failures_uri"] == str(task.place / "answers.failures.jsonl")


async def test_failures_of_before(task: Task) -> None:
    """Rows that are answered by further attempts leave no file of failures behind."""
    task.options["max_attempts"] = 1
    assert (await task.finish())["failed"] == 1
    assert (task.place / "answers.failures.jsonl").exists()
    task.options["max_attempts"] = 2
    assert (await task.finish())["failures_uri"] is None
    assert not (task.place / "answers.failures.jsonl").exists()


async def test_a_success_is_started_again(task: Task) -> None:
    """A task that is cleared after its success sends nothing, not even if its results were removed."""
    manifest = await task.finish()
    assert await task.finish() == manifest
    before = task.results.read_bytes()
    task.results.unlink()
    assert await task.finish() == manifest
    assert task.results.read_bytes() == before
    assert task.service.count("create") == 2


async def test_the_log_of_a_task(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    """The log names each job, one that an earlier try created as such, and ends with what became of the rows."""
    caplog.set_level(logging.INFO)
    task.entries.dies_at = (4, "after")  # the job exists
    with pytest.raises(Killed):
        await task.finish()
    task.entries.dies_at = None
    caplog.clear()
    manifest = await task.finish()
    lines = [record.getMessage() for record in caplog.records if record.name == __name__]
    assert lines == [
        f"going on with job {manifest['job_ids'][0]}, which an earlier try created",
        f"job {manifest['job_ids'][1]} with 1 row",
        f"6 of 6 rows answered; the results are in {task.results}",
    ]


async def test_a_changed_input(task: Task) -> None:
    """Requests that have changed are refused with what to do."""
    await task.finish()
    task.write(7)
    with pytest.raises(
        RunChangedError, match=r"\(6 rows then, 7 rows now\): put them back .*, or start a new DAG run"
    ):
        await task.start()
    assert task.service.count("create") == 2


async def test_a_refused_account(task: Task) -> None:
    """Rows that are refused for the account stop the task; once that is mended, a clear sends them."""
    task.write(3, {0: "fail"})
    service = task.service
    refusing = Answer(body={"error": {"message": "no credit"}}, status_code=402)
    async with Emulator(timing=_SOON, answer=lambda row: refusing) as poor:
        task.service = poor
        with pytest.raises(RunError, match="were refused for the account"):
            await task.start()
        assert poor.count("create") == 1
    task.service = service


async def test_a_job_that_was_cancelled(task: Task) -> None:
    """A job that is cancelled while its task waits ends the task; a start after that sends what it did not answer."""
    task.service.timing = Timing(validating=0, running=3600, canceling=0)
    waiting = await task.start()
    async with AsyncBatches(task.service.api_key, base_url=task.service.base_url) as client:
        await client.cancel(waiting.job_id)
    task.service.timing = _SOON
    with pytest.raises(RunError, match="was cancelled; clear the task to send the rows that it did not answer"):
        await task.proceed(is_new=False)
    manifest = await task.finish()
    assert manifest["succeeded"] == 6


async def _cancel(task: Task, job_id: str) -> None:
    async with AsyncBatches(task.service.api_key, base_url=task.service.base_url) as client:
        await client.cancel(job_id)


async def test_a_job_that_a_clear_cancelled(task: Task) -> None:
    """A clear may cancel the job after the task has begun again: then the rest is sent without another clear."""
    task.service.timing = Timing(validating=0, running=3600, canceling=0)
    waiting = await task.start()
    task.options["start"] = "clear"
    assert await task.start() == waiting
    await _cancel(task, waiting.job_id)
    task.service.timing = _SOON
    assert isinstance(await task.proceed(is_new=False), Finished)


async def test_a_job_that_was_cancelled_before_a_retry(task: Task) -> None:
    """A worker that is ended cancels its job: the retry sends the rest, also if the job takes a while to stop."""
    task.service.timing = Timing(validating=0, running=3600, canceling=600)
    waiting = await task.start()
    await _cancel(task, waiting.job_id)
    assert await task.start() == waiting
    task.service.advance(600)
    task.service.timing = _SOON
    assert isinstance(await task.proceed(is_new=False), Finished)


@pytest.mark.parametrize("options", [{"start": "retry"}, {"start": "clear", "cancels_on_kill": False}])
async def test_a_job_that_is_cancelled_after_a_retry(task: Task, options: dict[str, Any]) -> None:
    """A job that a retry took over while it ran, and that is cancelled later, is not wanted: the task fails."""
    task.service.timing = Timing(validating=0, running=3600, canceling=0)
    waiting = await task.start()
    task.options |= options
    assert await task.start() == waiting
    await _cancel(task, waiting.job_id)
    task.service.timing = _SOON
    with pytest.raises(RunError, match="was cancelled; clear the task"):
        await task.proceed(is_new=False)
    assert task.service.count("create") == 1


async def test_a_kill_before_the_job_is_known(task: Task) -> None:
    """A task that is ended while its job is being created cancels the job as soon as its id is known."""
    task.service.timing = Timing(validating=0, running=3600, canceling=0)
    task.entries = Killing(task, lambda record: bool(record.get("creating_at")) and not record.get("job_id"))
    with pytest.raises(RunError, match="was cancelled"):
        await task.proceed()
    assert [job["status"] for job in task.service.jobs] == ["CANCELLED"]


# --- a schema -----------------------------------------------------------------------------------------------------


@attrs.frozen
class City:
    """A city."""

    name: str


@attrs.frozen
class _Other:
    name: int


async def test_a_schema(task: Task) -> None:
    """Answers that do not fit the schema are counted, and their rows go again if that is wanted later."""
    task.options |= {"schema": adapter_of(City), "max_attempts": 1}
    fits = Answer('{"name": "Prague"}')
    task.service.answer = lambda row: Answer("no JSON") if row["custom_id"] == "row-2" else fits
    manifest = await task.finish()
    assert (manifest["rows"], manifest["succeeded"], manifest["invalid"]) == (6, 5, 1)
    assert manifest["failures_uri"] is None
    task.service.answer = lambda row: fits
    task.options |= {"retry_invalid": True, "max_attempts": 2}
    manifest = await task.finish()
    assert (manifest["succeeded"], manifest["invalid"], len(manifest["job_ids"])) == (6, 0, 2)
    assert task.ids() == [f"row-{number}" for number in range(6)]


async def test_a_changed_schema(task: Task) -> None:
    """A task goes on with the schema that it was begun with, and refuses another, none, and one that it had not."""
    task.service.timing = Timing(validating=0, running=3600)
    task.options["schema"] = adapter_of(City)
    waiting = await task.start()
    for other in (adapter_of(_Other), None):
        task.options["schema"] = other
        with pytest.raises(RunChangedError, match="the schema has changed since this task began: put it back"):
            await task.start()
    task.options["schema"] = adapter_of(City)
    assert await task.start() == waiting


# --- results that are read again ----------------------------------------------------------------------------------


async def _cancelled(task: Task) -> None:
    """Begin a job of ten rows, and cancel it when some are answered; a clear has taken it over before."""
    task.options["patience"] = 900
    task.write(10)
    task.service.timing = Timing(validating=0, running=3600, canceling=0)
    waiting = await task.start()
    task.service.advance(1800)
    task.options["start"] = "clear"
    await task.start()
    await _cancel(task, waiting.job_id)
    task.service.timing = _SOON


async def test_rows_that_a_cancelled_job_omits(task: Task) -> None:
    """Rows that a job omits go again when two readings agree, a minute apart; no process waits for the second."""
    await _cancelled(task)
    assert task.wait(await task.start(is_new=False)) == pytest.approx(60, abs=5)
    assert task.service.count("create") == 1
    assert isinstance(await task.start(is_new=False), Finished)
    assert task.service.count("create") == 2
    assert task.ids() == [f"row-{number}" for number in range(10)]


async def test_a_second_reading_before_its_time(task: Task) -> None:
    """A retry within the minute, or a process that dies in it, does not shorten it."""
    await _cancelled(task)
    task.entries.dies_at = (task.entries.count + 2, "after")  # the end of the job, and the first reading
    with pytest.raises(Killed):
        await task.start(is_new=False)
    task.entries.dies_at = None
    first = await task.start()
    assert isinstance(first, PausedError)
    assert (await task.start()).moment == first.moment
    assert task.service.count("create") == 1


async def test_results_that_change_between_two_readings(task: Task) -> None:
    """A second reading that differs from the first is a first one: the minute starts over."""
    await _cancelled(task)
    task.wait(await task.start(is_new=False))
    look = json.loads(task.entries.written["look-1"])
    look["seen"]["output_bytes"] -= 1
    task.entries.written["look-1"] = json.dumps(look)
    assert task.wait(await task.start(is_new=False)) == pytest.approx(60, abs=5)
    assert task.service.count("create") == 1
    assert isinstance(await task.start(is_new=False), Finished)


async def test_results_that_are_absent(task: Task) -> None:
    """Absent results are looked for at growing intervals, without a process, for as long as patience allows."""
    task.options["patience"] = 60
    task.service.timing = Timing(validating=0, running=3600)
    waiting = await task.start()
    task.service.delete_job(waiting.job_id)
    for _ in range(2):  # a retry looks for them as long
        pauses = [round(task.wait(await task.start(is_new=False))) for _ in range(5)]
        assert pauses == [5, 5, 10, 20, 20]
        with pytest.raises(ResultsUnavailableError, match=r"job .* is absent .*; looked for during 60 s"):
            await task.start(is_new=False)
    assert task.service.count("create") == 1


async def test_results_that_are_lost(task: Task) -> None:
    """Results that are permanently lost are given up if that is wanted, and then count as missing."""
    task.write(2)
    task.service.timing = Timing(validating=0, running=3600)
    waiting = await task.start()
    task.service.delete_job(waiting.job_id)
    with pytest.raises(ResultsUnavailableError):
        await task.proceed()
    task.service.timing = _SOON
    task.options |= {"give_up": True}
    assert (await task.finish())["succeeded"] == 2


# --- jobs that are searched for -----------------------------------------------------------------------------------


async def _pauses(task: Task, found: list[int] | None = None) -> list[int]:
    """Start processes until one ends otherwise than by a pause; ``found`` gets the seconds of the pauses."""
    pauses = list[int]() if found is None else found
    while isinstance(outcome := await task.start(is_new=not pauses), PausedError):
        pauses.append(round(task.wait(outcome)))
    return pauses


async def test_a_lost_create_is_searched_for_later(task: Task) -> None:
    """The job of a lost create is looked for at growing intervals, without a process; then it is created again."""
    task.options["patience"] = 900
    task.service.timing = Timing(validating=0, running=3600)
    task.service.fail(Fault(on="create", lose="request"))
    pauses = await _pauses(task)
    assert pauses == [5, 5, 10, 20, 40, 60, 60, 60, 40]
    assert sum(pauses) == rules.SEARCH_SECONDS
    assert task.service.count("create") == 2
    assert len(task.service.jobs) == 1


async def test_a_lost_answer_is_found_later(task: Task) -> None:
    """A job that the list shows late is found at a later look, and no second one is created."""
    task.options["patience"] = 900
    task.service.timing = Timing(validating=0, running=3600)
    task.service.fail(Fault(on="create", lose="answer"))
    task.service.fail(Fault(on="list", body=[], times=3))
    assert await _pauses(task) == [5, 5, 10]
    assert task.service.count("create") == 1


async def test_two_lost_creates(task: Task) -> None:
    """After two creates without a job the task fails, in each retry; given up, its rows are sent in a new attempt."""
    task.options["patience"] = 20
    task.service.fail(Fault(on="create", lose="request", times=2))
    for expected in ([5, 5, 10] * 2, [5, 5, 10]):
        pauses = list[int]()
        with pytest.raises(CreateUnconfirmedError, match=r"no job of the file is listed.*; searched for during 20 s"):
            await _pauses(task, pauses)
        assert pauses == expected
    assert task.service.count("create") == 2
    task.options |= {"give_up": True}
    assert isinstance(await task.proceed(), Finished)
    assert len(task.service.jobs) == 2


async def test_an_outage_of_the_list(task: Task) -> None:
    """An outage is no evidence that a job is absent: the search begins when the list can be read."""
    task.options["patience"] = 20
    task.service.fail(Fault(on="create", lose="request"))
    task.service.fail(Fault(on="list", status=503))
    with pytest.raises(InternalServerError):
        await task.start()
    assert await _pauses(task) == [5, 5, 10]


async def test_an_upload_that_is_not_shown_yet(task: Task) -> None:
    """An upload whose metadata is not shown for a moment is looked for later, and is not sent again."""
    task.options["patience"] = 900
    task.service.timing = Timing(validating=0, running=3600)
    task.service.fail(Fault(on="file", status=404, times=2))
    assert await _pauses(task) == [5, 5]
    assert task.service.count("begin_upload") == task.service.count("create") == 1


async def test_a_collected_job_that_is_absent(task: Task) -> None:
    """Before rows go again, an absent job is looked for a minute, without a process; then its results count."""
    task.options |= {"patience": 900, "retry_delays": (3600,)}
    task.wait(await task.start())
    task.service.fail(Fault(on="retrieve", status=404, times=6))
    task.service.fail(Fault(on="list", body=[], times=6))
    assert await _pauses(task) == [5, 5, 10, 20, 20]
    assert (task.service.count("create"), len(task.ids())) == (2, 6)


async def test_removed_results_that_are_absent(task: Task) -> None:
    """Results that were removed from the storage, and are not at the service either, are looked for as long."""
    task.options |= {"patience": 20, "retry_delays": (3600,)}
    task.wait(await task.start())
    (job,) = task.service.jobs
    (task.place / "answers.jsonl.run" / "attempt-1.jsonl").unlink()
    task.options["max_attempts"] = 1
    task.service.delete_file(str(job["output_file_id"]))
    pauses = list[int]()
    with pytest.raises(ResultsUnavailableError, match="is absent"):
        await _pauses(task, pauses)
    assert pauses == [5, 5, 10]


# --- places -------------------------------------------------------------------------------------------------------


async def test_too_many_rows(task: Task) -> None:
    """More rows than a job takes are refused, with what takes them."""
    line = b'{"custom_id":"%d","body":{"model":"m","messages":[]}}\n'
    task.requests.write_bytes(b"".join(line % number for number in range(50_001)))
    with pytest.raises(UsageError, match=r"has 50.001 rows, too much for one batch job: use together_run"):
        await task.start()
    assert len(task.service.requests) == 0


async def test_results_that_cannot_be_written(task: Task) -> None:
    """A place that cannot be written is found before anything is sent."""
    (task.place / "answers.jsonl.run").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot write .*answers.jsonl.run/probe"):
        await task.start()
    assert len(task.service.requests) == 0


async def test_what_is_left_beside_the_results(task: Task) -> None:
    """A task that has ended leaves no directory of its own, unless it has records there."""
    await task.finish()
    assert not (task.place / "answers.jsonl.run").exists()


def test_a_directory_that_is_removed_by_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is written although another task has removed the directory above, which was empty for a moment."""
    make, shared = Path.mkdir, tmp_path / "answers.jsonl.run"

    def make_late(path: Path, *args: Any, **kwargs: Any) -> None:
        make(path, *args, **kwargs)
        if path == shared:
            monkeypatch.undo()
            _storage.remove_empty(Local(shared))

    monkeypatch.setattr(Path, "mkdir", make_late)
    _storage.put_bytes(b"content", Local(shared / "task" / "probe"))
    assert (shared / "task" / "probe").read_bytes() == b"content"


class Remote(Local):
    """A file on object storage, which is complete when it is closed, by its finalizer at the latest."""

    protocol = "s3"
    opened: list[Upload]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened = []

    def open(self, mode: str) -> Any:
        self.opened.append(Upload())
        return self.opened[-1]


class Upload:
    """An object that is being written."""

    def __init__(self) -> None:
        self.closed = False
        self.discarded = False

    def write(self, content: bytes) -> int:
        """Take a block."""
        return len(content)

    def discard(self) -> None:
        """Give the object up."""
        self.discarded = True


def test_an_object_that_is_not_written_whole(tmp_path: Path) -> None:
    """An object whose content cannot be read to its end is given up, not completed when its file is finalized."""

    def blocks() -> Iterator[bytes]:
        yield b"first"
        raise UsageError("cannot read the second")

    place = Remote(tmp_path / "answers.jsonl")
    with pytest.raises(UsageError, match="cannot read the second"):
        _storage.put_all(blocks(), place)
    (upload,) = place.opened
    assert (upload.discarded, upload.closed) == (True, True)


class Broken(Local):
    """A file whose storage fails with an error of its own."""

    def open(self, mode: str) -> Any:
        raise LookupError("no credentials")


def test_errors_of_a_storage(tmp_path: Path) -> None:
    """An error that a library of a storage defines is one of ours, and names the file; a retry may help."""
    with pytest.raises(BatchesError, match=r"cannot read .*answers.jsonl: LookupError: no credentials") as caught:
        _storage.read_bytes(Broken(tmp_path / "answers.jsonl"))
    assert not isinstance(caught.value, UsageError)


class Failing(Local):
    """A file that is opened, and then cannot be read, or written, to its end."""

    def open(self, mode: str) -> Any:
        file = io.BytesIO()
        file.read = file.write = self._fail  # type: ignore[method-assign]
        return file

    def _fail(self, _: object) -> NoReturn:
        raise OSError("the connection broke")


def test_the_file_that_failed_is_named(tmp_path: Path) -> None:
    """If a file is copied, the error says whether it was read or written, and which of the two it is."""
    piece, results = tmp_path / "piece.jsonl", tmp_path / "answers.jsonl"
    with pytest.raises(UsageError, match=r"^cannot read .*piece.jsonl: the connection broke$"):
        _storage.put_all(_storage.blocks_of(Failing(piece)), Local(results))
    with pytest.raises(UsageError, match=r"^cannot read .*piece.jsonl: there is no such file"):
        _storage.put(piece, Local(results))
    assert list(tmp_path.iterdir()) == []
    piece.write_bytes(b"content")
    with pytest.raises(UsageError, match=r"^cannot write .*none/copy.jsonl: there is no such"):
        _storage.fetch(Local(piece), tmp_path / "none" / "copy.jsonl")


@pytest.mark.parametrize(
    ("name", "failures"),
    [("answers.jsonl", "answers.failures.jsonl"), ("answers", "answers.failures"), (".jsonl", ".jsonl.failures")],
)
def test_the_name_of_the_failures(tmp_path: Path, name: str, failures: str) -> None:
    """Rows without an answer are beside the results, under their name."""
    assert _storage.failures_of(Local(tmp_path / name)).name == failures


# --- records ------------------------------------------------------------------------------------------------------


async def test_records_beside_the_results(task: Task) -> None:
    """Before Airflow 3.3 the records are JSON objects beside the results; a damaged one is never taken for absent."""
    task.entries = ObjectEntries(Local(task.place / "records"))
    await task.finish()
    assert await task.finish()
    assert task.service.count("create") == 2
    (task.place / "records" / "attempt-1.json").write_bytes(b"[1")
    with pytest.raises(RunLedgerError, match="is damaged"):
        await task.start()


async def test_records_of_an_older_airflow(task: Task) -> None:
    """A task that began before Airflow had a task state store goes on after the upgrade, from its older records."""
    task.service.timing = Timing(validating=0, running=3600)
    old = task.entries = ObjectEntries(Local(task.place / "records"))
    waiting = await task.start()
    task.entries, task.before = Entries(), old
    assert await task.start(is_new=False) == waiting
    task.service.advance(7200)
    task.service.timing = _SOON
    assert (await task.finish())["succeeded"] == 6
    assert await task.finish()
    assert task.service.count("create") == 2


async def test_records_in_the_task_state_store() -> None:
    """Entries of the task state store have a prefix, and are JSON values."""

    class Store:
        def __init__(self) -> None:
            self.values: dict[str, Any] = {}

        def get(self, key: str) -> Any:
            return self.values.get(key)

        def set(self, key: str, value: Any, *, retention: Any) -> None:
            self.values[key] = value

    store = Store()
    store.values["together_batches.shard"] = {"version": 1}
    entries = TaskEntries(store)
    assert entries.get("shard") == {"version": 1}
    assert entries.get("attempt-1") is None


async def test_the_first_shard_goes_on_with_what_was_begun(task: Task) -> None:
    """The mapped task of the first shard goes on with the records of the task before it."""
    before = Entries()
    task.service.timing = Timing(validating=0, running=3600)
    own, task.entries = task.entries, before
    waiting = await task.start()
    ledger = TaskLedger(own, before=before)
    await ledger.load()
    assert [attempt.job_id for attempt in ledger.attempts] == [waiting.job_id]
