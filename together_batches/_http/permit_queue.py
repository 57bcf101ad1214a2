"""Queue of the calls that wait for a permit: of a rate limiter, or of a limit on connections."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    class Limiter(Protocol):
        """A source of permits."""

        def try_acquire(self, now: float, /) -> float:
            """Return 0 and grant a permit, or return the seconds after which to try again."""
            ...

        def on_unanswered(self) -> None:
            """Take back a permit that was not used."""


class PermitQueue:
    """First-in, first-out queue of calls, released as fast as a limiter allows.

    Calls wait here and not in timers of their own, because the rate may change while they wait.
    """

    def __init__(self, limiter: Limiter, clock: Callable[[], float]) -> None:
        self._limiter = limiter
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def try_acquire(self) -> bool:
        """Return True, and count a send, if it may happen now; otherwise await :meth:`acquire`."""
        if self._waiting:
            return False
        wait = self._limiter.try_acquire(self._clock())
        if wait > 0:
            self._release_in(wait)
            return False
        return True

    async def acquire(self, seconds_left: float | None) -> float:
        """Wait until a send may happen, and return the seconds waited.

        Raises :class:`TimeoutError` if that takes more than ``seconds_left`` (None: no limit).
        """
        if self.try_acquire():
            return 0.0
        came = self._clock()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds_left):
                await turn
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._limiter.on_unanswered()  # the permit had been granted
            raise
        return self._clock() - came

    def release_all(self) -> None:
        """Release all waiting calls, because the reason to wait is gone."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def release_permitted(self) -> None:
        """Release waiting calls if the limiter now allows it."""
        if self._waiting:
            self._release()

    def _release_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._release)

    def _release(self) -> None:
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            wait = self._limiter.try_acquire(self._clock())
            if wait > 0:
                self._release_in(wait)
                return
            self._waiting.popleft().set_result(None)
