"""What an id costs, in time and in memory, from ten ids to a million.

One run: ``python -m tests.benchmarks.cost_curve CANDIDATE COUNT BASE_URL``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import TYPE_CHECKING

from tests.benchmarks import _plot
from tests.benchmarks._client import KEY, forget_peak, job_ids, peak_mb, tell
from tests.benchmarks._measure import NGINX, Bar, Case, Line, Plan, Sample, Samples, in_turn, lines, run_module
from tests.benchmarks._server import fast_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_AT_ONCE = 100
_WARM_UP = 2_000
_COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
_MOST_HELD = 100_000
"""Who holds all ids is asked for no more."""


async def iter_cancel(ids: Iterable[str], base_url: str) -> int:
    """One outcome after another, out of ids that are made as they are taken."""
    from together_batches import AsyncBatches

    done = 0
    async with (
        AsyncBatches(KEY, base_url=base_url) as batches,
        batches.iter_cancel(ids, max_concurrency=_AT_ONCE) as outcomes,
    ):
        async for outcome in outcomes:
            done += outcome.error is None
    return done


async def cancel_many(ids: Iterable[str], base_url: str) -> int:
    """A report that holds every outcome."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=_AT_ONCE)
        return len(report) - len(report.failures)


async def gather(ids: Iterable[str], base_url: str) -> int:
    """What is often written: a task for each id over bare aiohttp, and a semaphore."""
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    turns = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def cancel(job_id: str) -> bool:
            async with turns, session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                await response.read()
                return response.status == 200

        return sum(await asyncio.gather(*[cancel(job_id) for job_id in ids]))


def _measure(plan: Plan) -> Iterator[Sample]:
    most = 10_000 if plan.quick else _COUNTS[-1]
    runs = [
        (name, count)
        for name in ("iter_cancel", "cancel_many", "gather")
        for count in _COUNTS
        if count <= (most if name == "iter_cancel" else min(most, _MOST_HELD))
    ]
    with fast_server() as base_url:
        for name, count in in_turn(plan.few, runs):
            figures = run_module("tests.benchmarks.cost_curve", name, count, base_url)
            per_id = {"id_us": 1e6 * figures["wall"] / count, "memory": figures["memory"]}
            yield Sample(name, {"count": count}, per_id)


def _judge(samples: Samples) -> list[Line]:
    told: list[Line] = []
    for count in samples.settings("count"):
        runs = samples.of("iter_cancel", count=count)
        told += lines(
            (f"{count:,} ids, iter_cancel: memory above idle", runs.values("memory"), "MB", None),
            (f"{count:,} ids, iter_cancel: time of an id", runs.values("id_us"), "µs", None),
        )
    for name in ("cancel_many", "gather"):
        held = samples.of(name, count=_MOST_HELD).values("memory")
        told += lines((f"{_MOST_HELD:,} ids, {name}: memory above idle", held, "MB", None))
    first, last = (samples.of("iter_cancel", count=count) for count in (_MOST_HELD, _COUNTS[-1]))
    times, grown = (list(zip(last.values(name), first.values(name), strict=False)) for name in ("id_us", "memory"))
    of, to = f"{_COUNTS[-1]:,} ids", f"{_MOST_HELD:,} ids"
    told += lines(
        (f"iter_cancel: time of an id, {of} / {to}", [most / few for most, few in times], "×", Bar("≤", 1.10)),
        (f"iter_cancel: memory, {of} - {to}", [most - few for most, few in grown], "MB", Bar("≤", 8, each=True)),
    )
    return told


def _draw(samples: Samples) -> Mapping[str, str]:
    counts = _plot.Axis("ids", samples.settings("count"), log=True)
    panels = [
        _plot.Panel(
            title, counts, axis, [_curve(samples, name, figure, counts.ticks) for name in samples.candidates()]
        )
        for title, figure, axis in (
            ("Memory above idle", "memory", _plot.Axis("MB", (0.1, 1, 10, 100, 1_000), log=True)),
            ("Time of an id", "id_us", _plot.Axis("µs", (10, 100, 1_000, 10_000), log=True)),
        )
    ]
    return {"performance-memory.svg": _plot.drawing("What an id costs, by how many ids there are", panels, columns=2)}


def _curve(samples: Samples, name: str, figure: str, counts: Sequence[float]) -> _plot.Curve:
    return _plot.Curve(
        name, [(count, _plot.middle(samples.of(name, count=count).values(figure))) for count in counts]
    )


CASE = Case("cost-curve", f"cancel 10 to 1,000,000 jobs, {_AT_ONCE} at once", _measure, _judge, [NGINX], _draw)


async def _run(candidate: str, count: int, base_url: str) -> None:
    cancel = {"iter_cancel": iter_cancel, "cancel_many": cancel_many, "gather": gather}[candidate]
    await cancel(itertools.islice(job_ids(2), _WARM_UP), base_url)
    idle, began = forget_peak(), time.perf_counter()
    done = await cancel(itertools.islice(job_ids(), count), base_url)
    figures = {"wall": time.perf_counter() - began, "memory": peak_mb() - idle}
    assert done == count, done
    tell(figures)


def main() -> None:
    """Run it, and print what it took."""
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))


if __name__ == "__main__":
    main()
