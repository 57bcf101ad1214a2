"""Notifications: what they contain, and which of them are the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import attrs

from together_batches import BatchJob, BatchJobStatus, Usage, job_from_dict
from together_batches.cli._notify.notifications import job_ended, job_stuck, run_ended
from together_batches.runs import RunReport

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
JOB = BatchJob(
    id="job-1",
    user_id="user-1",
    status=BatchJobStatus.FAILED,
    progress=99.5,
    model_id="m",
    created_at=NOON,
    error="the prompt 'hidden' was refused",
    extra={"prompt": "hidden"},
)
REPORT = RunReport(
    directory=Path("answers.jsonl.run"),
    output=Path("answers.jsonl"),
    failures=None,
    invalid_lines=None,
    succeeded=3,
    failed=0,
    missing=0,
    invalid=0,
    not_sent=0,
    usage=Usage(),
    job_ids=("job-1",),
    started_at=NOON,
    finished_at=NOON,
    stopped="the prompt 'hidden' was refused",
)
STOPPED = attrs.evolve(REPORT, output=None, not_sent=2)


def test_a_job() -> None:
    """A notification of a job has its state, and no text that may quote a prompt."""
    found = job_ended(JOB)
    assert (found.kind, found.subject) == ("job.ended", "job-1")
    assert found.data == {
        "job_id": "job-1",
        "status": "FAILED",
        "progress": 99.5,
        "model_id": "m",
        "created_at": "2026-09-14T12:00:00Z",
    }
    assert b"hidden" not in found.body
    stuck = job_stuck(BatchJob(id="job-1", status=BatchJobStatus.IN_PROGRESS, progress=5.0), 1800.7)
    assert stuck.data == {"job_id": "job-1", "status": "IN_PROGRESS", "progress": 5.0, "quiet_seconds": 1800}


def test_fields_that_cannot_be_read() -> None:
    """A field that is not what the service documents is left out: it may have anything in it."""
    odd = {"model_id": {"prompt": "hidden"}, "progress": "50", "job_id": "job-2"}
    assert job_ended(job_from_dict({"id": "job-1", "status": "COMPLETED", **odd})).data == {
        "job_id": "job-1",
        "status": "COMPLETED",
    }


def test_a_run() -> None:
    """A notification of a run has its counts, the exit code, and absolute paths."""
    found = run_ended("run-1", REPORT, attempts=1, exit_code=0)
    assert (found.kind, found.subject) == ("run.finished", str(Path("answers.jsonl.run").absolute()))
    assert found.data["output"] == str(Path("answers.jsonl").absolute())
    assert {name: found.data[name] for name in ("rows", "succeeded", "not_sent", "exit_code")} == {
        "rows": 3,
        "succeeded": 3,
        "not_sent": 0,
        "exit_code": 0,
    }
    assert b"hidden" not in found.body
    assert run_ended("run-1", STOPPED, attempts=1, exit_code=5).kind == "run.stopped"


def test_ids() -> None:
    """The same event has the same id: an end of a job, or of a run. A stop after progress is another one."""
    ids = [
        job_ended(JOB).id,
        job_ended(BatchJob(id="job-2")).id,
        job_stuck(BatchJob(id="job-1"), 1).id,
        run_ended("run-1", REPORT, attempts=1, exit_code=0).id,
        run_ended("run-2", REPORT, attempts=1, exit_code=0).id,
        run_ended("run-1", STOPPED, attempts=1, exit_code=5).id,
        run_ended("run-1", STOPPED, attempts=2, exit_code=5).id,
        run_ended("run-1", STOPPED, attempts=1, exit_code=6).id,
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0] == job_ended(BatchJob(id="job-1", status=BatchJobStatus.COMPLETED)).id
    assert ids[0] == "msg_d5e43188c74ddb53b19b3be90947b015"


def test_texts_are_bounded() -> None:
    """A text of the service has no NUL, and at most 4,096 characters."""
    found = job_ended(BatchJob(id="job-1", status=BatchJobStatus("\0x" * 9_000), model_id="\ud800"))
    assert found.data["status"] == "x" * 4_096
    assert json.loads(found.body)["data"]["model_id"] == "?"
    assert found.texts["status"] == "x" * 4_096
    assert found.with_labels(["\0a", "b" * 9_000]).data["labels"] == f"a, {'b' * 9_000}"[:4_096]
