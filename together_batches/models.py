"""The values of the service: frozen, slotted, hashable; they know no JSON and do no I/O.

What the service leaves out, and what it sends in place of nothing (null, an empty string, the zero time of its
backend), is ``None`` here, whichever way a value was made.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

__all__ = ["BatchJob", "BatchJobStatus", "Response"]

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


def _time(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is UTC:
        return value if value is None or value.year > 1 else None
    if value.tzinfo is None:
        message = f"times are aware: {value.isoformat()} names no time zone"
        raise ValueError(message)
    return _time(value.astimezone(UTC)) if value.year > 1 else None


def _percent(value: float | None) -> float | None:
    if value is None or value != value:
        return None
    return min(max(float(value), 0.0), 100.0)


@attrs.frozen(kw_only=True)
class BatchJob:
    """A batch job as the service last described it.

    The fields are the service's own (https://docs.together.ai/reference/batch-get). Times are aware and in UTC,
    ``progress`` is a percentage from 0 to 100. ``warning`` is the advice that came with a create. ``extra`` holds
    what the service sent and this version does not know; it takes no part in the hash.
    """

    id: str
    status: BatchJobStatus | None = attrs.field(default=None, converter=_status)
    progress: float | None = attrs.field(default=None, converter=_percent)
    endpoint: str | None = None
    model_id: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error: str | None = None
    file_size_bytes: int | None = None
    created_at: datetime | None = attrs.field(default=None, converter=_time)
    completed_at: datetime | None = attrs.field(default=None, converter=_time)
    job_deadline: datetime | None = attrs.field(default=None, converter=_time)
    user_id: str | None = None
    warning: str | None = None
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)

    def __attrs_post_init__(self) -> None:
        # One look at all the texts: a converter for each of them doubles the cost of making a job.
        if "" in (
            self.endpoint,
            self.model_id,
            self.input_file_id,
            self.output_file_id,
            self.error_file_id,
            self.error,
            self.user_id,
            self.warning,
        ):
            for name in _FIELDS:
                if getattr(self, name) == "" and name != "id":
                    object.__setattr__(self, name, None)
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
