"""Files that a command writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from together_batches.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["free", "refuse_dashes", "save"]


def free(given: str, *, force: bool) -> Path:
    """The path of a file to write; :class:`CommandError`, in the words of the command, if it may not be replaced."""
    target = Path(given)
    if target.is_file() and not force:
        message = f"{target} exists already; --force replaces it"
        raise CommandError(message)
    return target


def refuse_dashes(named: Mapping[str, str | None], why: str) -> None:
    """Refuse ``-``, which means standard output, for options that name what is written."""
    for option, given in named.items():
        if given == "-":
            message = f"{option} - would be standard output, and {why}: name a path"
            raise CommandError(message)


async def save(target: Path, text: str, *, force: bool) -> None:
    """Write a file, which appears when it is whole."""
    from together_batches._disk import target_at

    async with target_at(target, replace=force) as file:
        await file.write(text.encode())
        await file.keep()
