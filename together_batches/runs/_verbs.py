"""What a run needs of the outside: the service, and the time. Passed in, so that both can be played."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from together_batches.models import BatchJob, FileObject

if TYPE_CHECKING:
    from together_batches.errors import BatchesError

__all__ = ["Follow", "Time", "Verbs"]


class Follow(Protocol):
    """Gives each job when it has finished, and tells of those that have changed, or cannot be followed."""

    def __call__(
        self,
        job_ids: AsyncIterator[str],
        *,
        on_update: Callable[[BatchJob], None],
        on_refused: Callable[[str, BatchesError], None],
    ) -> AsyncGenerator[BatchJob, None]: ...


@attrs.frozen(kw_only=True)
class Verbs:
    """What this room needs of the service.

    ``upload`` takes a path and a name. ``moment`` asks for a file, and gives the service's own clock when it answered
    (None where it does not say). ``know`` is told of a job that no later create can have made. ``download`` takes the
    id of a file, and the path to replace. ``settle_seconds`` is how long a create may show its job after its answer
    was lost.
    """

    upload: Callable[[Path, str], Awaitable[FileObject]]
    moment: Callable[[str], Awaitable[datetime | None]]
    know: Callable[[BatchJob], object]
    create: Callable[[str], Awaitable[BatchJob]]
    list_jobs: Callable[[], Awaitable[list[BatchJob]]]
    follow: Follow
    download: Callable[[str, Path], Awaitable[object]]
    cancel: Callable[[Sequence[str]], Awaitable[object]]
    settle_seconds: float


@attrs.frozen
class Time:
    """The time, for what is noted, and how it passes."""

    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
