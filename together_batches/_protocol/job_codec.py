"""Jobs and files in JSON: the only module that knows cattrs.

Nothing that the service sends is trusted: each field is checked for its type (cattrs by itself would turn a number
into text). A usual job is read by msgspec into a struct with the fields of :class:`BatchJob`; an unusual one is read
field by field, so that an invalid field affects only itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, Struct

from together_batches._fields import READ_LATER, fields_of, read_time, reader_of, time_of
from together_batches._protocol.json_codec import UNREADABLE, WireError, kind, read
from together_batches._protocol.paging import sign_of_more
from together_batches.errors import ValidationError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from collections.abc import Callable

_Object = dict[str, object]
_Value = TypeVar("_Value", BatchJob, FileObject)


def job(sent: object, where: str = "$") -> BatchJob:
    """Return the job in a JSON value: decoded, or as its text in bytes, or an entry of a list, a :class:`Raw`.

    Raises :class:`WireError` if it is not a job: a job needs an id. An invalid optional field becomes None, and its
    value is kept in ``extra``.
    """
    try:
        if isinstance(sent, (bytes, Raw)):
            found = _begun(_read_first(sent))
            READ_LATER(found, _Later(bytes(sent)))  # a copy, because a Raw keeps its whole list
        else:
            found = _begun(msgspec.convert(sent, _First))
            READ_LATER(found, _Later(sent))
        return found
    except _UNUSUAL:
        return _structured(BatchJob, _decoded(sent), where)


def file(sent: object, where: str = "$") -> FileObject:
    """Return the file in a JSON value, read as :func:`job` reads a job."""
    return _structured(FileObject, _decoded(sent), where)


def entries(body: bytes) -> list[object]:
    """Return the entries of a list for :func:`job` or :func:`file`, bare or in an object as ``data``; null is empty.

    An entry stays text, of which a job reads only its first fields at once.
    """
    try:
        return cast("list[object]", _read_entries(body) or [])
    except UNREADABLE:
        value = read(body)
    if isinstance(value, dict):
        page = cast("_Object", value)
        value = page.get("data", cast("object", value))
        sign = sign_of_more(page, len(cast("list[object]", value)) if isinstance(value, list) else 0)
        if sign is not None:
            raise WireError("it is only a part of one, and no paging is known", f"$.{sign}")
    if value is None:
        return []
    if not isinstance(value, list):
        problem = f"{kind(value)} instead of a list"
        raise WireError(problem)
    return cast("list[object]", value)


def job_from_dict(mapping: Mapping[str, object]) -> BatchJob:
    """Return the job in a mapping such as :func:`together_batches.to_dict` or the service makes.

    Entries of the mapping beyond the fields of :class:`BatchJob`, and invalid values of fields, are kept in
    ``extra``. Raises :class:`ValidationError`, whose text names the field, if the mapping has no id.
    """
    given: object = mapping
    if not isinstance(given, Mapping):
        message = f"invalid batch job: expected a mapping, not {type(given).__name__}"
        raise ValidationError(message)
    try:
        return job(dict(mapping))
    except WireError as error:
        message = f"invalid batch job: {error.problem} at {error.where}"
        raise ValidationError(message) from error


def file_from_dict(mapping: Mapping[str, object]) -> FileObject:
    """Return the file in a mapping such as :func:`together_batches.to_dict` or the service makes.

    Raises :class:`ValidationError` if the mapping has no id.
    """
    names = fields_of(FileObject).keys() - {"extra", "seen_at"}
    sent = {_SENT_AS.get(name, name) if name in names else name: value for name, value in mapping.items()}
    try:
        return file(sent)
    except WireError as error:
        message = f"invalid file: {error.problem} at {error.where}"
        raise ValidationError(message) from error


def _decoded(sent: object) -> object:
    return read(sent) if isinstance(sent, (bytes, Raw)) else sent


# --- the usual job ------------------------------------------------------------------------------------------------


_SomeText = Annotated[str, Meta(min_length=1)]
_SOME_TEXT: Any = _SomeText
_PERCENTAGE: Any = Annotated[float, Meta(ge=0, le=100)]
_WIRE_TYPE_BY_TYPE: dict[object, object] = {
    str | None: _SOME_TEXT | None,
    int | None: int | None,
    float | None: _PERCENTAGE | None,
    bool | None: bool | None,
    datetime | None: _SOME_TEXT | None,
}
"""The type from which a field of each type is read if the input is usual."""


_FIELDS = {name: field for name, field in fields_of(BatchJob).items() if name != "extra"}
_SLOTS: dict[str, Callable[[BatchJob, object], None]] = {
    name: getattr(BatchJob, name).__set__ for name in (*_FIELDS, "extra")
}
"""For each field the function that sets it: a job is frozen."""
_UNUSUAL = (*UNREADABLE, ValueError, OverflowError)


class _First(Struct, gc=False):
    """The fields of a usual job that are read of all jobs of a list: the client itself needs most of them."""

    id: _SomeText
    status: BatchJobStatus | None = None
    created_at: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


_LATER_FIELDS = [name for name in _FIELDS if name not in _First.__struct_fields__]
_Usual: type[Any] = msgspec.defstruct(
    "_Usual",
    [(name, _WIRE_TYPE_BY_TYPE[_FIELDS[name].type], None) for name in _LATER_FIELDS],
    bases=(_First,),
    gc=False,
)
_read_first = msgspec.json.Decoder(_First).decode
_read_usual = msgspec.json.Decoder(_Usual).decode
_read_entries = msgspec.json.Decoder(list[Raw] | None).decode

_set_id, _set_status, _set_created_at, _set_output_file_id, _set_error_file_id = map(
    _SLOTS.__getitem__, _First.__struct_fields__
)
_LATER_TIMES = [(name, _SLOTS[name]) for name in _LATER_FIELDS if _FIELDS[name].type == datetime | None]
_LATER_OTHERS = [(name, _SLOTS[name]) for name in _LATER_FIELDS if _FIELDS[name].type != datetime | None]


def _begun(first: _First) -> BatchJob:
    """Return a job with its first fields. Calling :class:`BatchJob` would check all of them again."""
    # Before there is a job, because it may fail, and a half-made job could not be shown in a traceback.
    created_at = time_of(first.created_at) if first.created_at else None
    job = object.__new__(BatchJob)
    _set_id(job, first.id)
    _set_status(job, first.status or None)  # an empty text is an unknown status
    _set_created_at(job, created_at)
    _set_output_file_id(job, first.output_file_id or None)
    _set_error_file_id(job, first.error_file_id or None)
    return job


class _Later(Struct, gc=False):
    """The other fields of a job.

    Reading these takes twice as long as the first fields, and few programs use them, so it waits until one is used.
    """

    sent: Any

    def __call__(self, job: BatchJob) -> None:
        try:
            usual = _read_usual(self.sent) if isinstance(self.sent, bytes) else msgspec.convert(self.sent, _Usual)
            for name, set_field in _LATER_OTHERS:
                set_field(job, getattr(usual, name))
            for name, set_field in _LATER_TIMES:
                time = getattr(usual, name)
                set_field(job, time and time_of(time))
            READ_LATER(job, _Extra(self.sent))
        except _UNUSUAL:
            try:
                twin = _structured(BatchJob, _decoded(self.sent), "$")
            except WireError:  # too deep to be read, or a number of thousands of digits
                twin = BatchJob(**{name: getattr(job, name) for name in _First.__struct_fields__})
            for name, set_field in _SLOTS.items():
                set_field(job, getattr(twin, name))


class _Extra(Struct, gc=False):
    """The ``extra`` of a job, read on first use: that takes as long as reading all other fields."""

    sent: Any

    def __call__(self, job: BatchJob) -> None:
        try:
            sent = cast("_Object", _decoded(self.sent))
        except WireError:  # too deep to be read; the readable parts have been read
            sent = {}
        _SLOTS["extra"](job, {name: value for name, value in sent.items() if name not in _FIELDS})


# --- a job or a file, field by field ------------------------------------------------------------------------------


_EXTRA, _SEEN_AT = "\0extra", "\0seen_at"  # no JSON of the service has these keys, while it might have "extra"
_SENT_AS = {
    "file_type": "FileType",
    "processed": "Processed",
    "line_count": "LineCount",
    "seen_at": _SEEN_AT,
    "extra": _EXTRA,
}
"""Names of fields in the input, if they differ from those of the class."""


def _identity(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    message = "no id" if value is None or value == "" else f"{kind(value)} instead of an id"
    raise TypeError(message)


def _moment(value: object) -> object:
    """Return the time of a file: seconds since 1970, or text as in jobs."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return read_time(value)
    return datetime.fromtimestamp(value, UTC) if value else None


def _without_type(read: Callable[[object], object]) -> Callable[[object, object], object]:
    return lambda value, _: read(value)


@cache
def _structure(value_type: type[Any]) -> Callable[[_Object, type[Any]], Any]:
    """Return the converter of cattrs; it is created, and cattrs imported, only for unusual input, which is rare."""
    from cattrs.gen import make_dict_structure_fn, override
    from cattrs.preconf.msgspec import make_converter

    readers = {name: reader_of(field) for name, field in fields_of(value_type).items()}
    readers |= {"id": _identity, "extra": lambda extra: extra}
    if value_type is FileObject:
        readers["created_at"] = _moment
    overrides: dict[str, Any] = {
        name: override(rename=_SENT_AS.get(name, name), struct_hook=_without_type(read))
        for name, read in readers.items()
    }
    return make_dict_structure_fn(value_type, make_converter(), **overrides)


def _structured(value_type: type[_Value], sent: object, where: str) -> _Value:
    """Return the value, read field by field by cattrs, which names each invalid field."""
    from cattrs.errors import ClassValidationError

    if not isinstance(sent, dict):
        problem = f"{kind(sent)} instead of an object"
        raise WireError(problem, where)
    rest = cast("_Object", sent).copy()
    names = {name: _SENT_AS.get(name, name) for name in fields_of(value_type)}
    found = {name: rest.pop(name, None) for name in names.values() if name != _EXTRA}
    known = {name: value for name, value in found.items() if value is not None and value != ""}
    structure: Callable[[_Object, type[_Value]], _Value] = _structure(cast("Any", value_type))
    try:
        return structure({**known, _EXTRA: rest}, value_type)
    except ClassValidationError as error:
        wrong = {note.name: cause for cause, note in error.group_exceptions()[0]}
        if "id" in wrong:
            problem = str(wrong["id"]) if "id" in known else "no id"
            raise WireError(problem, f"{where}.id") from error
    for name in wrong:
        rest[names[name]] = known.pop(names[name])
    return structure({**known, _EXTRA: rest}, value_type)
