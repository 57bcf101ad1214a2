"""The timeline of a run, before it is drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.views import any_run, at, attempt, moments, run, shard
from together_batches.rows import Usage
from together_batches.runs import SessionView
from together_batches.runs._picture.timeline import buckets, facts, standing, ticks, timeline

if TYPE_CHECKING:
    from datetime import datetime

    from together_batches.runs import AttemptView, RunState, RunView
    from together_batches.runs._picture.timeline import Lane, Stretch


def lane_of(view: RunView, seconds: float = 100) -> Lane:
    (lane,) = timeline(view, at(seconds)).lanes
    return lane


def summaries(stretches: tuple[Stretch, ...]) -> list[tuple[str, float, float, bool]]:
    return [(item.phase, item.begin, item.end, item.open) for item in stretches]


def test_phases() -> None:
    """An attempt has a bar for each phase, each of which begins where the one before it ends."""
    lane = lane_of(run(shard(1, attempt(1, 3, 10, 40, 42, succeeded=10)), state="finished", finished_at=at(50)))
    assert summaries(lane.bars[0].stretches) == [
        ("sending", 1, 3, False),
        ("waiting", 3, 10, False),
        ("running", 10, 40, False),
        ("collecting", 40, 42, False),
    ]
    assert lane.outcome == "all 10"


def test_what_goes_on_ends_now() -> None:
    """While a process works on the run, the last phase ends at the present."""
    drawn = timeline(run(shard(1, attempt(1, 3, 10, status="IN_PROGRESS"))), at(60))
    assert (drawn.seconds, drawn.known, drawn.end) == (60, 60, "now")
    assert summaries(drawn.lanes[0].bars[0].stretches)[-1] == ("running", 10, 60, True)


def test_an_interrupted_run_ends_a_little_after_what_was_last_noted() -> None:
    """An interrupted run ends a little after its last record, so the picture is the same a week later."""
    view = run(shard(1, attempt(1, 3, 100)), state="interrupted")
    drawn = timeline(view, at(600_000))
    assert drawn == timeline(view, at(700_000))
    assert (drawn.known, drawn.end) == (100, "last noted")
    assert 100 < drawn.seconds < 110


def test_a_finished_run_ends_when_it_finished() -> None:
    """A finished run ends when it finished, whatever the present time."""
    view = run(shard(1, attempt(1, 3, 10, 20, 22)), state="finished", finished_at=at(25))
    assert (timeline(view, at(9_999)).seconds, timeline(view, at(9_999)).end) == (25, "finished")


def test_a_job_that_was_never_seen_to_run() -> None:
    """A job that was never seen running waits until it ends, because it ran between two polls."""
    lane = lane_of(
        run(shard(1, attempt(1, 3, running_at=None, ended_at=at(30), collected_at=at(31), state="collected")))
    )
    assert [item.phase for item in lane.bars[0].stretches] == ["sending", "waiting", "collecting"]


def test_attempts_follow_each_other() -> None:
    """Attempts follow each other even if a clock was set back in between: no bar covers another."""
    first = attempt(1, 3, 10, 40, 42, status="EXPIRED", again=10)
    second = attempt(20, 22, 30, 50, 52, number=2, succeeded=10)
    lane = lane_of(run(shard(1, first, second)))
    assert [(bar.begin, bar.end) for bar in lane.bars] == [(1, 42), (42, 52)]
    assert [bar.bad for bar in lane.bars] == [True, False]


def test_a_clock_that_was_set_back_before_the_run_began() -> None:
    """If a clock was set back before the run began, the picture begins with the earliest time."""
    drawn = timeline(run(shard(1, attempt(-30, -20, 5))), at(10))
    assert (drawn.began, drawn.seconds) == (at(-30), 40)
    assert drawn.lanes[0].bars[0].begin == 0


@pytest.mark.parametrize("status", ["FAILED", "EXPIRED", "CANCELLED"])
def test_how_a_job_ended(status: str) -> None:
    """A job that did not complete is marked."""
    assert lane_of(run(shard(1, attempt(1, 3, 10, 40, status=status)))).bars[0].bad


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([], "not sent"),
        ([attempt(1)], "uploading"),
        ([attempt(1, 2)], "uploaded"),
        ([attempt(1, 2, state="creating")], "creating"),
        ([attempt(1, 2, 3, status="IN_PROGRESS", progress=45.4)], "in progress, 45 %"),
        ([attempt(1, 2, 3, status="VALIDATING")], "validating"),
        ([attempt(1, 2, 3)], "created"),
        ([attempt(1, 2, 3, 4)], "collecting"),
        ([attempt(1, 2, 3, 4, 5, again=1)] * 3, "done"),
        ([attempt(1, 2, 3, 4, 5, succeeded=9, failed=1)], "done"),
    ],
)
def test_how_a_shard_stands(attempts: list[AttemptView], words: str) -> None:
    """The state of a shard is that of its last attempt."""
    assert standing(shard(1, *attempts)) == words


def test_a_shard_with_rows_to_send() -> None:
    """Rows that are to be sent again keep a shard waiting after its last attempt."""
    assert standing(shard(1, attempt(1, 2, 3, 4, 5, again=1), not_sent=1)) == "to be sent again"


def test_outcome() -> None:
    """A completed shard shows how many of its rows were answered."""
    assert lane_of(run(shard(1, attempt(1, 2, 3, 4, 5, succeeded=9_999, failed=1), rows=10_000))).outcome == (
        "9 999 of 10 000"
    )


def test_facts() -> None:
    """The facts are the size of the run and its use of tokens."""
    view = run(shard(1, attempt(1, 2, 3), rows=10_000), shard(2, rows=1), usage=Usage(1, 2, 3))
    assert facts(timeline(view, at(90))) == "10 001 rows, 2 shards, 1 job, 1m30s, 3 tokens"
    assert facts(timeline(run(), at(1))) == "0 rows, 0 shards, 0 jobs, 1s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, ["0s", "0.1s", "0.2s", "0.3s", "0.4s"]),
        (42, ["0s", "15s", "30s"]),
        (5_400, ["0s", "30m", "1h", "1h30m"]),
        (300_000, ["0s", "1d", "2d", "3d"]),
    ],
)
def test_ticks(seconds: float, words: list[str]) -> None:
    """Ticks are at round steps, as many as fit."""
    assert [word for _, word in ticks(seconds, 4)] == words


@given(st.floats(0.01, 3e11), st.integers(1, 20))
def test_any_ticks(seconds: float, most: int) -> None:
    """Ticks never exceed the available space, increase strictly, and stay within the duration."""
    found = ticks(seconds, most)
    assert 1 <= len(found) <= most + 1
    assert all(before < after for (before, _), (after, _) in pairwise(found))
    assert found[0] == (0, "0s")
    assert found[-1][0] <= seconds


@given(any_run(), moments)
def test_any_run(view: RunView, now: datetime) -> None:
    """Any clock values give bars within the picture, in order and without overlap."""
    drawn = timeline(view, now)
    assert 0 < drawn.known <= drawn.seconds
    for lane in drawn.lanes:
        assert len(lane.bars) == len(lane.shard.attempts)
        stretches = [stretch for bar in lane.bars for stretch in bar.stretches]
        assert all(0 <= item.begin <= item.end <= drawn.seconds for item in stretches)
        assert all(before.end <= after.begin for before, after in pairwise(stretches))
    assert sum(many for _, _, many in buckets(view)) == view.rows


def _sessions(*times: tuple[float, float]) -> tuple[SessionView, ...]:
    return tuple(SessionView(began_at=at(first), last_at=at(last)) for first, last in times)


@pytest.mark.parametrize(
    ("state", "sessions", "expected"),
    [
        ("finished", [(0, 20), (60, 100)], [(20, 60)]),
        ("interrupted", [(0, 20), (60, 80)], [(20, 60), (80, 104)]),
        ("interrupted", [(0, 200)], [(200, 208)]),
        ("interrupted", [(0, 20), (150, 200)], [(20, 150), (200, 208)]),
        ("running", [(0, 20), (60, 60)], [(20, 60)]),
        ("finished", [(0, 50), (50.9, 100)], []),
        ("finished", [(0, 100), (9_000, 9_001)], []),
        ("finished", [(0, 60), (30, 70), (80, 100)], [(70, 80)]),
        ("interrupted", [], []),
    ],
)
def test_absences(state: RunState, sessions: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    """No process is at work between two sessions and after the last one, if that is long enough, and not finished."""
    view = run(shard(1, attempt(0, 1, 2, 90, 100)), state=state, sessions=_sessions(*sessions))
    if state == "finished":
        view = attrs.evolve(view, finished_at=at(100))
    drawn = timeline(view, at(100))
    assert [pytest.approx(pair) for pair in expected] == list(drawn.absences)
