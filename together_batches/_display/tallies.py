"""What bars show of many jobs: outcomes and events, counted as they arrive."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from together_batches._text import count_of, format_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from together_batches._display.progress import Show
    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelOutcome, CancelResult
    from together_batches.runs import RunEvent

_BEGINS = {"created", "found", "progressed"}
_ENDS = {"ended", "gone"}


class CancelTally:
    """The outcomes of a bulk cancel."""

    def __init__(self) -> None:
        self.done = 0
        """Number of jobs that have their last outcome."""
        self.followed: dict[str, CancelOutcome] = {}
        """The jobs whose cancel was accepted, and whose end is awaited."""
        self.results: Counter[CancelResult] = Counter()
        """Number of jobs by result, without those that were not seen to end."""
        self.completed_anyway = 0
        self._left = self._not_found = self._failed = 0

    @property
    def stopping(self) -> int:
        """Number of jobs whose cancel was accepted, and that were not seen to end."""
        return len(self.followed) + self._left

    def note(self, outcome: CancelOutcome) -> None:
        """Count an outcome."""
        self.followed.pop(outcome.job_id, None)
        if outcome.event == "accepted":
            self.followed[outcome.job_id] = outcome
            return
        self.done += 1
        if outcome.result == "canceling":
            self._left += 1
            return
        self.results[outcome.result] += 1
        self.completed_anyway += outcome.completed_anyway
        self._not_found += outcome.result == "not_found"
        self._failed += not outcome.ok and outcome.result != "not_found"

    @property
    def notes(self) -> str:
        """The text beside a bar."""
        return in_words({"stopping": len(self.followed), "not found": self._not_found, "failed": self._failed})


class RunTally:
    """Shows how many rows of a run are answered, also by its jobs in progress, and the number of these jobs.

    With ``by_status`` they are counted by status, by means of a client that reads jobs of this run alone.
    """

    def __init__(self, show: Show, *, by_status: bool = False) -> None:
        self._show = show
        self._by_status = by_status
        self._event: RunEvent | None = None
        self._jobs: dict[str, str] = {}

    def note(self, event: RunEvent) -> None:
        """Take an event of the run."""
        self._event = event
        if event.job_id is not None and event.kind in _BEGINS:
            self._jobs.setdefault(event.job_id, "CREATED")
        elif event.job_id is not None and event.kind in _ENDS:
            self._jobs.pop(event.job_id, None)
        self._draw()

    def see(self, job: BatchJob, _: datetime | None = None) -> None:
        """Take a job of the run, whenever the client has read it."""
        if job.status and not job.is_terminal and job.status != self._jobs.get(job.id):
            self._jobs[job.id] = job.status
            self._draw()

    def _draw(self) -> None:
        event = self._event
        if event is None:
            return
        if self._by_status:
            jobs = in_words(dict(Counter(self._jobs.values()).most_common()))
        else:
            jobs = count_of(len(self._jobs), "job") if self._jobs else ""
        rest = in_words({"failed": event.failed + event.missing, "not fitting": event.invalid_answers})
        done = event.rows - event.in_flight - event.not_sent + event.answered
        self._show(done, event.rows, ", ".join(filter(None, (jobs, rest))))


def in_words(counts: Mapping[str, int]) -> str:
    """Return counts with their words, without those that are zero."""
    return ", ".join(f"{format_count(count)} {word}" for word, count in counts.items() if count)
