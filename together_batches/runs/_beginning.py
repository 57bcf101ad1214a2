"""The first steps of an attempt: its rows are uploaded, and one job is created from them.

Each step is recorded before and after it is taken, may be resumed by another process than the one that began it, and
does nothing if it was done.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from together_batches._jobs.create import CreateRecord
from together_batches._jobs.patience import until_found
from together_batches._text import count_of
from together_batches.errors import APIError, APIResponseValidationError, CreateUnconfirmedError, NotFoundError
from together_batches.runs import rules
from together_batches.runs._lost_jobs import EPOCH, wanted_job
from together_batches.runs._values import RunEventKind

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from together_batches._jobs.create import Created, Listing
    from together_batches.runs._attempt import AttemptInput
    from together_batches.runs._attempt_job import AttemptJob


class Beginning:
    """Upload of the rows of an attempt, and creation of its job.

    With ``look_once``, what is absent is an error at once, and an outage is raised as such.
    """

    def __init__(self, attempt_job: AttemptJob, rows: AttemptInput, *, look_once: bool = False) -> None:
        self._attempt_job = attempt_job
        self._context = attempt_job.context
        self._rows = rows
        self._look_once = look_once
        self._uploaded_here = False
        self._since: datetime | None = None
        self._outage: APIError | None = None

    async def upload(self) -> None:
        """Upload the rows. An upload costs nothing, and may be repeated.

        The content of the file is unique. If the service already knows it, although that is not recorded, an earlier
        process uploaded it, and perhaps created its job.
        """
        context = self._context
        if context.attempt.file_id is not None:
            return
        uploaded, is_marked = await self._rows.upload()
        attempt, now = context.attempt, context.time.now()
        changes: dict[str, Any] = {"file_id": uploaded.file.id, "uploaded_at": now, "marked": is_marked}
        if uploaded.known_id not in {None, uploaded.file.id}:
            changes["former_file_ids"] = attempt.former_file_ids_with(uploaded.known_id)
        was_uploaded_before = self._rows.may_be_uploaded and uploaded.known_id and not self._uploaded_here
        if was_uploaded_before and not attempt.posts:
            changes |= {"posts": 1, "creating_at": now}
        self._uploaded_here = True
        await context.save(**changes)
        context.emit(RunEventKind.UPLOADED, f"{count_of(attempt.rows, 'row')} uploaded as {uploaded.file.id}")

    async def create(self) -> None:
        """Create exactly one job: if a create may already have been sent, search for its job first."""
        attempt = self._context.attempt
        if attempt.job_id is not None:
            return
        if not attempt.creating_at:
            await self._check_file()
        # Read anew for each try, because a failed one records how many creates were sent.
        await self._attempt_job.note_job(await self._context.until_answered("create", self._created))

    async def _check_file(self) -> None:
        """Check before a create that the input still exists, and read the service's clock.

        A deleted file is uploaded again, because a job of it would fail.
        """
        context = self._context
        file_id, uploaded_at = context.attempt.file_id or "", context.attempt.uploaded_at
        patience = min(context.patience, rules.FILE_SECONDS)
        look = partial(context.until_answered, "look-up of the input", partial(context.api.file, file_id))
        try:
            file = await until_found(look, patience=0 if self._look_once else patience, sleep=context.time.sleep)
        except NotFoundError:
            if self._look_once and uploaded_at and (context.time.now() - uploaded_at).total_seconds() < patience:
                raise
            former = context.attempt.former_file_ids_with(file_id)
            await context.save(file_id=None, uploaded_at=None, former_file_ids=former)
            await self.upload()
        else:
            self._since = file.seen_at

    async def _created(self) -> Created:
        context = self._context
        attempt = context.attempt
        posts = max(attempt.posts, bool(attempt.creating_at))
        record = CreateRecord(
            posts=posts,
            since=attempt.since or (EPOCH if posts else None),
            note_posts=self._note_posts,
            posts_again=not self._look_once,
            is_another=context.is_of_another if posts else None,
            list_jobs=self._list_jobs,
        )
        patience = 0 if self._look_once else min(context.patience, rules.SEARCH_SECONDS)
        try:
            return await context.api.create(wanted_job(attempt, context.settings), patience, record)
        except CreateUnconfirmedError:
            if self._look_once and self._outage is not None:
                raise self._outage from None
            raise

    async def _list_jobs(self) -> Listing:
        try:
            return await self._attempt_job.list_jobs()
        except APIError as error:
            if error.is_transient and not isinstance(error, APIResponseValidationError):
                self._outage = error
            raise

    async def _note_posts(self, posts: int) -> None:
        """Record how many creates may have reached the service; the service's time of the first is kept."""
        context = self._context
        attempt = context.attempt
        if posts:
            creating_at = attempt.creating_at or context.time.now()
            await context.save(posts=posts, creating_at=creating_at, since=attempt.since or self._since)
        else:
            await context.save(posts=0, creating_at=None, since=None)
