"""Errors of the operating system are sentences that name the operation, the path, the cause and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from together_batches import UsageError
from together_batches._local.os_errors import explained


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "there is no such file or directory"),
        (IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), "it is a directory"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (ValueError("I/O operation on closed file"), "I/O operation on closed file"),
        (ValueError("lstat: embedded null character in path"), "embedded null byte"),
        (OSError("odd"), "odd"),
    ],
    ids=str,
)
def test_the_sentence_names_the_cause(error: Exception, cause: str) -> None:
    """The cause follows the operation and the path, and the advice follows the cause."""
    for advice, end in (("", ""), ("try again", "; try again")):
        with pytest.raises(UsageError) as caught, explained("read", Path("a"), advice=advice):
            raise error
        assert str(caught.value) == f"cannot read a: {cause}{end}"
        assert caught.value.__cause__ is error


def test_other_errors_pass() -> None:
    """Only errors of the system, and of what cannot be a path, are converted."""
    with pytest.raises(KeyError), explained("read", "a"):
        raise KeyError
