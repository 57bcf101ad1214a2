"""Inspection of a run: from its ledger, without a lock, with or without a process at work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from together_batches._validation import path_of
from together_batches.runs import _ledger, rules
from together_batches.runs._lock import holder
from together_batches.runs._store import buckets_of
from together_batches.runs._values import AttemptView, RunView, SessionView, ShardView

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from together_batches.runs._lock import Holder
    from together_batches.runs._records import Attempt, LedgerSnapshot, Run, Shard
    from together_batches.runs._values import AttemptState


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
    each = [buckets_of(run, shard, at[shard.number]) for shard in snapshot.shards]
    pid, host = held or (None, None)
    return RunView(
        **_shared(RunView, run),
        **_shared(RunView, sum(each, rules.Buckets())),
        directory=directory,
        state="running" if held else "finished" if run.finished_at else "interrupted",
        pid=pid,
        host=host,
        shards=tuple(
            ShardView(
                **_shared(ShardView, shard),
                bytes=shard.size,
                attempts=tuple(_attempt(attempt) for attempt in at[shard.number]),
                not_sent=found.not_sent,
            )
            for shard, found in zip(snapshot.shards, each, strict=True)
        ),
        usage=rules.usage(snapshot.attempts),
        sessions=tuple(
            SessionView(began_at=session.began_at, last_at=session.last_at) for session in snapshot.sessions
        ),
        warnings=tuple(dict.fromkeys(item.warning for item in snapshot.attempts if item.warning)),
    )


def _shared(view: type[attrs.AttrsInstance], record: Run | Shard | Attempt | rules.Buckets) -> dict[str, Any]:
    """Return the fields of a record that its view has too."""
    names = {field.name for field in attrs.fields(view)}
    return attrs.asdict(record, recurse=False, filter=lambda field, _: field.name in names)


def _attempt(attempt: Attempt) -> AttemptView:
    outcomes = rules.outcomes_of(attempt)
    return AttemptView(
        **_shared(AttemptView, attempt),
        state=_state(attempt),
        succeeded=outcomes.count(rules.SUCCEEDED),
        failed=outcomes.count(rules.FAILED),
        again=sum(map(outcomes.count, rules.sent_again() - {rules.MISSING})),
        missing=outcomes.count(rules.MISSING),
        invalid_answers=outcomes.count(rules.INVALID),
        usage=rules.usage([attempt]),
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
