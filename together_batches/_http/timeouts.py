"""Time limits for many attempts at once: one timer looks after all of them.

aiohttp's own limits cost two timers for each request, made and cancelled, which is a tenth of all that a small
request costs. Nearly none of them ever fires, so here one timer comes round while anything is under way, and looks.
The price is that a limit strikes up to an eighth of itself late.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    Limit = Literal["read", "total"]

__all__ = ["RequestTimeout", "TimeoutMonitor"]

_SHORTEST_ROUND_SECONDS = 0.002
_LONGEST_ROUND_SECONDS = 0.5


class Progress(Protocol):
    """What tells how far it is: bytes that came, or, of an upload, bytes that went."""

    @property
    def total_bytes(self) -> int:
        """How many bytes so far."""
        ...


class RequestTimeout:
    """One attempt under way: the task that makes it, its limits, and how far it is.

    ``expired`` names the limit that was reached, ``read`` (seconds without progress) or ``total``. ``place`` is the
    origin that the attempt has got to, if that is not the service itself. ``sent`` is False as long as the
    request has not gone out because a proxy comes first, None if that is not known. ``status`` is that of the answer
    that has begun, if one has.
    """

    __slots__ = (
        "began",
        "cancelling",
        "expired",
        "heard_at",
        "heard_bytes",
        "place",
        "progress",
        "read",
        "sent",
        "status",
        "task",
        "total",
    )

    def __init__(self, task: asyncio.Task[object], began: float, read: float, total: float) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.began = began
        self.read = read
        self.total = total
        self.progress: Progress | None = None
        self.place: str | None = None
        self.sent: bool | None = None
        self.status: int | None = None
        self.heard_at = began
        self.heard_bytes = -1
        self.expired: Limit | None = None

    def classify(self, error: BaseException) -> BaseException | None:
        """What went wrong, or None where the watch struck; a cancellation that is somebody else's is raised again."""
        if not isinstance(error, asyncio.CancelledError):
            if self.expired is not None:
                self.task.uncancel()  # the strike came out of aiohttp as something else
            return error
        # Ours, if the watch struck and nothing else wants this task to end: as asyncio.timeout tells them apart.
        if self.expired is None or self.task.uncancel() > self.cancelling:
            # Without aiohttp's frames, which hold the URL with its signature, and the headers.
            raise error.with_traceback(None)
        return None

    def is_over(self, now: float) -> bool:
        """True where a limit is reached; ``expired`` then says which."""
        heard = -1 if self.progress is None else self.progress.total_bytes
        if heard != self.heard_bytes:
            self.heard_bytes = heard
            self.heard_at = now
        if now - self.began >= self.total:
            self.expired = "total"
        elif now - self.heard_at >= self.read:
            self.expired = "read"
        return self.expired is not None


class TimeoutMonitor:
    """Cancels the task of each attempt that reaches a limit. ``clock`` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._attempts: set[RequestTimeout] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.on_silence: Callable[[float], None] | None = None
        """Called in each round with the seconds for which nothing has come of the quietest attempt under way."""

    def begin(self, attempt: RequestTimeout) -> None:
        """Look after this attempt until :meth:`end`."""
        self._attempts.add(attempt)
        if self._timer is None:
            self._come_round(attempt)

    @property
    def under_way(self) -> int:
        """How many attempts are under way."""
        return len(self._attempts)

    def end(self, attempt: RequestTimeout) -> None:
        """The attempt is over."""
        self._attempts.discard(attempt)

    def _come_round(self, shortest: RequestTimeout) -> None:
        pause = min(shortest.read, shortest.total) / 8
        pause = min(max(pause, _SHORTEST_ROUND_SECONDS), _LONGEST_ROUND_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        for attempt in [attempt for attempt in self._attempts if attempt.is_over(now)]:
            self._attempts.discard(attempt)
            attempt.task.cancel()
        if self._attempts:
            if self.on_silence is not None:
                self.on_silence(now - min(attempt.heard_at for attempt in self._attempts))
            self._come_round(min(self._attempts, key=lambda attempt: min(attempt.read, attempt.total)))
