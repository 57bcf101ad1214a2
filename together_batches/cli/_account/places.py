"""The directories of the command's own files, for its user alone, and the lock for changes in them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from together_batches._local.locks import HELD, NO_LOCKS, take
from together_batches._local.os_errors import explained
from together_batches._local.replace import created
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

_LOCK = "lock"
_PAUSE_SECONDS = 0.02
_MOST_TRIES = 250


def config_directory() -> Path:
    """Return the directory of our settings; it need not exist. Raise :class:`UsageError` if the user has no home."""
    from platformdirs import user_config_path  # here, because few commands need it

    return _in_home(user_config_path("together-batches", appauthor=False))


def data_directory() -> Path:
    """Return the directory of what the command keeps, likewise."""
    from platformdirs import user_data_path

    return _in_home(user_data_path("together-batches", appauthor=False))


def _in_home(path: Path) -> Path:
    if not path.is_absolute():  # a home that is unknown, or a relative XDG_*_HOME, which old versions accept
        message = "the home directory is unknown: set HOME to its path"
        raise UsageError(message)
    return path


@contextmanager
def locked(directory: Path, *, sleep: Callable[[float], None] = time.sleep) -> Generator[None]:
    """Create the directory and hold its lock, so that of several processes each changes its files in turn.

    The lock is meant for the moment of a change: one that another process holds for seconds raises
    :class:`UsageError`, and so does what cannot be created.
    """
    with explained("write in", directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = created(directory / _LOCK, "ab")
    with lock:  # whose end releases it
        with explained("write in", directory):
            _take_soon(lock, sleep)
        yield


def _take_soon(lock: IO[bytes], sleep: Callable[[float], None]) -> None:
    for _ in range(_MOST_TRIES):
        try:
            take(lock)
        except OSError as error:
            if error.errno in HELD:
                sleep(_PAUSE_SECONDS)
                continue
            if error.errno not in NO_LOCKS:
                raise
        return
    message = f"another process holds {lock.name}; try again when it has ended"
    raise UsageError(message)
