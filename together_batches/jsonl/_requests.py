"""A single request: creation, encoding as a line, decoding, and its possible faults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import cast

import attrs

from together_batches._fields import carried
from together_batches._protocol import json_codec, request_codec
from together_batches._schema import response_format
from together_batches._schema.adapters import Schema, adapter_of
from together_batches._text import format_count, short
from together_batches.errors import UsageError, ValidationError
from together_batches.rows import BatchRequest

MAX_CUSTOM_ID = 64
"""Maximum characters of a ``custom_id``, as documented."""
CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/"
ENDPOINTS = (CHAT, f"{AUDIO}transcriptions", f"{AUDIO}translations", "/v1/completions")
"""The endpoints that are or were documented. Others may be added at any time."""
_MISSPELT = 0.8
JSON_SPACE = b" \t\r\n"

RequestLike = BatchRequest | Mapping[str, object]
"""A request, or a mapping with the fields of its line: ``custom_id``, ``body`` and, for audio, ``method``."""


def chat_request(
    custom_id: str,
    *,
    model: str,
    messages: Iterable[Mapping[str, object]],
    schema: Schema | None = None,
    schema_in_prompt: bool = True,
    **parameters: object,
) -> BatchRequest:
    """Return a request for a chat completion; ``parameters`` are those of the endpoint, such as ``max_tokens``.

    A ``schema`` becomes the parameter ``response_format``, and is added to the system message, because a model has to
    be prompted for JSON, too; ``schema_in_prompt=False`` leaves the messages as they are. It is a pydantic model or
    ``TypeAdapter``, a dataclass, attrs class, TypedDict or msgspec Struct, or a JSON schema.

    See https://docs.together.ai/reference/chat-completions-1. Raises :class:`ValidationError` if a batch does not
    accept the request, and :class:`UsageError` for a class that cannot be a schema.
    """
    given: object = messages
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        message = 'messages is one value, and must be a list such as [{"role": "user", "content": "Hello"}]'
        raise ValidationError(message)
    listed = list(messages)
    if schema is not None:
        if response_format.NAME in parameters:
            message = "give schema or response_format, not both"
            raise UsageError(message)
        adapter = adapter_of(schema)
        parameters[response_format.NAME] = response_format.response_format(adapter)
        if schema_in_prompt:
            listed = response_format.with_instruction(listed, response_format.instruction(adapter))
    return _made(BatchRequest(custom_id, {"model": model, "messages": listed, **parameters}), CHAT)


def audio_request(custom_id: str, *, model: str, file: str, **parameters: object) -> BatchRequest:
    """Return a request to transcribe or translate ``file``, a public URL that is fetched when the job runs.

    ``parameters`` are those of the endpoint, such as ``language``; see
    https://docs.together.ai/docs/inference/batch/overview. Raises :class:`ValidationError` if a batch does not accept
    it.
    """
    address: object = file
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        message = f"file must be a public URL, from where the service fetches the audio; it is {short(address)}"
        raise ValidationError(message)
    return _made(BatchRequest(custom_id, {"model": model, "file": file, **parameters}, method="FILE"), AUDIO)


def check_endpoint(endpoint: object) -> None:
    """Raise :class:`UsageError` if this is not a path, or looks like a misspelling of a known endpoint.

    A path that resembles none is left to the service, because it may be new.
    """
    if endpoint in ENDPOINTS:
        return
    if isinstance(endpoint, str):
        path = f"/{endpoint.strip().strip('/').lower()}"
        near = (
            [known for known in ENDPOINTS if known.startswith(path) or path.startswith(known)] if path != "/" else []
        )
        likely = get_close_matches(path, ENDPOINTS, n=1, cutoff=_MISSPELT) or near
        if likely:
            message = f"invalid endpoint {short(endpoint)}: use {likely[0]}"
            raise UsageError(message)
        if path != "/" and re.fullmatch(r"/[!-~]+", endpoint):
            return
    message = f"endpoint must be a path such as {CHAT}; it is {short(endpoint)}"
    raise UsageError(message)


def check_endpoint_of_schema(endpoint: str) -> None:
    """Raise :class:`UsageError` if answers of this endpoint have no schema."""
    if endpoint != CHAT:
        message = f"a schema is for answers of {CHAT}, and the endpoint is {short(endpoint)}"
        raise UsageError(message)


def custom_id_of(request: object) -> str | None:
    """Return the ``custom_id`` of a request or a mapping, if it is text."""
    custom_id: object
    if isinstance(request, Mapping):
        custom_id = cast("Mapping[str, object]", request).get("custom_id")
    else:
        custom_id = getattr(request, "custom_id", None)
    return custom_id if isinstance(custom_id, str) else None


def _made(request: BatchRequest, endpoint: str) -> BatchRequest:
    # The length of custom_id is left to validate, which accepts another limit.
    if faults := faults_of(_row(request), endpoint, max_custom_id=None):
        raise ValidationError(f"invalid request: {faults[0]}", problems=faults)
    return request


def encode(request: RequestLike) -> bytes:
    """Return the line of a request, including its newline. A mapping is written with all of its fields.

    Raises :class:`ValidationError` if it has no ``custom_id`` or body, or a value that JSON cannot express (NaN).
    """
    return encoded(request) + b"\n"


def encoded(request: RequestLike) -> bytes:
    given: object = request
    if not isinstance(given, BatchRequest | Mapping):
        message = f"{short(given)} is not a BatchRequest"
        raise ValidationError(message)
    text = carried(given) if isinstance(given, BatchRequest) else None
    row = _row(attrs.evolve(given, body={}) if text is not None and isinstance(given, BatchRequest) else request)
    if faults := _shape_faults(row):
        raise ValidationError(f"invalid request: {faults[0]}", problems=faults)
    try:
        if text is None:
            return json_codec.encode(row)
        # The body is copied as it was written: nothing may change between two readings.
        del row["body"]
        return json_codec.encode(row)[:-1] + b',"body":' + text + b"}"
    except json_codec.WireError as error:
        message = f"the request cannot be written as JSON: {error.problem}"
        raise ValidationError(message) from error


def _row(request: RequestLike) -> dict[str, object]:
    if isinstance(request, Mapping):
        row = dict(request)
        if isinstance(inner := row.get("body"), Mapping):
            row["body"] = dict(cast("Mapping[str, object]", inner))
        if row.get("method", "") is None:
            del row["method"]
        return row
    body: object = request.body
    method = {} if request.method is None else {"method": request.method}
    # The encoder accepts only dicts, not other mappings.
    return {
        "custom_id": request.custom_id,
        **method,
        "body": dict(body) if isinstance(body, Mapping) else body,
    }


def decode(line: bytes) -> BatchRequest:
    """Return the request in a line.

    Only ``custom_id``, ``method`` and ``body`` are read. Raises :class:`ValidationError` if the line is not a
    request, and :class:`UsageError` for a value of another type.
    """
    given: object = line
    if not isinstance(given, bytes):
        message = f"decode takes a line as bytes, not {type(given).__name__}"
        raise UsageError(message)
    if (found := request_codec.carried_request(line)) is not None:
        return BatchRequest(*found)
    try:
        row = request_codec.request(line)
    except json_codec.WireError as error:
        message = no_json(line, error)
        raise ValidationError(message) from error
    if faults := _shape_faults(row):
        raise ValidationError(faults[0], problems=faults)
    fields = cast("dict[str, object]", row)
    method = cast("str | None", fields.get("method"))
    return BatchRequest(cast("str", fields["custom_id"]), request_codec.request_body(line), method)


def request_from_dict(mapping: Mapping[str, object]) -> BatchRequest:
    """Return the request in a mapping, of which only ``custom_id``, ``method`` and ``body`` are read.

    Raises :class:`ValidationError` if the mapping is not a request.
    """
    if faults := _shape_faults(dict(mapping)):
        raise ValidationError(faults[0], problems=faults)
    method = cast("str | None", mapping.get("method"))
    return BatchRequest(cast("str", mapping["custom_id"]), cast("dict[str, object]", mapping["body"]), method)


def invalid(problems: Sequence[str], source: str = "") -> ValidationError:
    """Return the error for problems; its text is the first, after the name of the source, and their number."""
    more = f"; {format_count(len(problems))} problems in all" if len(problems) > 1 else ""
    return ValidationError(f"{source}{problems[0]}{more}", problems=problems)


def _shape_faults(row: object) -> list[str]:
    """Return why a decoded line is not a request."""
    if not isinstance(row, dict):
        return [f"the line is {json_codec.kind(row)}, and must be an object with custom_id and body"]
    fields = cast("dict[str, object]", row)
    faults: list[str] = []
    if not isinstance(custom_id := fields.get("custom_id"), str) or not custom_id:
        faults.append(_wrong("custom_id", custom_id, "text"))
    if not isinstance(body := fields.get("body"), dict):
        faults.append(_wrong("body", body, "an object"))
    if not isinstance(method := fields.get("method"), str | None):
        faults.append(_wrong("method", method, "text"))
    return faults


def _wrong(name: str, value: object, expected: str) -> str:
    if value is None:
        return f"{name} is missing"
    is_empty = isinstance(value, str) and not value  # a value of another library may not compare as true or false
    return f"{name} is empty" if is_empty else f"{name} is {json_codec.kind(value)}, and must be {expected}"


def faults_of(row: object, endpoint: str, max_custom_id: int | None) -> list[str]:
    """Return why a decoded line cannot be sent to this endpoint; the rest is left to the endpoint."""
    faults = _shape_faults(row)
    if not isinstance(row, dict):
        return faults
    fields = cast("dict[str, object]", row)
    custom_id, body = fields.get("custom_id"), fields.get("body")
    method, url = fields.get("method"), fields.get("url")
    if max_custom_id is not None and isinstance(custom_id, str) and len(custom_id) > max_custom_id:
        faults.append(f"custom_id has {format_count(len(custom_id))} characters, more than {max_custom_id}")
    if isinstance(body, dict):
        members = cast("dict[str, object]", body)
        if not isinstance(model := members.get("model"), str) or not model:
            faults.append(_wrong("body.model", model, "text"))
        if members.get("stream") is True:
            faults.append("body.stream is true, and a batch cannot stream: leave it out")
    # A url is not part of the format, but the service tolerates it, and files made for other services contain it.
    if url is not None and not (isinstance(url, str) and url.endswith(endpoint)):
        faults.append(f"url is {short(url)}, while the endpoint of the file is {endpoint}: a file has one")
    if endpoint.startswith(AUDIO):
        if method != "FILE":
            faults.append(f'method is {"missing" if method is None else short(method)}; for audio it must be "FILE"')
    elif method == "FILE":
        faults.append(f'method is "FILE", which is for audio, while the endpoint of the file is {endpoint}')
    return faults


def no_json(line: bytes, error: json_codec.WireError) -> str:
    """Return why this is not JSON, with the position within the line."""
    if not line.strip(JSON_SPACE):
        return "the line is blank"
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"the line is not UTF-8: byte {broken.start} of the line is 0x{line[broken.start]:02x}"
    if error.at is None:
        return f"the line is not valid JSON: {error.reason}"
    named = line.startswith((b"NaN", b"Infinity"), error.at)
    reason = "JSON has no NaN and no Infinity" if named else error.reason
    return f"the line is not valid JSON: {reason}, at byte {error.at} of the line"
