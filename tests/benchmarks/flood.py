"""The flood: cancel more than a service allows, that also fails now and then.

One run: ``python -m tests.benchmarks.flood CANDIDATE COUNT AT_ONCE BASE_URL ELSEWHERE``.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
import time
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
_STEADY = Limit()
_LIMITS = {
    "steady": _STEADY,
    "steady, with Retry-After": Limit(retry_after=1),
    "halved, then doubled": Limit(steps=((0.0, 200.0), (3.0, 100.0), (8.0, 200.0))),
    "steady, 50 ms away": Limit(latency=0.05),
}
_WINDOW_SECONDS = 0.5
_DRAWN = ("steady", "halved, then doubled")
_PEERS_MEET = ("steady", "steady, with Retry-After", "halved, then doubled")
_MOST_ATTEMPTS = 5

_NONE_LOST = Bar("≤", 0, each=True)
_NO_BARS: tuple[Bar | None, Bar | None, Bar | None] = (None, None, None)
_BARS: dict[str, tuple[Bar | None, Bar | None, Bar | None]] = {
    "steady": (_NONE_LOST, Bar("≤", 1.25), Bar("≤", 5)),
    "steady, with Retry-After": (_NONE_LOST, Bar("≤", 1.25), Bar("≤", 5)),
    "halved, then doubled": (_NONE_LOST, Bar("≤", 1.4), None),
}
"""What is lost, the time and what is refused, of ours."""


async def ours(ids: Sequence[str], at_once: int, base_url: str) -> int:
    """``cancel_many``, with the brake and the retries that a client has unless told otherwise."""
    from together_batches import AsyncBatches

    async with AsyncBatches(KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=at_once)
    return len(ids) - len(report.failures)


async def together(ids: Sequence[str], at_once: int, base_url: str) -> int:
    """The official SDK with the retries that it has unless told otherwise, in a loop of workers."""
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
    """The loop that everybody writes: five attempts, each after a random wait that doubles."""
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


def _measure(plan: Plan) -> Iterator[Sample]:
    count = 500 if plan.quick else 2_000
    kinds = [("steady", "ours")] if plan.quick else [(kind, "ours") for kind in _LIMITS]
    peers = [(kind, peer) for kind, _ in kinds if kind in _PEERS_MEET for peer in present("together", "bare")]
    for kind, candidate in itertools.chain(in_turn(plan.rounds, kinds), in_turn(plan.few, peers)):
        yield flood(kind, candidate, count)


def flood(kind: str, candidate: str, count: int) -> Sample:
    """One run against one kind of limit."""
    limit = _LIMITS[kind]
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
    return Sample(candidate, {"kind": kind, "count": count}, figures, counts)


def _judge(samples: Samples) -> list[Line]:
    told: list[Line] = []
    for kind, candidate in itertools.product(_LIMITS, samples.candidates()):
        name, runs = f"{kind}: {candidate}", samples.of(candidate, kind=kind)
        times = [run.figures["seconds"] / run.figures["perfect_seconds"] for run in runs.all]
        shares = [100 * share for share in runs.values("refused_share")]
        lost, time_bar, refused = _BARS.get(kind, _NO_BARS) if candidate == "ours" else _NO_BARS
        told += lines(
            (f"{name}, ids lost", runs.values("lost_ids"), "ids", lost),
            (f"{name}, time / the limit's own", times, "×", time_bar),
            (f"{name}, calls refused", shares, "%", refused),
        )
    return told


def _draw(samples: Samples) -> Mapping[str, str]:
    """For each kind of limit what got through, above what was refused, in the first run of each candidate."""
    kinds = {kind: _firsts(samples, kind) for kind in _DRAWN}
    longest = max((run.figures["seconds"] for runs in kinds.values() for run in runs.values()), default=0)
    seconds = _plot.Axis("seconds", range(0, math.ceil(longest / 5) * 5 + 1, 5))
    rates = _plot.Axis("jobs a second", (0, 100, 200, 300))
    shares = _plot.Axis("% of the calls refused", (0, 25, 50, 75, 100))
    above, below = [], []
    for kind, runs in kinds.items():
        seen = {name: windows(run.series) for name, run in runs.items()}
        passed = [_over_time(name, [(each.middle, each.goodput) for each in of]) for name, of in seen.items()]
        limit = _plot.Curve("limit", _LIMITS[kind].drawn_until(seconds.ticks[-1]), dashed=True, dots=False)
        above.append(_plot.Panel(kind.capitalize(), seconds, rates, [*passed, limit], named_at_ends=False))
        refused = [_over_time(name, [(each.middle, 100 * each.refused) for each in of]) for name, of in seen.items()]
        below.append(_plot.Panel("", seconds, shares, refused, named_at_ends=False))
    title = "2,000 jobs cancelled under a limit of the service"
    return {"performance-flood.svg": _plot.drawing(title, [*above, *below], columns=len(kinds))}


def _firsts(samples: Samples, kind: str) -> dict[str, Sample]:
    found = {name: samples.of(name, kind=kind).all for name in samples.candidates()}
    return {name: runs[0] for name, runs in found.items() if runs}


def _over_time(name: str, points: Sequence[_plot.Point]) -> _plot.Curve:
    return _plot.Curve(name, points, dots=False)


@attrs.frozen
class Window:
    """Half a second of a flood: its middle, jobs cancelled a second, and the share of the calls that was refused."""

    middle: float
    goodput: float
    refused: float


def windows(counts: Mapping[str, Sequence[float]]) -> list[Window]:
    """What the server counted, in windows; one without a call is left out."""
    wide = round(_WINDOW_SECONDS / BIN_SECONDS)
    found = []
    for begin in range(0, max(map(len, counts.values())), wide):
        sums = {kind: sum(bins[begin : begin + wide]) for kind, bins in counts.items()}
        calls = sum(sums.values())
        if calls:
            middle = (begin + wide / 2) * BIN_SECONDS
            found.append(Window(middle, sums["goodput"] / _WINDOW_SECONDS, sums["refused"] / calls))
    return found


CASE = Case(
    "flood",
    f"cancel 2,000 jobs, {_AT_ONCE} at once; 200 a second are allowed (burst 50), 3 % fail, 1 % get no answer",
    _measure,
    _judge,
    [LUA],
    _draw,
)


async def _run(candidate: str, count: int, at_once: int, base_url: str, elsewhere: str) -> None:
    cancel = {"ours": ours, "together": together, "bare": bare}[candidate]
    # The first calls load modules, which is another case's business.
    await cancel(list(itertools.islice(job_ids(2), 10)), 10, elsewhere)
    ids = list(itertools.islice(job_ids(), count))
    began = time.perf_counter()
    done = await cancel(ids, at_once, base_url)
    tell({"wall": time.perf_counter() - began, "done": done})


def main() -> None:
    """Run it, and print what it took."""
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))


if __name__ == "__main__":
    main()
