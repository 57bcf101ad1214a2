"""Exit codes, and the errors that lead to them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from together_batches.errors import (
    AuthenticationError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Exit(enum.IntEnum):
    """Exit codes, as the reference lists them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    SOME_FAILED = 5
    TIMED_OUT = 6
    ENDED_BADLY = 7
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "failed, or declined at a prompt",
    Exit.USAGE: "an invalid option, argument, id or URL, or no confirmation",
    Exit.DENIED: "the key was refused, or there is none",
    Exit.NOT_FOUND: "there is no such job, file, model or label",
    Exit.SOME_FAILED: "of several jobs or rows, some or all failed",
    Exit.TIMED_OUT: "the time limit of --timeout was reached",
    Exit.ENDED_BADLY: "a job ended badly: it failed, expired or was cancelled",
    Exit.INTERRUPTED: "interrupted, by Ctrl-C, SIGTERM or SIGHUP",
}
"""The exit codes, as help explains them."""


class CommandError(Exception):
    """An error that ends the command with this sentence and this exit code."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):  # noqa: N818  # not an error
    """Raised if the command is ended by Ctrl-C, SIGTERM or SIGHUP; the message reports its progress.

    Not a ``KeyboardInterrupt``, because a task must not raise one.
    """

    def __init__(self, state: str = "") -> None:
        super().__init__(f"interrupted: {state}" if state else "interrupted")


def code_of(error: BatchesError) -> Exit:
    """Return the exit code of an error that ended a command, or of its only job."""
    if isinstance(error, (AuthenticationError, PermissionDeniedError)):
        return Exit.DENIED
    if isinstance(error, NotFoundError):
        return Exit.NOT_FOUND
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.FAILED


def code_of_many(errors: Sequence[BatchesError | None], total: int) -> Exit:
    """Return the exit code for these errors of ``total`` jobs; None is a failure without an error of its own."""
    if not errors:
        return Exit.DONE
    if total == 1:
        return Exit.FAILED if errors[0] is None else code_of(errors[0])
    if len(errors) == total and all(isinstance(error, AuthenticationError) for error in errors):
        return Exit.DENIED
    return Exit.SOME_FAILED
