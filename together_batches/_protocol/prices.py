"""List prices: the request for the models that the service supports, and their prices in its response.

Only the official SDK documents it (``models.list_supported``), and it does not mention batches and their discount.
"""

from __future__ import annotations

from math import isfinite
from typing import cast
from urllib.parse import urlencode

from together_batches._protocol import json_codec
from together_batches._protocol.jobs import Answer, Request, invalid_response
from together_batches.models import Price

_WHAT = "a list of supported models"
_NAMES = ("name", "id", "serverlessEndpoint")
"""Members that can have the name by which requests call a model."""


def base_of_models(base_url: str) -> str:
    """Return the base URL of this request: version 2 of the API, instead of version 1."""
    return base_url.removesuffix("/v1") + "/v2"


def supported_models(after: str | None) -> Request:
    """Return the request for a page of the list; ``after`` is the cursor from the page before."""
    query = "" if after is None else "?" + urlencode({"after": after})
    return Request("GET", f"/supported-models{query}", repeatable=True)


def read_prices(answer: Answer) -> tuple[dict[str, Price], str | None]:
    """Return the prices on a page by the names of the models, and the cursor of the next page, if there is one.

    A model without both prices is left out.
    """
    try:
        page = json_codec.read(answer.body)
    except json_codec.WireError as error:
        raise invalid_response(answer, _WHAT, error.problem, error.where) from error
    members = cast("dict[str, object]", page) if isinstance(page, dict) else {"data": page}
    models = members.get("data")
    if not isinstance(models, list):
        raise invalid_response(answer, _WHAT, f"{json_codec.kind(models)} instead of a list", "$.data")
    prices: dict[str, Price] = {}
    for model in cast("list[object]", models):
        if isinstance(model, dict):
            found = cast("dict[str, object]", model)
            price = _price(found.get("pricing"))
            names = [found.get(name) for name in _NAMES]
            if price is not None:
                prices.update({name: price for name in names if isinstance(name, str) and name})
    after = members.get("next_cursor")
    return prices, after if isinstance(after, str) and after else None


def _price(pricing: object) -> Price | None:
    if not isinstance(pricing, dict):
        return None
    found = cast("dict[str, object]", pricing)
    price = [found.get(name) for name in ("input", "output")]
    numbers = [float(each) for each in price if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) != len(price) or not all(isfinite(number) and number >= 0 for number in numbers):
        return None
    return Price(*numbers)
