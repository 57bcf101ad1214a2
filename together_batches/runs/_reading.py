"""Inspection of a run: from its ledger, without a lock, with or without a process at work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._validation import path_of
from together_batches.rows import Usage
from together_batches.runs import _ledger, _rules
from together_batches.runs._lock import holder
from together_batches.runs._values import AttemptView, RunView, ShardView

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from together_batches.runs._lock import Holder
    from together_batches.runs._records import Attempt, LedgerSnapshot
    from together_batches.runs._values import AttemptState, RunState

__all__ = ["read"]


def read(directory: str | os.PathLike[str]) -> RunView:
    """Return a snapshot of the run in a directory, whether it is running, interrupted or finished.

    Read only local files: send no request, wait for no process and change nothing.

    Raises:
        RunLedgerError: the directory contains no run, or its ledger cannot be read.
        UsageError: ``directory`` is not a path.
    """
    path = path_of("directory", directory)
    held = holder(path)
    return view_of(path, _ledger.read(path), held)


def view_of(directory: Path, snapshot: LedgerSnapshot, held: Holder | None) -> RunView:
    """Return the view of a run from a snapshot of its ledger."""
    run = snapshot.run
    at: dict[int, list[Attempt]] = {shard.number: [] for shard in snapshot.shards}
    for attempt in snapshot.attempts:
        at[attempt.shard].append(attempt)
    each = (_rules.buckets(shard, at[shard.number], max_attempts=run.max_attempts) for shard in snapshot.shards)
    found = sum(each, _rules.Buckets())
    state: RunState = "running" if held else "finished" if run.finished_at else "interrupted"
    shards = tuple(
        ShardView(
            number=shard.number,
            first_line=shard.first_line,
            rows=shard.rows,
            offset=shard.offset,
            bytes=shard.size,
            attempts=tuple(_attempt(attempt) for attempt in at[shard.number]),
        )
        for shard in snapshot.shards
    )
    return RunView(
        directory=directory,
        state=state,
        pid=held[0] if held else None,
        host=held[1] if held else None,
        input_name=run.input_name,
        input_bytes=run.input_bytes,
        input_sha256=run.input_sha256,
        endpoint=run.endpoint,
        model_id=run.model_id,
        priority=run.priority,
        max_attempts=run.max_attempts,
        started_at=run.started_at,
        finished_at=run.finished_at,
        shards=shards,
        succeeded=found.succeeded,
        failed=found.failed,
        missing=found.missing,
        invalid=run.invalid,
        in_flight=found.in_flight,
        not_sent=found.not_sent,
        usage=_rules.usage(snapshot.attempts),
        warnings=tuple(dict.fromkeys(item.warning for item in snapshot.attempts if item.warning)),
    )


def _attempt(attempt: Attempt) -> AttemptView:
    outcomes = _rules.outcomes_of(attempt)
    return AttemptView(
        number=attempt.number,
        rows=attempt.rows,
        state=_state(attempt),
        file_id=attempt.file_id,
        job_id=attempt.job_id,
        found=attempt.found,
        status=attempt.status,
        progress=attempt.progress,
        error=attempt.error,
        warning=attempt.warning,
        output_file_id=attempt.output_file_id,
        error_file_id=attempt.error_file_id,
        planned_at=attempt.planned_at,
        uploaded_at=attempt.uploaded_at,
        creating_at=attempt.creating_at,
        known_at=attempt.known_at,
        created_at=attempt.created_at,
        running_at=attempt.running_at,
        ended_at=attempt.ended_at,
        collected_at=attempt.collected_at,
        succeeded=outcomes.count(_rules.SUCCEEDED),
        failed=outcomes.count(_rules.FAILED),
        again=outcomes.count(_rules.AGAIN),
        missing=outcomes.count(_rules.MISSING),
        usage=Usage(attempt.prompt_tokens, attempt.completion_tokens, attempt.total_tokens),
    )


def _state(attempt: Attempt) -> AttemptState:
    if attempt.collected_at:
        return "collected"
    if attempt.ended_at:
        return "ended"
    if attempt.job_id:
        return "running"
    if attempt.creating_at:
        return "creating"
    return "uploaded" if attempt.file_id else "planned"
