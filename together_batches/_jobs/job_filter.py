"""Lists of jobs, and selection from them, done on the client because the service sends the whole account."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, SupportsIndex, TypeVar, cast, overload

import attrs

from together_batches._fields import LONG_AGO
from together_batches._text import short
from together_batches.errors import UsageError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

_Dated = TypeVar("_Dated", BatchJob, FileObject)

Age = datetime | timedelta
"""A point in time, or an age relative to the service's own clock."""

_FAR_AHEAD = datetime.max.replace(tzinfo=UTC)
_KNOWN = frozenset(BatchJobStatus)


class JobList(list[BatchJob]):
    """Jobs, as :meth:`AsyncBatches.list` returns them: a list that notebooks show as a table, and its slices, too.

    ``seen_at`` is the service's own clock at the response, None if it is not known.
    """

    __slots__ = ("seen_at",)

    def __init__(self, jobs: Iterable[BatchJob] = (), seen_at: datetime | None = None) -> None:
        super().__init__(jobs)
        self.seen_at = seen_at

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> BatchJob: ...

    @overload
    def __getitem__(self, index: slice, /) -> JobList: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> BatchJob | JobList:
        if isinstance(index, slice):
            return JobList(super().__getitem__(index), self.seen_at)
        return super().__getitem__(index)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it."""
        from together_batches._display import values

        return values.jobs(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the list in IPython, which would otherwise print it as any other list."""
        from together_batches._display import values

        printer.text(values.jobs_text(self))


def _statuses(status: object) -> dict[str, str] | None:
    if status is None:
        return None
    one: list[object] = [status]
    is_one = isinstance(status, str) or not isinstance(status, Iterable)
    texts = one if is_one else cast("Iterable[object]", status)
    statuses: dict[str, str] = {}
    for text in texts:
        if not isinstance(text, str):
            message = f"status must be a status or an iterable of them; it is {status!r}"
            raise UsageError(message)
        statuses[BatchJobStatus(text).upper()] = text
    return statuses


def _check_text(_: object, field: attrs.Attribute[str | None], value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        message = f"{field.name} must be text that is not empty; it is {short(value)}"
        raise UsageError(message)


def _check_age(_: object, field: attrs.Attribute[Age | None], value: object) -> None:
    if value is None or isinstance(value, timedelta):
        return
    if not isinstance(value, datetime):
        message = f"{field.name} must be a datetime with a time zone, or a timedelta; it is {short(value)}"
        raise UsageError(message)
    if value.utcoffset() is None:
        message = f"{field.name} has no time zone: {value.isoformat()}"
        raise UsageError(message)


@attrs.frozen(kw_only=True)
class Selection:
    """The selection criteria of a caller; None matches all jobs. An invalid one is a :class:`UsageError`."""

    status: dict[str, str] | None = attrs.field(default=None, converter=_statuses)
    """The statuses in upper case, each with the caller's spelling."""
    model_id: str | None = attrs.field(default=None, validator=_check_text)
    endpoint: str | None = attrs.field(default=None, validator=_check_text)
    input_file_id: str | None = attrs.field(default=None, validator=_check_text)
    created_after: Age | None = attrs.field(default=None, validator=_check_age)
    created_before: Age | None = attrs.field(default=None, validator=_check_age)

    def choose(self, jobs: Iterable[BatchJob], at: datetime) -> JobList:
        """Return the selected jobs in their order; ``at`` is when the service made the list, by its own clock.

        A status that is unknown to this version and that no job of the list has raises :class:`UsageError`: it is
        more likely misspelt than new, and an empty selection would look like success.
        """
        jobs = list(jobs)
        # One filter after the other, because most calls use one or none.
        if (statuses := self.status) is not None:
            self._check_statuses(statuses, jobs)
            jobs = [job for job in jobs if job.status and job.status.upper() in statuses]
        if self.model_id is not None:
            jobs = [job for job in jobs if job.model_id == self.model_id]
        if self.endpoint is not None:
            jobs = [job for job in jobs if job.endpoint == self.endpoint]
        if self.input_file_id is not None:
            jobs = [job for job in jobs if job.input_file_id == self.input_file_id]
        after, before = _moment(self.created_after, at), _moment(self.created_before, at)
        if after is not None:
            jobs = [job for job in jobs if job.created_at is not None and job.created_at >= after]
        if before is not None:
            jobs = [job for job in jobs if job.created_at is not None and job.created_at < before]
        return JobList(jobs, at)

    @staticmethod
    def _check_statuses(statuses: dict[str, str], jobs: Iterable[BatchJob]) -> None:
        unknown = statuses.keys() - _KNOWN
        if unknown:
            unknown -= {job.status.upper() for job in jobs if job.status}
        if unknown:
            named = ", ".join(repr(statuses[status]) for status in sorted(unknown))
            message = f"unknown status {named}, and no job has it; the known ones are {', '.join(BatchJobStatus)}"
            raise UsageError(message)


def newest_first(values: Iterable[_Dated]) -> list[_Dated]:
    """Return jobs or files sorted by creation time, those without one last."""
    return sorted(values, key=lambda value: value.created_at or LONG_AGO, reverse=True)


def _moment(age: Age | None, at: datetime) -> datetime | None:
    if not isinstance(age, timedelta):
        return age
    try:
        return at - age
    except OverflowError:
        return LONG_AGO if age > timedelta() else _FAR_AHEAD
