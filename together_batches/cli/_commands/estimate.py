"""The command ``together-batches estimate``, and the prices that other commands use, too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from together_batches._text import format_usd
from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, service_options
from together_batches.cli._inputs.local_files import requests_argument, requests_in, schema_in, schema_option
from together_batches.cli._inputs.table_options import as_options, requests_of, table_options, taken
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit, code_of
from together_batches.cli._terminal.loop import in_loop, raised_by_signals
from together_batches.cli._terminal.numbers import zero_or_above
from together_batches.cli._terminal.text import as_json, count_of, folded, print_err, print_lines, terminal
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from together_batches.jsonl import Estimate
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


@command("estimate")
@requests_argument
@table_options
@option("--model M", "with --prompt: the model of the requests")
@schema_option
@price_options
@service_options
def estimate(
    common: Common,
    source: str,
    model: str | None,
    schema: str | None,
    price_in: float | None,
    price_out: float | None,
    **options: Any,
) -> Exit:
    """Estimate the tokens of a file of requests, and their cost at list prices, before
    anything is sent. The prices come from the service if the key may read them.
    The options of a table are those of run.

    examples:
      together-batches estimate requests.jsonl
      together-batches estimate requests.jsonl --price-in 0.05 --price-out 0.20
      together-batches estimate cities.csv --prompt "Which river crosses {city}?"
          --model openai/gpt-oss-20b --parameter max_tokens=64
    """
    from together_batches import jsonl

    try:
        table = requests_of(source, model, taken(options), schema_in(schema))
        if table is None and not (model is None and schema is None):
            message = f"--{'model' if model else 'schema'} is for a table: add --prompt"
            raise CommandError(message)
        prices = given_price(price_in, price_out) or list_prices(common)
        with raised_by_signals():
            found = jsonl.estimate(table or requests_in(source), prices=prices)
    except BatchesError as error:
        raise CommandError(as_options(str(error)), code_of(error)) from error
    if common.json:
        print(as_json(found))
    else:
        width = terminal(sys.stdout).width
        print_lines(piece for line in _lines(found) for piece in folded(line, width, indent="  "))
    if found.invalid:
        print_err(f"{count_of(found.invalid, 'line')} not counted, because it is not a request: see validate")
    if prices is None:
        print_err("to have the costs, pass --price-in and --price-out")
    elif found.unpriced:
        print_err(f"no price is known of {', '.join(found.unpriced)}: pass --price-in and --price-out")
    else:
        common.note(DISCOUNT)
    return Exit.DONE


@in_loop
async def list_prices(common: Common) -> Mapping[str, Price] | None:
    """Return the list prices of the service; None, after a line that says why, if they cannot be read."""
    try:
        async with connected(common) as batches:
            return await batches.prices()
    except (BatchesError, CommandError) as error:
        print_err(f"the list prices cannot be read: {error}")
        return None


def _lines(found: Estimate) -> Iterator[str]:
    yield f"{count_of(found.rows, 'row')}, {count_of(found.bytes, 'byte')}"
    yield f"requests: about {count_of(found.prompt_tokens, 'token')}, one for each 4 bytes"
    limits = f"at most {count_of(found.max_completion_tokens, 'token')}, the sum of max_tokens"
    if found.unlimited:
        limits += f"; {count_of(found.unlimited, 'row')} without it can have more"
    yield f"answers: {limits}"
    if found.prompt_cost is not None:
        yield f"cost of the requests: about {format_usd(found.prompt_cost)}"
    if found.max_cost is not None:
        yield f"cost with the answers: at most {format_usd(found.max_cost)}"
