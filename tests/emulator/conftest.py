"""A clock that advances only by hand, a sleep that only records, and a bare HTTP client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

START = 1_789_381_230.481925  # 2026-09-14T10:20:30.481925Z


class FakeClock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class FakeSleep:
    def __init__(self) -> None:
        self.naps: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sleep() -> FakeSleep:
    return FakeSleep()


@pytest.fixture
async def emulator(clock: FakeClock, sleep: FakeSleep) -> AsyncIterator[Emulator]:
    async with Emulator(clock=clock, sleep=sleep) as running:
        yield running


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {emulator.api_key}", "User-Agent": "test"}
    async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as session:
        yield session
