"""One request: made, written as a line, read from one, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import attrs

from together_batches import _wire
from together_batches._fields import carried
from together_batches.errors import ValidationError
from together_batches.rows import BatchRequest

__all__ = [
    "AUDIO",
    "CHAT",
    "JSON_SPACE",
    "KEPT_OF_A_TEXT",
    "MAX_CUSTOM_ID",
    "audio_request",
    "chat_request",
    "decode",
    "encode",
    "encoded",
    "faults_of",
    "invalid",
    "no_json",
    "short",
]

MAX_CUSTOM_ID = 64
"""Characters of a ``custom_id``, as documented."""
CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/"
JSON_SPACE = b" \t\r\n"
KEPT_OF_A_TEXT = 200


def chat_request(
    custom_id: str, *, model: str, messages: Iterable[Mapping[str, object]], **parameters: object
) -> BatchRequest:
    """A request for a chat completion; ``parameters`` are those of the endpoint, such as ``max_tokens``.

    See https://docs.together.ai/reference/chat-completions-1. Raises :class:`ValidationError` for what no batch
    takes.
    """
    if isinstance(messages, str | bytes | Mapping):
        message = 'messages is one value, and must be a list such as [{"role": "user", "content": "Hello"}]'
        raise ValidationError(message, problems=[message])
    return _made(BatchRequest(custom_id, {"model": model, "messages": list(messages), **parameters}), CHAT)


def audio_request(custom_id: str, *, model: str, file: str, **parameters: object) -> BatchRequest:
    """A request to transcribe or translate what ``file``, a public URL, leads to when the job runs.

    ``parameters`` are those of the endpoint, such as ``language``; see
    https://docs.together.ai/docs/inference/batch/overview. Raises :class:`ValidationError` for what no batch takes.
    """
    address: object = file
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        message = f"file must be a public URL, from where the service fetches the audio; it is {short(address)}"
        raise ValidationError(message, problems=[message])
    return _made(BatchRequest(custom_id, {"model": model, "file": file, **parameters}, method="FILE"), AUDIO)


def _made(request: BatchRequest, endpoint: str) -> BatchRequest:
    # How long a custom_id may be is left to validate, which can be told another limit.
    if faults := faults_of(_row(request), endpoint, max_custom_id=None):
        raise invalid(f"this is no request: {faults[0]}", faults)
    return request


def encode(request: BatchRequest) -> bytes:
    """The line of a request, its newline included.

    Raises :class:`ValidationError` where it has no ``custom_id`` or body, or a value that JSON cannot say (NaN).
    """
    return encoded(request) + b"\n"


def encoded(request: BatchRequest) -> bytes:
    given: object = request
    if not isinstance(given, BatchRequest):
        message = f"{short(given)} is no BatchRequest"
        raise invalid(message, [message])
    text = carried(given)
    row = _row(given) if text is None else _row(attrs.evolve(given, body={}))
    if faults := _shape_faults(row):
        raise invalid(f"this is no request: {faults[0]}", faults)
    try:
        if text is not None:
            method = b"" if given.method is None else b',"method":' + _wire.encode(given.method)
            # As it was written, by whatever writes requests: nothing is to change between two readings.
            return b'{"custom_id":' + _wire.encode(given.custom_id) + method + b',"body":' + text + b"}"
        return _wire.encode(row)
    except _wire.WireError as error:
        message = f"the request cannot be written as JSON: {error.problem}"
        raise invalid(message, [message]) from error


def _row(request: BatchRequest) -> dict[str, object]:
    body: object = request.body
    method = {} if request.method is None else {"method": request.method}
    # JSON knows dicts and no other mappings.
    return {
        "custom_id": request.custom_id,
        **method,
        "body": dict(body) if isinstance(body, Mapping) else body,
    }


def decode(line: bytes) -> BatchRequest:
    """The request in a line.

    Only ``custom_id``, ``method`` and ``body`` are read. Raises :class:`ValidationError` where the line holds none.
    """
    try:
        row = _wire.decode(line)
    except _wire.WireError as error:
        message = no_json(line, error)
        raise invalid(message, [message]) from error
    if faults := _shape_faults(row):
        raise invalid(faults[0], faults)
    fields = cast("dict[str, object]", row)
    return BatchRequest(
        cast("str", fields["custom_id"]),
        _wire.request_body(line),
        cast("str | None", fields.get("method")),
    )


def invalid(message: str, problems: Iterable[str]) -> ValidationError:
    return ValidationError(message, problems=problems)


def _shape_faults(row: object) -> list[str]:
    """Why a decoded line is no request."""
    if not isinstance(row, dict):
        return [f"the line is {_wire.kind(row)}, and must be an object with custom_id and body"]
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
    return f"{name} is empty" if value == "" else f"{name} is {_wire.kind(value)}, and must be {expected}"


def faults_of(row: object, endpoint: str, max_custom_id: int | None) -> list[str]:
    """Why a decoded line cannot be sent to this endpoint; what only the endpoint can know is left to it."""
    faults = _shape_faults(row)
    if not isinstance(row, dict):
        return faults
    fields = cast("dict[str, object]", row)
    custom_id, body = fields.get("custom_id"), fields.get("body")
    method, url = fields.get("method"), fields.get("url")
    if max_custom_id is not None and isinstance(custom_id, str) and len(custom_id) > max_custom_id:
        faults.append(f"custom_id has {len(custom_id):,} characters, more than {max_custom_id}")
    if isinstance(body, dict):
        asked = cast("dict[str, object]", body)
        if not isinstance(model := asked.get("model"), str) or not model:
            faults.append(_wrong("body.model", model, "text"))
        if asked.get("stream") is True:
            faults.append("body.stream is true, and a batch cannot stream: leave it out")
    # A url is no part of the format, but the service tolerates it, and files made for others have it.
    if url is not None and not (isinstance(url, str) and url.endswith(endpoint)):
        faults.append(f"url is {short(url)}, while the endpoint of the file is {endpoint}: a file has one")
    if endpoint.startswith(AUDIO):
        if method != "FILE":
            faults.append(f'method is {"missing" if method is None else short(method)}; for audio it must be "FILE"')
    elif method == "FILE":
        faults.append(f'method is "FILE", which is for audio, while the endpoint of the file is {endpoint}')
    return faults


def no_json(line: bytes, error: _wire.WireError) -> str:
    """Why this is no JSON, with the place within the line."""
    if not line.strip(JSON_SPACE):
        return "the line is blank"
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"the line is not UTF-8: byte {broken.start} of the line is 0x{line[broken.start]:02x}"
    if error.at is None:
        return f"the line is no JSON: {error.reason}"
    named = line.startswith((b"NaN", b"Infinity"), error.at)
    reason = "NaN and Infinity are no JSON" if named else error.reason
    return f"the line is no JSON: {reason}, at byte {error.at} of the line"


def short(value: object) -> str:
    text = repr(value[: KEPT_OF_A_TEXT + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= KEPT_OF_A_TEXT else text[:KEPT_OF_A_TEXT] + "…"
