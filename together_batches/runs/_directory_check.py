"""Checks for the directory and files of a run; other files are neither written nor removed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from together_batches._local.replace import resolved
from together_batches._protocol.upload_marks import sendable
from together_batches.errors import UsageError
from together_batches.runs import _ledger, _lock
from together_batches.runs._files import explained

if TYPE_CHECKING:
    from pathlib import Path

SPOOL = "input.jsonl"
"""Name of the copy of the requests from an iterable, which cannot be iterated twice."""
INVALID = "invalid.jsonl"
"""Name of the file with the bad lines of the input, if they were set aside."""
SENT = "sent.jsonl"
"""Name of the file of the rows that are sent, if equal ones are sent once."""
ROWS = "rows.jsonl"
"""Name of the file that lists all rows in that case, and which of these is sent for each."""
PIECES = "pieces"
DOWNLOADS = "downloads"
UPLOADS = "uploads"
IDS = "ids"
JOINED = f"{DOWNLOADS}/00000-0.jsonl"
"""Name of a temporary file, removed like a download: the results of the rows that were sent."""

_JOURNALS = tuple(f"{_ledger.NAME}{end}" for end in ("-journal", "-wal", "-shm"))
_FILES = "|".join(map(re.escape, (SPOOL, INVALID, SENT, ROWS)))
_PART = re.compile(rf"\.({_FILES})\.new\.part|\.{re.escape(_ledger.NAME)}\.[0-9a-f]+\.part(-\w+)?")
_ID_FILE = re.compile(r"\d{5,}\.jsonl|\.\d{5,}\.jsonl\.new\.part")
_SCRATCH = re.compile(r"\d{5,}-\d+(-\d+)?\.jsonl|\.\d{5,}-\d+\.jsonl\.new\.part|\.together-batches-[0-9a-f-]+\.part")


def is_scratch(name: str) -> bool:
    """Return whether this is the name of a run's temporary file for uploads or downloads."""
    return _SCRATCH.fullmatch(name) is not None


def check_directory(directory: Path, given: Path | None) -> None:
    """Raise :class:`UsageError` if the directory is neither empty nor a run's, or if it would overwrite ``given``."""
    with explained("work in", directory):
        names = sorted(path.name for path in directory.iterdir())
        input_name = _name_within(directory, given)
    is_begun = _ledger.NAME in names
    reserved = {PIECES, DOWNLOADS, UPLOADS, IDS}
    if not is_begun:
        # After a run has begun, these are only read; and a copied input may be passed by its path.
        reserved |= {SPOOL, INVALID, SENT, ROWS}
    if input_name is not None and (input_name in reserved or _PART.fullmatch(input_name)):
        message = (
            f"the input {given} has the place of a file that the run in {directory} writes: move it, or name another "
            "directory for the run"
        )
        raise UsageError(message)
    if is_begun or _lock.has_run_marker(directory):
        return
    has_lock = _lock.NAME in names
    with explained("work in", directory):
        if has_lock and _lock.is_lock(directory) and any((directory / PIECES).glob("*")):
            return  # a run without its ledger: the next step reports how to resume
        foreign = next((name for name in names if not (has_lock and _is_ours(directory, name))), None)
    if foreign is not None:
        message = (
            f"{directory} is not the directory of a run, and is not empty (it holds {sendable(foreign)}): name a new "
            "or an empty directory for the run"
        )
        raise UsageError(message)


def _name_within(directory: Path, given: Path | None) -> str | None:
    """Return the first path component of a file below the directory; None for a file elsewhere."""
    if given is None:
        return None
    inside, path = resolved(directory), resolved(given)
    return path.relative_to(inside).parts[0] if inside in path.parents else None


def _is_ours(directory: Path, name: str) -> bool:
    """Return whether a run that was stopped before it had a ledger leaves this.

    It is recognised by its name if the lock has no marker: that of an older version, or cut by a full disk.
    """
    path = directory / name
    if path.is_symlink():
        return False
    if path.is_dir():
        return name == IDS and all(_ID_FILE.fullmatch(each.name) for each in path.iterdir())
    if name == _lock.NAME:
        return _lock.is_lock(directory)
    return path.is_file() and (name in {SPOOL, INVALID, SENT, ROWS, *_JOURNALS} or _PART.fullmatch(name) is not None)
