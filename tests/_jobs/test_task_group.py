"""Tests of the task group whose first error is raised as it is."""

from __future__ import annotations

import asyncio

import pytest

from together_batches._jobs.task_group import plain_group


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


async def test_a_cancellation_that_nobody_requested_is_an_error() -> None:
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
