"""More cancels than the service allows, while it also fails now and then.

One run: ``python -m tests.benchmarks.flood CANDIDATE COUNT AT_ONCE BASE_URL ELSEWHERE``.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import attrs

from tests.benchmarks import _plot
from tests.benchmarks._client import KEY, job_ids, origin, tell
from tests.benchmarks._measure import (
    LUA,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    present,
    run_module,
)
from tests.benchmarks._server import BIN_SECONDS, Limit, limited_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_AT_ONCE = 100
_WINDOW_SECONDS = 0.5
_MOST_ATTEMPTS = 5


async def ours(ids: Sequence[str], at_once: int, base_url: str) -> int:
    """Run ``cancel_many``, with the default rate limiter and retries of a client."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=at_once)
    return len(ids) - len(report.failures)


async def together(ids: Sequence[str], at_once: int, base_url: str) -> int:
    """Run the official SDK with its default retries, in a loop of workers."""
    from together import AsyncTogether, TogetherError

    source, done = iter(ids), 0
    async with AsyncTogether(api_key=KEY, base_url=origin(base_url)) as client:

        async def work() -> None:
            nonlocal done
            for job_id in source:
                try:
                    await client.batches.cancel(job_id)
                except TogetherError:
                    continue
                done += 1

        await asyncio.gather(*[work() for _ in range(at_once)])
    return done


async def bare(ids: Sequence[str], at_once: int, base_url: str) -> int:
    """Run a typical hand-written loop: five attempts, each after a random wait that doubles."""
    import aiohttp

    source, done = iter(ids), 0
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def once(job_id: str) -> bool:
            try:
                async with session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                    await response.read()
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        async def work() -> None:
            nonlocal done
            for job_id in source:
                for attempt in range(_MOST_ATTEMPTS):
                    if await once(job_id):
                        done += 1
                        break
                    await asyncio.sleep(random.uniform(0, 0.5 * 2**attempt))

        await asyncio.gather(*[work() for _ in range(at_once)])
    return done


def _measure(limit: Limit, plan: Plan) -> Iterator[Sample]:
    count = 500 if plan.quick else 2_000
    peers = present("together", "bare")
    for candidate in itertools.chain(in_turn(plan.rounds, ["ours"]), in_turn(plan.few, peers)):
        yield flood(limit, candidate, count)


def flood(limit: Limit, candidate: str, count: int) -> Sample:
    """Run one candidate once."""
    with limited_server(limit) as server:
        figures = run_module("tests.benchmarks.flood", candidate, count, _AT_ONCE, server.base_url, server.elsewhere)
        counts = server.counts()
    sums = {name: sum(bins) for name, bins in counts.items()}
    perfect = limit.seconds_for(limit.calls_needed(itertools.islice(job_ids(), count)))
    figures = {
        "seconds": figures["wall"],
        "perfect_seconds": perfect,
        "lost_ids": count - figures["done"],
        "refused_share": sums["refused"] / sum(sums.values()),
        "needless": sums["needless"],
    }
    return Sample(candidate, {"count": count}, figures, counts)


def _judge(slowest: float, most_refused: float | None, samples: Samples) -> list[Line]:
    verdict: list[Line] = []
    none_lost, in_time = Bar("≤", 0, each=True), Bar("≤", slowest)
    few_refused = None if most_refused is None else Bar("≤", most_refused)
    for name in samples.candidates():
        runs, judged = samples.of(name), name == "ours"
        times = [run.figures["seconds"] / run.figures["perfect_seconds"] for run in runs.all]
        shares = [100 * share for share in runs.values("refused_share")]
        verdict += lines(
            (f"ids lost, {name}", runs.values("lost_ids"), "ids", none_lost if judged else None),
            (f"time / the limit's own, {name}", times, "×", in_time if judged else None),
            (f"calls refused, {name}", shares, "%", few_refused if judged else None),
        )
    return verdict


def _draw(limit: Limit, title: str, samples: Samples) -> str:
    """Draw the admitted calls, beside the share of refused calls, in the first run of each candidate."""
    runs = {name: samples.of(name).all[0] for name in samples.candidates()}
    seen = {name: windows(run.series) for name, run in runs.items()}
    longest = max(run.figures["seconds"] for run in runs.values())
    seconds = _plot.Axis("seconds", range(0, math.ceil(longest / 5) * 5 + 1, 5))
    allowed = _plot.Curve("limit", limit.drawn_until(seconds.ticks[-1]), dashed=True, dots=False)
    passed = [_over_time(name, [(each.middle, each.goodput) for each in of]) for name, of in seen.items()]
    refused = [_over_time(name, [(each.middle, 100 * each.refused) for each in of]) for name, of in seen.items()]
    rates, shares = _plot.Axis("jobs a second", (0, 100, 200, 300)), _plot.Axis("% of calls refused", (0, 25, 50, 75))
    panels = [
        _plot.Panel("", seconds, rates, [*passed, allowed], named_at_ends=False),
        _plot.Panel("", seconds, shares, refused, named_at_ends=False),
    ]
    return _plot.drawing(title, panels, columns=2)


def _over_time(name: str, points: Sequence[_plot.Point]) -> _plot.Curve:
    return _plot.Curve(name, points, dots=False)


@attrs.frozen
class Window:
    """Half a second of a run: its middle, jobs cancelled a second, and the share of calls that were refused."""

    middle: float
    goodput: float
    refused: float


def windows(counts: Mapping[str, Sequence[float]]) -> list[Window]:
    """Return the counts of the server in windows; a window without a call is omitted."""
    wide = round(_WINDOW_SECONDS / BIN_SECONDS)
    found = []
    for begin in range(0, max(map(len, counts.values())), wide):
        sums = {kind: sum(bins[begin : begin + wide]) for kind, bins in counts.items()}
        calls = sum(sums.values())
        if calls:
            middle = (begin + wide / 2) * BIN_SECONDS
            found.append(Window(middle, sums["goodput"] / _WINDOW_SECONDS, sums["refused"] / calls))
    return found


def _case(name: str, summary: str, limit: Limit, *, slowest: float, most_refused: float | None) -> Case:
    judge, draw = partial(_judge, slowest, most_refused), partial(_draw, limit, f"2,000 jobs cancelled, {summary}")
    return Case(name, f"cancel 2,000 jobs, {summary}", partial(_measure, limit), judge, [LUA], draw)


STEADY = _case("flood", "200 a second allowed", Limit(), slowest=1.25, most_refused=5)
ADVISED = _case(
    "flood-advised", "200 a second allowed, with Retry-After: 1", Limit(retry_after=1), slowest=1.25, most_refused=5
)
CHANGING = _case(
    "flood-changing",
    "200 a second allowed, then 100, then 200 again",
    Limit(steps=((0.0, 200.0), (3.0, 100.0), (8.0, 200.0))),
    slowest=1.4,
    most_refused=None,
)
FAR = _case("flood-far", "200 a second allowed, 50 ms away", Limit(latency=0.05), slowest=1.25, most_refused=5)


async def _run(candidate: str, count: int, at_once: int, base_url: str, elsewhere: str) -> None:
    cancel = {"ours": ours, "together": together, "bare": bare}[candidate]
    # The first calls load modules, which another case measures.
    await cancel(list(itertools.islice(job_ids(2), 10)), 10, elsewhere)
    ids = list(itertools.islice(job_ids(), count))
    began = time.perf_counter()
    done = await cancel(ids, at_once, base_url)
    tell({"wall": time.perf_counter() - began, "done": done})


def main() -> None:
    """Run one candidate and print its figures."""
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))


if __name__ == "__main__":
    main()
