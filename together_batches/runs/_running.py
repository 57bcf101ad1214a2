"""One call of a run: the lock, the checks, the work, the output and the report."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import attrs
from anyio import CancelScope, move_on_after

from together_batches._local.replace import objection
from together_batches._text import count_of, format_count
from together_batches._validation import path_of
from together_batches.errors import APIError, AuthenticationError, BatchesError, RunLedgerError, UsageError
from together_batches.models import BatchJob
from together_batches.runs import _input, _ledger, _rules
from together_batches.runs._directory_check import INVALID, PIECES, check_directory
from together_batches.runs._engine import Engine
from together_batches.runs._events import EventSink
from together_batches.runs._lock import locked
from together_batches.runs._partial_file import PartialFile, explained
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._sharding import sha256_of
from together_batches.runs._threads import in_thread, own_thread
from together_batches.runs._values import RunEventKind, RunReport, UnfinishedJobs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from together_batches.runs._api import Clock, RunApi
    from together_batches.runs._options import Options, Requests, RunPaths
    from together_batches.runs._records import Attempt, Ledger, LedgerSnapshot, Shard

__all__ = ["run", "unfinished", "warn_of_unconfirmed"]

_log = logging.getLogger("together_batches")

_CANCEL_SECONDS = 30.0
"""Maximum seconds that an interrupted run takes to cancel its jobs, if that option is set."""


async def run(source: Requests, places: RunPaths, options: Options, *, api: RunApi, time: Clock) -> RunReport:
    """Begin or resume a run, and return when no row is left to send, or no more may be sent."""
    directory = places.directory
    async with AsyncExitStack() as stack:
        stack.enter_context(own_thread())
        await in_thread(lambda _: _enter(places))
        lock = await in_thread(lambda _: stack.enter_context(locked(directory)))
        is_new = await in_thread(lambda _: _is_new(directory))
        if is_new:
            await in_thread(lambda raise_if_cancelled: _refuse_others(places, options, (), raise_if_cancelled))
            await _input.begin(source, places, options, now=time.now())
        ledger = await stack.enter_async_context(_ledger.opened(directory, lock))
        running = _Running(source, places, options, ledger=ledger, snapshot=await ledger.load(), api=api, time=time)
        return await running.run(is_new=is_new)


def _enter(places: RunPaths) -> None:
    places.check()
    with explained("make", places.directory):
        places.directory.mkdir(parents=True, exist_ok=True)
    check_directory(places.directory, places.input)


def _is_new(directory: Path) -> bool:
    """Return whether to begin a run; raise :class:`RunLedgerError` if a run exists without its ledger."""
    if os.path.lexists(directory / _ledger.NAME):
        return False
    with explained("read", directory):
        if (directory / PIECES).is_dir():  # created after the ledger
            message = (
                f"{directory} holds a run and no {_ledger.NAME}: put it back, or begin a new run in "
                "another directory; all its jobs would be created anew"
            )
            raise RunLedgerError(message, directory=str(directory))
    return True


def _refuse_others(
    places: RunPaths, options: Options, claims: Sequence[str], raise_if_cancelled: Callable[[], None]
) -> list[Path]:
    """Return the existing output files that this run wrote; raise :class:`UsageError` if others would be replaced."""
    ours: list[Path] = []
    for path in (places.output, places.failures):
        with explained("write", path):
            against = objection(path)
            if against is not None:
                message = f"cannot write {path}: {against}"
                raise UsageError(message)
            if not os.path.lexists(path):
                continue
            if claims and path.is_file() and sha256_of(path, raise_if_cancelled)[1] in claims:
                ours.append(path)
            elif not options.overwrite:
                message = f"{path} exists already, and is left alone; overwrite=True replaces it"
                raise UsageError(message)
    return ours


class _Running:
    """One call of a run with an open ledger."""

    def __init__(
        self,
        source: Requests,
        places: RunPaths,
        options: Options,
        *,
        ledger: Ledger,
        snapshot: LedgerSnapshot,
        api: RunApi,
        time: Clock,
    ) -> None:
        self._source = source
        self._places = places
        self._options = options
        self._ledger = ledger
        self._books = snapshot
        self._run = snapshot.run
        self._api = api
        self._time = time
        self._emit = EventSink(options.on_event, time, invalid=snapshot.run.invalid)

    async def run(self, *, is_new: bool) -> RunReport:
        """Execute the remaining work, and return the report."""
        options, places = self._options, self._places
        path = await _input.known_input(self._source, places, options, self._run)
        self._check_quota()
        claims = self._run.claims.split()
        ours = await in_thread(lambda raise_if_cancelled: _refuse_others(places, options, claims, raise_if_cancelled))
        run_directory = RunDirectory(places.directory, path)
        await in_thread(lambda _: run_directory.prepare())
        if self._run.max_attempts != options.max_attempts:
            await self._save(max_attempts=options.max_attempts)
        engine = Engine(
            api=self._api,
            time=self._time,
            ledger=self._ledger,
            snapshot=self._books,
            run_directory=run_directory,
            limits=options.limits,
            max_attempts=options.max_attempts,
            caution=options.caution,
            is_resumed=not is_new,
            emit=self._emit,
        )
        self._emit.counts = lambda: engine.store.counts(options.max_attempts)
        self._tell_beginning(engine, is_new=is_new)
        if engine.has_work and self._run.finished_at is not None:
            await self._save(finished_at=None)
        await self._with_cancelling(engine)
        found = engine.store.buckets(self._options.max_attempts)
        if _is_complete(found) and (self._run.finished_at is None or places.output not in ours):
            await self._write_output(engine, run_directory, ours)
        return self._report(engine, found)

    def _check_quota(self) -> None:
        most = self._options.limits.max_enqueued_rows
        largest = max(shard.rows for shard in self._books.shards)
        if most is not None and most < largest:
            message = (
                f"max_enqueued_rows is {format_count(most)}, and the run has a job of {count_of(largest, 'row')}, "
                "which could never be sent: raise it, or begin a new run with a smaller max_rows_per_job"
            )
            raise UsageError(message)

    def _tell_beginning(self, engine: Engine, *, is_new: bool) -> None:
        run, shards = self._run, len(self._books.shards)
        rows = sum(shard.rows for shard in self._books.shards)
        what = f"{count_of(rows, 'row')} of {run.input_name} in {count_of(shards, 'shard')}"
        if is_new:
            aside = f"; {format_count(run.invalid)} bad lines are set aside" if run.invalid else ""
            self._emit(RunEventKind.BEGUN, f"{what}{aside}")
        else:
            found = engine.store.buckets(self._options.max_attempts)
            done = found.succeeded + found.failed + found.missing
            self._emit(
                RunEventKind.RESUMED,
                f"{what}: {format_count(done)} are done, {format_count(found.in_flight)} under way",
            )

    async def _save(self, **changes: Any) -> None:
        self._run = attrs.evolve(self._run, **changes)
        await self._ledger.save_run(self._run)

    async def _with_cancelling(self, engine: Engine) -> None:
        try:
            await engine.run()
        except asyncio.CancelledError:
            if self._options.cancel_on_interrupt:
                with CancelScope(shield=True), move_on_after(_CANCEL_SECONDS):
                    await self._cancel()
            raise

    async def _cancel(self) -> None:
        try:
            found = await _unfinished(await self._ledger.load(), self._list)
            warn_of_unconfirmed(self._places.directory, found.unconfirmed)
            if found.jobs:
                await self._api.cancel(found.jobs)
        except BatchesError as error:
            directory = self._places.directory
            _log.warning(
                "the jobs of the run in %s could not be cancelled: %s",
                directory,
                error,
                extra={"directory": str(directory)},
            )

    async def _list(self) -> list[BatchJob]:
        return (await self._api.list_jobs()).jobs

    # --- the output -----------------------------------------------------------------------------------------------

    async def _write_output(self, engine: Engine, run_directory: RunDirectory, ours: Sequence[Path]) -> None:
        """Write the output, record its hash, and only then rename it, to recognise it after a crash in between."""
        places = self._places
        await engine.restore()
        with ExitStack() as stack:
            output, failures = await in_thread(lambda _: self._drafts(stack))
            await run_directory.join(self._with_attempts(engine), output, failures)
            claims = dict.fromkeys([*self._run.claims.split(), output.sha256, failures.sha256])
            await self._save(claims=" ".join(claims))
            await in_thread(lambda raise_if_cancelled: self._keep(output, failures, ours, raise_if_cancelled))
        await self._save(finished_at=self._time.now())
        await run_directory.clear(engine.store.attempts)
        self._emit(RunEventKind.FINISHED, f"{places.output} is written")

    def _drafts(self, stack: ExitStack) -> tuple[PartialFile, PartialFile]:
        partial_files = [
            PartialFile(path, self._run.id, follow_links=True)
            for path in (self._places.output, self._places.failures)
        ]
        for partial_file in partial_files:
            stack.callback(partial_file.drop)
        return partial_files[0], partial_files[1]

    def _with_attempts(self, engine: Engine) -> list[tuple[Shard, Sequence[Attempt]]]:
        return [(shard, engine.store.at_shard(shard)) for shard in self._books.shards]

    def _keep(
        self, output: PartialFile, failures: PartialFile, ours: Sequence[Path], raise_if_cancelled: Callable[[], None]
    ) -> None:
        # Again, because files may have appeared meanwhile.
        _refuse_others(self._places, self._options, self._run.claims.split(), raise_if_cancelled)
        if failures.bytes:
            failures.keep()
        elif self._places.failures in ours:
            self._places.failures.unlink(missing_ok=True)
        output.keep()

    # --- the report -----------------------------------------------------------------------------------------------

    def _report(self, engine: Engine, found: _rules.Buckets) -> RunReport:
        places, attempts = self._places, engine.store.attempts
        complete = _is_complete(found)
        bad = bool(found.failed or found.missing)
        return RunReport(
            directory=places.directory,
            output=places.output if complete else None,
            failures=places.failures if complete and bad else None,
            invalid_lines=places.directory / INVALID if self._run.invalid else None,
            succeeded=found.succeeded,
            failed=found.failed,
            missing=found.missing,
            invalid=self._run.invalid,
            not_sent=found.not_sent + found.in_flight,
            usage=_rules.usage(attempts),
            job_ids=tuple(attempt.job_id for attempt in attempts if attempt.job_id),
            started_at=self._run.started_at,
            finished_at=self._run.finished_at or self._time.now(),
            stopped=None if complete else engine.stopped,
        )


def _is_complete(found: _rules.Buckets) -> bool:
    """Return whether no row is left to send or collect. A cancelled job may be left for the next call."""
    return not (found.not_sent or found.in_flight)


async def unfinished(
    directory: str | os.PathLike[str], list_jobs: Callable[[], Awaitable[list[BatchJob]]]
) -> UnfinishedJobs:
    """Return the unfinished jobs of a run: those in its ledger, and listed jobs of its lost creates."""
    path = path_of("directory", directory)
    return await _unfinished(await in_thread(lambda _: _ledger.read(path)), list_jobs)


async def _unfinished(snapshot: LedgerSnapshot, list_jobs: Callable[[], Awaitable[list[BatchJob]]]) -> UnfinishedJobs:
    found = [
        BatchJob(id=attempt.job_id, created_at=attempt.created_at)
        for attempt in snapshot.attempts
        # Includes a job that was seen ended: a service may show that for a moment only, and a second cancel is free.
        if attempt.job_id and not attempt.collected_at
    ]
    unconfirmed: list[str] = []
    lost = [attempt for attempt in snapshot.attempts if attempt.creating_at and not attempt.job_id and attempt.rows]
    lost = [attempt for attempt in lost if not attempt.collected_at]
    if lost:
        known = {attempt.job_id for attempt in snapshot.attempts}
        try:
            jobs = await list_jobs()
        except AuthenticationError:
            raise
        except APIError as error:
            _log.warning(
                "the list of jobs cannot be read, so the jobs of lost creates are not looked for: %s",
                error,
                extra={"input_file_ids": [attempt.file_id for attempt in lost]},
            )
            jobs = []
        for attempt in lost:
            created = _rules.lost_job(attempt, snapshot.run, jobs, known=known)
            if created is None:
                unconfirmed.append(attempt.file_id or "")
            else:
                found += [created.job, *(created.others if attempt.marked else ())]
    return UnfinishedJobs(tuple(found), tuple(unconfirmed))


def warn_of_unconfirmed(directory: str | os.PathLike[str], unconfirmed: Sequence[str]) -> None:
    """Warn about creates whose jobs are not listed: such jobs may exist, and are then not cancelled."""
    if unconfirmed:
        _log.warning(
            "creates of the run in %s could not be confirmed, so their jobs may run and are not cancelled; look for "
            "jobs of these input files, or cancel the run again later: %s",
            directory,
            ", ".join(unconfirmed),
            extra={"directory": str(directory), "input_file_ids": list(unconfirmed)},
        )
