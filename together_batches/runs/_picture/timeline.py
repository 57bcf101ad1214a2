"""Layout of a run's picture: one lane for each shard, a bar for each attempt, and the time axis.

All times are in seconds since the run began, never negative and never overlapping, even if clocks were changed
meanwhile. A renderer (an image, a terminal) only converts seconds into positions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import attrs

from together_batches._text import count_of, format_count, lasted
from together_batches.models import BatchJobStatus
from together_batches.runs._values import AttemptView, RunView, ShardView, attempts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Phase = Literal["sending", "waiting", "running", "collecting"]

PHASES: dict[Phase, str] = {
    "sending": "planned, uploading",
    "waiting": "created, waiting",
    "running": "running",
    "collecting": "collecting",
}
"""Phases of an attempt in order, with their labels."""

_STEPS = (
    *(unit * step for unit in (0.001, 0.01, 0.1) for step in (1, 2, 5)),
    *(unit * step for unit in (1, 60) for step in (1, 2, 5, 10, 15, 30)),
    *(3_600 * step for step in (1, 2, 3, 6, 12)),
    *(86_400 * step * 10**power for power in range(7) for step in (1, 2, 5)),
)
_SHORTEST = 0.01
"""Minimum seconds of a picture; a shorter run is drawn as if it had lasted this long."""
_LEAST_ABSENCE = 0.01
"""Fraction of the time below which no process is missed."""
_BEYOND = 0.04
"""Fraction of the time drawn beyond the last record of an interrupted run, whose continuation is unknown."""


@attrs.frozen
class Stretch:
    """Time that an attempt spent in one phase; ``open`` if it is still in it."""

    phase: Phase
    begin: float
    end: float
    open: bool


@attrs.frozen
class Bar:
    """An attempt. ``bad`` means that its job failed, expired or was cancelled."""

    attempt: AttemptView
    stretches: tuple[Stretch, ...]
    bad: bool

    @property
    def begin(self) -> float:
        """Begin of the bar: when the attempt was planned."""
        return self.stretches[0].begin

    @property
    def end(self) -> float:
        """End of the bar: when the attempt ended, or the end of the picture."""
        return self.stretches[-1].end


@attrs.frozen
class Lane:
    """A shard, with the attempts at it in order."""

    shard: ShardView
    bars: tuple[Bar, ...]
    answered: int
    standing: str

    @property
    def outcome(self) -> str:
        """State of the shard, or the number of answered rows if it is done."""
        if self.standing != "done":
            return self.standing
        rows = format_count(self.shard.rows)
        return f"all {rows}" if self.answered == self.shard.rows else f"{format_count(self.answered)} of {rows}"


@attrs.frozen
class Timeline:
    """Whole picture: ``seconds`` from ``began`` on. The records end after ``known`` seconds; ``end`` is the label.

    ``absences`` are the times, begin and end, at which no process was at work; the last may be open.
    """

    view: RunView
    began: datetime
    seconds: float
    known: float
    end: str
    lanes: tuple[Lane, ...]
    absences: tuple[tuple[float, float], ...] = ()


def timeline(view: RunView, now: datetime) -> Timeline:
    """Return the layout of a run; it ends at ``now`` while a process is at work on the run."""
    noted = noted_times(view)
    began, last, end = min(noted), max(noted), "last noted"
    if view.state == "running":
        last, end = max(last, now), "now"
    elif view.finished_at is not None and view.state == "finished":
        last, end = max(last, view.finished_at), "finished"
    known = max((last - began).total_seconds(), _SHORTEST)
    seconds = known * (1 + _BEYOND) if view.state == "interrupted" else known
    lanes = tuple(_lane(shard, began, seconds) for shard in view.shards)
    return Timeline(view, began, seconds, known, end, lanes, tuple(_absences(view, began, known, seconds)))


def _absences(view: RunView, began: datetime, known: float, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield the times between two processes, if long enough to be seen, and that after the last one."""
    left: float | None = None
    for session in view.sessions:
        first, last = ((time - began).total_seconds() for time in (session.began_at, session.last_at))
        if left is not None and min(first, known) - left >= _LEAST_ABSENCE * seconds:
            yield left, min(first, known)
        left = min(max(last, left or 0.0), known)
    if left is not None and view.state == "interrupted":
        yield left, seconds


def noted_times(view: RunView) -> list[datetime]:
    """Return all times that the run has recorded so far, by the clock of this machine.

    A process that only looks at a finished run has a session, too, which is no part of the run.
    """
    sessions = () if view.state == "finished" else view.sessions
    attempts = (time for shard in view.shards for item in shard.attempts for time in _times(item))
    return [view.started_at, *attempts, *(session.last_at for session in sessions)]


def _times(attempt: AttemptView) -> Iterator[datetime]:
    """Yield the times at which it changed phases so far, by the clock of this machine."""
    yield attempt.planned_at
    for time in (attempt.uploaded_at, attempt.running_at, attempt.ended_at, attempt.collected_at):
        if time is not None:
            yield time


def _lane(shard: ShardView, began: datetime, seconds: float) -> Lane:
    bars: list[Bar] = []
    free = 0.0
    for attempt in shard.attempts:
        bar = Bar(attempt, tuple(_stretches(attempt, began, free, seconds)), bad=_ended_badly(attempt))
        bars.append(bar)
        free = bar.end
    answered = sum(attempt.succeeded for attempt in shard.attempts)
    return Lane(shard, tuple(bars), answered, standing(shard))


def _stretches(attempt: AttemptView, began: datetime, free: float, seconds: float) -> Iterator[Stretch]:
    """Yield the phases of an attempt, beginning at ``free`` at the earliest, when the lane is free."""
    begins: list[tuple[Phase, datetime | None]] = [
        ("sending", attempt.planned_at),
        ("waiting", attempt.uploaded_at),
        ("running", attempt.running_at),
        ("collecting", attempt.ended_at),
    ]
    reached: list[tuple[Phase, datetime]] = [(phase, time) for phase, time in begins if time is not None]
    ends = [*(time for _, time in reached[1:]), attempt.collected_at]
    for (phase, begin), end in zip(reached, ends, strict=True):
        first = min(max((begin - began).total_seconds(), free), seconds)
        last = seconds if end is None else min(max((end - began).total_seconds(), first), seconds)
        yield Stretch(phase, first, last, open=end is None)
        free = last


def _ended_badly(attempt: AttemptView) -> bool:
    bad = {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED, BatchJobStatus.CANCELLED}
    return attempt.status in bad or attempt.error is not None


def standing(shard: ShardView) -> str:
    """Return the state of a shard in a few words."""
    if not shard.attempts:
        return "not sent"
    last = shard.attempts[-1]
    if last.state == "collected":
        return "to be sent again" if shard.not_sent else "done"
    if last.state == "running":
        status = str(last.status or "created").replace("_", " ").lower()
        return status if last.progress is None else f"{status}, {last.progress:.0f} %"
    return {"planned": "uploading", "uploaded": "uploaded", "creating": "creating", "ended": "collecting"}[last.state]


def buckets(view: RunView) -> list[tuple[str, str, int]]:
    """Return the number of rows for each outcome, as (name, label, number); each row is counted once."""
    invalid = [("invalid_answers", "answered, not fitting", view.invalid_answers)] if view.invalid_answers else []
    return [
        ("succeeded", "answered", view.succeeded),
        *invalid,
        ("failed", "failed", view.failed),
        ("missing", "missing", view.missing),
        ("invalid", "invalid", view.invalid),
        ("in_flight", "under way", view.in_flight),
        ("not_sent", "not sent", view.not_sent),
    ]


def facts(drawn: Timeline) -> str:
    """Return a one-line summary of the run: size, jobs, duration and tokens."""
    view = drawn.view
    jobs = sum(attempt.job_id is not None for attempt in attempts_of(view))
    parts = [
        count_of(view.rows, "row"),
        count_of(len(view.shards), "shard"),
        count_of(jobs, "job"),
        lasted(drawn.known),
    ]
    if view.usage.total_tokens:
        parts.append(count_of(view.usage.total_tokens, "token"))
    if alone := sum(end - begin for begin, end in drawn.absences if end <= drawn.known):
        parts.append(f"no process for {lasted(alone)}")
    return ", ".join(parts)


def absence_words(drawn: Timeline, begin: float, end: float) -> str:
    """Return an absence in words; one after the last record has no known end."""
    since = f"{drawn.began + timedelta(seconds=begin):%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"no process since {since}" if end > drawn.known else f"no process for {lasted(end - begin)} from {since} on"
    )


def ticks(seconds: float, most: int) -> Sequence[tuple[float, str]]:
    """Return marks of the axis with labels: in round steps, and at most ``most`` besides that at 0."""
    step = next(step for step in _STEPS if seconds / step <= most)
    return [(step * place, lasted(step * place)) for place in range(int(seconds / step) + 1)]
