"""The scout of a run: its first shard, which is alone until its job shows that the input is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.runs import rules

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from together_batches.runs._records import Key


class Scout:
    """One attempt at a time, until one has succeeded. ``on_return`` is called when others may begin.

    In a run that goes on, it may be several: those whose jobs may exist already.
    """

    def __init__(self, *, is_needed: bool, on_return: Callable[[], None]) -> None:
        self._is_needed = is_needed
        self._on_return = on_return
        self._keys: set[Key] = set()
        self._limit: asyncio.Task[None] | None = None

    @property
    def is_out(self) -> bool:
        """Whether an attempt is alone, so that no other may begin."""
        return bool(self._keys)

    def send(self, key: Key) -> None:
        """Make an attempt the scout, if one is needed."""
        if self._is_needed:
            self._keys.add(key)

    def limit(self, key: Key, group: asyncio.TaskGroup, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Limit the time of the scout, from now on, if it is this attempt."""
        if key in self._keys and self._limit is None:
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
        if self._keys == {key}:
            self._return()
        self._keys.discard(key)

    def _return(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._keys.clear()
        self._limit = None
        self._on_return()
