"""Tests of the limits of attempts, on a clock that the tests move."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
from wires import in_virtual_time

from together_batches._http.timeouts import AttemptTimer, TimeoutMonitor

if TYPE_CHECKING:
    from collections.abc import Callable


class Bytes:
    """The progress of an attempt."""

    total_bytes = 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _until_cancelled(timer: AttemptTimer) -> str:
    with timer:
        await asyncio.Event().wait()
    return f"{timer.expired}"


@pytest.mark.parametrize(
    "error", [aiohttp.ClientPayloadError(), ConnectionResetError(), ValueError(), AssertionError()], ids=repr
)
async def test_a_network_error_ends_in_the_block(error: Exception) -> None:
    """An error of the network is not raised: it is the error of the attempt, without a limit that expired."""
    monitor = TimeoutMonitor(Clock())
    with AttemptTimer(monitor, 1, 2) as timer:
        assert monitor.under_way == 1
        raise error
    assert (timer.error, timer.expired) == (error, None)
    assert monitor.under_way == 0


async def test_other_errors_are_raised() -> None:
    """An error that the network cannot raise passes through."""
    monitor = TimeoutMonitor(Clock())
    with pytest.raises(KeyboardInterrupt), AttemptTimer(monitor, 1, 2):
        raise KeyboardInterrupt
    assert monitor.under_way == 0


@pytest.mark.parametrize(("seconds", "limit"), [(1.0, "read"), (5.0, "total")])
async def test_the_task_is_cancelled_at_a_limit(seconds: float, limit: str) -> None:
    """The limit that is reached is named, and the cancellation ends in the block."""
    clock = Clock()
    timer = AttemptTimer(TimeoutMonitor(clock), 0.01 if limit == "read" else 100, 0.02)
    task = asyncio.create_task(_until_cancelled(timer))
    await asyncio.sleep(0)
    clock.now = 0.015 if limit == "read" else seconds
    assert await task == limit
    assert task.cancelling() == 0


@in_virtual_time
async def test_a_short_limit_beside_longer_ones_is_not_late() -> None:
    """A limit takes effect within an eighth of itself, also if attempts with longer limits began before."""
    loop = asyncio.get_running_loop()
    monitor = TimeoutMonitor(loop.time)
    late: list[float] = []
    with AttemptTimer(monitor, 30, 60):
        for limit in (0.4, 0.08, 0.8):
            began = loop.time()
            await _until_cancelled(AttemptTimer(monitor, limit, 60))
            late.append((loop.time() - began) / limit - 1)
    assert [0 <= share <= 0.13 for share in late] == [True] * 3


async def test_progress_restarts_the_read_limit() -> None:
    """Received bytes restart the limit of silence, and not that of the whole attempt."""
    progress = Bytes()
    with AttemptTimer(TimeoutMonitor(Clock()), 10, 25) as timer:
        timer.progress = progress
        assert not timer.is_over(9)
        for now in (9.5, 19):
            progress.total_bytes += 1
            assert not timer.is_over(now)
        progress.total_bytes += 1
        assert timer.is_over(25)
    assert (timer.error, timer.expired) == (None, "total")  # the block would end a failed assertion, too


async def test_a_cancellation_by_other_code_is_raised_without_the_frames_below() -> None:
    """A cancellation that is not ours is raised again, and its traceback does not lead into aiohttp."""

    async def inner() -> None:
        secret = "below"
        await asyncio.Event().wait()
        assert secret

    async def outer() -> None:
        with AttemptTimer(TimeoutMonitor(Clock()), 100, 100):
            await inner()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    frames: list[str] = []
    traceback = caught.value.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "inner" not in frames


async def test_a_cancellation_by_other_code_at_a_limit_is_raised() -> None:
    """A task that other code cancels while its limit expires is cancelled, and not timed out."""
    timer = AttemptTimer(TimeoutMonitor(Clock()), 100, 100)
    task = asyncio.create_task(_until_cancelled(timer))
    await asyncio.sleep(0)
    assert timer.is_over(200)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_that_aiohttp_makes_of_a_cancellation_is_no_cancellation() -> None:
    """The task can be awaited as usual although aiohttp replaced the cancellation at the limit."""

    async def work(timer: AttemptTimer, sent: Callable[[], None]) -> str | None:
        with timer:
            sent()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise aiohttp.ClientConnectionError from None
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
        return timer.expired

    began = asyncio.Event()
    timer = AttemptTimer(TimeoutMonitor(Clock()), 100, 100)
    task = asyncio.create_task(work(timer, began.set))
    await began.wait()
    assert timer.is_over(200)
    task.cancel()
    assert await task == "total"
    assert task.cancelling() == 0
