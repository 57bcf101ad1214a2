"""The outcomes of a bulk cancel, one for each job."""

from __future__ import annotations

import enum
from collections import Counter
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs

from together_batches._fields import Plain, present
from together_batches._text import format_count
from together_batches.errors import APIStatusError, BatchesError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["CancelOutcome", "CancelReport", "CancelResult"]


class CancelResult(enum.StrEnum):
    """The results of a bulk cancel; every id has exactly one."""

    CANCELLED = "cancelled"
    """The job has stopped."""
    CANCELING = "canceling"
    """The cancel was accepted and the job is draining."""
    ALREADY_FINISHED = "already_finished"
    """The job completed, failed or expired before the cancel could take effect."""
    NOT_FOUND = "not_found"
    """The job does not exist."""
    DENIED = "denied"
    """The key was refused, or has no access to this job."""
    FAILED = "failed"
    """The cancel was refused and the job continues, or its state is unknown; ``error`` is the reason."""
    NOT_ATTEMPTED = "not_attempted"
    """Nothing was sent for this id; ``error`` is the reason."""

    @property
    def words(self) -> str:
        """The result as words of a sentence: ``already finished``."""
        return self.value.replace("_", " ")


_FINE = frozenset({CancelResult.CANCELLED, CancelResult.CANCELING, CancelResult.ALREADY_FINISHED})


@attrs.frozen
class CancelOutcome(Plain):
    """The outcome of one id.

    ``job`` is the job as last seen, if it could be read. ``error`` is the reason of every outcome that is not ``ok``.
    ``attempts`` is the number of cancel requests sent for this id, without reads of the job.

    ``accepted`` is True if the service accepted the cancel, which may still have had no effect: see
    ``completed_anyway``. ``status_before`` is the status of the ``BatchJob`` that was passed in, None for an id.
    ``requested_at`` is the time, in UTC, of the first cancel request; None if none was sent.

    ``event`` is set on outcomes that ``on_outcome`` receives with ``wait``: ``accepted`` for a job that is stopping
    and is followed, ``ended`` for the final outcome of an id. Otherwise it is None, and it is not compared.
    """

    job_id: str
    result: CancelResult
    job: BatchJob | None = None
    error: BatchesError | None = None
    attempts: int = 0
    accepted: bool = False
    status_before: BatchJobStatus | None = None
    requested_at: datetime | None = None
    event: Literal["accepted", "ended"] | None = attrs.field(default=None, eq=False)

    def __to_dict__(self) -> dict[str, Any]:
        names = ("job_id", "event", "result", "attempts", "accepted", "status_before", "requested_at", "job")
        error = {} if self.error is None else {"error": _facts(self.error)}
        return {**present(self, *names), **error}

    @property
    def ok(self) -> bool:
        """True if nothing is left to do: cancelled, draining, or finished before."""
        return self.result in _FINE

    @property
    def completed_anyway(self) -> bool:
        """True if the job completed although its cancel was accepted, and was charged in full."""
        return self.accepted and self.job is not None and self.job.status == BatchJobStatus.COMPLETED


def _facts(error: BatchesError) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, APIStatusError):
        facts |= {"status": error.status, "request_id": error.request_id}
    return facts


class CancelReport(Plain):
    """The outcomes of a bulk cancel, in the order of the ids; its text is the summary line.

    The text distinguishes jobs that completed although their cancel was accepted from those that had finished before
    (``2 completed anyway``); ``counts`` has both under ``ALREADY_FINISHED``.

    ::

        >>> from together_batches import CancelOutcome, CancelReport, CancelResult
        >>> report = CancelReport(CancelOutcome(job_id, CancelResult.CANCELLED) for job_id in ("a", "b"))
        >>> print(report, report.ok)
        2 cancelled True
    """

    __slots__ = ("_by_id", "_completed_anyway", "counts", "failures")

    counts: Mapping[CancelResult, int]
    """Number of outcomes for each result; 0 for results that did not occur."""
    failures: tuple[CancelOutcome, ...]
    """The outcomes that are not ``ok``, in the order of the ids."""

    def __init__(self, outcomes: Iterable[CancelOutcome]) -> None:
        by_id = {outcome.job_id: outcome for outcome in outcomes}
        found = Counter(outcome.result for outcome in by_id.values())
        completed_anyway = sum(outcome.completed_anyway for outcome in by_id.values())
        self._set(by_id, found, [outcome for outcome in by_id.values() if not outcome.ok], completed_anyway)

    def _set(
        self,
        by_id: Mapping[str, CancelOutcome],
        found: Counter[CancelResult],
        failures: Iterable[CancelOutcome],
        completed_anyway: int,
    ) -> None:
        self._by_id = by_id
        self._completed_anyway = completed_anyway
        self.counts = MappingProxyType({result: found[result] for result in CancelResult})
        self.failures = tuple(failures)

    @classmethod
    def _of(
        cls,
        by_id: Mapping[str, CancelOutcome],
        found: Counter[CancelResult],
        failures: Iterable[CancelOutcome],
        completed_anyway: int,
    ) -> Self:
        """Return a report of outcomes that were counted as they arrived, and are constructed on access."""
        report = cls.__new__(cls)
        report._set(by_id, found, failures, completed_anyway)
        return report

    def __iter__(self) -> Iterator[CancelOutcome]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, job: str | BatchJob) -> CancelOutcome:
        """Return the outcome of an id or of a job; raise :class:`KeyError` if it was not among the ids."""
        job_id = job if isinstance(job, str) else job.id
        return self._by_id[job_id if job_id in self._by_id else job_id.strip()]

    def __contains__(self, job: object) -> bool:
        job_id: object = getattr(job, "id", job)
        return job_id in self._by_id or (isinstance(job_id, str) and job_id.strip() in self._by_id)

    def __eq__(self, other: object) -> bool:
        return self._by_id == other._by_id if isinstance(other, CancelReport) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._by_id))

    def __reduce__(self) -> tuple[type[CancelReport], tuple[list[CancelOutcome]]]:
        return CancelReport, (list(self),)

    def __to_dict__(self) -> dict[str, Any]:
        counts = {str(result): count for result, count in self.counts.items()}
        return {"ok": self.ok, "counts": counts, "outcomes": [outcome.__to_dict__() for outcome in self]}

    @property
    def ok(self) -> bool:
        """True if every job is cancelled, draining, or had finished before."""
        return not self.failures

    def raise_for_failures(self) -> None:
        """Raise an :class:`ExceptionGroup` of the errors in ``failures``; do nothing if there are none.

        One error that stopped many ids (a refused key) is in the group once.
        """
        errors = [
            failure.error or BatchesError(f"{failure.job_id}: {failure.result.words}") for failure in self.failures
        ]
        if errors:
            raise ExceptionGroup(str(self), list({id(error): error for error in errors}.values()))

    def __str__(self) -> str:
        counts = {result.words: count for result, count in self.counts.items()}
        counts[CancelResult.ALREADY_FINISHED.words] -= self._completed_anyway
        counts["completed anyway"] = self._completed_anyway
        parts = [f"{format_count(count)} {words}" for words, count in counts.items() if count]
        return ", ".join(parts) or "no jobs"

    def __repr__(self) -> str:
        return f"<CancelReport: {self}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it."""
        from together_batches._display import values

        return values.cancel_report(self)
