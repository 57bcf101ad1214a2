"""The prices that a command computes with: those in its options, otherwise the list prices of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.cli._account.client import connected
from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.exits import CommandError
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.numbers import zero_or_above
from together_batches.cli._terminal.text import print_err
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from together_batches.cli._account.options import Common
    from together_batches.models import Price

    F = TypeVar("F", bound=Callable[..., object])

DISCOUNT = "batches may cost less than list prices: the service names no discount"


def price_options(function: F) -> F:
    """Add ``--price-in`` and ``--price-out``, which :func:`given_price` reads."""
    answers = option("--price-out USD", "price of a million tokens of answers", type=zero_or_above)
    return option("--price-in USD", "price of a million tokens of requests", type=zero_or_above)(answers(function))


def given_price(price_in: float | None, price_out: float | None) -> Price | None:
    """Return the price in the options, if any; raise :class:`CommandError` for one option without the other."""
    from together_batches.models import Price

    if price_in is None or price_out is None:
        if price_in is None and price_out is None:
            return None
        message = "--price-in and --price-out go together"
        raise CommandError(message)
    return Price(price_in, price_out)


@in_loop
async def list_prices(common: Common) -> Mapping[str, Price] | None:
    """Return the list prices of the service; None, after a line that says why, if they cannot be read."""
    try:
        async with connected(common) as batches:
            return await batches.prices()
    except (BatchesError, CommandError) as error:
        print_err(f"the list prices cannot be read: {error}")
        return None
