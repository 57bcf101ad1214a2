"""The live table of `watch`: which jobs it shows, and what of each. Pure: states, times and a size in, lines out."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

import attrs

from together_batches._text import lasted
from together_batches.cli._listing.columns import Field, in_words, job_fields, status_counts
from together_batches.cli._terminal.table import NARROW, Column, draw, head, shortened
from together_batches.cli._terminal.text import columns, escape, format_count
from together_batches.models import BatchJobStatus

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from together_batches._jobs.progress_tracker import JobProgressTracker
    from together_batches.cli._listing.labels import Labels
    from together_batches.models import BatchJob

_HEADER = "dim"
_STUCK = "yellow"
_STYLES = {BatchJobStatus.COMPLETED: "green"}
_BAD = "red"
_TROUBLE_LINES = 2
_STEADY = {"DONE": 5, "LEFT": 6, "STUCK": 6, "AGE": 6, "RATE": 8, "DEADLINE": 9}
"""Least widths of columns whose texts change all the time, so that the columns keep their places."""


class Line(NamedTuple):
    """A line of the table, and the style of its text."""

    text: str
    style: str = ""


class Moment(NamedTuple):
    """What is known of the jobs, in the order of :func:`in_order`.

    ``now`` is by the clock of the tracker, ``at`` by that of the service. ``seen`` is when jobs were last read.
    """

    jobs: Sequence[BatchJob]
    tracker: JobProgressTracker
    now: float
    seen: float
    at: datetime
    summary: str
    counts: Counter[str]
    """The number of jobs by status."""
    labels: Labels
    trouble: str = ""
    """Why the jobs are shown as they were some time ago; an empty string if they are not."""

    def is_stuck(self, job: BatchJob) -> bool:
        """Return whether a job has not moved for too long."""
        return self.tracker.is_stuck(job.id)

    def lines(self, jobs: Iterable[BatchJob]) -> Iterator[str]:
        """Yield a line for a pipe for each job."""
        fields = watch_fields(self)
        return ("\t".join(columns(field.text(job) for field in fields)) for job in jobs)

    def facts(self, job: BatchJob) -> dict[str, object]:
        """Return what the table shows of a job beside its own fields, as plain data."""
        tracker, now = self.tracker, self.now
        rate, left = tracker.rate(job.id), tracker.seconds_left(job.id, now)
        quiet = tracker.quiet_seconds(job.id)
        facts = {"percent_per_hour": rate and 3_600 * rate, "seconds_left": left, "seconds_without_movement": quiet}
        known = {name: round(value, 3) for name, value in facts.items() if value is not None}
        return {**known, "is_stuck": self.is_stuck(job)}


def in_order(jobs: Sequence[BatchJob], stuck: Mapping[str, float]) -> list[BatchJob]:
    """Return the jobs in the order in which they are shown; ``stuck`` has the seconds without movement of some.

    Stuck ones are first, for the longest time at the top. Then come those that run, other unfinished ones, those that
    ended badly, and completed ones. Those of a kind are in the order of their creation, so rows keep their places.
    """

    def rank(job: BatchJob) -> tuple[int, float]:
        if job.id in stuck:
            return 0, -stuck[job.id]
        began = job.created_at.timestamp() if job.created_at else 0.0
        if job.is_terminal:
            return 4 if job.status == BatchJobStatus.COMPLETED else 3, began
        return 1 if job.status == BatchJobStatus.IN_PROGRESS else 2, began

    return sorted(jobs, key=rank)


def watch_fields(moment: Moment) -> tuple[Field[BatchJob], ...]:
    """Return the columns of the table, and of the lines in a pipe."""
    tracker, now, at = moment.tracker, moment.now, moment.at
    of_job = {field.name: field for field in job_fields(at, moment.labels)}

    def ranked(name: str, rank: int) -> Field[BatchJob]:
        return attrs.evolve(of_job[name], drawn=of_job[name].drawn._replace(rank=rank))

    def left(job: BatchJob) -> str | None:
        seconds = tracker.seconds_left(job.id, now)
        return None if seconds is None else lasted(ceil(seconds))

    def stuck(job: BatchJob) -> str | None:
        return lasted(int(tracker.quiet_seconds(job.id) or 0)) if tracker.is_stuck(job.id) else None

    def rate(job: BatchJob) -> str | None:
        found = tracker.rate(job.id)
        return None if found is None else f"{round(3_600 * found, 2):.10g}"

    def rate_shown(job: BatchJob) -> str | None:
        found = 3_600 * (tracker.rate(job.id) or 0)
        return f"{format_count(round(found)) if found >= 10 else format(found, '.2g')} %/h" if found else None

    def deadline_shown(job: BatchJob) -> str | None:
        if job.job_deadline is None or job.is_terminal:
            return None
        seconds = int((job.job_deadline - at).total_seconds())
        return f"in {lasted(seconds)}" if seconds >= 0 else f"{lasted(-seconds)} ago"

    return (
        of_job["id"],
        of_job["status"],
        ranked("progress", 2),
        Field("left", Column("LEFT", rank=3, right=True), left),
        Field("stuck", Column("STUCK", rank=1, right=True), stuck),
        ranked("age", 4),
        Field("rate", Column("RATE", rank=5, right=True), rate, rate_shown),
        Field("deadline", Column("DEADLINE", rank=6, right=True), of_job["deadline"].text, deadline_shown),
        ranked("model", 7),
        *([ranked("labels", 3)] if moment.labels else ()),
    )


def frame(moment: Moment, *, width: int, height: int, dots: str = "…") -> list[Line]:
    """Return the table with as many jobs as fit, the number of the others, and the summary, or the summary alone.

    The time is that of the last look, which may be a minute ago. Columns that have no room are left out, unless all
    jobs have room for further lines. No line is wider than ``width``: an id that is goes on in the next one.
    """
    jobs = moment.jobs
    footer = _footer(moment, width, dots)
    header, items = _fitting(moment, width, height - len(footer), dots)
    lines = [Line(text, _HEADER) for text in header]
    lines += [Line(text, _style(moment, job)) for item, job in zip(items, jobs, strict=False) for text in item]
    others = moment.counts - status_counts(jobs[: len(items)])
    lines += map(Line, [*(_wrapped(_rest(others), width) if others else ()), *footer])
    return lines if len(lines) <= height else [Line(text) for text in footer[: max(height, 1)]]


def _footer(moment: Moment, width: int, dots: str) -> list[str]:
    """Return the lines of the summary, and of the reason for which it is an old one."""
    summary = f"{moment.summary}; as of {moment.at - timedelta(seconds=moment.now - moment.seen):%H:%M:%S} UTC"
    beside = width - len("^C")  # which Ctrl-C shows behind the last line; if that had no room, the table would move
    trouble = shortened(moment.trouble, _TROUBLE_LINES * beside, dots=dots)
    return [*_wrapped(summary, beside), *_wrapped(trouble, beside)]


def _fitting(moment: Moment, width: int, room: int, dots: str) -> tuple[list[str], list[list[str]]]:
    """Return the lines of the header, and those of each job that has room above the line about the others."""
    jobs = moment.jobs
    header, items = _items(moment, jobs[: max(room, 1)], width, dots, all_columns=False)
    if 2 * len(jobs) < room:
        in_full = _items(moment, jobs, width, dots, all_columns=True)
        if len(in_full[0]) * (1 + len(jobs)) <= room:
            header, items = in_full
    if len(jobs) > len(items) or len(header) + sum(map(len, items)) > room:
        room -= len(_wrapped(_rest(moment.counts), width))  # as long as the line about the others can be
    count = 1  # at least; if even that has no room, the summary alone is shown
    used = len(header) + len(items[0]) if items else 0
    while count < len(items) and used + len(items[count]) <= room:
        used += len(items[count])
        count += 1
    return header, items[:count]


def _items(
    moment: Moment, jobs: Sequence[BatchJob], width: int, dots: str, *, all_columns: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the lines of the header, and those of each job."""
    is_any_stuck = any(map(moment.is_stuck, jobs))
    fields = [field for field in watch_fields(moment) if is_any_stuck or field.name != "stuck"]
    drawn = [field.drawn for field in fields]
    if width >= NARROW:
        drawn = [column._replace(title=column.title.rjust(_STEADY.get(column.title, 0))) for column in drawn]
    rows = [columns((field.shown or field.text)(job) for field in fields) for job in jobs]
    lines = list(draw(drawn, rows, width, all_columns=all_columns, dots=dots))
    each = len(lines) // (len(rows) + 1)
    header, *items = (
        [part for line in lines[begin : begin + each] for part in _folded(line, width)]
        for begin in range(0, len(lines), each)
    )
    return header, items


def _rest(counts: Counter[str]) -> str:
    return f"and {format_count(counts.total())} more: {in_words(counts)}"


def _style(moment: Moment, job: BatchJob) -> str:
    if job.is_terminal:
        return _STYLES.get(job.status, _BAD) if job.status else _BAD
    return _STUCK if moment.is_stuck(job) else ""


def _wrapped(text: str, width: int) -> list[str]:
    lines = wrap(escape(text), max(width, 1), break_on_hyphens=False)
    return [part for line in lines for part in _folded(line, width)]


def _folded(line: str, width: int) -> list[str]:
    """Return a line in pieces that are no wider than ``width``."""
    parts: list[str] = []
    while line:
        parts.append(head(line, width) or line[0])
        line = line[len(parts[-1]) :]
    return parts or [""]
