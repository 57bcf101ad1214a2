"""The values of the service: frozen, slotted, hashable, without JSON and without I/O.

Fields that the service omits, and its various null values (null, an empty string, the zero time of its backend), are
``None`` here, however a value was created. The rows of a job are in :mod:`together_batches.rows`.
"""

from __future__ import annotations

import enum
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import attrs

from together_batches import _fields, _validation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from together_batches.rows import Usage

__all__ = ["BatchJob", "BatchJobStatus", "FileObject", "Price", "Response"]

_TERMINAL = frozenset({"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"})
_OTHER_SPELLINGS = {"CANCELED": "CANCELLED", "CANCELLING": "CANCELING"}
"""Other spellings of a status. Neither was seen on the wire. But the service spells one of the two words with one L
and the other with two, and a wait for a job that is CANCELED would never end."""


class BatchJobStatus(enum.StrEnum):
    """The status of a job. ``str(status)`` is the text on the wire.

    A status that this version does not know keeps its text and is not terminal: ``BatchJobStatus("PAUSED")`` is valid
    and equals ``"PAUSED"``. A known one is recognised in either letter case, with surrounding white space, and with
    the other number of Ls: ``BatchJobStatus("canceled")`` is ``CANCELLED``. ``CANCELING`` (one L) means that a cancel
    was accepted and the job is draining; the service sends it, although its reference does not list it. See
    https://docs.together.ai/docs/inference/batch/manage.
    """

    VALIDATING = "VALIDATING"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELING = "CANCELING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"

    @classmethod
    def _missing_(cls, value: object) -> BatchJobStatus | None:
        if not isinstance(value, str):
            return None
        text = value.strip().upper().replace(" ", "_")
        known = cls.__members__.get(_OTHER_SPELLINGS.get(text, text))
        if known is not None:
            return known
        # An open enum: a member, except that the class does not list it. Not stored, so that arbitrary values from
        # the service cannot use up memory; equal and hashed by its text like any other member.
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_terminal(self) -> bool:
        """True if the job will not change any more."""
        return self._value_ in _TERMINAL

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        return _fields.pydantic_schema(cls, handler)


if TYPE_CHECKING:
    _Status = BatchJobStatus
else:
    # Every job from the service has a status; only one that is constructed by hand, or came malformed, has None.
    # Code that reads jobs need not check for it.
    _Status = BatchJobStatus | None


def _status(value: BatchJobStatus | str | None) -> _Status:
    status = value if isinstance(value, BatchJobStatus) else BatchJobStatus(value or "")
    return cast("_Status", status or None)


def _percent(value: float | None) -> float | None:
    return None if value is None or value != value else float(min(max(value, 0), 100))


def _text(value: str | None) -> str | None:
    return value or None


_CONVERTER_BY_TYPE: dict[object, Callable[[Any], object]] = {
    "str | None": _text,
    "float | None": _percent,
    "datetime | None": _fields.in_utc,
}
"""For each type, the converter of its various null values to None."""


def _normalised(_: type, fields: Sequence[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Convert each field by its type, unless it has a converter of its own."""
    changed: list[attrs.Attribute[Any]] = []
    for field in fields:
        if field.converter is None and field.type in _CONVERTER_BY_TYPE:  # pyright: ignore[reportUnknownMemberType]
            field = field.evolve(converter=_CONVERTER_BY_TYPE[field.type])
        changed.append(field)
    return changed


@attrs.frozen(kw_only=True, field_transformer=_normalised)
class BatchJob(_fields.ReadLater, _fields.Plain):
    """A batch job as the service last described it.

    The fields are the service's own (https://docs.together.ai/reference/batch-get). ``status`` is None only if the
    service sent none. Times are aware and in UTC, ``progress`` is a percentage from 0 to 100. ``warning`` is the
    advice in the response to a create. ``extra`` is a dict of the fields that this version does not know, and of
    values that are invalid for their field (the field itself is then None); it is not part of the hash.
    """

    id: str
    status: _Status = attrs.field(default=None, converter=_status)
    progress: float | None = None
    endpoint: str | None = None
    model_id: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error: str | None = None
    file_size_bytes: int | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    job_deadline: datetime | None = None
    user_id: str | None = None
    warning: str | None = None
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)

    def __attrs_post_init__(self) -> None:
        known = _FIELDS.keys() & self.extra.keys()
        if wrong := sorted(name for name in known if _fits(name, self.extra[name])):
            message = f"extra holds only what BatchJob has no field for, and it has these: {', '.join(wrong)}"
            raise ValueError(message)
        if over := {name for name in known if getattr(self, name) is not None}:
            # The field has a valid value now, so its invalid one is of no more use.
            object.__setattr__(self, "extra", {name: self.extra[name] for name in self.extra if name not in over})

    def __to_dict__(self) -> dict[str, Any]:
        return {**_fields.present(self, *_FIELDS), **self.extra}

    @property
    def is_terminal(self) -> bool:
        """True if the job will not change any more; False also if the service sent no status."""
        return bool(self.status) and self.status.is_terminal

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return the value as IPython shows it."""
        from together_batches._display import values

        return values.job(self)


_FIELDS = {name: field for name, field in _fields.fields_of(BatchJob).items() if name != "extra"}


def _fits(name: str, value: object) -> bool:
    """Return whether a field can hold the value that the service sent for it; null values fit any field."""
    if value is None or value == "":
        return True
    try:
        _fields.reader_of(_FIELDS[name])(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_price(_: object, field: attrs.Attribute[float], value: float) -> None:
    _validation.positive_number(field.name, value, zero=True)


@attrs.frozen(kw_only=True)
class Response(_fields.Plain):
    """The unprocessed response to ``request``.

    ``headers`` have lower-case names, ``body`` is the bytes after transfer and content decoding, ``request_id`` is
    the service's id of the request, or None.
    """

    status: int
    # Neither belongs in a log line, because headers and bodies may contain private data.
    headers: Mapping[str, str] = attrs.field(repr=False, hash=False)
    body: bytes = attrs.field(repr=False)
    request_id: str | None = None

    def __to_dict__(self) -> dict[str, Any]:
        try:
            body = {"body": self.body.decode()}
        except UnicodeDecodeError:
            body = {"body_base64": b64encode(self.body).decode()}
        return {"status": self.status, "headers": dict(self.headers), **body, **_fields.present(self, "request_id")}


@attrs.frozen
class Price(_fields.Plain):
    """Price of a model in USD per million tokens, of requests (``input``) and answers (``output``)."""

    input: float = attrs.field(validator=_is_price)
    output: float = attrs.field(validator=_is_price)

    def of(self, usage: Usage) -> float:
        """Return what this usage costs, in USD."""
        return (usage.prompt_tokens * self.input + usage.completion_tokens * self.output) / 1_000_000


@attrs.frozen(kw_only=True)
class FileObject(_fields.Plain):
    """A file of the account: an uploaded input, or the output or errors of a job.

    See https://docs.together.ai/reference/get-files-id. ``created_at`` is aware and in UTC. ``filename`` is not
    unique (every job's output is called ``output.jsonl``) and is external data: the client never uses it as a path.
    ``seen_at`` is the service's own clock at the response, None if it has none; it is not part of equality.
    """

    id: str
    filename: str | None = None
    bytes: int | None = None
    purpose: str | None = None
    created_at: datetime | None = None
    file_type: str | None = None
    processed: bool | None = None
    processing_status: str | None = None
    line_count: int | None = None
    seen_at: datetime | None = attrs.field(default=None, eq=False)
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)

    def __to_dict__(self) -> dict[str, Any]:
        names = [field.name for field in attrs.fields(FileObject) if field.name not in {"seen_at", "extra"}]
        return {**_fields.present(self, *names), **self.extra}
