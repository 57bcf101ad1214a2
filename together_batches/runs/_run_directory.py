"""The directory of a run, except its ledger: uploads, downloads, and ordered results.

No decisions are made here. Lost files are recreated from the input and from the service.
"""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches import jsonl
from together_batches._protocol import request_codec
from together_batches._schema.response_format import response_format_adder
from together_batches.errors import RunError
from together_batches.jsonl._lines import changed_lines
from together_batches.runs._attempt_files import file_name, upload_name, with_mark, write_piece
from together_batches.runs._directory_check import DOWNLOADS, PIECES, UPLOADS, is_scratch
from together_batches.runs._files import explained, make_directory, run_file, scratch_file, sha256_of
from together_batches.runs._id_files import IdFiles
from together_batches.runs._joining import Arranged, final_lines
from together_batches.runs._repeated_rows import write_all_rows
from together_batches.runs._sharding import rows_left, unsplit_rows, which_are_left
from together_batches.runs._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches._protocol.upload_marks import Mark
    from together_batches._schema.adapters import SchemaAdapter
    from together_batches.runs._files import WithTexts
    from together_batches.runs._records import Attempt, Shard


class AttemptRows(NamedTuple):
    """The rows of an attempt: those of its shard that earlier attempts left."""

    shard: Shard
    earlier: Sequence[Attempt]
    attempt: Attempt


class RowsToUpload(NamedTuple):
    """A file with the rows of an attempt, its name as an upload, its hash, and whether its first row has the mark."""

    path: Path
    name: str
    sha256: str
    is_marked: bool


class RunDirectory:
    """Files in the ``directory`` of a run whose input is ``source``.

    ``response_format`` is sent with each request that has none, and answers are read by the ``schema``.
    """

    def __init__(
        self,
        directory: Path,
        source: Path,
        *,
        response_format: str | None = None,
        schema: SchemaAdapter[Any] | None = None,
    ) -> None:
        self.directory = directory
        self._source = source
        self._schema = schema
        self._with_format = None if response_format is None else response_format_adder(response_format.encode())
        self._id_files = IdFiles(directory)
        self._written: dict[str, tuple[int, ...]] = {}
        """By their hashes, the pieces that this process wrote: they are read again for that only if they changed."""

    def prepare(self) -> None:
        """Create missing directories, and remove incomplete files of an earlier process."""
        for name in (PIECES, DOWNLOADS, UPLOADS):
            make_directory(self.directory / name)
        with explained("work in", self.directory):
            for name in (DOWNLOADS, UPLOADS):
                for left in (self.directory / name).iterdir():
                    if is_scratch(left.name) and not left.is_dir():
                        left.unlink()

    def piece_of(self, attempt: Attempt) -> Path:
        """Return the path of the results of an attempt, a line for each of its rows, in order."""
        return self.directory / PIECES / f"{file_name(attempt)}.jsonl"

    def download_of(self, attempt: Attempt, number: int) -> Path:
        """Return the path for the download of a file of an attempt's results."""
        return self.directory / DOWNLOADS / f"{file_name(attempt)}-{number}.jsonl"

    async def rows_of(self, rows: AttemptRows, mark: Mark | None) -> RowsToUpload:
        """Write a file with the rows of an attempt, and with the mark in the first row if that has room for it."""
        shard, attempt = rows.shard, rows.attempt
        path = self.directory / UPLOADS / f"{file_name(attempt)}.jsonl"

        def write(raise_if_cancelled: Callable[[], None]) -> RowsToUpload:
            fill = partial(_fill, raise_if_cancelled=raise_if_cancelled)

            def as_sent() -> Iterator[bytes]:
                each = self._rows(rows, raise_if_cancelled)
                return each if self._with_format is None else changed_lines(each, self._with_format)

            # Never used by a later process, so it need not reach the disk.
            with scratch_file(path) as file:
                digest = hashlib.sha256()
                is_copy = not rows.earlier and self._with_format is None
                is_marked = is_copy and fill(file, unsplit_rows(self._source, shard, digest.update), mark)
                if not is_copy or digest.hexdigest() != shard.sha256:
                    file.start_over()
                    is_marked = fill(file, as_sent(), mark)
                # Too large only in a run that was begun without marks, whose shards have no room for one.
                if is_marked and file.bytes > jsonl.MAX_BYTES:
                    file.start_over()
                    is_marked = fill(file, as_sent(), None)
                file.commit()
            name = upload_name(self._source.stem, attempt, mark if is_marked else None)
            return RowsToUpload(path, name, file.sha256, is_marked)

        return await in_thread(write, large=True)

    async def arrange(self, rows: AttemptRows, output: Path | None, errors: Path | None) -> Arranged:
        """Write the piece of an attempt from the files of its results."""
        shard, earlier, attempt = rows

        def make(raise_if_cancelled: Callable[[], None]) -> Arranged:
            ids = self._ids(rows, raise_if_cancelled)
            settled: set[str] = set()
            same_file = [each.file_id in attempt.file_ids for each in earlier]
            if True in same_file:  # the second job of a file contains the rows of the first
                first = same_file.index(True)
                of_first = self._ids(AttemptRows(shard, earlier[:first], earlier[first]), raise_if_cancelled)
                settled = set(of_first).difference(ids)
            path = self.piece_of(attempt)
            arranged = write_piece(
                run_file(path),
                attempt,
                ids,
                output,
                errors,
                settled=settled,
                raise_if_cancelled=raise_if_cancelled,
                schema=self._schema,
            )
            self._written[arranged.piece_sha256] = _identity_of(path)
            return arranged

        return await in_thread(make, large=True)

    def _rows(self, rows: AttemptRows, raise_if_cancelled: Callable[[], None]) -> Iterator[bytes]:
        """Yield the rows of an attempt, some at a time, as lines with their ends."""
        shard, earlier, attempt = rows
        retry = attempt.retries_invalid
        for some in rows_left(self._source, shard, earlier, retry_invalid=retry, directory=self.directory):
            raise_if_cancelled()
            yield some

    def _ids(self, rows: AttemptRows, raise_if_cancelled: Callable[[], None]) -> list[str]:
        """Return the ids of these rows."""
        shard, earlier, attempt = rows
        ids = self._id_files.read(shard)
        if ids is not None:
            left = which_are_left(shard, earlier, retry_invalid=attempt.retries_invalid) if earlier else None
            return ids if left is None else list(compress(ids, left))
        return [
            custom_id for some in self._rows(rows, raise_if_cancelled) for custom_id in request_codec.custom_ids(some)
        ]

    async def has_piece(self, attempt: Attempt) -> bool:
        """Return whether the piece of an attempt exists; raise :class:`RunError` if this run did not write it so."""
        path, expected = self.piece_of(attempt), attempt.piece_sha256

        def check(raise_if_cancelled: Callable[[], None]) -> bool:
            if not path.is_file():
                return False
            is_as_written = not expected or self._written.get(expected) == _identity_of(path)
            if not is_as_written and sha256_of(path, raise_if_cancelled)[1] != expected:
                message = (
                    f"{path} is not as this run wrote it, so no output is made of it: put it back as it was, or "
                    f"remove it and run again, and the results of job {attempt.job_id} are downloaded again"
                )
                raise RunError(message, directory=str(self.directory))
            return True

        return await in_thread(check, large=True)

    async def drop(self, *paths: Path) -> None:
        """Remove files that are no longer needed."""

        def unlink(_: object) -> None:
            for path in paths:
                with explained("remove", path):
                    path.unlink(missing_ok=True)

        await in_thread(unlink)

    async def join(
        self,
        shards: Sequence[tuple[Shard, Sequence[Attempt]]],
        output: AtomicFile | WithTexts,
        failures: AtomicFile,
        *,
        is_deduped: bool,
    ) -> None:
        """Write all rows to ``output`` in the order of the input, and those not answered also to ``failures``."""

        def all_lines() -> Iterator[tuple[bytes, bytes]]:
            for shard, attempts in shards:
                pieces = [(attempt, self.piece_of(attempt)) for attempt in attempts]
                yield from final_lines(shard, pieces, directory=self.directory)

        def write(raise_if_cancelled: Callable[[], None]) -> None:
            if is_deduped:
                write_all_rows(self.directory, all_lines(), output, failures, raise_if_cancelled)
            else:
                for lines, failed in all_lines():
                    raise_if_cancelled()
                    output.write(lines)
                    failures.write(failed)
            output.finish()
            failures.finish()

        await in_thread(write, large=True)

    async def clear(self, attempts: Sequence[Attempt]) -> None:
        """Remove the pieces, and the ids, after the output is written."""
        await self.drop(*(self.piece_of(attempt) for attempt in attempts))
        await in_thread(lambda _: self._id_files.remove({attempt.shard for attempt in attempts}))


def _identity_of(path: Path) -> tuple[int, ...]:
    """Return numbers that differ once a file is replaced or changed."""
    with explained("read", path):
        found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _fill(
    file: AtomicFile, rows: Iterable[bytes], mark: Mark | None, *, raise_if_cancelled: Callable[[], None]
) -> bool:
    """Write rows, whose first item has the whole first row; return whether that contains the mark."""
    is_marked = False
    for some in rows:
        raise_if_cancelled()
        if mark is not None and not file.bytes and (rows_with_mark := with_mark(some, mark)) is not None:
            file.write(rows_with_mark)
            is_marked = True
        else:
            file.write(some)
    return is_marked
