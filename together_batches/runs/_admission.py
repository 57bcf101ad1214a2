"""When a run may create its next job: the limits of its options, and how its jobs ended so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import attrs

from together_batches._text import format_count, format_usd
from together_batches.runs._records import Key

if TYPE_CHECKING:
    from together_batches.runs._options import Options

MOST_FAILURES_IN_A_ROW = 3
AFTER_THE_SAMPLE = "only the sample was to be sent"


@attrs.define
class Load:
    """Rows in flight of each attempt, rows sent, tokens used and their cost so far, and how jobs ended."""

    in_flight: dict[Key, int] = attrs.field(factory=dict[Key, int])
    sent_rows: int = 0
    tokens: int = 0
    cost: float = 0.0
    failures_in_a_row: int = 0
    in_doubt: set[Key] = attrs.field(factory=set[Key])
    """Attempts whose job seems to have failed as a whole, until there is evidence."""
    seem_cancelled: set[Key] = attrs.field(factory=set[Key])
    """Attempts whose job seems cancelled: until it is read again, nothing is created and nothing stopped."""


class Stop(NamedTuple):
    """Decision that no more jobs are created, with the reason."""

    reason: str


def admission(limits: Options, load: Load, rows: int) -> Literal["now", "later"] | Stop:
    """Return whether a job of ``rows`` rows may be created: now, later (when more is known), or not at all."""
    if limits.stop_after_tokens is not None and load.tokens >= limits.stop_after_tokens:
        return Stop(
            f"{format_count(load.tokens)} tokens were used, and the limit is {format_count(limits.stop_after_tokens)}"
        )
    if limits.stop_after_cost is not None and load.cost >= limits.stop_after_cost:
        return Stop(
            f"the tokens cost {format_usd(load.cost)} at list prices, and the limit is "
            f"{format_usd(limits.stop_after_cost)}"
        )
    if limits.stop_after_rows is not None and load.sent_rows + rows > limits.stop_after_rows:
        return Stop(
            f"{format_count(load.sent_rows)} rows were sent, the next job has {format_count(rows)}, and the "
            f"limit is {format_count(limits.stop_after_rows)}"
        )
    if load.seem_cancelled or load.failures_in_a_row + len(load.in_doubt) >= MOST_FAILURES_IN_A_ROW:
        return "later"
    most = limits.max_enqueued_rows
    room = most is None or sum(load.in_flight.values()) + rows <= most
    return "now" if room and len(load.in_flight) < limits.max_jobs else "later"
