"""The scout of a run: its first shard, which is alone until its job shows that the input is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.runs import rules

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from together_batches.runs._records import Key


class Scout:
    """At most one attempt at a time, until one has succeeded. ``on_return`` is called when others may begin."""

    def __init__(self, *, is_needed: bool, on_return: Callable[[], None]) -> None:
        self._is_needed = is_needed
        self._on_return = on_return
        self._key: Key | None = None
        self._limit: asyncio.Task[None] | None = None

    @property
    def is_out(self) -> bool:
        """Whether an attempt is alone, so that no other may begin."""
        return self._key is not None

    def send(self, key: Key) -> None:
        """Make an attempt the scout, if one is needed."""
        if self._is_needed:
            self._key = key

    def limit(self, key: Key, group: asyncio.TaskGroup, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Limit the time of the scout, from now on, if it is this attempt."""
        if self._key == key:
            self._limit = group.create_task(self._succeed_later(sleep))

    async def _succeed_later(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        await sleep(rules.ALONE_SECONDS)
        self._limit = None
        self._succeed()

    def see_status(self, status: str | None) -> None:
        """Take note of the status of any job."""
        if self._is_needed and rules.shows_valid_input(status):
            self._succeed()

    def _succeed(self) -> None:
        self._is_needed = False
        self._return()

    def end(self, key: Key) -> None:
        """End an attempt, after which another can be the scout."""
        if self._key == key:
            self._return()

    def _return(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._key = self._limit = None
        self._on_return()
