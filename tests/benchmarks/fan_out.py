"""Cancel many ids with one candidate: ``python -m tests.benchmarks.fan_out CANDIDATE COUNT AT_ONCE BASE_URL``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid

_KEY = "tgp_v1_" + 43 * "x"
"""As long as a real one: it is looked for in every answer."""


async def bare(ids: list[str], at_once: int, base_url: str) -> int:
    """A loop over aiohttp that does the same posts, reads the answers and looks at nothing else."""
    import aiohttp

    done = 0
    source = iter(ids)
    headers = {"Authorization": f"Bearer {_KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def work() -> None:
            nonlocal done
            for job_id in source:
                async with session.post(f"{base_url}/batches/{job_id}/cancel") as response:
                    await response.read()
                    done += response.status == 200

        await asyncio.gather(*[work() for _ in range(at_once)])
    return done


async def ours(ids: list[str], at_once: int, base_url: str) -> int:
    """``cancel_many``, which gives a report with every job in it."""
    from together_batches import AsyncBatches

    async with AsyncBatches(_KEY, base_url=base_url) as batches:
        report = await batches.cancel_many(ids, max_concurrency=at_once)
    assert report.ok, report
    return len(report)


async def together(ids: list[str], at_once: int, base_url: str) -> int:
    """The official SDK, in a loop of as many workers."""
    from together import AsyncTogether

    done = 0
    source = iter(ids)
    async with AsyncTogether(api_key=_KEY, base_url=base_url.removesuffix("/v1")) as client:

        async def work() -> None:
            nonlocal done
            for job_id in source:
                await client.batches.cancel(job_id)
                done += 1

        await asyncio.gather(*[work() for _ in range(at_once)])
    return done


def main() -> None:
    """Run it, and print what it took."""
    candidate, count, at_once, base_url = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    cancel = {"bare": bare, "ours": ours, "together": together}[candidate]
    # The first calls load modules and open connections, which is another case's business.
    asyncio.run(cancel([str(uuid.uuid4()) for _ in range(200)], at_once, base_url))
    ids = [str(uuid.uuid4()) for _ in range(count)]
    cpu, wall = time.process_time(), time.perf_counter()
    done = asyncio.run(cancel(ids, at_once, base_url))
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    assert done == count, done
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
