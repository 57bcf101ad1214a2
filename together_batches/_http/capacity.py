"""The limit for calls that could not open a connection: the machine has run out of descriptors or ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._http.permit_queue import PermitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARE = 0.8
"""Share of the possible connections that is used; the rest is for files and other connections of the program."""
_LOOK_SECONDS = 1.0
"""Seconds between checks for room: attempts that are cancelled do not report their end here."""


class Capacity:
    """A limit on the attempts under way: none until :meth:`ran_out`, then one that follows the machine.

    ``under_way`` returns the number of attempts under way. A call whose connection could not be opened waits here, in
    order of arrival, until they are fewer than the limit; other calls begin without it. The limit grows by one after
    as many answers as it allows attempts: a failure to open a connection costs nothing.
    """

    def __init__(self, under_way: Callable[[], int], clock: Callable[[], float]) -> None:
        self.limit: int | None = None
        self._under_way = under_way
        self._granted = 0
        """Number of attempts that may begin, and have not yet."""
        self._answers = 0
        self._queue = PermitQueue(self, clock)

    def ran_out(self) -> None:
        """Lower the limit, because no connection could be opened beside those of the attempts under way."""
        possible = max(1, int(_SHARE * self._under_way()))
        self.limit = possible if self.limit is None else min(self.limit, possible)
        self._answers = 0

    async def enter(self, seconds_left: float) -> None:
        """Return when an attempt may begin; raise :class:`TimeoutError` if that takes more than ``seconds_left``."""
        await self._queue.acquire(seconds_left)
        self._granted -= 1

    def leave(self, *, answered: bool) -> None:
        """Record that an attempt has ended, with or without an answer."""
        if answered and self.limit is not None:
            self._answers += 1
            if self._answers >= self.limit:
                self._answers = 0
                self.limit += 1
        self._queue.release_permitted()

    def try_acquire(self, _: float) -> float:
        """Return 0 and reserve room for an attempt if there is some, otherwise the seconds until the next check."""
        if self.limit is not None and self._under_way() + self._granted >= self.limit:
            return _LOOK_SECONDS
        self._granted += 1
        return 0.0

    def on_unanswered(self) -> None:
        """Return the room of an attempt that was cancelled before it began; the next one takes its place."""
        self._granted -= 1
        self._queue.release_permitted()
