"""Locks of the operating system on open files: they end with the process, however that ends."""

from __future__ import annotations

import errno
import sys
from typing import IO

HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""Errors of :func:`take` for a lock that another process holds."""
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of :func:`take` on a file system without locks."""

if sys.platform == "win32":
    import msvcrt

    # Far beyond the text, which other processes read: on Windows a locked range cannot be read.
    _PLACE = 1 << 30

    def take(file: IO[bytes], *, shared: bool = False) -> None:
        """Lock an open file, or raise an OSError at once."""
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def give(file: IO[bytes]) -> None:
        """Release the lock of an open file."""
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def take(file: IO[bytes], *, shared: bool = False) -> None:
        """Lock an open file, or raise an OSError at once."""
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def give(file: IO[bytes]) -> None:
        """Release the lock of an open file."""
        fcntl.flock(file, fcntl.LOCK_UN)
