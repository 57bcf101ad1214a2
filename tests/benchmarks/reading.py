"""Reading jobs: one by one, and all of them in one list.

One run: ``python -m tests.benchmarks.reading retrieve|list CANDIDATE COUNT BASE_URL``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks._client import KEY, job_ids, origin, tell
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
from tests.benchmarks.fan_out import Tally, workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AT_ONCE = 100
_JOBS = 50_000


def write_jobs(path: Path, count: int) -> None:
    """Write a list of jobs as the service sends it, in all states, with its undocumented fields."""
    rows = []
    for number, job_id in enumerate(itertools.islice(job_ids(), count)):
        job: dict[str, object] = {
            "id": job_id,
            "user_id": "6710aa3f4be8c09d51f2e7b4",
            "project_id": "proj-example",
            "organization_id": "org-example",
            "input_file_id": f"file-{job_id}",
            "file_size_bytes": 48_213 + number,
            "status": ("COMPLETED", "IN_PROGRESS", "CANCELLED", "VALIDATING")[number % 4],
            "job_deadline": "2026-09-15T10:20:30.481922Z",
            "created_at": f"2026-09-14T{number % 24:02}:20:30.{number % 1_000_000:06}Z",
            "endpoint": "/v1/chat/completions",
            "progress": number % 101,
            "model_id": "openai/gpt-oss-20b",
        }
        if number % 4 == 0:
            job |= {"output_file_id": f"file-{job_id[::-1]}", "completed_at": "2026-09-15T08:02:11.004318Z"}
        rows.append(job)
    path.write_text(json.dumps(rows, separators=(",", ":")), "utf-8")


async def retrieve(candidate: str, ids: Sequence[str], base_url: str, tally: Tally) -> None:
    """Read each job, a hundred at once."""
    if candidate == "ours":
        from together_batches import AsyncBatches

        async with AsyncBatches(KEY, base_url=base_url) as batches:
            await workers(batches.retrieve, ids, _AT_ONCE, tally)
    elif candidate == "together":
        from together import AsyncTogether

        async with AsyncTogether(api_key=KEY, base_url=origin(base_url)) as client:
            await workers(client.batches.retrieve, ids, _AT_ONCE, tally)
    else:
        import aiohttp

        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def get(job_id: str) -> None:
                async with session.get(f"{base_url}/batches/{job_id}") as response:
                    json.loads(await response.read())

            await workers(get, ids, _AT_ONCE, tally)


async def list_all(candidate: str, base_url: str) -> int:
    """Read the list of all jobs, and return their number; ``ours_in_full`` uses every field of every job."""
    if candidate in {"ours", "ours_in_full"}:
        from together_batches import AsyncBatches

        async with AsyncBatches(KEY, base_url=base_url) as batches:
            jobs = await batches.list()
            return len(jobs) if candidate == "ours" else sum(job.endpoint is not None for job in jobs)
    if candidate == "together":
        from together import AsyncTogether

        async with AsyncTogether(api_key=KEY, base_url=origin(base_url)) as client:
            return len(await client.batches.list())
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{base_url}/batches") as response:
        return len(json.loads(await response.read()))


def _measure_retrieve(plan: Plan) -> Iterator[Sample]:
    counts = {"ours": 10_000, "bare": 10_000, "together": 1_000}
    with fast_server() as base_url:
        for name in in_turn(plan.rounds, ["ours", *present("bare", "together")]):
            count = counts[name] // (4 if plan.quick else 1)
            figures = run_module("tests.benchmarks.reading", "retrieve", name, count, base_url)
            per_id = {"cpu_us": 1e6 * figures["cpu"] / count, "rate": count / figures["wall"]}
            yield Sample(name, {"at_once": _AT_ONCE}, per_id)


def _judge_retrieve(samples: Samples) -> list[Line]:
    return lines(
        ("jobs a second, ours", samples.of("ours").values("rate"), "/s", None),
        ("jobs a second, ours / together", ratios(samples, "ours", "together", "rate"), "×", None),
        ("CPU of a call, ours", samples.of("ours").values("cpu_us"), "µs", None),
        ("CPU of a call, ours / bare aiohttp and json", ratios(samples, "ours", "bare", "cpu_us"), "×", None),
    )


def _measure_list(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # nginx reads as another user if root starts it
        write_jobs(Path(directory, "jobs"), _JOBS)
        size = Path(directory, "jobs").stat().st_size / 1e6
        with fast_server(Path(directory)) as base_url:
            for name in in_turn(plan.rounds, ["ours", "ours_in_full", *present("bare", "together")]):
                figures = run_module("tests.benchmarks.reading", "list", name, _JOBS, base_url)
                yield Sample(name, {"jobs": _JOBS, "megabytes": size}, figures)


def _judge_list(samples: Samples) -> list[Line]:
    faster = [theirs / ours for theirs, ours in zip(*_walls(samples, "together", "ours"), strict=False)]
    return lines(
        ("seconds, ours", samples.of("ours").values("wall"), "s", None),
        ("seconds, ours, with every field used", samples.of("ours_in_full").values("wall"), "s", None),
        ("seconds, together", samples.of("together").values("wall"), "s", None),
        ("seconds, together / ours", faster, "×", Bar("≥", 12)),
        ("seconds, ours / bare aiohttp and json, to dicts", ratios(samples, "ours", "bare", "wall"), "×", None),
    )


def _walls(samples: Samples, *names: str) -> list[list[float]]:
    return [samples.of(name).values("wall") for name in names]


RETRIEVE = Case(
    "retrieve", f"ask for jobs one by one, {_AT_ONCE} at once", _measure_retrieve, _judge_retrieve, [NGINX]
)
LIST = Case("list", f"a list of {_JOBS:,} jobs (26 MB)", _measure_list, _judge_list, [NGINX])


def main() -> None:
    """Run one candidate and print its figures."""
    verb, candidate, count, base_url = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    # The first calls load modules, which another case measures.
    asyncio.run(
        retrieve(candidate.removesuffix("_in_full"), list(itertools.islice(job_ids(2), 20)), base_url, Tally())
    )
    ids, tally = list(itertools.islice(job_ids(), count)), Tally()
    cpu, wall = time.process_time(), time.perf_counter()
    if verb == "list":
        tally.done = asyncio.run(list_all(candidate, base_url))
    else:
        asyncio.run(retrieve(candidate, ids, base_url, tally))
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    assert tally.done == count, tally.done
    tell(figures)


if __name__ == "__main__":
    main()
