"""The first shard of a run is alone until its job shows that the input is valid."""

from __future__ import annotations

import asyncio

import pytest

from together_batches.runs import rules
from together_batches.runs._scout import Scout

FIRST, SECOND = (1, 1), (2, 1)


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
