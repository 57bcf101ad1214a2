"""Where the requests of a command come from: a file, or standard input."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from together_batches.cli._exits import CommandError
from together_batches.cli._text import has, is_terminal, say

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["requests_in"]


def requests_in(path: str) -> str | BinaryIO:
    """The file that was named, or standard input where it is ``-``."""
    if path != "-":
        return path
    if not has(sys.stdin):
        message = "requests are to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        say("one request a line, as JSON; Ctrl-D ends them")
    return sys.stdin.buffer
