"""Views of runs: made by hand, or generated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from together_batches.rows import Usage
from together_batches.runs import AttemptView, RunView, SessionView, ShardView

if TYPE_CHECKING:
    from together_batches.runs import RunState

BEGAN = datetime(2026, 9, 14, 10, 20, 30, tzinfo=UTC)
JOB = "a51e4b7c-2f5d-4c5e-9a53-5e0d6f1c7b90"
STEPS = ("planned_at", "uploaded_at", "running_at", "ended_at", "collected_at")
STATES = ("planned", "uploaded", "running", "ended", "collected")


def at(seconds: float) -> datetime:
    """Return the time so many seconds after the run began."""
    return BEGAN + timedelta(seconds=seconds)


def attempt(*seconds: float, number: int = 1, rows: int = 10, **others: Any) -> AttemptView:
    """Return an attempt with the times of its steps: planned, uploaded, running, ended, collected."""
    times: dict[str, Any] = {step: at(second) for step, second in zip(STEPS, seconds, strict=False)}
    known: dict[str, Any] = {"file_id": "file-1", "job_id": JOB} if len(seconds) > 2 else {}
    state: Any = STATES[len(seconds) - 1]
    return AttemptView(**{"number": number, "rows": rows, "state": state, **times, **known, **others})


def shard(number: int = 1, *attempts: AttemptView, rows: int = 10, not_sent: int = 0) -> ShardView:
    """Return a shard with these attempts."""
    return ShardView(
        number=number,
        first_line=1 + (number - 1) * rows,
        rows=rows,
        offset=0,
        bytes=rows * 100,
        attempts=attempts,
        not_sent=not_sent,
    )


def run(*shards: ShardView, state: RunState = "running", **others: Any) -> RunView:
    """Return a run of these shards; rows without an answer are not sent."""
    rows = sum(shard.rows for shard in shards)
    answered = sum(attempt.succeeded for shard in shards for attempt in shard.attempts)
    counts = {"succeeded": answered, "failed": 0, "missing": 0, "invalid": 0, "in_flight": 0}
    counts |= {name: others.pop(name) for name in counts if name in others}
    facts: dict[str, Any] = {
        "directory": Path("answers.jsonl.run"),
        "state": state,
        "pid": 4711 if state == "running" else None,
        "host": "worker-3" if state == "running" else None,
        "input_name": "requests.jsonl",
        "input_bytes": rows * 100,
        "input_sha256": "ab" * 32,
        "endpoint": "/v1/chat/completions",
        "model_id": None,
        "priority": None,
        "max_attempts": 3,
        "started_at": BEGAN,
        "finished_at": None,
        "usage": Usage(),
        "not_sent": rows - sum(counts.values()),
    }
    return RunView(shards=shards, **{**facts, **counts, **others})


_BUCKETS = ("succeeded", "failed", "missing", "invalid", "in_flight", "not_sent")
_seconds = st.floats(-1e7, 1e8, allow_nan=False)
_texts = st.text(max_size=40)
_counts = st.integers(0, 10**9)


_attempts = st.builds(
    lambda seconds, facts: (seconds, facts),
    st.lists(_seconds, min_size=1, max_size=5),
    st.fixed_dictionaries(
        {
            "rows": _counts,
            "found": st.booleans(),
            "status": st.sampled_from([None, "IN_PROGRESS", "COMPLETED", "FAILED", "EXPIRED", "PAUSED"]),
            "progress": st.none() | st.floats(0, 100),
            "error": st.none() | _texts,
            "succeeded": _counts,
            "again": st.integers(0, 5),
        }
    ),
)
_sessions = st.lists(st.builds(SessionView, began_at=_seconds.map(at), last_at=_seconds.map(at)), max_size=4).map(
    tuple
)
_shards = st.lists(st.tuples(_counts, st.lists(_attempts, max_size=3)), max_size=4)


@st.composite
def any_run(draw: st.DrawFn) -> RunView:
    """Generate any run, including impossible ones: times in any order, names of any characters."""
    shards = [
        shard(
            number,
            *[attempt(*seconds, number=count, **facts) for count, (seconds, facts) in enumerate(attempts, start=1)],
            rows=rows,
        )
        for number, (rows, attempts) in enumerate(draw(_shards), start=1)
    ]
    return run(
        *shards,
        state=draw(st.sampled_from(["running", "interrupted", "finished"])),
        input_name=draw(_texts),
        finished_at=draw(st.none() | _seconds.map(at)),
        sessions=draw(_sessions),
        usage=Usage(total_tokens=draw(_counts)),
        **draw(st.fixed_dictionaries(dict.fromkeys(_BUCKETS, _counts))),
        warnings=tuple(draw(st.lists(_texts, max_size=2))),
    )


moments = _seconds.map(at)
