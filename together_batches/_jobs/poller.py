"""Following of jobs until they are done: each is read when it is due, many of them together.

The poller knows when; its user knows what is read, what a result means, and when the next read is.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The service asks for polls 30 to 60 s apart (https://docs.together.ai/docs/inference/batch/manage), but a job that
# was cancelled drains within seconds (about 15 observed). So its first poll is early, and the intervals grow.
FIRST_DRAIN_SECONDS = 1.0
_LONGEST_DRAIN_SECONDS = 30.0
_DRAIN_GROWTH = 1.5
_RESOLUTION_SECONDS = 0.001
"""Clocks and timers differ in resolution."""


def longer_drain(seconds: float) -> float:
    """Return the interval after one of so many seconds, for a job that is draining."""
    return min(_LONGEST_DRAIN_SECONDS, seconds * _DRAIN_GROWTH)


class Poller:
    """Calls ``read`` with the ids of the jobs that are due, until none is left.

    ``read`` must schedule or remove each of them. ``pause`` is the minimum number of seconds between two reads.
    """

    def __init__(
        self,
        read: Callable[[list[str]], Awaitable[None]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        pause: float = 0.0,
    ) -> None:
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self._pause = pause
        self._due: dict[str, tuple[float, float]] = {}
        """When each job is read, and from when it may be read together with others."""
        self._all_at = math.inf
        self._wakes_at = -math.inf
        self._rest: asyncio.Task[None] | None = None

    def schedule(self, name: str, seconds: float, *, early: float = 0.0) -> None:
        """Read a job in so many seconds, or up to ``early`` seconds before that if others are due."""
        at = self._clock() + seconds
        self._due[name] = at, at - early
        if at < self._wakes_at:
            self.wake()

    def read_all_at(self, at: float) -> None:
        """Read all jobs at this time, in addition to their own times."""
        self._all_at = at

    def remove(self, name: str) -> None:
        """Do not read this job any more."""
        self._due.pop(name, None)

    def wake(self) -> None:
        """Check at once what there is to do, because a job is due earlier, or no further jobs will come."""
        if self._rest is not None:
            self._rest.cancel()

    async def run(self, group: asyncio.TaskGroup, *, more: Callable[[], bool]) -> None:
        """Read jobs until none is left, and ``more`` says that no further ones will come."""
        not_before = -math.inf
        try:
            while more() or self._due:
                now = self._clock() + _RESOLUTION_SECONDS
                at = max(not_before, min(self._all_at, min((due for due, _ in self._due.values()), default=math.inf)))
                if at > now:
                    # A separate task, so that an earlier job can end it.
                    self._wakes_at, self._rest = at, group.create_task(self._rest_until(at))
                    await asyncio.wait([self._rest])
                    continue
                if self._all_at <= now:
                    names, self._all_at = list(self._due), math.inf
                else:
                    names = [name for name, (_, earliest) in self._due.items() if earliest <= now]
                if names:
                    await self._read(names)
                    not_before = self._clock() + self._pause
        finally:
            self.wake()

    async def _rest_until(self, at: float) -> None:
        if at == math.inf:
            await asyncio.Event().wait()  # until it is cancelled
        await self._sleep(at - self._clock())
