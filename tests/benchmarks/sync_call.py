"""The overhead of a call of the synchronous client over the awaited one, on one core.

One run: ``python -m tests.benchmarks.sync_call CANDIDATE COUNT BASE_URL``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import TYPE_CHECKING

from tests.benchmarks._client import KEY, job_ids, origin, pin_to_one_core, tell
from tests.benchmarks._measure import (
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
    from collections.abc import Iterator, Sequence

_WARM_UP = 100


def sync(ids: Sequence[str], base_url: str) -> float:
    """Call ``Batches`` sequentially, and return the seconds without the first calls."""
    from together_batches import Batches

    with Batches(KEY, base_url=base_url) as batches:
        for job_id in ids[:_WARM_UP]:
            batches.cancel(job_id)
        began = time.perf_counter()
        for job_id in ids[_WARM_UP:]:
            batches.cancel(job_id)
        return time.perf_counter() - began


def awaited(ids: Sequence[str], base_url: str) -> float:
    """Call ``AsyncBatches`` sequentially."""
    from together_batches import AsyncBatches

    async def calls() -> float:
        async with AsyncBatches(KEY, base_url=base_url) as batches:
            for job_id in ids[:_WARM_UP]:
                await batches.cancel(job_id)
            began = time.perf_counter()
            for job_id in ids[_WARM_UP:]:
                await batches.cancel(job_id)
            return time.perf_counter() - began

    return asyncio.run(calls())


def together(ids: Sequence[str], base_url: str) -> float:
    """Call the synchronous client of the official SDK."""
    from together import Together

    with Together(api_key=KEY, base_url=origin(base_url)) as client:
        for job_id in ids[:_WARM_UP]:
            client.batches.cancel(job_id)
        began = time.perf_counter()
        for job_id in ids[_WARM_UP:]:
            client.batches.cancel(job_id)
        return time.perf_counter() - began


def _measure(plan: Plan) -> Iterator[Sample]:
    count = 500 if plan.quick else 3_000
    with fast_server() as base_url:
        for name in in_turn(2 * plan.rounds, ["sync", "awaited", *present("together")]):
            figures = run_module("tests.benchmarks.sync_call", name, count, base_url)
            yield Sample(name, {}, {"call_us": 1e6 * figures["seconds"] / count})


def _judge(samples: Samples) -> list[Line]:
    calls, awaits = (samples.of(name).values("call_us") for name in ("sync", "awaited"))
    return lines(
        ("a call of Batches", calls, "µs", None),
        ("an awaited call of AsyncBatches", awaits, "µs", None),
        ("what Batches adds", [a - b for a, b in zip(calls, awaits, strict=True)], "µs", Bar("≤", 150)),
        ("a call of Batches / of together", ratios(samples, "sync", "together", "call_us"), "×", None),
    )


CASE = Case(
    "sync", "cancel jobs one after another, on one core, synchronously and awaited", _measure, _judge, [NGINX]
)


def main() -> None:
    """Run one candidate and print its figures."""
    candidate, count, base_url = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    pin_to_one_core()
    ids = list(itertools.islice(job_ids(), count + _WARM_UP))
    tell({"seconds": {"sync": sync, "awaited": awaited, "together": together}[candidate](ids, base_url)})


if __name__ == "__main__":
    main()
