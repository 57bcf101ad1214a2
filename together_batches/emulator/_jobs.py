"""The life of a job, planned in advance.

A job has a list of its phases with the time at which each begins. Its state at any time is computed, never stored: no
task and no timer has to run for a job to progress, and a test advances a thousand jobs by advancing the clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate, pairwise
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from attrs import define, field, frozen, validators

if TYPE_CHECKING:
    from collections.abc import Mapping

    from together_batches.emulator._content import Content
    from together_batches.emulator._rows import RowBehaviour

ENDED = frozenset({"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"})
_USUAL_ENDS = {"VALIDATING": "COMPLETED", "IN_PROGRESS": "COMPLETED", "CANCELING": "CANCELLED"}

_DAY = 86_400.0
_DEADLINE_SHORTFALL = 3e-6  # the service's deadlines are a few microseconds short of a day

# Fields that the service sends for finished jobs only. A seeded job may have them from the start.
_SHOWN_AT_THE_END = frozenset({"output_file_id", "error_file_id", "error", "completed_at"})


@frozen(kw_only=True)
class Timing:
    """The length of each phase of a job, in seconds of the emulator's clock.

    Raises ValueError for a negative length.
    """

    validating: float = field(default=2.0, validator=validators.ge(0))
    running: float = field(default=30.0, validator=validators.ge(0))
    canceling: float = field(default=1.0, validator=validators.ge(0))


class Phase(NamedTuple):
    """A status, and the time from which the job has it."""

    begins: float
    status: str


@define
class Job:
    """The service's record of one job. ``extra_fields`` replace the fields that it would otherwise send."""

    id: str
    created_at: float
    input_file_id: str
    endpoint: str
    phases: tuple[Phase, ...]
    running: float
    model_id: str | None = None
    file_size_bytes: int = 0
    error: str | None = None
    cancels_as: str = "CANCELLED"
    extra_fields: Mapping[str, object] = field(factory=dict[str, object])
    input: Content | None = None
    answering: RowBehaviour | None = None
    """How its rows are answered; None for a job without rows."""
    results: dict[str, str] = field(factory=dict[str, str])

    def phase(self, now: float) -> Phase:
        """Return the phase of the job at ``now``; the first one for a time before it was created."""
        for phase in reversed(self.phases):
            if phase.begins <= now:
                return phase
        return self.phases[0]

    def cancel(self, now: float, canceling: float) -> None:
        """Replace the planned phases: drain for ``canceling`` seconds, then end as ``cancels_as``."""
        past = tuple(phase for phase in self.phases if phase.begins <= now)
        self.phases = (*past, Phase(now, "CANCELING"), Phase(now + canceling, self.cancels_as))

    def is_validated(self, now: float) -> bool:
        """Return whether the input file was accepted by ``now``; only then does the service name the model."""
        if self.phase(now).status == "VALIDATING":
            return False
        if self.phases[0].status != "VALIDATING":
            return self.phases[0].status != "FAILED"
        return any(phase.status == "IN_PROGRESS" and phase.begins <= now for phase in self.phases)

    def progress(self, now: float) -> float:
        """Return the completed percentage of the run at ``now``. A run that was stopped keeps its value."""
        if self.phase(now).status == "COMPLETED":
            return 100
        for phase, following in pairwise((*self.phases, Phase(inf, ""))):
            if phase.status == "IN_PROGRESS" and phase.begins < now:
                share = (min(now, following.begins) - phase.begins) / self.running if self.running else 1
                # Only COMPLETED shows 100: a job that expires or never ends must not look completed.
                return min(99.0, round(100 * share, 2))
        return 0

    def share_done(self, now: float) -> float:
        """Return the completed share of the rows, from 0 to 1, consistent with the progress that the job shows."""
        shown = self.extra_fields.get("progress")
        if self.phase(now).status == "COMPLETED" or not isinstance(shown, (int, float)):
            return self.progress(now) / 100
        return min(max(shown / 100, 0.0), 1.0)


DEFAULT_TIMING = Timing()


def phases_from(
    status: str, ends_as: str | None, now: float, timing: Timing, *, runs: bool = False
) -> tuple[Phase, ...]:
    """Return the life of a job that has ``status`` now: every phase until it stops changing at ``ends_as``.

    ``ends_as`` defaults to COMPLETED, or CANCELLED for a job already draining. A status without a successor (a final
    or an unknown one) is kept. A VALIDATING job that is to fail never runs, unless ``runs`` is set: then it fails
    during the run.
    """
    if status in ENDED and ends_as not in (None, status):
        raise ValueError(f"a job that is already {status} cannot end as {ends_as}")
    lengths = {"VALIDATING": timing.validating, "IN_PROGRESS": timing.running, "CANCELING": timing.canceling}
    ends_as = ends_as or _USUAL_ENDS.get(status, status)
    path = [status]
    if status == "VALIDATING" and (runs or ends_as != "FAILED") and ends_as != "VALIDATING":
        path.append("IN_PROGRESS")
    if ends_as != path[-1]:
        path.append(ends_as)
    begins = accumulate((lengths.get(name, timing.running) for name in path), initial=now)
    return tuple(map(Phase, begins, path))


def timestamp(moment: float) -> str:
    """Return RFC 3339 in UTC with microseconds and ``Z``, as the service writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def job_to_json(job: Job, now: float, owner: Mapping[str, str]) -> dict[str, object]:
    """Return the job as the service would send it at ``now``. Fields that do not apply yet are absent, not null."""
    phase = job.phase(now)
    ended = phase.status in ENDED
    validated = job.is_validated(now)
    shown: dict[str, object] = {"id": job.id, **owner, "input_file_id": job.input_file_id}
    shown["file_size_bytes"] = job.file_size_bytes
    shown["status"] = phase.status
    shown["job_deadline"] = timestamp(job.created_at + _DAY - _DEADLINE_SHORTFALL)
    shown["created_at"] = timestamp(job.created_at)
    shown["endpoint"] = job.endpoint
    shown["progress"] = job.progress(now)
    if validated and job.model_id is not None:
        shown["model_id"] = job.model_id
    if phase.status == "FAILED":
        shown["error"] = job.error or "the job failed while it was processed"
    if ended:
        shown["completed_at"] = timestamp(phase.begins)
    for name, value in {**job.results, **job.extra_fields}.items():
        if name in _SHOWN_AT_THE_END and not ended:
            continue
        if name.endswith("_file_id") and name != "input_file_id" and not validated:
            continue  # cancelled or refused before a row ran, so it has no files
        shown[name] = value
    return shown
