"""One shard from its requests to its results, in as many steps as it is called: the work of one task.

Each call goes on from the ledger until there is something to wait for. Nothing here knows Airflow, so that the work
can be tested without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn

import attrs
from anyio import to_thread

from together_batches import runs
from together_batches._schema.adapters import Adapter
from together_batches._schema.response_format import is_format_of, response_format_text
from together_batches._text import count_of, format_count
from together_batches.airflow import _storage
from together_batches.airflow._manifest import manifest_of
from together_batches.airflow._storage import Location
from together_batches.errors import (
    BatchesError,
    CreateUnconfirmedError,
    NotFoundError,
    ResultsUnavailableError,
    RunChangedError,
    RunError,
    UsageError,
)
from together_batches.models import BatchJobStatus
from together_batches.runs import Shard, ShardRows, rules

if TYPE_CHECKING:
    import logging
    from pathlib import Path

    from together_batches.airflow._state import TaskLedger
    from together_batches.client import AsyncBatches
    from together_batches.runs import Attempt


Start = Literal["first", "retry", "clear"]
"""What began a try of a task."""

_CANCELLED = frozenset({BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED})
_SEEN = ("status", "output_file_id", "error_file_id", "output_bytes", "error_bytes", "piece_sha256")
"""What two readings of the results of a job must agree in."""


@attrs.frozen
class Waiting:
    """Decision to wait until a job has finished."""

    job_id: str


class PausedError(Exception):
    """Raised to wait until a moment, wherever in the work that turns out to be necessary."""

    def __init__(self, moment: datetime) -> None:
        super().__init__()
        self.moment = moment


@attrs.frozen
class Finished:
    """The results are written; ``manifest`` describes them."""

    manifest: dict[str, Any]


@attrs.frozen(kw_only=True)
class Work:
    """What a task is to do.

    ``identity`` is unique to the task and its DAG run. ``given`` is the shard if it was cut by an earlier task.
    ``pieces`` is the directory of the results of single attempts. With ``cancels_on_kill``, the rows of a job
    that was cancelled with its task are sent again: of one that was cancelled before a retry took it over, or that
    existed at a clear, which may cancel it a moment later. Any other job that is cancelled is not wanted.
    """

    identity: str
    source: Callable[[], IO[bytes]]
    source_name: str
    results: Location
    pieces: Location
    given: Shard | None = None
    endpoint: str = "/v1/chat/completions"
    model_id: str | None = None
    priority: int | None = None
    schema: Adapter[Any] | None = None
    retry_invalid: bool = False
    max_attempts: int = 3
    retry_delays: Sequence[float] = (30, 120, 600)
    patience: float = 900
    cancels_on_kill: bool = True
    start: Start = "retry"
    give_up: bool = False


class ShardWork:
    """The work of a task, with one client and one ledger. ``now`` is the clock."""

    def __init__(
        self,
        work: Work,
        client: AsyncBatches,
        ledger: TaskLedger,
        *,
        scratch: Path,
        now: Callable[[], datetime],
        log: logging.Logger,
    ) -> None:
        self._work = work
        self._client = client
        self._ledger = ledger
        self._scratch = scratch
        self._now = now
        self._log = log
        self._killed = False
        self._taken_over: str | None = None

    async def begin(self) -> Waiting | Finished:
        """Start a try of the task, and work until there is a job to wait for; raise :class:`PausedError` to pause."""
        ledger = self._ledger
        await ledger.load()
        shard = await self._shard()
        finished = await ledger.noted("finished")
        if finished and await self._is_written(finished) and self._following(shard) is None:
            self._log.info("these requests have been answered before: nothing is sent")
            return Finished(finished)
        for attempt in ledger.attempts:
            if attempt.job_id and attempt.collected_at is None:
                if self._work.start == "clear":
                    await ledger.note("taken-over", {"job_id": attempt.job_id})
                elif self._work.start == "retry":
                    self._taken_over = attempt.job_id
                self._log.info("going on with job %s, which an earlier try created", attempt.job_id)
        return await self._go_on(shard)

    async def go_on(self) -> Waiting | Finished:
        """Continue a try of the task, as :meth:`begin` starts one."""
        if self._ledger.shard is None:
            await self._ledger.load()
        return await self._go_on(await self._shard())

    async def _go_on(self, shard: Shard) -> Waiting | Finished:
        ledger = self._ledger
        while (attempt := self._following(shard)) is not None:
            if self._killed and not attempt.creating_at:
                # Airflow may let the process run on for a while.
                message = "the task was ended, so nothing more is sent; a retry goes on"
                raise BatchesError(message)
            moment = self._sent_again_at(attempt)
            if moment is not None and moment > self._now():
                self._log.info("%s will be sent again at %s", count_of(attempt.rows, "row"), shown(moment))
                raise PausedError(moment)
            earlier = ledger.attempts[: attempt.number - 1]
            if earlier and not attempt.creating_at:
                previous = await self._rechecked(earlier[-1])
                if previous.collected_at is None:
                    continue
            attempt = await self._begun(shard, attempt, earlier)
            if attempt.collected_at is not None:
                continue
            collected = await self._collected(shard, attempt)
            if collected.collected_at is None:
                return Waiting(collected.job_id or "")
            await self._stop_if_hopeless(shard, collected)
        return Finished(await self._write(shard))

    # --- the requests ---------------------------------------------------------------------------------------------

    async def _shard(self) -> Shard:
        """Return the shard, and refuse requests that have changed since the ledger was begun."""
        found = self._work.given
        if found is None:
            found = await to_thread.run_sync(self._only_shard)
        known = self._ledger.shard
        if known is None:
            await self._check_places()
            schema = self._work.schema
            await self._ledger.begin(found, None if schema is None else response_format_text(schema).decode())
            return found
        if (known.sha256, known.rows) != (found.sha256, found.rows):
            message = (
                f"the requests in {self._work.source_name} have changed since this task began "
                f"({count_of(known.rows, 'row')} then, {count_of(found.rows, 'row')} now): put them back as they "
                "were, or start a new DAG run"
            )
            raise RunChangedError(message, directory=str(self._work.pieces))
        if not is_format_of(self._work.schema, self._ledger.response_format):
            message = "the schema has changed since this task began: put it back as it was, or start a new DAG run"
            raise RunChangedError(message, directory=str(self._work.pieces))
        return found

    def _only_shard(self) -> Shard:
        shards = runs.shards(self._work.source, endpoint=self._work.endpoint, schema=self._work.schema)
        if len(shards) != 1:
            rows = sum(shard.rows for shard in shards)
            message = (
                f"{self._work.source_name} has {count_of(rows, 'row')}, too much for one batch job: use "
                "together_run, which creates as many jobs as are needed"
            )
            raise UsageError(message)
        return shards[0]

    async def _check_places(self) -> None:
        """Write and remove a file where results will be: a place that cannot be written must not cost a job."""
        await to_thread.run_sync(_storage.check_target, self._work.results)
        probe = self._work.pieces / "probe"
        await to_thread.run_sync(_storage.put_bytes, b"", probe)
        await to_thread.run_sync(_storage.remove, probe)

    # --- one attempt ----------------------------------------------------------------------------------------------

    def _following(self, shard: Shard) -> Attempt | None:
        return rules.next_attempt(
            shard,
            self._ledger.attempts,
            max_attempts=self._work.max_attempts,
            now=self._now(),
            retry_invalid=self._work.retry_invalid,
        )

    def _rows(self, shard: Shard, attempt: Attempt, earlier: Sequence[Attempt]) -> ShardRows:
        return runs.rows(self._work.source, shard, earlier, retry_invalid=attempt.retries_invalid)

    def _sent_again_at(self, attempt: Attempt) -> datetime | None:
        """Return when the rows of an attempt may be sent, if it repeats rows of a job that failed."""
        earlier = self._ledger.attempts[: attempt.number - 1]
        if not earlier or attempt.uploaded_at or earlier[-1].ended_at is None:
            return None
        delay = rules.retry_delay(earlier, self._work.retry_delays)
        return earlier[-1].ended_at + timedelta(seconds=delay) if delay else None

    async def _begun(self, shard: Shard, attempt: Attempt, earlier: Sequence[Attempt]) -> Attempt:
        if attempt.job_id is not None:
            return attempt
        work, patience = self._work, self._work.patience
        begin = partial(
            runs.begin,
            self._client,
            source=self._rows(shard, attempt, earlier),
            save=self._save,
            earlier=earlier,
            identity=work.identity,
            endpoint=work.endpoint,
            model_id=work.model_id,
            priority=work.priority,
            schema=work.schema,
        )
        try:
            begun = await begin(attempt, look_once=True, patience=patience)
        except NotFoundError as error:
            await self._pause_for_upload(attempt.number, error)
            raise
        except CreateUnconfirmedError as error:
            attempt = await self._searched(attempt.number, error)
            try:
                # Sends the create once more, unless that was done; its job is then searched for as long.
                begun = await begin(attempt, patience=0)
            except CreateUnconfirmedError as unconfirmed:
                if attempt.posts != self._ledger.attempts[attempt.number - 1].posts:
                    attempt = await self._searched(attempt.number, unconfirmed)
                if not work.give_up:
                    message = f"{unconfirmed}; searched for during {min(patience, rules.SEARCH_SECONDS):g} s"
                    raise CreateUnconfirmedError(
                        message, input_file_id=unconfirmed.input_file_id, candidates=unconfirmed.candidates
                    ) from unconfirmed
                return attempt
        self._log.info("job %s with %s", begun.job_id, count_of(begun.rows, "row"))
        if begun.warning:
            self._log.warning("job %s: %s", begun.job_id, begun.warning)
        return begun

    async def _searched(self, number: int, error: CreateUnconfirmedError) -> Attempt:
        """Return the attempt when the job of its last create was searched for as long as is needed."""
        attempt = self._ledger.attempts[number - 1]
        name = f"search-{number}-{attempt.posts}"
        await self._look_again(name, error, min(self._work.patience, rules.SEARCH_SECONDS))
        return attempt

    async def _pause_for_upload(self, number: int, error: NotFoundError) -> None:
        """Pause if an upload is not shown yet, and is too young to be replaced."""
        attempt = next((attempt for attempt in self._ledger.attempts if attempt.number == number), None)
        if attempt is None or attempt.uploaded_at is None or attempt.former_file_ids:
            return
        age = (self._now() - attempt.uploaded_at).total_seconds()
        delay = rules.look_again_delay(0, min(self._work.patience, rules.FILE_SECONDS) - age)
        if delay is not None:
            self._pause(delay, error)

    async def _rechecked(self, attempt: Attempt) -> Attempt:
        """Return the attempt before the next one, without ``collected_at`` if its job is not as it was collected."""
        try:
            return await runs.recheck(self._client, attempt, save=self._save, look_once=True)
        except ResultsUnavailableError as error:
            patience = min(self._work.patience, rules.RECHECK_SECONDS)
            await self._look_again(f"recheck-{attempt.number}", error, patience)
            return attempt

    async def _collected(self, shard: Shard, attempt: Attempt) -> Attempt:
        """Collect the results if the job has ended."""
        piece = self._scratch / f"{attempt.number}.jsonl"
        collect = self._collector(shard, attempt, piece, self._save_state)
        given_up = attempt.job_id is None  # its create is given up
        try:
            found = await collect(attempt, give_up=given_up)
        except ResultsUnavailableError as error:
            await self._note_if_cancelled(self._ledger.attempts[attempt.number - 1])
            await self._look_again(_look_at(attempt), error, self._work.patience)
            if not self._work.give_up:
                message = f"{error}; looked for during {self._work.patience:g} s"
                raise ResultsUnavailableError(message, job_id=error.job_id, file_ids=error.file_ids) from error
            given_up = True
            found = await collect(self._ledger.attempts[attempt.number - 1], give_up=True)
        await self._note_if_cancelled(found)
        if found.collected_at is None:
            return found
        if not given_up and (moment := await self._seen_again_at(found)) is not None:
            raise PausedError(moment)
        # First the results, then the record that they are there.
        await to_thread.run_sync(_storage.put, piece, self._piece(found))
        await self._save(found)
        return found

    async def _note_if_cancelled(self, attempt: Attempt) -> None:
        """Record a job that was cancelled before this try took it over: its rows are sent again."""
        if self._taken_over and attempt.job_id == self._taken_over and attempt.status in _CANCELLED:
            await self._ledger.note("taken-over", {"job_id": attempt.job_id})

    async def _seen_again_at(self, found: Attempt) -> datetime | None:
        """Return when to read results again that omit rows; None if they omit none, or two readings agree."""
        if rules.MISSING not in rules.outcomes_of(found) and not rules.failed_as_a_whole(found):
            return None
        look: dict[str, Any] = await self._ledger.noted(_look_at(found))
        seen: dict[str, Any] = {name: getattr(found, name) for name in _SEEN}
        if look.get("seen") != seen:
            delay = timedelta(seconds=rules.second_look_delay(found, self._work.patience))
            look = {"seen": seen, "again_at": (self._now() + delay).isoformat()}
            await self._ledger.note(_look_at(found), look)
        moment = datetime.fromisoformat(look["again_at"])
        if moment <= self._now():
            return None
        self._log.info("job %s omits rows: its results are read again at %s", found.job_id, shown(moment))
        return moment

    async def _look_again(self, name: str, error: BatchesError, patience: float) -> None:
        """Pause until what is absent is looked for again; return if it was absent for as long as patience allows.

        ``name`` is that of the record of the looks so far.
        """
        waited = float((await self._ledger.noted(name)).get("waited", 0))
        delay = rules.look_again_delay(waited, patience)
        # Without a delay, a retry looks for it as long.
        await self._ledger.note(name, {} if delay is None else {"waited": waited + delay})
        if delay is not None:
            self._pause(delay, error)

    def _pause(self, delay: float, error: BatchesError) -> NoReturn:
        moment = self._now() + timedelta(seconds=delay)
        self._log.warning("%s; looked for again at %s", error, shown(moment))
        raise PausedError(moment) from error

    def _collector(
        self, shard: Shard, attempt: Attempt, piece: Path, save: Callable[[Attempt], Awaitable[None]]
    ) -> Callable[..., Awaitable[Attempt]]:
        """Return the function that collects an attempt, as it was saved last, into a file of this machine."""
        earlier = self._ledger.attempts[: attempt.number - 1]
        return partial(
            runs.collect,
            self._client,
            source=self._rows(shard, attempt, earlier),
            sink=piece,
            scratch_directory=self._scratch,
            save=save,
            earlier=earlier,
            schema=self._work.schema,
            patience=0,
        )

    async def _save_state(self, attempt: Attempt) -> None:
        """Save what is known of a job, and not yet that its results are collected."""
        if attempt.collected_at is None:
            await self._save(attempt)

    async def _save(self, attempt: Attempt) -> None:
        await self._ledger.save(attempt)
        if self._killed and attempt.job_id:
            await self._client.cancel(attempt.job_id)

    @property
    def has_sent(self) -> bool:
        """Whether the service has been reached: an outage is waited out then."""
        return any(attempt.uploaded_at for attempt in self._ledger.attempts)

    def kill(self) -> str | None:
        """Return the id of the job to cancel; one that is about to be created is cancelled when it is known.

        May be called from a signal handler.
        """
        self._killed = True
        attempts = self._ledger.attempts
        attempt = attempts[-1] if attempts else None
        return attempt.job_id if attempt is not None and attempt.collected_at is None else None

    async def _stop_if_hopeless(self, shard: Shard, attempt: Attempt) -> None:
        """Raise an error if more jobs would end as this one did, or are not wanted."""
        if self._following(shard) is None:
            return
        if rules.REFUSED in rules.outcomes_of(attempt):
            message = (
                f"rows of job {attempt.job_id} were refused for the account (no credit, or a refused key): put it in "
                "order, and clear the task; what was answered is kept"
            )
            raise RunError(message, directory=str(self._work.pieces))
        taken_over = (await self._ledger.noted("taken-over")).get("job_id") == attempt.job_id
        if attempt.status == BatchJobStatus.CANCELLED and not (taken_over and self._work.cancels_on_kill):
            message = f"job {attempt.job_id} was cancelled; clear the task to send the rows that it did not answer"
            raise RunError(message, directory=str(self._work.pieces))

    # --- the results ----------------------------------------------------------------------------------------------

    def _piece(self, attempt: Attempt) -> Location:
        return self._work.pieces / f"attempt-{attempt.number}.jsonl"

    async def _is_written(self, finished: dict[str, Any]) -> bool:
        return finished.get("results_uri") == str(self._work.results) and await to_thread.run_sync(
            _storage.exists, self._work.results
        )

    async def _write(self, shard: Shard) -> dict[str, Any]:
        """Write the results, and return the manifest."""
        attempts = [attempt for attempt in self._ledger.attempts if attempt.rows]
        pieces = [(attempt, await self._restored(shard, attempt)) for attempt in attempts]
        failures = await to_thread.run_sync(partial(self._put_results, shard, pieces))
        work = self._work
        manifest = manifest_of(
            shard,
            self._ledger.attempts,
            max_attempts=work.max_attempts,
            retry_invalid=work.retry_invalid,
            results=work.results,
            failures=failures,
        )
        await self._ledger.note("finished", manifest)
        for attempt in attempts:
            await to_thread.run_sync(_storage.remove, self._piece(attempt))
        await to_thread.run_sync(_storage.remove_empty, self._work.pieces)
        self._log.info(
            "%s of %s answered; the results are in %s",
            format_count(manifest["succeeded"]),
            count_of(shard.rows, "row"),
            manifest["results_uri"],
        )
        return manifest

    async def _restored(self, shard: Shard, attempt: Attempt) -> Path:
        """Return the results of an attempt on this machine; download them again if they were removed."""
        path = self._scratch / f"{attempt.number}.jsonl"
        if path.exists() or await to_thread.run_sync(_storage.fetch, self._piece(attempt), path):
            return path

        async def save(_: Attempt) -> None:
            """Leave the record as it is."""

        try:
            again = await self._collector(shard, attempt, path, save)(attempt)
        except ResultsUnavailableError as error:
            await self._look_again(_look_at(attempt), error, self._work.patience)
            raise
        if rules.outcomes_of(again) != rules.outcomes_of(attempt):
            message = f"the results of job {attempt.job_id} are not at the service any more as they were"
            raise ResultsUnavailableError(message, job_id=attempt.job_id)
        return path

    def _put_results(self, shard: Shard, pieces: Sequence[tuple[Attempt, Path]]) -> Location | None:
        results, failures = self._scratch / "results", self._scratch / "failures"
        with results.open("wb") as all_lines, failures.open("wb") as unanswered:
            runs.write_results(shard, pieces, all_lines, unanswered)
            failed = unanswered.tell() > 0
        place = _storage.failures_of(self._work.results)
        if failed:
            _storage.put(failures, place)
        else:
            _storage.remove(place)  # of an earlier run, or of fewer attempts
        _storage.put(results, self._work.results)
        return place if failed else None


def _look_at(attempt: Attempt) -> str:
    """Return the name of the record of the last look at results that were absent, or that omitted rows."""
    return f"look-{attempt.number}"


def shown(moment: datetime) -> str:
    """Return a moment as logs have it."""
    return moment.isoformat(timespec="seconds")
