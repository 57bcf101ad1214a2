"""One attempt of a run: its record is in the ledger, its files are in the directory, and an outage is waited out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from together_batches._jobs.upload_source import open_upload
from together_batches._protocol.upload_marks import mark_of
from together_batches.runs._attempt import AttemptWork
from together_batches.runs._run_directory import AttemptRows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from together_batches._protocol.files import Uploaded
    from together_batches.errors import APIError, BatchesError
    from together_batches.runs._context import RunContext
    from together_batches.runs._joining import Arranged
    from together_batches.runs._records import Attempt, Key
    from together_batches.runs._run_directory import RowsToUpload
    from together_batches.runs._values import RunEventKind

_UPLOADS_AT_ONCE = 4
_DOWNLOADS_AT_ONCE = 4
_ARRANGED_AT_ONCE = 1
"""Maximum jobs arranged at once, because each keeps all its ids in memory."""

T = TypeVar("T")


@attrs.frozen
class Transfers:
    """Limits on how many attempts transfer or arrange files at once."""

    uploads: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(_UPLOADS_AT_ONCE))
    downloads: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(_DOWNLOADS_AT_ONCE))
    arranging: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(_ARRANGED_AT_ONCE))


class RunAttempt(AttemptWork):
    """The work on the attempt with the ``key``, and the place of its results."""

    def __init__(self, run: RunContext, transfers: Transfers, key: Key) -> None:
        self.api = run.api
        self.patience = run.options.patience
        self.settings = run.store.run
        self._run = run
        self._store = run.store
        self._transfers = transfers
        self._key = key

    # --- its record, and the service ------------------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt:
        """The attempt as last saved."""
        return self._store.at(self._key)

    async def save(self, **changes: Any) -> None:
        """Change the attempt, and return when the change is durable."""
        await self._store.save(self._key, **changes)

    @property
    def others(self) -> Iterable[Attempt]:
        """The other attempts of the run."""
        return (attempt for attempt in self._store.attempts if attempt.key != self._key)

    async def until_answered(
        self, what: str, call: Callable[[], Awaitable[T]], *, is_over: Callable[[APIError], bool] = lambda _: False
    ) -> T:
        """Return the result of ``call``, after any outage; raise other errors, and one that ``is_over``."""
        return await self._run.until_answered(what, self._key, call, is_over=is_over)

    async def wait(self, what: str, problem: BatchesError | str, pause: float) -> None:
        """Report a transient failure, and wait."""
        await self._run.wait(what, self._key, problem, pause)

    def emit(self, kind: RunEventKind, message: str, job_id: str | None = None) -> None:
        """Report an event to ``on_event``."""
        self._run.emit(kind, message, self._key, job_id)

    # --- its files ------------------------------------------------------------------------------------------------

    async def upload(self) -> tuple[Uploaded, bool]:
        """Upload the rows; return the file, and whether it is marked: no other has its content."""
        directory = self._run.directory
        mark = mark_of(self._store.run.id, *self._key) if self._run.options.unique_files else None
        async with self._transfers.uploads:
            rows = await directory.rows_of(self._rows, mark)
            uploaded = await self.until_answered("upload", partial(self._upload, rows))
            await directory.drop(rows.path)
        return uploaded, rows.is_marked

    async def _upload(self, rows: RowsToUpload) -> Uploaded:
        async with open_upload(rows.path, rows.name, sha256=rows.sha256) as content:
            return await self.api.upload(content)

    @asynccontextmanager
    async def downloads(self) -> AsyncGenerator[Sequence[Path]]:
        """Provide paths for the two files of results, and limit how many are downloaded at once."""
        directory = self._run.directory
        paths = [directory.download_of(self.attempt, number) for number in (0, 1)]
        async with self._transfers.downloads:
            try:
                yield paths
            finally:
                await directory.drop(*paths)

    async def arrange(self, output: Path | None, errors: Path | None) -> Arranged:
        """Write the piece of the attempt from the files of its results."""
        async with self._transfers.arranging:
            return await self._run.directory.arrange(self._rows, output, errors)

    async def keep(self) -> None:
        """Do nothing: the piece is in its place."""

    @property
    def _rows(self) -> AttemptRows:
        return AttemptRows(self._store.shards[self._key[0]], self._store.earlier(self._key), self.attempt)
