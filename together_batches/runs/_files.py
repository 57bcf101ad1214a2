"""The files that a run writes, and errors of the system with advice for a run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from together_batches._local import os_errors
from together_batches._local.atomic_file import AtomicFile
from together_batches._protocol.result_rows import with_texts
from together_batches.errors import UsageError
from together_batches.jsonl._sources import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from together_batches.jsonl._sources import Bytes

_ADVICE = "fix the cause, and run it again"


def explained(doing: str, path: Path) -> AbstractContextManager[None]:
    """Convert an OSError into a :class:`UsageError`; the run can continue once its cause is gone."""
    return os_errors.explained(doing, path, advice=_ADVICE)


def make_directory(path: Path) -> None:
    """Create a directory in that of a run, unless it exists; a link is refused, because its target is the user's."""
    with explained("work in", path.parent):
        if path.is_symlink():
            message = f"cannot work in {path.parent}: {path} is a link; put a directory in its place"
            raise UsageError(message)
        path.mkdir(exist_ok=True)


def run_file(path: Path) -> AtomicFile:
    """Return a file in the directory of a run. Its temporary name is fixed: only one process works on a run."""
    return AtomicFile(path, follow_links=False, mark="new", fsync=True, hashed=True, advice=_ADVICE)


def scratch_file(path: Path) -> AtomicFile:
    """Return a file in the directory of a run that can be made again: the content may be torn by a power loss."""
    return AtomicFile(path, follow_links=False, mark="new", hashed=True, advice=_ADVICE)


class WithTexts:
    """An output, which may be written in blocks that end within a line, and gets the text of each answer."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self._held = bytearray()

    def write(self, content: bytes) -> None:
        """Append bytes."""
        self._held += content
        end = content.rfind(b"\n") + 1
        if end:
            end += len(self._held) - len(content)
            self._file.write(with_texts(bytes(self._held[:end])))
            del self._held[:end]

    def finish(self) -> None:
        """Write everything."""
        self._file.finish()


def output_file(path: Path, run_id: str, *, hashed: bool) -> AtomicFile:
    """Return an output of a run, outside of its directory."""
    return AtomicFile(path, mark=run_id, fsync=True, hashed=hashed, advice=_ADVICE)


def sha256_of(source: Bytes, raise_if_cancelled: Callable[[], None]) -> tuple[int, str]:
    """Return the size and hash of a file."""
    digest = hashlib.sha256()
    size = 0
    for block in blocks_of(source):
        raise_if_cancelled()
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()
