"""Fixtures for runs: a client in virtual time, and an emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from wires import KEY, VirtualTime

from together_batches import jsonl
from together_batches.emulator import Emulator

from .stage import QUICK, Fates, Runner, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from together_batches import AsyncBatches


@pytest.fixture
def fates() -> Fates:
    return Fates()


@pytest.fixture
async def emulator(fates: Fates) -> AsyncIterator[Emulator]:
    async with Emulator(api_key=KEY, timing=QUICK, answer=fates) as running:
        yield running


@pytest.fixture
async def time(emulator: Emulator) -> AsyncIterator[VirtualTime]:
    async with VirtualTime(emulator) as passing:
        yield passing


@pytest.fixture
async def batches(time: VirtualTime) -> AsyncIterator[AsyncBatches]:
    async with time.client() as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    jsonl.write(requests(), tmp_path / "in.jsonl")
    return tmp_path / "in.jsonl"


@pytest.fixture
def run(batches: AsyncBatches, source: Path, tmp_path: Path, fates: Fates) -> Runner:
    return Runner(batches, source, tmp_path / "out.jsonl", fates)
