"""Errors of the operating system, as errors of the package."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def explained(doing: str, path: object, *, advice: str = "") -> Generator[None]:
    """Convert an OSError to a :class:`UsageError` that says what failed, for which path, why, and what to do."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: a zero byte in a path, or a closed file
        message = f"cannot {doing} {path}: {reason_of(error)}"
        raise UsageError(f"{message}; {advice}" if advice else message) from error


def reason_of(error: Exception) -> str:
    """Return why the system or Python refused a path, in words that no version of Python changes."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or directory"
    if isinstance(error, IsADirectoryError):
        return "it is a directory"
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, ValueError) and "embedded null" in reason:
        return "embedded null byte"
    return reason[:1].lower() + reason[1:] if reason[1:2].islower() else reason  # but "I/O error"
