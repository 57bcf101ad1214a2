"""The simulated world behaves as assumed (time, death, network, disk), and bugs are found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import APIError, BatchesError
from together_batches.emulator import Fault

from .machine import NoEndError, Process
from .plan import Death, Plan, drawn
from .troubles import Troubles
from .world import World, quiet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from together_batches import AsyncBatches

    Program = Callable[[AsyncBatches, Path, Plan], Awaitable[Any]]

CALM = attrs.evolve(
    drawn(0), calm=True, faults=(), deaths=(), clocks=(), reset_chance=0, slow_chance=0, full_at=None,
    second_after=None, rate_limit=None, troubles=Troubles(),
)  # fmt: skip


def played(program: Program, plan: Plan = CALM, judge: Callable[[World], None] = lambda _: None) -> World:
    """Return the world after this program has ended in it."""
    world = World(plan, program)
    with quiet():
        world.play(judge)
    return world


def test_a_day_takes_no_time() -> None:
    """The clock advances if every task waits."""

    async def sleep(*_: object) -> None:
        await asyncio.sleep(86_400)

    began = time.monotonic()
    assert played(sleep).lived == pytest.approx(86_400)
    assert time.monotonic() - began < 10


def test_waiting_for_nothing_is_an_error() -> None:
    """Waiting for nothing is an error, and so is a run that never ends."""

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def fail(*_: object) -> None:
        raise BatchesError

    with pytest.raises(NoEndError, match="nothing will ever come"):
        played(hang)
    with pytest.raises(NoEndError, match="no end after 40 starts"):
        played(fail)


def test_a_death_leaves_what_the_system_was_given() -> None:
    """After a death no clean-up runs, buffers are lost, and the next start finds what was handed to the system."""
    found: list[dict[str, bytes]] = []

    async def write(_: object, root: Path, __: object) -> None:
        found.append({path.name: path.read_bytes() for path in _files(root)})
        try:
            with (root / "kept").open("wb") as kept, (root / "lost").open("wb") as lost:  # steps 1 and 2
                kept.write(b"k" * 10_000)  # too much for the buffer: step 3
                lost.write(b"l")
                await asyncio.sleep(1)
                (root / "kept").rename(root / "renamed")  # step 4
        finally:
            (root / "cleaned up").write_bytes(b"")

    def judge(world: World) -> None:
        assert [start.killed for start in world.starts] == [True, False]

    played(write, attrs.evolve(CALM, deaths=(Death(4),)), judge)
    assert found == [{}, {"kept": b"k" * 10_000, "lost": b""}]


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name != "input.jsonl")


def test_a_full_disk_takes_some_of_it() -> None:
    """A full disk accepts a part of a write and raises; later writes succeed."""
    sizes: list[int] = []

    async def write(_: object, root: Path, __: object) -> None:
        try:
            with (root / "big").open("wb", buffering=0) as file:
                file.write(bytes(1_000))
        finally:
            sizes.append((root / "big").stat().st_size)

    world = played(write, attrs.evolve(CALM, full_at=2, full_for=0))
    assert [type(start.error) for start in world.starts] == [OSError, type(None)]
    assert sizes == [500, 1_000]


def test_what_a_dead_process_had_sent_still_arrives() -> None:
    """A request that a dead process had sent still arrives and creates its job."""

    async def submit(client: AsyncBatches, root: Path, _: object) -> None:
        await client.submit(root / "input.jsonl")

    def die_of_it(line: str) -> None:
        if "send POST /v1/batches" in line and len(world.starts) == 1:
            world.loop.call_soon(world.starts[0].process.kill, context=Process.no_process())

    world = World(CALM, submit, die_of_it)
    with quiet():
        world.play(lambda _: None)
    assert [start.killed for start in world.starts] == [True, False]
    assert len(world.made) == 2


def test_the_same_seed_is_the_same_simulation() -> None:
    """One seed gives the same simulation, to the last step and the last millisecond."""

    async def submit(client: AsyncBatches, root: Path, _: object) -> None:
        await client.wait(await client.submit(root / "input.jsonl"), poll_interval=900)

    for seed in range(10):
        assert len({played(submit, drawn(seed)).fingerprint for _ in range(2)}) == 1


# --- correct programs pass, and wrong ones fail ---


async def _submit(client: AsyncBatches, root: Path, _: object) -> None:
    await client.submit(root / "input.jsonl")


async def _post_until_it_answers(client: AsyncBatches, root: Path, _: object) -> None:
    """Repeat a create until it is answered, which is wrong."""
    file = await client.files.upload(root / "input.jsonl")
    wanted = {"input_file_id": file.id, "endpoint": "/v1/chat/completions"}
    while True:
        try:
            await client.request("POST", "/batches", json=wanted)
        except APIError:
            continue
        return


def _job_counts(program: Program) -> Counter[int]:
    """Return how many jobs a program makes if some responses to a create are lost, and some are slow."""
    lost = (Fault(on="create", lose="answer", times=3, chance=0.4), Fault(on="list", status=500))
    plans = [attrs.evolve(CALM, seed=seed, faults=lost, slow_chance=0.05) for seed in range(40)]
    return Counter(len(played(program, plan).made) for plan in plans)


def test_a_lost_answer_is_no_second_job() -> None:
    """Forty runs make one job each; if a create is repeated blindly, the same losses make more."""
    assert _job_counts(_submit) == {1: 40}
    blind = _job_counts(_post_until_it_answers)
    assert blind.total() - blind[1] > 10
