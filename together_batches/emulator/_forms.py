"""Parsing of the form of an upload, in either of the two encodings of HTML.

Implemented here, on the whole body: aiohttp's reader takes a stream, but the emulator records every body anyway, and
the standard library's e-mail parser is meant for text and may change line ends.
"""

from __future__ import annotations

from email.message import Message
from urllib.parse import parse_qsl

__all__ = ["parse_form", "parse_query"]


def parse_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of a form by name; of a repeated one, the last.

    The form is ``multipart/form-data``, or ``application/x-www-form-urlencoded`` as old SDKs and that of TypeScript
    send it. Raises ValueError, with a sentence, for a body that is neither or is not complete.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return parse_query(body)
    boundary = _parameters(content_type).get_boundary()
    if media_type != "multipart/form-data" or not boundary:
        raise ValueError("The body must be multipart/form-data with a boundary.")
    # The first delimiter may be at the very start; a line end before it makes it like the others.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if not parts or not parts[-1].startswith(b"--"):
        raise ValueError("The form does not end with its boundary.")
    fields: dict[str, bytes] = {}
    for part in parts[:-1]:
        head, blank_line, content = part.partition(b"\r\n\r\n")
        name = _field_name(head.decode("utf-8", "replace"))
        if not blank_line or name is None:
            raise ValueError("A part of the form has no name.")
        fields[name] = content
    return fields


def parse_query(query: bytes) -> dict[str, bytes]:
    """Return the fields of a query, or of a form with the same encoding."""
    pairs = parse_qsl(query.strip(), keep_blank_values=True)
    return {name.decode("utf-8", "replace"): value for name, value in pairs}


def _parameters(content_type: str) -> Message:
    message = Message()
    message["Content-Type"] = content_type
    return message


def _field_name(head: str) -> str | None:
    for line in head.split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            message = Message()
            message["Content-Disposition"] = value.strip()
            name = message.get_param("name", header="content-disposition")
            return name if isinstance(name, str) and name else None
    return None
