"""Whole runs in a simulated world: whatever happens, one job for each attempt and one line for each row."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest

from together_batches.emulator import Failure, Fault

from .plan import Plan, drawn
from .play import Outcome, by_step, each_step, simulate_all

if TYPE_CHECKING:
    from collections.abc import Iterable

SEEDS = 50
AT_ONCE = 10
"""Number of seeds in one test: tests are the unit that is spread over the CPUs."""
PLAYED_AGAIN = 2

pytestmark = pytest.mark.timeout(300)  # whole runs by the dozen, on a machine that may be busy


def _broken(outcomes: Iterable[Outcome]) -> list[str]:
    return [f"{outcome.name}: {outcome.failure}" for outcome in outcomes if outcome.failure]


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_fifty_seeds(first: int) -> None:
    """Nothing is paid for twice, no row is lost or duplicated, and every run ends.

    ``nox -s simulate -- --seed N`` replays a seed that is named here, step by step. A replay takes the same steps at
    the same times.
    """
    seeds = range(first, first + AT_ONCE)
    outcomes = simulate_all(seeds)
    assert _broken(outcomes) == []
    # Proof that each kind of end occurred.
    ends = sum((outcome.ends for outcome in outcomes), Counter[str]())
    assert ends["RunReport"] >= AT_ONCE
    assert ends["killed"] > AT_ONCE // 2
    assert sum(outcome.jobs for outcome in outcomes) > 2 * AT_ONCE
    again = simulate_all(seeds[:PLAYED_AGAIN])
    assert [outcome.fingerprint for outcome in again] == [outcome.fingerprint for outcome in outcomes[:PLAYED_AGAIN]]


@pytest.mark.parametrize("number", [0, 6])
def test_a_death_at_any_step(number: int) -> None:
    """A small run that is killed right before any one of its steps resumes and ends as well."""
    outcomes = each_step(number)
    assert _broken(outcomes) == []
    assert len(outcomes) > 80
    assert sum((outcome.ends for outcome in outcomes), Counter[str]())["killed"] == len(outcomes) - 1


def test_a_job_of_an_earlier_attempt_is_not_taken_for_the_one_that_was_asked_for() -> None:
    """A row that fails in every job is sent in a new file each time, also after a lost create."""
    row = attrs.evolve(drawn(0).rows[0], fate=Failure())
    plan = Plan(
        seed=1,
        rows=(row,),
        settings={"max_rows_per_job": 1, "max_attempts": 2, "patience": 30.0},
        calm=True,
        faults=(Fault(on="create", lose="request", chance=0.6),),
    )
    assert _broken(by_step(plan, every=5)) == []
