"""Fields of the values: a time, and those that are read when they are wanted."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Carried", "OnDemand", "carried", "in_utc", "time_of"]


def time_of(text: str) -> datetime | None:
    """The time in ISO 8601 text, in UTC; None for the zero time of a Go backend. ValueError if it is no time.

    A text without an offset is in UTC, as all times of the service are.
    """
    # Since Python 3.11 this takes "Z", and 0 to 9 fractional digits (it cuts after six).
    time = datetime.fromisoformat(text)
    if time.tzinfo is not UTC:
        return in_utc(time if time.tzinfo else time.replace(tzinfo=UTC))
    return time if time.year > 1 else None


def in_utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if time.tzinfo is None:
        message = f"times are aware: {time.isoformat()} names no time zone"
        raise ValueError(message)
    # The zero time has no other in UTC if it stands east of Greenwich.
    return time.astimezone(UTC) if time.year > 1 else None


class OnDemand:
    """The slot of a field that may hold a function in place of its value: it is called when the value is wanted.

    Reading what is unknown takes as long as reading all the rest of a job, a list has 50,000 jobs, and few programs
    look at it.
    """

    def __init__(self, slot: Any) -> None:
        self.slot = slot

    def __get__(self, instance: object, owner: type | None = None) -> object:
        if instance is None:
            return self
        value: object = self.slot.__get__(instance, owner)
        if callable(value):
            value = value()
            self.slot.__set__(instance, value)
        return value

    def __set__(self, instance: object, value: object) -> None:
        self.slot.__set__(instance, value)


class Carried:
    """An object as its ``text`` in JSON, which is carried as it is, and decoded when its value is wanted."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    @abstractmethod
    def decode(self) -> Mapping[str, object]:
        """The value; :class:`APIResponseValidationError` if nothing reads it."""

    @abstractmethod
    def outline(self) -> Mapping[str, object]:
        """The members that texts and tokens are in; none if nothing reads it."""


def carried(row: Any) -> bytes | None:
    """The text of a row's body that was not decoded, and so is as it came; None if it was."""
    body: object = row._body
    return body.text if isinstance(body, Carried) else None
