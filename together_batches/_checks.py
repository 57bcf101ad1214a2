"""Numbers that are passed in: what can be, and a sentence for what cannot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["positive", "refuse_renamed", "whole"]


def positive(name: str, value: float, *, zero: bool = False) -> float:
    """``value`` where it is a finite number above zero (or zero, if allowed); a :class:`UsageError` elsewhere."""
    given: object = value
    number = isinstance(given, int | float) and not isinstance(given, bool)
    # Compared and not math.isfinite, which fails on a whole number of 400 digits. NaN compares as False.
    if not number or not 0 <= value <= sys.float_info.max or (value == 0 and not zero):
        floor = "zero or more" if zero else "more than zero"
        message = f"{name} must be a number, {floor}; it is {value!r}"
        raise UsageError(message)
    return value


def whole(name: str, value: int) -> int:
    """``value`` where it is a whole number of 1 or more; a :class:`UsageError` elsewhere."""
    given: object = value
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        message = f"{name} must be a whole number, 1 or more; it is {value!r}"
        raise UsageError(message)
    return value


def refuse_renamed(function: str, given: Mapping[str, object], **renamed: str) -> None:
    """Raise a ``TypeError`` for keywords that a function does not take; of a renamed one it names the new name."""
    for old in given:
        hint = f": it is called {renamed[old]!r} now" if old in renamed else ""
        message = f"{function}() got an unexpected keyword argument {old!r}{hint}"
        raise TypeError(message)
