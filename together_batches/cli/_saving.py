"""Files that a command writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from together_batches.cli._command import option
from together_batches.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeVar

    from together_batches._local.async_atomic_file import AsyncAtomicFile

    F = TypeVar("F", bound=Callable[..., object])

__all__ = ["ensure_writable", "open_atomic", "output_options", "refuse_dashes"]


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
