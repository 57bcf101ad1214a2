"""The exit code of each error."""

from __future__ import annotations

import pytest

from together_batches.cli._terminal.exits import Exit, code_of, code_of_many
from together_batches.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)

REFUSED = AuthenticationError("no", status=401)
ABSENT = NotFoundError("no", status=404)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (REFUSED, Exit.DENIED),
        (PermissionDeniedError("no", status=403), Exit.DENIED),
        (ABSENT, Exit.NOT_FOUND),
        (UsageError("no"), Exit.USAGE),
        (APIConnectionError("no"), Exit.FAILED),
        (APITimeoutError("no"), Exit.FAILED),
    ],
)
def test_one(error: BatchesError, expected: Exit) -> None:
    """The kind of an error determines the exit code, whether it ends the command or concerns its only job."""
    assert expected is code_of(error)
    assert expected is code_of_many([error], 1)


@pytest.mark.parametrize(
    ("errors", "total", "expected"),
    [
        ([], 3, Exit.DONE),
        ([None], 1, Exit.FAILED),
        ([ABSENT], 3, Exit.SOME_FAILED),
        ([ABSENT, ABSENT], 2, Exit.SOME_FAILED),
        ([REFUSED, REFUSED], 2, Exit.DENIED),
        ([REFUSED, REFUSED], 3, Exit.SOME_FAILED),
    ],
)
def test_many(errors: list[BatchesError | None], total: int, expected: Exit) -> None:
    """Any failure among many jobs is "some failed"; only a key that is refused for all has its own exit code."""
    assert expected is code_of_many(errors, total)
