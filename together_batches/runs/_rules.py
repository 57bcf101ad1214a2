"""The rules of a run: what is next, by what the ledger says. Plain values in, plain values out.

They know no database, no service and no clock, and so hold wherever the ledger is kept: every row in one bucket,
nothing created that may be there already, nothing spent beyond what was allowed.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import attrs

from together_batches._jobs.create import Created, WantedJob, best_of
from together_batches._protocol.result_lines import states_error
from together_batches._text import format_count
from together_batches.errors import BatchesError, CreateUnconfirmedError, ResultsUnavailableError
from together_batches.models import BatchJobStatus
from together_batches.rows import BatchFailure, BatchMissing, BatchSuccess, Usage
from together_batches.runs._records import Attempt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from together_batches.models import BatchJob
    from together_batches.runs._records import Run, Shard

__all__ = [
    "AGAIN",
    "DENIED",
    "FAILED",
    "FOR_THE_ACCOUNT",
    "JOB_FAILED",
    "LONG_AGO",
    "MISSING",
    "REFUSED",
    "SUCCEEDED",
    "Buckets",
    "Caution",
    "Limits",
    "Load",
    "Stop",
    "absent",
    "admission",
    "answered",
    "buckets",
    "failed_as_a_whole",
    "lost_job",
    "next_attempt",
    "outcome_of",
    "outcomes_of",
    "packed",
    "rows_of",
    "unpacked",
    "unresolved",
    "usage",
    "wanted_job",
]

# --- what became of a row -----------------------------------------------------------------------------------------

SUCCEEDED = ord("s")
FAILED = ord("f")
"""For good: it would fail again."""
AGAIN = ord("a")
"""It failed, and may not fail again."""
MISSING = ord("m")
REFUSED = ord("r")
"""Refused for the account and not for the row: without credit (402), or with a key that is not accepted (401)."""
DENIED = ord("d")
"""Refused with 403, which may be for the account or for the row."""
FOR_THE_ACCOUNT = frozenset({REFUSED, DENIED})
_TO_SEND_AGAIN = frozenset({AGAIN, MISSING, REFUSED, DENIED})

_FOR_A_CLIENT_TO_MEND = frozenset(range(400, 500)) - {401, 402, 403, 408, 409, 425, 429}
JOB_FAILED = "job_failed"
"""The code of rows whose job failed for its input as a whole. It is ours: the service gives rows none then."""
_CODES_FOR_GOOD = frozenset({JOB_FAILED, "invalid_model", "invalid_request", "invalid_request_error"})
_REASONS_FOR_GOOD = ("input format error", "non-serverless model")


def outcome_of(result: BatchSuccess | BatchFailure | BatchMissing) -> int:
    """What became of a row, and so whether it is sent again.

    A failure with a 4xx status of its own (as ``status_code`` or as ``code``), or with a code that says as much,
    would come again, but for those that are about the account. Any other may pass: the service gives
    ``batch_client_error`` for nearly everything, an "Internal Server Error" included, and rows that fail cost nothing
    (https://docs.together.ai/docs/inference/batch/overview). A line that says nothing of an error may be an answer
    in a way that cannot be read, and that was paid for: it does not go again.
    """
    if isinstance(result, BatchSuccess):
        return SUCCEEDED
    if not isinstance(result, BatchFailure):
        return MISSING
    code = result.code or ""
    if not states_error(result):
        return FAILED
    status = result.status_code or (int(code) if code.isdecimal() and len(code) == 3 else None)
    if status in {401, 402}:
        return REFUSED
    if status == 403:
        return DENIED
    return FAILED if status in _FOR_A_CLIENT_TO_MEND or code in _CODES_FOR_GOOD else AGAIN


def absent(attempt: Attempt, custom_id: str) -> BatchFailure | BatchMissing:
    """What a row is that is in no file of its job.

    Missing, unless the job failed for its input as a whole, and would fail again for the same.
    """
    reason = attempt.error or ""
    if attempt.status == BatchJobStatus.FAILED and any(known in reason for known in _REASONS_FOR_GOOD):
        return BatchFailure(custom_id, JOB_FAILED, reason)
    return BatchMissing(custom_id)


def packed(numbers: bytes | Sequence[int]) -> bytes:
    """Outcomes, or the numbers of lines, as a ledger keeps them: nearly all are alike, so they take no room."""
    return zlib.compress(numbers if isinstance(numbers, bytes) else array("I", numbers).tobytes())


def unpacked(kept: bytes) -> Sequence[int]:
    """The numbers of lines that were packed."""
    numbers = array("I")
    if kept:
        numbers.frombytes(zlib.decompress(kept))
    return numbers


def outcomes_of(attempt: Attempt) -> bytes:
    """What became of each row of an attempt, in order; nothing where it was not collected."""
    return zlib.decompress(attempt.outcomes) if attempt.outcomes else b""


# --- what is next -------------------------------------------------------------------------------------------------


def next_attempt(shard: Shard, attempts: Sequence[Attempt], *, max_attempts: int, now: datetime) -> Attempt | None:
    """The attempt to go on with, or to begin; None if no row of the shard is to be sent.

    An attempt that was planned and not created is planned anew if the one before it was collected anew since. It may
    then have no rows.
    """
    if not attempts:
        return Attempt(shard=shard.number, number=1, rows=shard.rows, planned_at=now)
    open_ones = [attempt for attempt in attempts if attempt.collected_at is None]
    if open_ones:
        attempt = open_ones[0]
        if attempt.number == 1 or attempt.creating_at is not None:
            return attempt
        left = _left(outcomes_of(_last_with_rows(attempts[: attempt.number - 1])))
        if left == attempt.rows:
            return attempt
        former = attempt.former_file_ids_with(attempt.file_id)
        return attrs.evolve(attempt, rows=left, file_id=None, uploaded_at=None, former_file_ids=former)
    left = _left(outcomes_of(_last_with_rows(attempts)))
    if not left or _tries(attempts) >= max_attempts:
        return None
    return Attempt(shard=shard.number, number=attempts[-1].number + 1, rows=left, planned_at=now)


def _last_with_rows(attempts: Sequence[Attempt]) -> Attempt:
    return next(attempt for attempt in reversed(attempts) if attempt.rows)


def _left(outcomes: bytes) -> int:
    return sum(map(outcomes.count, _TO_SEND_AGAIN))


def _tries(attempts: Iterable[Attempt]) -> int:
    """How many attempts count.

    Not those whose job was cancelled, or whose rows were refused for the account: the chance that was meant was not
    had yet. Nor those that were given up without a job. Two jobs of one file count once: the second was made by a
    create whose answer was lost.
    """
    tries, counted = 0, set[str | None]()
    for attempt in attempts:
        if not (attempt.collected_at and attempt.rows and attempt.job_id):
            continue
        if attempt.status == BatchJobStatus.CANCELLED or REFUSED in outcomes_of(attempt):
            continue
        if attempt.marked and attempt.file_id in counted:
            continue
        counted.add(attempt.file_id)
        tries += 1
    return tries


def rows_of(shard: Shard, earlier: Sequence[Attempt]) -> Sequence[int]:
    """Which rows of a shard the attempt after these is about, counted from 0."""
    rows: Sequence[int] = range(shard.rows)
    for attempt in earlier:
        outcomes = zip(rows, outcomes_of(attempt), strict=True)
        rows = array("I", (row for row, outcome in outcomes if outcome in _TO_SEND_AGAIN))
    return rows


def failed_as_a_whole(attempt: Attempt) -> bool:
    """Whether the job ended badly and answered nothing."""
    return attempt.status in {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED} and SUCCEEDED not in outcomes_of(attempt)


# --- what may be spent --------------------------------------------------------------------------------------------


@attrs.frozen
class Limits:
    """What a run may have in flight at once (jobs, rows), and send and use in all (rows, tokens)."""

    max_jobs: int
    max_enqueued_rows: int | None = None
    stop_after_rows: int | None = None
    stop_after_tokens: int | None = None


@attrs.frozen(kw_only=True)
class Caution:
    """How a run deals with a service that looks inconsistent, and with trouble.

    ``patience`` and ``retry_delays`` are seconds; of the delays the first comes after error rows and after the first
    job of a shard that failed as a whole, and the last after all further ones. ``give_up`` are ids of jobs, or of
    files whose create no job came of.
    """

    patience: float = 900.0
    give_up: tuple[str, ...] = ()
    unique_files: bool = True
    retry_delays: tuple[float, ...] = (30.0, 120.0, 600.0)


@attrs.frozen
class Load:
    """What is in flight, and what was sent and used so far."""

    jobs: int = 0
    enqueued_rows: int = 0
    sent_rows: int = 0
    tokens: int = 0


class Stop(NamedTuple):
    """Nothing more is to be created, and why."""

    reason: str


def admission(limits: Limits, load: Load, rows: int) -> Literal["now", "later"] | Stop:
    """Whether a job of so many rows may be created: now, when others have ended, or not at all, and why."""
    if limits.stop_after_tokens is not None and load.tokens >= limits.stop_after_tokens:
        return Stop(
            f"{format_count(load.tokens)} tokens were used, and it was to stop after "
            f"{format_count(limits.stop_after_tokens)}"
        )
    if limits.stop_after_rows is not None and load.sent_rows + rows > limits.stop_after_rows:
        return Stop(
            f"{format_count(load.sent_rows)} rows were sent, the next job has {format_count(rows)}, and it was to "
            f"stop after {format_count(limits.stop_after_rows)}"
        )
    room = limits.max_enqueued_rows is None or load.enqueued_rows + rows <= limits.max_enqueued_rows
    return "now" if room and load.jobs < limits.max_jobs else "later"


# --- what may be there already ------------------------------------------------------------------------------------


LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def wanted_job(attempt: Attempt, run: Run) -> WantedJob:
    """The job that a create for an attempt makes."""
    return WantedJob(
        file_id=attempt.file_id or "",
        endpoint=run.endpoint,
        model_id=run.model_id,
        priority=run.priority,
        has_own_file=attempt.marked,
        former_file_ids=tuple(attempt.former_file_ids.split()),
    )


def lost_job(
    attempt: Attempt, run: Run, jobs: Iterable[BatchJob], *, known: Collection[str | None]
) -> Created | None:
    """The job, among those that the service lists, that a create made whose answer was not noted.

    It is one of the attempt's file, and none that is ``known`` to be of another attempt. A file without a mark may be
    used by others: then it was also made like the attempt's, since the create was about to be sent by the service's
    own clock (at any time, if that is not noted). Without an intent that is noted, only a marked file tells.
    """
    if not (attempt.file_id and (attempt.marked or attempt.creating_at)):
        return None
    wanted, since = wanted_job(attempt, run), attempt.since or LONG_AGO
    return best_of(job for job in jobs if wanted.matches(job, since=since) and job.id not in known)


def unresolved(errors: Sequence[BatchesError]) -> BatchesError:
    """One error for all that is unresolved at the end of a call, with what can be done about it."""
    unavailable = [error for error in errors if isinstance(error, ResultsUnavailableError)]
    unconfirmed = [error for error in errors if isinstance(error, CreateUnconfirmedError)]
    ids = [error.job_id or "" for error in unavailable] + [error.input_file_id for error in unconfirmed]
    message = (
        f"{'; '.join(map(str, errors))}. The rows may have been answered and paid for, so they are not sent again. "
        "Run it again to look again; if you know that results are gone, or that no job was created, name these ids "
        f"with give_up: {', '.join(ids)}"
    )
    if unavailable:
        file_ids = [file_id for error in unavailable for file_id in error.file_ids]
        return ResultsUnavailableError(message, job_id=unavailable[0].job_id, file_ids=file_ids)
    candidates = [job for error in unconfirmed for job in error.candidates]
    return CreateUnconfirmedError(message, input_file_id=unconfirmed[0].input_file_id, candidates=candidates)


# --- every row in one bucket --------------------------------------------------------------------------------------


@attrs.frozen
class Buckets:
    """How many rows are where; together they are all rows of the shards. They can be added and subtracted."""

    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    in_flight: int = 0
    not_sent: int = 0

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(*(mine + theirs for mine, theirs in zip(_counts(self), _counts(other), strict=True)))

    def __sub__(self, other: Buckets) -> Buckets:
        return Buckets(*(mine - theirs for mine, theirs in zip(_counts(self), _counts(other), strict=True)))


def _counts(found: Buckets) -> tuple[int, ...]:
    return attrs.astuple(found)


def buckets(shard: Shard, attempts: Sequence[Attempt], *, max_attempts: int) -> Buckets:
    """Where each row of a shard is, by the attempts at it."""
    counts = Counter[int]()
    attempts = [attempt for attempt in attempts if attempt.rows]
    for attempt in attempts:
        counts.update(outcomes_of(attempt))
        if attempt.collected_at is None:
            # These had come out as to be sent again before, and are counted where they are now.
            settled = counts[SUCCEEDED] + counts[FAILED]
            rest = {"in_flight": attempt.rows} if attempt.creating_at else {"not_sent": attempt.rows}
            assert settled + attempt.rows == shard.rows  # noqa: S101  # an attempt is about all that are left
            return Buckets(counts[SUCCEEDED], counts[FAILED], **rest)
    if not attempts:
        return Buckets(not_sent=shard.rows)
    outcomes = outcomes_of(attempts[-1])
    left, missing = _left(outcomes), outcomes.count(MISSING)
    if left and _tries(attempts) < max_attempts:
        return Buckets(counts[SUCCEEDED], counts[FAILED], not_sent=left)
    return Buckets(counts[SUCCEEDED], counts[FAILED] + left - missing, missing)


def answered(attempts: Iterable[Attempt]) -> int:
    """How many rows in flight are answered already, by the progress of their jobs."""
    return sum(
        int(attempt.rows * (attempt.progress or 0.0) / 100)
        for attempt in attempts
        if attempt.creating_at is not None and attempt.collected_at is None
    )


def usage(attempts: Iterable[Attempt]) -> Usage:
    """The tokens of all these."""
    each = (Usage(item.prompt_tokens, item.completion_tokens, item.total_tokens) for item in attempts)
    return sum(each, Usage())
