"""Waits that no cancellation cuts short, for what must be cleaned up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")


async def until_done(doing: asyncio.Future[Any]) -> None:
    """Wait until ``doing`` is done, and only then raise the cancellation of the caller, if there was one.

    A shield of anyio holds off the scopes of anyio alone, and not the cancellations of a second Ctrl-C,
    ``asyncio.timeout`` and the end of a loop. An error of ``doing`` counts as retrieved, so that it is not logged.
    """
    from anyio import CancelScope  # late, as below: it takes time, and making a client does not need it

    cancellation: asyncio.CancelledError | None = None
    while not doing.done():
        try:
            with CancelScope(shield=True):
                await asyncio.wait([doing])
        except asyncio.CancelledError as error:
            cancellation = error
    if not doing.cancelled():
        doing.exception()
    if cancellation is not None:
        try:
            raise cancellation
        finally:
            del cancellation  # it refers to this frame


async def finish_in_thread(work: Callable[[], T]) -> T:
    """Return the result of ``work``, which a thread of its own does to the end, whatever is cancelled meanwhile.

    The threads of a pool may all be busy, and a pool never begins what is cancelled before.
    """
    from concurrent.futures import ThreadPoolExecutor

    return await finish_in(ThreadPoolExecutor(1, "together-batches-cleanup"), work)


async def finish_in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Return the result of ``work``, the last that ``thread`` does, whatever is cancelled meanwhile."""
    try:
        working = asyncio.get_running_loop().run_in_executor(thread, work)
    except RuntimeError:  # the interpreter ends: threads have done all of their work, and no more is started
        return work()
    thread.shutdown(wait=False)  # when the work is done
    await until_done(working)
    return working.result()
