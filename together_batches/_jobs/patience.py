"""How long something that is known to exist may be absent before its absence is reported.

A 404, a file id that is not there yet, a file shorter than its metadata says: each may be a service that looks
inconsistent for a moment. Only answers that say "absent" use up patience. An outage does not, since no answer is no
evidence in either direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from together_batches.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Absence", "say_how_long", "until_found"]

_SHORTEST_SECONDS = 1.0
_LONGEST_SECONDS = 30.0

T = TypeVar("T")


class Absence:
    """The looks at something absent: how long to pause before each, until patience is used up.

    The pauses are what is counted, not a clock: they pass only between two answers that say "absent".
    """

    def __init__(
        self, patience_seconds: float, *, shortest: float = _SHORTEST_SECONDS, longest: float = _LONGEST_SECONDS
    ) -> None:
        self._patience = patience_seconds
        self._longest = longest
        self._shortest = self._next = shortest
        self._counted = 0.0

    def pause(self) -> float | None:
        """Count a look in vain. Returns the seconds until the next look, or None if patience is used up."""
        left = self._patience - self._counted
        if left <= 0:
            return None
        pause = min(self._next, left)
        self._next = min(2 * self._next, self._longest)
        self._counted += pause
        return pause

    def over(self) -> None:
        """Start anew: it has been seen."""
        self._next = self._shortest
        self._counted = 0.0


async def until_found(
    look: Callable[[], Awaitable[T]],
    *,
    patience: float,
    sleep: Callable[[float], Awaitable[None]],
    on_absent: Callable[[NotFoundError, float], object] = lambda _, __: None,
) -> T:
    """The answer of ``look``, which is called again after a 404 for as long as ``patience`` allows.

    ``on_absent`` is called with each 404 and the pause before the next look. Raises the last
    :class:`NotFoundError`, with the time in its text, and any other error of ``look`` at once.
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
            on_absent(error, pause)
        await sleep(pause)


def say_how_long(error: NotFoundError, patience: float) -> None:
    """Add to the text of an error that stayed for how long it did; nothing if there was one look."""
    if patience:
        error.message += f" (it exists as far as is known, and has been absent for {patience:g} s)"
