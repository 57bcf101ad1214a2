"""Files that have a temporary name until they are complete. All functions block and run in a thread."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from together_batches._local import os_errors
from together_batches._local.replace import created, destination, take_place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["PartialFile", "explained"]

_BLOCK_BYTES = 1 << 18


class PartialFile:
    """Incomplete file beside its destination, which it replaces when it is complete.

    ``mark`` is part of its temporary name, and the same for each try, so that the next process reuses the file of a
    killed one. With ``follow_links`` a link at the destination remains, and its target is written. If ``hashed``, a
    hash of the content is computed. Raises :class:`UsageError` if the file cannot be written.
    """

    def __init__(self, target: Path, mark: str, *, follow_links: bool = False, hashed: bool = True) -> None:
        self.target = target
        self.bytes = 0
        self._hashed = hashed
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._digest = hashlib.sha256()
        with explained("write", target):
            self._place = destination(target) if follow_links else target
            self._part = self._place.parent / f".{self._place.name}.{mark}.part"
            self._file = created(self._part, "wb", buffering=0)

    @property
    def sha256(self) -> str:
        """Hash of the content, once it is finished."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Append bytes. They are written in large blocks, because there are many lines and each write is costly."""
        self._held.append(content)
        self.bytes += len(content)
        self._held_bytes += len(content)
        if self._held_bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        block = memoryview(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0
        if self._hashed:
            self._digest.update(block)
        with explained("write", self.target):
            while block:
                block = block[self._file.write(block) :]

    def start_over(self) -> None:
        """Discard the content."""
        self._held.clear()
        self._held_bytes = 0
        with explained("write", self.target):
            self._file.seek(0)
            self._file.truncate()
        self._digest = hashlib.sha256()
        self.bytes = 0

    def finish(self) -> None:
        """Sync the complete content to the disk, and close the file."""
        if not self._file.closed:
            self._flush()
            with explained("write", self.target):
                os.fsync(self._file.fileno())
                self._file.close()

    def keep(self) -> None:
        """Sync the content to the disk, and move the file to its destination."""
        self.finish()
        with explained("write", self.target):
            take_place(self._part, self._place)

    def drop(self) -> None:
        """Close the file, and remove it if it was not kept."""
        with suppress(OSError):  # after a failed write, closing fails as well
            self._file.close()
        self._part.unlink(missing_ok=True)


def explained(doing: str, path: Path) -> AbstractContextManager[None]:
    """Convert an OSError into a :class:`UsageError`; the run can continue once its cause is gone."""
    return os_errors.explained(doing, path, advice="put that right, and run it again")
