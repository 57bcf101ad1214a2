"""What requests may cost: counted before they are sent, at prices that are passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from together_batches._fields import Plain
from together_batches._protocol import json_codec, request_codec
from together_batches._text import count_of, format_usd
from together_batches.jsonl._checks import Check, Rules
from together_batches.jsonl._lines import MAX_LINE_BYTES
from together_batches.jsonl._requests import CHAT, JSON_SPACE, MAX_CUSTOM_ID
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
    sizes = _Sizes()
    check = Check(Rules(endpoint=CHAT, max_custom_id=MAX_CUSTOM_ID, max_line_bytes=MAX_LINE_BYTES))
    for lines in check.lines(source):
        raise_if_cancelled()
        for line in lines.texts:
            sizes.add(line)
    found = sizes.estimate(name_of(source), check.bytes, prices)
    if not found.rows:
        check.finish(found.source).raise_for_problems()  # such as those of a file in another format
    return found


class _Sizes:
    """The sizes of requests, by model."""

    def __init__(self) -> None:
        self._rows = Counter[str]()
        self._prompt_bytes = Counter[str]()
        self._most = Counter[str]()
        self._unlimited = self._invalid = 0

    def add(self, line: bytes) -> None:
        if not line.strip(JSON_SPACE):
            return
        try:
            model, size, most = request_codec.measured(line)
        except json_codec.WireError:
            self._invalid += 1
            return
        self._rows[model] += 1
        self._prompt_bytes[model] += size
        if most is None:
            self._unlimited += 1
        else:
            self._most[model] += most

    def estimate(self, source: str, size: int, prices: Prices | None) -> Estimate:
        priced = {model: price_of(model, prices) for model in self._rows}
        usages = {
            model: Usage(self._prompt_bytes[model] // BYTES_PER_TOKEN, self._most[model]) for model in self._rows
        }
        prompts: list[float | None] = []
        most: list[float | None] = []
        for model, price in priced.items():
            prompt = Usage(usages[model].prompt_tokens)
            prompts.append(None if price is None else price.of(prompt))
            most.append(None if price is None else price.of(usages[model]))
        return Estimate(
            source=source,
            rows=self._rows.total(),
            invalid=self._invalid,
            bytes=size,
            models=dict(self._rows),
            unpriced=tuple(model for model, price in priced.items() if price is None),
            prompt_tokens=sum(usage.prompt_tokens for usage in usages.values()),
            max_completion_tokens=self._most.total(),
            unlimited=self._unlimited,
            prompt_cost=_sum(prompts),
            max_cost=None if self._unlimited else _sum(most),
        )


def price_of(model: str, prices: Prices | None) -> Price | None:
    """Return the price of a model, None if it is not known."""
    return prices if isinstance(prices, Price) or prices is None else prices.get(model)


def _sum(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
