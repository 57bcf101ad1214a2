"""Input of a run: copied if it cannot be read twice, scanned at the beginning, verified on resume."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from together_batches import jsonl
from together_batches._protocol.upload_marks import MARK_BYTES, sendable
from together_batches._schema.response_format import added_bytes, is_format_of, response_format_text
from together_batches._text import count_of, format_count
from together_batches.errors import RunChangedError, UsageError
from together_batches.jsonl._files import RequestLines
from together_batches.jsonl._sources import blocks_of
from together_batches.jsonl._table_requests import TableRequests
from together_batches.runs import _ledger, _repeated_rows
from together_batches.runs._directory_check import INVALID, SPOOL
from together_batches.runs._files import run_file, sha256_of
from together_batches.runs._id_files import IdFiles
from together_batches.runs._records import Run
from together_batches.runs._sharding import Scan, scan
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import BinaryIO

    from together_batches._schema.adapters import Adapter
    from together_batches.jsonl import RequestLike
    from together_batches.runs._options import Options, Requests, RunPaths
    from together_batches.runs._records import Shard


async def create_run(source: Requests, places: RunPaths, options: Options, *, now: datetime) -> Path:
    """Scan the input, and create the ledger with its shards; return the path of the rows to send."""
    spool = places.directory / SPOOL
    if hasattr(source, "read"):
        await in_thread(lambda raise_if_cancelled: _copy(cast("BinaryIO", source), spool, raise_if_cancelled))
    elif places.input is None:
        await _spool(cast("Iterable[RequestLike] | AsyncIterable[RequestLike]", source), spool)
    path = places.input or spool

    def create(raise_if_cancelled: Callable[[], None]) -> Path:
        found = _scanned(path, places.directory, options, raise_if_cancelled, keep_ids=not options.dedupe)
        sent, deduped, shards = path, "", found.shards
        if options.dedupe:
            sent, deduped, copies = _repeated_rows.write_once(path, shards, places.directory, raise_if_cancelled)
            found_once = _scanned(sent, places.directory, options, raise_if_cancelled, keep_ids=True)
            shards = tuple(_repeated_rows.with_copies(found_once.shards, copies))
        run = Run(
            id=secrets.token_hex(8),
            input_name=sendable(Path(source.name).name if isinstance(source, TableRequests) else path.name),
            input_bytes=found.bytes,
            input_sha256=found.sha256,
            spooled=places.input is None,
            endpoint=options.endpoint,
            model_id=options.model_id,
            priority=options.priority,
            max_attempts=options.max_attempts,
            invalid=found.invalid,
            started_at=now,
            made_of=_fingerprint(source) if isinstance(source, TableRequests) else "",
            deduped=deduped,
            response_format=None if options.schema is None else response_format_text(options.schema).decode(),
            retry_invalid=options.retry_invalid,
        )
        check_quota(shards, options)  # before there is a run, whose jobs no later call can make smaller
        _ledger.create(places.directory, run, shards)
        return sent

    return await in_thread(create, large=True)


def check_quota(shards: Iterable[Shard], options: Options) -> None:
    """Raise :class:`UsageError` if a job has more rows than may be enqueued."""
    most, largest = options.max_enqueued_rows, max(shard.rows for shard in shards)
    if most is not None and most < largest:
        message = (
            f"max_enqueued_rows is {format_count(most)}, and the run has a job of {count_of(largest, 'row')}, "
            "which could never be sent: raise it, or begin a new run with a smaller max_rows_per_job"
        )
        raise UsageError(message)


def _scanned(
    path: Path, directory: Path, options: Options, raise_if_cancelled: Callable[[], None], *, keep_ids: bool
) -> Scan:
    id_files = IdFiles(directory)
    id_files.prepare()
    with ExitStack() as stack:
        aside = stack.enter_context(run_file(directory / INVALID)) if options.skip_invalid else None
        found = scan(
            path,
            endpoint=options.endpoint,
            max_rows=options.max_rows_per_job,
            max_bytes=jsonl.MAX_BYTES - MARK_BYTES,
            more_per_row=added_bytes(options.schema),
            first_rows=options.sample,
            aside=aside,
            keep_ids=id_files.write if keep_ids else None,
            raise_if_cancelled=raise_if_cancelled,
        )
        if aside is not None and found.invalid:
            aside.commit()
        return found


def _copy(source: BinaryIO, target: Path, raise_if_cancelled: Callable[[], None]) -> None:
    """Copy the bytes of an open file to a file, which appears when it is complete."""
    with run_file(target) as file:
        for block in blocks_of(source):
            raise_if_cancelled()
            file.write(block)
        file.commit()


async def _spool(requests: Iterable[RequestLike] | AsyncIterable[RequestLike], target: Path) -> None:
    """Write requests to a file, which appears when it is complete.

    A synchronous iterable is iterated in a thread, because it may block.
    """
    lines = RequestLines()
    with ExitStack() as stack:
        file = await in_thread(lambda _: stack.enter_context(run_file(target)))

        def write(raise_if_cancelled: Callable[[], None], requests: Iterable[RequestLike]) -> None:
            for line in lines.of(requests):
                raise_if_cancelled()
                file.write(line)

        if isinstance(requests, AsyncIterable):
            await lines.write_blocks(requests, lambda block: in_thread(lambda _: file.write(block)))
        else:
            await in_thread(partial(write, requests=requests))
        lines.raise_for_problems()
        await in_thread(lambda _: file.commit())


def _changed(directory: str, difference: str, remedy: str) -> RunChangedError:
    return RunChangedError(f"{difference}: {remedy}, or begin a new run in another directory", directory=directory)


def _check_settings(options: Options, run: Run, directory: str) -> None:
    """Raise :class:`RunChangedError` if a setting differs that decides what is sent."""
    settings = {
        "endpoint": (run.endpoint, options.endpoint),
        "model_id": (run.model_id, options.model_id),
        "dedupe": (bool(run.deduped), options.dedupe),
    }
    for name, (before, now) in settings.items():
        if before != now:
            difference = f"the run in {directory} began with {name}={before!r}, and this call has {name}={now!r}"
            raise _changed(directory, difference, "use the former")


def _check_schema(schema: Adapter[Any] | None, run: Run, directory: str) -> None:
    """Raise :class:`RunChangedError` unless the schema is that of the run, in whatever words."""
    if is_format_of(schema, run.response_format):
        return
    began = "with another schema"
    if run.response_format is None or schema is None:
        began = "without a schema, and this call has one" if schema else "with a schema, and this call has none"
    raise _changed(directory, f"the run in {directory} began {began}", "use the former")


async def known_input(source: Requests, places: RunPaths, options: Options, run: Run) -> Path:
    """Return the path of the rows that an existing run sends.

    Raises :class:`RunChangedError` if the input or a setting differs. An iterable is not iterated again, because its
    requests were copied and it may not yield them a second time; requests made of a table are compared by their
    fingerprint. The content of a binary file is compared with the copy; if it is empty, like a pipe that was read
    before, the copy is used.
    """
    directory = str(places.directory)
    _check_settings(options, run, directory)
    _check_schema(options.schema, run, directory)
    if places.input is None and not run.spooled:
        difference = f"the run in {directory} began from a file, {run.input_name}"
        raise _changed(directory, difference, "pass its path to resume it")
    if isinstance(source, TableRequests) or run.made_of:
        await in_thread(lambda _: _check_table(source, run, directory), large=True)
    path = places.input or places.directory / SPOOL
    size, sha256 = await in_thread(lambda raise_if_cancelled: sha256_of(path, raise_if_cancelled), large=True)
    if (size, sha256) != (run.input_bytes, run.input_sha256):
        what = (
            f"it has {format_count(size)} bytes, and had {format_count(run.input_bytes)}"
            if size != run.input_bytes
            else "its bytes differ"
        )
        difference = f"{path} is not what the run in {directory} began with ({what})"
        raise _changed(directory, difference, "put the file back as it was")
    if hasattr(source, "read"):
        size, sha256 = await in_thread(partial(sha256_of, cast("BinaryIO", source)))
        if size and sha256 != run.input_sha256:
            difference = f"what is read now is not what the run in {directory} began with"
            raise _changed(directory, difference, "to resume it, pass the same again, or nothing")
    if run.deduped:
        return await in_thread(partial(_repeated_rows.check, places.directory, run), large=True)
    return path


def _fingerprint(requests: TableRequests) -> str:
    """Return the fingerprint of requests made of a table, as JSON."""
    return json.dumps(dict(requests.fingerprint), sort_keys=True)


def _check_table(source: Requests, run: Run, directory: str) -> None:
    """Raise :class:`RunChangedError` unless the requests are made of the same table as before, in the same way."""
    if not isinstance(source, TableRequests) or not run.made_of:
        of_table, of_others = "requests of a table", "requests that are not of a table"
        began, now = (of_table, of_others) if run.made_of else (of_others, of_table)
        difference = f"the run in {directory} began with {began}, and this call has {now}"
        raise _changed(directory, difference, "use the former")
    changed = source.changed_since(json.loads(run.made_of))
    if changed:
        difference = f"the requests of the run in {directory} were made with another {' and another '.join(changed)}"
        raise _changed(directory, difference, "use the former")
