"""Text for people: counts with separators, durations, values of bounded length, and external text made printable."""

from __future__ import annotations

KEPT_OF_A_TEXT = 200
"""Characters of a value in a message."""
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def format_count(value: int) -> str:
    """Return a count with its thousands separated: ``10 000``."""
    return f"{value:,}".replace(",", " ")


def count_of(value: int, noun: str) -> str:
    """Return a count with its noun: ``1 row``, ``10 000 rows``."""
    return f"{format_count(value)} {noun}{'' if value == 1 else 's'}"


def lasted(seconds: float) -> str:
    """Format a duration in its two largest units: ``4.2s``, ``12m30s``, ``1h30m``, ``3d``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.3g}s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        many, left = divmod(left, size)
        if many or parts:
            parts.append(f"{many}{unit}" if many else "")
    return "".join(parts[:2])


def format_usd(value: float) -> str:
    """Return an amount of US dollars: ``$1 204.50``, and with more digits below ten cents."""
    if value >= 0.1 or not value:
        return f"${value:,.2f}".replace(",", " ")
    return f"${value:.6f}".rstrip("0") if value >= 1e-6 else "less than $0.000001"


def escape(text: str) -> str:
    """Return ``text`` on one line, with each character that is not printable as an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def short(value: object) -> str:
    """Return the ``repr`` of any value, of bounded length."""
    text = repr(value[: KEPT_OF_A_TEXT + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= KEPT_OF_A_TEXT else text[:KEPT_OF_A_TEXT] + "…"


def cell_width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    import unicodedata  # here, because help needs none

    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
