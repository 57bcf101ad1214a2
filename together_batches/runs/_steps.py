"""The first steps of an attempt: upload, create, wait; each is recorded before and after it is taken.

Each step may be resumed by another process than the one that began it, and does nothing if it was done.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from together_batches._jobs.patience import until_found
from together_batches._protocol.upload_marks import mark_of
from together_batches._text import count_of
from together_batches.errors import (
    APIError,
    APIResponseValidationError,
    NotFoundError,
    ResultsUnavailableError,
)
from together_batches.runs import _rules
from together_batches.runs._context import SHORTEST_PAUSE_SECONDS
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from together_batches._jobs.create import Created, Listing
    from together_batches.models import BatchJob
    from together_batches.runs._context import RunContext
    from together_batches.runs._follower import JobFollower
    from together_batches.runs._records import Key

__all__ = ["Steps"]

_TRANSFERS_AT_ONCE = 4
_FILE_PATIENCE_SECONDS = 60.0
"""Maximum seconds to wait for the metadata of a new upload. Then it is uploaded again, which costs nothing."""
_BETWEEN_LOOKS_SECONDS = 30.0
_SEARCH_SECONDS = 300.0
"""Maximum seconds to search for the job of a lost create, because the shard makes no progress meanwhile."""


class Steps:
    """Steps of an attempt until its job has ended. An outage is waited out; any other error is raised."""

    def __init__(self, run: RunContext, follower: JobFollower) -> None:
        self._run = run
        self._store = run.store
        self._follower = follower
        self._transfers = asyncio.Semaphore(_TRANSFERS_AT_ONCE)
        self._uploaded_here: set[Key] = set()
        self._since: dict[Key, datetime | None] = {}

    # --- upload ---------------------------------------------------------------------------------------------------

    async def upload(self, key: Key) -> None:
        """Upload the rows. An upload costs nothing, and may be repeated.

        The content of the file is unique. If the service already knows it, in a resumed run, an earlier process
        uploaded it, and perhaps created its job, although the ledger does not record that.
        """
        attempt = self._store.at(key)
        if attempt.file_id is not None:
            return
        mark = mark_of(self._store.run.id, *key) if self._run.options.unique_files else None
        async with self._transfers:
            shard = self._store.shards[attempt.shard]
            rows = await self._run.directory.rows_of(shard, self._store.earlier(key), attempt, mark)
            name = self._run.directory.name_of(attempt, mark if rows.is_marked else None)
            uploaded = await self._run.until_answered(
                "upload", key, lambda: self._run.api.upload(rows.path, name, rows.sha256)
            )
            await self._run.directory.drop(rows.path)
        now = self._run.time.now()
        changes: dict[str, Any] = {"file_id": uploaded.file.id, "uploaded_at": now, "marked": rows.is_marked}
        if uploaded.known_id not in {None, uploaded.file.id}:
            changes["former_file_ids"] = attempt.former_file_ids_with(uploaded.known_id)
        was_uploaded_before = self._run.is_resumed and uploaded.known_id and key not in self._uploaded_here
        if was_uploaded_before and not attempt.posts:
            changes |= {"posts": 1, "creating_at": now}
        self._uploaded_here.add(key)
        await self._store.save(key, **changes)
        self._run.emit(RunEventKind.UPLOADED, f"{count_of(attempt.rows, 'row')} uploaded as {uploaded.file.id}", key)

    # --- create ---------------------------------------------------------------------------------------------------

    async def create(self, key: Key) -> None:
        """Create exactly one job: if a create may already have been sent, search for its job first."""
        attempt = self._store.at(key)
        if attempt.job_id is not None:
            return
        if not attempt.creating_at:
            await self._check_file(key)
        created = await self._created(key)
        await self.note_job(key, created)

    async def note_job(self, key: Key, created: Created, **changes: Any) -> None:
        """Record the job of an attempt, with other ``changes``, and report it."""
        attempt, job = self._store.at(key), created.job
        now = self._run.time.now()
        await self._store.save(
            key,
            job_id=job.id,
            found=created.found,
            creating_at=attempt.creating_at or now,
            posts=max(1, attempt.posts),
            known_at=now,
            created_at=job.created_at,
            warning=job.warning,
            **changes,
        )
        kind = RunEventKind.FOUND if created.found else RunEventKind.CREATED
        message = f"job {job.id} is {'found again' if created.found else 'created'}"
        if created.others:
            ids = ", ".join(other.id for other in created.others)
            message += f"; these were created from its file as well, cancel them if they still run: {ids}"
        self._run.emit(kind, message, key, job.id)

    async def take_up(self, key: Key, other: Created) -> None:
        """Assign an attempt the second job of the previous attempt's file."""
        self._run.api.know(other.job)
        attempt = self._store.at(key)
        file_id = other.job.input_file_id
        former = (
            attempt.former_file_ids if attempt.file_id == file_id else attempt.former_file_ids_with(attempt.file_id)
        )
        # In one save: with the file alone, and the job not listed for a moment, all its rows would be sent again.
        await self.note_job(key, other, file_id=file_id, former_file_ids=former, marked=True)

    async def _check_file(self, key: Key) -> None:
        """Check before a create that the input still exists, and read the service's clock.

        A deleted file is uploaded again, because a job of it would fail.
        """
        file_id = self._store.at(key).file_id or ""

        async def moment() -> datetime | None:
            return (
                await self._run.until_answered("look-up of the input", key, partial(self._run.api.file, file_id))
            )[1]

        try:
            self._since[key] = await until_found(
                moment,
                patience=min(self._run.options.patience, _FILE_PATIENCE_SECONDS),
                sleep=self._run.time.sleep,
            )
        except NotFoundError:
            former = self._store.at(key).former_file_ids_with(file_id)
            await self._store.save(key, file_id=None, uploaded_at=None, former_file_ids=former)
            await self.upload(key)

    async def _created(self, key: Key) -> Created:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            attempt = self._store.at(key)
            posts = max(attempt.posts, bool(attempt.creating_at))
            try:
                return await self._run.api.create(
                    _rules.wanted_job(attempt, self._store.run),
                    list_jobs=partial(self._listed, key),
                    patience=min(self._run.options.patience, _SEARCH_SECONDS),
                    posts=posts,
                    since=attempt.since or (_rules.EPOCH if posts else None),
                    is_another=partial(self._is_another, key) if posts else None,
                    note_posts=partial(self._note_posts, key),
                )
            except APIError as error:
                if not error.is_transient:
                    raise
                pause = await self._run.wait("create", key, error, pause)

    async def _listed(self, key: Key) -> Listing:
        return await self._run.until_answered(
            "search for the job",
            key,
            self._run.api.list_jobs,
            # A response that is not a list counts against patience, and is not waited out as an outage.
            is_over=lambda error: isinstance(error, APIResponseValidationError),
        )

    def _is_another(self, key: Key, job: BatchJob) -> bool:
        """Return whether the job belongs to another attempt."""
        return any(attempt.job_id == job.id and attempt.key != key for attempt in self._store.attempts)

    async def _note_posts(self, key: Key, posts: int) -> None:
        """Record how many creates may have reached the service; the service's time of the first is kept."""
        attempt = self._store.at(key)
        if posts:
            creating_at = attempt.creating_at or self._run.time.now()
            await self._store.save(
                key, posts=posts, creating_at=creating_at, since=attempt.since or self._since.get(key)
            )
        else:
            await self._store.save(key, posts=0, creating_at=None, since=None)

    # --- end ------------------------------------------------------------------------------------------------------

    async def end(self, key: Key) -> BatchJob | None:
        """Wait until the job has finished and return it; None if its end is already recorded."""
        attempt = self._store.at(key)
        if attempt.ended_at is not None:
            return None
        job_id = attempt.job_id or ""
        try:
            ended = await self._follower.ended(key, job_id)
        except NotFoundError as error:
            if await self._has_other_job(key):
                return await self.end(key)
            seen = "" if self._store.at(key).status else ", and was never seen since its create was answered"
            message = (
                f"job {job_id} of shard {attempt.shard} has been absent for {self._run.options.patience:g} s{seen} "
                f"({error.message})"
            )
            raise ResultsUnavailableError(message, job_id=job_id) from error
        await self.note_state(key, ended)
        why = f": {ended.error}" if ended.error else ""
        self._run.emit(RunEventKind.ENDED, f"job {job_id} is {ended.status}{why}", key, job_id)
        return ended

    async def _has_other_job(self, key: Key) -> bool:
        """Adopt another job of the attempt's own file in place of an absent one; return whether one exists.

        The response to a create may have the id of a job that does not exist.
        """
        attempt = self._store.at(key)
        if not attempt.marked:
            return False
        try:
            listing = await self._listed(key)
        except APIError:
            return False
        found = self._store.lost_job(attempt, listing.jobs)
        if found is None:
            return False
        self._run.api.know(found.job)
        await self.note_job(key, found)
        return True

    async def look_again(self, key: Key, job: BatchJob) -> BatchJob:
        """Read an ended job again after half a minute; if it is absent, return it unchanged.

        An inconsistent service may show a false end for a moment.
        """
        await self._run.time.sleep(min(_BETWEEN_LOOKS_SECONDS, self._run.options.patience))
        try:
            found = await until_found(
                lambda: self._run.until_answered(
                    "second look at the job", key, partial(self._run.api.retrieve, job.id)
                ),
                patience=self._run.options.patience,
                sleep=self._run.time.sleep,
            )
        except NotFoundError:
            return job
        await self.note_state(key, found)
        return found

    async def note_state(self, key: Key, job: BatchJob) -> bool:
        """Record the state of a job, with its files, and return whether it has ended.

        Its progress is the maximum seen, because rows that were done are paid for, whatever the job shows at its end.
        """
        seen = [progress for progress in (self._store.at(key).progress, job.progress) if progress is not None]
        await self._store.save(
            key,
            status=str(job.status),
            progress=max(seen, default=None),
            ended_at=self._run.time.now() if job.is_terminal else None,
            error=job.error,
            output_file_id=job.output_file_id,
            error_file_id=job.error_file_id,
        )
        return job.is_terminal
