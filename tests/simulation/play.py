"""Simulations by seed, and by step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import msgspec

from together_batches import BatchRequest

from .plan import Death, drawn, small
from .verdict import judge
from .world import World, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from together_batches import AsyncBatches
    from together_batches.runs import RunReport

    from .plan import Plan
    from .world import Program

__all__ = ["Outcome", "durable", "each_step", "play", "simulate", "simulate_all"]


async def durable(client: AsyncBatches, root: Path, plan: Plan) -> RunReport:
    """Start the run as a user does."""
    source: Path | Iterator[BatchRequest] = root / "input.jsonl"
    if plan.from_iterable:
        lines = map(msgspec.json.decode, plan.input.split(b"\n")[:-1])
        source = (BatchRequest(line["custom_id"], line["body"]) for line in lines)
    return await client.run(source, root / "answers.jsonl", **plan.settings)


@attrs.frozen
class Outcome:
    """The result of a simulation; ``failure`` describes the violated condition, empty if there is none."""

    name: str
    failure: str
    rows: int
    jobs: int
    steps: tuple[int, ...]
    """Number of steps of each start of the process."""
    days: float
    ends: Counter[str]
    """Number of starts by how the process ended."""
    paid_again: Counter[str]
    """Number of rows that were paid for again, by the evidence for it."""
    fingerprint: str


def simulate(seed: int, tell: Callable[[str], None] | None = None) -> Outcome:
    """Play a seed. ``tell`` is called with each step, as a line."""
    return play(f"seed {seed}", drawn(seed), durable, tell)


def simulate_all(seeds: Iterable[int]) -> list[Outcome]:
    """Play seeds one after another."""
    return [simulate(seed) for seed in seeds]


def each_step(number: int) -> list[Outcome]:
    """Play a small run and its deaths: see :func:`by_step`."""
    return list(by_step(small(number)))


def by_step(plan: Plan, every: int = 1) -> Iterator[Outcome]:
    """Play a plan once as it is, and once for each of its steps, or for one in ``every``, with a death before it."""
    whole = play("undisturbed", plan, durable)
    yield whole
    for before, steps in enumerate(whole.steps):
        for step in range(1, steps + 1, every):
            deaths = (*[None] * before, Death(step))
            yield play(f"start {before + 1}, death before step {step}", attrs.evolve(plan, deaths=deaths), durable)


def play(name: str, plan: Plan, program: Program, tell: Callable[[str], None] | None = None) -> Outcome:
    """Play a plan and judge it."""
    with quiet():
        return _played(name, plan, program, tell)


def _played(name: str, plan: Plan, program: Program, tell: Callable[[str], None] | None) -> Outcome:
    world = World(plan, program, tell)
    failure, paid = "", Counter[str]()
    try:
        world.play(lambda world: judge(world, paid))
    except AssertionError as error:
        failure = str(error).partition("\n")[0] or "an assertion"
    starts = [*(start for run in world.runs for start in run.starts), *world.seconds]
    return Outcome(
        name=name,
        failure=failure,
        rows=len(plan.rows),
        jobs=len(world.made),
        steps=tuple(start.process.steps for start in world.starts),
        days=world.lived / 86_400,
        ends=Counter(start.kind for start in starts),
        paid_again=paid,
        fingerprint=world.fingerprint,
    )
