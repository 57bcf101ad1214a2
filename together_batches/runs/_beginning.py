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
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from typing import Any

    from together_batches._jobs.create import Created, Listing
    from together_batches._protocol.files import Uploaded
    from together_batches.runs._attempt import AttemptWork


class Beginning:
    """Upload of the rows of an attempt, and creation of its job.

    ``upload`` uploads the rows, and returns the file, and whether it is marked: no other has its content.
    ``may_be_uploaded`` says whether an earlier process may have uploaded them, although no record says so. With
    ``look_once``, what is absent is an error at once, and an outage is raised as such.
    """

    def __init__(
        self,
        work: AttemptWork,
        upload: Callable[[], Awaitable[tuple[Uploaded, bool]]],
        *,
        may_be_uploaded: bool = True,
        look_once: bool = False,
    ) -> None:
        self._work = work
        self._upload = upload
        self._may_be_uploaded = may_be_uploaded
        self._look_once = look_once
        self._since: datetime | None = None
        self._outage: APIError | None = None

    async def upload(self) -> None:
        """Upload the rows. An upload costs nothing, and may be repeated.

        The content of a marked file is unique. If the service already knows it, and the attempt does not, an earlier
        process uploaded it, and perhaps created its job. An unmarked one may have been uploaded by anyone.
        """
        work = self._work
        if work.attempt.file_id is not None:
            return
        uploaded, is_marked = await self._upload()
        attempt, now = work.attempt, work.time.now()
        changes: dict[str, Any] = {"file_id": uploaded.file.id, "uploaded_at": now, "marked": is_marked}
        if uploaded.known_id not in {None, uploaded.file.id}:
            changes["former_file_ids"] = attempt.former_file_ids_with(uploaded.known_id)
        is_unrecorded = uploaded.known_id is not None and uploaded.known_id not in attempt.file_ids
        if is_marked and self._may_be_uploaded and is_unrecorded and not attempt.posts:
            changes |= {"posts": 1, "creating_at": now}
        self._may_be_uploaded = False  # it is recorded from here on
        await work.save(**changes)
        work.emit(RunEventKind.UPLOADED, f"{count_of(attempt.rows, 'row')} uploaded as {uploaded.file.id}")

    async def create(self) -> None:
        """Create exactly one job: if a create may already have been sent, search for its job first."""
        attempt = self._work.attempt
        if attempt.job_id is not None:
            return
        if not attempt.creating_at:
            await self._check_file()
        # Read again for each try, because a failed one records how many creates were sent.
        await self._work.note_job(await self._work.until_answered("create", self._created))

    async def _check_file(self) -> None:
        """Check before a create that the input still exists, and read the service's clock.

        A deleted file is uploaded again, because a job of it would fail.
        """
        work = self._work
        file_id, uploaded_at = work.attempt.file_id or "", work.attempt.uploaded_at
        patience = min(work.patience, rules.FILE_SECONDS)
        look = partial(work.until_answered, "look-up of the input", partial(work.api.file, file_id))
        try:
            file = await until_found(look, patience=0 if self._look_once else patience, sleep=work.time.sleep)
        except NotFoundError:
            if self._look_once and uploaded_at and (work.time.now() - uploaded_at).total_seconds() < patience:
                raise
            former = work.attempt.former_file_ids_with(file_id)
            await work.save(file_id=None, uploaded_at=None, former_file_ids=former)
            await self.upload()
        else:
            self._since = file.seen_at

    async def _created(self) -> Created:
        work = self._work
        attempt = work.attempt
        posts = max(attempt.posts, bool(attempt.creating_at))
        record = CreateRecord(
            posts=posts,
            since=attempt.since or (EPOCH if posts else None),
            note_posts=self._note_posts,
            posts_again=not self._look_once,
            is_another=work.is_of_another if posts else None,
            list_jobs=self._list_jobs,
        )
        patience = 0 if self._look_once else min(work.patience, rules.SEARCH_SECONDS)
        try:
            return await work.api.create(wanted_job(attempt, work.settings), patience, record)
        except CreateUnconfirmedError:
            if self._look_once and self._outage is not None:
                raise self._outage from None
            raise

    async def _list_jobs(self) -> Listing:
        try:
            return await self._work.list_jobs()
        except APIError as error:
            if error.is_transient and not isinstance(error, APIResponseValidationError):
                self._outage = error
            raise

    async def _note_posts(self, posts: int) -> None:
        """Record how many creates may have reached the service; the service's time of the first is kept."""
        work = self._work
        attempt = work.attempt
        if posts:
            creating_at = attempt.creating_at or work.time.now()
            await work.save(posts=posts, creating_at=creating_at, since=attempt.since or self._since)
        else:
            await work.save(posts=0, creating_at=None, since=None)
