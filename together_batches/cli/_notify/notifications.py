"""Notifications as values: what they contain of jobs and runs, as JSON and as texts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches.cli._terminal.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from together_batches.models import BatchJob
    from together_batches.runs import RunReport, RunView

WEBHOOK_URL = "TOGETHER_BATCHES_WEBHOOK_URL"
WEBHOOK_SECRET = "TOGETHER_BATCHES_WEBHOOK_SECRET"  # noqa: S105  # the name of a variable
_MOST_CHARACTERS = 4_096
"""Maximum characters of a text: the system limits the environment of a process."""
_JOB_FACTS = (
    "job_id",
    "status",
    "progress",
    "model_id",
    "endpoint",
    "input_file_id",
    "output_file_id",
    "error_file_id",
    "created_at",
    "completed_at",
)
"""The facts of a job. Its error is not among them, because it may quote a prompt."""
_RUN_PATHS = ("directory", "output", "failures")
_RUN_FACTS = (
    *_RUN_PATHS,
    "rows",
    "succeeded",
    "invalid_answers",
    "failed",
    "missing",
    "invalid",
    "not_sent",
    "in_flight",
    "started_at",
)


class Notification(NamedTuple):
    """An event of a job, or of a run in a directory: the ``subject``. A repeat of it has the same ``id``."""

    kind: str
    subject: str
    id: str
    at: datetime
    data: Mapping[str, str | float]

    @property
    def body(self) -> bytes:
        """The notification as JSON."""
        import json  # here, because help needs none

        fields = {"id": self.id, "type": self.kind, "timestamp": _written(self.at), "data": self.data}
        # Half of a surrogate pair is no character, and many readers refuse its escape.
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

    @property
    def texts(self) -> dict[str, str]:
        """The notification as texts by their names, without nesting."""
        own = {"event": self.kind, "event_id": self.id, "timestamp": _written(self.at)}
        return own | {name: str(value) for name, value in self.data.items()}

    def with_labels(self, labels: Sequence[str]) -> Notification:
        """Return the notification with the labels of its job; they are from a file that anything may have written."""
        return self._replace(data={**self.data, "labels": _bounded(", ".join(labels))})


def job_ended(job: BatchJob) -> Notification:
    """Return the notification of a job that has finished."""
    return _made("job.ended", job.id, _facts_of(job), job.id)


def job_stuck(job: BatchJob, quiet_seconds: float) -> Notification:
    """Return the notification of a job that has not moved for so many seconds."""
    return _made("job.stuck", job.id, {**_facts_of(job), "quiet_seconds": int(quiet_seconds)}, job.id)


def _facts_of(job: BatchJob) -> dict[str, Any]:
    # What cannot be read, and what this version does not know, may be anything, such as a prompt, of any size.
    facts = {name: value for name, value in plain(job).items() if getattr(job, name, None) is not None}
    return _chosen(_JOB_FACTS, {"job_id": job.id, **facts})


def run_ended(run_id: str, found: RunReport | RunView, *, attempts: int, exit_code: int) -> Notification:
    """Return the notification of a run that has finished, or has stopped: by an error if there is no report.

    A run that stops again in the same way, without any progress, is the same event.
    """
    facts = plain(found)
    data: dict[str, Any] = {**_chosen(_RUN_FACTS, facts), "exit_code": int(exit_code)}
    data |= {name: str(Path(data[name]).absolute()) for name in _RUN_PATHS if name in data}
    if facts.get("complete"):
        return _made("run.finished", data["directory"], data, run_id)
    state = f"{run_id} {attempts} {data['succeeded']} {data['exit_code']}"
    return _made("run.stopped", data["directory"], data, state)


def _made(kind: str, subject: str, data: Mapping[str, Any], identity: str) -> Notification:
    from hashlib import sha256

    digest = sha256(f"{kind} {identity}".encode(errors="surrogatepass")).hexdigest()
    bounded = {name: _bounded(value) for name, value in data.items() if value is not None}
    return Notification(kind, subject, f"msg_{digest[:32]}", datetime.now(UTC), bounded)


def _chosen(names: tuple[str, ...], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _bounded(value: str | float) -> str | float:
    return value.replace("\0", "")[:_MOST_CHARACTERS] if isinstance(value, str) else value


def _written(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
