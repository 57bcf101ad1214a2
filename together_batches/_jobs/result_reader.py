"""Reading of the results of a job in full: absent or short files are read again until patience is used up.

Built on functions that are passed in: it can be tested with three-line fakes and does not depend on HTTP.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from together_batches._jobs.patience import Absence, until_found
from together_batches._protocol import result_codec, result_lines
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.json_members import salvaged_id
from together_batches._protocol.result_lines import read_row, states_error
from together_batches._stream import Stream
from together_batches._text import count_of
from together_batches.errors import (
    APIResponseValidationError,
    NotFoundError,
    PermissionDeniedError,
    ResultsUnavailableError,
)
from together_batches.jsonl import LineSplitter
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Container

    from together_batches.jsonl import Line
    from together_batches.rows import BatchFailure, BatchSuccess

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


class ResultFile:
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
        self.rewind()

    def rewind(self) -> None:
        """Begin again: the next chunks are those from the beginning of the file."""
        self._known = self.size
        self._skipped = self._checksum_of_skipped = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that end in the part of a chunk that was not read before."""
        if self._skipped < self._known:
            before = chunk[: self._known - self._skipped]
            chunk = chunk[len(before) :]
            self._skipped += len(before)
            self._checksum_of_skipped = zlib.crc32(before, self._checksum_of_skipped)
            if self._skipped == self._known and self._checksum_of_skipped != self._checksum:
                message = f"file {self.id} of job {self.job_id} changed while it was read: read the results again"
                raise ResultsUnavailableError(message, job_id=self.job_id, file_ids=[self.id])
        self._checksum = zlib.crc32(chunk, self._checksum)
        self.size += len(chunk)
        return self.splitter.feed(chunk)

    def read_line(self, line: Line) -> BatchSuccess | BatchFailure:
        """Return the row of a line; note whether the file has lines, and whether any is about a row.

        In an error file, an error without an id counts as a row.
        """
        row = read_row(line.content, whole=line.whole)
        self.has_lines = True
        if not self.has_rows:
            names_a_row = row.custom_id is not None or salvaged_id(line.content) is not None
            self.has_rows = names_a_row or (self._is_of_errors and states_error(row))
        return row

    def is_cut(self) -> bool:
        """Return whether the file ends within a line. A complete line needs no line end."""
        line = self.splitter.peek()
        if line is None or not line.content.strip():
            return False
        try:
            result_codec.decode_row(line.content)
        except WireError:
            return True
        return False

    def last_id(self) -> str | None:
        """Return the ``custom_id`` of a complete last line without a line end."""
        line = self.splitter.peek()
        return None if line is None else read_row(line.content, whole=line.whole).custom_id


class ResultReader:
    """Reads the files of a job in full, in one or more rounds.

    ``lacks_any_but`` says whether rows are missing, apart from those with some ids; it is None if that is unknown.
    Then a file truncated at the end of a line looks like a shorter result, so the metadata of the first file, which
    contains the answers, is always read.
    """

    def __init__(
        self,
        api: ResultsApi,
        job: BatchJob,
        patience: float,
        lacks_any_but: Callable[[Container[str | None]], bool] | None,
    ) -> None:
        self._api = api
        self._job = job
        self._patience = patience
        self._lacks_any_but = lacks_any_but
        self._files: list[ResultFile] = []
        self._add_files_of(job)
        self._absence = Absence(patience)
        self._rounds = 0

    async def read(self) -> AsyncGenerator[tuple[ResultFile, list[Line], bool], None]:
        """Yield the lines of each file with the file, and whether they have a line end: the last lines may not.

        The rows of these lines must be known when the next ones are requested. If rows are missing or cannot be
        counted, or a file ends within a line, metadata is read: a file shorter than its metadata says was truncated
        in transfer, or is still being written, and reading resumes where it ended. If rows are missing, the job is
        read too: the id of one file may appear after that of the other.

        Raises :class:`ResultsUnavailableError` if files remain absent or short, or are none of results.
        """
        files = self._files
        while files:
            before = sum(file.size for file in files)
            for file in files:
                stream, chunk = await self._open(file)
                async with stream:
                    while chunk:
                        yield file, file.feed(chunk), True
                        chunk = await anext(stream, b"")
            if sum(file.size for file in files) > before:
                self._absence.over()
            files = await self._next_round()
        for file in self._files:
            yield file, file.splitter.close(), False
        self._check()

    async def _next_round(self) -> list[ResultFile]:
        """Return the files to read next: those that have appeared, once, or those to resume."""
        self._rounds += 1
        appeared = await self._appeared() if self._rounds == 1 and self._is_incomplete() else []
        return appeared or await self._short()

    def _add_files_of(self, job: BatchJob) -> list[ResultFile]:
        # Whatever the final state: the files contain the rows that were done when a job was cancelled, expired or
        # failed.
        known = {file.id for file in self._files}
        ids = dict.fromkeys(file_id for file_id in (job.output_file_id, job.error_file_id) if file_id)
        added = [ResultFile(file_id, job) for file_id in ids if file_id not in known]
        self._files = [*self._files, *added]
        return added

    def _is_incomplete(self) -> bool:
        """Return whether rows are missing, also from the last lines without a line end."""
        return self._lacks_any_but is not None and self._lacks_any_but({file.last_id() for file in self._files})

    async def _open(self, file: ResultFile) -> tuple[Stream[bytes], bytes]:
        """Return the content of a file, and its first chunk. A 404 is retried, because the job names the file."""

        async def begin() -> tuple[Stream[bytes], bytes]:
            file.rewind()
            stream = self._api.content(file.id)
            return stream, await anext(stream, b"")

        try:
            return await until_found(begin, patience=self._patience, sleep=self._api.sleep)
        except NotFoundError as error:
            message = (
                f"the results of job {self._job.id} in {file.id} are absent ({error}): they may appear later, or be "
                "deleted; read them again later"
            )
            raise ResultsUnavailableError(message, job_id=self._job.id, file_ids=[file.id]) from error

    async def _appeared(self) -> list[ResultFile]:
        """Return the files that a completed job names now and did not name before."""
        if self._job.status != BatchJobStatus.COMPLETED:
            return []
        try:
            return self._add_files_of(await self._api.retrieve(self._job.id))
        except _NO_EVIDENCE:
            return []

    async def _short(self) -> list[ResultFile]:
        """Return the files to resume, after a pause: those that are shorter than their metadata says."""
        short: list[ResultFile] = []
        is_incomplete = self._is_incomplete()
        for file in self._files:
            is_uncounted = self._lacks_any_but is None and file is self._files[0] and file.size != file.expected_size
            if is_incomplete or file.is_cut() or is_uncounted:
                try:
                    file.expected_size = (await self._api.file(file.id)).bytes or 0
                except _NO_EVIDENCE:  # unavailable metadata proves nothing
                    continue
                if file.expected_size > file.size:
                    short.append(file)
        if short:
            pause = self._absence.pause()
            if pause is None:
                message = (
                    f"the results of job {self._job.id} are not whole: {short[0].id} has "
                    f"{count_of(short[0].size, 'byte')}, and its metadata says more; read them again later"
                )
                raise ResultsUnavailableError(message, job_id=self._job.id, file_ids=[file.id for file in short])
            await self._api.sleep(pause)
        return short

    def _check(self) -> None:
        """Raise :class:`ResultsUnavailableError` for a page instead of the output, or of errors if rows are missing.

        An error file with all rows says nothing about answers that were replaced by a page.
        """
        foreign = [file.id for file in self._files if file.has_lines and not file.has_rows]
        if foreign and (self._job.output_file_id in foreign or self._is_incomplete()):
            message = (
                f"the results of job {self._job.id} are unavailable: {' and '.join(foreign)} has lines, and none is "
                "about a row; it may be a page instead of the file: read the results again later"
            )
            raise ResultsUnavailableError(message, job_id=self._job.id, file_ids=foreign)
