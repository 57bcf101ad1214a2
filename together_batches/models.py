"""The values of the service: frozen, slotted, hashable; they know no JSON and do no I/O.

What the service leaves out, and what it sends in place of nothing (null, an empty string, the zero time of its
backend), is ``None`` here, whichever way a value was made. The rows of a job have a module of their own,
:mod:`together_batches.rows`, and are to be had from here too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from together_batches.rows import (
        BatchFailure,
        BatchMissing,
        BatchRequest,
        BatchResult,
        BatchStray,
        BatchSuccess,
        Usage,
    )

__all__ = [
    "BatchFailure",
    "BatchJob",
    "BatchJobStatus",
    "BatchMissing",
    "BatchRequest",
    "BatchResult",
    "BatchStray",
    "BatchSuccess",
    "FileObject",
    "Response",
    "Usage",
]

_TERMINAL = frozenset({"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"})


class BatchJobStatus(enum.StrEnum):
    """Where a job stands. ``str(status)`` is the text on the wire.

    A status that this version does not know keeps its text and is not terminal: ``BatchJobStatus("PAUSED")``
    works and equals ``"PAUSED"``. ``CANCELING`` (one L) means that a cancel was accepted and the job is
    draining; the service sends it, although its reference does not list it.
    See https://docs.together.ai/docs/inference/batch/manage.
    """

    VALIDATING = "VALIDATING"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELING = "CANCELING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"

    @classmethod
    def _missing_(cls, value: object) -> BatchJobStatus | None:
        if not isinstance(value, str):
            return None
        # An open enum: a member in all but the class's own list. Not remembered, so that a service which sends
        # nonsense cannot make this grow; equal and hashed by its text like any other member.
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_terminal(self) -> bool:
        """True where nothing more will happen to the job."""
        return self._value_ in _TERMINAL


def _status(value: BatchJobStatus | str | None) -> BatchJobStatus | None:
    if value is None or isinstance(value, BatchJobStatus):
        return value or None
    return BatchJobStatus(value) if value else None


def _in_utc(time: datetime) -> datetime | None:
    if time.tzinfo is None:
        message = f"times are aware: {time.isoformat()} names no time zone"
        raise ValueError(message)
    return time.astimezone(UTC) if time.year > 1 else None


def _percent(value: float) -> float | None:
    return min(max(float(value), 0.0), 100.0) if value == value else None


@attrs.frozen(kw_only=True)
class BatchJob:
    """A batch job as the service last described it.

    The fields are the service's own (https://docs.together.ai/reference/batch-get). Times are aware and in UTC,
    ``progress`` is a percentage from 0 to 100. ``warning`` is the advice that came with a create. ``extra`` holds
    what the service sent and this version does not know; it takes no part in the hash.
    """

    id: str
    status: BatchJobStatus | None = attrs.field(default=None, converter=_status)
    progress: float | None = None
    endpoint: str | None = None
    model_id: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error: str | None = None
    file_size_bytes: int | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    job_deadline: datetime | None = None
    user_id: str | None = None
    warning: str | None = None
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)

    def __attrs_post_init__(self) -> None:
        # Looked at here in one go: a converter for each field would double the cost of making a job, and a bulk
        # cancel makes one for every id.
        texts = (
            self.endpoint,
            self.model_id,
            self.input_file_id,
            self.output_file_id,
            self.error_file_id,
            self.error,
            self.user_id,
            self.warning,
        )
        if "" in texts:
            for name in _FIELDS - {"id"}:
                if getattr(self, name) == "":
                    object.__setattr__(self, name, None)
        created, completed, deadline = self.created_at, self.completed_at, self.job_deadline
        if created is not None and (created.tzinfo is not UTC or created.year == 1):
            object.__setattr__(self, "created_at", _in_utc(created))
        if completed is not None and (completed.tzinfo is not UTC or completed.year == 1):
            object.__setattr__(self, "completed_at", _in_utc(completed))
        if deadline is not None and (deadline.tzinfo is not UTC or deadline.year == 1):
            object.__setattr__(self, "job_deadline", _in_utc(deadline))
        progress = self.progress
        if progress is not None and not (progress.__class__ is float and 0.0 <= progress <= 100.0):
            object.__setattr__(self, "progress", _percent(progress))
        if self.extra and not _FIELDS.isdisjoint(self.extra):
            known = ", ".join(sorted(_FIELDS.intersection(self.extra)))
            message = f"extra holds only what BatchJob has no field for, and it has these: {known}"
            raise ValueError(message)

    @property
    def is_terminal(self) -> bool:
        """True where nothing more will happen to the job; False also where the service named no status."""
        return self.status is not None and self.status.is_terminal


_FIELDS = frozenset(field.name for field in attrs.fields(BatchJob)) - {"extra"}


@attrs.frozen(kw_only=True)
class Response:
    """What the raw door (``request``) returns: the answer as it came.

    ``headers`` have lower-case names, ``body`` is the bytes after transfer and content decoding, ``request_id`` is
    the service's name for the request, where it gave one.
    """

    status: int
    # Neither belongs in a log line: headers and bodies may hold what is nobody else's business.
    headers: Mapping[str, str] = attrs.field(repr=False, hash=False)
    body: bytes = attrs.field(repr=False)
    request_id: str | None = None


@attrs.frozen(kw_only=True)
class FileObject:
    """A file of the account: an input that was uploaded, or the output or errors of a job.

    See https://docs.together.ai/reference/get-files-id. ``created_at`` is aware and in UTC. ``filename`` is not
    unique (every job's output is called ``output.jsonl``) and comes from outside: it is never used as a path here.
    """

    id: str
    filename: str | None = None
    bytes: int | None = None
    purpose: str | None = None
    created_at: datetime | None = None
    file_type: str | None = None
    processed: bool | None = None
    processing_status: str | None = None
    line_count: int | None = None
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)


def __getattr__(name: str) -> object:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from together_batches import rows

    return getattr(rows, name)
