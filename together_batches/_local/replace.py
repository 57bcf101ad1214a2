"""Files that take the place of others: through links, with the mode of the file before, and for their owner alone."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["created", "destination", "objection", "resolved", "take_place"]

_PRIVATE = 0o600
"""Answers and ledgers hold what people wrote: the mode of a new file, unless the umask is stricter."""


def destination(path: Path) -> Path:
    """The file that ``path`` leads to: a link stays a link, and what it names is replaced."""
    return resolved(path) if path.is_symlink() else path


def resolved(path: Path) -> Path:
    """The path without links; before Python 3.13 ``Path.resolve`` fails on links in a circle."""
    return Path(os.path.realpath(path))


def objection(path: Path) -> str | None:
    """Why a file may not take the place of what is at ``path``; None if that is a file, or nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        return "it is a directory; name the file to write in it"
    if not stat.S_ISREG(mode):
        return "it is not a file (a device or a pipe), and would be replaced by one; name another"
    return None


def created(path: Path, mode: str = "xb", *, buffering: int = -1) -> IO[bytes]:
    """Open a new file for writing; ``"wb"`` empties and ``"ab"`` keeps one that is there. A link is not followed."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    return open(path, mode, buffering, opener=lambda name, flags: os.open(name, flags | no_link, _PRIVATE))


def take_place(part: Path, target: Path) -> None:
    """Rename ``part`` to ``target``; it takes the mode, and if this process may, the owner of the file before."""
    with suppress(FileNotFoundError):
        existing = target.stat()
        # What cannot be set stays as it was made, which is stricter.
        with suppress(OSError):
            _take_owner(part, existing)
            part.chmod(stat.S_IMODE(existing.st_mode))
    part.replace(target)


def _take_owner(part: Path, existing: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    made = part.stat()
    if (made.st_uid, made.st_gid) != (existing.st_uid, existing.st_gid):
        # Only root gives files away; a group that this process is in can be set by anyone.
        with suppress(PermissionError):
            os.chown(part, -1, existing.st_gid)
            os.chown(part, existing.st_uid, -1)
