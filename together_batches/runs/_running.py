"""One call of a run: the lock, the checks, the work, the output and the report."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TYPE_CHECKING

import attrs
from anyio import CancelScope, move_on_after

from together_batches._local.replace import check_replaceable, exists_already
from together_batches._text import count_of, format_count
from together_batches.errors import BatchesError, RunLedgerError, UsageError
from together_batches.runs import _input, _ledger, rules
from together_batches.runs._context import RunContext
from together_batches.runs._directory_check import INVALID, PIECES, check_directory
from together_batches.runs._engine import Engine
from together_batches.runs._files import WithTexts, explained, output_file, sha256_of
from together_batches.runs._joining import known_sha256
from together_batches.runs._lock import locked
from together_batches.runs._lost_jobs import unfinished_in, warn_of_unconfirmed
from together_batches.runs._price import price_of_run
from together_batches.runs._run_directory import RunDirectory
from together_batches.runs._store import RunStore, buckets_of
from together_batches.runs._threads import in_thread, own_thread
from together_batches.runs._values import RunEventKind, RunReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches.models import Price
    from together_batches.runs._context import RunApi
    from together_batches.runs._options import Options, Requests, RunPaths

_log = logging.getLogger("together_batches")

_CANCEL_SECONDS = 30.0
"""Maximum seconds that an interrupted run takes to cancel its jobs, if that option is set."""


async def run(source: Requests, places: RunPaths, options: Options, *, api: RunApi) -> RunReport:
    """Begin or resume a run, and return when no row is left to send, or no more may be sent."""
    async with AsyncExitStack() as stack:
        stack.enter_context(own_thread())
        call, ours = await _opened(stack, source, places, options, api)
        store = call.store
        _report_beginning(call)
        engine = Engine(call)
        if engine.has_work and store.run.finished_at is not None:
            # The pieces were removed when it finished. Without them there is no output, so nothing more is paid for.
            await engine.restore()
            await store.save_run(finished_at=None)
        try:
            await engine.run()
        except asyncio.CancelledError:
            if options.cancel_on_interrupt:
                # A second cancellation, such as that of a second Ctrl-C, ends this, too.
                with CancelScope(shield=True), move_on_after(_CANCEL_SECONDS):
                    await _cancel(call)
            raise
        # Without rows to send or collect. A cancelled job may be left for the next call.
        is_complete = not (store.buckets.not_sent or store.buckets.in_flight)
        if is_complete:
            if store.run.finished_at is None or places.output not in ours:
                await engine.restore()
                await _write_output(call, places, ours)
            await call.directory.clear(store.attempts)  # also if a former call was killed before this
        return _report(call, places, stopped=engine.stopped, is_complete=is_complete)


async def _opened(
    stack: AsyncExitStack, source: Requests, places: RunPaths, options: Options, api: RunApi
) -> tuple[RunContext, list[Path]]:
    """Return the run, which is begun if it does not exist, and its existing output files.

    The lock and the ledger are closed with the stack. Raises an error if the run cannot be resumed with these
    arguments.
    """
    directory = places.directory
    await in_thread(lambda _: _enter(places))
    lock = await in_thread(lambda _: stack.enter_context(locked(directory)))
    is_new = await in_thread(lambda _: _is_new(directory))
    path: Path | None = None
    price: Price | None = None
    if places.input is not None:  # before there is a run, which a refusal would leave behind
        price = await price_of_run(places.input, directory, options, api.prices)
    if is_new:
        await in_thread(partial(_refuse_others, places, options, ()))
        path = await _input.create_run(source, places, options, now=api.time.now())
    ledger = await stack.enter_async_context(_ledger.opened(directory, lock, api.time.now))
    store = RunStore(ledger, await ledger.load())
    if path is None:
        path = await _input.known_input(source, places, options, store.run)
    _input.check_quota(store.shards.values(), options)
    _check_sample(store, places, options)
    if places.input is None:
        price = await price_of_run(path, directory, options, api.prices)
    ours = await in_thread(partial(_refuse_others, places, options, store.run.claims.split()))
    run_directory = RunDirectory(directory, path, response_format=store.run.response_format, schema=options.schema)
    await in_thread(lambda _: run_directory.prepare())
    wanted = {"max_attempts": options.max_attempts, "retry_invalid": options.retry_invalid}
    if any(getattr(store.run, name) != value for name, value in wanted.items()):
        await store.save_run(**wanted)
    return RunContext(
        options=options, store=store, directory=run_directory, api=api, is_resumed=not is_new, price=price
    ), ours


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
                "another directory; all its jobs would be created again"
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
            check_replaceable(path)
            if not os.path.lexists(path):
                continue
            if claims and path.is_file() and sha256_of(path, raise_if_cancelled)[1] in claims:
                ours.append(path)
            elif not options.overwrite:
                raise exists_already(path)
    return ours


def _check_sample(store: RunStore, places: RunPaths, options: Options) -> None:
    rows = store.shards[1].rows
    if options.sample is not None and rows > options.sample:
        message = (
            f"the run in {places.directory} begins with a job of {count_of(rows, 'row')}, so a sample of "
            f"{format_count(options.sample)} cannot be sent first: begin a new run in another directory"
        )
        raise UsageError(message)


def _report_beginning(call: RunContext) -> None:
    run, shards, found = call.store.run, call.store.shards.values(), call.store.buckets
    done = found.succeeded + found.invalid_answers + found.failed + found.missing
    rows = done + found.in_flight + found.not_sent
    different = f" ({format_count(_different(call.store))} different)" if run.deduped else ""
    what = f"{count_of(rows, 'row')} of {run.input_name}{different} in {count_of(len(shards), 'shard')}"
    if call.is_resumed:
        message = f"{what}: {format_count(done)} are done, {format_count(found.in_flight)} under way"
        call.emit(RunEventKind.RESUMED, message)
    else:
        aside = f"; {format_count(run.invalid)} bad lines are set aside" if run.invalid else ""
        call.emit(RunEventKind.BEGUN, f"{what}{aside}")


async def _cancel(call: RunContext) -> None:
    """Cancel the unfinished jobs of an interrupted run."""
    directory = call.directory.directory
    try:
        found = await unfinished_in(await call.store.load(), directory, call.api.list_jobs)
        warn_of_unconfirmed(directory, found.unconfirmed)
        if found.jobs:
            await call.api.cancel(found.jobs)
    except BatchesError as error:
        _log.warning(
            "the jobs of the run in %s could not be cancelled: %s",
            directory,
            error,
            extra={"directory": str(directory)},
        )


async def _write_output(call: RunContext, places: RunPaths, ours: Sequence[Path]) -> None:
    """Write the output, record its hash, and only then rename it, to recognise it after a crash in between."""
    store = call.store
    shards = [(shard, store.at_shard(shard)) for shard in store.shards.values()]
    is_deduped = bool(store.run.deduped)
    with_text = call.options.with_text
    known = "" if is_deduped or with_text else known_sha256(shards)
    with ExitStack() as stack:

        def begun(path: Path, *, hashed: bool = True) -> AtomicFile:
            return stack.enter_context(output_file(path, store.run.id, hashed=hashed))

        output, failures = await in_thread(lambda _: (begun(places.output, hashed=not known), begun(places.failures)))
        lines = WithTexts(output) if with_text else output
        await call.directory.join(shards, lines, failures, is_deduped=is_deduped)
        claims = dict.fromkeys([*store.run.claims.split(), known or output.sha256, failures.sha256])
        await store.save_run(claims=" ".join(claims))
        # Again, because files may have appeared meanwhile.
        await in_thread(partial(_refuse_others, places, call.options, list(claims)))
        await in_thread(lambda _: _commit(output, failures, ours))
    await store.save_run(finished_at=call.time.now())
    call.emit(RunEventKind.FINISHED, f"{places.output} is written")


def _commit(output: AtomicFile, failures: AtomicFile, ours: Sequence[Path]) -> None:
    if failures.bytes:
        failures.commit()
    elif failures.path in ours:
        failures.path.unlink(missing_ok=True)
    output.commit()


def _report(call: RunContext, places: RunPaths, *, stopped: str | None, is_complete: bool) -> RunReport:
    run, found, attempts = call.store.run, call.store.buckets, call.store.attempts
    usage = rules.usage(attempts)
    return RunReport(
        directory=places.directory,
        output=places.output if is_complete else None,
        failures=places.failures if is_complete and (found.failed or found.missing) else None,
        invalid_lines=places.directory / INVALID if run.invalid else None,
        succeeded=found.succeeded,
        invalid_answers=found.invalid_answers,
        failed=found.failed,
        missing=found.missing,
        invalid=run.invalid,
        not_sent=found.not_sent + found.in_flight,
        usage=usage,
        cost=None if call.price is None else call.price.of(usage),
        job_ids=tuple(attempt.job_id for attempt in attempts if attempt.job_id),
        started_at=run.started_at,
        finished_at=run.finished_at or call.time.now(),
        stopped=None if is_complete else stopped,
        different_requests=_different(call.store) if run.deduped else None,
        different_not_sent=_different_not_sent(call.store) if run.deduped else None,
    )


def _different(store: RunStore) -> int:
    """Return the number of rows that are sent, if equal ones are sent once."""
    return sum(shard.rows for shard in store.shards.values())


def _different_not_sent(store: RunStore) -> int:
    """Return the number of these that are still to be sent, or sent again."""
    each = (
        buckets_of(store.run, attrs.evolve(shard, copies=b""), store.at_shard(shard))
        for shard in store.shards.values()
    )
    return sum(found.not_sent + found.in_flight for found in each)
