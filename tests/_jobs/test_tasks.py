"""Groups of tasks, and a task beside an async generator: their items, errors and ends."""

from __future__ import annotations

import asyncio
import gc

import pytest

from together_batches._jobs.tasks import ReadyItems, plain_group, stream_from_task

# --- a group ---


async def test_the_error_of_a_task_is_raised_unchanged() -> None:
    """An error of a task is raised without a group around it, and the other tasks are cancelled."""
    error = ValueError("from a task")
    ended: list[str] = []

    async def fail() -> None:
        raise error

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def work() -> None:
        async with plain_group() as group:
            group.create_task(wait())
            await asyncio.sleep(0)
            group.create_task(fail())

    with pytest.raises(ValueError, match="from a task") as caught:
        await work()
    assert caught.value is error
    assert ended == ["cancelled"]


async def test_the_error_of_the_block_is_raised_unchanged() -> None:
    """An error of the block itself is raised as it is, too."""
    message = "from the block"
    with pytest.raises(LookupError, match=message):
        async with plain_group():
            raise LookupError(message)


async def test_a_cancellation_without_a_request_is_an_error() -> None:
    """A cancellation that comes from the work of a task, and not to the task, ends the others and is raised."""
    stray = asyncio.CancelledError("from a callback")

    async def fail() -> None:
        raise stray

    async def work() -> None:
        async with plain_group() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fail())

    with pytest.raises(asyncio.CancelledError) as caught:
        await work()
    assert caught.value is stray


async def test_a_cancelled_task_is_no_error() -> None:
    """A task that is cancelled ends, and the others go on."""
    async with plain_group() as group:
        ending = group.create_task(asyncio.Event().wait())
        going_on = group.create_task(asyncio.sleep(0, "done"))
        await asyncio.sleep(0)
        ending.cancel()
    assert (ending.cancelled(), going_on.result()) == (True, "done")


async def test_a_task_that_is_cancelled_before_it_begins() -> None:
    """Its work is never begun, without a warning of Python that it was never awaited."""
    async with plain_group() as group:
        task = group.create_task(asyncio.sleep(0))
        task.cancel()
    assert task.cancelled()
    del task
    gc.collect()


# --- a stream ---


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
