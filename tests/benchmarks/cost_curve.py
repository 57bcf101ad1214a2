"""Time and memory for each id, from ten ids to a million.

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
    from collections.abc import Iterable, Iterator, Sequence

_AT_ONCE = 100
_WARM_UP = 2_000
_COUNTS = (10, 100, 1_000, 10_000, 100_000)
_FEW, _MILLION = 20_000, 1_000_000


async def iter_cancel(ids: Iterable[str], base_url: str) -> int:
    """Iterate over the outcomes, with ids that are generated on demand."""
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
    """Return a report that holds every outcome."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=_AT_ONCE)
        return len(report) - len(report.failures)


async def gather(ids: Iterable[str], base_url: str) -> int:
    """Run a common solution: a task for each id over bare aiohttp, and a semaphore."""
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    turns = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def cancel(job_id: str) -> bool:
            async with turns, session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                await response.read()
                return response.status == 200

        return sum(await asyncio.gather(*[cancel(job_id) for job_id in ids]))


def _measured(runs: Sequence[tuple[str, int]], rounds: int) -> Iterator[Sample]:
    with fast_server() as base_url:
        for name, count in in_turn(rounds, runs):
            figures = run_module("tests.benchmarks.cost_curve", name, count, base_url)
            per_id = {"id_us": 1e6 * figures["wall"] / count, "memory": figures["memory"]}
            yield Sample(name, {"count": count}, per_id)


def _measure(plan: Plan) -> Iterator[Sample]:
    counts = _COUNTS[:-2] if plan.quick else _COUNTS
    return _measured(list(itertools.product(("iter_cancel", "cancel_many", "gather"), counts)), plan.few)


def _judge(samples: Samples) -> list[Line]:
    judged: list[Line] = []
    for count, name in itertools.product(samples.settings("count"), samples.candidates()):
        judged += lines(
            (f"{count:,} ids, {name}: memory above idle", samples.of(name, count=count).values("memory"), "MB", None)
        )
    return judged


def _measure_million(plan: Plan) -> Iterator[Sample]:
    return _measured([("iter_cancel", _FEW), ("iter_cancel", _FEW if plan.quick else _MILLION)], plan.few)


def _judge_million(samples: Samples) -> list[Line]:
    first, last = (samples.of("iter_cancel", count=count) for count in (_FEW, _MILLION))
    times, memory = (list(zip(last.values(name), first.values(name), strict=False)) for name in ("id_us", "memory"))
    grown = [most - few for most, few in memory]
    return lines(
        ("memory above idle, 1,000,000 ids", last.values("memory"), "MB", None),
        ("memory, 1,000,000 ids - 20,000 ids", grown, "MB", Bar("≤", 8, each=True)),
        ("time of an id, 1,000,000 ids", last.values("id_us"), "µs", None),
        ("time of an id, 1,000,000 ids / 20,000 ids", [most / few for most, few in times], "×", Bar("≤", 1.10)),
    )


def _draw(samples: Samples) -> str:
    counts = _plot.Axis("ids", [count for count in samples.settings("count") if count != _FEW], log=True)
    axes = {
        "memory": _plot.Axis("MB above idle", (0.1, 1, 10, 100, 1_000), log=True),
        "id_us": _plot.Axis("µs for each", (10, 100, 1_000, 10_000), log=True),
    }
    panels = []
    for figure, axis in axes.items():
        curves = []
        for name in samples.candidates():
            runs = {count: samples.of(name, count=count) for count in counts.ticks}
            points = [(count, _plot.middle(runs[count].values(figure))) for count in counts.ticks]
            curves.append(_plot.Curve(name, points))
        panels.append(_plot.Panel("", counts, axis, curves, named_at_ends=figure == "memory"))
    return _plot.drawing("Memory and time, by how many ids there are", panels, columns=2)


CASE = Case(
    "cost-curve",
    f"cancel 10 to 100,000 jobs, {_AT_ONCE} at once",
    _measure,
    _judge,
    [NGINX],
    _draw,
    drawn_with=["million"],
)
MILLION = Case("million", "a million jobs through iter_cancel", _measure_million, _judge_million, [NGINX])


async def _run(candidate: str, count: int, base_url: str) -> None:
    cancel = {"iter_cancel": iter_cancel, "cancel_many": cancel_many, "gather": gather}[candidate]
    await cancel(itertools.islice(job_ids(2), _WARM_UP), base_url)
    idle, began = forget_peak(), time.perf_counter()
    done = await cancel(itertools.islice(job_ids(), count), base_url)
    figures = {"wall": time.perf_counter() - began, "memory": peak_mb() - idle}
    assert done == count, done
    tell(figures)


def main() -> None:
    """Run one candidate and print its figures."""
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))


if __name__ == "__main__":
    main()
