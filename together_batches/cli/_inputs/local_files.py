"""Files of this machine: the input of a command, also from standard input, a pipe or a device, and its output."""

from __future__ import annotations

import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from together_batches._local.os_errors import explained
from together_batches.cli._terminal.commands import argument, option
from together_batches.cli._terminal.exits import CommandError
from together_batches.cli._terminal.text import is_open, is_terminal, print_err

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import BinaryIO, TypeVar

    from together_batches._local.async_atomic_file import AsyncAtomicFile

    F = TypeVar("F", bound=Callable[..., object])


requests_argument = argument(
    "source", "FILE", "a file of requests; or -, to read them from standard input", complete="file"
)


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

    source = requests_in(path)
    if isinstance(source, str) and not _is_stream(source):
        return source
    try:
        copy = click.get_current_context().with_resource(tempfile.TemporaryFile())  # noqa: SIM115  # closed with the command
        with Path(source).open("rb") if isinstance(source, str) else nullcontext(source) as stream:
            shutil.copyfileobj(stream, copy)
        copy.seek(0)
    except OSError as error:
        what = "standard input" if path == "-" else path
        message = (
            f"cannot read {what}, or keep what comes from it in {tempfile.gettempdir()}: {error.strerror or error}"
        )
        raise CommandError(message) from error
    return cast("BinaryIO", copy)


schema_option = option(
    "--schema FILE", "a JSON schema that answers must fit, as a file of JSON (extra: schema)", complete="file"
)


def schema_in(path: str | None) -> dict[str, object] | None:
    """Return the JSON schema in a file; None without a path."""
    if path is None:
        return None
    from together_batches._protocol import json_codec

    try:
        found = json_codec.decode(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        message = f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        raise CommandError(message) from error
    except json_codec.WireError as error:
        message = f"{path} is not JSON: {error.reason}"
        raise CommandError(message) from error
    if not isinstance(found, dict):
        message = f"{path} is {json_codec.kind(found)}, and a JSON schema is an object"
        raise CommandError(message)
    return cast("dict[str, object]", found)


def _is_stream(path: str) -> bool:
    """Return whether a path can be read only once, and may block its reader."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False  # its reader reports the error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def output_options(function: F) -> F:
    """Add ``-o`` and ``--overwrite``, for a command that writes to a file or to standard output."""
    output = option("-o, --output FILE", "write to this file; otherwise to standard output", complete="file")
    return output(option("--overwrite", "replace the file if it exists")(function))


def ensure_writable(given: str, *, overwrite: bool) -> Path:
    """Return the path of a file to write; raise :class:`CommandError` if it may not be replaced."""
    target = Path(given)
    if target.is_file() and not overwrite:
        message = f"{target} exists already; --overwrite replaces it"
        raise CommandError(message)
    return target


def refuse_dashes(why: str, **given: str | None) -> None:
    """Refuse ``-``, which means standard output, for options that name an output."""
    for name, path in given.items():
        if path == "-":
            dashes = "-" if len(name) == 1 else "--"
            message = f"{dashes}{name.replace('_', '-')} - would be standard output, and {why}: name a path"
            raise CommandError(message)


def open_atomic(target: Path, *, overwrite: bool) -> AbstractAsyncContextManager[AsyncAtomicFile]:
    """Open a file that appears under its name when it is complete."""
    from together_batches._local import async_atomic_file

    return async_atomic_file.open_atomic(target, replace=overwrite)


def has_run(directory: Path) -> bool:
    """Return whether a directory contains a run; raise :class:`UsageError` if that cannot be determined."""
    from together_batches.runs._ledger import NAME

    with explained("read", directory):
        try:
            return stat.S_ISREG((directory / NAME).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def existing_run(directory: str | Path) -> Path:
    """Return a directory that contains a run; raise :class:`CommandError` if it contains none."""
    path = Path(directory)
    if not has_run(path):
        what = "there is no run in" if path.is_dir() else "there is no directory"
        message = f"{what} {path}; name that of a run, such as answers.jsonl.run"
        raise CommandError(message)
    return path
