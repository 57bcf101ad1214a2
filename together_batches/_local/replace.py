"""Replacement of files: through links, with the mode of the existing file, and private by default."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from together_batches.errors import UsageError

_PRIVATE = 0o600
"""The mode of a new file, unless the umask is stricter, because results and ledgers contain private text."""
_USUAL = 0o666
"""The mode of other new files, without what the umask takes away."""


def destination(path: Path) -> Path:
    """Return the file that ``path`` leads to: a link is kept, and its target is replaced."""
    return resolved(path) if path.is_symlink() else path


def resolved(path: Path) -> Path:
    """Return the path without links; before Python 3.13 ``Path.resolve`` fails on circular links."""
    return Path(os.path.realpath(path))


def check_replaceable(path: Path, *, overwrite: bool = True) -> None:
    """Raise :class:`UsageError` for an object that may not be replaced: no file or, without ``overwrite``, a file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        message = f"cannot write {path}: it is a directory; name the file to write in it"
        raise UsageError(message)
    if not stat.S_ISREG(mode):
        message = (
            f"cannot write {path}: it is not a file (a device or a pipe), and would be replaced by one; name another"
        )
        raise UsageError(message)
    if not overwrite:
        raise exists_already(path)


def exists_already(path: Path) -> UsageError:
    """Return the error for a file that may not be replaced."""
    return UsageError(f"{path} exists already, and is left alone; overwrite=True replaces it")


def created(path: Path, mode: str = "xb", *, buffering: int = -1, private: bool = True) -> IO[bytes]:
    """Open a new file for writing; ``"wb"`` empties and ``"ab"`` keeps an existing one. A link is not followed."""
    no_link, permissions = getattr(os, "O_NOFOLLOW", 0), _PRIVATE if private else _USUAL
    return open(path, mode, buffering, opener=lambda name, flags: os.open(name, flags | no_link, permissions))


def take_place(part: Path, target: Path) -> None:
    """Rename ``part`` to ``target`` with the mode and, if permitted, the owner of the existing file."""
    with suppress(FileNotFoundError):
        existing = target.stat()
        # A mode that cannot be set stays as created, which is stricter.
        with suppress(OSError):
            _take_owner(part, existing)
            part.chmod(stat.S_IMODE(existing.st_mode))
    part.replace(target)


def _take_owner(part: Path, existing: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    made = part.stat()
    if (made.st_uid, made.st_gid) != (existing.st_uid, existing.st_gid):
        # Only root may change the owner; any user may set a group that this process belongs to.
        with suppress(PermissionError):
            os.chown(part, -1, existing.st_gid)
            os.chown(part, existing.st_uid, -1)
