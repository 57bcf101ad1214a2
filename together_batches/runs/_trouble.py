"""Transient failures: report them, and wait."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from together_batches.errors import APIError, BatchesError, NotFoundError
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from together_batches.runs._api import Clock
    from together_batches.runs._events import EventSink
    from together_batches.runs._records import Key

__all__ = ["Trouble"]

_log = logging.getLogger("together_batches")

SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0

T = TypeVar("T")


class Trouble:
    """Reporter of transient failures, as a warning and as an event, which then waits."""

    def __init__(self, time: Clock, emit: EventSink) -> None:
        self._time = time
        self._emit = emit

    async def until_answered(
        self,
        what: str,
        key: Key | None,
        call: Callable[[], Awaitable[T]],
        *,
        is_over: Callable[[APIError], bool] = lambda _: False,
    ) -> T:
        """Return the result of ``call``, after any outage; raise other errors, and one that ``is_over``."""
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except APIError as error:
                if not error.is_transient or is_over(error):
                    raise
                pause = await self.wait(what, key, error, pause)

    async def if_present(self, what: str, key: Key | None, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``call``, however long an outage lasts; None after a 404."""
        try:
            return await self.until_answered(what, key, call)
        except NotFoundError:
            return None

    async def wait(self, what: str, key: Key | None, problem: BatchesError | str, pause: float) -> float:
        """Report a failure, wait, and return the seconds to wait next time."""
        subject = "the run" if key is None else f"shard {key[0]}, attempt {key[1]}"
        message = f"{subject}: {what} failed, retrying in {pause:g} s: {problem}"
        shard, attempt = key or (None, None)
        _log.warning("%s", message, extra={"shard": shard, "attempt": attempt, "wait": pause})
        self._emit(RunEventKind.TROUBLE, message, key)
        await self._time.sleep(pause)
        return min(2 * pause, _LONGEST_PAUSE_SECONDS)
