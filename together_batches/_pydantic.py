"""Schemas of the values for pydantic, which loads this module, and so for FastAPI and OpenAPI.

A value is written as :func:`together_batches.to_dict` writes it, and each instance is valid. Jobs, files and requests
are also read from JSON. A schema describes the plain data: the fields of a class, and what its ``__to_dict__`` adds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import attrs
from pydantic import Field
from pydantic_core import PydanticCustomError, PydanticKnownError, SchemaSerializer, core_schema

from together_batches._fields import Carried, Plain, fields_of
from together_batches._protocol.job_codec import file_from_dict, job_from_dict
from together_batches._protocol.to_dict import to_dict
from together_batches.errors import BatchesError, ValidationError
from together_batches.jsonl._requests import request_from_dict
from together_batches.models import BatchJob, BatchJobStatus, FileObject, Response
from together_batches.outcomes import CancelOutcome, CancelReport
from together_batches.rows import BatchInvalid, BatchRequest, BatchSuccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler

    Members = dict[str, tuple[Any, bool]]
    """The type of each member of an object, and whether it is always present."""

_READERS: dict[type, Callable[[Mapping[str, object]], object]] = {
    BatchJob: job_from_dict,
    FileObject: file_from_dict,
    BatchRequest: request_from_dict,
}
_NOT_WRITTEN = {"extra", "seen_at", "parsed"}
_WITH_OTHERS = {BatchJob, FileObject}
"""Objects that may have other members, of which this version does not know."""


def schema_of(value_type: type[Any], handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    """Return the schema of a value or of a status."""
    if issubclass(value_type, BatchJobStatus):
        return _status(handler)

    reader = _READERS.get(value_type)

    def validated(value: object, _: object) -> object:
        # The schema within describes JSON for people, and is not consulted: a job keeps what does not fit.
        if isinstance(value, value_type):
            return value
        if reader is None:
            raise PydanticKnownError("is_instance_of", {"class": value_type.__name__})
        if not isinstance(value, Mapping):
            raise PydanticKnownError("dict_type")
        try:
            return reader(cast("Mapping[str, object]", value))
        except ValidationError as error:
            raise PydanticCustomError("together_batches", "{reason}", {"reason": str(error)}) from error

    return core_schema.no_info_wrap_validator_function(
        validated,
        _described(value_type, _members(value_type), handler),
        ref=f"{value_type.__module__}.{value_type.__qualname__}",
        serialization=_WRITTEN,
    )


_WRITTEN = core_schema.plain_serializer_function_ser_schema(to_dict)


@cache
def serializer() -> SchemaSerializer:
    """Return what writes a value for a field of which pydantic knows no type."""
    return SchemaSerializer(core_schema.any_schema(serialization=_WRITTEN))


def _status(handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    # An open string, because the service may add a status at any time.
    text = handler.generate_schema(Annotated[str, Field(examples=list(BatchJobStatus))])
    return core_schema.no_info_after_validator_function(
        BatchJobStatus, text, serialization=core_schema.plain_serializer_function_ser_schema(str)
    )


def _described(cls: type[Any] | None, members: Members, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    fields: dict[str, core_schema.TypedDictField] = {}
    for name, (kind, required) in members.items():
        schema = _described(None, _ERROR, handler) if kind is BatchesError else handler.generate_schema(kind)
        fields[name] = core_schema.typed_dict_field(schema, required=required)
    # The rest of a docstring is for Python.
    shown = None if cls is None else type(cls.__name__, (), {"__doc__": (cls.__doc__ or "").partition("\n")[0]})
    return core_schema.typed_dict_schema(
        fields, cls=shown, extra_behavior="allow" if cls in _WITH_OTHERS else "ignore"
    )


_ERROR: Members = {
    "type": (str, True),
    "message": (str, True),
    "status": (int, False),
    "request_id": (str | None, False),
}
_UNLIKE_FIELDS: dict[type, Members] = {
    CancelReport: {"ok": (bool, True), "counts": (dict[str, int], True), "outcomes": (list[CancelOutcome], True)},
    Response: {
        "status": (int, True),
        "headers": (dict[str, str], True),
        "body": (str, False),
        "body_base64": (str, False),
        "request_id": (str, False),
    },
}


def _members(value_type: type[Plain]) -> Members:
    """Return the members of the plain data of a class."""
    if value_type in _UNLIKE_FIELDS:
        return _UNLIKE_FIELDS[value_type]
    if value_type is BatchInvalid:
        return {**_members(BatchSuccess), "result": (Literal["invalid"], True), "error": (str, True)}
    fields = [field for field in fields_of(cast("Any", value_type)).values() if field.name not in _NOT_WRITTEN]
    members = {field.name.removeprefix("_"): _member(field.type) for field in fields}
    result: str | None = getattr(value_type, "_result", None)
    if result is not None:  # a row, which is written without texts that are empty
        members = {name: (kind, False) for name, (kind, _) in members.items()}
        members |= {"custom_id": (get_type_hints(value_type)["custom_id"], True), "result": (Literal[result], True)}
    elif _is_record(value_type):
        defaults = {field.name for field in fields if field.default is not attrs.NOTHING}
        members = {
            name: (str if kind is bytes else kind, name not in defaults) for name, (kind, _) in members.items()
        }
        members["version"] = (int, True)
    for name in value_type.__derived__:
        members[name] = _member(get_type_hints(getattr(value_type, name).fget)["return"])
    return members


def _member(kind: Any) -> tuple[Any, bool]:
    """Return the type of a member, which is absent if it is None, and whether it is always present."""
    if get_origin(kind) not in {Union, UnionType}:
        return kind, True
    options = [option for option in get_args(kind) if option not in {NoneType, Carried}]
    return cast("Any", Union)[tuple(options)], NoneType not in get_args(kind)


def _is_record(value_type: type) -> bool:
    """Return whether values of this type are written without the fields that have their defaults."""
    records = sys.modules.get("together_batches.runs._records")
    return records is not None and issubclass(value_type, records.Versioned)
