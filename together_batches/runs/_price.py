"""The price at which the cost of a run is counted."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from together_batches.errors import APIError, UsageError
from together_batches.jsonl._estimate import estimated
from together_batches.models import Price
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from together_batches.runs._options import Options

_log = logging.getLogger("together_batches")


async def price_of_run(
    path: Path, directory: Path, options: Options, list_prices: Callable[[], Awaitable[Mapping[str, Price]]]
) -> Price | None:
    """Return the price of the models in an input, None if it is not known, or not needed.

    The tokens of a job are not known by model, so several models are counted at the highest of their prices. Raises
    :class:`UsageError` if a price is not known, and the run is to stop by its cost.
    """
    given, must = options.prices, options.stop_after_cost is not None
    if isinstance(given, Price):
        return given
    if given is None and options.sample is None and not must:
        return None
    reason = "pass prices"
    prices: Mapping[str, Price] = given or {}
    if given is None:
        try:
            prices = await list_prices()
        except APIError as error:
            reason = f"pass prices, because the list prices cannot be read: {error}"
    models = (await in_thread(partial(estimated, path, None), large=True)).models
    known = [prices[model] for model in models if model in prices]
    if len(known) == len(models):
        return Price(max(price.input for price in known), max(price.output for price in known))
    unknown = ", ".join(model for model in models if model not in prices)
    if must:
        message = f"stop_after_cost needs the price of {unknown}, which is not known: {reason}"
        raise UsageError(message)
    if options.prices is None:
        message = "the cost is not counted, because no price of %s is known: %s"
        _log.warning(message, unknown, reason, extra={"directory": str(directory)})
    return None
