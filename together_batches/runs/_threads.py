"""Blocking work in a thread, which ends when the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from together_batches._local.until_done import until_done

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
_thread: ContextVar[ThreadPoolExecutor | None] = ContextVar("own_thread", default=None)


class _StoppedError(Exception):
    """Signal to the thread that its result is no longer needed."""


@contextmanager
def own_thread() -> Generator[None]:
    """Do the ``large`` work of this task, and of tasks that it starts, in one thread of its own.

    The interpreter does one piece of such work at a time anyway, and the allocator of C keeps what each thread once
    needed: spread over the threads of a pool, the same work takes twice the memory.
    """
    with ThreadPoolExecutor(1, "together-batches-run") as executor:
        token = _thread.set(executor)
        try:
            yield
        finally:
            _thread.reset(token)


async def in_thread(work: Callable[[Callable[[], None]], T], *, large: bool = False) -> T:
    """Return the result of ``work``, which must call its argument regularly; that raises after a cancellation.

    ``large`` is for work on whole files, which never waits for another process. A cancelled caller waits until the
    thread has ended, so that the thread does not write to files being closed.
    """
    over = threading.Event()

    def raise_if_cancelled() -> None:
        if over.is_set():
            raise _StoppedError

    executor = _thread.get() if large else None
    working: asyncio.Future[T]
    if executor is None:
        working = asyncio.ensure_future(to_thread.run_sync(work, raise_if_cancelled))
    else:
        working = asyncio.get_running_loop().run_in_executor(executor, work, raise_if_cancelled)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        over.set()
        await until_done(working)
        raise
