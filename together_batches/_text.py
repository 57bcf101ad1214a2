"""Text for people: counts with separators, and external text made printable."""

from __future__ import annotations


def format_count(value: int) -> str:
    """Return a count with its thousands separated: ``10 000``."""
    return f"{value:,}".replace(",", " ")


def count_of(value: int, noun: str) -> str:
    """Return a count with its noun: ``1 row``, ``10 000 rows``."""
    return f"{format_count(value)} {noun}{'' if value == 1 else 's'}"


def escape(text: str) -> str:
    """Return ``text`` on one line, with each character that is not printable as an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
