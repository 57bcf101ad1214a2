"""Events, report and view of a durable run."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from together_batches._fields import Plain
from together_batches._text import count_of, format_count, format_usd
from together_batches.models import BatchJob
from together_batches.rows import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

RunState = Literal["running", "interrupted", "finished"]
AttemptState = Literal["planned", "uploaded", "creating", "running", "ended", "collected"]


class RunEventKind(enum.StrEnum):
    """Kind of an event in a run."""

    BEGUN = "begun"
    """The input was checked and cut into shards."""
    RESUMED = "resumed"
    """A run that an earlier call began was resumed."""
    UPLOADED = "uploaded"
    """The rows of an attempt were uploaded."""
    CREATED = "created"
    """A job was created."""
    FOUND = "found"
    """A job was found that an earlier process had created but not recorded."""
    PROGRESSED = "progressed"
    """The status or progress of a job changed."""
    ENDED = "ended"
    """A job reached a terminal status."""
    GONE = "gone"
    """Rows of a job were given up, as the caller decided: they count as missing."""
    COLLECTED = "collected"
    """The results of a job were saved to the run's directory."""
    TROUBLE = "trouble"
    """An operation failed and is retried."""
    STOPPED = "stopped"
    """No more jobs are created; running jobs are waited for."""
    FINISHED = "finished"
    """The output was written."""


class _Counted(Plain):
    """A value that counts each row of the input once, by its state."""

    __slots__ = ()
    __derived__: ClassVar[tuple[str, ...]] = ("rows",)

    @property
    def rows(self) -> int:
        """Number of rows in the input."""
        states = ("succeeded", "invalid_answers", "failed", "missing", "invalid", "in_flight", "not_sent")
        return sum(getattr(self, state, 0) for state in states)


@attrs.frozen(kw_only=True)
class RunEvent(_Counted):
    """Event in a run, described by ``message``; ``shard`` and ``attempt`` count from 1.

    Rows are counted as in :class:`RunReport`, after the event; ``in_flight`` rows were sent and are not collected
    yet. Of these, ``answered`` are already answered, according to the progress of their jobs.
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
    invalid_answers: int = 0


@attrs.frozen(kw_only=True)
class RunReport(_Counted):
    """Result of a run; ``str(report)`` is a one-line summary.

    Every row of the input is counted once: ``succeeded``, ``invalid_answers`` (answered, and the answer does not fit
    the schema), ``failed``, ``missing`` (not answered), ``invalid`` (a bad line that was set aside) or ``not_sent``
    (still to be sent, or sent again). ``output`` is None until no row is left to send, ``failures`` if no row failed
    or is missing, ``invalid_lines`` if no line is invalid. ``usage`` and ``job_ids`` cover the whole run, including
    earlier calls. ``cost`` is that of the tokens in USD at list prices, None if no price is known. ``stopped`` is the
    reason why rows were not sent. With ``dedupe``, ``different_requests`` is the number of rows that are sent for all
    of them, ``different_not_sent`` that of those still to be sent; otherwise both are None.
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
    cost: float | None = None
    job_ids: tuple[str, ...]
    started_at: datetime
    finished_at: datetime
    stopped: str | None = None
    different_requests: int | None = None
    different_not_sent: int | None = None
    invalid_answers: int = 0

    __derived__: ClassVar[tuple[str, ...]] = ("rows", "complete", "ok", "expected_usage", "expected_cost")

    @property
    def complete(self) -> bool:
        """Whether no row is left to send, so that the output is written."""
        return not self.not_sent

    @property
    def ok(self) -> bool:
        """Whether every row of the input was answered, and no answer is invalid."""
        return self.succeeded == self.rows

    @property
    def expected_usage(self) -> Usage | None:
        """Tokens of the whole run, if the rows that are left need as many as those that are done.

        None if no row is left, or none is done.
        """
        scale = self._scale
        if scale is None:
            return None
        usage = self.usage
        return Usage(*(round(scale * n) for n in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)))

    @property
    def expected_cost(self) -> float | None:
        """Cost of these tokens in USD at list prices, None if no price is known."""
        return None if self.cost is None or self._scale is None else self.cost * self._scale

    @property
    def _scale(self) -> float | None:
        left = self.not_sent if self.different_not_sent is None else self.different_not_sent
        # Of rows that are sent once, the first may stand for half of the input.
        rows = self.rows - self.invalid if self.different_requests is None else self.different_requests
        return rows / (rows - left) if rows > left > 0 else None

    def __str__(self) -> str:
        words = {
            "answered": self.succeeded,
            "with an invalid answer": self.invalid_answers,
            "failed": self.failed,
            "missing": self.missing,
            "invalid": self.invalid,
            "not sent": self.not_sent,
        }
        text = ", ".join(f"{format_count(count)} {word}" for word, count in words.items() if count) or "no rows"
        if self.different_requests is not None:
            text += f"; {count_of(self.different_requests, 'different request')}"
        jobs = len(self.job_ids)
        text += f"; {count_of(jobs, 'job')}"
        if self.usage.total_tokens:
            text += f", {format_count(self.usage.total_tokens)} tokens"
            text += "" if self.cost is None else f" ({format_usd(self.cost)} at list prices)"
        return f"{text}; stopped: {self.stopped}" if self.stopped else text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it."""
        from together_batches._display import values

        return values.run_report(self)


@attrs.frozen(kw_only=True)
class AttemptView(Plain):
    """One sending of rows of a shard: a file, a job, and its results.

    The times are aware and in UTC, by the clock of this machine except ``created_at``, which is the service's:
    planned, before anything was sent; uploaded; immediately before the create was sent (``creating_at``); job id
    received (``known_at``); first seen running; first seen ended; results collected. ``found`` is true for a job that
    was found again after a crash. ``failed`` rows are not sent again; ``again`` rows, which failed or were refused
    for the account, and ``missing`` rows, which have no answer, are sent again if attempts are left. Rows with
    ``invalid_answers`` are sent again if the run retries them.
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
    invalid_answers: int = 0


@attrs.frozen(kw_only=True)
class ShardView(Plain):
    """Part of the input that fits into one job: its ``rows``, beginning at ``first_line``, and the attempts at them.

    ``offset`` and ``bytes`` are its position and size in the input. ``not_sent`` rows, counted as in
    :class:`RunView`, are still to be sent, or sent again.
    """

    number: int
    first_line: int
    rows: int
    offset: int
    bytes: int
    attempts: tuple[AttemptView, ...] = ()
    not_sent: int = 0


@attrs.frozen(kw_only=True)
class SessionView(Plain):
    """The time for which a process was at work on a run, by the clock of this machine.

    ``last_at`` is when it ended or, if it was killed or still is at work, when it recorded something last.
    """

    began_at: datetime
    last_at: datetime


@attrs.frozen(kw_only=True)
class RunView(_Counted):
    """Snapshot of a run from its directory, as :func:`read` returns it, with or without a process at work on it.

    ``state`` is ``running`` while a process (``pid`` on ``host``) holds the run, ``finished`` if its output was
    written and no row is left to send, and ``interrupted`` otherwise. Rows are counted as in :class:`RunReport`;
    ``in_flight`` rows were sent and are not collected yet. ``sessions`` are the times for which processes were at
    work, in order.
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
    invalid_answers: int = 0
    sessions: tuple[SessionView, ...] = ()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it: as its picture."""
        from together_batches._display import values
        from together_batches.runs._picture.svg import to_svg
        from together_batches.runs._picture.timeline import facts, timeline

        now = datetime.now(UTC)
        return values.run_view(self, facts(timeline(self, now)), to_svg(self, now=now))


def attempts_of(view: RunView) -> Iterator[AttemptView]:
    """Yield the attempts of all shards."""
    for shard in view.shards:
        yield from shard.attempts


@attrs.frozen
class UnfinishedJobs(Plain):
    """Unfinished ``jobs`` of a run; ``unconfirmed`` are the input files of creates without a listed job.

    Such a create may have made a job, which then runs.
    """

    jobs: tuple[BatchJob, ...]
    unconfirmed: tuple[str, ...]
