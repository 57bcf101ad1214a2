"""When a run may create its next job: the limits of its options, how its jobs ended so far, and the first job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import attrs

from together_batches._text import format_count, format_usd
from together_batches.runs import rules
from together_batches.runs._records import Key

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from together_batches.runs._options import Options

MOST_FAILURES_IN_A_ROW = 3
AFTER_THE_SAMPLE = "only the sample was to be sent"


@attrs.define
class Working:
    """An attempt at work: its ``rows`` in flight, and when its job ended, if in this call, by the monotonic clock.

    ``seems_failed`` means that its job seems to have failed as a whole, until there is evidence. While it
    ``seems_cancelled``, until its end is read twice, nothing is created and nothing stopped.
    """

    rows: int
    ended_at: float | None = None
    seems_failed: bool = False
    seems_cancelled: bool = False


@attrs.define
class Load:
    """The attempts at work, the rows sent, tokens used and their cost so far, and how jobs ended."""

    working: dict[Key, Working] = attrs.field(factory=dict[Key, Working])
    sent_rows: int = 0
    tokens: int = 0
    cost: float = 0.0
    failures_in_a_row: int = 0


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
    working = load.working.values()
    failures = load.failures_in_a_row + sum(each.seems_failed for each in working)
    if failures >= MOST_FAILURES_IN_A_ROW or any(each.seems_cancelled for each in working):
        return "later"
    in_flight = [each.rows for each in working if each.rows]
    most = limits.max_enqueued_rows
    room = most is None or sum(in_flight) + rows <= most
    return "now" if room and len(in_flight) < limits.max_jobs else "later"


class Scout:
    """One attempt at a time, until one has succeeded. ``on_return`` is called when others may begin.

    In a resumed run, it may be several: those whose jobs may exist already.
    """

    def __init__(self, *, is_needed: bool, on_return: Callable[[], None]) -> None:
        self._is_needed = is_needed
        self._on_return = on_return
        self._keys: set[Key] = set()
        self._limit: asyncio.Task[None] | None = None

    @property
    def is_out(self) -> bool:
        """Whether an attempt is alone, so that no other may begin."""
        return bool(self._keys)

    def send(self, key: Key) -> None:
        """Make an attempt the scout, if one is needed."""
        if self._is_needed:
            self._keys.add(key)

    def limit(self, key: Key, group: asyncio.TaskGroup, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Limit the time of the scout, from now on, if it is this attempt."""
        if key in self._keys and self._limit is None:
            self._limit = group.create_task(self._succeed_later(sleep))

    async def _succeed_later(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        await sleep(rules.ALONE_SECONDS)
        self._limit = None
        self._succeed()

    def see_status(self, status: str | None) -> None:
        """Take note of the status of any job."""
        if self._is_needed and rules.shows_valid_input(status):
            self._succeed()

    def _succeed(self) -> None:
        self._is_needed = False
        self._return()

    def end(self, key: Key) -> None:
        """End an attempt, after which another can be the scout."""
        if self._keys == {key}:
            self._return()
        self._keys.discard(key)

    def _return(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._keys.clear()
        self._limit = None
        self._on_return()
