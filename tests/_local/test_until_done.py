"""Waits that no cancellation cuts short: of tasks and scopes, once and again."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from together_batches._local.until_done import finish_in, finish_in_thread, until_done

if TYPE_CHECKING:
    from collections.abc import Callable


async def cancelled_often(waiting: asyncio.Task[Any], end: Callable[[], object]) -> None:
    """Cancel a task several times before what it waits for has ended, and once more afterwards."""
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    end()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_cancellations_of_a_task() -> None:
    """The wait goes on until the end, and then the cancellation is raised."""
    doing = asyncio.get_running_loop().create_future()
    await cancelled_often(asyncio.create_task(until_done(doing)), lambda: doing.set_result(None))
    assert not doing.cancelled()


async def test_a_cancelled_scope() -> None:
    """A cancelled scope around the wait takes effect after it."""
    doing = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, doing.set_result, None)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await until_done(doing)
        assert doing.done()
        await asyncio.sleep(0)
        pytest.fail("the scope was cancelled")


@pytest.mark.parametrize("cancels", [True, False])
async def test_an_error_is_retrieved(*, cancels: bool) -> None:
    """An error is neither raised nor logged."""
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    doing = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until_done(doing))
    if cancels:
        await cancelled_often(waiting, partial(doing.set_exception, ValueError()))
    else:
        doing.set_exception(ValueError())
        await waiting
    del doing, waiting
    assert not logged


async def test_work_in_a_thread() -> None:
    """The result of the work is returned, and its error raised."""
    assert await finish_in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await finish_in_thread(lambda: 1 / 0)


async def test_work_is_done_whatever_is_cancelled() -> None:
    """Work that was cancelled before a thread began it is done, also if all threads of the loop are busy."""
    busy, may_end, done = threading.Event(), threading.Event(), threading.Event()
    pool = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(busy.wait)

    def work() -> None:
        may_end.wait()
        done.set()

    await cancelled_often(asyncio.create_task(finish_in_thread(work)), may_end.set)
    assert done.is_set()
    busy.set()


async def test_work_that_no_thread_takes() -> None:
    """Work is done here if its thread takes none any more, as at the end of the interpreter."""
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    assert await finish_in(ended, threading.get_ident) == threading.get_ident()
