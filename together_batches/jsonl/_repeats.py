"""Rows that repeat an earlier one, found with a few bytes for each row: a table or an input may exceed the memory."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGEST_BYTES = 16
"""So many that two keys never have the same digest, by chance or on purpose."""
_BUCKETS = 256


class Repeats:
    """The keys of rows, each as a digest and its row; rows count from 0."""

    def __init__(self) -> None:
        self.rows: int = 0
        self._digests = [bytearray() for _ in range(_BUCKETS)]
        self._rows = [array("I") for _ in range(_BUCKETS)]

    def add(self, *key: bytes) -> None:
        """Add the key of the next row."""
        hashed = blake2b(digest_size=_DIGEST_BYTES)
        for part in key:
            hashed.update(b"%d:" % len(part))
            hashed.update(part)
        digest = hashed.digest()
        bucket = digest[0]
        self._digests[bucket] += digest
        self._rows[bucket].append(self.rows)
        self.rows += 1

    def skip(self) -> None:
        """Count a row without a key."""
        self.rows += 1

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield each row that repeats an earlier one, with the first such row; in no particular order."""
        for digests, rows in zip(self._digests, self._rows, strict=True):
            first: dict[bytes, int] = {}
            for place, row in enumerate(rows):
                digest = bytes(digests[place * _DIGEST_BYTES : (place + 1) * _DIGEST_BYTES])
                before = first.setdefault(digest, row)
                if before != row:
                    yield row, before
