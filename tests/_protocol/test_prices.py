"""List prices in the service's list of models; whatever else is in it is ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from together_batches import APIResponseValidationError, Price
from together_batches._protocol.jobs import Answer
from together_batches._protocol.prices import base_of_models, read_prices, supported_models

PRICING = {"input": 0.05, "output": 0.2, "cachedInput": None}


def _answer(body: Any) -> Answer:
    request = supported_models(None)
    return Answer(request, "https://service.example/v2/supported-models", 200, {}, json.dumps(body).encode())


def test_a_page() -> None:
    """A price is known by each name of its model, and the cursor leads to the next page."""
    model = {"id": "model-1", "name": "openai/gpt-oss-20b", "serverlessEndpoint": "", "pricing": PRICING, "tags": []}
    prices, after = read_prices(_answer({"data": [model], "next_cursor": "model-1"}))
    assert prices == dict.fromkeys(("model-1", "openai/gpt-oss-20b"), Price(0.05, 0.2))
    assert after == "model-1"
    assert supported_models("a b").path == "/supported-models?after=a+b"


@pytest.mark.parametrize(
    "model",
    [
        {"name": "m"},
        {"name": "m", "pricing": None},
        {"name": "m", "pricing": {"input": 0.1}},
        {"name": "m", "pricing": {"input": 0.1, "output": "dear"}},
        {"name": "m", "pricing": {"input": 0.1, "output": -1}},
        {"name": "m", "pricing": {"input": 0.1, "output": True}},
        {"name": 7, "pricing": PRICING},
        "m",
    ],
)
def test_models_without_a_price(model: Any) -> None:
    """A model without both prices, or without a name, costs only itself."""
    known = {"name": "known", "pricing": PRICING}
    assert read_prices(_answer([model, known])) == ({"known": Price(0.05, 0.2)}, None)


@pytest.mark.parametrize("body", [{}, {"data": "many"}, 7])
def test_what_is_no_list(body: Any) -> None:
    """Another response is an error that says what was expected."""
    with pytest.raises(APIResponseValidationError, match="not a list of supported models"):
        read_prices(_answer(body))


def test_the_address() -> None:
    """The list is part of version 2 of the API, at the same place."""
    assert base_of_models("https://gateway.example/together/v1") == "https://gateway.example/together/v2"
