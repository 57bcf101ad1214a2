"""What every iterator of the client is: an async iterator and an async context manager around a generator."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class Stream(Generic[T]):
    """An async iterator that stops its work when it is left.

    Leave it by its end, by ``async with``, by :meth:`aclose`, or by dropping it: then the loop closes the generator
    within, a moment later. One that ``looks_ahead`` gets its first item when it is entered by ``async with``, so that
    what cannot be begun fails there.
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
            # An end without an item shows again when it is asked for.
            with suppress(StopAsyncIteration):
                self._ahead.append(await self._generator.__anext__())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the work behind this iterator, and return when it has stopped. May be called twice."""
        self._ahead.clear()
        await self._generator.aclose()
