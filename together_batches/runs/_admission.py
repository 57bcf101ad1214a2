"""When a run may create its next job: the limits of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import attrs

from together_batches._text import format_count

if TYPE_CHECKING:
    from together_batches.runs._options import Options

__all__ = ["Load", "Stop", "admission"]


@attrs.define
class Load:
    """Jobs and rows in flight, and rows sent and tokens used so far."""

    jobs: int = 0
    enqueued_rows: int = 0
    sent_rows: int = 0
    tokens: int = 0


class Stop(NamedTuple):
    """Decision that no more jobs are created, with the reason."""

    reason: str


def admission(limits: Options, load: Load, rows: int) -> Literal["now", "later"] | Stop:
    """Return whether a job of ``rows`` rows may be created: now, later (when others have ended), or not at all."""
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
