"""A schema as it is sent: the parameter ``response_format``, and words for the system message.

A model has to be prompted for JSON, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from together_batches._protocol import json_codec
from together_batches._protocol.request_codec import response_format_member, with_response_format
from together_batches._schema.json_schemas import is_same

if TYPE_CHECKING:
    from together_batches._schema.adapters import Adapter

NAME = "response_format"


def response_format(adapter: Adapter[Any]) -> dict[str, Any]:
    """Return the value of ``response_format`` for a schema."""
    return {"type": "json_schema", "json_schema": {"name": adapter.name, "schema": adapter.json_schema()}}


def response_format_text(adapter: Adapter[Any]) -> bytes:
    """Return :func:`response_format` as JSON."""
    return json_codec.encode(response_format(adapter))


def is_format_of(adapter: Adapter[Any] | None, text: str | None) -> bool:
    """Return whether the JSON of an earlier call is that of the schema, in whatever words; None means no schema."""
    if adapter is None or text is None:
        return adapter is None and text is None
    first: Any = json_codec.decode(text.encode())
    return is_same(first["json_schema"]["schema"], adapter.json_schema())


def response_format_adder(text: bytes) -> Callable[[bytes], bytes]:
    """Return the function that adds the parameter, whose JSON is ``text``, to the line of a request without one."""
    return partial(with_response_format, member=response_format_member(text))


def added_bytes(adapter: Adapter[Any] | None) -> int:
    """Return the maximum number of bytes that the parameter adds to a request; 0 without a schema."""
    return 0 if adapter is None else len(response_format_member(response_format_text(adapter) + b","))


def instruction(adapter: Adapter[Any]) -> str:
    """Return the words for a system message that ask for an answer by the schema."""
    return f"Answer only with JSON, and no other text, that fits this JSON schema: {adapter.text.decode()}"


def with_instruction(messages: Iterable[Mapping[str, object]], words: str) -> list[Mapping[str, object]]:
    """Return messages with words added to their system message, which comes first, or in a new one."""
    listed = list(messages)
    system = listed[0] if listed else None
    if isinstance(system, Mapping):
        content = system.get("content")
        if system.get("role") == "system" and isinstance(content, str):
            return [{**system, "content": f"{content}\n\n{words}"}, *listed[1:]]
        if system.get("role") == "system" and isinstance(content, list):
            parts = [*cast("list[object]", content), {"type": "text", "text": words}]
            return [{**system, "content": parts}, *listed[1:]]
    return [{"role": "system", "content": words}, *listed]
