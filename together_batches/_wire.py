"""Bytes to values and back: the only room that knows JSON and cattrs.

What the service sends is believed in nothing: each field is checked for its type (cattrs by itself would turn a
number into text), and what is wrong is named with its path.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, override

from together_batches.errors import ValidationError
from together_batches.models import BatchJob, BatchJobStatus, FileObject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["WireError", "decode", "encode", "file", "job", "job_from_dict", "kind"]


class WireError(Exception):
    """What was wrong, and where; it never leaves the package: whoever decodes says whose fault it is."""

    def __init__(self, problem: str, where: str = "$") -> None:
        super().__init__(problem, where)
        self.problem = problem
        self.where = where


def decode(body: bytes) -> object:
    """The JSON value in ``body``; :class:`WireError` where it is none (``NaN`` and broken UTF-8 are none)."""
    try:
        return cast("object", orjson.loads(body))
    except orjson.JSONDecodeError as error:
        problem = "no JSON" if body else "nothing at all"
        raise WireError(problem) from error


def encode(value: object) -> bytes:
    """``value`` as JSON; :class:`WireError` where JSON cannot say it."""
    try:
        text = orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise WireError(str(error)) from error
    # orjson turns NaN and infinity into null, and so a number of the caller's into none.
    if b"null" in text and not _finite(value):
        problem = "a number is not finite"
        raise WireError(problem)
    return text


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, cast("dict[str, object]", value).values()))
    return not isinstance(value, list | tuple) or all(map(_finite, cast("list[object]", value)))


def kind(value: object) -> str:
    """What a decoded JSON value is, in the words of JSON."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _wrong(value: object, expected: str) -> TypeError:
    return TypeError(f"{kind(value)} in place of {expected}")


def _text(value: object, _: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong(value, "text")


def _identity(value: object, _: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise TypeError("no id" if value is None or value == "" else f"{kind(value)} in place of an id")


def _integer(value: object, _: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "a whole number")
    return value


def _number(value: object, _: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "a number")
    return float(value)


def _status(value: object, _: object = None) -> BatchJobStatus | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _STATUSES.get(value) or BatchJobStatus(value)
    raise _wrong(value, "a status")


def _time(value: object, _: object = None) -> datetime | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _wrong(value, "a time")
    try:
        # Since Python 3.11 this takes "Z", and 0 to 9 fractional digits (it cuts after six).
        time = datetime.fromisoformat(value)
        if time.year == 1:
            return None  # the zero time, which has no other in UTC where it stands east of Greenwich
        if time.tzinfo is UTC:
            return time
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        message = f"{value[:40]!r} in place of a time"
        raise ValueError(message) from error


def _moment(value: object, _: object) -> datetime | None:
    """Of a file: seconds since 1970, where jobs have text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _time(value, None)
    try:
        return datetime.fromtimestamp(value, UTC) if value else None
    except (ValueError, OverflowError, OSError) as error:
        message = f"{value!r} in place of a time"
        raise ValueError(message) from error


def _truth(value: object, _: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise _wrong(value, "true or false")


_STATUSES = {str(status): status for status in BatchJobStatus}
_HOOKS: dict[object, Callable[[object, object], object]] = {
    str: _identity,
    str | None: _text,
    int | None: _integer,
    float | None: _number,
    BatchJobStatus | None: _status,
    datetime | None: _time,
}
_EXTRA = "\0extra"  # no JSON the service sends has this key, while "extra" it might


def job(value: object, where: str = "$") -> BatchJob:
    """The job that a decoded JSON value describes; it is taken apart. :class:`WireError` where it describes none."""
    if not isinstance(value, dict):
        problem = f"{kind(value)} in place of an object"
        raise WireError(problem, where)
    rest = cast("dict[str, Any]", value)
    values = [*map(rest.pop, _IN_TURN, _NOTHING)]
    extra = rest.copy()  # smaller than what it is a copy of, which had room for all
    try:
        return _plain_job(values, extra)
    except (TypeError, ValueError, OverflowError):
        pass  # it is unusual, or wrong, and then it does not say where
    try:
        return _thorough().structure({**dict(zip(_IN_TURN, values, strict=True)), _EXTRA: extra}, BatchJob)
    except Exception as error:  # cattrs groups whatever its hooks raised
        problem, _, path = cattrs.transform_error(error, where, format_exception=_worded)[0].rpartition(" @ ")
        raise WireError(problem, path or where) from error


@cache
def _thorough() -> cattrs.Converter:
    """Made when something is unusual, which it seldom is."""
    converter = cattrs.Converter()
    attrs.resolve_types(BatchJob)
    fields: dict[str, Any] = {
        field.name: override(struct_hook=_HOOKS[field.type])
        for field in attrs.fields(BatchJob)
        if field.name in _IN_TURN
    }
    fields["extra"] = override(rename=_EXTRA, struct_hook=lambda extra, _: extra)
    converter.register_structure_hook(BatchJob, make_dict_structure_fn(BatchJob, converter, **fields))
    return converter


class _Draft(BatchJob):
    """A job in the making: it can be written to, and becomes a BatchJob when all of it has been looked at.

    To call BatchJob would have all looked at once more and each field set by a call of its own, since it is frozen.
    That takes as long as all the rest of the reading, and a list has 50,000 jobs.
    """

    __slots__ = ()
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    id: str
    status: BatchJobStatus | None  # pyright: ignore[reportIncompatibleVariableOverride]
    progress: float | None
    endpoint: str | None
    model_id: str | None
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    error: str | None
    file_size_bytes: int | None
    created_at: datetime | None
    completed_at: datetime | None
    job_deadline: datetime | None
    user_id: str | None
    warning: str | None
    extra: dict[str, object]


def _plain_job(values: list[Any], extra: dict[str, object]) -> BatchJob:
    """What :func:`_thorough` makes of them, in half the time; TypeError or ValueError for what is to go there."""
    job_id, status, progress, size, created, completed, deadline, *texts = values
    for text in texts:
        if text.__class__ is not str and text is not None:
            raise TypeError
    if job_id.__class__ is not str or not job_id:
        raise TypeError
    if progress.__class__ is int:
        progress = float(progress)
    if progress is not None and not (progress.__class__ is float and 0.0 <= progress <= 100.0):
        raise TypeError
    if size.__class__ is not int and size is not None:
        raise TypeError
    endpoint, model_id, input_file_id, output_file_id, error_file_id, error, user_id, warning = texts
    draft = _new(_Draft)
    draft.id = job_id
    draft.status = _STATUSES.get(status) or _status(status)
    draft.progress = progress
    draft.endpoint = endpoint or None
    draft.model_id = model_id or None
    draft.input_file_id = input_file_id or None
    draft.output_file_id = output_file_id or None
    draft.error_file_id = error_file_id or None
    draft.error = error or None
    draft.file_size_bytes = size
    draft.created_at = None if created is None else _time(created)
    draft.completed_at = None if completed is None else _time(completed)
    draft.job_deadline = None if deadline is None else _time(deadline)
    draft.user_id = user_id or None
    draft.warning = warning or None
    draft.extra = extra
    draft.__class__ = BatchJob  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    return draft


_new = object.__new__


_IN_TURN = (
    *("id", "status", "progress", "file_size_bytes", "created_at", "completed_at", "job_deadline"),
    *("endpoint", "model_id", "input_file_id", "output_file_id", "error_file_id", "error", "user_id", "warning"),
)
"""The fields as they are read: those with rules of their own, then the texts."""
_NOTHING = len(_IN_TURN) * (None,)


_FILE_HOOKS: dict[str, tuple[str, Callable[[object, object], object]]] = {
    "id": ("id", _identity),
    "filename": ("filename", _text),
    "bytes": ("bytes", _integer),
    "purpose": ("purpose", _text),
    "created_at": ("created_at", _moment),
    "FileType": ("file_type", _text),
    "Processed": ("processed", _truth),
    "processing_status": ("processing_status", _text),
    "LineCount": ("line_count", _integer),
}
"""The service's name of each field: ours, and how it is read."""


def file(value: object, where: str = "$") -> FileObject:
    """The file that a decoded JSON value describes; :class:`WireError` where it describes none."""
    if not isinstance(value, dict):
        problem = f"{kind(value)} in place of an object"
        raise WireError(problem, where)
    known: dict[str, Any] = {}
    extra: dict[str, object] = {}
    for name, sent in cast("dict[str, object]", value).items():
        if name not in _FILE_HOOKS:
            extra[name] = sent
            continue
        ours, read = _FILE_HOOKS[name]
        try:
            found = read(sent, None)
        except (TypeError, ValueError) as error:
            raise WireError(str(error), f"{where}.{name}") from error
        known[ours] = None if found == "" else found
    if "id" not in known:
        problem = "no id"
        raise WireError(problem, where)
    return FileObject(**known, extra=extra)


def _worded(error: BaseException, _: object) -> str:
    return "no id" if isinstance(error, KeyError) else str(error)


def job_from_dict(mapping: Mapping[str, object]) -> BatchJob:
    """The job in a mapping such as :func:`together_batches.to_dict` or the service makes.

    What the mapping holds beyond the fields of :class:`BatchJob` is kept in ``extra``. Raises
    :class:`ValidationError`, whose text names the field, where the mapping describes no job.
    """
    try:
        return job(dict(mapping))
    except WireError as error:
        message = f"this is no batch job: {error.problem} at {error.where}"
        raise ValidationError(message, problems=[message]) from error
