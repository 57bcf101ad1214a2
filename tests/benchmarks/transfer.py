"""One upload or download of a file.

One run: ``python -m tests.benchmarks.transfer CANDIDATE BASE_URL FILE``. CANDIDATE is ``download-ours``,
``download-bare``, ``upload-ours`` or ``upload-bare``; FILE is read, or written under the name of the file that is
downloaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks._client import forget_peak, pauses_noted, peak_mb, tell
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
    ratios,
    run_module,
)
from tests.benchmarks._server import fast_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_KEY = {"Authorization": "Bearer key"}
_UPLOADED, _DOWNLOADED = 100_000_000, 1 << 30


@asynccontextmanager
async def _noted(figures: dict[str, float]) -> AsyncIterator[None]:
    """Record the time of the block, the additional memory, and the longest time that the event loop was blocked."""
    async with pauses_noted(figures):
        idle, began = forget_peak(), time.perf_counter()
        yield
        figures |= {"wall": time.perf_counter() - began, "memory": peak_mb() - idle}


async def download_bare(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """Run a typical hand-written loop, which writes to the file itself in the event loop."""
    import aiohttp

    async with aiohttp.ClientSession(headers=_KEY, timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get(f"{base_url}/none"):
            pass
        async with _noted(figures), session.get(f"{base_url}/files/{path.name}/content") as response:
            with path.open("wb") as file:
                async for chunk in response.content.iter_any():
                    file.write(chunk)


async def download_ours(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """Run ``files.download``, which checks the length, writes outside the event loop, and renames."""
    from together_batches import AsyncBatches

    async with AsyncBatches("key", base_url=base_url) as batches:
        await batches.files.upload(b"{}")  # the first call loads modules and starts a thread
        async with _noted(figures):
            await batches.files.download(path.name, path)


async def upload_bare(base_url: str, path: Path, figures: dict[str, float]) -> None:
    """Send the requests of an upload, and nothing else; aiohttp reads the file in a thread."""
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get(f"{base_url}/none"):
            pass
        async with _noted(figures):
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
    """Run ``files.upload``, which also ensures that the uploaded content is what was hashed."""
    from together_batches import AsyncBatches

    async with AsyncBatches("key", base_url=base_url) as batches:
        await batches.files.upload(b"{}")  # the first call loads modules and starts a thread
        async with _noted(figures):
            await batches.files.upload(path)


def _measured(verb: str, path: Path, base_url: str, plan: Plan) -> Iterator[Sample]:
    for name in in_turn(plan.rounds, ["ours", "bare"]):
        figures = run_module("tests.benchmarks.transfer", f"{verb}-{name}", base_url, path)
        yield Sample(name, {"bytes": _UPLOADED if verb == "upload" else _DOWNLOADED}, figures)


def _measure_upload(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as scratch, fast_server() as base_url:
        path = Path(scratch, "requests.jsonl")
        path.write_bytes(os.urandom(_UPLOADED))
        yield from _measured("upload", path, base_url, plan)


def _measure_download(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as served, tempfile.TemporaryDirectory() as scratch:
        Path(served).chmod(0o755)  # nginx reads as another user if root starts it
        with Path(served, "file").open("wb") as output:
            output.truncate(_DOWNLOADED)  # a hole: the server has nothing to read from the disk
        with fast_server(Path(served)) as base_url:
            yield from _measured("download", Path(scratch, "file"), base_url, plan)


def _judge(samples: Samples) -> list[Line]:
    pauses = {name: [1e3 * pause for pause in samples.of(name).values("pause")] for name in ("ours", "bare")}
    return lines(
        ("seconds, ours", samples.of("ours").values("wall"), "s", None),
        ("seconds, ours / bare aiohttp", ratios(samples, "ours", "bare", "wall"), "×", Bar("≤", 1.43)),
        ("memory above idle, ours", samples.of("ours").values("memory"), "MB", Bar("≤", 64, each=True)),
        ("longest pause of the loop, ours", pauses["ours"], "ms", Bar("≤", 50, each=True)),
        ("longest pause of the loop, bare aiohttp", pauses["bare"], "ms", None),
    )


UPLOAD = Case("upload", "upload 100 MB", _measure_upload, _judge, [NGINX])
DOWNLOAD = Case("download", "download 1 GB to the disk", _measure_download, _judge, [NGINX])


def main() -> None:
    """Run one candidate and print its figures."""
    candidate, base_url, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    candidates = {
        "download-ours": download_ours,
        "download-bare": download_bare,
        "upload-ours": upload_ours,
        "upload-bare": upload_bare,
    }
    figures: dict[str, float] = {}
    os.sync()  # pending writes of earlier runs would disturb the measurement
    asyncio.run(candidates[candidate](base_url, path, figures))
    if candidate.startswith("download"):
        assert path.stat().st_size == _DOWNLOADED, path.stat()
        path.unlink()
    tell(figures)


if __name__ == "__main__":
    main()
