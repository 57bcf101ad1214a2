"""Programs that run on libraries other than asyncio, as far as these are installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

BESIDE = """
import sys, time
from together_batches import Batches

ticks = []

def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.02)

spawn(tick)
with Batches("key", base_url=sys.argv[1]) as batches:
    print(wait(spawn(batches.retrieve, "slow")).id)
    print(batches.cancel_many(["slow"]).ok, len(ticks) > 5)
"""
PATCHED = {
    "gevent": "from gevent import monkey; monkey.patch_all()\n"
    "import gevent; spawn = gevent.spawn; wait = lambda running: running.get()\n",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()\n"
    "spawn = eventlet.spawn; wait = lambda running: running.wait()\n",
}
TRIO = """
import trio
from together_batches import AsyncBatches, UsageError

async def main():
    batches = AsyncBatches("key", base_url="http://127.0.0.1:9")
    calls = {
        "list": batches.list,
        "wait": lambda: batches.wait("a"),
        "cancel_many": lambda: batches.cancel_many(["a"]),
        "submit": lambda: batches.submit([]),
        "run": lambda: batches.run([], "out.jsonl"),
        "upload": lambda: batches.files.upload(b"{}"),
        "download": lambda: batches.files.download("file-1", "out.jsonl"),
        "enter": batches.__aenter__,
    }
    for name, call in calls.items():
        try:
            await call()
        except UsageError as error:
            assert "no asyncio event loop is running here" in str(error), (name, error)
    print("refused")

trio.run(main)
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    faults = [Fault(on="retrieve", delay=0.5, times=None)]
    with Emulator(api_key="key", faults=faults).running_in_thread() as running:
        running.add_job(id="slow")
        yield running


def _ran(script: str, *argv: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("library", PATCHED)
def test_the_sync_client_beside_greenlets(emulator: Emulator, library: str) -> None:
    """The sync client works in a patched process, and other greenlets run while one waits."""
    pytest.importorskip(library)
    assert _ran(PATCHED[library] + BESIDE, emulator.base_url) == "slow\nTrue True\n"


def test_trio() -> None:
    """Every call of the async client under trio is refused in one sentence, also before the client is entered."""
    pytest.importorskip("trio")
    assert _ran(TRIO) == "refused\n"
