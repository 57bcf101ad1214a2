"""Requests, records and memory of many shards, as Airflow would drive them: ``python tests/airflow/scale.py``.

Each shard is begun, waited for by one follower together with all others, and collected, by the code that the tasks
run, against the emulator over HTTP. Airflow itself is not needed. Each line is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import tracemalloc
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from test_shard import Entries, Local

from together_batches import AsyncBatches, BatchJob, jsonl
from together_batches.airflow._shard import Finished, ShardWork, Waiting, Work
from together_batches.airflow._state import TaskLedger
from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ROWS = 2
INTERVAL = 2.0
INTERVALS = 5
_LOG = logging.getLogger("scale")


class Task:
    """The task of one shard."""

    def __init__(self, number: int, place: Path) -> None:
        requests = (
            jsonl.encode(jsonl.chat_request(f"row-{number}-{row}", model="m", messages=[])) for row in range(ROWS)
        )
        self.entries = Entries()
        self.place = place / str(number)
        self.place.mkdir()
        self._work = Work(
            identity=f"dag/run/shards/{number}",
            source=partial(BytesIO, b"".join(requests)),
            source_name="requests",
            results=Local(self.place / "answers.jsonl"),
            pieces=Local(self.place / "run"),
        )

    async def step(self, client: AsyncBatches, *, is_new: bool) -> Any:
        """Do what one process of the task does."""
        shard = ShardWork(
            self._work,
            client,
            TaskLedger(self.entries),
            scratch=self.place,
            now=partial(datetime.now, UTC),
            log=_LOG,
        )
        return await (shard.begin() if is_new else shard.go_on())

    @property
    def record_bytes(self) -> int:
        """Size of the records in the metadata database."""
        return sum(map(len, self.entries.written.values()))


async def _all(count: int, work: Callable[[int], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Do something for each shard, a few at a time."""
    places = asyncio.Semaphore(32)

    async def one(number: int) -> Any:
        async with places:
            return await work(number)

    return await asyncio.gather(*map(one, range(count)))


async def measure(count: int) -> dict[str, float]:
    """Return the figures of so many shards."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Emulator(timing=Timing(validating=0, running=7200)).running_in_thread() as service,
    ):
        tasks = [Task(number, Path(directory)) for number in range(count)]
        async with AsyncBatches(service.api_key, base_url=service.base_url) as client:
            waiting = await _all(count, lambda number: tasks[number].step(client, is_new=True))
            assert all(isinstance(outcome, Waiting) for outcome in waiting)
            begun = len(service.requests)
        async with AsyncBatches(service.api_key, base_url=service.base_url) as client:
            tracemalloc.start()
            async with client.follower(poll_interval=INTERVAL) as follower:
                before = tracemalloc.get_traced_memory()[0]
                ends = [asyncio.ensure_future(follower.ended(BatchJob(id=outcome.job_id))) for outcome in waiting]
                await asyncio.sleep(INTERVAL * INTERVALS)
                polls = len(service.requests) - begun
                held = tracemalloc.get_traced_memory()[0] - before
                service.advance(3 * 7200)
                await asyncio.gather(*ends)
            tracemalloc.stop()
        followed = len(service.requests)
        async with AsyncBatches(service.api_key, base_url=service.base_url) as client:
            finished = await _all(count, lambda number: tasks[number].step(client, is_new=False))
            assert all(isinstance(outcome, Finished) for outcome in finished)
        assert service.count("create") == len(service.jobs) == count
        return {
            "shards": count,
            "requests of a shard": (begun + len(service.requests) - followed) / count,
            "requests while waiting": polls / INTERVALS,
            "memory of a wait, KB": held / count / 1000,
            "records of a shard, bytes": sum(task.record_bytes for task in tasks) / count,
        }


def main() -> None:
    """Measure each size in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asyncio.run(measure(given.one))))
        return
    for place, count in enumerate(given.shards):
        ended = subprocess.run(
            [sys.executable, __file__, "--one", str(count)], stdout=subprocess.PIPE, text=True, check=True
        )
        figures = json.loads(ended.stdout)
        if not place:
            print("|", " | ".join(figures), "|\n|", "|".join("---:" for _ in figures), "|")
        print("|", " | ".join(f"{value:,.1f}".removesuffix(".0") for value in figures.values()), "|", flush=True)


if __name__ == "__main__":
    main()
