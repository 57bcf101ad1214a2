"""The stream that every iterator of the client is."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from together_batches._stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class _Work:
    """A generator of numbers that records if its work has begun and stopped."""

    def __init__(self, numbers: int = 3) -> None:
        self.numbers = numbers
        self.began = self.stopped = False

    async def _numbers(self) -> AsyncGenerator[int, None]:
        self.began = True
        try:
            for number in range(self.numbers):
                yield number
        finally:
            await asyncio.sleep(0)
            self.stopped = True

    def stream(self) -> Stream[int]:
        return Stream(self._numbers())


async def test_a_stream_is_an_async_iterator() -> None:
    """A stream is an async iterator that ends."""
    work = _Work()
    assert [number async for number in work.stream()] == [0, 1, 2]
    assert work.stopped


async def test_a_stream_is_an_async_context_manager() -> None:
    """Leaving a stream as a context manager stops its work before the block has ended."""
    work = _Work()
    async with work.stream() as numbers:
        async for number in numbers:
            assert number == 0
            break
        assert not work.stopped
    assert work.stopped


async def test_an_error_in_the_block_stops_the_work_and_goes_on() -> None:
    """An error in the block stops the work and is not swallowed."""
    work = _Work()

    async def leave_with_an_error() -> None:
        async with work.stream() as numbers:
            await anext(numbers)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await leave_with_an_error()
    assert work.stopped


async def test_an_error_of_the_work_reaches_the_caller() -> None:
    """An error of the work is raised unchanged, and then the stream is exhausted."""

    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("its own")

    numbers = Stream(broken())
    assert await anext(numbers) == 1
    with pytest.raises(ValueError, match="its own"):
        await anext(numbers)
    with pytest.raises(StopAsyncIteration):
        await anext(numbers)


async def test_closing_twice_is_closing_once() -> None:
    """A stream may be closed twice, and is exhausted then."""
    work = _Work()
    numbers = work.stream()
    await anext(numbers)
    await numbers.aclose()
    await numbers.aclose()
    assert work.stopped
    with pytest.raises(StopAsyncIteration):
        await anext(numbers)


async def test_what_was_never_asked_never_begins() -> None:
    """A stream that is made and closed never starts its work."""
    work = _Work()
    async with work.stream():
        pass
    assert not work.began


async def test_a_stream_that_is_dropped_stops_a_moment_later() -> None:
    """A dropped stream is stopped by the loop a moment later, without a warning."""
    work = _Work()
    numbers = work.stream()
    await anext(numbers)
    del numbers
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert work.stopped


async def test_a_cancelled_wait_is_cancelled() -> None:
    """A cancellation while waiting reaches the work and is not swallowed."""
    seen: list[str] = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            seen.append("stopped")

    numbers = Stream(endless())
    task = asyncio.ensure_future(anext(numbers))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["stopped"]
