"""What became of each job of a bulk cancel."""

from __future__ import annotations

import enum
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import attrs

from together_batches.errors import BatchesError
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["CancelOutcome", "CancelReport", "CancelResult"]


class CancelResult(enum.StrEnum):
    """The buckets of a bulk cancel; every id ends in exactly one."""

    CANCELLED = "cancelled"
    """The job has stopped."""
    CANCELING = "canceling"
    """The cancel was accepted and the job is draining."""
    ALREADY_FINISHED = "already_finished"
    """The job had completed, failed or expired before the cancel could take effect."""
    NOT_FOUND = "not_found"
    """The service knows no such job."""
    DENIED = "denied"
    """The key was refused, or may not touch this job."""
    FAILED = "failed"
    """What became of the job is not known; ``error`` says why."""
    NOT_ATTEMPTED = "not_attempted"
    """Nothing was sent for this id; ``error`` says why."""

    @property
    def words(self) -> str:
        """The result as it reads in a sentence: ``already finished``."""
        return self.value.replace("_", " ")


_FINE = frozenset({CancelResult.CANCELLED, CancelResult.CANCELING, CancelResult.ALREADY_FINISHED})


@attrs.frozen
class CancelOutcome:
    """What became of one id.

    ``job`` is the job as last seen, where it could be read. ``error`` is set on everything that is not fine, and
    says why. ``attempts`` counts the requests that were sent for this id, reads included.
    """

    job_id: str
    result: CancelResult
    job: BatchJob | None = None
    error: BatchesError | None = None
    attempts: int = 0

    @property
    def ok(self) -> bool:
        """True where nothing is left to do: cancelled, draining, or finished before."""
        return self.result in _FINE


class CancelReport:
    """The outcomes of a bulk cancel, in the order of the ids; its text is the summary line.

    ::

        >>> from together_batches import CancelOutcome, CancelReport, CancelResult
        >>> report = CancelReport(CancelOutcome(job_id, CancelResult.CANCELLED) for job_id in ("a", "b"))
        >>> print(report, report.ok)
        2 cancelled True
    """

    __slots__ = ("_by_id", "counts", "failures")

    counts: Mapping[CancelResult, int]
    """How many outcomes there are of each result; results that did not occur count 0."""
    failures: tuple[CancelOutcome, ...]
    """The outcomes that are not fine, in the order of the ids."""

    def __init__(self, outcomes: Iterable[CancelOutcome]) -> None:
        by_id = {outcome.job_id: outcome for outcome in outcomes}
        found = Counter(outcome.result for outcome in by_id.values())
        self._set(by_id, found, [outcome for outcome in by_id.values() if not outcome.ok])

    def _set(
        self, by_id: Mapping[str, CancelOutcome], found: Counter[CancelResult], failures: Iterable[CancelOutcome]
    ) -> None:
        self._by_id = by_id
        self.counts = MappingProxyType({result: found[result] for result in CancelResult})
        self.failures = tuple(failures)

    @classmethod
    def _of(
        cls, by_id: Mapping[str, CancelOutcome], found: Counter[CancelResult], failures: Iterable[CancelOutcome]
    ) -> Self:
        """A report of outcomes that were counted as they came, and are made when they are asked for."""
        report = cls.__new__(cls)
        report._set(by_id, found, failures)
        return report

    def __iter__(self) -> Iterator[CancelOutcome]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, job: str | BatchJob) -> CancelOutcome:
        """The outcome of one id, or of a job; :class:`KeyError` where it was not among the ids."""
        return self._by_id[job if isinstance(job, str) else job.id]

    def __contains__(self, job: object) -> bool:
        return getattr(job, "id", job) in self._by_id

    def __eq__(self, other: object) -> bool:
        return self._by_id == other._by_id if isinstance(other, CancelReport) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._by_id))

    def __reduce__(self) -> tuple[type[CancelReport], tuple[list[CancelOutcome]]]:
        return CancelReport, (list(self),)

    @property
    def ok(self) -> bool:
        """True where every job is cancelled, draining, or had finished before."""
        return not self.failures

    def raise_for_failures(self) -> None:
        """Raise an :class:`ExceptionGroup` of the errors behind ``failures``; do nothing where there are none.

        One error that stopped many ids (a refused key) stands in the group once.
        """
        errors = [
            failure.error or BatchesError(f"{failure.job_id}: {failure.result.words}") for failure in self.failures
        ]
        if errors:
            raise ExceptionGroup(str(self), list({id(error): error for error in errors}.values()))

    def __str__(self) -> str:
        parts = [f"{count:,} {result.words}".replace(",", " ") for result, count in self.counts.items() if count]
        return ", ".join(parts) or "no jobs"

    def __repr__(self) -> str:
        return f"<CancelReport: {self}>"
