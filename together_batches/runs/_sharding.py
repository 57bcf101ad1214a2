"""Sharding of an input: it is checked, hashed, and cut into byte ranges, one for each job. All functions block.

Only an eight-byte hash of each id is kept, and only ids with equal hashes are compared, in a second reading.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from io import BytesIO
from itertools import compress
from typing import TYPE_CHECKING

import attrs

from together_batches import jsonl
from together_batches._protocol import json_codec, request_codec
from together_batches.errors import RunChangedError, UsageError, ValidationError
from together_batches.jsonl._checks import Check, FirstLines, Rules
from together_batches.jsonl._lines import Cutter, cut_lines, joined
from together_batches.jsonl._requests import JSON_SPACE
from together_batches.runs._binary import BinaryInput, write_all
from together_batches.runs._files import explained
from together_batches.runs._records import Shard, packed, unpacked
from together_batches.runs.rules import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence
    from pathlib import Path

    from together_batches.jsonl import Line
    from together_batches.jsonl._lines import Lines
    from together_batches.runs._binary import BinarySource, Writable
    from together_batches.runs._records import Attempt

_BUCKETS = 256
_BLOCK_BYTES = 1 << 18


@attrs.frozen(kw_only=True)
class Scan:
    """Content of an input. ``invalid`` counts the bad lines."""

    bytes: int
    sha256: str
    shards: tuple[Shard, ...]
    invalid: int


def scan(
    source: BinarySource,
    *,
    endpoint: str,
    max_rows: int,
    max_bytes: int = jsonl.MAX_BYTES,
    more_per_row: int = 0,
    first_rows: int | None = None,
    aside: Writable | None = None,
    keep_ids: Callable[[Shard, bytes], None] | None = None,
    raise_if_cancelled: Callable[[], None],
) -> Scan:
    """Check an input and cut it. Bad lines are written to ``aside``; if that is None, raise :class:`ValidationError`.

    The first shard has at most ``first_rows``. Each row is sent with up to ``more_per_row`` bytes more than it has.
    The input is read a second time if an id may occur twice, or if bad lines are to be written. ``keep_ids`` is
    called with each shard and the ids of its rows, encoded by
    :func:`~together_batches._protocol.request_codec.packed_ids`.
    ``raise_if_cancelled`` is called regularly; an exception from it aborts the scan.
    """
    given = BinaryInput.of(source)
    rules = Rules(
        endpoint=endpoint,
        max_custom_id=jsonl.MAX_CUSTOM_ID,
        max_line_bytes=max(1, min(jsonl.MAX_LINE_BYTES, max_bytes - 1) - more_per_row),
        mending=True,
    )

    def read(first_lines: FirstLines, bad_lines: Writable | None) -> _Reading:
        shards = _Shards(Cutter(max_rows, max_bytes, more_per_row, first_lines=first_rows), keep_ids)
        reading = _Reading(given, Check(rules, first_lines), shards, bad_lines)
        reading.run(raise_if_cancelled)
        return reading

    hashed_ids = _HashedIds()
    reading = read(hashed_ids, None)
    alike = hashed_ids.alike()
    if alike or (aside is not None and reading.bad):
        before, reading = reading, read(_DuplicateFinder(alike), aside)
        if reading.sha256 != before.sha256:
            message = f"{given} changed while it was read: try again when no process writes to it"
            raise UsageError(message)
    return reading.finished()


class _HashedIds(FirstLines):
    """Hashes of all ids, of eight bytes each, from which possible duplicates are found."""

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._add = [bucket.append for bucket in self._buckets]

    def line_of(self, custom_id: str, number: int) -> int:
        """Add the hash of an id, and treat the id as new."""
        self.add([custom_id], number)
        return number

    def add(self, custom_ids: Sequence[str], number: int) -> bool:
        """Add the hashes of ids, and treat the ids as new."""
        # Python's own hash differs in each process, so that ids cannot be crafted to collide.
        add = self._add
        for found in map(hash, custom_ids):
            add[found & (_BUCKETS - 1)](found)
        return True

    def alike(self) -> set[int]:
        """Return hashes that occurred more than once, one bucket at a time to avoid a set of all hashes."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) != len(bucket):
                ordered = sorted(bucket)
                found.update(one for one, other in itertools.pairwise(ordered) if one == other)
        return found


class _DuplicateFinder(FirstLines):
    """First lines of the ids that may occur twice."""

    def __init__(self, hashes: Collection[int]) -> None:
        super().__init__()
        self._hashes = frozenset(hashes)

    def line_of(self, custom_id: str, number: int) -> int:
        """Return the line in which this id occurred first."""
        return super().line_of(custom_id, number) if hash(custom_id) in self._hashes else number

    def add(self, custom_ids: Sequence[str], number: int) -> bool:
        """Return whether none of these ids may occur twice, so that none has to be kept."""
        return self._hashes.isdisjoint(map(hash, custom_ids))


class _Reading:
    """One reading of the whole input."""

    def __init__(self, source: BinaryInput, check: Check, shards: _Shards, aside: Writable | None) -> None:
        self.sha256 = ""
        self._source = source
        self._check = check
        self._shards = shards
        self._aside = aside
        self.bad = 0

    def run(self, raise_if_cancelled: Callable[[], None]) -> None:
        """Read the input."""
        digest = hashlib.sha256()

        def blocks() -> Iterator[bytes]:
            for block in self._source.blocks():
                raise_if_cancelled()
                digest.update(block)
                yield block

        for lines in self._check.cut(blocks()):
            self._take(lines)
        if self._check.problem_count and not self.bad:  # of the file as a whole
            self._check.finish(str(self._source)).raise_for_problems()
        self.sha256 = digest.hexdigest()

    def _take(self, lines: Lines) -> None:
        start = 0
        bad, ids = self._check.bad(lines), self._check.ids
        for place in bad:
            self._shards.add(lines.part(start, place), ids[start:place])
            self._set_aside(lines[place])
            start = place + 1
        self._shards.add(lines.part(start, len(lines)) if start else lines, ids[start:])

    def _set_aside(self, line: Line) -> None:
        if line.content.strip(JSON_SPACE) or not line.whole:
            self.bad += 1
            self._shards.skip(line)
            if self._aside is not None:
                write_all(self._aside, self._text(line) + b"\n")

    def _text(self, line: Line) -> bytes:
        if line.whole:
            return line.content
        return b"".join(self._source.part(line.offset, line.length))  # only its beginning is in memory

    def finished(self) -> Scan:
        """Return the result; raise :class:`ValidationError` for an invalid input."""
        checked = self._check.finish(str(self._source))
        if self.bad and self._aside is None:
            checked.raise_for_problems(advice="fix this, or set bad lines aside with skip_invalid")
        shards = self._shards.finished(self._check.bytes)
        if not shards:
            message = f"{self._source}: there are no rows to send"
            raise ValidationError(message, problems=[*map(str, checked.problems)] or [message])
        return Scan(bytes=self._check.bytes, sha256=self.sha256, shards=shards, invalid=self.bad)


class _Shards:
    """The shards of the rows."""

    def __init__(self, cutter: Cutter, keep_ids: Callable[[Shard, bytes], None] | None) -> None:
        self._keep_ids = keep_ids
        self._ids = bytearray()
        self._cutter = cutter
        self._shards: list[Shard] = []
        self._first: Line | None = None
        self._rows = 0
        self._digest = hashlib.sha256()
        self._bad = array("I")

    def add(self, lines: Lines, ids: list[str]) -> None:
        """Add the next rows, with their ids if these are known."""
        start = 0
        for begins, rows in self._cutter.cut(lines):
            if begins:
                self._end(rows.offset)
                self._first = rows[0]
            self._digest.update(rows.text)
            self._rows += len(rows)
            if self._keep_ids is not None:
                some = ids[start : start + len(rows)] or request_codec.custom_ids(rows.text)
                self._ids += request_codec.packed_ids(some)
            start += len(rows)

    def skip(self, line: Line) -> None:
        """Record the place of a bad line within the shard, so that it is skipped again."""
        if self._first is not None:
            self._bad.append(line.number - self._first.number)

    def finished(self, end: int) -> tuple[Shard, ...]:
        """Return all shards; the last one extends to ``end``."""
        self._end(end)
        return tuple(self._shards)

    def _end(self, offset: int) -> None:
        if self._first is not None:
            shard = Shard(
                number=len(self._shards) + 1,
                first_line=self._first.number,
                rows=self._rows,
                offset=self._first.offset,
                size=offset - self._first.offset,
                sha256=self._digest.hexdigest(),
                skipped=packed(self._bad) if self._bad else b"",
            )
            self._shards.append(shard)
            if self._keep_ids is not None:
                self._keep_ids(shard, bytes(self._ids))
        self._rows = 0
        self._digest = hashlib.sha256()
        self._bad = array("I")
        self._ids.clear()


# --- reading a shard ----------------------------------------------------------------------------------------------


def rows_in(source: BinarySource | BinaryInput, shard: Shard, *, directory: Path | None = None) -> Iterator[bytes]:
    """Yield the rows of a shard, some at a time, as lines with their ends.

    Raises :class:`RunChangedError` at the end if they have changed. ``directory`` is that of the run, if any.
    """
    given = BinaryInput.of(source)
    bad = frozenset(unpacked(shard.skipped))
    digest = hashlib.sha256()
    number = 0
    for lines in cut_lines(given.part(shard.offset, shard.size), jsonl.LineSplitter()):
        rows = lines.text
        if bad or not json_codec.are_objects(lines.texts):
            rows = joined(
                [
                    content
                    for place, content in enumerate(lines.contents, start=number)
                    if place not in bad and content.strip(JSON_SPACE)
                ]
            )
        number += len(lines)
        if rows:
            digest.update(rows)
            yield rows
    if digest.hexdigest() != shard.sha256:
        before = "was cut into these shards" if directory is None else f"the run in {directory} began with"
        advice = "cut it again" if directory is None else "begin a new run in another directory"
        message = (
            f"{given} is not what {before}: the rows from line {shard.first_line} on are others. Put the file back "
            f"as it was, or {advice}"
        )
        raise RunChangedError(message, directory=str(directory or ""))


def which_are_left(shard: Shard, earlier: Sequence[Attempt], *, retry_invalid: bool = False) -> bytearray:
    """Return whether earlier attempts left each row of a shard."""
    left = bytearray(shard.rows)
    for row in rows_of(shard, earlier, retry_invalid=retry_invalid):
        left[row] = True
    return left


def rows_left(
    source: BinarySource | BinaryInput,
    shard: Shard,
    earlier: Sequence[Attempt],
    *,
    retry_invalid: bool = False,
    directory: Path | None = None,
) -> Generator[bytes]:
    """Yield the rows of a shard that earlier attempts left, some at a time, as :func:`rows_in` does."""
    left = which_are_left(shard, earlier, retry_invalid=retry_invalid)
    number = 0
    for rows in rows_in(source, shard, directory=directory):
        some = left[number : number + rows.count(b"\n")]
        number += len(some)
        if not all(some):
            rows = b"".join(compress(BytesIO(rows).readlines(), some))
        if rows:
            yield rows


def unsplit_rows(path: Path, shard: Shard, update: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the bytes of a shard: its first line, and then large blocks, which are not cut into lines.

    They are given to ``update``, that of a hash. If it then is the hash of the shard, they are its rows, each with
    its end. This is usual; otherwise the shard has lines that are not sent as they are, or has changed: use
    :func:`rows_in`.
    """
    with explained("read", path), path.open("rb") as file:
        file.seek(shard.offset)
        block, size = file.readline(shard.size), shard.size
        while block:
            size -= len(block)
            if not size and not block.endswith(b"\n"):  # the last line of an input may have no end
                block += b"\n"
            update(block)
            yield block
            block = file.read(min(size, _BLOCK_BYTES))
