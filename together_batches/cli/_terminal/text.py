"""Text on standard streams: safe on any terminal, with one style for numbers and times."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches._text import count_of as count_of
from together_batches._text import escape as escape
from together_batches._text import format_count as format_count

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import TextIO

    from rich.console import Console

PROGRAM = "together-batches"


def print_err(text: str) -> None:
    """Print one line on standard error; a terminal gets it in lines that end between words."""
    if not is_open(sys.stderr):
        return
    if is_open(sys.stdout):
        with suppress(OSError):  # an error of standard output is raised by its next print
            sys.stdout.flush()  # so that lines are in order if both streams go to one place
    lines = folded(escape(text), terminal(sys.stderr).width)
    print("\n".join(lines), file=sys.stderr, flush=True)


def print_error(text: str) -> None:
    """Print an error as one line on standard error."""
    print_err(f"{PROGRAM}: error: {text}")


def folded(line: str, width: int, *, indent: str = "") -> list[str]:
    """Return a line in pieces of at most ``width``, but for words that are longer, which a terminal continues.

    ``indent`` comes before each piece but the first, after the indent of the line itself.
    """
    if len(line) <= width:
        return [line]
    from textwrap import wrap  # here, because a message seldom needs it

    indent += line[: len(line) - len(line.lstrip(" "))]
    pieces = wrap(line, max(width, 1), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return pieces or [""]


def as_json(value: object) -> str:
    """Return a value of the package, or plain data, as JSON on one line, in ASCII, which is safe on any terminal."""
    import json  # here, because help and completion need none

    if not isinstance(value, dict | str | int | float | list | tuple | None):
        value = plain(value)
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def plain(value: Any) -> dict[str, Any]:
    """Return a value of the package as plain data."""
    from together_batches._protocol.to_dict import to_dict

    return to_dict(value)


def in_ascii(line: bytes) -> str:
    """Return existing JSON as :func:`as_json` writes it: characters beyond ASCII become escapes."""
    import json

    text = line.decode()
    # Such characters occur only within strings, so each may be written as in a string.
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


def format_time(time: datetime | None) -> str:
    """Return a time in UTC, in whole seconds: ``2026-09-14T10:20:30Z``; ``-`` for None."""
    return "-" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def columns(facts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the cells of one line; a missing value is ``-``, so that every line has the same number."""
    return tuple(escape(fact or "-") for fact in facts)


def block(value: object, **more: str) -> str:
    """Return a value of the package as text, with one line for each field, and for ``more``.

    A value that is too wide for a terminal is on the next line, so that an id is not broken.
    """
    facts = {
        escape(name): escape(fact if isinstance(fact, str) else as_json(fact))
        for name, fact in (plain(value) | more).items()
    }
    widest = max(map(len, facts))
    room = terminal(sys.stdout).width - widest - len("  ")
    return "".join(
        f"{name:<{widest}}  {fact}\n" if len(fact) <= room else f"{name}\n{fact}\n" for name, fact in facts.items()
    )


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output in one write: forty thousand prints are slow on an unbuffered stream."""
    print("".join(f"{line}\n" for line in lines), end="")


def is_open(stream: TextIO | None) -> bool:
    """Return False if Python found a standard stream closed at its start."""
    return stream is not None


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether ``stream`` is a terminal."""
    return stream is not None and stream.isatty()


class Terminal(NamedTuple):
    """The width of a terminal, and what stands for text that is left out: its encoding may have no ellipsis."""

    width: int
    dots: str


_NO_WIDTH = 10_000
"""Width of what is no terminal: everything fits."""


def terminal(stream: TextIO | None) -> Terminal:
    """Return what a table has to know of the terminal of ``stream``; ``COLUMNS`` overrides its width."""
    encoding = "" if stream is None else (stream.encoding or "").lower()
    dots = "…" if encoding.startswith("utf") else "..."
    if stream is None or not is_terminal(stream):
        return Terminal(_NO_WIDTH, dots)
    width = os.environ.get("COLUMNS", "")
    if width.isdecimal() and int(width):
        return Terminal(int(width), dots)
    try:
        return Terminal(os.get_terminal_size(stream.fileno()).columns or 80, dots)
    except (OSError, ValueError):  # a terminal without a size
        return Terminal(80, dots)


def can_redraw(stream: TextIO | None) -> bool:
    """Return whether a line may be overwritten: on a capable terminal that is not a build server's."""
    capable = os.environ.get("TERM") not in {"dumb", "unknown"} and not os.environ.get("CI")
    return capable and is_terminal(stream)


def rich_console() -> Console:
    """Return a console for drawings on standard output, which styles no text of its own accord."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False)
