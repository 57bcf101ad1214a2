"""The ids of the rows of each shard, kept when the input is scanned: no request is decoded again to order results.

A shortcut only. A file that is absent, cut or changed is ignored, and the ids are then read from the input.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from together_batches._protocol import request_codec
from together_batches._protocol.json_codec import WireError
from together_batches.runs._directory_check import IDS
from together_batches.runs._files import explained, make_directory, scratch_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from together_batches.runs._records import Shard


class IdFiles:
    """Files in the directory of a run, one for each shard: a line with hashes, and lines of ids."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / IDS

    def prepare(self) -> None:
        """Create their directory."""
        make_directory(self._directory)

    def _path(self, shard: int) -> Path:
        return self._directory / f"{shard:05}.jsonl"

    def write(self, shard: Shard, ids: bytes) -> None:
        """Keep the ids of a shard, encoded by :func:`~together_batches._protocol.request_codec.packed_ids`."""
        with scratch_file(self._path(shard.number)) as file:
            file.write(_head(shard, ids))
            file.write(ids)
            file.commit()

    def read(self, shard: Shard) -> list[str] | None:
        """Return the ids of a shard; None if its file cannot be used."""
        with suppress(OSError, WireError):
            head, end, ids = self._path(shard.number).read_bytes().partition(b"\n")
            if head + end == _head(shard, ids):
                found = request_codec.unpacked_ids(ids)
                if len(found) == shard.rows:
                    return found
        return None

    def remove(self, shards: Iterable[int]) -> None:
        """Remove those of the shards with these numbers, when they are no longer needed."""
        with explained("remove", self._directory):
            for shard in shards:
                self._path(shard).unlink(missing_ok=True)


def _head(shard: Shard, ids: bytes) -> bytes:
    """Return the line that shows whose ids these are, and that they are complete."""
    return f'"{shard.sha256} {hashlib.sha256(ids).hexdigest()}"\n'.encode()
