"""The engine with a ledger in memory and a minimal service, stopped between any two of its steps."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import BatchRequest, CreateUnconfirmedError, jsonl
from together_batches.runs import rules
from together_batches.runs._context import RunContext
from together_batches.runs._engine import Engine
from together_batches.runs._records import Attempt, LedgerSnapshot, Run
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._sharding import scan
from together_batches.runs._store import RunStore

from .small_service import NOON, KilledError, Life, Service
from .stage import options

if TYPE_CHECKING:
    from pathlib import Path


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
        context = RunContext(
            options=options(max_jobs=1, give_up=give_up),
            store=RunStore(self.ledger, await self.ledger.load()),
            directory=run_directory,
            api=self.service.api,
            is_resumed=self.lives > 1,
        )
        await Engine(context).run()
        return life

    async def check(self) -> None:
        """Check that each attempt has one job, and each row was sent as often as needed and answered."""
        attempts = (await self.ledger.load()).attempts
        assert sorted(attempt.job_id for attempt in attempts if attempt.job_id) == sorted(self.service.jobs)
        assert self.service.sent == {
            custom_id: 2 if custom_id.startswith("lost") else 1 for custom_id in self.service.sent
        }
        assert len(self.service.sent) == 7
        buckets = [
            rules.buckets(shard, [attempt for attempt in attempts if attempt.shard == shard.number], max_attempts=3)
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
        lost = [attempt for attempt in world.ledger.attempts.values() if attempt.creating_at and not attempt.job_id]
        if not lost:
            continue
        for key, attempt in world.ledger.attempts.items():
            world.ledger.attempts[key] = attrs.evolve(
                attempt,
                planned_at=attempt.planned_at + ahead,
                creating_at=attempt.creating_at and attempt.creating_at + ahead,
            )
        await world.live()
        await world.check()
