"""Numbers and durations as click parameter types: each function parses a text and returns the value."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import NoReturn

import click

__all__ = [
    "above_zero",
    "at_least_one",
    "delays",
    "duration",
    "port",
    "whole_number",
    "zero_or_above",
    "zero_or_more",
]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = timedelta(days=36_500)


def above_zero(text: str) -> float:
    """Parse a finite number above zero: seconds, or requests a second."""
    number = _number(text)
    if not number > 0:
        _refuse(text, "a number above zero")
    return number


def zero_or_above(text: str | float) -> float:
    """Parse a finite number, zero or above: seconds."""
    number = _number(text)
    if not number >= 0:
        _refuse(text, "a number, zero or above")
    return number


def delays(text: str) -> tuple[float, ...]:
    """Parse seconds: one number, or several separated by commas."""
    return tuple(map(zero_or_above, text.split(",")))


def whole_number(text: str | int) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        _refuse(text, "a whole number")


def zero_or_more(text: str | int) -> int:
    """Parse a whole number, 0 or more."""
    return _at_least(0, text)


def at_least_one(text: str | int) -> int:
    """Parse a whole number, 1 or more."""
    return _at_least(1, text)


def port(text: str | int) -> int:
    """Parse a TCP port, or 0 for any free one."""
    number = zero_or_more(text)
    if number > 65_535:
        _refuse(text, "a port; ports go up to 65535")
    return number


def duration(text: str) -> timedelta:
    """Parse a length of time such as ``90s``, ``15m``, ``2h``, ``3d`` or ``1h30m``.

    The unit is required, because a bare number may mean minutes to one reader and days to another.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text, re.ASCII):
        _refuse(text, "a duration; write it as 90s, 15m, 2h, 3d or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if seconds > _LONGEST.total_seconds():
        message = f"{text!r} is longer than a hundred years"
        raise click.BadParameter(message)
    return timedelta(seconds=seconds)


def _number(text: str | float) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _at_least(least: int, text: str | int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        _refuse(text, f"a whole number, {least} or more")
    return number


def _refuse(text: object, wanted: str) -> NoReturn:
    message = f"{text!r} is not {wanted}"
    raise click.BadParameter(message)
