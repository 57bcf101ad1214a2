"""``together-batches split``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches import jsonl
from together_batches.cli._exits import Exit
from together_batches.cli._requests import requests_in
from together_batches.cli._saving import refuse_dashes
from together_batches.cli._signals import raised_by_signals
from together_batches.cli._text import as_json, escape, number, print_lines, say

if TYPE_CHECKING:
    from together_batches.cli._parser import Arguments

__all__ = ["split"]


def split(arguments: Arguments) -> Exit:
    """Cut a file of requests into files that the service takes, and print their paths."""
    refuse_dashes({"-o": arguments.directory}, "the files go to a directory")
    with raised_by_signals():
        paths = jsonl.split(
            requests_in(arguments.path),
            arguments.directory,
            endpoint=arguments.requests_endpoint,
            max_rows=arguments.max_rows or jsonl.MAX_ROWS,
            max_bytes=arguments.max_bytes or jsonl.MAX_BYTES,
        )
    if arguments.json:
        print_lines(as_json({"path": str(path), "bytes": path.stat().st_size}) for path in paths)
    else:
        print_lines(escape(str(path)) for path in paths)
        say(f"{number(len(paths))} {'file' if len(paths) == 1 else 'files'} in {arguments.directory}")
    return Exit.DONE
