"""Delivery of a run's events to ``on_event``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from together_batches.runs._values import RunEvent, RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.runs._api import Clock
    from together_batches.runs._records import Key
    from together_batches.runs._rules import Buckets

__all__ = ["EventSink"]


class EventSink:
    """Source of events, which calls ``on_event`` with each if it is not None.

    ``counts`` returns the buckets, and how many rows in flight are answered; it is set before the first event.
    """

    counts: Callable[[], tuple[Buckets, int]]

    def __init__(self, on_event: Callable[[RunEvent], None] | None, time: Clock, *, invalid: int = 0) -> None:
        self._on_event = on_event
        self._time = time
        self._invalid = invalid

    def __call__(self, kind: RunEventKind, message: str, key: Key | None = None, job_id: str | None = None) -> None:
        """Report an event."""
        if self._on_event is None:
            return
        shard, attempt = key or (None, None)
        buckets, answered = self.counts()
        self._on_event(
            RunEvent(
                kind=kind,
                message=message,
                at=self._time.now(),
                shard=shard,
                attempt=attempt,
                job_id=job_id,
                invalid=self._invalid,
                answered=answered,
                **attrs.asdict(buckets),
            )
        )
