"""A file that has a temporary name until it is complete."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING

from together_batches._local.os_errors import explained
from together_batches._local.replace import check_replaceable, created, destination, take_place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Self

_BLOCK_BYTES = 1 << 18
_LARGE_BYTES = 1 << 16
"""Size from which content is written as it is: joining it with other content would only copy it once more."""
_MOST_PARTS = 100
"""Maximum number of concurrent writers to one path with part names that the next process can reuse."""


class AtomicFile:
    """A file that is written under a temporary name in its directory, and gets its name when it is complete.

    Use it as a context manager: what was not committed by the end is removed. A link at ``path`` remains, and its
    target is written, unless ``follow_links`` is false. Without ``replace`` an existing file is an error. A ``mark``
    is part of the temporary name, which then is the same for each try; so no other process may write to the path.
    With ``fsync`` the content is on the disk before the file gets its name. If ``hashed``, a hash is computed. A new
    file is for its owner alone if it is ``private``.

    All methods block. They raise :class:`UsageError`, with ``advice``, if the file cannot be written.
    """

    _file: IO[bytes]

    def __init__(
        self,
        path: Path,
        *,
        replace: bool = True,
        follow_links: bool = True,
        mark: str | None = None,
        fsync: bool = False,
        hashed: bool = False,
        private: bool = True,
        advice: str = "",
    ) -> None:
        self.path = path
        self.bytes = 0
        self._replace = replace
        self._follow_links = follow_links
        self._mark = mark
        self._fsync = fsync
        self._hashed = hashed
        self._private = private
        self._advice = advice
        self._digest = hashlib.sha256()
        self._part: Path | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def sha256(self) -> str:
        """Hash of the content, once it is finished."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        with self._explained():
            self._part, self._file = _part_of(self._place(), self._mark, private=self._private)
        return self

    def _explained(self) -> AbstractContextManager[None]:
        return explained("write", self.path, advice=self._advice)

    def _place(self) -> Path:
        """Return the file to replace; raise :class:`UsageError` if it may not be replaced."""
        check_replaceable(self.path, overwrite=self._replace)
        return destination(self.path) if self._follow_links else self.path

    def write(self, content: bytes) -> None:
        """Append bytes. They are written in large blocks, because there are many lines and each write is costly."""
        self.bytes += len(content)
        if len(content) >= _LARGE_BYTES:
            self._flush()
            self._put(content)
            return
        self._held.append(content)
        self._held_bytes += len(content)
        if self._held_bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        content = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if content:
            self._put(content)

    def _put(self, content: bytes) -> None:
        if self._hashed:
            self._digest.update(content)
        left = memoryview(content)
        with self._explained():
            while left:
                left = left[self._file.write(left) :]

    def start_over(self) -> None:
        """Discard the content."""
        self._held.clear()
        self._held_bytes = self.bytes = 0
        self._digest = hashlib.sha256()
        with self._explained():
            self._file.seek(0)
            self._file.truncate()

    def finish(self) -> None:
        """Write everything. The file has its temporary name until it is committed, and nothing can be added."""
        self._flush()
        with self._explained():
            if self._fsync:
                os.fsync(self._file.fileno())
            if self._mark is not None or sys.platform == "win32":
                self._file.close()  # otherwise the lock on the part is needed, until it has its final name

    def commit(self) -> None:
        """Complete the file, and rename it to its final name."""
        assert self._part is not None  # noqa: S101  # it is within its block
        if not self._file.closed:
            self.finish()
        with self._explained():
            take_place(self._part, self._place())  # checked again: another process may have created a file meanwhile
            self._part = None
            self._file.close()

    def __exit__(self, *_: object) -> None:
        if self._part is None:
            return
        if sys.platform != "win32":
            self._part.unlink(missing_ok=True)  # before its lock is released: the next part may have its name
        with suppress(OSError):  # a write that failed before may fail again
            self._file.close()
        if sys.platform == "win32":
            self._part.unlink(missing_ok=True)


def _part_of(place: Path, mark: str | None, *, private: bool) -> tuple[Path, IO[bytes]]:
    """Open a part for ``place``; one that a killed process left is reused.

    Without a mark its name is derived from that of the target, and a lock, which ends with the process, shows whether
    it is in use.
    """
    if mark is not None:
        part = place.parent / f".{place.name}.{mark}.part"
        return part, created(part, "wb", buffering=0, private=private)
    stem = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    for number in range(0 if sys.platform == "win32" else _MOST_PARTS):
        part = place.parent / f".together-batches-{stem}-{number}.part"
        try:
            file = _locked(part, private=private)
        except OSError:  # a file system without locks; an error that any name would cause is raised below
            break
        if file is not None:
            return part, file
    part = place.parent / f".together-batches-{stem}-{secrets.token_hex(8)}.part"
    return part, created(part, buffering=0, private=private)


def _locked(part: Path, *, private: bool) -> IO[bytes] | None:
    """Open a part, empty, under its lock; None if it is in use. A part that cannot be locked is removed."""
    import fcntl

    with ExitStack() as stack:
        try:
            file = stack.enter_context(created(part, "ab", buffering=0, private=private))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, its former owner may have renamed it to the final name.
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                file.truncate(0)
                stack.pop_all()
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    return None
