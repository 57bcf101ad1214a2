"""The engine with a ledger in memory and a minimal service, stopped between any two of its steps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import BatchJob, BatchRequest, CreateUnconfirmedError, FileObject, NotFoundError, jsonl
from together_batches._jobs.create import Created, Listing, WantedJob
from together_batches.files import Uploaded
from together_batches.runs import _rules
from together_batches.runs._context import Clock, RunApi, RunContext
from together_batches.runs._engine import Engine
from together_batches.runs._records import Attempt, LedgerSnapshot, Run
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._sharding import scan
from together_batches.runs._store import RunStore

from .stage import options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


class KilledError(Exception):
    """The end of the process."""


class Life:
    """The life of a process: it ends after so many steps, before or after the effect of the last."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = 0
        self._last = steps

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._last:
            raise KilledError

    @asynccontextmanager
    async def around(self) -> AsyncGenerator[None]:
        self.step()
        yield
        self.step()


class Memory:
    """A ledger without a file: the rules are the same."""

    def __init__(self, snapshot: LedgerSnapshot) -> None:
        self.run = snapshot.run
        self.shards = snapshot.shards
        self.attempts: dict[tuple[int, int], Attempt] = {}
        self.life = Life()

    async def load(self) -> LedgerSnapshot:
        return LedgerSnapshot(self.run, self.shards, tuple(self.attempts[key] for key in sorted(self.attempts)))

    async def save(self, *attempts: Attempt) -> None:
        async with self.life.around():
            self.attempts |= {attempt.key: attempt for attempt in attempts}

    async def save_run(self, run: Run) -> None:
        self.run = run


class Service:
    """Jobs that end at once. A row may be lost the first time it is sent, by its name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, BatchJob] = {}
        self.sent = Counter[str]()
        self.life = Life()
        self.seconds = 0

    def now(self) -> datetime:
        self.seconds += 1
        return NOON + timedelta(seconds=self.seconds)

    async def upload(self, path: Path, _: str, sha256: str) -> Uploaded:
        async with self.life.around():
            content = path.read_bytes()  # noqa: ASYNC240  # a few bytes
            assert hashlib.sha256(content).hexdigest() == sha256
            file_id = f"file-{hashlib.sha256(content).hexdigest()[:8]}"
            known_id = file_id if file_id in self.files else None
            self.files[file_id] = content
        return Uploaded(FileObject(id=file_id), known_id)

    async def file(self, file_id: str) -> tuple[FileObject, datetime]:
        if file_id not in self.files:
            raise NotFoundError("no such file", status=404)
        return FileObject(id=file_id, bytes=len(self.files[file_id])), self.now()

    async def create(
        self,
        wanted: WantedJob,
        *,
        posts: int,
        list_jobs: Callable[[], Awaitable[Listing]],
        note_posts: Callable[[int], Awaitable[None]],
        **_: Any,
    ) -> Created:
        """Create a job as the client does without losses: if a create may have been sent, look for its job first."""
        if posts:
            found = [job for job in (await list_jobs()).jobs if job.input_file_id == wanted.file_id]
            if found:
                return Created(found[0], found=True)
            if posts == 2:
                raise CreateUnconfirmedError("it was sent twice", input_file_id=wanted.file_id)
        await note_posts(posts + 1)
        return Created(await self.post(wanted.file_id))

    async def post(self, file_id: str) -> BatchJob:
        async with self.life.around():
            answers = []
            for line in self.files[file_id].splitlines():
                custom_id = json.loads(line)["custom_id"]
                self.sent[custom_id] += 1
                if not (custom_id.startswith("lost") and self.sent[custom_id] == 1):
                    row = {"custom_id": custom_id, "response": {"status_code": 200, "body": {"n": custom_id}}}
                else:
                    row = {"custom_id": custom_id, "error": {"code": "batch_client_error", "message": "once more"}}
                answers.append(json.dumps(row).encode() + b"\n")
            number = len(self.jobs) + 1
            job = BatchJob(
                id=f"job-{number}",
                status="COMPLETED",  # type: ignore[arg-type]
                input_file_id=file_id,
                created_at=self.now(),
                output_file_id=f"output-{number}",
            )
            self.files[f"output-{number}"] = b"".join(reversed(answers))
            self.jobs[job.id] = job
        return job

    async def list_jobs(self) -> Listing:
        return Listing(list(self.jobs.values()), self.now())

    async def retrieve(self, job_id: str) -> BatchJob:
        if job_id not in self.jobs:
            raise NotFoundError("no such job", status=404)
        return self.jobs[job_id]

    async def ended(self, job_id: str, *, on_update: Callable[[BatchJob], None]) -> BatchJob:
        on_update(self.jobs[job_id])
        return self.jobs[job_id]

    async def download(self, file_id: str, path: Path) -> None:
        async with self.life.around():
            path.write_bytes(self.files[file_id])  # noqa: ASYNC240  # a few bytes

    @property
    def api(self) -> RunApi:
        return RunApi(
            upload=self.upload,
            file=self.file,
            know=lambda _: None,
            create=self.create,
            list_jobs=self.list_jobs,
            retrieve=self.retrieve,
            ended=self.ended,
            download=self.download,
            cancel=lambda _: self.list_jobs(),
        )


class World:
    """One input of seven rows, three to a shard, and the successive processes that run it."""

    def __init__(self, directory: Path, ids: list[str]) -> None:
        self.directory = directory
        path = directory / "in.jsonl"
        jsonl.write((BatchRequest(custom_id, {"model": "m"}) for custom_id in ids), path, overwrite=True)
        found = scan(path, endpoint="/v1/chat/completions", max_rows=3, raise_if_cancelled=lambda: None)
        run = Run(
            id="r",
            input_name=path.name,
            input_bytes=found.bytes,
            input_sha256=found.sha256,
            spooled=False,
            endpoint="/v1/chat/completions",
            model_id=None,
            priority=None,
            max_attempts=3,
            invalid=0,
            started_at=NOON,
        )
        self.service = Service()
        self.lives = 0
        self.ledger = Memory(LedgerSnapshot(run, found.shards))

    async def live(self, steps: int | None = None, give_up: tuple[str, ...] = ()) -> Life:
        """Run one process from its start until it ends or is killed."""
        life = self.service.life = self.ledger.life = Life(steps)
        self.lives += 1
        run_directory = RunDirectory(self.directory, self.directory / "in.jsonl")
        run_directory.prepare()
        time = Clock(now=self.service.now, sleep=self._sleep, monotonic=lambda: float(self.service.seconds))
        context = RunContext(
            options=options(max_jobs=1, give_up=give_up),
            store=RunStore(self.ledger, await self.ledger.load()),
            directory=run_directory,
            api=self.service.api,
            time=time,
            is_resumed=self.lives > 1,
        )
        await Engine(context).run()
        return life

    async def _sleep(self, seconds: float) -> None:
        self.service.seconds += int(seconds)

    async def check(self) -> None:
        """Check that each attempt has one job, and each row was sent as often as needed and answered."""
        attempts = (await self.ledger.load()).attempts
        assert sorted(attempt.job_id for attempt in attempts if attempt.job_id) == sorted(self.service.jobs)
        assert self.service.sent == {
            custom_id: 2 if custom_id.startswith("lost") else 1 for custom_id in self.service.sent
        }
        assert len(self.service.sent) == 7
        buckets = [
            _rules.buckets(shard, [attempt for attempt in attempts if attempt.shard == shard.number], max_attempts=3)
            for shard in self.ledger.shards
        ]
        assert sum(bucket.succeeded for bucket in buckets) == 7


IDS = {
    "some are lost": ["a", "lost-b", "c", "d", "e", "lost-f", "g"],
    "all of a shard are lost, and the same rows go again": ["lost-a", "lost-b", "lost-c", "d", "e", "f", "g"],
}
_both = pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())


@pytest.mark.unmeasured
@pytest.mark.timeout(300)  # as many lives as there are steps
@_both
async def test_killed_at_any_step(tmp_path: Path, ids: list[str]) -> None:
    """After a kill at any step the next process resumes: no job twice, no row lost."""
    world = World(tmp_path, ids)
    life = await world.live()
    await world.check()
    assert life.steps > 40
    for step in range(1, life.steps + 1):
        world = World(tmp_path, ids)
        with pytest.raises(KilledError):
            await world.live(step)
        await world.live()
        await world.check()


@_both
@pytest.mark.parametrize("steps", [4, 5, 7, 11])
async def test_killed_again_and_again(tmp_path: Path, ids: list[str], steps: int) -> None:
    """Progress made by one process is kept by the next; three steps are too few to make any."""
    world = World(tmp_path, ids)
    given_up: tuple[str, ...] = ()
    for _ in range(200):
        try:
            await world.live(steps, given_up)
        except KilledError:
            continue
        except CreateUnconfirmedError as error:
            # Killed twice right before the same create: it may have been sent twice, and is not sent a third time.
            given_up = (error.input_file_id,)
            continue
        break
    else:
        pytest.fail("it never ends")
    await world.check()


async def test_a_file_that_was_deleted_before_its_job_was_created(tmp_path: Path) -> None:
    """An input file deleted before its create is uploaded again: the account is right, and had no other request."""
    world = World(tmp_path, IDS["some are lost"])
    with pytest.raises(KilledError):
        await world.live(6)
    (attempt,) = world.ledger.attempts.values()
    assert attempt.file_id is not None
    world.ledger.attempts[attempt.key] = attrs.evolve(attempt, creating_at=None, since=None)
    world.service.files.clear()
    await world.live()
    await world.check()


@pytest.mark.unmeasured
async def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """A clock that was set back does not hide the job of a create: the service's own clock counts."""
    world = World(tmp_path, IDS["some are lost"])
    steps = (await world.live()).steps
    for step in range(1, steps + 1):
        world = World(tmp_path, IDS["some are lost"])
        ahead: Any = timedelta(days=400)
        with pytest.raises(KilledError):
            await world.live(step)
        for key, attempt in world.ledger.attempts.items():
            world.ledger.attempts[key] = attrs.evolve(
                attempt,
                planned_at=attempt.planned_at + ahead,
                creating_at=attempt.creating_at and attempt.creating_at + ahead,
            )
        await world.live()
        await world.check()
