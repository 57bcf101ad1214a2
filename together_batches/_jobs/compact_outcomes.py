"""The outcomes of a bulk cancel, kept so that many of them weigh little.

An outcome is three objects for the garbage collector to look after, an answer is none. That counts: with three more
for each id the collector goes to work for every two hundred ids, and looks at all that is under way then. That took a
tenth of the time of a hundred calls at once, and nearly half of that of a thousand. So of a job whose cancel was
answered well a record is kept, bytes that hold the answer, and the outcome is read from it each time it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[str, bytes], CancelOutcome]

__all__ = ["CompactOutcomes"]


class CompactOutcomes(Mapping[str, CancelOutcome]):
    """The outcomes by id, in the order in which the ids were admitted. ``read`` makes an outcome of a record."""

    __slots__ = ("_completed_anyway", "_counts", "_kept", "_read")

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept: dict[str, CancelOutcome | bytes | None] = {}
        self._counts: Counter[CancelResult] = Counter()
        self._completed_anyway = 0

    def admit(self, job_id: str) -> bool:
        """Keep a place for this id; False where it has one."""
        if job_id in self._kept:
            return False
        self._kept[job_id] = None
        return True

    def put(self, outcome: CancelOutcome, record: bytes | None) -> None:
        """Keep the outcome of an id that was admitted, as the ``record`` it can be read from, if there is one."""
        self._kept[outcome.job_id] = outcome if record is None else record
        self._counts[outcome.result] += 1
        if outcome.result is CancelResult.ALREADY_FINISHED:
            self._completed_anyway += outcome.completed_anyway

    def report(self) -> CancelReport:
        """The report, when every id has its outcome."""
        whole = [kept for kept in self._kept.values() if isinstance(kept, CancelOutcome)]
        failures = [outcome for outcome in whole if not outcome.ok]
        return CancelReport._of(  # pyright: ignore[reportPrivateUsage]
            self, self._counts, failures, self._completed_anyway
        )

    def __getitem__(self, job_id: str) -> CancelOutcome:
        kept = self._kept[job_id]
        return self._read(job_id, kept) if isinstance(kept, bytes) else cast("CancelOutcome", kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._kept
