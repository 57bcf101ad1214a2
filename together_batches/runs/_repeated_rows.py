"""Rows that repeat the request of an earlier one, and are not sent: that one is, and its result is that of all.

Two files take the place of the input: the rows that are sent, and a line for each row of the input, with its id and
the place of the row that is sent for it. The results of the former become those of the latter at the end. All
functions block and run in a thread.
"""

from __future__ import annotations

from array import array
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING

import attrs

from together_batches._protocol import request_codec
from together_batches._protocol.to_dict import renamed_line
from together_batches.errors import RunChangedError
from together_batches.jsonl._repeats import Repeats
from together_batches.runs._directory_check import JOINED, ROWS, SENT
from together_batches.runs._files import explained, run_file, scratch_file, sha256_of
from together_batches.runs._records import packed
from together_batches.runs._sharding import rows_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches.runs._files import WithTexts
    from together_batches.runs._records import Run, Shard

_ROWS_TOGETHER = 1000


def write_once(
    source: Path, shards: Sequence[Shard], directory: Path, raise_if_cancelled: Callable[[], None]
) -> tuple[Path, str, array[int]]:
    """Write the two files; return the path of the rows to send, the hashes of both, and the copies of each row."""
    repeats = Repeats()
    for rows in _rows_of(source, shards):
        raise_if_cancelled()
        for line in BytesIO(rows):
            repeats.add(*_key(line))
    first = array("I", range(repeats.rows))
    for row, before in repeats.pairs():
        first[row] = before
    del repeats
    places, copies, row = array("I", bytes(4 * len(first))), array("I"), 0
    with run_file(directory / SENT) as sent, run_file(directory / ROWS) as listed:
        for rows in _rows_of(source, shards):
            raise_if_cancelled()
            named: list[tuple[str, int]] = []
            for custom_id, line in zip(request_codec.custom_ids(rows), BytesIO(rows), strict=True):
                if first[row] == row:
                    places[row] = len(copies)
                    copies.append(0)
                    sent.write(line)
                place = places[first[row]]
                copies[place] += 1
                named.append((custom_id, place))
                row += 1
            listed.write(request_codec.packed_copies(named))
        sent.commit()
        listed.commit()
    return directory / SENT, f"{sent.sha256} {listed.sha256}", copies


def _rows_of(source: Path, shards: Iterable[Shard]) -> Iterator[bytes]:
    for shard in shards:
        yield from rows_in(source, shard)


def _key(line: bytes) -> tuple[bytes, ...]:
    """Return what is equal in rows with the same request. A row that cannot be cut is equal to no other."""
    found = request_codec.carried_request(line[:-1])
    if found is None:
        return (line,)
    _, body, method = found
    return (method or "").encode(), body.text


def with_copies(shards: Iterable[Shard], copies: Iterable[int]) -> Iterator[Shard]:
    """Yield the shards of the rows that are sent, with the copies of their rows."""
    copies = iter(copies)
    for shard in shards:
        of_shard = array("I", islice(copies, shard.rows))
        yield attrs.evolve(shard, copies=packed(of_shard)) if max(of_shard) > 1 else shard


def check(directory: Path, run: Run, raise_if_cancelled: Callable[[], None]) -> Path:
    """Return the path of the rows that are sent; raise :class:`RunChangedError` unless both files are as written."""
    for name, sha256 in zip((SENT, ROWS), run.deduped.split(), strict=True):
        path = directory / name
        if not path.is_file() or sha256_of(path, raise_if_cancelled)[1] != sha256:
            message = (
                f"{path} is not what the run in {directory} wrote: put the file back as it was, or begin a new run "
                "in another directory"
            )
            raise RunChangedError(message, directory=str(directory))
    return directory / SENT


def write_all_rows(
    directory: Path,
    lines: Iterable[tuple[bytes, bytes]],
    output: AtomicFile | WithTexts,
    failures: AtomicFile,
    raise_if_cancelled: Callable[[], None],
) -> None:
    """Write the results of all rows, from the lines of those that were sent, as ``final_lines`` yields them."""
    ends, failed = array("Q", [0]), bytearray()
    with scratch_file(directory / JOINED) as joined:
        size = 0
        for some, bad in lines:
            raise_if_cancelled()
            joined.write(some)
            end = some.find(b"\n")
            while end >= 0:
                ends.append(size + end + 1)
                failed.append(bool(bad))
                end = some.find(b"\n", end + 1)
            size += len(some)
        joined.commit()
    try:
        _copy(directory, ends, failed, output, failures, raise_if_cancelled)
    finally:
        (directory / JOINED).unlink(missing_ok=True)


def _copy(
    directory: Path,
    ends: Sequence[int],
    failed: Sequence[int],
    output: AtomicFile | WithTexts,
    failures: AtomicFile,
    raise_if_cancelled: Callable[[], None],
) -> None:
    rows, joined = directory / ROWS, directory / JOINED
    with explained("read", rows), rows.open("rb") as listed, joined.open("rb") as file:
        while some := b"".join(islice(listed, _ROWS_TOGETHER)):
            raise_if_cancelled()
            for custom_id, place in request_codec.unpacked_copies(some):
                file.seek(ends[place])
                line = renamed_line(file.read(ends[place + 1] - ends[place]), custom_id)
                output.write(line)
                if failed[place]:
                    failures.write(line)
