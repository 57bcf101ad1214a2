"""The command ``together-batches estimate``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from together_batches._text import format_usd
from together_batches.cli._account.options import Common, service_options
from together_batches.cli._inputs.local_files import requests_argument, requests_in, schema_in, schema_option
from together_batches.cli._inputs.prices import DISCOUNT, given_price, list_prices, price_options
from together_batches.cli._inputs.table_options import as_options, requests_of, table_options, taken
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit, code_of
from together_batches.cli._terminal.loop import raised_by_signals
from together_batches.cli._terminal.text import as_json, count_of, folded, print_err, print_lines, terminal
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from together_batches.jsonl import Estimate


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
