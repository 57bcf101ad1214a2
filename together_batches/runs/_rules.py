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

from together_batches._creating import created_since
from together_batches.errors import APIError, APIStatusError, BatchesError, CreateUnconfirmedError
from together_batches.models import BatchJobStatus
from together_batches.rows import BatchFailure, BatchMissing, BatchSuccess, Usage
from together_batches.runs._records import Attempt

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from together_batches.models import BatchJob
    from together_batches.runs._records import Shard

__all__ = [
    "AGAIN",
    "FAILED",
    "JOB_FAILED",
    "MISSING",
    "SUCCEEDED",
    "Buckets",
    "Limits",
    "Load",
    "Stop",
    "absent",
    "admission",
    "buckets",
    "may_pass",
    "next_attempt",
    "orphan",
    "outcome_of",
    "outcomes_of",
    "packed",
    "rows_of",
    "unpacked",
    "usage",
]

# --- what became of a row -----------------------------------------------------------------------------------------

SUCCEEDED = ord("s")
FAILED = ord("f")
"""For good: it would fail again."""
AGAIN = ord("a")
"""It failed, and may not fail again."""
MISSING = ord("m")

_FOR_A_CLIENT_TO_MEND = frozenset(range(400, 500)) - {408, 409, 425, 429}
JOB_FAILED = "job_failed"
"""The code of rows whose job failed for its input as a whole. It is ours: the service gives rows none then."""
_CODES_FOR_GOOD = frozenset({JOB_FAILED, "invalid_model", "invalid_request", "invalid_request_error"})
_REASONS_FOR_GOOD = ("input format error", "non-serverless model")


def outcome_of(result: BatchSuccess | BatchFailure | BatchMissing) -> int:
    """What became of a row, and so whether it is sent again.

    A failure with a 4xx status of its own (as ``status_code`` or as ``code``), or with a code that says as much,
    would come again. Any other may pass: the service gives ``batch_client_error`` for nearly everything, an "Internal
    Server Error" included, and rows that fail cost nothing (https://docs.together.ai/docs/inference/batch/overview).
    """
    if isinstance(result, BatchSuccess):
        return SUCCEEDED
    if not isinstance(result, BatchFailure):
        return MISSING
    code = result.code or ""
    status = result.status_code or (int(code) if code.isdecimal() and len(code) == 3 else None)
    return FAILED if status in _FOR_A_CLIENT_TO_MEND or code in _CODES_FOR_GOOD else AGAIN


def absent(attempt: Attempt, custom_id: str) -> BatchFailure | BatchMissing:
    """What a row is that is in no file of its job.

    Missing, unless the job failed for its input as a whole, and would fail again for the same.
    """
    reason = attempt.error or ""
    if attempt.status == BatchJobStatus.FAILED and any(told in reason for told in _REASONS_FOR_GOOD):
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
    """The attempt to go on with, or to begin; None where no row of the shard is to be sent.

    An attempt whose job was cancelled does not count: whoever cancels has not yet had the chance that was meant.
    """
    if not attempts:
        return Attempt(shard=shard.number, number=1, rows=shard.rows, planned_at=now)
    last = attempts[-1]
    if last.collected_at is None:
        return last
    left = _left(outcomes_of(last))
    if not left or _tries(attempts) >= max_attempts:
        return None
    return Attempt(shard=shard.number, number=last.number + 1, rows=left, planned_at=now)


def _left(outcomes: bytes) -> int:
    return outcomes.count(AGAIN) + outcomes.count(MISSING)


def _tries(attempts: Iterable[Attempt]) -> int:
    return sum(attempt.status != BatchJobStatus.CANCELLED for attempt in attempts if attempt.collected_at)


def rows_of(shard: Shard, earlier: Sequence[Attempt]) -> Sequence[int]:
    """Which rows of a shard the attempt after these is about, counted from 0."""
    rows: Sequence[int] = range(shard.rows)
    for attempt in earlier:
        rows = array("I", (row for row, outcome in zip(rows, outcomes_of(attempt), strict=True) if outcome in b"am"))
    return rows


# --- what may be spent --------------------------------------------------------------------------------------------


@attrs.frozen
class Limits:
    """What a run may have in flight at once (jobs, rows), and send and use in all (rows, tokens)."""

    max_jobs: int
    max_enqueued_rows: int | None = None
    stop_after_rows: int | None = None
    stop_after_tokens: int | None = None


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
        return Stop(f"{load.tokens:,} tokens were used, and it was to stop after {limits.stop_after_tokens:,}")
    if limits.stop_after_rows is not None and load.sent_rows + rows > limits.stop_after_rows:
        return Stop(
            f"{load.sent_rows:,} rows were sent, the next job has {rows:,}, and it was to stop after "
            f"{limits.stop_after_rows:,}"
        )
    room = limits.max_enqueued_rows is None or load.enqueued_rows + rows <= limits.max_enqueued_rows
    return "now" if room and load.jobs < limits.max_jobs else "later"


# --- what may be there already ------------------------------------------------------------------------------------


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def orphan(attempt: Attempt, jobs: Iterable[BatchJob], *, known: Container[str | None]) -> BatchJob | None:
    """The job, among those of the account, that a create made whose answer nobody noted; None where there is none.

    It is one of the attempt's file, created since the create was about to be sent by the service's own clock (at any
    time, where that was not told), and none that is ``known`` already: two attempts at the same rows share a file.
    Where several could be it, those that were cancelled are out: that is how somebody who has looked decides.

    Raises :class:`CreateUnconfirmedError` where it still cannot be told.
    """
    candidates = created_since(
        attempt.since or _LONG_AGO,
        jobs,
        input_file_id=attempt.file_id or "",
        known=lambda job: job.id in known,
    )
    left = [job for job in candidates if job.status not in {BatchJobStatus.CANCELLED, BatchJobStatus.CANCELING}]
    if len(candidates) > 1 and len(left) == 1:
        candidates = left
    if not candidates:
        return None
    if len(candidates) == 1 and candidates[0].created_at is not None:
        return candidates[0]
    ids = ", ".join(job.id for job in candidates)
    message = (
        f"a create for shard {attempt.shard}, attempt {attempt.number} ({attempt.file_id}) was begun and its "
        f"answer never heard, and which of these jobs it made cannot be told: {ids}; cancel those that it did not "
        "make, and run it again"
    )
    raise CreateUnconfirmedError(message, input_file_id=attempt.file_id or "", candidates=candidates)


def may_pass(error: BatchesError) -> bool:
    """True for what waiting may help: no answer, half of one, a service in trouble or asking for patience."""
    if isinstance(error, APIStatusError):
        return error.status >= 500 or error.status in {408, 429}
    return isinstance(error, APIError)


# --- every row in one bucket --------------------------------------------------------------------------------------


@attrs.frozen
class Buckets:
    """How many rows are where; together they are all rows of the shards. They add up."""

    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    in_flight: int = 0
    not_sent: int = 0

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(*(mine + theirs for mine, theirs in zip(_counts(self), _counts(other), strict=True)))


def _counts(found: Buckets) -> tuple[int, ...]:
    return attrs.astuple(found)


def buckets(shard: Shard, attempts: Sequence[Attempt], *, max_attempts: int) -> Buckets:
    """Where each row of a shard is, by the attempts at it."""
    counts = Counter[int]()
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
    last = Counter(outcomes_of(attempts[-1]))
    if (last[AGAIN] or last[MISSING]) and _tries(attempts) < max_attempts:
        return Buckets(counts[SUCCEEDED], counts[FAILED], not_sent=last[AGAIN] + last[MISSING])
    return Buckets(counts[SUCCEEDED], counts[FAILED] + last[AGAIN], last[MISSING])


def usage(attempts: Iterable[Attempt]) -> Usage:
    """The tokens of all these."""
    each = (Usage(item.prompt_tokens, item.completion_tokens, item.total_tokens) for item in attempts)
    return sum(each, Usage())
