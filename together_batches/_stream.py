"""The iterator that the client returns: an async iterator and async context manager over a generator."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class Stream(Generic[T]):
    """An async iterator that stops its work when it is left.

    It is left at its end, by ``async with``, by :meth:`aclose`, or by dropping it: then the loop closes the generator
    shortly afterwards. With ``looks_ahead``, entering it by ``async with`` fetches its first item, so that an error
    at the start is raised there.
    """

    def __init__(self, generator: AsyncGenerator[T, None], *, looks_ahead: bool = False) -> None:
        self._generator = generator
        self._looks_ahead = looks_ahead
        self._ahead: list[T] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._ahead.pop() if self._ahead else await self._generator.__anext__()

    async def __aenter__(self) -> Self:
        if self._looks_ahead:
            self._looks_ahead = False
            # An end without an item is raised again by the next iteration.
            with suppress(StopAsyncIteration):
                self._ahead.append(await self._generator.__anext__())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the work behind this iterator, and return when it has stopped. Closing again does nothing."""
        self._ahead.clear()
        await self._generator.aclose()
