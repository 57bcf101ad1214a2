"""The input of a command: a file, standard input, a pipe or a device."""

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
    """Return the path, or standard input for ``-``."""
    if path != "-":
        return path
    if not is_open(sys.stdin):
        message = "requests are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        print_err("one request a line, as JSON; Ctrl-D ends them")
    return sys.stdin.buffer


def spooled(path: str) -> str | BinaryIO:
    """Return the path; or, for standard input, a pipe or a device, an unnamed copy of its content.

    The copy is kept until the command ends. Call this before the event loop runs: Ctrl-C cannot interrupt a read in a
    thread of the loop.
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
    """Return whether a path can be read only once, and may block its reader."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False  # its reader reports the error
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
