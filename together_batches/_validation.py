"""Validation of numbers, paths and callbacks in arguments."""

from __future__ import annotations

import os
import sys
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from together_batches._text import short
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attrs import Attribute


def positive_number(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` if it is finite and above zero (or zero, if allowed); otherwise raise :class:`UsageError`."""
    given: object = value
    number = isinstance(given, int | float) and not isinstance(given, bool)
    # Comparisons and not math.isfinite, which raises for an int of 400 digits. NaN compares as False.
    if not number or not 0 <= value <= sys.float_info.max or (value == 0 and not zero):
        floor = "zero or more" if zero else "more than zero"
        message = f"{name} must be a number, {floor}; it is {short(value)}"
        raise UsageError(message)
    return value


def positive_int(name: str, value: int) -> int:
    """Return ``value`` if it is an integer of 1 or more; otherwise raise :class:`UsageError`."""
    given: object = value
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        message = f"{name} must be a whole number, 1 or more; it is {short(value)}"
        raise UsageError(message)
    return value


def validator(check: Callable[..., object], **options: bool) -> Callable[[object, Attribute[Any], Any], object]:
    """Return a validator of attrs that passes the name of a field, and its value, to a check of an argument."""
    return lambda _, field, value: check(field.name, value, **options)


def path_of(name: str, value: str | os.PathLike[str]) -> Path:
    """Return ``value`` as a path; raise :class:`UsageError` if no file can have it as its path."""
    given: object = value
    if not isinstance(given, str | os.PathLike):
        message = f"{name} is a path, not {type(given).__name__}: {short(given)}"
        raise UsageError(message)
    path = Path(given)
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        message = f"{name} is not a path that a file can have: {short(str(path))}"
        raise UsageError(message)
    return path


def is_plain(function: object) -> bool:
    """Return whether ``function`` can be called and need not be awaited."""
    if not callable(function):
        return False
    return not (iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)))  # noqa: B004


def check_callback(name: str, function: object) -> None:
    """Raise a ``TypeError`` if ``function`` is given and cannot be called without being awaited."""
    if function is not None and not is_plain(function):
        message = f"{name} must be a plain function: it is called, not awaited"
        raise TypeError(message)


def refuse_renamed(function: str, given: Mapping[str, object], **renamed: str) -> None:
    """Raise a ``TypeError`` for unexpected keywords; for a renamed one it contains the new name."""
    for old in given:
        hint = f": it is called {renamed[old]!r} now" if old in renamed else ""
        message = f"{function}() got an unexpected keyword argument {old!r}{hint}"
        raise TypeError(message)
