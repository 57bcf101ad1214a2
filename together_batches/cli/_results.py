"""``together-batches results``."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import anyio
import attrs
from anyio import to_thread

from together_batches._wire import encode, to_dict
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._text import as_json, complain, number, say
from together_batches.models import (
    BatchFailure,
    BatchJobStatus,
    BatchMissing,
    BatchResult,
    BatchStray,
    BatchSuccess,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from io import BufferedWriter

    from together_batches.cli._parser import Arguments
    from together_batches.models import BatchJob

__all__ = ["results"]

_PIECE_BYTES = 1_000_000


def results(arguments: Arguments) -> Exit:
    """Write the rows of a finished job, one JSON object a line, and count them."""
    target = None if arguments.output is None else _free(Path(arguments.output), force=arguments.force)
    return anyio.run(_run, arguments, target)


async def _run(arguments: Arguments, target: Path | None) -> Exit:
    tally = _Tally()
    async with connected(arguments) as batches:
        job = await batches.retrieve(arguments.id)
        order = cast("Literal['file', 'input']", arguments.order)
        async with batches.results(job, requests=arguments.requests, order=order) as rows:
            with _sink(target) as sink:
                async for row in rows:
                    tally.count(row)
                    await sink.write(row)
                await sink.flush()
    if arguments.json and target is not None:
        print(as_json({"job": to_dict(job), "output": str(target), **tally.to_dict()}))
    elif not arguments.quiet:
        say(str(tally) + (f", in {target}" if target is not None else ""))
    return _end(job, tally)


def _end(job: BatchJob, tally: _Tally) -> Exit:
    if job.status != BatchJobStatus.COMPLETED:
        complain(f"job {job.id} is {job.status}" + (f": {job.error}" if job.error else ""))
        return Exit.ENDED_BADLY
    return Exit.SOME_FAILED if tally.rows[BatchFailure] or tally.rows[BatchMissing] else Exit.DONE


@attrs.define
class _Tally:
    """How many rows of each kind there were, and what they took."""

    rows: Counter[type] = attrs.field(factory=Counter[type])
    usage: Usage = attrs.field(factory=Usage)

    def count(self, row: BatchResult) -> None:
        """Count one row."""
        self.rows[type(row)] += 1
        if isinstance(row, BatchSuccess) and (usage := row.usage) is not None:
            self.usage += usage

    def to_dict(self) -> dict[str, Any]:
        """The figures, for programs."""
        counts = {
            "success": self.rows[BatchSuccess],
            "failure": self.rows[BatchFailure],
            "missing": self.rows[BatchMissing],
            "stray": self.rows[BatchStray],
        }
        return {"counts": counts, "usage": to_dict(self.usage)}

    def __str__(self) -> str:
        words = {BatchSuccess: "answered", BatchFailure: "failed", BatchMissing: "missing", BatchStray: "stray"}
        told = [f"{number(self.rows[kind])} {word}" for kind, word in words.items() if self.rows[kind]]
        text = ", ".join(told) or "no rows"
        usage = self.usage
        if usage.total_tokens:
            text += f"; {number(usage.total_tokens)} tokens"
            text += f" ({number(usage.prompt_tokens)} in, {number(usage.completion_tokens)} out)"
        return text


class _Sink(Protocol):
    async def write(self, row: BatchResult) -> None: ...
    async def flush(self) -> None: ...


@contextmanager
def _sink(target: Path | None) -> Generator[_Sink]:
    """Where the rows go. A file appears under its name when it is whole, and never otherwise."""
    if target is None:
        yield _Stdout()
        return
    part = target.with_name(f".together-batches-{secrets.token_hex(8)}.part")
    try:
        with _telling(target):
            file = part.open("xb")
        with file:
            yield _File(file, target)
        with _telling(target):
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Stdout:
    async def write(self, row: BatchResult) -> None:
        print(as_json(to_dict(row)))

    async def flush(self) -> None:
        sys.stdout.flush()


class _File:
    """Bytes are gathered, and written by a thread: the download goes on meanwhile."""

    def __init__(self, file: BufferedWriter, target: Path) -> None:
        self._file = file
        self._target = target
        self._piece = bytearray()

    async def write(self, row: BatchResult) -> None:
        self._piece += encode(to_dict(row)) + b"\n"
        if len(self._piece) >= _PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        with _telling(self._target):
            await to_thread.run_sync(self._write, bytes(self._piece))
        self._piece.clear()

    def _write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._file.flush()


@contextmanager
def _telling(target: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}"
        raise CommandError(message, Exit.FAILED) from error


def _free(target: Path, *, force: bool) -> Path:
    """The target, where it may be written; told before anything is downloaded."""
    if target.is_dir():
        message = f"{target} is a directory; -o names the file to write"
        raise CommandError(message)
    if not target.parent.is_dir():
        message = f"{target} cannot be written: there is no directory {target.parent}"
        raise CommandError(message)
    if target.exists():
        if not target.is_file():
            message = f"{target} is no ordinary file; leave -o out and redirect the output"
            raise CommandError(message)
        if not force:
            message = f"{target} exists already; --force replaces it"
            raise CommandError(message)
    return target
