"""Blocking work of runs in threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from together_batches.runs._threads import in_thread, own_thread

if TYPE_CHECKING:
    from collections.abc import Callable


def _name(_: object) -> str:
    return threading.current_thread().name


async def test_large_work_has_one_thread() -> None:
    """All large work of a run has one thread, also that of other tasks; other work does not wait for it."""
    with own_thread():
        names = await asyncio.gather(*(in_thread(_name, large=True) for _ in range(5)))
        assert len(set(names)) == 1
        at_work, may_end = threading.Event(), threading.Event()

        def large(_: object) -> None:
            at_work.set()
            may_end.wait()

        work = asyncio.ensure_future(in_thread(large, large=True))
        await asyncio.to_thread(at_work.wait)
        assert await in_thread(_name) not in names
        may_end.set()
        await work


async def test_each_run_has_a_thread_of_its_own() -> None:
    """Runs at the same time do not wait for each other, and their threads end with them."""
    together = threading.Barrier(2, timeout=60)

    async def run() -> None:
        with own_thread():
            await in_thread(lambda _: together.wait(), large=True)

    await asyncio.gather(run(), run())
    assert not [thread for thread in threading.enumerate() if "together-batches-run" in thread.name]


@pytest.mark.parametrize("large", [True, False])
async def test_a_cancelled_caller_waits_for_its_thread(*, large: bool) -> None:
    """After a cancellation the work is stopped at its next check, and the caller returns only then."""
    at_work, ended = threading.Event(), threading.Event()

    def work(raise_if_cancelled: Callable[[], None]) -> None:
        at_work.set()
        try:
            while True:
                raise_if_cancelled()
        finally:
            ended.set()

    with own_thread():
        task = asyncio.ensure_future(in_thread(work, large=large))
        await asyncio.to_thread(at_work.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


@pytest.mark.parametrize("large", [True, False])
async def test_a_caller_that_is_cancelled_again(*, large: bool) -> None:
    """Further cancellations do not part the caller from its thread, which may use files that are closed next."""
    at_work, may_end = threading.Event(), threading.Event()

    def work(_: object) -> None:
        at_work.set()
        may_end.wait()

    with own_thread():
        task = asyncio.ensure_future(in_thread(work, large=large))
        await asyncio.to_thread(at_work.wait)
        for _ in range(10):
            task.cancel()
            await asyncio.sleep(0)
        has_parted = task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not has_parted


@pytest.mark.parametrize("large", [True, False])
async def test_stop_iteration_is_an_error(*, large: bool) -> None:
    """``StopIteration``, such as of ``next()`` in a function of the caller, is an error, and blocks nothing."""
    with own_thread(), pytest.raises(RuntimeError) as caught:
        await in_thread(lambda _: next(iter(())), large=large)
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_an_error_is_raised() -> None:
    """An exception of the work is raised in the caller."""

    def work(_: object) -> None:
        message = "no"
        raise ValueError(message)

    with own_thread(), pytest.raises(ValueError, match="no"):
        await in_thread(work, large=True)
