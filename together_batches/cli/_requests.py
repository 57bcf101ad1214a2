"""Where the requests of a command come from: a file, or standard input and its like."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from together_batches.cli._exits import CommandError
from together_batches.cli._text import has, is_terminal, say

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import ExitStack
    from typing import BinaryIO

__all__ = ["requests_in", "spooled"]


def requests_in(path: str) -> str | BinaryIO:
    """The file that was named, or standard input if it is ``-``."""
    if path != "-":
        return path
    if not has(sys.stdin):
        message = "requests are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        say("one request a line, as JSON; Ctrl-D ends them")
    return sys.stdin.buffer


def spooled(path: str, stack: ExitStack) -> str | BinaryIO:
    """The file that was named; or a copy, with no name, of what comes from standard input, a pipe or a device.

    Called before the loop runs: its threads cannot be woken from a read that Ctrl-C is to end.
    """
    with _explained(path):
        source = requests_in(path)
        if isinstance(source, str):
            if not _is_stream(source):
                return source
            source = stack.enter_context(Path(source).open("rb"))  # noqa: SIM115
        copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(source, copy)
        copy.seek(0)
    return cast("BinaryIO", copy)


def _is_stream(path: str) -> bool:
    """Whether a path gives its bytes once, and may keep its reader waiting for them."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False  # the one that reads it says what is wrong
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _explained(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        what = "standard input" if path == "-" else path
        message = (
            f"cannot read {what}, or keep what comes from it in {tempfile.gettempdir()}: {error.strerror or error}"
        )
        raise CommandError(message) from error
