"""Tasks: a group whose first error is raised as it is, and a task beside an async generator."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from together_batches._local.until_done import until_done

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

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
        task = super().create_task(_with_stray_cancellation(coro), **options)
        task.add_done_callback(lambda _: coro.close())  # it may have been cancelled before its first step
        return task


class _StrayCancellationError(Exception):
    """Carries a cancellation out of a group, which would mistake it for the end of the task."""

    def __init__(self, reason: asyncio.CancelledError) -> None:
        super().__init__(reason)
        self.reason = reason


async def _with_stray_cancellation(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _StrayCancellationError(error) from error


class ReadyItems(Generic[T]):
    """The items that were made and not yielded yet."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.changed = asyncio.Event()

    def put(self, item: T) -> None:
        """Pass an item to the generator."""
        self.items.append(item)
        self.changed.set()


async def stream_from_task(
    work: Callable[[], Coroutine[Any, Any, None]],
    ready: ReadyItems[T],
    *,
    on_drained: Callable[[], None] = lambda: None,
) -> AsyncGenerator[T, None]:
    """Yield what ``work`` puts into ``ready``, then raise its error, if any. Leaving the generator stops the work.

    Nothing is yielded inside a task group or cancel scope: that would tie the group to the task that requests the
    next item. ``on_drained`` is called each time that all items have been yielded.
    """
    task = asyncio.create_task(work())
    task.add_done_callback(lambda _: ready.changed.set())
    try:
        while True:
            while ready.items:
                yield ready.items.popleft()
            if task.done():
                task.result()
                return
            on_drained()
            ready.changed.clear()
            await ready.changed.wait()
    finally:
        task.cancel()
        await until_done(task)  # its error was raised above, or occurred after the iteration ended
