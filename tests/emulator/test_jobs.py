"""The life of a job is a list of phases, which determines its state at any time."""

from __future__ import annotations

import pytest

from together_batches.emulator._jobs import Job, Timing, job_to_json, phases_from, timestamp

TIMING = Timing(validating=2, running=30, canceling=1)


def job_of(status: str, *, ends_as: str | None = None, running: float = 30, **more: object) -> Job:
    timing = Timing(validating=2, running=running, canceling=1)
    return Job(
        id="j",
        created_at=0.0,
        input_file_id="file-1",
        endpoint="/v1/chat/completions",
        phases=phases_from(status, ends_as, 100.0, timing),
        running=running,
        model_id="m",
        extra_fields=more,
    )


@pytest.mark.parametrize(
    ("status", "ends_as", "expected"),
    [
        ("VALIDATING", None, [(100, "VALIDATING"), (102, "IN_PROGRESS"), (132, "COMPLETED")]),
        ("VALIDATING", "EXPIRED", [(100, "VALIDATING"), (102, "IN_PROGRESS"), (132, "EXPIRED")]),
        ("VALIDATING", "FAILED", [(100, "VALIDATING"), (102, "FAILED")]),
        ("VALIDATING", "VALIDATING", [(100, "VALIDATING")]),
        ("VALIDATING", "IN_PROGRESS", [(100, "VALIDATING"), (102, "IN_PROGRESS")]),
        ("IN_PROGRESS", None, [(100, "IN_PROGRESS"), (130, "COMPLETED")]),
        ("IN_PROGRESS", "FAILED", [(100, "IN_PROGRESS"), (130, "FAILED")]),
        ("IN_PROGRESS", "IN_PROGRESS", [(100, "IN_PROGRESS")]),
        ("CANCELING", None, [(100, "CANCELING"), (101, "CANCELLED")]),
        ("CANCELING", "COMPLETED", [(100, "CANCELING"), (101, "COMPLETED")]),
        ("COMPLETED", None, [(100, "COMPLETED")]),
        ("PAUSED", None, [(100, "PAUSED")]),
        ("PAUSED", "COMPLETED", [(100, "PAUSED"), (130, "COMPLETED")]),
    ],
)
def test_the_phases_lead_from_the_first_status_to_the_end(
    status: str, ends_as: str | None, expected: list[tuple[float, str]]
) -> None:
    """Each phase lasts as long as the timing says, and nothing comes after ``ends_as``."""
    assert expected == list(phases_from(status, ends_as, 100.0, TIMING))


def test_an_ended_job_cannot_end_otherwise() -> None:
    """A job that is created as ended cannot end in another status: the call raises ValueError."""
    with pytest.raises(ValueError, match="already COMPLETED cannot end as FAILED"):
        phases_from("COMPLETED", "FAILED", 0.0, TIMING)


def test_timing_refuses_negative_lengths() -> None:
    """Negative durations are refused, because a phase cannot end before it begins."""
    with pytest.raises(ValueError, match="validating"):
        Timing(validating=-1)


def test_progress_grows_with_time_and_says_100_only_when_completed() -> None:
    """Progress is 0 while validating, then the elapsed share of the run, at most 99, and 100 only when completed."""
    job = job_of("VALIDATING")
    assert [job.progress(t) for t in (100.0, 102.0, 117.0, 131.9, 132.0)] == [0, 0, 50.0, 99.0, 100]
    assert job_of("IN_PROGRESS", ends_as="IN_PROGRESS").progress(1e6) == 99.0
    assert job_of("IN_PROGRESS", ends_as="EXPIRED", running=0).progress(101.0) == 99.0


def test_a_cancelled_run_keeps_its_progress() -> None:
    """A cancelled job keeps its progress, also after the end."""
    job = job_of("IN_PROGRESS")
    job.cancel(107.5, 1)
    assert [job.progress(107.6), job.progress(500.0)] == [25.0, 25.0]
    assert [job.phase(107.5).status, job.phase(108.5).status] == ["CANCELING", "CANCELLED"]


def test_before_its_first_phase_a_job_is_in_it() -> None:
    """Before its first phase a job is in that phase: a clock that was set back does not make it vanish."""
    assert job_of("VALIDATING").phase(3.0).status == "VALIDATING"


def test_the_deadline_is_a_day_less_a_few_microseconds() -> None:
    """The deadline is a day less a few microseconds, as recorded from the service: truncation gives 23 hours."""
    shown = job_to_json(job_of("IN_PROGRESS"), 100.0, {})
    assert (
        shown["created_at"],
        shown["job_deadline"],
    ) == ("1970-01-01T00:00:00.000000Z", "1970-01-01T23:59:59.999997Z")


def test_timestamps_have_microseconds_and_z() -> None:
    """Timestamps have microseconds and ``Z``, also on the full second."""
    assert timestamp(1_789_381_230.0) == "2026-09-14T10:20:30.000000Z"
    assert timestamp(1_789_381_230.481925) == "2026-09-14T10:20:30.481925Z"


def test_fields_of_the_end_appear_at_the_end() -> None:
    """A seeded output file is not shown before the job has ended; other fields are shown as they are."""
    job = job_of("IN_PROGRESS", output_file_id="file-out", error_file_id=None, odd=[1])
    assert {"output_file_id", "error_file_id"}.isdisjoint(job_to_json(job, 100.0, {}))
    shown = job_to_json(job, 130.0, {})
    assert (shown["output_file_id"], shown["error_file_id"], shown["odd"]) == ("file-out", None, [1])


def test_a_job_cancelled_while_validating_has_neither_model_nor_files() -> None:
    """A job cancelled while validating has neither model nor files: no row has run, and the file was not read yet."""
    job = job_of("VALIDATING", output_file_id="file-out")
    job.cancel(101.0, 1)
    shown = job_to_json(job, 200.0, {})
    assert shown["status"] == "CANCELLED"
    assert {"output_file_id", "model_id", "error"}.isdisjoint(shown)


def test_given_fields_win() -> None:
    """Given fields take precedence, so that a test can make the odd responses that the service has given."""
    shown = job_to_json(job_of("CANCELLED", completed_at=None, progress=3.5), 100.0, {})
    assert (shown["completed_at"], shown["progress"]) == (None, 3.5)
