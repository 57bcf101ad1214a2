"""Following of jobs: each is read when it is due, and early if that saves a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wires import in_virtual_time

from together_batches._jobs.poller import Poller
from together_batches._jobs.tasks import plain_group

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> float:
    return asyncio.get_running_loop().time()


class Reads:
    """The reads of a poller, with their times. A job is read again after the seconds in ``again``, or done."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self.began = now()
        self.again: dict[str, list[float]] = {}
        self.made: list[tuple[float, list[str]]] = []
        self.poller = Poller(self.read, clock=now, sleep=asyncio.sleep, pause=pause)

    async def read(self, names: list[str]) -> None:
        self.made.append((round(now() - self.began, 2), names))
        for name in names:
            pauses = self.again.get(name)
            if pauses:
                self.poller.schedule(name, pauses.pop(0))
            else:
                self.poller.remove(name)

    async def run(self, more: Callable[[], bool] = lambda: False) -> list[tuple[float, list[str]]]:
        async with plain_group() as group:
            await self.poller.run(group, more=more)
        return self.made


@in_virtual_time
async def test_each_job_is_read_when_it_is_due() -> None:
    """Each job is read at its own time, and again at the time that the read decided, until none is left."""
    reads = Reads()
    reads.again = {"a": [5]}
    reads.poller.schedule("a", 1)
    reads.poller.schedule("b", 3)
    assert await reads.run() == [(1, ["a"]), (3, ["b"]), (6, ["a"])]


@in_virtual_time
async def test_a_job_may_be_read_early_together_with_others() -> None:
    """A job is read early if others are due, but never on its own, and not before its time allows."""
    reads = Reads()
    reads.poller.schedule("a", 10)
    reads.poller.schedule("b", 12, early=3)
    reads.poller.schedule("c", 14, early=3)
    assert await reads.run() == [(10, ["a", "b"]), (14, ["c"])]


@in_virtual_time
async def test_reads_are_apart() -> None:
    """With a pause, what becomes due shortly after a read is read together once the pause is over."""
    reads = Reads(pause=2)
    for number, name in enumerate("abc"):
        reads.poller.schedule(name, 1 + number / 2)
    assert await reads.run() == [(1, ["a"]), (3, ["b", "c"])]


@in_virtual_time
async def test_a_job_that_comes_later_may_be_due_earlier() -> None:
    """A job that is scheduled while the poller rests ends the rest if it is due earlier."""
    reads = Reads()
    reads.poller.schedule("a", 100)
    task = asyncio.create_task(reads.run())
    await asyncio.sleep(1)
    reads.poller.schedule("b", 1)
    assert await task == [(2, ["b"]), (100, ["a"])]


@in_virtual_time
async def test_it_runs_as_long_as_jobs_may_come() -> None:
    """Without jobs the poller rests until it is woken, and ends once no further ones will come."""
    reads = Reads()
    open_ = True
    task = asyncio.create_task(reads.run(lambda: open_))
    await asyncio.sleep(50)
    reads.poller.schedule("a", 0)
    await asyncio.sleep(50)
    assert not task.done()
    open_ = False
    reads.poller.wake()
    assert await task == [(50, ["a"])]


@in_virtual_time
async def test_all_are_read_at_a_given_time() -> None:
    """At the time for all jobs each is read, whenever it is due, and once."""
    reads = Reads()
    reads.again = {"a": [50]}
    reads.poller.schedule("a", 100)
    reads.poller.schedule("b", 200)
    reads.poller.read_all_at(now() + 10)
    assert await reads.run() == [(10, ["a", "b"]), (60, ["a"])]


@in_virtual_time
async def test_a_cancelled_poller_leaves_nothing_running() -> None:
    """A poller that is cancelled while it rests ends at once, with the task that rests."""
    reads = Reads()
    reads.poller.schedule("a", 1_000)
    task = asyncio.create_task(reads.run())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert now() - reads.began < 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
