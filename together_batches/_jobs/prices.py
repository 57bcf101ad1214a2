"""The list prices of all models, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._protocol import prices as protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from together_batches._protocol.jobs import Answer, Request
    from together_batches.models import Price


async def list_prices(send: Callable[[Request], Awaitable[Answer]]) -> dict[str, Price]:
    """Return the prices of all pages, by the names of the models."""
    prices: dict[str, Price] = {}
    cursors: set[str | None] = set()
    after: str | None = None
    while after not in cursors:  # a cursor that comes again would never end
        cursors.add(after)
        found, following = protocol.read_prices(await send(protocol.supported_models(after)))
        prices |= found
        if following is None:
            break
        after = following
    return prices
