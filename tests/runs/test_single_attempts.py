"""Single attempts, driven by a stand-in for an engine for workflows that keeps records as JSON, and may be killed."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from together_batches import (
    BatchRequest,
    jsonl,
    runs,
    to_dict,
)
from together_batches.runs import rules

from .small_service import NOON, KilledError, Life, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from together_batches import AsyncBatches
    from together_batches.runs import Attempt, Shard
    from together_batches.runs._context import RunApi


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

    def cut(self, content: bytes, max_rows: int) -> None:
        self.storage.files["in"] = content
        self.shards = runs.shards(self.source, max_rows_per_job=max_rows)

    def source(self) -> io.BytesIO:
        return self.storage.open_to_read("in")

    def next(self, shard: Shard) -> Attempt | None:
        return rules.next_attempt(shard, self.storage.attempts(shard), max_attempts=3, now=NOON)

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
        rows = runs.rows(self.source, shard, earlier)
        return await runs.begin(
            self.batches,
            attempt,
            rows,
            save=self.storage.save,
            earlier=earlier,
            identity=self.identity,
            **self.options,
        )

    async def collect(self, shard: Shard, attempt: Attempt, **options: Any) -> Attempt:
        earlier = self.storage.attempts(shard)[: attempt.number - 1]
        return await runs.collect(
            self.batches,
            attempt,
            runs.rows(self.source, shard, earlier),
            partial(self.storage.open_to_write, piece_of(attempt)),
            scratch_directory=self.scratch,
            save=self.storage.save,
            earlier=earlier,
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
        self.drive.cut(b"".join(line + b"\n" for line in lines), 3)
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


@pytest.mark.timeout(300)  # as many lives as there are steps
@pytest.mark.parametrize("identity", ["run 7", None])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
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
