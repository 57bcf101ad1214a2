"""A task group whose first error is raised as it is."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

T = TypeVar("T")


@asynccontextmanager
async def plain_group() -> AsyncGenerator[asyncio.TaskGroup]:
    """Open a task group that raises its first error unchanged and not in an exception group.

    A cancellation that a task raises without being cancelled, such as from a callback, is an error, too.
    """
    failed: BaseException
    task = asyncio.current_task()
    requests = task.cancelling() if task is not None else 0
    try:
        async with _Group() as group:
            yield group
        return
    except BaseExceptionGroup as several:
        failed = several.exceptions[0]
    if sys.version_info < (3, 13) and task is not None:
        # The group leaves the request behind by which it ended its block: github.com/python/cpython/issues/116720
        while task.cancelling() > requests:
            task.uncancel()
    raise failed.reason if isinstance(failed, _StrayCancellationError) else failed


class _Group(asyncio.TaskGroup):
    def create_task(  # type: ignore[override]  # generators are coroutines no longer
        self, coro: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task = super().create_task(_told_apart(coro), **options)
        task.add_done_callback(lambda _: coro.close())  # it may have been cancelled before its first step
        return task


class _StrayCancellationError(Exception):
    """Carries a cancellation out of a group, which would mistake it for the end of the task."""

    def __init__(self, reason: asyncio.CancelledError) -> None:
        super().__init__(reason)
        self.reason = reason


async def _told_apart(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _StrayCancellationError(error) from error
