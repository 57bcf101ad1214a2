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
