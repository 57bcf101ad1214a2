"""The outcomes of a bulk cancel until its report is read: those of successful responses are kept as their bytes.

The garbage collector tracks three objects for each outcome, and none for a response body. With three more for each
id it starts after every two hundred ids, and scans everything in flight. Kept as values instead, 40,000 outcomes took
5 to 15 % more CPU time for the whole bulk, and 1,400 bytes each instead of 630. So they are decoded on each access.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from together_batches._jobs.cancel import CancelCall
from together_batches._protocol import jobs as job_protocol
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    Record = tuple[bytes, datetime, BatchJobStatus | None]
    """The response to a cancel, when it was sent, and the status of the job that was passed in."""


class CancelOutcomes(Mapping[str, CancelOutcome]):
    """The outcomes by id, in the order in which the ids were admitted."""

    __slots__ = ("_completed_anyway", "_counts", "_kept")

    def __init__(self) -> None:
        self._kept: dict[str, CancelOutcome | Record | None] = {}
        self._counts: Counter[CancelResult] = Counter()
        self._completed_anyway = 0

    def admit(self, job_id: str) -> bool:
        """Reserve the entry of this id; return False if it exists."""
        if job_id in self._kept:
            return False
        self._kept[job_id] = None
        return True

    def put(self, outcome: CancelOutcome, answer: bytes | None) -> None:
        """Store the outcome of an admitted id, as the response that decided it, if one did."""
        sent_at = outcome.requested_at
        if answer is None or sent_at is None:
            self._kept[outcome.job_id] = outcome
        else:
            self._kept[outcome.job_id] = answer, sent_at, outcome.status_before
        self._counts[outcome.result] += 1
        if outcome.result is CancelResult.ALREADY_FINISHED:
            self._completed_anyway += outcome.completed_anyway

    def report(self) -> CancelReport:
        """Return the report; every id must have its outcome."""
        failures = [kept for kept in self._kept.values() if isinstance(kept, CancelOutcome) and not kept.ok]
        return CancelReport._of(  # pyright: ignore[reportPrivateUsage]
            self, self._counts, failures, self._completed_anyway
        )

    def __getitem__(self, job_id: str) -> CancelOutcome:
        kept = self._kept[job_id]
        if isinstance(kept, CancelOutcome):
            return kept
        assert kept is not None  # noqa: S101  # a report has no id without an outcome
        answer, sent_at, status = kept
        before = None if status is None else BatchJob(id=job_id, status=status)
        call = CancelCall(None, job_id, before)
        call.attempts, call.requested_at = 1, sent_at
        call.accepted = True
        return call.outcome_of(job_protocol.job_in(answer))

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._kept
