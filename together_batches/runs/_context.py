"""One call of a run, as all parts of the engine see it, and its interfaces to the service and to the clock.

The interfaces are passed in, so that both can be simulated.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from together_batches._emitter import Emitter
from together_batches._jobs.create import Created, CreateRecord, Listing, WantedJob
from together_batches._protocol.files import UploadContent, Uploaded
from together_batches.errors import APIError
from together_batches.events import RunChanged
from together_batches.models import BatchJob, FileObject, Price
from together_batches.runs._options import Options
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._store import RunStore
from together_batches.runs._values import RunEvent, RunEventKind

if TYPE_CHECKING:
    from together_batches.errors import BatchesError
    from together_batches.runs._records import Key

_log = logging.getLogger("together_batches")

SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0

T = TypeVar("T")


class Ended(Protocol):
    """Function that returns a job when it has finished, like :meth:`together_batches.AsyncBatches.wait`."""

    def __call__(self, job_id: str, *, on_update: Callable[[BatchJob], None]) -> Awaitable[BatchJob]: ...


@attrs.frozen
class Clock:
    """The time: ``now`` for records, ``monotonic`` for durations, ``sleep`` for waits."""

    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    monotonic: Callable[[], float] = monotonic


@attrs.frozen(kw_only=True)
class RunApi:
    """The requests that a run sends to the service.

    ``file`` returns the metadata of a file. ``know`` takes an existing job, which no later create can have made.
    ``create`` takes its patience in seconds. ``retrieve`` reads a job. ``download`` takes the id of a file, and the
    path to replace. ``prices`` are those of the models, by their names. ``emitter`` has the callbacks of the client.
    """

    time: Clock
    upload: Callable[[UploadContent], Awaitable[Uploaded]]
    file: Callable[[str], Awaitable[FileObject]]
    know: Callable[[BatchJob], object]
    create: Callable[[WantedJob, float, CreateRecord], Awaitable[Created]]
    list_jobs: Callable[[], Awaitable[Listing]]
    retrieve: Callable[[str], Awaitable[BatchJob]]
    ended: Ended
    download: Callable[[str, Path], Awaitable[object]]
    cancel: Callable[[Sequence[BatchJob]], Awaitable[object]]
    prices: Callable[[], Awaitable[Mapping[str, Price]]]
    emitter: Emitter = attrs.field(factory=Emitter)


@attrs.frozen(kw_only=True)
class RunContext:
    """Context of one call of a run: its options, its records, its files, the service and the clock.

    ``is_resumed`` is true if an earlier call began the run. ``price`` is that of the tokens, if known.
    """

    options: Options
    store: RunStore
    directory: RunDirectory
    api: RunApi
    is_resumed: bool
    price: Price | None = None

    @property
    def time(self) -> Clock:
        """The clock."""
        return self.api.time

    def emit(self, kind: RunEventKind, message: str, key: Key | None = None, job_id: str | None = None) -> None:
        """Report an event to ``on_event`` of the call and to that of the client."""
        on_event, emitter = self.options.on_event, self.api.emitter
        if on_event is None and not emitter.callbacks:
            return
        shard, attempt = key or (None, None)
        facts: dict[str, Any] = {
            "kind": kind,
            "at": self.time.now(),
            "shard": shard,
            "attempt": attempt,
            "job_id": job_id,
            "invalid": self.store.run.invalid,
            **attrs.asdict(self.store.buckets),
        }
        if on_event is not None:
            on_event(RunEvent(message=message, **facts))
        if emitter.callbacks:
            emitter.emit(RunChanged(directory=str(self.directory.directory), **facts))

    async def until_answered(
        self,
        what: str,
        key: Key | None,
        call: Callable[[], Awaitable[T]],
        *,
        is_over: Callable[[APIError], bool] = lambda _: False,
    ) -> T:
        """Return the result of ``call``, after any outage; raise other errors, and one that ``is_over``."""
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except APIError as error:
                if not error.is_transient or is_over(error):
                    raise
                pause = await self.wait(what, key, error, pause)

    async def wait(self, what: str, key: Key | None, problem: BatchesError | str, pause: float) -> float:
        """Report a transient failure, wait, and return the seconds to wait next time."""
        self.emit(RunEventKind.TROUBLE, log_failure(what, key, problem, pause), key)
        await self.time.sleep(pause)
        return min(2 * pause, _LONGEST_PAUSE_SECONDS)


def name_of(key: Key) -> str:
    """Return the name of an attempt in messages."""
    return f"shard {key[0]}, attempt {key[1]}"


def log_failure(what: str, key: Key | None, problem: BatchesError | str, pause: float) -> str:
    """Log a transient failure as a warning, and return its text."""
    subject = "the run" if key is None else name_of(key)
    message = f"{subject}: {what} failed, retrying in {pause:g} s: {problem}"
    shard, attempt = key or (None, None)
    _log.warning("%s", message, extra={"shard": shard, "attempt": attempt, "wait": pause})
    return message
