"""A dataset in shards: cut, read again, and put together, from files of any storage. All functions block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches import jsonl
from together_batches._protocol.upload_marks import MARK_BYTES
from together_batches._schema.adapters import adapter_of
from together_batches._schema.response_format import added_bytes
from together_batches._validation import positive_int
from together_batches.errors import UsageError
from together_batches.runs import rules
from together_batches.runs._binary import BinaryInput, write_all
from together_batches.runs._joining import final_lines
from together_batches.runs._options import check_rows_per_job
from together_batches.runs._records import check_order
from together_batches.runs._sharding import rows_left, scan

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from together_batches._schema.adapters import Schema
    from together_batches.runs._binary import BinarySource, Writable
    from together_batches.runs._records import Attempt, Shard


def shards(
    source: BinarySource,
    *,
    endpoint: str = "/v1/chat/completions",
    max_rows_per_job: int = jsonl.MAX_ROWS,
    max_bytes_per_job: int = jsonl.MAX_BYTES,
    invalid: Writable | None = None,
    schema: Schema | None = None,
) -> tuple[Shard, ...]:
    """Check a file of requests, and cut it into as few shards as the limits allow, each for one job at a time.

    The file is read once, and a second time if an id may occur twice or a line is invalid. A shard is a range of it,
    and holds no rows: see :func:`rows`. The function blocks; async code calls it in a thread.

    Parameters:
        source: a path; a file opened in binary mode that can seek; or a function that opens such a file.
        endpoint: the endpoint of the jobs.
        max_rows_per_job: maximum rows in a shard.
        max_bytes_per_job: maximum bytes of the rows in a shard, and of its upload.
        invalid: a binary file for invalid lines, which are then left out of the shards. Otherwise they are an error.
        schema: that of :func:`begin`, if it has one: it makes the rows of an upload longer.

    Raises:
        ValidationError: the file has no rows, or invalid lines; ``problems`` lists up to 1,000.
        UsageError: an invalid argument, or a file that cannot be read.
    """
    check_rows_per_job("max_rows_per_job", max_rows_per_job)
    if positive_int("max_bytes_per_job", max_bytes_per_job) <= MARK_BYTES:
        message = f"max_bytes_per_job must be more than {MARK_BYTES}; it is {max_bytes_per_job}"
        raise UsageError(message)
    return scan(
        source,
        endpoint=endpoint,
        max_rows=max_rows_per_job,
        max_bytes=min(max_bytes_per_job, jsonl.MAX_BYTES) - MARK_BYTES,
        more_per_row=added_bytes(None if schema is None else adapter_of(schema)),
        aside=invalid,
        raise_if_cancelled=lambda: None,
    ).shards


def rows(
    source: BinarySource, shard: Shard, earlier: Sequence[Attempt] = (), *, retry_invalid: bool = False
) -> ShardRows:
    """Return the rows of the attempt that follows ``earlier`` at a shard, as a source for :func:`begin`.

    These are the rows that the earlier attempts left, in the order of the file: with no earlier attempt, all rows of
    the shard. Only the range of the shard is read, if the file can seek.

    Parameters:
        source: the file that was cut into shards.
        shard: the shard.
        earlier: the attempts at the shard so far, in order, all of them collected.
        retry_invalid: the ``retries_invalid`` of the attempt.

    Raises:
        UsageError: an invalid argument, or attempts that are not all those at the shard so far, in order.
    """
    _check_collected(earlier)
    check_order(shard.number, earlier, gaps=True)
    return ShardRows(BinaryInput.of(source), shard, tuple(earlier), retry_invalid=retry_invalid)


class ShardRows:
    """Rows of a shard: each call opens them as a binary file, to be read in order.

    Reading the last of them raises :class:`RunChangedError` if the file that was cut into shards has changed.
    """

    def __init__(
        self, source: BinaryInput, shard: Shard, earlier: Sequence[Attempt], *, retry_invalid: bool = False
    ) -> None:
        self.name: str = str(source)
        self._source = source
        self._shard = shard
        self._earlier = earlier
        self._retry_invalid = retry_invalid

    def __call__(self) -> RowsFile:
        """Open the rows."""
        left = rows_left(self._source, self._shard, self._earlier, retry_invalid=self._retry_invalid)
        return RowsFile(self.name, left)


class RowsFile:
    """An open file of rows."""

    def __init__(self, name: str, blocks: Generator[bytes]) -> None:
        self.name: str = name
        self._blocks = blocks
        self._held = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes (by default all), and none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if not self._held:
            self._held = memoryview(next(self._blocks, b""))
        block, self._held = self._held[:size], self._held[size:]
        return bytes(block)

    def close(self) -> None:
        """Close the source."""
        self._blocks.close()
        self._held = memoryview(b"")


def write_results(
    shard: Shard,
    pieces: Sequence[tuple[Attempt, BinarySource]],
    output: Writable,
    failures: Writable | None = None,
) -> None:
    """Write the results of a shard: a line for each of its rows, in order, from the last attempt that contained it.

    The function blocks; async code calls it in a thread.

    Parameters:
        shard: the shard.
        pieces: all attempts at it, in order, each with what :func:`collect` wrote to its ``sink``.
        output: a binary file for all lines; the shards of a dataset are written to it one after another.
        failures: a binary file for the lines of rows that were not answered.

    Raises:
        RunError: a piece is not as it was collected.
        UsageError: the attempts are not all those at the shard, in order and collected; a piece cannot be read, or
            a file cannot be written.
    """
    attempts = [attempt for attempt, _ in pieces]
    _check_collected(attempts)
    rules.rows_of(shard, attempts)
    if not attempts:
        message = f"shard {shard.number} has no attempt, and so no results: begin one"
        raise UsageError(message)
    for lines, failed in final_lines(shard, pieces):
        write_all(output, lines)
        if failed and failures is not None:
            write_all(failures, failed)


def _check_collected(attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        if attempt.collected_at is None:
            message = f"attempt {attempt.number} of shard {attempt.shard} is not collected: collect it first"
            raise UsageError(message)
