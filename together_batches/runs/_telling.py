"""Telling what happens in a run, to whoever asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.runs._values import RunEvent, RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.runs._records import Key
    from together_batches.runs._verbs import Time

__all__ = ["Telling"]


class Telling:
    """Makes events of what is told, and calls ``on_event`` with each, which may be None."""

    def __init__(self, on_event: Callable[[RunEvent], None] | None, time: Time) -> None:
        self._on_event = on_event
        self._time = time

    def __call__(self, kind: RunEventKind, message: str, key: Key | None = None, job_id: str | None = None) -> None:
        """Tell it."""
        if self._on_event is not None:
            shard, attempt = key or (None, None)
            at = self._time.now()
            self._on_event(RunEvent(kind=kind, message=message, at=at, shard=shard, attempt=attempt, job_id=job_id))
