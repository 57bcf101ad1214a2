"""Blocking work in a thread, which ends when the task that waits for it is cancelled."""

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
    """Signal to the thread that its result is no longer needed."""


async def in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Return the result of ``work``, which must call its argument regularly; that raises after a cancellation.

    A cancelled caller waits until the thread has ended, so that the thread does not write to files being closed.
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
            working.exception()  # retrieved, so that it is not logged: the cancellation takes precedence
        raise
