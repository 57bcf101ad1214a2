"""When the next job of a run may be created; its first shard is alone until its job shows that the input is valid."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from together_batches.runs import rules
from together_batches.runs._admission import Load, Scout, Stop, Working, admission

from .stage import options

if TYPE_CHECKING:
    from together_batches.runs._options import Options

FIRST, SECOND = (1, 1), (2, 1)


def _load(*rows: int, sent_rows: int = 0) -> Load:
    """Return the load of attempts with so many rows in flight."""
    return Load({(shard, 1): Working(count) for shard, count in enumerate(rows, start=1)}, sent_rows)


@pytest.mark.parametrize(
    ("limits", "load", "expected"),
    [
        (options(max_jobs=1), Load(), "now"),
        (options(max_jobs=1), _load(10), "later"),
        (options(max_jobs=9, max_enqueued_rows=30), _load(15, 0, 5), "now"),
        (options(max_jobs=9, max_enqueued_rows=30), _load(15, 6), "later"),
        (options(max_jobs=9, stop_after_rows=30), Load(sent_rows=20), "now"),
        (options(max_jobs=9, stop_after_tokens=30), Load(tokens=29), "now"),
        (options(max_jobs=9, stop_after_cost=1.5), Load(cost=1.49), "now"),
    ],
)
def test_limits(limits: Options, load: Load, expected: str) -> None:
    """Limits apply to what is in flight: a job waits until there is room for all of it."""
    assert admission(limits, load, 10) == expected


@pytest.mark.parametrize(
    ("limits", "load", "reason"),
    [
        (
            options(max_jobs=1, stop_after_rows=30),
            _load(10, sent_rows=21),
            "21 rows were sent, the next job has 10, and .* 30",
        ),
        (options(max_jobs=1, stop_after_tokens=1000), Load(tokens=1000), "1 000 tokens were used, and .* 1 000"),
        (options(max_jobs=1, stop_after_cost=1.5), Load(cost=1.52), r"cost \$1.52 at list prices, and .* \$1.50"),
    ],
)
def test_the_end_of_spending(limits: Options, load: Load, reason: str) -> None:
    """No job is created beyond the budget; the reason has the figures."""
    answer = admission(limits, load, 10)
    assert isinstance(answer, Stop)
    assert re.search(reason, answer.reason)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(failures_in_a_row=2), "now"),
        (Load({FIRST: Working(5, seems_failed=True)}, failures_in_a_row=2), "later"),
        (Load(failures_in_a_row=3), "later"),
        (Load({FIRST: Working(5, seems_cancelled=True)}), "later"),
    ],
)
def test_bad_ends(load: Load, expected: str) -> None:
    """No job is created as long as another may turn out to be cancelled, or the third in a row to have failed."""
    assert admission(options(max_jobs=9), load, 10) == expected


# --- the first job ---


class _Timer:
    """A clock whose only wait ends when the test wants it."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait until the time is over."""
        self.waits.append(seconds)
        await self.over.wait()


def _scout(*, is_needed: bool = True) -> tuple[Scout, list[bool]]:
    """Return a scout, and a list of whether it is out each time that it reports."""
    reports: list[bool] = []
    scout = Scout(is_needed=is_needed, on_return=lambda: reports.append(scout.is_out))
    return scout, reports


@pytest.mark.parametrize(("status", "is_out"), [("VALIDATING", True), ("FAILED", True), ("IN_PROGRESS", False)])
def test_it_is_alone_until_a_job_runs(status: str, is_out: bool) -> None:
    """The first shard is alone until a job is past VALIDATING."""
    scout, reports = _scout()
    scout.send(FIRST)
    scout.see_status(status)
    assert (scout.is_out, reports) == (is_out, [] if is_out else [False])


def test_nothing_is_alone_after_a_success() -> None:
    """No shard is alone after a job has run, in this call or in one before."""
    scout, _ = _scout()
    scout.send(FIRST)
    scout.see_status("COMPLETED")
    scout.send(SECOND)
    resumed, _ = _scout(is_needed=False)
    resumed.send(FIRST)
    assert not scout.is_out
    assert not resumed.is_out


def test_the_next_shard_follows_a_first_one_that_failed() -> None:
    """If the first shard ends without success, the next one is alone in its place."""
    scout, reports = _scout()
    scout.send(FIRST)
    scout.end(SECOND)
    assert (scout.is_out, reports) == (True, [])
    scout.end(FIRST)
    assert reports == [False]
    scout.send(SECOND)
    assert scout.is_out


def test_those_that_exist_already_are_alone_together() -> None:
    """In a run that goes on, no job is created before all those that exist have ended, or one of them has run."""
    scout, reports = _scout()
    scout.send(FIRST)
    scout.send(SECOND)
    scout.end(FIRST)
    assert (scout.is_out, reports) == (True, [])
    scout.end(SECOND)
    assert (scout.is_out, reports) == (False, [False])


async def test_it_is_alone_for_ten_minutes_at_most() -> None:
    """A job that stays in VALIDATING does not hold up the others for more than ten minutes."""
    scout, reports = _scout()
    timer = _Timer()
    async with asyncio.TaskGroup() as group:
        scout.send(FIRST)
        scout.limit(SECOND, group, timer.sleep)
        scout.limit(FIRST, group, timer.sleep)
        timer.over.set()
    assert (timer.waits, reports) == ([rules.ALONE_SECONDS], [False])


async def test_the_limit_ends_with_the_first_shard() -> None:
    """Nothing is waited for after the first shard has ended."""
    scout, _ = _scout()
    timer = _Timer()
    async with asyncio.TaskGroup() as group:
        scout.send(FIRST)
        scout.limit(FIRST, group, timer.sleep)
        await asyncio.sleep(0)
        scout.end(FIRST)
    assert timer.waits == [600]
