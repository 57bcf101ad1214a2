"""Text for people: what goes to standard error, and values as they are read on a screen.

What comes from the service or from the input may hold anything, also what steers a terminal. It is escaped here,
and reaches the screen in no other way.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

from together_batches.cli._parser import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import TextIO

__all__ = [
    "as_json",
    "block",
    "complain",
    "draws_on",
    "escape",
    "has",
    "in_ascii",
    "is_terminal",
    "moment",
    "number",
    "print_lines",
    "say",
    "table",
]


def escape(text: str) -> str:
    """``text`` on one line and harmless: what is not printable becomes an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def say(text: str) -> None:
    """One line on standard error."""
    if has(sys.stderr):
        print(escape(text), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """What went wrong, in one line on standard error."""
    say(f"{PROGRAM}: error: {text}")


def as_json(value: object) -> str:
    """JSON on one line, in ASCII: complete and harmless on any terminal and in any encoding."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def in_ascii(line: bytes) -> str:
    """JSON that is there already, as :func:`as_json` writes it: letters beyond ASCII become escapes."""
    text = line.decode()
    # Such letters stand in nothing but texts, and so each may be written as a text is.
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


def number(value: int) -> str:
    """A count with its thousands apart: ``10 000``."""
    return f"{value:,}".replace(",", " ")


def moment(time: datetime | None) -> str:
    """A time in UTC, in whole seconds: ``2026-09-14T10:20:30Z``; ``-`` for none."""
    return "-" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Aligned lines; nothing is ever cut. (rich takes 20 s for a table of 40,000 jobs.)"""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def block(facts: Mapping[str, object]) -> str:
    """A line for each fact."""
    width = max(map(len, facts))
    return "".join(
        f"{escape(name):<{width}}  {escape(value if isinstance(value, str) else as_json(value))}\n"
        for name, value in facts.items()
    )


def print_lines(lines: Iterable[str]) -> None:
    """Lines on standard output, in one go: forty thousand prints take their time where it is not buffered."""
    print("".join(f"{line}\n" for line in lines), end="")


def has(stream: TextIO | None) -> bool:
    """False where Python found a standard stream closed when it started."""
    return stream is not None


def is_terminal(stream: TextIO | None) -> bool:
    """True where somebody may be looking at ``stream``."""
    return stream is not None and stream.isatty()


def draws_on(stream: TextIO | None) -> bool:
    """True where a line may be drawn over: a terminal that can, and not a build server's."""
    capable = os.environ.get("TERM") not in {"dumb", "unknown"} and not os.environ.get("CI")
    return capable and is_terminal(stream)
