"""Requests, read: the operation of each, and the form of an upload.

A table of its own instead of aiohttp's router: every request is named here before faults and counters are looked up
by that name, and one handler for ``web.Server`` saves each request the work of an ``Application``. The forms are
parsed here, on the whole body: aiohttp's reader takes a stream, but the emulator records every body anyway, and the
standard library's e-mail parser is meant for text and may change line ends.
"""

from __future__ import annotations

from email.message import Message
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote


class Route(NamedTuple):
    """An operation by name, and the decoded id in its path ("" if it has none)."""

    operation: str
    id: str = ""

    @property
    def job_id(self) -> str | None:
        """The id of the job of the request, or None."""
        return self.id if self.operation in ("retrieve", "cancel") else None

    @property
    def about_batches(self) -> bool:
        """Whether the Batch API responds; its error format differs from the rest of the service."""
        return self.operation in ("create", "retrieve", "list", "cancel")

    @property
    def about_storage(self) -> bool:
        """Whether the storage responds, on its own port; its errors are XML."""
        return self.operation in ("store", "fetch")


_OTHER = Route("other")
_ELSEWHERE = {
    "/v3/whoami": Route("whoami"),  # not part of these APIs, but the official command requests it first
    "/v2/supported-models": Route("models"),
}
"""Operations of other versions of the API, all of them GET."""

_METHODS = ("GET", "POST", "DELETE")

_WITHOUT_ID = {
    ("POST", "batches"): Route("create"),
    ("GET", "batches"): Route("list"),
    ("POST", "files/upload"): Route("upload"),
    ("POST", "files"): Route("begin_upload"),
    ("GET", "files"): Route("files"),
}
_WITH_ID = {
    ("GET", "batches", ""): "retrieve",
    ("POST", "batches", "cancel"): "cancel",
    ("GET", "files", ""): "file",
    ("GET", "files", "content"): "content",
    ("POST", "files", "preprocess"): "preprocess",
    ("DELETE", "files", ""): "delete",
}


def find_route(method: str, raw_path: str) -> Route:
    """Return the route of a request line; ``other`` for every unknown one.

    The path is split first and decoded afterwards, so that an id with an encoded slash stays one id.
    """
    path = raw_path.partition("?")[0]
    if path in _ELSEWHERE and method == "GET":
        return _ELSEWHERE[path]
    if not path.startswith("/v1/"):
        return _OTHER
    plain = _WITHOUT_ID.get((method, path[4:]))
    if plain is not None:
        return plain
    kind, _, rest = path[4:].partition("/")
    raw_id, slash, action = rest.partition("/")
    if not raw_id or bool(slash) != bool(action):
        return _OTHER
    operation = _WITH_ID.get((method, kind, action))
    return Route(operation, unquote(raw_id)) if operation else _OTHER


def allowed_methods(raw_path: str) -> list[str]:
    """Return the methods for which this path has an operation; none for an unknown path."""
    return [method for method in _METHODS if find_route(method, raw_path) != _OTHER]


def find_storage_route(method: str) -> Route:
    """Return the route of a request to the storage: PUT stores, anything else fetches; paths are not parsed."""
    return Route("store" if method == "PUT" else "fetch")


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
