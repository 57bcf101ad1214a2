"""Input of a run: copied if it cannot be read twice, scanned at the beginning, verified on resume."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from together_batches import jsonl
from together_batches._protocol.upload_marks import MARK_BYTES, sendable
from together_batches._text import format_count
from together_batches.errors import RunChangedError, ValidationError
from together_batches.jsonl._sources import blocks_of
from together_batches.runs import _ledger
from together_batches.runs._directory_check import INVALID, SPOOL
from together_batches.runs._partial_file import PartialFile
from together_batches.runs._records import Run
from together_batches.runs._sharding import Scan, scan, sha256_of
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path
    from typing import BinaryIO

    from together_batches.jsonl import RequestLike
    from together_batches.runs._options import Options, Requests, RunPaths

__all__ = ["begin", "known_input"]

_HELD_BYTES = 1 << 20


async def begin(source: Requests, places: RunPaths, options: Options, *, now: datetime) -> None:
    """Scan the input, and create the ledger with its shards."""
    spool = places.directory / SPOOL
    if hasattr(source, "read"):
        await in_thread(lambda raise_if_cancelled: _copy(cast("BinaryIO", source), spool, raise_if_cancelled))
    elif places.input is None:
        await _spool(cast("Iterable[RequestLike] | AsyncIterable[RequestLike]", source), spool)
    path = places.input or spool

    def begin(raise_if_cancelled: Callable[[], None]) -> None:
        found = _scanned(path, places.directory / INVALID, options, raise_if_cancelled)
        run = Run(
            id=secrets.token_hex(8),
            input_name=sendable(path.name),
            input_bytes=found.bytes,
            input_sha256=found.sha256,
            spooled=places.input is None,
            endpoint=options.endpoint,
            model_id=options.model_id,
            priority=options.priority,
            max_attempts=options.max_attempts,
            invalid=found.invalid,
            started_at=now,
        )
        _ledger.create(places.directory, run, found.shards)

    await in_thread(begin, large=True)


def _scanned(path: Path, invalid: Path, options: Options, raise_if_cancelled: Callable[[], None]) -> Scan:
    with ExitStack() as stack:
        aside: PartialFile | None = None
        if options.skip_invalid:
            aside = PartialFile(invalid, "new")
            stack.callback(aside.drop)
        found = scan(
            path,
            endpoint=options.endpoint,
            max_rows=options.max_rows_per_job,
            max_bytes=jsonl.MAX_BYTES - MARK_BYTES,
            aside=aside,
            raise_if_cancelled=raise_if_cancelled,
        )
        if aside is not None and found.invalid:
            aside.keep()
        return found


def _copy(source: BinaryIO, target: Path, raise_if_cancelled: Callable[[], None]) -> None:
    """Copy the bytes of an open file to a file, which appears when it is complete."""
    partial_file = PartialFile(target, "new")
    try:
        for block in blocks_of(source):
            raise_if_cancelled()
            partial_file.write(block)
        partial_file.keep()
    finally:
        partial_file.drop()


async def _spool(requests: Iterable[RequestLike] | AsyncIterable[RequestLike], target: Path) -> None:
    """Write requests to a file, which appears when it is complete.

    A synchronous iterable is iterated in a thread, because it may block.
    """
    partial_file = await in_thread(lambda _: PartialFile(target, "new"))
    try:
        if isinstance(requests, AsyncIterable):
            held = bytearray()
            number = 0
            async for request in requests:
                number += 1
                held += _line(request, number)
                if len(held) >= _HELD_BYTES:
                    await _add(partial_file, held)
            await _add(partial_file, held)
        else:

            def write(raise_if_cancelled: Callable[[], None]) -> None:
                for number, request in enumerate(requests, start=1):
                    raise_if_cancelled()
                    partial_file.write(_line(request, number))

            await in_thread(write)
        await in_thread(lambda _: partial_file.keep())
    finally:
        partial_file.drop()


async def _add(partial_file: PartialFile, held: bytearray) -> None:
    lines = bytes(held)
    held.clear()
    await in_thread(lambda _: partial_file.write(lines))


def _line(request: RequestLike, number: int) -> bytes:
    try:
        return jsonl.encode(request)
    except ValidationError as error:
        message = f"request {number}: {error}"
        raise ValidationError(
            message, problems=[f"request {number}: {problem}" for problem in error.problems]
        ) from error


async def known_input(source: Requests, places: RunPaths, options: Options, run: Run) -> Path:
    """Return the path of an existing run's input; raise :class:`RunChangedError` if it or a setting differs.

    An iterable is not iterated again, because its requests were copied and it may not yield them a second time. The
    content of a binary file is compared with the copy; if it is empty, like a pipe that was read before, the copy is
    used.
    """
    directory = str(places.directory)
    for name in ("endpoint", "model_id"):
        before, now = getattr(run, name), getattr(options, name)
        if before != now:
            message = (
                f"the run in {directory} was begun with {name}={before!r}, and is to go on with {name}={now!r}: go "
                "on with the former, or begin a new run in another directory"
            )
            raise RunChangedError(message, directory=directory)
    if places.input is None and not run.spooled:
        message = (
            f"the run in {directory} was begun from a file, {run.input_name}: pass its path to go on, or begin a new "
            "run in another directory"
        )
        raise RunChangedError(message, directory=directory)
    path = places.input or places.directory / SPOOL
    size, sha256 = await in_thread(lambda raise_if_cancelled: sha256_of(path, raise_if_cancelled), large=True)
    if (size, sha256) != (run.input_bytes, run.input_sha256):
        what = (
            f"it has {format_count(size)} bytes, and had {format_count(run.input_bytes)}"
            if size != run.input_bytes
            else "its bytes differ"
        )
        message = (
            f"{path} is not what the run in {directory} was begun with ({what}): put the file back as it was, or "
            "begin a new run in another directory"
        )
        raise RunChangedError(message, directory=directory)
    if hasattr(source, "read"):
        given = await in_thread(lambda raise_if_cancelled: _hashed(cast("BinaryIO", source), raise_if_cancelled))
        if given not in {None, run.input_sha256}:
            message = (
                f"what is read now is not what the run in {directory} was begun with: to go on, pass the same again, "
                "or nothing, or begin a new run in another directory"
            )
            raise RunChangedError(message, directory=directory)
    return path


def _hashed(source: BinaryIO, raise_if_cancelled: Callable[[], None]) -> str | None:
    """Return the hash of a file's content; None if it is empty."""
    digest, size = hashlib.sha256(), 0
    for block in blocks_of(source):
        raise_if_cancelled()
        digest.update(block)
        size += len(block)
    return digest.hexdigest() if size else None
