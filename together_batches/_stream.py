"""What every iterator of the client is: an async iterator and an async context manager around a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class Stream(Generic[T]):
    """An async iterator that stops its work when it is left.

    Leave it by its end, by ``async with``, by :meth:`aclose`, or by dropping it: then the loop closes the generator
    within, a moment later.
    """

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self._generator.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the work behind this iterator, and return when it has stopped. May be called twice."""
        await self._generator.aclose()
