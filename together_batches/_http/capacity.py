"""The number of attempts under way on a machine that has run out of descriptors or ports."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Capacity"]

_SHARE = 0.8
"""Share of the possible connections that is used; the rest is for files and other connections of the program."""
_LOOK_SECONDS = 1.0
"""Seconds between checks for room: attempts that are cancelled do not report their end here."""


class Capacity:
    """A limit on the attempts under way: none until :meth:`ran_out`, then one that follows the machine.

    ``under_way`` returns the number of attempts under way. Those beyond the limit wait in order of arrival. The limit
    grows by one after as many answers as it allows attempts: a failure to open a connection costs nothing.
    """

    def __init__(self, under_way: Callable[[], int]) -> None:
        self.limit: int | None = None
        self._under_way = under_way
        self._granted = 0
        self._answers = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def ran_out(self) -> None:
        """Lower the limit, because no connection could be opened beside those of the attempts under way."""
        possible = max(1, int(_SHARE * self._under_way()))
        self.limit = possible if self.limit is None else min(self.limit, possible)
        self._answers = 0

    async def enter(self, seconds_left: float) -> None:
        """Return when an attempt may begin; raise :class:`TimeoutError` if that takes more than ``seconds_left``."""
        if not self._waiting and self._has_room():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._look_later()
        granted = False
        try:
            async with asyncio.timeout(seconds_left):
                await turn
            granted = True
        finally:
            if turn.done() and not turn.cancelled():
                self._granted -= 1
                if not granted:  # cancelled after it was granted: the next one takes its place
                    self._admit()
            turn.cancel()

    def leave(self, *, answered: bool) -> None:
        """Record that an attempt has ended, with or without an answer."""
        if answered and self.limit is not None:
            self._answers += 1
            if self._answers >= self.limit:
                self._answers = 0
                self.limit += 1
        self._admit()

    def _has_room(self) -> bool:
        return self.limit is None or self._under_way() + self._granted < self.limit

    def _admit(self) -> None:
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._granted += 1

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self._admit()
        if self._waiting:
            self._look_later()
