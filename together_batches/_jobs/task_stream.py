"""A task beside an async generator: the task makes items, the generator yields them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from together_batches._local.until_done import until_done

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

T = TypeVar("T")


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
