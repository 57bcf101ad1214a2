"""Many concurrent cancels, beside a bare loop and the official SDKs.

One run: ``python -m tests.benchmarks.fan_out CANDIDATE AT_ONCE COUNT SECONDS BASE_URL``. It ends after COUNT ids, or
starts no more after SECONDS.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import _plot
from tests.benchmarks._client import KEY, job_ids, origin, tell
from tests.benchmarks._measure import (
    LUA,
    NGINX,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    present,
    ratios,
    run_module,
)
from tests.benchmarks._server import fast_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

_ENDLESS, _PLENTY = 60.0, 1_000_000
_GRACE_SECONDS = 4.0
"""Maximum seconds for calls in flight at the end; the official SDK at 2,000 at once takes longer."""
_QUICKLY_OPENED = 100
"""Maximum number of connections that open within a fraction of a second; runs with more are longer."""
_CONCURRENCIES = (1, 10, 100, 500, 2_000)
_PAIRS_IN_A_ROUND = 4
"""Pairs of runs in a round: the CPU time of two runs may differ by a third on a busy machine, the median hardly."""


class Tally:
    """Number of ids that have been answered."""

    done = 0


async def bare(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """Run a loop over aiohttp that sends the same posts, reads the responses and does nothing else."""
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def cancel(job_id: str) -> None:
            async with session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                await response.read()
                assert response.status == 200, response.status

        await workers(cancel, ids, at_once, tally)


async def ours(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """Run ``cancel_many``, which returns a report with every job."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=at_once)
    assert report.ok, report
    tally.done = len(report)


async def together(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """Run the official SDK, in a loop of ``at_once`` workers."""
    from together import AsyncTogether

    async with AsyncTogether(api_key=KEY, base_url=origin(base_url)) as client:
        await workers(client.batches.cancel, ids, at_once, tally)


async def openai(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """Run the SDK of OpenAI, whose path is the same, in a loop of ``at_once`` workers."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=KEY, base_url=base_url) as client:
        await workers(client.batches.cancel, ids, at_once, tally)


async def workers(call: Callable[[str], Awaitable[object]], ids: Iterable[str], at_once: int, tally: Tally) -> None:
    """Call for each id, with at most ``at_once`` concurrent calls."""
    source = iter(ids)

    async def work() -> None:
        for job_id in source:
            await call(job_id)
            tally.done += 1

    await asyncio.gather(*[work() for _ in range(at_once)])


def _run(candidate: str, at_once: int, latency: int, base_url: str, *, count: int, seconds: float) -> Sample:
    figures = run_module("tests.benchmarks.fan_out", candidate, at_once, count, seconds, base_url)
    per_id = {"rate": figures["done"] / figures["wall"]}
    if figures["done"]:
        per_id["cpu_us"] = 1e6 * figures["cpu"] / figures["done"]
    return Sample(candidate, {"at_once": at_once, "latency": latency, "count": count}, per_id)


def _measure_near(plan: Plan) -> Iterator[Sample]:
    many, seconds = (5_000, 1.0) if plan.quick else (20_000, 3.0)
    peers = present("bare", "together", "openai")
    with fast_server() as base_url:
        runs = _PAIRS_IN_A_ROUND * [(name, many, _ENDLESS) for name in ("ours", "bare")]
        runs += [(name, _PLENTY, seconds) for name in ("ours", *peers)]
        for name, count, limit in in_turn(plan.rounds, runs):
            yield _run(name, 100, 0, base_url, count=count, seconds=limit)


def _judge_near(samples: Samples) -> list[Line]:
    timed = Samples([sample for sample in samples.all if sample.setting["count"] == _PLENTY])
    counted = Samples([sample for sample in samples.all if sample.setting["count"] != _PLENTY])
    return lines(
        ("CPU of a call, ours", counted.of("ours").values("cpu_us"), "µs", None),
        ("CPU of a call, ours / bare", ratios(counted, "ours", "bare", "cpu_us"), "×", Bar("≤", 1.05)),
        *_rates(timed, Bar("≥", 10)),
    )


def _measure_far(plan: Plan) -> Iterator[Sample]:
    names = ["ours", *present("bare", "together", "openai")]
    with fast_server(latency=0.05) as base_url:
        for name in in_turn(plan.rounds, names):
            yield _run(name, 400, 50, base_url, count=_PLENTY, seconds=1.0 if plan.quick else 3.0)


def _judge_far(samples: Samples) -> list[Line]:
    return lines(*_rates(samples, Bar("≥", 30)))


def _measure_wide(plan: Plan) -> Iterator[Sample]:
    runs = list(itertools.product(("ours", "bare"), (500, 2_000)))
    with fast_server() as base_url:
        for name, at_once in in_turn(2 * plan.rounds, runs):
            yield _run(name, at_once, 0, base_url, count=5_000 if plan.quick else 30_000, seconds=_ENDLESS)


def _judge_wide(samples: Samples) -> list[Line]:
    wider = {}
    for name in samples.candidates():
        few, many = (samples.of(name, at_once=at_once).values("rate") for at_once in (500, 2_000))
        wider[name] = [most / less for most, less in zip(many, few, strict=True)]
    return lines(
        ("jobs a second at 2,000 at once, ours", samples.of("ours", at_once=2_000).values("rate"), "/s", None),
        ("jobs a second, 2,000 at once / 500 at once, ours", wider["ours"], "×", Bar("≥", 0.95)),
        ("jobs a second, 2,000 at once / 500 at once, bare", wider["bare"], "×", None),
    )


def _rates(samples: Samples, bar: Bar) -> Iterator[tuple[str, list[float], str, Bar | None]]:
    """Yield our jobs a second, and those of each peer, with the bar relative to the official SDK."""
    yield "jobs a second, ours", samples.of("ours").values("rate"), "/s", None
    for peer in ("bare", "together", "openai"):
        beside = ratios(samples, "ours", peer, "rate")
        yield f"jobs a second, ours / {peer}", beside, "×", bar if peer == "together" else None


def _measure_grid(latency: int, plan: Plan) -> Iterator[Sample]:
    names = ["ours", *present("bare", "together", "openai")]
    with fast_server(latency=latency / 1e3) as base_url:
        for at_once, name in in_turn(plan.few, list(itertools.product(_CONCURRENCIES, names))):
            seconds = 0.5 if plan.quick else 2.0 if at_once > _QUICKLY_OPENED else 1.0
            yield _run(name, at_once, latency, base_url, count=_PLENTY, seconds=seconds)


def _judge_grid(samples: Samples) -> list[Line]:
    of_each = itertools.product(samples.settings("at_once"), samples.candidates())
    return lines(
        *((f"{n:,} at once: {name}", samples.of(name, at_once=n).values("rate"), "/s", None) for n, name in of_each)
    )


def _draw_grid(latency: int, samples: Samples) -> str:
    """Draw the jobs a second, beside the CPU time of one job."""
    at_once = _plot.Axis("at once", samples.settings("at_once"), log=True)
    axes = {
        "rate": _plot.Axis("jobs a second", (1, 10, 100, 1_000, 10_000), log=True),
        "cpu_us": _plot.Axis("µs of CPU for a job", (10, 100, 1_000, 10_000, 100_000), log=True),
    }
    panels = []
    for figure, axis in axes.items():
        curves = []
        for name in samples.candidates():
            runs = {n: samples.of(name, at_once=n) for n in at_once.ticks}
            curves.append(_plot.Curve(name, [(n, _plot.middle(runs[n].values(figure))) for n in at_once.ticks]))
        panels.append(_plot.Panel("", at_once, axis, curves))
    return _plot.drawing(f"Jobs cancelled, {latency} ms away", panels, columns=2)


NEAR = Case("fan-out", "cancel jobs, 100 at once", _measure_near, _judge_near, [NGINX])
FAR = Case("fan-out-far", "cancel jobs, 400 at once, 50 ms away", _measure_far, _judge_far, [LUA])
WIDE = Case("fan-out-wide", "cancel 30,000 jobs, 500 and 2,000 at once", _measure_wide, _judge_wide, [NGINX])
GRID = [
    Case(
        f"concurrency-{latency}",
        f"jobs cancelled a second, from 1 to 2,000 at once, {latency} ms away",
        partial(_measure_grid, latency),
        _judge_grid,
        [LUA if latency else NGINX],
        partial(_draw_grid, latency),
    )
    for latency in (0, 50, 200)
]


async def _timed(work: Awaitable[None], seconds: float, tally: Tally) -> None:
    """Print the figures of the work; after ``seconds``, abandon it and exit the process."""
    cpu, wall = time.process_time(), time.perf_counter()
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=seconds)
    tell({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "done": tally.done})
    if not task.done():
        sys.stdout.flush()
        os._exit(0)  # some SDKs take far too long to cancel two thousand calls properly
    task.result()


def main() -> None:
    """Run one candidate and print its figures."""
    candidate, at_once, count, seconds, base_url = (
        sys.argv[1],
        *map(int, sys.argv[2:4]),
        float(sys.argv[4]),
        sys.argv[5],
    )
    cancel = {"bare": bare, "ours": ours, "together": together, "openai": openai}[candidate]
    # The first calls load modules, which another case measures.
    asyncio.run(cancel(list(itertools.islice(job_ids(2), 20)), 10, base_url, Tally()))
    ids = list(itertools.islice(job_ids(), min(count, int(20_000 * seconds))))
    tally, end = Tally(), time.perf_counter() + seconds

    def until_the_end() -> Iterator[str]:
        for job_id in ids:
            if time.perf_counter() > end:
                return
            yield job_id

    work = cancel(until_the_end(), at_once, base_url, tally)
    asyncio.run(_timed(work, seconds + _GRACE_SECONDS, tally))


if __name__ == "__main__":
    main()
