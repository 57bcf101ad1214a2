"""Helpers of the candidates, which run in a process of their own and print their figures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

KEY = "tgp_v1_" + 43 * "x"
"""As long as a real key, because every response is searched for it."""
_BEAT_SECONDS = 0.001
_STATUS = Path("/proc/self/status")


def job_ids(seed: int = 1) -> Iterator[str]:
    """Yield job ids without end, the same for each client."""
    draw = random.Random(seed)
    while True:
        digits = f"{draw.getrandbits(128):032x}"
        yield f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def origin(base_url: str) -> str:
    """Return the base URL in the form that the official SDK expects."""
    return base_url.removesuffix("/v1")


def peak_mb() -> float:
    """Return the peak memory of this process in MB, since its start or since :func:`forget_peak`."""
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
    # On Linux, ru_maxrss includes the process before it became this program: the parent's size.
    return _status_kb("VmHWM") / 1024


def forget_peak() -> float:
    """Reset the peak, if the system supports it, and return the current value in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def _status_kb(name: str) -> int:
    (size,) = (line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(size)


@contextlib.asynccontextmanager
async def pauses_noted(figures: dict[str, float]) -> AsyncIterator[None]:
    """Record as ``pause`` the longest time in seconds that the event loop was blocked during the block."""
    longest = 0.0
    loop = asyncio.get_running_loop()

    async def heart() -> None:
        nonlocal longest
        while True:
            began = loop.time()
            await asyncio.sleep(_BEAT_SECONDS)
            longest = max(longest, loop.time() - began - _BEAT_SECONDS)

    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.05)
    longest = 0.0
    try:
        yield
        await asyncio.sleep(2 * _BEAT_SECONDS)
    finally:
        figures["pause"] = longest
        beating.cancel()


def pin_to_one_core() -> None:
    """Pin this process and its future threads to one core, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def tell(figures: Mapping[str, float]) -> None:
    """Print the figures for the parent process."""
    print(json.dumps(dict(figures)))
