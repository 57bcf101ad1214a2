"""Single attempts, driven by a stand-in for an engine for workflows that keeps records as JSON, and may be killed."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest

from together_batches import (
    APIConnectionError,
    APIStatusError,
    Batches,
    BatchRequest,
    CreateUnconfirmedError,
    InternalServerError,
    NotFoundError,
    ResultsUnavailableError,
    RunChangedError,
    UsageError,
    ValidationError,
    jsonl,
    runs,
    to_dict,
)
from together_batches.emulator import Answer, Failure, Fault, Missing, Timing
from together_batches.runs import rules

from .small_service import NOON, KilledError, Life, Service
from .stage import ROWS, requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wires import VirtualTime

    from together_batches import AsyncBatches
    from together_batches.emulator import Emulator
    from together_batches.runs import Attempt, Shard
    from together_batches.runs._context import RunApi

    from .stage import Fates


class Storage:
    """Records and files that outlive a process. A file is stored when it is closed."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], str] = {}
        self.files: dict[str, bytes] = {}
        self.life = Life()

    async def save(self, attempt: Attempt) -> None:
        async with self.life.around():
            self.records[attempt.key] = json.dumps(to_dict(attempt))

    def attempts(self, shard: Shard) -> list[Attempt]:
        found = [self.records[key] for key in sorted(self.records) if key[0] == shard.number]
        return [runs.attempt_from_dict(json.loads(text)) for text in found]

    def open_to_read(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.files[name])

    @contextmanager
    def _storing(self, name: str, file: io.BytesIO) -> Iterator[None]:
        self.life.step()
        self.files[name] = file.getvalue()
        yield
        self.life.step()

    def open_to_write(self, name: str) -> io.BytesIO:
        storage = self

        class Stored(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    with storage._storing(name, self):
                        super().close()

        return Stored()


class Client:
    """A client of the minimal service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __run_api__(self, patience: float) -> RunApi:
        return self._service.api


def piece_of(attempt: Attempt) -> str:
    return f"piece-{attempt.shard}-{attempt.number}"


class Driver:
    """What an engine for workflows does with one dataset: each call is a process of its own."""

    def __init__(self, batches: AsyncBatches, scratch: Path, identity: str | None = "run 7") -> None:
        self.storage = Storage()
        self.batches = batches
        self.scratch = scratch
        self.identity = identity
        self.options: dict[str, Any] = {}
        self.schema: Any = None
        self.retry_invalid = False

    def cut(self, content: bytes, max_rows: int) -> None:
        self.storage.files["in"] = content
        self.shards = runs.shards(self.source, max_rows_per_job=max_rows)

    def source(self) -> io.BytesIO:
        return self.storage.open_to_read("in")

    def next(self, shard: Shard) -> Attempt | None:
        attempts, again = self.storage.attempts(shard), self.retry_invalid
        return rules.next_attempt(shard, attempts, max_attempts=3, now=NOON, retry_invalid=again)

    async def __call__(self) -> None:
        for shard in self.shards:
            while (attempt := self.next(shard)) is not None:
                await self.step(shard, attempt)

    async def step(self, shard: Shard, attempt: Attempt) -> None:
        earlier = self.storage.attempts(shard)[: attempt.number - 1]
        if earlier and not attempt.creating_at:
            previous = await runs.recheck(self.batches, earlier[-1], save=self.storage.save)
            if previous.collected_at is None:
                return
        begun = await self.begin(shard, attempt)
        if begun.job_id is not None:
            await self.batches.wait(begun.job_id)
            await self.collect(shard, begun)

    async def begin(self, shard: Shard, attempt: Attempt) -> Attempt:
        earlier = self.storage.attempts(shard)[: attempt.number - 1]
        rows = runs.rows(self.source, shard, earlier, retry_invalid=attempt.retries_invalid)
        return await runs.begin(
            self.batches,
            attempt,
            rows,
            save=self.storage.save,
            earlier=earlier,
            identity=self.identity,
            schema=self.schema,
            **self.options,
        )

    async def collect(self, shard: Shard, attempt: Attempt, **options: Any) -> Attempt:
        earlier = self.storage.attempts(shard)[: attempt.number - 1]
        return await runs.collect(
            self.batches,
            attempt,
            runs.rows(self.source, shard, earlier, retry_invalid=attempt.retries_invalid),
            partial(self.storage.open_to_write, piece_of(attempt)),
            scratch_directory=self.scratch,
            save=self.storage.save,
            earlier=earlier,
            schema=self.schema,
            **options,
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        output = io.BytesIO()
        for shard in self.shards:
            attempts = [each for each in self.storage.attempts(shard) if each.rows]
            pieces = [(each, partial(self.storage.open_to_read, piece_of(each))) for each in attempts]
            runs.write_results(shard, pieces, output)
        return [json.loads(line) for line in output.getvalue().splitlines()]

    @property
    def buckets(self) -> rules.Buckets:
        each = (rules.buckets(shard, self.storage.attempts(shard), max_attempts=3) for shard in self.shards)
        return sum(each, rules.Buckets())


# --- killed at any step -------------------------------------------------------------------------------------------

IDS = {
    "some are lost": ["a", "lost-b", "c", "d", "e", "lost-f", "g"],
    "all of a shard are lost, and the same rows go again": ["lost-a", "lost-b", "lost-c", "d", "e", "f", "g"],
}


class World:
    """One input of seven rows, three to a shard, and the successive processes that work on it."""

    def __init__(self, directory: Path, ids: list[str], identity: str | None) -> None:
        self.service = Service()
        self.drive = Driver(cast("Any", Client(self.service)), directory, identity)
        lines = (jsonl.encode(BatchRequest(custom_id, {"model": "m"})) for custom_id in ids)
        self.drive.cut(b"".join(line for line in lines), 3)
        cast("Any", self.drive.batches).wait = self.service.retrieve
        self.ids = ids

    async def live(self, steps: int | None = None) -> Life:
        """Run one process until it ends or is killed."""
        life = self.service.life = self.drive.storage.life = Life(steps)
        await self.drive()
        return life

    def check(self) -> None:
        """Check that each attempt has one job, and each row was sent as often as needed, and is answered in order."""
        attempts = [each for shard in self.drive.shards for each in self.drive.storage.attempts(shard)]
        assert sorted(each.job_id for each in attempts if each.job_id) == sorted(self.service.jobs)
        assert self.service.sent == {each: 2 if each.startswith("lost") else 1 for each in self.ids}
        assert self.drive.buckets == rules.Buckets(succeeded=7)
        assert [line["custom_id"] for line in self.drive.lines] == self.ids
        assert {line["result"] for line in self.drive.lines} == {"success"}
        assert list(self.drive.scratch.iterdir()) == []


@pytest.mark.unmeasured
@pytest.mark.timeout(300)  # as many lives as there are steps
@pytest.mark.parametrize(("ids", "identity"), list(zip(IDS.values(), ("run 7", None), strict=True)), ids=IDS.keys())
async def test_killed_at_any_step(tmp_path: Path, ids: list[str], identity: str | None) -> None:
    """After a kill before or after any save, request or write the next process goes on: no job twice, no row lost."""
    world = World(tmp_path, ids, identity)
    life = await world.live()
    world.check()
    assert life.steps > 40
    for step in range(1, life.steps + 1):
        world = World(tmp_path, ids, identity)
        with pytest.raises(KilledError):
            await world.live(step)
        await world.live()
        world.check()


async def test_a_save_that_fails(tmp_path: Path) -> None:
    """If an attempt cannot be stored, no create is sent."""
    world = World(tmp_path, IDS["some are lost"], "run 7")

    async def save(attempt: Attempt) -> None:
        if attempt.posts:
            raise OSError("the database is away")

    world.drive.storage.save = save  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the database is away"):
        await world.live()
    assert world.service.jobs == {}


# --- the service, through a client --------------------------------------------------------------------------------


@pytest.fixture
def drive(batches: AsyncBatches, tmp_path: Path) -> Driver:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    driver = Driver(batches, scratch)
    driver.cut(b"".join(jsonl.encode(request) for request in requests()), ROWS)
    return driver


def first(driver: Driver) -> tuple[Shard, Attempt]:
    """Return the only shard, and its attempt to begin or to go on with."""
    (shard,) = driver.shards
    attempt = driver.next(shard)
    assert attempt is not None
    return shard, attempt


async def test_a_row_that_failed_is_sent_again_alone(drive: Driver, emulator: Emulator, fates: Fates) -> None:
    """The rows that failed go again in a job of their own, and each row has its last result, in order."""
    fates.planned = {"row-5": [Failure()], "row-7": [Failure("four stops at most", "invalid_request_error")]}
    shard, attempt = first(drive)
    await drive.step(shard, attempt)
    fates.round += 1
    await drive()
    assert [each.rows for each in drive.storage.attempts(shard)] == [10, 1]
    assert [line["custom_id"] for line in drive.lines] == [f"row-{number}" for number in range(10)]
    assert [line["custom_id"] for line in drive.lines if line["result"] == "failure"] == ["row-7"]
    assert drive.buckets == rules.Buckets(succeeded=9, failed=1)
    assert len(emulator.jobs) == 2


@attrs.frozen
class City:
    """A city."""

    name: str


async def test_a_schema(drive: Driver, emulator: Emulator, fates: Fates) -> None:
    """Rows are sent with the schema, and those whose answers do not fit it go again alone, if that is wanted."""
    fits = Answer('{"name": "Prague"}')
    fates.planned = {f"row-{number}": [fits, fits] for number in range(ROWS)}
    fates.planned["row-5"] = [Answer("no JSON"), fits]
    drive.schema = City
    shard, attempt = first(drive)
    await drive.step(shard, attempt)
    assert drive.next(shard) is None
    assert drive.lines[5]["result"] == "invalid"
    assert drive.buckets == rules.Buckets(succeeded=9, invalid_answers=1)
    fates.round += 1
    drive.retry_invalid = True
    await drive()
    assert [each.rows for each in drive.storage.attempts(shard)] == [10, 1]
    assert drive.buckets == rules.Buckets(succeeded=10)
    sent = [json.loads(line) for job in emulator.jobs for line in emulator.content(job["input_file_id"]).splitlines()]
    assert {row["body"]["response_format"]["json_schema"]["name"] for row in sent} == {"City"}
    assert [{**row["body"], "response_format": None} for row in sent[:1]] == [
        {**json.loads(drive.storage.files["in"].splitlines()[0])["body"], "response_format": None}
    ]


async def test_a_schema_has_room_in_each_job(drive: Driver) -> None:
    """Shards that are cut for a schema leave room for it in each row."""
    content = drive.storage.files["in"]
    limit = len(content) + 1000
    assert len(runs.shards(drive.source, max_bytes_per_job=limit)) == 1
    assert len(runs.shards(drive.source, max_bytes_per_job=limit, schema=City)) == 2


async def test_a_schema_that_is_refused(drive: Driver, emulator: Emulator) -> None:
    """A schema for another endpoint, or one that cannot be sent, is refused before anything is uploaded."""
    shard, attempt = first(drive)
    drive.schema = City
    drive.options = {"endpoint": "/v1/audio/transcriptions"}
    with pytest.raises(UsageError, match="a schema is for answers of /v1/chat/completions"):
        await drive.begin(shard, attempt)
    drive.schema, drive.options = 5, {}
    with pytest.raises(UsageError, match="a schema is a pydantic model"):
        await drive.begin(shard, attempt)
    assert len(emulator.requests) == 0


async def test_an_attempt_that_has_its_job_costs_no_request(drive: Driver, emulator: Emulator) -> None:
    """Begun again, an attempt with a job is returned as it is."""
    shard, attempt = first(drive)
    begun = await drive.begin(shard, attempt)
    before = emulator.count("list"), emulator.count("file")
    assert await drive.begin(shard, begun) == begun
    assert (emulator.count("list"), emulator.count("file")) == before


async def test_a_create_whose_answer_is_lost(drive: Driver, emulator: Emulator) -> None:
    """The job of a create whose answer was lost is found by its file."""
    emulator.fail(Fault(on="create", lose="answer"))
    begun = await drive.begin(*first(drive))
    assert (begun.job_id, begun.found) == (emulator.jobs[0]["id"], True)
    assert len(emulator.jobs) == 1


async def test_records_that_are_lost(drive: Driver, emulator: Emulator, time: VirtualTime) -> None:
    """If no record survives a create, the upload that the service knows leads to its job."""
    begun = await drive.begin(*first(drive))
    drive.storage.records.clear()
    again = await drive.begin(*first(drive))
    assert again.job_id == begun.job_id
    assert len(emulator.jobs) == 1
    drive.identity = "run 8"
    drive.storage.records.clear()
    other = await drive.begin(*first(drive))
    assert other.job_id != begun.job_id
    assert time.seconds < 10


async def test_equal_rows_of_two_processes_at_once(
    drive: Driver, batches: AsyncBatches, emulator: Emulator, tmp_path: Path
) -> None:
    """Two processes that begin equal rows at once have a job each, although the answers of their creates are lost."""
    emulator.fail(Fault(on="create", lose="answer", times=2))
    other = Driver(batches, tmp_path, "run 8")
    other.cut(drive.storage.files["in"], ROWS)
    one, two = await asyncio.gather(drive.begin(*first(drive)), other.begin(*first(other)))
    jobs = {job["id"]: job["input_file_id"] for job in emulator.jobs}
    assert jobs == {one.job_id: one.file_id, two.job_id: two.file_id}
    assert len(jobs) == 2


async def test_a_file_that_is_not_unique(drive: Driver, emulator: Emulator) -> None:
    """Without an identity the upload is the rows as they are, and the job of another with the same rows is left."""
    drive.identity = None
    begun = await drive.begin(*first(drive))
    assert emulator.content(begun.file_id or "") == drive.storage.files["in"]
    drive.storage.records.clear()
    again = await drive.begin(*first(drive))
    assert (again.file_id, again.marked) == (begun.file_id, False)
    assert again.job_id != begun.job_id


async def test_the_name_and_the_mark_of_an_upload(drive: Driver, emulator: Emulator, tmp_path: Path) -> None:
    """The upload has the rows with white space in the first, and its name has the shard, the attempt and a tag."""
    path = tmp_path / "questions.jsonl"
    path.write_bytes(drive.storage.files["in"])
    _, attempt = first(drive)
    begun = await runs.begin(drive.batches, attempt, path, save=drive.storage.save, identity="x")
    content = emulator.content(begun.file_id or "")
    assert len(content) == path.stat().st_size + 64
    assert content.replace(content[1:65], b"") == path.read_bytes()
    file = await drive.batches.files.retrieve(begun.file_id or "")
    assert (file.filename or "").startswith("questions-00001-1-")


async def test_a_job_that_has_not_ended(drive: Driver, emulator: Emulator) -> None:
    """Before the end of its job an attempt is returned with its state, and the sink is not touched."""
    emulator.timing = Timing(validating=0, running=1_000)
    shard, attempt = first(drive)
    begun = await drive.begin(shard, attempt)
    seen = await drive.collect(shard, begun)
    assert (seen.status, seen.ended_at, seen.collected_at) == ("IN_PROGRESS", None, None)
    assert drive.storage.attempts(shard) == [seen]
    assert drive.storage.files.keys() == {"in"}


async def test_an_outage_is_raised(drive: Driver, emulator: Emulator) -> None:
    """An outage is raised after the client's own retries, and the next call goes on."""
    shard, attempt = first(drive)
    emulator.fail(Fault(on="begin_upload", status=503, times=5))
    with pytest.raises(InternalServerError) as caught:
        await drive.begin(shard, attempt)
    assert caught.value.is_transient
    emulator.fail(Fault(on="create", status=402))
    with pytest.raises(APIStatusError, match="402"):
        await drive.begin(shard, attempt)
    assert [each.posts for each in drive.storage.attempts(shard)] == [0]
    emulator.fail(Fault(on="content", lose="request", times=5))
    begun = await drive.begin(*first(drive))
    with pytest.raises(APIConnectionError):
        await drive.collect(shard, begun)
    await drive()
    assert drive.buckets == rules.Buckets(succeeded=10)
    assert len(emulator.jobs) == 1
    assert list(drive.scratch.iterdir()) == []


async def test_a_create_that_stays_unconfirmed(drive: Driver, emulator: Emulator, time: VirtualTime) -> None:
    """Two creates without a job are an error, in each call; given up, all rows count as missing."""
    shard, attempt = first(drive)
    emulator.fail(Fault(on="create", lose="request", times=2))
    with pytest.raises(CreateUnconfirmedError):
        await drive.begin(shard, attempt)
    (kept,) = drive.storage.attempts(shard)
    with pytest.raises(CreateUnconfirmedError):
        await drive.begin(shard, kept)
    with pytest.raises(UsageError, match="shard 1, attempt 1 has no job yet: begin it first"):
        await drive.collect(shard, kept)
    given_up = await drive.collect(shard, kept, give_up=True)
    assert rules.outcomes_of(given_up) == bytes([rules.MISSING]) * 10
    await drive()
    assert drive.buckets == rules.Buckets(succeeded=10)
    assert len(emulator.jobs) == 1
    assert time.seconds > 300


async def test_looks_that_the_caller_spaces_out(drive: Driver, emulator: Emulator, time: VirtualTime) -> None:
    """With ``look_once`` nothing waits: each call looks once, and only one without it sends the create once more."""
    shard, attempt = first(drive)
    emulator.fail(Fault(on="create", lose="request"))
    emulator.fail(Fault(on="file", status=404))
    began = time.seconds
    drive.options = {"look_once": True}
    with pytest.raises(NotFoundError):
        await drive.begin(shard, attempt)
    for _ in range(3):
        (kept,) = drive.storage.attempts(shard)
        with pytest.raises(CreateUnconfirmedError, match="no job of the file is listed"):
            await drive.begin(shard, kept)
    assert emulator.count("create") == emulator.count("begin_upload") == 1
    (kept,) = drive.storage.attempts(shard)
    drive.options = {"patience": 0}
    assert (await drive.begin(shard, kept)).job_id
    assert time.seconds - began < 1


async def test_an_outage_while_a_lost_create_is_searched_for(drive: Driver, emulator: Emulator) -> None:
    """With ``look_once`` an outage of the list is raised as such, because it is no evidence of absence."""
    shard, attempt = first(drive)
    emulator.fail(Fault(on="create", lose="answer"))
    emulator.fail(Fault(on="list", status=503, times=None))
    drive.options = {"look_once": True}
    with pytest.raises(InternalServerError):
        await drive.begin(shard, attempt)
    emulator.clear_faults()
    (kept,) = drive.storage.attempts(shard)
    assert (await drive.begin(shard, kept)).job_id
    assert emulator.count("create") == 1


# --- evidence -----------------------------------------------------------------------------------------------------


async def _ended(driver: Driver) -> tuple[Shard, Attempt]:
    """Begin the only attempt, and wait until its job has ended."""
    shard, attempt = first(driver)
    begun = await driver.begin(shard, attempt)
    await driver.batches.wait(begun.job_id or "")
    return shard, begun


async def test_results_that_do_not_come(drive: Driver, emulator: Emulator, time: VirtualTime) -> None:
    """Files that are not named for patience are an error, and nothing is written; given up, rows are missing."""
    shard, attempt = await _ended(drive)
    emulator.change_job(attempt.job_id or "", output_file_id=None)
    began = time.seconds
    with pytest.raises(ResultsUnavailableError, match="is COMPLETED and names no file of results"):
        await drive.collect(shard, attempt, patience=300)
    assert 300 <= time.seconds - began < 320
    assert drive.storage.files.keys() == {"in"}
    assert list(drive.scratch.iterdir()) == []
    (kept,) = drive.storage.attempts(shard)
    given_up = await drive.collect(shard, kept, give_up=True)
    assert rules.outcomes_of(given_up) == bytes([rules.MISSING]) * 10
    assert drive.storage.files[piece_of(attempt)].count(b'"missing"') == 10


async def test_a_page_in_place_of_results(drive: Driver, emulator: Emulator) -> None:
    """A page instead of the results is read again, and is not a result."""
    shard, attempt = await _ended(drive)
    emulator.fail(Fault(on="content", status=200, body="Sign in, please.\n", times=2))
    collected = await drive.collect(shard, attempt)
    assert rules.outcomes_of(collected) == bytes([rules.SUCCEEDED]) * 10


async def test_rows_that_are_left_out(drive: Driver, time: VirtualTime, fates: Fates) -> None:
    """Omitted rows count as missing after two equal looks, a minute apart."""
    fates.planned = {"row-5": [Missing()]}
    shard, attempt = await _ended(drive)
    began = time.seconds
    collected = await drive.collect(shard, attempt)
    assert rules.outcomes_of(collected).count(rules.MISSING) == 1
    assert time.seconds - began >= 60


async def test_a_job_that_is_absent(drive: Driver, emulator: Emulator) -> None:
    """A job that is absent for patience is an error; given up, its rows are missing."""
    shard, attempt = await _ended(drive)
    emulator.delete_job(attempt.job_id or "")
    with pytest.raises(ResultsUnavailableError, match="of shard 1 has been absent for 60 s"):
        await drive.collect(shard, attempt, patience=60)
    given_up = await drive.collect(shard, attempt, give_up=True)
    assert rules.outcomes_of(given_up) == bytes([rules.MISSING]) * 10


async def test_a_recheck_that_the_caller_spaces_out(drive: Driver, emulator: Emulator, time: VirtualTime) -> None:
    """With ``look_once`` a recheck of an absent job is an error at once, and without it its results count later."""
    shard, attempt = await _ended(drive)
    collected = await drive.collect(shard, attempt)
    emulator.delete_job(attempt.job_id or "")
    began = time.seconds
    with pytest.raises(ResultsUnavailableError, match="is absent"):
        await runs.recheck(drive.batches, collected, save=drive.storage.save, look_once=True)
    assert time.seconds - began < 1
    assert await runs.recheck(drive.batches, collected, save=drive.storage.save) == collected
    assert time.seconds - began >= rules.RECHECK_SECONDS


async def test_a_running_job_is_not_given_up(drive: Driver, emulator: Emulator) -> None:
    """A job that has not ended cannot be given up."""
    emulator.timing = Timing(validating=0, running=1_000)
    shard, attempt = first(drive)
    begun = await drive.begin(shard, attempt)
    with pytest.raises(UsageError, match="has not ended"):
        await drive.collect(shard, begun, give_up=True)


async def test_an_answer_that_comes_after_an_error(drive: Driver, emulator: Emulator, fates: Fates) -> None:
    """Read once more before its rows go again, an attempt whose files have changed is to be collected again."""
    fates.planned = {"row-5": [Failure()]}
    shard, attempt = await _ended(drive)
    collected = await drive.collect(shard, attempt)
    assert await runs.recheck(drive.batches, collected, save=drive.storage.save) == collected
    output = emulator.content(str(emulator.jobs[0]["output_file_id"]))
    late = json.dumps({"custom_id": "row-5", "response": {"status_code": 200, "body": {"choices": []}}}).encode()
    changed = {"id": emulator.jobs[0]["output_file_id"], "bytes": len(output) + len(late) + 1}
    emulator.fail(Fault(on="file", status=200, body=changed))
    emulator.fail(Fault(on="content", status=200, body=output + late + b"\n"))
    rechecked = await runs.recheck(drive.batches, collected, save=drive.storage.save)
    assert (rechecked.collected_at, rechecked.outcomes) == (None, b"")
    assert drive.next(shard) == rechecked
    again = await drive.collect(shard, rechecked)
    assert rules.outcomes_of(again) == bytes([rules.SUCCEEDED]) * 10


@pytest.mark.parametrize("size", [None, 0, 1], ids=repr)
async def test_sizes_that_are_wrong_for_good(
    drive: Driver, emulator: Emulator, fates: Fates, size: int | None
) -> None:
    """If sizes stay wrong, results are read once more before rows go again, and not for ever."""
    fates.planned = {"row-5": [Failure()]}
    shard, attempt = await _ended(drive)
    collected = await drive.collect(shard, attempt)
    described = {"id": "x"} if size is None else {"id": "x", "bytes": size}
    for _ in range(2):
        for name in ("output_file_id", "error_file_id"):
            body = {**described, "id": emulator.jobs[0][name]}
            emulator.fail(Fault(on="file", status=200, body=body))
    rechecked = await runs.recheck(drive.batches, collected, save=drive.storage.save)
    assert rechecked.collected_at is None
    again = await drive.collect(shard, rechecked)
    assert await runs.recheck(drive.batches, again, save=drive.storage.save) == again


async def test_the_second_job_of_a_create(drive: Driver, emulator: Emulator, fates: Fates) -> None:
    """If a create made two jobs, the second has the rows that the first left; nothing is sent again."""
    fates.planned = {"row-5": [Failure()]}
    shard, attempt = await _ended(drive)
    collected = await drive.collect(shard, attempt)
    collected = attrs.evolve(collected, found=True)
    await drive.storage.save(collected)
    fates.round += 1
    second = await drive.batches.create(collected.file_id or "")
    following = first(drive)[1]
    begun = await drive.begin(shard, following)
    assert (begun.job_id, begun.file_id) == (second.id, collected.file_id)
    await drive()
    assert drive.buckets == rules.Buckets(succeeded=10)
    assert len(emulator.jobs) == 2


async def test_an_attempt_is_collected_again(drive: Driver) -> None:
    """Called again, a collected attempt is collected again, with the same result."""
    shard, attempt = await _ended(drive)
    collected = await drive.collect(shard, attempt)
    before = drive.storage.files.pop(piece_of(attempt))
    again = await drive.collect(shard, collected)
    assert attrs.evolve(again, collected_at=collected.collected_at) == collected
    assert drive.storage.files[piece_of(attempt)] == before


async def test_a_sink_that_is_written_again_and_fails(drive: Driver) -> None:
    """While the sink of a collected attempt is written again, the attempt is not recorded as collected."""

    class Full(io.BytesIO):
        def write(self, _: Any, /) -> int:
            raise OSError(28, "No space left on device")

    await drive()
    (shard,) = drive.shards
    (attempt,) = drive.storage.attempts(shard)
    with pytest.raises(UsageError, match="space left on device"):
        await runs.collect(
            drive.batches,
            attempt,
            runs.rows(drive.source, shard),
            Full,
            scratch_directory=drive.scratch,
            save=drive.storage.save,
        )
    (attempt,) = drive.storage.attempts(shard)
    assert attempt.collected_at is None
    await drive()
    assert len(drive.lines) == ROWS


async def test_earlier_attempts_out_of_order(drive: Driver, emulator: Emulator) -> None:
    """Earlier attempts of another shard, or out of order, are refused before anything is sent."""
    await drive()
    (shard,) = drive.shards
    (first,) = drive.storage.attempts(shard)
    third = attrs.evolve(first, number=3, job_id=None, collected_at=None, outcomes=b"")
    for earlier in ([attrs.evolve(first, number=2), first], [attrs.evolve(first, shard=2)], [first, third]):
        with pytest.raises(UsageError, match="in the order of their numbers"):
            await runs.begin(drive.batches, third, drive.source, save=drive.storage.save, earlier=earlier)
        with pytest.raises(UsageError, match="in the order of their numbers"):
            await runs.collect(
                drive.batches,
                third,
                drive.source,
                io.BytesIO(),
                scratch_directory=drive.scratch,
                save=drive.storage.save,
                earlier=earlier,
            )
    assert len(emulator.jobs) == 1


async def test_equal_rows_without_room_for_a_mark(drive: Driver, emulator: Emulator) -> None:
    """A first row without room for a mark makes a file that others may have; their jobs are not taken."""
    first = jsonl.encode({"custom_id": "a", "body": {"model": "m", "messages": [], "x": ""}})
    filler = b"x" * (jsonl.MAX_LINE_BYTES - len(first) + 1)
    content = first.replace(b'"x":""', b'"x":"' + filler + b'"')
    for identity in ("run 7", "run 8"):
        drive.storage = Storage()
        drive.identity = identity
        drive.cut(content, 1)
        (shard,) = drive.shards
        begun = await drive.begin(shard, cast("Attempt", drive.next(shard)))
        assert not begun.marked
    assert len(emulator.jobs) == 2


async def test_an_attempt_without_rows(drive: Driver) -> None:
    """An attempt that has no rows any more is collected at once."""
    shard, attempt = first(drive)
    empty = attrs.evolve(attempt, rows=0)
    begun = await drive.begin(shard, empty)
    assert begun.collected_at is not None
    assert await drive.collect(shard, begun) == begun


# --- sources and sinks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "file", "function"])
async def test_kinds_of_sources_and_sinks(drive: Driver, tmp_path: Path, kind: str) -> None:
    """Rows come from a path, an open file or a function that opens one, and results go to one of these."""
    path, result = tmp_path / "rows.jsonl", tmp_path / "results.jsonl"
    path.write_bytes(drive.storage.files["in"])
    with path.open("rb") as source, result.open("wb") as sink:
        given: Any = {"path": path, "file": source, "function": partial(path.open, "rb")}[kind]
        place: Any = {"path": result, "file": sink, "function": partial(result.open, "wb")}[kind]
        _, attempt = first(drive)
        save = drive.storage.save
        attempt = await runs.begin(drive.batches, attempt, given, save=save)
        await drive.batches.wait(attempt.job_id or "")
        await runs.collect(drive.batches, attempt, given, place, save=save, scratch_directory=drive.scratch)
        assert not source.closed
        assert not sink.closed
    assert [json.loads(line)["custom_id"] for line in result.read_bytes().splitlines()] == [
        f"row-{number}" for number in range(10)
    ]


class Pipe:
    """A stream that cannot seek."""

    def read(self, _: int) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the source is a path, a file opened in binary mode, or a function that opens one, not bytes"),
        ("missing.jsonl", "cannot read missing.jsonl: there is no such file or directory"),
        (".", "cannot read .: it is not a file"),
        (Pipe(), "the source cannot seek, and is read more than once: pass a function"),
        (io.StringIO("{}\n"), "instead of bytes: open it in binary mode"),
        (lambda: None, "must be opened as a binary file; the function returned NoneType"),
        (lambda: io.BytesIO(b""), "there are no rows"),
        (lambda: io.BytesIO(b"{}\n"), "custom_id"),
        (lambda: io.BytesIO(b'{"custom_id":"a","body":{"model":"m"}}\n'), "1 row, and shard 1, attempt 1 has 10"),
    ],
)
async def test_sources_that_are_refused(drive: Driver, emulator: Emulator, source: Any, message: str) -> None:
    """An invalid or unreadable source, and one without the rows of the attempt, are refused before the upload."""
    _, attempt = first(drive)
    with pytest.raises((UsageError, ValidationError), match=message.replace("(", r"\(")):
        await runs.begin(drive.batches, attempt, source, save=drive.storage.save)
    assert emulator.count("begin_upload") == 0
    assert drive.storage.records == {}


async def test_rows_without_a_path_are_read_once(drive: Driver, emulator: Emulator) -> None:
    """Rows on a storage are read once, also if their upload is repeated, and sent as they were read."""
    emulator.fail(Fault(on="store", status=503))
    _, attempt = first(drive)
    given = [drive.source()]
    begun = await runs.begin(drive.batches, attempt, given.pop, save=drive.storage.save)
    assert emulator.count("store") == 2
    assert emulator.content(begun.file_id or "") == drive.storage.files["in"]


async def test_rows_that_are_not_those_of_the_attempt(drive: Driver, emulator: Emulator) -> None:
    """Results are not collected with another number of rows, and nothing is written."""
    _, attempt = await _ended(drive)
    sink = drive.scratch / "out"
    with pytest.raises(UsageError, match="the source has 1 row, and shard 1, attempt 1 has 10: pass the rows"):
        await runs.collect(
            drive.batches,
            attempt,
            lambda: io.BytesIO(b'{"custom_id":"a"}\n'),
            sink,
            save=drive.storage.save,
            scratch_directory=drive.scratch,
        )
    assert list(drive.scratch.iterdir()) == []


async def test_an_edited_input(drive: Driver, emulator: Emulator) -> None:
    """An input that was edited since it was cut is refused, before anything is sent, and at the end."""
    shard, attempt = first(drive)
    before = drive.storage.files["in"]
    drive.storage.files["in"] = before.replace(b"row-3", b"row-x")
    with pytest.raises(RunChangedError, match="is not what was cut into these shards: the rows from line 1 on"):
        await drive.begin(shard, attempt)
    assert emulator.count("begin_upload") == 0
    drive.storage.files["in"] = before
    shard, attempt = await _ended(drive)
    drive.storage.files["in"] = before.replace(b"row-3", b"row-x")
    with pytest.raises(RunChangedError):
        await drive.collect(shard, attempt)


def _unwritable() -> Any:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (7, "the sink is a path, a file opened in binary mode, or a function that opens one, not int"),
        (".", "cannot write .: it is a directory"),
        ("missing/out.jsonl", "cannot write missing/out.jsonl: there is no directory missing"),
        (io.StringIO(), "cannot write the sink: StringIO is not a file opened in binary mode"),
        (lambda: None, "cannot write the sink: NoneType is not a file opened in binary mode"),
        (_unwritable, "cannot write the sink: permission denied"),
    ],
)
async def test_sinks_that_cannot_be_written(drive: Driver, sink: Any, message: str) -> None:
    """A sink that cannot be written is refused, and the attempt is not collected."""
    shard, attempt = await _ended(drive)
    rows = runs.rows(drive.source, shard)
    with pytest.raises(UsageError, match=message):
        await runs.collect(
            drive.batches, attempt, rows, sink, save=drive.storage.save, scratch_directory=drive.scratch
        )
    assert all(each.collected_at is None for each in drive.storage.attempts(shard))
    assert list(drive.scratch.iterdir()) == []


async def test_a_directory_for_scratch_that_is_missing(drive: Driver, tmp_path: Path) -> None:
    """A directory for scratch that is missing is named."""
    shard, attempt = await _ended(drive)
    drive.scratch = tmp_path / "nowhere"
    with pytest.raises(UsageError, match=r"scratch_directory is not a directory: .*nowhere; make it first"):
        await drive.collect(shard, attempt)


async def test_other_arguments_that_are_refused(drive: Driver) -> None:
    """A synchronous client, a plain function to save, a bad endpoint and a bad number are refused."""
    _, attempt = first(drive)
    rows, save = partial(io.BytesIO, drive.storage.files["in"]), drive.storage.save
    with Batches("key") as synchronous, pytest.raises(UsageError, match="AsyncBatches, not with Batches"):
        await runs.begin(cast("Any", synchronous), attempt, rows, save=save)
    with pytest.raises(UsageError, match="save must be a coroutine function"):
        await runs.begin(drive.batches, attempt, rows, save=cast("Any", lambda _: None))
    with pytest.raises(UsageError, match="endpoint"):
        await runs.begin(drive.batches, attempt, rows, save=save, endpoint="/v1/chat/completion")
    with pytest.raises(UsageError, match="patience must be a number"):
        await runs.begin(drive.batches, attempt, rows, save=save, patience=-1)
