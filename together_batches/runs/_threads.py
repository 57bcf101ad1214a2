"""Work that takes its time, in a thread that ends when the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from anyio import CancelScope, to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

T = TypeVar("T")


class _StoppedError(Exception):
    """Nobody waits for this any more."""


async def in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """What ``work`` returns. It is to call the function that it is given now and then, which ends it when told to.

    Whoever is cancelled here waits until the thread has ended, so that nobody writes to what is being closed.
    """
    over = threading.Event()

    def raise_if_cancelled() -> None:
        if over.is_set():
            raise _StoppedError

    working = asyncio.ensure_future(to_thread.run_sync(work, raise_if_cancelled))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        over.set()
        with CancelScope(shield=True):
            await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # seen: the cancellation is what counts
        raise
