"""A task beside an async generator: its items, its error, its end."""

from __future__ import annotations

import asyncio
import gc

import pytest

from together_batches._jobs.task_stream import ReadyItems, stream_from_task


async def test_items_come_as_they_are_made() -> None:
    """Items are yielded in order, as soon as they are made, and the stream ends with the work."""
    ready = ReadyItems[int]()
    drained = 0

    def on_drained() -> None:
        nonlocal drained
        drained += 1

    async def work() -> None:
        for number in range(3):
            ready.put(number)
            await asyncio.sleep(0)

    assert [item async for item in stream_from_task(work, ready, on_drained=on_drained)] == [0, 1, 2]
    assert drained


async def test_an_error_of_the_work_comes_after_its_items() -> None:
    """An error of the work is raised unchanged, after everything that was made before it."""
    ready = ReadyItems[int]()
    error = ValueError("no more")

    async def work() -> None:
        ready.put(1)
        raise error

    stream = stream_from_task(work, ready)
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="no more") as raised:
        await anext(stream)
    assert raised.value is error


async def test_leaving_stops_the_work() -> None:
    """Closing the stream cancels the work and returns when it has ended; an error at its end is dropped."""
    ready = ReadyItems[int]()
    ended = False

    async def work() -> None:
        nonlocal ended
        ready.put(1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True
            raise ValueError("too late")

    stream = stream_from_task(work, ready)
    assert await anext(stream) == 1
    await stream.aclose()
    assert ended


async def test_a_second_cancellation_waits_for_the_work() -> None:
    """The stream ends after its work, also if it is cancelled once more meanwhile; nothing is logged."""
    ready = ReadyItems[int]()
    leaving, may_end = asyncio.Event(), asyncio.Event()
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            leaving.set()
            await may_end.wait()
            raise ValueError("too late")

    async def read() -> None:
        async for _ in stream_from_task(work, ready):
            pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await leaving.wait()
    reading.cancel()
    await asyncio.sleep(0)
    assert not reading.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gc.collect()
    assert not logged


async def test_nothing_starts_before_the_first_item_is_requested() -> None:
    """A stream that is never iterated over starts no work."""
    ready = ReadyItems[int]()

    async def work() -> None:
        ready.put(1)

    stream = stream_from_task(work, ready)
    await asyncio.sleep(0)
    assert not ready.items
    await stream.aclose()
