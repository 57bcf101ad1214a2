"""The live table of `watch`: which jobs it shows, and what of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from together_batches._jobs.progress_tracker import JobProgressTracker
from together_batches._text import cell_width
from together_batches.cli._commands.watch.table import Moment, frame, in_order
from together_batches.cli._listing.columns import status_counts
from together_batches.models import BatchJob, BatchJobStatus

NOW = datetime(2026, 9, 14, 12, 0, tzinfo=UTC)
SEEN = 100_000.0


def job(number: int, status: str = "IN_PROGRESS", progress: float = 50, *, age: float = 3_600) -> BatchJob:
    return BatchJob(
        id=f"{number:08}-8901-2345-6789-012345678901",
        status=BatchJobStatus(status),
        progress=progress,
        created_at=NOW - timedelta(seconds=age),
        job_deadline=NOW + timedelta(seconds=86_400 - age),
        model_id="openai/gpt-oss-20b",
    )


def moment(*jobs: BatchJob, stuck: float = 1_800, trouble: str = "", seen_for: float = 0) -> Moment:
    """Return the moment at which these jobs were seen for so long, without movement."""
    tracker = JobProgressTracker(stuck)
    for each in jobs:
        for before in (seen_for, 0.0):
            tracker.see(each, SEEN - before, NOW - timedelta(seconds=before))
    ordered = in_order(jobs, tracker.stuck())
    return Moment(ordered, tracker, SEEN, SEEN, NOW, "0 of 3 jobs finished", status_counts(jobs), {}, trouble)


def texts(shown: Moment, width: int = 200, height: int = 50) -> list[str]:
    return [line.text for line in frame(shown, width=width, height=height)]


def test_the_facts_of_a_job() -> None:
    """A wide terminal shows state, progress, time left, age, rate, deadline and model."""
    header, row, summary = texts(moment(job(1)))
    assert header.split() == ["ID", "STATUS", "DONE", "LEFT", "AGE", "RATE", "DEADLINE", "MODEL"]
    assert row.split() == [*f"{job(1).id} IN_PROGRESS 50 % 1h 1h 50 %/h in 23h openai/gpt-oss-20b".split()]
    assert summary == "0 of 3 jobs finished; as of 12:00:00 UTC"


def test_the_time_of_the_last_look() -> None:
    """The time below the table is that at which the jobs were read, also long after that."""
    shown = moment(job(1))
    later = shown._replace(now=shown.now + 40, at=shown.at + timedelta(seconds=40))
    assert texts(later)[-1] == "0 of 3 jobs finished; as of 12:00:00 UTC"


def test_the_order() -> None:
    """Stuck jobs come first, then running ones, others, those that ended badly, and completed ones."""
    kinds = [
        job(9, "COMPLETED", 100),
        job(8, "CANCELLED"),
        job(7, "VALIDATING", 0, age=60),
        job(6, "IN_PROGRESS", age=50),
        job(5, "IN_PROGRESS", age=70),
        job(4, "VALIDATING", 0, age=1_900),
        job(3, "VALIDATING", 0, age=7_200),
    ]
    shown = moment(*kinds)
    assert [int(each.id[:8]) for each in shown.jobs] == [3, 4, 5, 6, 7, 8, 9]
    header, *rows = texts(shown)
    assert "STUCK" in header.split()
    assert [row.split()[5] for row in rows[:2]] == ["2h", "31m40s"]
    assert [line.style for line in frame(shown, width=200, height=50)][1:8] == [
        *("yellow", "yellow", "", "", "", "red", "green")
    ]


def test_stuck_is_seen_without_colour() -> None:
    """The column of stuck jobs is there as long as there is one, on any terminal, and only then."""
    stuck = moment(job(1), job(2), seen_for=1_800)
    for width in (200, 80, 60, 40, 20):
        assert "STUCK" in " ".join(texts(stuck, width, 20)).split()
        assert "STUCK" not in " ".join(texts(moment(job(1)), width, 20)).split()


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 24])
def test_it_fits(width: int, height: int) -> None:
    """Any number of jobs fits any terminal: no line is too long, and those that are left out are counted."""
    jobs = [job(number, "IN_PROGRESS" if number % 3 else "COMPLETED") for number in range(200)]
    lines = texts(moment(*jobs, trouble="no answer since noon: " + "x" * 500), width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if height == 24:
        rows = sum(line.count("-8901-2345-6") for line in lines)
        assert f"and {200 - rows} more: " in " ".join(lines)
        assert "12:00:00 UTC" in " ".join(lines)


def test_an_id_is_never_cut() -> None:
    """On a terminal that is narrower than an id, it goes on in the next line."""
    lines = texts(moment(job(1)), 20, 24)
    assert job(1).id in "".join(lines)


def test_room_for_everything() -> None:
    """A few jobs take further lines if not every column fits on one; more jobs lose columns instead."""
    few = texts(moment(job(1), job(2)), 80, 24)
    assert (few[2], "RATE" in few[1], "DEADLINE" in few[1]) == (job(1).id, True, True)
    many = texts(moment(*map(job, range(15))), 80, 24)
    assert many[0].split() == ["ID", "STATUS", "DONE", "LEFT", "AGE"]


def test_columns_keep_their_places() -> None:
    """Durations change their length all the time, and the columns stay where they are."""
    assert len({texts(moment(job(1, age=age)), 80, 4)[0] for age in (2, 59, 61, 3_600, 5_000)}) == 1


def test_an_outage() -> None:
    """Without an answer, the jobs stay, with the reason below them, and do not get stuck meanwhile."""
    shown = moment(job(1), trouble="no answer since 11:00:00 UTC: no connection\x1b")
    lines = texts(shown._replace(now=SEEN + 7_200))
    assert lines[-1] == "no answer since 11:00:00 UTC: no connection\\x1b"
    assert "STUCK" not in lines[0]


def test_a_deadline_that_has_passed() -> None:
    """A deadline is how far ahead or back it is; a job that has ended has none."""
    late, ended = job(1, age=90_000), job(2, "EXPIRED", age=90_000)
    assert "1h ago" in texts(moment(late))[1]
    assert "ago" not in texts(moment(ended))[1]


def test_in_a_pipe() -> None:
    """In a pipe, numbers and times are exact."""
    shown = moment(job(1), seen_for=1_800)
    (line,) = shown.lines([job(1)])
    assert line.split("\t") == [
        *(job(1).id, "IN_PROGRESS", "50", "1h", "30m", "1h", "50", "2026-09-15T11:00:00Z", "openai/gpt-oss-20b"),
    ]
    assert shown.facts(job(1)) == {
        "percent_per_hour": 50.0,
        "seconds_left": 3_600.0,
        "seconds_without_movement": 1_800.0,
        "is_stuck": True,
    }
    assert moment(job(1, "FAILED")).facts(job(1, "FAILED")) == {"is_stuck": False}


def test_any_text_is_text() -> None:
    """Statuses and errors of the service are written as harmless text, and wide characters fit, too."""
    odd = job(1, "PAUSED\x1b")
    lines = texts(moment(odd, job(2), trouble="あ" * 100), 40, 8)
    assert all(line.isprintable() and cell_width(line) <= 40 for line in lines)
    assert "1 PAUSED\\x1b" in " ".join(texts(moment(odd, job(2)), 40, 7))
