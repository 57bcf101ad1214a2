"""``prices`` of both clients, against the emulator."""

from __future__ import annotations

import pytest
from wires import KEY

from together_batches import AsyncBatches, Batches, PermissionDeniedError, Price
from together_batches.emulator import Emulator, Fault

PRICES = {f"model-{number:03}": (number / 100, number / 50) for number in range(205)}


async def test_all_pages() -> None:
    """The prices of all pages are read, with the key, and a price that is passed on is a sum of both parts."""
    async with (
        Emulator(api_key=KEY, prices=PRICES) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url) as batches,
    ):
        prices = await batches.prices()
        assert prices == {name: Price(*price) for name, price in PRICES.items()}
        assert [request.path for request in emulator.requests] == [
            "/v2/supported-models",
            "/v2/supported-models?after=model-099",
            "/v2/supported-models?after=model-199",
        ]


async def test_a_cursor_that_comes_again() -> None:
    """A list whose cursor does not advance ends."""
    again = Fault(on="models", body={"data": [], "next_cursor": "a"}, times=None)
    async with (
        Emulator(api_key=KEY, faults=[again]) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url) as batches,
    ):
        assert await batches.prices() == {}
        assert emulator.count("models") == 2


def test_a_key_without_access() -> None:
    """A key that may not read the list is an error of its own, and other calls go on."""
    refusing = Fault(on="models", status=403, times=None)
    with (
        Emulator(api_key=KEY, faults=[refusing]).running_in_thread() as emulator,
        Batches(KEY, base_url=emulator.base_url) as batches,
    ):
        with pytest.raises(PermissionDeniedError, match=r"GET .*/v2/supported-models"):
            batches.prices()
        assert batches.list() == []
