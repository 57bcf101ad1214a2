"""What requests may cost: counted before they are sent, at prices that are passed in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from together_batches._fields import Plain
from together_batches._protocol import json_codec, request_codec
from together_batches._text import count_of, format_usd
from together_batches.jsonl._checks import Check, Rules
from together_batches.jsonl._lines import MAX_LINE_BYTES
from together_batches.jsonl._requests import CHAT, MAX_CUSTOM_ID
from together_batches.jsonl._sources import name_of
from together_batches.models import Price
from together_batches.rows import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.jsonl._sources import Source

Prices = Price | Mapping[str, Price]
"""One price for all models, or the price of each by its name."""

BYTES_PER_TOKEN = 4
"""The rule of an estimate: a token for each four bytes of a body, as JSON."""


@attrs.frozen(kw_only=True)
class Estimate(Plain):
    """The result of :func:`estimate`; ``str(estimate)`` is a summary.

    ``prompt_tokens`` follow a rule: one for each four bytes of the body of a row, as JSON. ``max_completion_tokens``
    is the sum of the limits that rows set (``max_tokens``, times ``n``); ``unlimited`` rows set none. ``invalid``
    lines are not counted. The costs are in USD at list prices, which may be more than batches cost. They are None if
    the price of a model is not known (``unpriced``), and ``max_cost`` also if rows have no limit.
    """

    source: str
    rows: int
    invalid: int
    bytes: int
    models: Mapping[str, int] = attrs.field(hash=False)
    unpriced: tuple[str, ...]
    prompt_tokens: int
    max_completion_tokens: int
    unlimited: int
    prompt_cost: float | None = None
    max_cost: float | None = None

    def __str__(self) -> str:
        most = f"at most {count_of(self.max_completion_tokens, 'token')} in answers"
        if self.unlimited:
            most += f" and no limit in {count_of(self.unlimited, 'row')}"
        text = (
            f"{self.source}: {count_of(self.rows, 'row')}, {count_of(self.bytes, 'byte')}, "
            f"about {count_of(self.prompt_tokens, 'token')} in requests, {most}"
        )
        if self.max_cost is not None:
            return f"{text}; at most {format_usd(self.max_cost)} at list prices"
        if self.prompt_cost is not None:
            return f"{text}; {format_usd(self.prompt_cost)} for the requests at list prices"
        return text


def estimate(source: Source, *, prices: Prices | None = None) -> Estimate:
    """Estimate the tokens of a file of requests, or of requests, and what they cost at these prices.

    It reads the source once, and sends nothing. The texts are not tokenised, so the tokens of the requests are
    approximate, and an image within a row counts by its bytes; ``run(sample=...)`` measures them. ``prices`` are
    those of :meth:`~together_batches.AsyncBatches.prices`, or one :class:`Price` for all models.

    Raises :class:`UsageError` if the file cannot be read, and :class:`ValidationError` if it is in another format.
    """
    return estimated(source, prices, lambda: None)


def estimated(source: Source, prices: Prices | None, raise_if_cancelled: Callable[[], None]) -> Estimate:
    """Return the estimate; ``raise_if_cancelled`` is called regularly; an exception from it aborts this."""
    rules = Rules(endpoint=CHAT, max_custom_id=MAX_CUSTOM_ID, max_line_bytes=MAX_LINE_BYTES, mending=True)
    check = Check(rules)  # of the lines alone that are not counted
    sizes = defaultdict[str, _Size](_Size)
    for lines in check.lines(source):
        raise_if_cancelled()
        for line in lines:
            try:
                model, body_bytes, most_tokens = request_codec.measured(line.content)
            except json_codec.WireError:
                check.is_good(line)
                continue
            sizes[model].add(body_bytes, most_tokens)
    name = name_of(source)
    if not sizes:
        check.finish(name).raise_for_problems()  # such as those of a file in another format
    priced = {model: price for model in sizes if (price := _price_of(model, prices)) is not None}
    are_priced, unlimited = len(priced) == len(sizes), sum(size.unlimited for size in sizes.values())
    prompt_cost = sum(price.of(Usage(sizes[model].prompt_tokens)) for model, price in priced.items())
    max_cost = sum(price.of(Usage(sizes[model].prompt_tokens, sizes[model].most)) for model, price in priced.items())
    return Estimate(
        source=name,
        rows=sum(size.rows for size in sizes.values()),
        invalid=check.rows,
        bytes=check.bytes,
        models={model: size.rows for model, size in sizes.items()},
        unpriced=tuple(model for model in sizes if model not in priced),
        prompt_tokens=sum(size.prompt_tokens for size in sizes.values()),
        max_completion_tokens=sum(size.most for size in sizes.values()),
        unlimited=unlimited,
        prompt_cost=prompt_cost if are_priced else None,
        max_cost=max_cost if are_priced and not unlimited else None,
    )


@attrs.define
class _Size:
    """The requests to one model."""

    rows: int = 0
    body_bytes: int = 0
    most: int = 0
    unlimited: int = 0

    def add(self, body_bytes: int, most_tokens: int | None) -> None:
        self.rows += 1
        self.body_bytes += body_bytes
        if most_tokens is None:
            self.unlimited += 1
        else:
            self.most += most_tokens

    @property
    def prompt_tokens(self) -> int:
        return self.body_bytes // BYTES_PER_TOKEN


def _price_of(model: str, prices: Prices | None) -> Price | None:
    return prices if isinstance(prices, Price) or prices is None else prices.get(model)
