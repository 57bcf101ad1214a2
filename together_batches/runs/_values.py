"""What a durable run tells of itself: while it goes on, at its end, and to whoever looks."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from together_batches._text import count_of, format_count
from together_batches.models import BatchJob
from together_batches.rows import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AttemptState",
    "AttemptView",
    "RunEvent",
    "RunEventKind",
    "RunReport",
    "RunState",
    "RunView",
    "ShardView",
    "UnfinishedJobs",
]

RunState = Literal["running", "interrupted", "finished"]
AttemptState = Literal["planned", "uploaded", "creating", "running", "ended", "collected"]


class RunEventKind(enum.StrEnum):
    """What happened in a run."""

    BEGUN = "begun"
    """The input was checked and cut into shards."""
    RESUMED = "resumed"
    """A run that was begun before goes on."""
    UPLOADED = "uploaded"
    """The rows of an attempt are at the service."""
    CREATED = "created"
    """A job was created."""
    FOUND = "found"
    """The job that an earlier process had created, and had no time to note, was found."""
    PROGRESSED = "progressed"
    """A job is not as it was last seen."""
    ENDED = "ended"
    """A job has finished, however it ended."""
    GONE = "gone"
    """The service knows a job, or a file of its results, no more."""
    COLLECTED = "collected"
    """The results of a job are in the run's directory."""
    TROUBLE = "trouble"
    """Something did not work, and is tried again."""
    STOPPED = "stopped"
    """Nothing more is created; what runs is waited for."""
    FINISHED = "finished"
    """The output is there."""


@attrs.frozen(kw_only=True)
class RunEvent:
    """Something that happened in a run, in words in ``message``; ``shard`` and ``attempt`` count from 1.

    Rows are counted as in :class:`RunReport`, as they are after it, with those that are under way in ``in_flight``.
    Of these, ``answered`` are answered already, by the progress of their jobs.
    """

    kind: RunEventKind
    message: str
    at: datetime
    shard: int | None = None
    attempt: int | None = None
    job_id: str | None = None
    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    invalid: int = 0
    in_flight: int = 0
    not_sent: int = 0
    answered: int = 0

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.succeeded + self.failed + self.missing + self.invalid + self.in_flight + self.not_sent

    def to_dict(self) -> dict[str, object]:
        """As plain data, ready for JSON; what is absent is left out."""
        return {**_plain(self), "rows": self.rows}


@attrs.frozen(kw_only=True)
class RunReport:
    """What became of a run; ``str(report)`` is a summary in one line.

    Every row of the input is in one of ``succeeded``, ``failed``, ``missing`` (not answered), ``invalid`` (a bad line
    that was set aside) and ``not_sent`` (still to be sent, or sent again). ``output`` is None until no row is to be
    sent, ``failures`` where none failed or is missing, ``invalid_lines`` where none is invalid. ``usage`` and
    ``job_ids`` are of the whole run, those of earlier calls included. ``stopped`` says why rows were left.
    """

    directory: Path
    output: Path | None
    failures: Path | None
    invalid_lines: Path | None
    succeeded: int
    failed: int
    missing: int
    invalid: int
    not_sent: int
    usage: Usage
    job_ids: tuple[str, ...]
    started_at: datetime
    finished_at: datetime
    stopped: str | None = None

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.succeeded + self.failed + self.missing + self.invalid + self.not_sent

    @property
    def complete(self) -> bool:
        """True where nothing is left to send, so that the output is there."""
        return not self.not_sent

    @property
    def ok(self) -> bool:
        """True where every row of the input was answered."""
        return self.succeeded == self.rows

    def to_dict(self) -> dict[str, object]:
        """As plain data, ready for JSON; what is absent is left out."""
        return {**_plain(self), "rows": self.rows, "complete": self.complete, "ok": self.ok}

    def __str__(self) -> str:
        words = {
            "answered": self.succeeded,
            "failed": self.failed,
            "missing": self.missing,
            "invalid": self.invalid,
            "not sent": self.not_sent,
        }
        text = ", ".join(f"{format_count(count)} {word}" for word, count in words.items() if count) or "no rows"
        jobs = len(self.job_ids)
        text += f"; {count_of(jobs, 'job')}"
        if self.usage.total_tokens:
            text += f", {format_count(self.usage.total_tokens)} tokens"
        return f"{text}; stopped: {self.stopped}" if self.stopped else text


@attrs.frozen(kw_only=True)
class AttemptView:
    """One sending of rows of a shard: a file, a job, and its results.

    The times, aware and in UTC, are those of this machine but for ``created_at``, which is the service's: when it was
    planned, before anything was sent; uploaded; when its create was about to be sent, and when the job was known;
    when it was first seen to run; when it was seen to have ended; and when its results were here. ``found`` tells of
    a job that was found again after a crash. ``failed`` rows are those that are not sent again, ``again`` those that
    are, if attempts are left, and ``missing`` those without an answer, of which the same holds.
    """

    number: int
    rows: int
    state: AttemptState
    file_id: str | None = None
    job_id: str | None = None
    found: bool = False
    status: str | None = None
    progress: float | None = None
    error: str | None = None
    warning: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    planned_at: datetime
    uploaded_at: datetime | None = None
    creating_at: datetime | None = None
    known_at: datetime | None = None
    created_at: datetime | None = None
    running_at: datetime | None = None
    ended_at: datetime | None = None
    collected_at: datetime | None = None
    succeeded: int = 0
    failed: int = 0
    again: int = 0
    missing: int = 0
    usage: Usage = attrs.field(factory=Usage)


@attrs.frozen(kw_only=True)
class ShardView:
    """A part of the input, small enough for one job: ``rows`` of it from ``first_line`` on, and the attempts at them.

    ``offset`` and ``bytes`` are its place in the input.
    """

    number: int
    first_line: int
    rows: int
    offset: int
    bytes: int
    attempts: tuple[AttemptView, ...] = ()


@attrs.frozen(kw_only=True)
class RunView:
    """A run as it stands in its directory, whether a process is at it or not: what :func:`read` gives.

    ``state`` is ``running`` while a process holds the run (``pid`` on ``host``), ``finished`` when its output was
    written and no row is to be sent, and ``interrupted`` elsewhere. Rows are counted as in :class:`RunReport`, with
    those that are under way in ``in_flight``.
    """

    directory: Path
    state: RunState
    pid: int | None
    host: str | None
    input_name: str
    input_bytes: int
    input_sha256: str
    endpoint: str
    model_id: str | None
    priority: int | None
    max_attempts: int
    started_at: datetime
    finished_at: datetime | None
    shards: tuple[ShardView, ...]
    succeeded: int
    failed: int
    missing: int
    invalid: int
    in_flight: int
    not_sent: int
    usage: Usage
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.succeeded + self.failed + self.missing + self.invalid + self.in_flight + self.not_sent

    def to_dict(self) -> dict[str, object]:
        """As plain data, ready for JSON; what is absent is left out."""
        return {**_plain(self), "rows": self.rows}


@attrs.frozen
class UnfinishedJobs:
    """What a run has under way: its ``jobs``, and in ``unconfirmed`` the input files of creates without a listed job.

    Such a create may have made a job, which then runs.
    """

    jobs: tuple[BatchJob, ...]
    unconfirmed: tuple[str, ...]


def _plain(value: attrs.AttrsInstance) -> dict[str, object]:
    fields: Mapping[str, object] = attrs.asdict(
        value, value_serializer=_serialized, filter=lambda _, item: item is not None
    )
    return dict(fields)


def _serialized(_: object, __: object, value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path | enum.StrEnum):
        return str(value)
    return value
