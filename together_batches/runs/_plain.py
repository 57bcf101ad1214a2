"""Attempts and shards as plain data, to be kept as JSON by the caller."""

from __future__ import annotations

import zlib
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs

from together_batches._fields import fields_of, read_integer, read_number, read_text, read_time, read_truth
from together_batches.errors import ValidationError
from together_batches.runs import rules
from together_batches.runs._records import VERSION, Attempt, Shard, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable

_OUTCOMES = rules.ANSWERED | rules.sent_again() | {rules.FAILED}
Record = TypeVar("Record", Attempt, Shard)


def attempt_from_dict(mapping: Mapping[str, object]) -> Attempt:
    """Return the attempt in a mapping that :func:`together_batches.to_dict` made.

    Keys that this version does not know are ignored. Raises :class:`ValidationError`, whose text names the field, if
    a field is missing or invalid, or if the mapping is of a newer version.
    """
    attempt = _record(Attempt, mapping)
    # A collected attempt without outcomes would count as one that leaves no row, and its rows would be lost.
    expected = attempt.rows if attempt.outcomes or attempt.collected_at else 0
    try:
        outcomes = rules.outcomes_of(attempt)
    except zlib.error:
        is_valid = False
    else:
        is_valid = len(outcomes) == expected and _OUTCOMES.issuperset(outcomes)
    if not is_valid:
        raise _invalid(Attempt, "outcomes", f"not the outcomes of {attempt.rows} rows")
    return attempt


def shard_from_dict(mapping: Mapping[str, object]) -> Shard:
    """Return the shard in a mapping that :func:`together_batches.to_dict` made, as :func:`attempt_from_dict` does."""
    shard = _record(Shard, mapping)
    try:
        unpacked(shard.skipped)
    except (zlib.error, ValueError):
        raise _invalid(Shard, "skipped", "not line numbers") from None
    try:
        are_copies = len(unpacked(shard.copies)) in {0, shard.rows}
    except (zlib.error, ValueError):
        are_copies = False
    if not are_copies:
        raise _invalid(Shard, "copies", f"not those of {shard.rows} rows")
    return shard


def _record(kind: type[Record], mapping: Mapping[str, object]) -> Record:
    given: object = mapping
    if not isinstance(given, Mapping):
        message = f"invalid {kind.__name__.lower()}: expected a mapping, not {type(given).__name__}"
        raise ValidationError(message)
    version = mapping.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _invalid(kind, "version", "not a version" if "version" in mapping else "missing")
    if version > VERSION:
        raise _invalid(
            kind, "version", f"{version}, and this version of together_batches reads {VERSION}: upgrade the package"
        )
    values: dict[str, Any] = {}
    for name, field in fields_of(kind).items():
        value = mapping.get(name)
        if value is None:
            if field.default is attrs.NOTHING:
                raise _invalid(kind, name, "missing")
            continue
        read, expected = _ORDINAL if name in _ORDINALS else _READERS[field.type]
        try:
            values[name] = read(value)
        except (TypeError, ValueError, OverflowError):
            raise _invalid(kind, name, f"not {expected}") from None
    return kind(**values)


def _invalid(kind: type[Attempt | Shard], field: str, problem: str) -> ValidationError:
    message = f"invalid {kind.__name__.lower()}: the field {field} is {problem}"
    return ValidationError(message)


def _wrong() -> NoReturn:
    raise ValueError


def _count(value: object) -> int:
    number = read_integer(value)
    return number if number >= 0 else _wrong()


def _ordinal(value: object) -> int:
    return _count(value) or _wrong()


def _moment(value: object) -> datetime:
    return read_time(value) or _wrong()


def _packed(value: object) -> bytes:
    return b64decode(read_text(value), validate=True)


_ORDINALS = frozenset({"shard", "number", "first_line"})
_ORDINAL: tuple[Callable[[object], object], str] = _ordinal, "a whole number, one or more"
_READERS: dict[Any, tuple[Callable[[object], object], str]] = {
    str: (read_text, "text"),
    bool: (read_truth, "true or false"),
    int: (_count, "a whole number, zero or more"),
    float: (read_number, "a number"),
    datetime: (_moment, "a time in ISO 8601"),
    bytes: (_packed, "base64"),
}
"""For each type of a field, the function that reads it, and what it expects."""
_READERS.update({kind | None: reader for kind, reader in _READERS.items()})
