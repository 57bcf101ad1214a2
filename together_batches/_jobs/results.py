"""Results of a job: its output and error file as one stream of typed rows, with the missing rows of its input.

Built on functions that are passed in: it can be tested with three-line fakes and does not depend on HTTP. Rows are
never held in memory; only an index of their ids grows with them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable, Iterator
from contextlib import aclosing
from itertools import chain, starmap
from typing import IO, Literal, NamedTuple, TypeVar, cast

import attrs
from anyio import CancelScope, to_thread

from together_batches import jsonl
from together_batches._fields import carried
from together_batches._jobs.patience import Absence, until_found
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol import json_codec, result_lines
from together_batches._protocol.result_lines import as_text, read_row, salvaged, states_error
from together_batches._stream import Stream
from together_batches._text import count_of
from together_batches.errors import (
    APIResponseValidationError,
    NotFoundError,
    PermissionDeniedError,
    ResultsUnavailableError,
    UsageError,
    ValidationError,
)
from together_batches.jsonl import Line, LineSplitter, Source
from together_batches.models import BatchJob, BatchJobStatus, FileObject
from together_batches.rows import (
    BatchFailure,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
)

__all__ = ["Order", "Requests", "ResultsApi", "failed_requests", "results"]

Requests = Source | Iterable[BatchRequest | str]
"""The input of a job: a path, the bytes of the file, the file opened in binary mode, its requests, or their ids."""
Order = Literal["file", "input"]

A = TypeVar("A")
T = TypeVar("T")

_PIECE_BYTES = 1_000_000
_PIECE_ROWS = 500
_SECONDS_BETWEEN_PAUSES = 0.004
"""Seconds of decoding between pauses; other work may wait three times as long, because timers run after this task."""

_ANSWERED_BEFORE = "a row with this custom_id came before"
_FOREIGN = "its custom_id is not among the requests"

_NO_EVIDENCE = (NotFoundError, PermissionDeniedError, APIResponseValidationError)
"""Errors that say nothing about results if they answer a read of a job or of metadata. Others may hide rows that are
still to appear."""


@attrs.frozen(kw_only=True)
class ResultsApi:
    """The functions of the service that reading results uses.

    ``retrieve`` reads a job, ``content`` streams a file of the account, ``file`` reads its metadata.
    """

    retrieve: Callable[[str], Awaitable[BatchJob]]
    content: Callable[[str], Stream[bytes]]
    file: Callable[[str], Awaitable[FileObject]]
    sleep: Callable[[float], Awaitable[None]]


def results(
    api: ResultsApi,
    job: str | BatchJob,
    *,
    requests: Requests | None = None,
    order: Order = "file",
    patience: float = 0.0,
) -> AsyncGenerator[BatchResult, None]:
    """Return the rows of a finished job.

    With ``requests``, each of them gets exactly one row that is not a :class:`BatchStray`; all other rows are strays.
    Files that are absent or truncated are read again for ``patience`` seconds.
    """
    job_protocol.job_id(job)
    if order not in ("file", "input"):  # also for a value without a hash
        message = f"order is 'file' or 'input'; it is {order!r}"
        raise UsageError(message)
    if order == "input" and requests is None:
        message = "order='input' needs the input: pass requests=, the file or the rows that the job was made from"
        raise UsageError(message)
    if requests is not None and not (_is_file(requests) or isinstance(requests, Iterable)):
        message = f"requests are a path, bytes, a binary file, or an iterable, not {type(requests).__name__}"
        raise UsageError(message)
    return _results(api, job, requests, order, patience)


async def _results(
    api: ResultsApi, job: str | BatchJob, requests: Requests | None, order: Order, patience: float
) -> AsyncGenerator[BatchResult, None]:
    ledger = _RowIndex(None if requests is None else await _ids_of(requests))
    files = _Files(api, await _finished(job, api, patience), patience, counted=requests is not None)
    rows = _in_input_order if order == "input" else _in_file_order
    found = rows(files, ledger)
    try:
        async for row in found:
            yield row
    finally:
        await found.aclose()


async def _finished(job: str | BatchJob, api: ResultsApi, patience: float) -> BatchJob:
    """Return the job in its final state, with the ids of its files: these may appear after the status."""
    if not isinstance(job, BatchJob) or not job.is_terminal or _is_without_files(job):
        job = await api.retrieve(job_protocol.job_id(job))
    if not job.is_terminal:
        message = f"job {job.id} is {job.status or 'of no status'} and has no results yet: wait until it has finished"
        raise UsageError(message)
    absence = Absence(patience)
    while _is_without_files(job):
        pause = absence.pause()
        if pause is None:
            message = (
                f"job {job.id} is COMPLETED and names no file of results: they may appear later, or be deleted; "
                "read them again later"
            )
            raise ResultsUnavailableError(message, job_id=job.id)
        await api.sleep(pause)
        job = await api.retrieve(job.id)
    return job


def _is_without_files(job: BatchJob) -> bool:
    """Return whether its files have not appeared yet. A status that is not final is outdated."""
    has_completed = job.status == BatchJobStatus.COMPLETED or not job.is_terminal
    return has_completed and not (job.output_file_id or job.error_file_id)


# --- the files ----------------------------------------------------------------------------------------------------


class _File:
    """A file of results, read from its beginning; if more of it appears, reading resumes where it ended."""

    def __init__(self, file_id: str, job: BatchJob) -> None:
        self.id = file_id
        self.job_id = job.id
        self._is_of_errors = file_id == job.error_file_id
        self.size = 0
        self.expected_size: int | None = None
        """The size in its metadata, once that was read."""
        self.has_lines = self.has_rows = False
        self.splitter = LineSplitter(max_line_bytes=result_lines.LONGEST_LINE_BYTES)
        self._checksum = 0

    async def read(self, content: Callable[[str], Stream[bytes]]) -> AsyncGenerator[bytes, None]:
        """Yield the bytes after those that were read before."""
        known, checksum, skipped = self.size, 0, 0
        async with content(self.id) as chunks:
            async for chunk in chunks:
                if skipped < known:
                    before, chunk = chunk[: known - skipped], chunk[known - skipped :]
                    skipped += len(before)
                    checksum = zlib.crc32(before, checksum)
                    if skipped == known and checksum != self._checksum:
                        message = (
                            f"file {self.id} of job {self.job_id} changed while it was read: read the results again"
                        )
                        raise ResultsUnavailableError(message, job_id=self.job_id, file_ids=[self.id])
                if chunk:
                    self._checksum = zlib.crc32(chunk, self._checksum)
                    self.size += len(chunk)
                    yield chunk

    def read_line(self, line: Line) -> BatchSuccess | BatchFailure:
        """Return the row of a line; note whether the file has lines, and whether any is about a row.

        In an error file, an error without an id counts as a row.
        """
        row = read_row(line.content, whole=line.whole)
        self.has_lines = True
        if not self.has_rows:
            names_a_row = row.custom_id is not None or json_codec.salvaged_id(line.content) is not None
            self.has_rows = names_a_row or (self._is_of_errors and states_error(row))
        return row

    def is_cut(self) -> bool:
        """Return whether the file ends within a line. A complete line needs no line end."""
        line = self.splitter.peek()
        if line is None or not line.content.strip():
            return False
        try:
            json_codec.decode_row(line.content)
        except json_codec.WireError:
            return True
        return False

    def last_id(self) -> str | None:
        """Return the ``custom_id`` of a complete last line without a line end."""
        line = self.splitter.peek()
        return None if line is None else read_row(line.content, whole=line.whole).custom_id


class _Files:
    """The files of a job, read in full: absent or short ones are read again until patience is used up.

    ``counted`` says whether missing rows are noticed. If not, a file truncated at the end of a line looks like a
    shorter result, so the metadata of the first file, which contains the answers, is always read.
    """

    def __init__(self, api: ResultsApi, job: BatchJob, patience: float, *, counted: bool) -> None:
        self.each: list[_File] = []
        self._api = api
        self._job = job
        self._patience = patience
        self._counted = counted
        self._add_files_of(job)

    def _add_files_of(self, job: BatchJob) -> list[_File]:
        # Whatever the final state: the files contain the rows that were done when a job was cancelled, expired or
        # failed.
        known = {file.id for file in self.each}
        ids = dict.fromkeys(file_id for file_id in (job.output_file_id, job.error_file_id) if file_id)
        added = [_File(file_id, job) for file_id in ids if file_id not in known]
        self.each += added
        return added

    async def read(
        self, *, is_incomplete: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[tuple[_File, bytes], None]:
        """Yield all bytes of each file, with the file that they are from.

        If rows are missing or cannot be counted, or a file ends within a line, metadata is read: a file shorter than
        its metadata says was truncated in transfer, or is still being written, and reading resumes where it ended. If
        rows are missing, the job is read too: the id of one file may appear after that of the other.
        """
        async with aclosing(self._rounds(is_incomplete)) as rounds:
            async for files in rounds:
                for file in files:
                    async with aclosing(self._read(file)) as pieces:
                        async for piece in pieces:
                            yield file, piece

    async def _rounds(self, is_incomplete: Callable[[], Awaitable[bool]]) -> AsyncGenerator[list[_File], None]:
        """Yield the files to read or to resume, until all are complete."""
        yield self.each
        if await is_incomplete():
            yield await self._appeared()
        absence = Absence(self._patience)
        while short := await self._short(all_of_them=await is_incomplete()):
            pause = absence.pause()
            if pause is None:
                raise self._cut(short)
            await self._api.sleep(pause)
            before = sum(file.size for file in short)
            yield short
            if sum(file.size for file in short) > before:
                absence.over()

    def check(self, ledger: _RowIndex) -> None:
        """Raise :class:`ResultsUnavailableError` for a page in place of the output, or of errors if rows are missing.

        An error file with all rows says nothing about answers that were replaced by a page.
        """
        foreign = [file.id for file in self.each if file.has_lines and not file.has_rows]
        if foreign and (self._job.output_file_id in foreign or ledger.lacks_any_but(())):
            message = (
                f"the results of job {self._job.id} are unavailable: {' and '.join(foreign)} has lines, and none is "
                "about a row; it may be a page in place of the file: read the results again later"
            )
            raise ResultsUnavailableError(message, job_id=self._job.id, file_ids=foreign)

    def last_ids(self) -> set[str | None]:
        """Return the ids of complete rows in last lines without a line end."""
        return {file.last_id() for file in self.each}

    async def _appeared(self) -> list[_File]:
        """Return the files that a completed job names now and did not name before."""
        if self._job.status != BatchJobStatus.COMPLETED:
            return []
        try:
            return self._add_files_of(await self._api.retrieve(self._job.id))
        except _NO_EVIDENCE:
            return []

    def _cut(self, short: list[_File]) -> ResultsUnavailableError:
        message = (
            f"the results of job {self._job.id} are not whole: {short[0].id} has "
            f"{count_of(short[0].size, 'byte')}, and its metadata says more; read them again later"
        )
        return ResultsUnavailableError(message, job_id=self._job.id, file_ids=[file.id for file in short])

    async def _read(self, file: _File) -> AsyncGenerator[bytes, None]:
        """Yield the new bytes of a file. A 404 is retried, because the job names the file and so it exists."""

        async def begin() -> tuple[AsyncGenerator[bytes, None], bytes]:
            pieces = file.read(self._api.content)
            return pieces, await anext(pieces, b"")

        try:
            pieces, first = await until_found(begin, patience=self._patience, sleep=self._api.sleep)
        except NotFoundError as error:
            message = (
                f"the results of job {self._job.id} in {file.id} are absent ({error}): they may appear later, or be "
                "deleted; read them again later"
            )
            raise ResultsUnavailableError(message, job_id=self._job.id, file_ids=[file.id]) from error
        try:
            if first:
                yield first
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def _short(self, *, all_of_them: bool) -> list[_File]:
        """Return the files that are shorter than their metadata says. Unavailable metadata proves nothing."""
        short: list[_File] = []
        for file in self.each:
            is_uncounted = not self._counted and file is self.each[0] and file.size != file.expected_size
            if all_of_them or file.is_cut() or is_uncounted:
                try:
                    file.expected_size = (await self._api.file(file.id)).bytes or 0
                except _NO_EVIDENCE:
                    continue
                if file.expected_size > file.size:
                    short.append(file)
        return short


# --- the index of rows --------------------------------------------------------------------------------------------


_WHOLE, _UNENDED, _LONG = b"w", b"u", b"l"
"""The extent of a line: complete; complete but without a line end; too long to be held."""


class _Place(NamedTuple):
    """The stored position of a row: the text of a successful body if ``status_code`` is set, otherwise a line."""

    offset: int
    length: int
    extent: bytes = _WHOLE
    status_code: int = 0
    is_answer: bool = False


_ANSWERED = _Place(0, 0, is_answer=True)
_FAILED = _Place(0, 0)
"""Markers for rows that are not stored in order: one that was yielded, and one that failed and may get an answer."""


class _RowIndex:
    """The expected rows, and the places of those that were found. ``expected`` None accepts any row, each once.

    The mapping is updated in place: a row that was found has its place, any other its number in the input.
    """

    def __init__(self, expected: dict[str, _Place | int] | None) -> None:
        self._closed = expected is not None
        self.places: dict[str, _Place | int] = {} if expected is None else expected

    def note(self, custom_id: str, place: _Place) -> _Place | str | None:
        """Note the place of a row; return the reason if it is a stray, or the place of the error that it replaces."""
        before = self.places.get(custom_id)
        if before is None and self._closed:
            return _FOREIGN
        if isinstance(before, _Place):
            if before.is_answer or not place.is_answer:
                return _ANSWERED_BEFORE
            self.places[custom_id] = place
            return before
        self.places[custom_id] = place
        return None

    def salvaged(self, row: BatchSuccess | BatchFailure, line: bytes, extent: bytes) -> str | None:
        """Return the id of the row that an unreadable line belongs to; it must be expected and have no other line.

        A line without a line end was truncated, and proves nothing.
        """
        if not self._closed or extent == _UNENDED or states_error(row):
            return None
        custom_id = json_codec.salvaged_id(line)
        return custom_id if custom_id is not None and isinstance(self.places.get(custom_id), int) else None

    def lacks_any_but(self, ids: Container[str | None]) -> bool:
        """Return whether an expected row is missing, apart from those with these ids."""
        return self._closed and not all(
            isinstance(place, _Place) or custom_id in ids for custom_id, place in self.places.items()
        )


async def _ids_of(requests: Requests) -> dict[str, _Place | int]:
    if _is_file(requests):
        return await to_thread.run_sync(lambda: _Ids().all(cast("Source", requests)), abandon_on_cancel=True)
    ids, pauses = _Ids(), _CooperativeYield()
    for request in cast("Iterable[object]", requests):
        ids.add(request)
        await pauses.take()
    return ids.checked()


def _is_file(requests: object) -> bool:
    return isinstance(requests, (str, bytes, os.PathLike)) or hasattr(requests, "read")


class _Ids:
    """The ids of the input, in its order."""

    def __init__(self) -> None:
        self._rows: dict[str, _Place | int] = {}
        self._count = 0
        self._problems: list[str] = []

    def add(self, request: object) -> None:
        """Add the next row."""
        custom_id = request.custom_id if isinstance(request, BatchRequest) else request
        if not isinstance(custom_id, str):
            message = f"requests are BatchRequests or ids, not {type(request).__name__}"
            raise UsageError(message)
        self._count += 1
        first = self._rows.setdefault(custom_id, self._count)
        if first != self._count:
            self._problems.append(f"rows {first} and {self._count} have the same custom_id {custom_id!r}")

    def all(self, file: Source) -> dict[str, _Place | int]:
        """Return the ids in a file; blocking."""
        for request in jsonl.read(file):
            self.add(request)
        return self.checked()

    def checked(self) -> dict[str, _Place | int]:
        """Return the ids, each with the number of its row.

        Raises :class:`ValidationError` if ids are repeated, because answers could not be assigned.
        """
        if self._problems:
            more = f", and {len(self._problems) - 1} more" if len(self._problems) > 1 else ""
            message = (
                f"the requests cannot be distinguished: {self._problems[0]}{more}; omit requests= to get all rows"
            )
            raise ValidationError(message, problems=self._problems)
        return self._rows


# --- in the order of the files ------------------------------------------------------------------------------------


async def _in_file_order(files: _Files, ledger: _RowIndex) -> AsyncGenerator[BatchResult, None]:
    """Yield answers as they arrive, and all else after them, because a row that failed may still get an answer."""
    pauses = _CooperativeYield()
    later = _Later()

    def answer(file: _File, line: Line) -> BatchSuccess | BatchStray | None:
        row = file.read_line(line)
        if not isinstance(row, BatchSuccess):
            if row.custom_id is not None:
                ledger.note(row.custom_id, _FAILED)
            return None
        stray_reason = ledger.note(row.custom_id, _ANSWERED)
        return (
            BatchStray(row.custom_id, stray_reason, as_text(line.content)) if isinstance(stray_reason, str) else row
        )

    async def is_incomplete() -> bool:
        return ledger.lacks_any_but(files.last_ids())

    try:
        async with aclosing(files.read(is_incomplete=is_incomplete)) as pieces:
            async for file, piece in pieces:
                for line in _with_text(file.splitter.feed(piece)):
                    row = answer(file, line)
                    if row is None:
                        await later.add(line.content, _WHOLE if line.whole else _LONG)
                    else:
                        yield row
                    await pauses.take()
        for file in files.each:
            for line in _with_text(file.splitter.close()):
                row = answer(file, line)
                if row is None:
                    await later.add(line.content, _UNENDED if line.whole else _LONG)
                else:
                    yield row
        files.check(ledger)
        async with aclosing(later.lines()) as lines:
            async for kept, extent in lines:
                yield _failure(kept, extent, ledger)
                await pauses.take()
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(later.close)
    for custom_id, place in ledger.places.items():
        if not isinstance(place, _Place):
            yield BatchMissing(custom_id)
        await pauses.take()


def _failure(line: bytes, extent: bytes, ledger: _RowIndex) -> BatchFailure | BatchStray:
    """Return the row of a line without an answer, when all answers are known."""
    row = cast("BatchFailure", read_row(line, whole=extent != _LONG))
    custom_id = row.custom_id
    if custom_id is None:
        custom_id = ledger.salvaged(row, line, extent)
        if custom_id is None:
            return row
        ledger.places[custom_id] = _ANSWERED
        return attrs.evolve(row, custom_id=custom_id)
    place = ledger.places.get(custom_id)
    if place is _FAILED:
        ledger.places[custom_id] = _ANSWERED
        return row
    return BatchStray(custom_id, _FOREIGN if place is None else _ANSWERED_BEFORE, row.raw)


class _Later:
    """Lines that are set aside: in memory while they are few, then in an unnamed file on disk."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._closed = False
        # Cancelling a task does not stop its thread, so the file must not be closed while that writes to it.
        self._lock = threading.Lock()

    async def add(self, line: bytes, extent: bytes) -> None:
        """Add a line."""
        self._held.append(extent + line + b"\n")
        self._held_bytes += len(line)
        if self._held_bytes >= _PIECE_BYTES:
            await _in_thread(self._write, b"".join(self._held))
            self._held, self._held_bytes = [], 0

    def _write(self, lines: bytes) -> None:
        with self._lock:
            if not self._closed:
                self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
                self._file.write(lines)

    async def lines(self) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Yield the lines, each with its extent, in the order in which they were added."""
        if self._file is not None:
            await _in_thread(self._file.seek, 0)
            while kept := await _in_thread(self._file.readlines, _PIECE_BYTES):
                for line in kept:
                    yield line[1:-1], line[:1]
        for line in self._held:
            yield line[1:-1], line[:1]

    def close(self) -> None:
        """Release the disk space."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def _with_text(lines: Iterable[Line]) -> Iterator[Line]:
    return (line for line in lines if line.content.strip())


class _CooperativeYield:
    """Yields to the event loop regularly, however many rows are ready.

    JSON is decoded in the loop, because a thread would hold the interpreter lock for as long, row by row.
    """

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._due = self._clock() + _SECONDS_BETWEEN_PAUSES

    async def take(self) -> None:
        """Pause if it is time to."""
        if self._clock() >= self._due:
            await asyncio.sleep(0)
            self._due = self._clock() + _SECONDS_BETWEEN_PAUSES


# --- in the order of the input ------------------------------------------------------------------------------------


async def _in_input_order(files: _Files, ledger: _RowIndex) -> AsyncGenerator[BatchResult, None]:
    spool = _Spool(ledger)
    held = bytearray()

    async def put_down(file: _File) -> None:
        if held:
            await _in_thread(spool.add, (file, bytes(held)))
            held.clear()

    async def is_incomplete() -> bool:
        if last is not None:
            await put_down(last)
        return ledger.lacks_any_but(files.last_ids())

    last: _File | None = None
    try:
        async with aclosing(files.read(is_incomplete=is_incomplete)) as pieces:
            async for file, piece in pieces:
                if last is not None and file is not last:
                    await put_down(last)
                last = file
                held += piece
                if len(held) >= _PIECE_BYTES:
                    await put_down(file)
        for file in files.each:
            await _in_thread(spool.end, file)
        files.check(ledger)
        await _in_thread(spool.salvage, ledger)
        for entries in spool.pieces():
            for row in await _in_thread(spool.read, entries):
                yield row
    finally:
        with CancelScope(shield=True):  # releasing the disk space of a long file takes time
            await to_thread.run_sync(spool.close)


async def _in_thread(work: Callable[[A], T], argument: A) -> T:
    try:
        return await to_thread.run_sync(work, argument)
    except OSError as error:
        message = (
            f"the results cannot be put in order in {tempfile.gettempdir()}: {error.strerror or error}; "
            "name another directory in TMPDIR, or read them with order='file'"
        )
        raise UsageError(message) from error


class _Entry(NamedTuple):
    """A row to yield: a missing one has a number instead of a place, a stray has a reason."""

    custom_id: str | None
    place: _Place | int
    stray_reason: str | None = None


class _Spool:
    """The files of a job in one temporary file, and the places of rows. All but ``pieces`` is for a thread.

    The file has no name: nothing of it remains, however this process ends.
    """

    def __init__(self, ledger: _RowIndex) -> None:
        self._ledger = ledger
        self._others: list[_Entry] = []
        self._file: IO[bytes] | None = None
        self._size = 0
        self._closed = False
        # Cancelling a task does not stop its thread, so the file must not be closed while that writes to it.
        self._lock = threading.Lock()

    def add(self, piece: tuple[_File, bytes]) -> None:
        """Store the next piece of a file."""
        file, content = piece
        with self._lock:
            self._put(file, file.splitter.feed(content), _WHOLE)

    def end(self, file: _File) -> None:
        """Store the last line of a file, if it has no line end."""
        with self._lock:
            self._put(file, file.splitter.close(), _UNENDED)

    def _put(self, file: _File, lines: Iterable[Line], extent: bytes) -> None:
        if self._closed:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        for line in _with_text(lines):
            row = file.read_line(line)
            extent_of_line = extent if line.whole else _LONG
            custom_id, content = row.custom_id, line.content
            status_code, answers = 0, isinstance(row, BatchSuccess)
            if isinstance(row, BatchSuccess) and not row.raw and (text := carried(row)) is not None:
                content, status_code = text, row.status_code
            place = _Place(self._size, len(content), extent_of_line, status_code, answers)
            found = None if custom_id is None else self._ledger.note(custom_id, place)
            if isinstance(found, str):  # a stray contains its line
                content, place = line.content, _Place(self._size, len(line.content), extent_of_line)
            self._file.write(content)
            self._size += place.length
            if isinstance(found, _Place):
                self._others.append(_Entry(custom_id, found, _ANSWERED_BEFORE))
            elif custom_id is None or found is not None:
                self._others.append(_Entry(custom_id, place, found))

    def salvage(self, ledger: _RowIndex) -> None:
        """Assign unreadable lines to rows without another line, by their ``custom_id`` alone."""
        others, self._others = self._others, []
        for entry in others:
            custom_id = None
            if entry.custom_id is None:
                place = cast("_Place", entry.place)
                line = self._text(place)
                row = read_row(line, whole=place.extent != _LONG)
                custom_id = ledger.salvaged(row, line, place.extent)
            if custom_id is None:
                self._others.append(entry)
            else:
                ledger.places[custom_id] = entry.place  # of two such lines the first belongs to the row

    def pieces(self) -> Iterator[list[_Entry]]:
        """Yield all rows in the order of the input, and then all others in the order in which they arrived."""
        entries: list[_Entry] = []
        length = 0
        for entry in chain(starmap(_Entry, self._ledger.places.items()), self._others):
            entries.append(entry)
            length += entry.place.length if isinstance(entry.place, _Place) else 0
            if length >= _PIECE_BYTES or len(entries) >= _PIECE_ROWS:
                yield entries
                entries, length = [], 0
        yield entries

    def read(self, entries: list[_Entry]) -> list[BatchResult]:
        """Return the rows of these entries."""
        with self._lock:
            return [self._read(entry) for entry in entries]

    def _read(self, entry: _Entry) -> BatchResult:
        custom_id, place, stray_reason = entry
        if not isinstance(place, _Place):
            return BatchMissing(cast("str", custom_id))
        text = self._text(place)
        if stray_reason is not None:
            return BatchStray(custom_id, stray_reason, as_text(text))
        if place.status_code:
            return BatchSuccess(cast("str", custom_id), json_codec.Body(text), place.status_code)
        row = read_row(text, whole=place.extent != _LONG)
        if row.custom_id is None and custom_id is not None:
            return salvaged(custom_id, text, whole=place.extent != _LONG)
        return row

    def _text(self, place: _Place) -> bytes:
        file = cast("IO[bytes]", self._file)
        file.seek(place.offset)
        return file.read(place.length)

    def close(self) -> None:
        """Release the disk space."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


# --- the rows to send again ---------------------------------------------------------------------------------------


def failed_requests(requests: Source, results: Iterable[BatchResult]) -> Iterator[BatchRequest]:
    """Yield the requests to send again: those that failed or are missing, each once, in the order of the input.

    ``requests`` is the input of the job: a path, the bytes of the file, the file opened in binary mode, or the
    requests. ``results`` are rows of :meth:`AsyncBatches.results`, of one job or of several. A request that any of
    them answered is omitted, and so is a row whose line states no error: it may have been answered, and paid for, in
    a form that cannot be read. Only results that were read with ``requests=`` name missing rows. All results are
    consumed before the first request is yielded; only their ids are kept.

    Raises:
        UsageError: the file cannot be read.
        ValidationError: a line is not a request.
    """
    failed = set[str]()
    answered = set[str]()
    for result in results:
        if isinstance(result, BatchSuccess):
            answered.add(result.custom_id)
        elif isinstance(result, (BatchFailure, BatchMissing)) and result.custom_id is not None:
            is_evidence = isinstance(result, BatchMissing) or states_error(result)
            (failed if is_evidence else answered).add(result.custom_id)
    failed -= answered
    for request in jsonl.read(requests):
        if request.custom_id in failed:
            failed.remove(request.custom_id)
            yield request
