"""The files that a run writes, and errors of the system with advice for a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._local import os_errors
from together_batches._local.atomic_file import AtomicFile

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["explained", "output_file", "run_file"]

_ADVICE = "fix the cause, and run it again"


def explained(doing: str, path: Path) -> AbstractContextManager[None]:
    """Convert an OSError into a :class:`UsageError`; the run can continue once its cause is gone."""
    return os_errors.explained(doing, path, advice=_ADVICE)


def run_file(path: Path) -> AtomicFile:
    """Return a file in the directory of a run. Its temporary name is fixed: only one process works on a run."""
    return AtomicFile(path, follow_links=False, mark="new", fsync=True, hashed=True, advice=_ADVICE)


def output_file(path: Path, run_id: str) -> AtomicFile:
    """Return an output of a run, outside of its directory."""
    return AtomicFile(path, mark=run_id, fsync=True, hashed=True, advice=_ADVICE)
