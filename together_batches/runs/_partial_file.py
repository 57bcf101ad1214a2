"""Files that are being written: under another name, until they are whole. All for a thread."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from together_batches._local.replace import created, destination, take_place
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["PartialFile", "explained"]

_BLOCK_BYTES = 1 << 18


class PartialFile:
    """A file on its way: beside its place, which it takes when it is whole.

    ``mark`` is a part of its name until then, and the same for each try: a process that was killed leaves nothing
    that the next one does not take over. With ``follow_links`` a link at its place stays, and what that leads to is
    written. A hash is made of what is written, unless it is not ``hashed``. Raises :class:`UsageError` if it cannot
    be written.
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
        """The hash of what was written, when that is finished."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Add bytes at the end. They are written in large blocks, because lines are many, and each write costs."""
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
        """Forget what was written."""
        self._held.clear()
        self._held_bytes = 0
        with explained("write", self.target):
            self._file.seek(0)
            self._file.truncate()
        self._digest = hashlib.sha256()
        self.bytes = 0

    def finish(self) -> None:
        """All is there: have it on the disk."""
        if not self._file.closed:
            self._flush()
            with explained("write", self.target):
                os.fsync(self._file.fileno())
                self._file.close()

    def keep(self) -> None:
        """Have it on the disk, and give it its name."""
        self.finish()
        with explained("write", self.target):
            take_place(self._part, self._place)

    def drop(self) -> None:
        """Remove what was not kept."""
        with suppress(OSError):  # what could not be written before cannot be written now
            self._file.close()
        self._part.unlink(missing_ok=True)


@contextmanager
def explained(doing: str, path: Path) -> Generator[None]:
    """Nobody should meet a bare OSError: what was tried, with what, why it went wrong, and that it can go on."""
    try:
        yield
    except OSError as error:
        raise _error(doing, path, error) from error


def _error(doing: str, path: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(f"cannot {doing} {path}: {reason[:1].lower()}{reason[1:]}; put that right, and run it again")
