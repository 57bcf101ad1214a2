"""Numbers and durations as they are typed. Each function takes the text and raises what argparse reports."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from datetime import timedelta

__all__ = ["above_zero", "at_least_one", "delays", "duration", "port", "zero_or_above", "zero_or_more"]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = timedelta(days=36_500)


def above_zero(text: str) -> float:
    """A finite number above zero: seconds, or requests a second."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        message = f"{text!r} is not a number above zero"
        raise ArgumentTypeError(message)
    return number


def zero_or_above(text: str) -> float:
    """A finite number, zero or above: seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        message = f"{text!r} is not a number, zero or above"
        raise ArgumentTypeError(message)
    return number


def delays(text: str) -> tuple[float, ...]:
    """Seconds, one number or several with commas between them."""
    return tuple(map(zero_or_above, text.split(",")))


def zero_or_more(text: str) -> int:
    """A whole number, 0 or more."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        message = f"{text!r} is not a whole number, 0 or more"
        raise ArgumentTypeError(message)
    return number


def at_least_one(text: str) -> int:
    """A whole number, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        message = f"{text!r} is not a whole number, 1 or more"
        raise ArgumentTypeError(message)
    return number


def port(text: str) -> int:
    """A TCP port, or 0 for any that is free."""
    number = zero_or_more(text)
    if number > 65_535:
        message = f"{text!r} is no port; ports go up to 65535"
        raise ArgumentTypeError(message)
    return number


def duration(text: str) -> timedelta:
    """A length of time such as ``90s``, ``15m``, ``2h``, ``3d`` or ``1h30m``.

    The unit is required: a bare number would be taken for minutes by one and for days by another.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text, re.ASCII):
        message = f"{text!r} is not a duration; write it as 90s, 15m, 2h, 3d or 1h30m"
        raise ArgumentTypeError(message)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if seconds > _LONGEST.total_seconds():
        message = f"{text!r} is longer than a hundred years"
        raise ArgumentTypeError(message)
    return timedelta(seconds=seconds)
