"""One file there or back with one candidate: ``python -m tests.benchmarks.transfer CANDIDATE BASE_URL FILE``.

CANDIDATE is ``download-ours``, ``download-bare``, ``upload-ours`` or ``upload-bare``; FILE is
read, or written under the name of the file that is downloaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BEAT_SECONDS = 0.001
_KEY = {"Authorization": "Bearer key"}


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
    # Linux counts in ru_maxrss what the process had been before it became this program: the parent's size.
    (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak) / 1024


@asynccontextmanager
async def _measured(figures: dict[str, float]) -> AsyncIterator[None]:
    """The time of the block, how long the loop stood still at most, and the memory above what there was before."""
    longest = 0.0

    async def heart() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_BEAT_SECONDS)
            longest = max(longest, time.perf_counter() - began - _BEAT_SECONDS)

    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.05)
    longest, before, began = 0.0, _peak(), time.perf_counter()
    yield
    figures.update(wall=time.perf_counter() - began, memory=_peak() - before)
    await asyncio.sleep(2 * _BEAT_SECONDS)
    figures["blocked"] = longest
    beating.cancel()


async def download_bare(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """The loop that everybody writes: what comes is written, on the loop, to the file itself."""
    import aiohttp

    async with aiohttp.ClientSession(headers=_KEY, timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get(f"{base_url}/none"):
            pass
        async with _measured(figures), session.get(f"{base_url}/files/{path.name}/content") as response:
            with path.open("wb") as file:
                async for chunk in response.content.iter_any():
                    file.write(chunk)


async def download_ours(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """``files.download``, which checks the length, writes elsewhere than on the loop, and renames."""
    from together_batches import AsyncBatches

    async with AsyncBatches("key", base_url=base_url) as batches:
        await batches.files.upload(b"{}")  # the first call loads modules and starts a thread
        async with _measured(figures):
            await batches.files.download(path.name, path)


async def upload_bare(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """The steps of the upload, and nothing else; aiohttp reads the file in a thread."""
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get(f"{base_url}/none"):
            pass
        async with _measured(figures):
            with path.open("rb") as file:
                digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
            form = {"purpose": "batch-api", "file_name": path.name, "checksum": digest.hexdigest()}
            begin = session.post(f"{base_url}/files", data=form, headers=_KEY, allow_redirects=False)
            async with begin as response:
                target, file_id = response.headers["Location"], response.headers["X-Together-File-Id"]
            with path.open("rb") as file:
                async with session.put(target, data=file) as response:
                    assert response.status == 200, response.status
            async with session.post(f"{base_url}/files/{file_id}/preprocess", headers=_KEY) as response:
                await response.read()


async def upload_ours(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """``files.upload``, which also sees to it that what is sent is what was hashed."""
    from together_batches import AsyncBatches

    async with AsyncBatches("key", base_url=base_url) as batches:
        await batches.files.upload(b"{}")  # the first call loads modules and starts a thread
        async with _measured(figures):
            await batches.files.upload(path)


def main() -> None:
    """Run it, and print what it took."""
    candidate, base_url, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    candidates = {
        "download-ours": download_ours,
        "download-bare": download_bare,
        "upload-ours": upload_ours,
        "upload-bare": upload_bare,
    }
    figures: dict[str, float] = {}
    os.sync()  # what earlier runs left to be written would be in the way
    asyncio.run(candidates[candidate](base_url, path, figures))
    if candidate.startswith("download"):
        assert path.stat().st_size == 1 << 30, path.stat()
        path.unlink()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
