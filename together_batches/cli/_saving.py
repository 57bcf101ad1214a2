"""Files that a command writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._disk import target_at
from together_batches.cli._exits import CommandError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["free", "save"]


def free(target: Path, *, force: bool) -> Path:
    """The target; where it may not be replaced that is told at once, and in the words of the command."""
    if target.is_file() and not force:
        message = f"{target} exists already; --force replaces it"
        raise CommandError(message)
    return target


async def save(target: Path, text: str, *, force: bool) -> None:
    """Write a file, which appears when it is whole."""
    async with target_at(target, replace=force) as file:
        await file.write(text.encode())
        await file.keep()
