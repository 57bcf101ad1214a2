"""Interfaces of a run to the service and to the clock. They are passed in, so that both can be simulated."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import attrs

from together_batches._jobs.create import Created, Listing, WantedJob
from together_batches.files import Uploaded
from together_batches.models import BatchJob, FileObject

if TYPE_CHECKING:
    from together_batches.errors import BatchesError

__all__ = ["Clock", "Create", "Follow", "RunApi"]


class Create(Protocol):
    """Function that creates one job, like :func:`together_batches._jobs.create.create_once`."""

    def __call__(
        self,
        wanted: WantedJob,
        *,
        list_jobs: Callable[[], Awaitable[Listing]],
        patience: float,
        posts: int,
        since: datetime | None,
        is_another: Callable[[BatchJob], bool] | None,
        note_posts: Callable[[int], Awaitable[None]],
    ) -> Awaitable[Created]: ...


class Follow(Protocol):
    """Function that yields each job when it has finished, and reports jobs that change or cannot be followed."""

    def __call__(
        self,
        job_ids: AsyncIterator[str],
        *,
        on_update: Callable[[BatchJob], None],
        on_refused: Callable[[str, BatchesError], None],
    ) -> AsyncGenerator[BatchJob, None]: ...


@attrs.frozen(kw_only=True)
class RunApi:
    """The requests that a run sends to the service.

    ``upload`` takes a path and a name. ``file`` returns the metadata of a file, and the service's own clock at the
    response (None if it is not given). ``know`` takes an existing job, which no later create can have made.
    ``retrieve`` reads a job. ``download`` takes the id of a file, and the path to replace.
    """

    upload: Callable[[Path, str], Awaitable[Uploaded]]
    file: Callable[[str], Awaitable[tuple[FileObject, datetime | None]]]
    know: Callable[[BatchJob], object]
    create: Create
    list_jobs: Callable[[], Awaitable[Listing]]
    retrieve: Callable[[str], Awaitable[BatchJob]]
    follow: Follow
    download: Callable[[str, Path], Awaitable[object]]
    cancel: Callable[[Sequence[BatchJob]], Awaitable[object]]


@attrs.frozen
class Clock:
    """The time: ``now`` for records, ``monotonic`` for durations, ``sleep`` for waits."""

    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    monotonic: Callable[[], float] = monotonic
