"""Many cancels at once, beside a bare loop and the official SDKs.

One run: ``python -m tests.benchmarks.fan_out CANDIDATE AT_ONCE COUNT SECONDS BASE_URL``. It ends after COUNT ids, or
begins no further ones after SECONDS.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from contextlib import ExitStack
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
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

_ENDLESS, _PLENTY = 60.0, 1_000_000
_GRACE_SECONDS = 8.0
"""What is under way at the end has so long to end; the official SDK at 2,000 at once takes longer."""
_CONCURRENCIES = (1, 10, 100, 500, 2_000)
_LATENCIES = (0, 50, 200)


class Tally:
    """How many ids have had their answer."""

    done = 0


async def bare(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """A loop over aiohttp that does the same posts, reads the answers and looks at nothing else."""
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def cancel(job_id: str) -> None:
            async with session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                await response.read()
                assert response.status == 200, response.status

        await workers(cancel, ids, at_once, tally)


async def ours(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """``cancel_many``, which gives a report with every job in it."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=at_once)
    assert report.ok, report
    tally.done = len(report)


async def together(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """The official SDK, in a loop of as many workers."""
    from together import AsyncTogether

    async with AsyncTogether(api_key=KEY, base_url=origin(base_url)) as client:
        await workers(client.batches.cancel, ids, at_once, tally)


async def openai(ids: Iterable[str], at_once: int, base_url: str, tally: Tally) -> None:
    """The SDK of OpenAI, whose path is the same, in a loop of as many workers."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=KEY, base_url=base_url) as client:
        await workers(client.batches.cancel, ids, at_once, tally)


async def workers(call: Callable[[str], Awaitable[object]], ids: Iterable[str], at_once: int, tally: Tally) -> None:
    """Call for each id, so many at once."""
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


def _measure(plan: Plan) -> Iterator[Sample]:
    peers = present("bare", "together", "openai")
    far = LUA.missing()
    if far:
        print(f"  50 ms away is left out: {far}")
    many, seconds = (5_000, 1.0) if plan.quick else (20_000, 2.0)
    with ExitStack() as stack:
        near_url = stack.enter_context(fast_server())
        runs = [(name, 100, 0, near_url, many, _ENDLESS) for name in ("ours", "bare")]
        runs += [(name, 100, 0, near_url, _PLENTY, seconds) for name in ("ours", *peers)]
        runs += [
            (name, at_once, 0, near_url, many, _ENDLESS) for at_once in (500, 2_000) for name in ("ours", "bare")
        ]
        if not far:
            far_url = stack.enter_context(fast_server(latency=0.05))
            runs += [(name, 400, 50, far_url, _PLENTY, seconds) for name in ("ours", *peers)]
        for name, at_once, latency, url, count, limit in in_turn(plan.rounds, runs):
            yield _run(name, at_once, latency, url, count=count, seconds=limit)


def _judge(samples: Samples) -> list[Line]:
    timed = Samples([sample for sample in samples.all if sample.setting["count"] == _PLENTY])
    counted = Samples([sample for sample in samples.all if sample.setting["count"] != _PLENTY])

    def beside(peer: str, at_once: int, latency: int) -> list[float]:
        return ratios(timed, "ours", peer, "rate", at_once=at_once, latency=latency)

    def wider(name: str) -> list[float]:
        rates = [counted.of(name, at_once=at_once).values("rate") for at_once in (2_000, 500)]
        return [most / many for most, many in zip(*rates, strict=True)]

    near, far = "100 at once", "400 at once, 50 ms away"
    return lines(
        (f"{near}: CPU of a call, ours", counted.of("ours", at_once=100).values("cpu_us"), "µs", None),
        (
            f"{near}: CPU of a call, ours / bare aiohttp",
            ratios(counted, "ours", "bare", "cpu_us", at_once=100),
            "×",
            Bar("≤", 1.25),
        ),
        (f"{near}: jobs a second, ours", timed.of("ours", at_once=100, latency=0).values("rate"), "/s", None),
        (f"{near}: jobs a second, ours / together", beside("together", 100, 0), "×", Bar("≥", 10)),
        (f"{near}: jobs a second, ours / openai", beside("openai", 100, 0), "×", None),
        (f"{far}: jobs a second, ours", timed.of("ours", at_once=400, latency=50).values("rate"), "/s", None),
        (f"{far}: jobs a second, ours / bare aiohttp", beside("bare", 400, 50), "×", None),
        (f"{far}: jobs a second, ours / together", beside("together", 400, 50), "×", Bar("≥", 30)),
        (f"{far}: jobs a second, ours / openai", beside("openai", 400, 50), "×", None),
        ("jobs a second, 2,000 at once / 500 at once, ours", wider("ours"), "×", Bar("≥", 0.95)),
        ("jobs a second, 2,000 at once / 500 at once, bare aiohttp", wider("bare"), "×", None),
    )


def _measure_grid(plan: Plan) -> Iterator[Sample]:
    names = ["ours", *present("bare", "together", "openai")]
    concurrencies, latencies = ((10, 500), (0, 50)) if plan.quick else (_CONCURRENCIES, _LATENCIES)
    for latency in in_turn(plan.few, latencies):
        with fast_server(latency=latency / 1e3) as base_url:
            for at_once, name in itertools.product(concurrencies, names):
                yield _run(name, at_once, latency, base_url, count=_PLENTY, seconds=1.0)


def _judge_grid(samples: Samples) -> list[Line]:
    told = []
    for latency, at_once in itertools.product(samples.settings("latency"), samples.settings("at_once")):
        for name in samples.candidates():
            rates = samples.of(name, latency=latency, at_once=at_once).values("rate")
            if rates:
                told.append(Line(f"{at_once:,} at once, {latency} ms away: {name}", rates, "/s"))
    return told


def _draw_grid(samples: Samples) -> Mapping[str, str]:
    """For each latency the jobs a second, above the CPU that one of them takes."""
    at_once = _plot.Axis("at once", samples.settings("at_once"), log=True)
    rates = _plot.Axis("jobs a second", (1, 10, 100, 1_000, 10_000), log=True)
    costs = _plot.Axis("µs of CPU for each", (100, 1_000, 10_000, 100_000), log=True)

    def panel(title: str, latency: float, figure: str, axis: _plot.Axis) -> _plot.Panel:
        curves = []
        for name in samples.candidates():
            runs = {n: samples.of(name, at_once=n, latency=latency) for n in at_once.ticks}
            points = [(n, _plot.middle(runs[n].values(figure))) for n in at_once.ticks]
            curves.append(_plot.Curve(name, points))
        return _plot.Panel(title, at_once, axis, curves)

    latencies = samples.settings("latency")
    above = [panel(f"{latency:g} ms away", latency, "rate", rates) for latency in latencies]
    below = [panel("", latency, "cpu_us", costs) for latency in latencies]
    title = "Jobs cancelled, by how many at once"
    return {"performance-throughput.svg": _plot.drawing(title, [*above, *below], columns=len(latencies))}


CASE = Case(
    "fan-out", "cancel jobs, many at once, of a server at hand and of one 50 ms away", _measure, _judge, [NGINX]
)
GRID = Case(
    "concurrency",
    "jobs cancelled a second, from 1 to 2,000 at once, 0, 50 and 200 ms away",
    _measure_grid,
    _judge_grid,
    [LUA],
    _draw_grid,
)


async def _within(seconds: float, work: Awaitable[None]) -> None:
    """Wait for the work to end, and give it up after so many seconds."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=seconds)
    if not task.cancel():
        task.result()
    await asyncio.wait([task])


def main() -> None:
    """Run it, and print what it took."""
    candidate, at_once, count, seconds, base_url = (
        sys.argv[1],
        *map(int, sys.argv[2:4]),
        float(sys.argv[4]),
        sys.argv[5],
    )
    cancel = {"bare": bare, "ours": ours, "together": together, "openai": openai}[candidate]
    # The first calls load modules, which is another case's business.
    asyncio.run(cancel(list(itertools.islice(job_ids(2), 20)), 10, base_url, Tally()))
    ids = list(itertools.islice(job_ids(), min(count, int(20_000 * seconds))))
    tally = Tally()

    def until(end: float) -> Iterator[str]:
        for job_id in ids:
            if time.perf_counter() > end:
                return
            yield job_id

    cpu, wall = time.process_time(), time.perf_counter()
    asyncio.run(_within(seconds + _GRACE_SECONDS, cancel(until(wall + seconds), at_once, base_url, tally)))
    tell({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "done": tally.done})


if __name__ == "__main__":
    main()
