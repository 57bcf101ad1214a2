"""Where calls wait for their turn: the waiting that belongs to the paces of :mod:`together_batches._pacing`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches._pacing import Brake, Pace

__all__ = ["Gate"]


class Gate:
    """Lets callers through in the order they came, as fast as a pace allows.

    They queue here, and not in timers of their own, because the pace may change while they wait.
    """

    def __init__(self, pace: Pace | Brake, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def passes(self) -> bool:
        """True where a send may happen now (and it is counted); otherwise :meth:`enter` is to be awaited."""
        if self._waiting:
            return False
        wait = self._pace.take(self._clock())
        if wait > 0:
            self._wake_in(wait)
            return False
        return True

    async def enter(self, seconds_left: float | None) -> float:
        """Return when a send may happen, with the seconds that were waited for it.

        Raises :class:`TimeoutError` where it takes longer than is left (None: as long as it takes).
        """
        if self.passes():
            return 0.0
        came = self._clock()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds_left):
                await turn
        finally:
            turn.cancel()  # does nothing to a turn that came; one that was given up is skipped when it comes
        return self._clock() - came

    def open(self) -> None:
        """Let everyone in who waits: there is nothing left to wait for."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._let_in)

    def _let_in(self) -> None:
        self._timer = None
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            wait = self._pace.take(self._clock())
            if wait > 0:
                self._wake_in(wait)
                return
            self._waiting.popleft().set_result(None)
