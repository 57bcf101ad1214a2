"""Fields of the values: times, and fields that are decoded on first access."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Carried", "OnDemand", "carried", "in_utc", "time_of"]


def time_of(text: str) -> datetime | None:
    """Return the time in ISO 8601 text, in UTC; None for the zero time of a Go backend.

    A text without an offset is in UTC, as all times of the service are. Raises ValueError for an invalid time.
    """
    # Since Python 3.11 this accepts "Z", and 0 to 9 fractional digits (truncated to six).
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
    # The zero time cannot be converted to UTC if its offset is east of Greenwich.
    return time.astimezone(UTC) if time.year > 1 else None


class OnDemand:
    """A slot that may hold a function in place of its value; the function is called on first access.

    Decoding unknown fields takes as long as decoding all the rest of a job, a list may have 50,000 jobs, and few
    programs read these fields.
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
    """An object as its JSON ``text``, which is passed on unchanged, and decoded on first access."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    @abstractmethod
    def decode(self) -> Mapping[str, object]:
        """Return the value; raise :class:`APIResponseValidationError` if it cannot be decoded."""

    @abstractmethod
    def outline(self) -> Mapping[str, object]:
        """Return the members that contain texts and tokens; empty if they cannot be decoded."""


def carried(row: Any) -> bytes | None:
    """Return the original text of a row's body if it was not decoded, otherwise None."""
    body: object = row._body
    return body.text if isinstance(body, Carried) else None
