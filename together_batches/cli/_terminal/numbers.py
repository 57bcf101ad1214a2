"""Numbers, durations and names as click parameter types: each function parses a text and returns the value."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", int, float)

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = timedelta(days=36_500)
_MOST = 10**18
"""The largest number, which C and SQLite can hold."""


def _number(kind: type[N], accepted: Callable[[N], bool], wanted: str) -> Callable[[str | N], N]:
    """Return a parser of accepted numbers; ``wanted`` describes them in its error."""

    def parse(text: str | N) -> N:
        try:
            number = kind(text)
        except ValueError:
            pass
        else:
            if abs(number) > _MOST:
                message = f"{text!r} is out of range"
                raise click.BadParameter(message)
            if accepted(number):  # no parser accepts NaN
                return number
        message = f"{text!r} is not {wanted}"
        raise click.BadParameter(message)

    return parse


above_zero = _number(float, lambda number: number > 0, "a number above zero")
"""Seconds, or requests a second."""
zero_or_above = _number(float, lambda number: number >= 0, "a number, zero or above")
"""Seconds."""
whole_number = _number(int, lambda _: True, "a whole number")
zero_or_more = _number(int, lambda number: number >= 0, "a whole number, 0 or more")
at_least_one = _number(int, lambda number: number >= 1, "a whole number, 1 or more")
port = _number(int, lambda number: 0 <= number <= 65_535, "a port; ports go from 0, any free one, up to 65535")


def delays(text: str) -> tuple[float, ...]:
    """Parse seconds: one number, or several separated by commas."""
    return tuple(map(zero_or_above, text.split(",")))


def duration(text: str) -> timedelta:
    """Parse a length of time such as ``90s``, ``15m``, ``2h``, ``3d`` or ``1h30m``.

    The unit is required, because a bare number may mean minutes to one reader and days to another.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text, re.ASCII):
        message = f"{text!r} is not a duration; write it as 90s, 15m, 2h, 3d or 1h30m"
        raise click.BadParameter(message)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if seconds > _LONGEST.total_seconds():
        message = f"{text!r} is longer than a hundred years"
        raise click.BadParameter(message)
    return timedelta(seconds=seconds)


PROFILE_NAMES = "it has 1 to 64 letters, digits, hyphens and underscores"


def is_profile_name(text: str) -> bool:
    """Return whether a profile can have this name."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def profile_name(text: str) -> str:
    """Parse the name of a profile. An invalid one is not repeated, because it may be a key."""
    if not is_profile_name(text):
        message = f"this is not the name of a profile: {PROFILE_NAMES}"
        raise click.BadParameter(message)
    return text
