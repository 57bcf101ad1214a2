"""The events of a run, for the function that was passed as ``on_event``."""

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
    """Makes events, and calls ``on_event`` with each, unless that is None.

    ``counts`` returns where the rows are, and how many of those in flight are answered; it is set before the first
    event.
    """

    counts: Callable[[], tuple[Buckets, int]]

    def __init__(self, on_event: Callable[[RunEvent], None] | None, time: Clock, *, invalid: int = 0) -> None:
        self._on_event = on_event
        self._time = time
        self._invalid = invalid

    def __call__(self, kind: RunEventKind, message: str, key: Key | None = None, job_id: str | None = None) -> None:
        """Report something that happened."""
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
