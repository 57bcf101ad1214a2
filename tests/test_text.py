"""Text for people: counts, durations, and escaped texts from outside."""

from __future__ import annotations

import pytest

from together_batches._text import count_of, escape, format_count, format_usd, lasted


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1204.5, "$1 204.50"),
        (0.1, "$0.10"),
        (0.0026125, "$0.002612"),
        (0.05, "$0.05"),
        (1e-7, "less than $0.000001"),
    ],
)
def test_amounts(amount: float, text: str) -> None:
    """Amounts of money have cents, and small ones more digits."""
    assert format_usd(amount) == text


def test_counts() -> None:
    """Counts have thousands separators, and a singular for one."""
    assert format_count(9_998_001) == "9 998 001"
    assert (count_of(0, "row"), count_of(1, "row"), count_of(10_000, "row")) == ("0 rows", "1 row", "10 000 rows")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (4.2345, "4.23s"),
        (59.94, "59.9s"),
        (59.97, "1m"),
        (750, "12m30s"),
        (3_600, "1h"),
        (5_400, "1h30m"),
        (3 * 86_400 + 5, "3d"),
        (90_000, "1d1h"),
    ],
)
def test_lasted(seconds: float, words: str) -> None:
    """A duration is shown in its two largest units, as durations are typed."""
    assert lasted(seconds) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with ümlaut and 漢字", "plain, with ümlaut and 漢字"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\tand a tab\r", r"two\nlines\tand a tab\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("\udc80", r"\udc80"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    """Characters that control a terminal, break a line or change the text direction are escaped; letters are not."""
    assert expected == escape(text)
