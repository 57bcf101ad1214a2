"""Where the requests of a command come from: a file, or standard input and its like."""

from __future__ import annotations

import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from together_batches.cli._exits import CommandError
from together_batches.cli._text import is_open, is_terminal, print_err

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import BinaryIO

__all__ = ["requests_in", "spooled"]


def requests_in(path: str) -> str | BinaryIO:
    """The file of this name, or standard input for ``-``."""
    if path != "-":
        return path
    if not is_open(sys.stdin):
        message = "requests are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        print_err("one request a line, as JSON; Ctrl-D ends them")
    return sys.stdin.buffer


def spooled(path: str) -> str | BinaryIO:
    """The file of this name; or an unnamed copy of what comes from standard input, a pipe or a device.

    It is kept until the command ends. Called before the loop runs: a thread of the loop cannot be woken from a read
    that Ctrl-C is to end.
    """
    import shutil
    import tempfile

    context = click.get_current_context()
    with _explained(path):
        source = requests_in(path)
        if isinstance(source, str):
            if not _is_stream(source):
                return source
            source = context.with_resource(Path(source).open("rb"))  # noqa: SIM115
        copy = context.with_resource(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(source, copy)
        copy.seek(0)
    return cast("BinaryIO", copy)


def _is_stream(path: str) -> bool:
    """Whether a path gives its bytes once, and may keep its reader waiting for them."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False  # its reader says what is wrong
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _explained(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        import tempfile

        what = "standard input" if path == "-" else path
        message = (
            f"cannot read {what}, or keep what comes from it in {tempfile.gettempdir()}: {error.strerror or error}"
        )
        raise CommandError(message) from error
