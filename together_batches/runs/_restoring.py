"""The ordered results of all attempts, made available again to write the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._jobs.patience import Absence
from together_batches.errors import RunError
from together_batches.runs import rules
from together_batches.runs._context import SHORTEST_PAUSE_SECONDS
from together_batches.runs._evidence import UnavailableError
from together_batches.runs._records import packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.runs._collecting import Collecting
    from together_batches.runs._context import RunContext
    from together_batches.runs._records import Attempt, Key


async def restore(run: RunContext, collecting: Callable[[Key], Collecting]) -> None:
    """Make all pieces available; download those again that were removed after the output was written.

    Every row that was recorded as answered must be answered; nothing else is required. A row that was not, and is
    answered by now, is recorded as the piece has it. Raises :class:`RunError` if a piece is not as this run wrote it.
    """
    for attempt in run.store.attempts:
        if not attempt.rows:
            continue
        if await run.directory.has_piece(attempt):
            await _check_piece(run, attempt)
        else:
            await _collect_again(run, attempt, collecting(attempt.key))


async def _collect_again(run: RunContext, attempt: Attempt, collecting: Collecting) -> None:
    # First, so that a process which ends in between does not leave a piece with the hash of another.
    await run.store.save(attempt.key, piece_sha256="")
    noted = rules.outcomes_of(attempt)
    absence = Absence(run.options.patience, shortest=SHORTEST_PAUSE_SECONDS / 5)
    while True:
        problem = "rows that were answered are missing"
        outcomes = b""
        try:
            outcomes = (await collecting.read(leniently=rules.ANSWERED.isdisjoint(noted))).outcomes
        except UnavailableError as error:
            problem = str(error)
        if _covers(outcomes, noted):
            is_last = attempt.key == run.store.at_shard(run.store.shards[attempt.shard])[-1].key
            outcomes = _restored(outcomes, noted, is_last=is_last)
            piece_sha256 = await run.directory.piece_sha256(attempt)
            await run.store.save(attempt.key, piece_sha256=piece_sha256, outcomes=packed(outcomes))
            return
        await run.directory.drop(run.directory.piece_of(attempt))
        pause = absence.pause()
        if pause is None:
            message = (
                f"the results of job {attempt.job_id} are not at the service any more as they were ({problem}), and "
                "the output cannot be made again without them"
            )
            raise RunError(message, directory=str(run.directory.directory))
        await run.wait("collecting the results again", attempt.key, problem, pause)


def _covers(outcomes: bytes, noted: bytes) -> bool:
    """Return whether every row that was recorded as answered is answered."""
    return len(outcomes) == len(noted) and all(
        now in rules.ANSWERED for now, before in zip(outcomes, noted, strict=True) if before in rules.ANSWERED
    )


def _restored(outcomes: bytes, noted: bytes, *, is_last: bool) -> bytes:
    """Return the outcomes to record: those that were recorded, but for rows that are answered by now.

    Rows that a later attempt contains keep their outcomes, because it contains them by these.
    """
    may_change = frozenset(noted) if is_last else {rules.FAILED}
    return bytes(
        now if now in rules.ANSWERED and before in may_change - rules.ANSWERED else before
        for now, before in zip(outcomes, noted, strict=True)
    )


async def _check_piece(run: RunContext, attempt: Attempt) -> None:
    if attempt.piece_sha256 and await run.directory.piece_sha256(attempt) != attempt.piece_sha256:
        path = run.directory.piece_of(attempt)
        message = (
            f"{path} is not as this run wrote it, so no output is made of it: put it back as it was, or remove it "
            f"and run again, and the results of job {attempt.job_id} are downloaded anew"
        )
        raise RunError(message, directory=str(run.directory.directory))
