"""The rules of a run: what is sent next, and in which bucket each row is. Plain values in, plain values out.

They use no database, no service and no clock, and so are valid wherever the records of a run are kept: each row is in
one bucket, and a row is sent again only if its outcome is known. The outcome of a row is a byte: :data:`SUCCEEDED`,
:data:`INVALID`, :data:`FAILED`, :data:`AGAIN`, :data:`MISSING`, :data:`REFUSED` or :data:`DENIED`.
"""

from __future__ import annotations

import operator
import zlib
from array import array
from collections import Counter
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from together_batches._fields import Plain
from together_batches._protocol.result_lines import states_error
from together_batches._text import count_of, format_count
from together_batches.errors import UsageError
from together_batches.models import BatchJobStatus
from together_batches.rows import BatchFailure, BatchInvalid, BatchMissing, BatchSuccess, Usage
from together_batches.runs._records import Attempt, check_order, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from together_batches.runs._records import Shard

__all__ = [
    "AGAIN",
    "ALONE_SECONDS",
    "ANSWERED",
    "DENIED",
    "FAILED",
    "FILE_SECONDS",
    "FOR_THE_ACCOUNT",
    "INVALID",
    "JOB_FAILED",
    "MISSING",
    "RECHECK_SECONDS",
    "REFUSED",
    "SEARCH_SECONDS",
    "SUCCEEDED",
    "Buckets",
    "absent",
    "buckets",
    "failed_as_a_whole",
    "look_again_delay",
    "next_attempt",
    "outcome_of",
    "outcomes_of",
    "outweighs",
    "retry_delay",
    "rows_of",
    "second_look_delay",
    "sent_again",
    "shows_valid_input",
    "usage",
]

# --- outcomes of rows ---------------------------------------------------------------------------------------------

SUCCEEDED = ord("s")
"""A row that was answered."""
INVALID = ord("i")
"""A row whose answer does not fit the schema. It was paid for, and is sent again only with ``retry_invalid``."""
ANSWERED = frozenset({SUCCEEDED, INVALID})
"""Outcomes of rows that were answered, and paid for."""
FAILED = ord("f")
"""A failed row that would fail again."""
AGAIN = ord("a")
"""A failed row that may succeed if it is sent again."""
MISSING = ord("m")
"""A row that is in no file of its job. It is sent again."""
REFUSED = ord("r")
"""A row refused because of the account: no credit (402), or a rejected key (401)."""
DENIED = ord("d")
"""A row refused with 403, which may be because of the account or of the row."""
FOR_THE_ACCOUNT = frozenset({REFUSED, DENIED})
"""Outcomes of rows that are sent again once the account is in order."""
_TO_SEND_AGAIN = frozenset({AGAIN, MISSING, REFUSED, DENIED})

_PERMANENT_STATUSES = frozenset(range(400, 500)) - {401, 402, 403, 408, 409, 425, 429}
JOB_FAILED = "job_failed"
"""Code of rows whose job failed because of its whole input. Defined here: the service gives such rows none."""
_PERMANENT_CODES = frozenset({JOB_FAILED, "invalid_model", "invalid_request", "invalid_request_error"})
_PERMANENT_REASONS = ("input format error", "non-serverless model")


def sent_again(*, retry_invalid: bool = False) -> frozenset[int]:
    """Return the outcomes of rows that are sent again."""
    return _TO_SEND_AGAIN | {INVALID} if retry_invalid else _TO_SEND_AGAIN


def outweighs(outcome: int, before: int) -> bool:
    """Return whether the outcome of a row that was sent again replaces the one before: none replaces an answer."""
    return before not in ANSWERED or outcome in ANSWERED


def outcome_of(result: BatchSuccess[object] | BatchInvalid | BatchFailure | BatchMissing) -> int:
    """Return the outcome of a row, which determines whether it is sent again.

    A failure with a 4xx status of its own (as ``status_code`` or as ``code``), or with an equivalent code, would
    recur, except those about the account. Any other failure may be transient: the service gives
    ``batch_client_error`` for nearly everything, including "Internal Server Error", and failed rows cost nothing
    (https://docs.together.ai/docs/inference/batch/overview). A line that states no error may be an unreadable answer,
    which was paid for, so it is not sent again.
    """
    if isinstance(result, BatchSuccess):
        return SUCCEEDED
    if isinstance(result, BatchInvalid):
        return INVALID
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
    return FAILED if status in _PERMANENT_STATUSES or code in _PERMANENT_CODES else AGAIN


def absent(attempt: Attempt, custom_id: str) -> BatchFailure | BatchMissing:
    """Return the result of a row that is in no file of its job.

    Missing, unless the job failed because of its whole input, and would fail again.
    """
    reason = attempt.error or ""
    if attempt.status == BatchJobStatus.FAILED and any(known in reason for known in _PERMANENT_REASONS):
        return BatchFailure(custom_id, JOB_FAILED, reason)
    return BatchMissing(custom_id)


def outcomes_of(attempt: Attempt) -> bytes:
    """Return the outcome of each row of an attempt, in order; empty if it was not collected."""
    return zlib.decompress(attempt.outcomes) if attempt.outcomes else b""


def _check(shard: Shard, attempts: Sequence[Attempt], *, gaps: bool = False) -> None:
    check_order(shard.number, attempts, gaps=gaps)
    if attempts and attempts[0].rows != shard.rows:
        message = (
            f"attempt {attempts[0].number} of shard {shard.number} has {count_of(attempts[0].rows, 'row')}, and the "
            f"shard has {format_count(shard.rows)}: pass the shard as it was cut, and all attempts at it"
        )
        raise UsageError(message)


# --- the next attempt ---------------------------------------------------------------------------------------------


def next_attempt(
    shard: Shard, attempts: Sequence[Attempt], *, max_attempts: int, now: datetime, retry_invalid: bool = False
) -> Attempt | None:
    """Return the attempt to resume or to begin; None if no row of the shard is to be sent.

    With ``retry_invalid``, it also has the rows whose answers are invalid, of all attempts.

    An attempt that was planned but not created is planned again if the previous one was collected again meanwhile. It
    may then have no rows. It loses an upload from before that, because its rows may be others, even if as many.
    Raises :class:`UsageError` unless ``attempts`` are all those at the shard so far, in order.
    """
    _check(shard, attempts)
    if not attempts:
        return Attempt(shard=shard.number, number=1, rows=shard.rows, planned_at=now)
    attempt = next((attempt for attempt in attempts if attempt.collected_at is None), None)
    if attempt is not None and (attempt.number == 1 or attempt.creating_at is not None):
        return attempt
    earlier = attempts if attempt is None else attempts[: attempt.number - 1]
    latest = _latest(shard, earlier)
    retries = retry_invalid and INVALID in latest
    left = _count(latest, sent_again(retry_invalid=retries))
    if attempt is None:
        if not left or _tries(attempts) >= max_attempts:
            return None
        number = attempts[-1].number + 1
        return Attempt(shard=shard.number, number=number, rows=left, retries_invalid=retries, planned_at=now)
    uploaded_at = attempt.uploaded_at or now
    is_outdated = any(each.collected_at is not None and each.collected_at > uploaded_at for each in earlier)
    if not is_outdated and (left, retries) == (attempt.rows, attempt.retries_invalid):
        return attempt
    former = attempt.former_file_ids_with(attempt.file_id)
    return attrs.evolve(
        attempt, rows=left, retries_invalid=retries, file_id=None, uploaded_at=None, former_file_ids=former
    )


def _latest(shard: Shard, attempts: Iterable[Attempt]) -> bytes:
    """Return the outcome of each row of a shard after these attempts, all collected; of no attempt, all missing."""
    latest = bytearray([MISSING]) * shard.rows
    for attempt in filter(attrgetter("rows"), attempts):
        outcomes = outcomes_of(attempt)
        rows = _to_send(latest, retry_invalid=attempt.retries_invalid)
        if len(outcomes) != len(rows):
            message = (
                f"attempt {attempt.number} of shard {shard.number} has outcomes of {count_of(len(outcomes), 'row')}, "
                f"and the attempts before it left {format_count(len(rows))}: pass all attempts, collected and as "
                "last saved"
            )
            raise UsageError(message)
        if latest.count(MISSING) == shard.rows:
            latest[:] = outcomes
            continue
        for row, outcome in zip(rows, outcomes, strict=True):
            if outweighs(outcome, latest[row]):
                latest[row] = outcome
    return bytes(latest)


def _to_send(latest: Sequence[int], *, retry_invalid: bool) -> Sequence[int]:
    again = sent_again(retry_invalid=retry_invalid)
    if set(latest) <= again:
        return range(len(latest))
    return array("I", (row for row, outcome in enumerate(latest) if outcome in again))


def _count(latest: bytes, outcomes: Iterable[int]) -> int:
    return sum(map(latest.count, outcomes))


def _tries(attempts: Iterable[Attempt]) -> int:
    """Return the number of attempts that count towards the maximum.

    Not counted are those whose job was cancelled or whose rows were refused for the account, because their rows had
    no real try, and those that were given up without a job. Two jobs of one file count once, because the second was
    made by a create whose response was lost.
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


def rows_of(shard: Shard, earlier: Sequence[Attempt], *, retry_invalid: bool = False) -> Sequence[int]:
    """Return the rows of a shard, counted from 0, that the attempt after ``earlier`` contains.

    ``retry_invalid`` is the ``retries_invalid`` of that attempt. Raises :class:`UsageError` unless ``earlier`` are
    all attempts before it, in order, and collected.
    """
    _check(shard, earlier, gaps=True)  # attempts without rows may be left out
    return _to_send(_latest(shard, earlier), retry_invalid=retry_invalid)


def failed_as_a_whole(attempt: Attempt) -> bool:
    """Return whether the job failed or expired and answered no row."""
    has_failed = attempt.status in {BatchJobStatus.FAILED, BatchJobStatus.EXPIRED}
    return has_failed and ANSWERED.isdisjoint(outcomes_of(attempt))


def retry_delay(attempts: Sequence[Attempt], delays: Sequence[float]) -> float:
    """Return the seconds from the end of the last of these attempts at a shard until its rows are sent again.

    After error rows it is the first of ``delays``; after the n-th job that failed as a whole the n-th, or the last;
    after a cancelled job 0.
    """
    last = attempts[-1]
    if not delays or last.status == BatchJobStatus.CANCELLED:
        return 0.0
    failures = sum(map(failed_as_a_whole, attempts)) if failed_as_a_whole(last) else 1
    return delays[min(failures, len(delays)) - 1]


# --- omitted rows --------------------------------------------------------------------------------------------------

_BETWEEN_LOOKS_AT_FILES_SECONDS = 60.0
_BETWEEN_LOOKS_AT_A_JOB_SECONDS = 30.0


def second_look_delay(attempt: Attempt, patience: float) -> float:
    """Return the seconds between two readings that must agree before rows that an ended job omits count as missing.

    It is a minute if the job has files of results, and half a minute if not. It is all of ``patience`` if rows were
    done and there is no file, because done rows are in one according to the documentation.
    """
    if attempt.output_file_id or attempt.error_file_id:
        return min(_BETWEEN_LOOKS_AT_FILES_SECONDS, patience)
    return patience if attempt.progress else min(_BETWEEN_LOOKS_AT_A_JOB_SECONDS, patience)


# --- what is absent -----------------------------------------------------------------------------------------------

SEARCH_SECONDS = 300.0
"""Maximum seconds to search for the job of a lost create, because the shard makes no progress meanwhile."""
FILE_SECONDS = 60.0
"""Maximum seconds to wait for the metadata of a new upload. Then it is uploaded again, which costs nothing."""
RECHECK_SECONDS = 60.0
"""Maximum seconds to wait for an absent collected job before its rows are sent again on the existing evidence."""
_SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0


def look_again_delay(waited: float, patience: float) -> float | None:
    """Return the seconds until what is absent is looked for again; None if patience is used up.

    ``waited`` is the sum of these delays so far. For callers that wait without a process.
    """
    left = patience - waited
    return min(max(waited, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS, left) if left > 0 else None


# --- the first job ------------------------------------------------------------------------------------------------

ALONE_SECONDS = 600.0
"""Maximum seconds that the first job is alone: a queue at the service must not delay all others."""
_SHOW_NO_VALID_INPUT = frozenset(
    {BatchJobStatus.VALIDATING, BatchJobStatus.FAILED, BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED}
)


def shows_valid_input(status: str | None) -> bool:
    """Return whether the status of the first job shows that its input is valid, so that others may be created.

    It does once the job is past VALIDATING, the status in which an invalid input fails, and in which a job can be
    cancelled.
    """
    return status is not None and status not in _SHOW_NO_VALID_INPUT


# --- buckets of rows ----------------------------------------------------------------------------------------------


@attrs.frozen
class Buckets(Plain):
    """Number of rows by state, which together are all rows of the shards. Supports addition and subtraction.

    ``answered`` rows in flight are already answered, according to the progress of their jobs.
    """

    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    in_flight: int = 0
    not_sent: int = 0
    answered: int = 0
    invalid_answers: int = 0

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(*map(operator.add, attrs.astuple(self), attrs.astuple(other)))

    def __sub__(self, other: Buckets) -> Buckets:
        return Buckets(*map(operator.sub, attrs.astuple(self), attrs.astuple(other)))


def buckets(shard: Shard, attempts: Sequence[Attempt], *, max_attempts: int, retry_invalid: bool = False) -> Buckets:
    """Return the buckets of a shard's rows, according to all attempts at it, in order.

    A row that is sent for several rows of the input counts as often.
    """
    _check(shard, attempts)
    attempts = [attempt for attempt in attempts if attempt.rows]
    collected = list(takewhile(attrgetter("collected_at"), attempts))
    found = _counted(_latest(shard, collected), shard.copies)
    attempt = attempts[len(collected)] if len(collected) < len(attempts) else None
    if attempt is not None:
        retry_invalid = attempt.retries_invalid
    left = sum(found[outcome] for outcome in sent_again(retry_invalid=retry_invalid))
    if attempt is None and (not left or _tries(attempts) >= max_attempts):
        failed = sum(found[outcome] for outcome in {FAILED, *_TO_SEND_AGAIN} - {MISSING})
        return Buckets(found[SUCCEEDED], failed, found[MISSING], invalid_answers=found[INVALID])
    settled = Buckets(found[SUCCEEDED], found[FAILED], invalid_answers=0 if retry_invalid else found[INVALID])
    if attempt is None or not attempt.creating_at:
        return attrs.evolve(settled, not_sent=left)
    return attrs.evolve(settled, in_flight=left, answered=int(left * (attempt.progress or 0.0) / 100))


def _counted(latest: bytes, copies: bytes) -> Counter[int]:
    """Return the number of rows with each outcome."""
    if not copies:
        return Counter({outcome: latest.count(outcome) for outcome in ANSWERED | {FAILED} | _TO_SEND_AGAIN})
    found = Counter[int]()
    for outcome, count in zip(latest, unpacked(copies), strict=True):
        found[outcome] += count
    return found


def usage(attempts: Iterable[Attempt]) -> Usage:
    """Return the tokens used by all attempts."""
    each = (Usage(item.prompt_tokens, item.completion_tokens, item.total_tokens) for item in attempts)
    return sum(each, Usage())
