"""Limits on how long a resource that is known to exist may be absent before that is reported.

A 404, a file id that is not set yet, a file shorter than its metadata says: each may be a transient inconsistency of
the service. Only answers that mean "absent" use up patience. An outage does not, because a missing answer is no
evidence in either direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from together_batches.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_SHORTEST_SECONDS = 1.0
_LONGEST_SECONDS = 30.0

T = TypeVar("T")


class Absence:
    """The pauses between reads of an absent resource, until patience is used up.

    Pauses are counted, and not a clock, because they pass only between two answers that mean "absent".
    """

    def __init__(
        self, patience_seconds: float, *, shortest: float = _SHORTEST_SECONDS, longest: float = _LONGEST_SECONDS
    ) -> None:
        self._patience = patience_seconds
        self._longest = longest
        self._shortest = self._next = shortest
        self._counted = 0.0

    def pause(self) -> float | None:
        """Count a failed read. Return the seconds until the next one, or None if patience is used up."""
        left = self._patience - self._counted
        if left <= 0:
            return None
        pause = min(self._next, left)
        self._next = min(2 * self._next, self._longest)
        self._counted += pause
        return pause

    def over(self) -> None:
        """Reset: the resource was found."""
        self._next = self._shortest
        self._counted = 0.0


async def until_found(
    look: Callable[[], Awaitable[T]],
    *,
    patience: float,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Return the result of ``look``, called again after each 404 until ``patience`` is used up.

    Raises the last :class:`NotFoundError`, with the duration in its text, and any other error of ``look`` at once.
    """
    absence = Absence(patience)
    while True:
        try:
            return await look()
        except NotFoundError as error:
            pause = absence.pause()
            if pause is None:
                say_how_long(error, patience)
                raise
        await sleep(pause)


def say_how_long(error: NotFoundError, patience: float) -> None:
    """Add the duration of the absence to the text of an error; nothing if there was only one read."""
    if patience:
        error.message += f" (it exists as far as is known, and has been absent for {patience:g} s)"
