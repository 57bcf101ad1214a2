"""Requests about files as values, and their answers as values or errors."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import attrs

from together_batches._protocol import job_codec, json_codec
from together_batches._protocol.file_targets import safe_target
from together_batches._protocol.jobs import (
    Answer,
    Request,
    checked_id,
    encoded,
    invalid_response,
    list_request,
    read_list,
)
from together_batches.config import Secret
from together_batches.errors import ConflictError, UsageError
from together_batches.models import FileObject

if TYPE_CHECKING:
    from collections.abc import Mapping


class UploadContent(Protocol):
    """The content of an upload. It can be read again from its start, because it may have to be sent again."""

    @property
    def name(self) -> str:
        """Name of the file."""
        ...

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        ...

    async def block(self, position: int) -> bytes:
        """Return the bytes that begin here, as many as are read at a time. Calls come in order."""
        ...


@attrs.define(eq=False, kw_only=True)
class Transfer(Request):
    """A call with a file in it or in its answer, or one that prepares such a call.

    ``headers`` are sent beside the client's own. The ``content`` is sent between ``head`` and ``tail``.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    head: bytes = attrs.field(default=b"", repr=False)
    content: UploadContent | None = None
    tail: bytes = attrs.field(default=b"", repr=False)

    @property
    def length(self) -> int:
        """Number of bytes of the body."""
        return len(self.head) + (self.content.size if self.content else 0) + len(self.tail)


# --- requests -------------------------------------------------------------------------------------------------


def file_id(file: object) -> str:
    """Return the id of a file or of an object with one; raise :class:`UsageError` if it cannot be part of a path."""
    return checked_id(file.id if isinstance(file, FileObject) else file, "file", "a FileObject")


def retrieve_file(file: str) -> Request:
    """https://docs.together.ai/reference/get-files-id"""
    return Request("GET", f"/files/{encoded(file)}", repeatable=True)


def list_files() -> Request:
    """https://docs.together.ai/reference/get-files (it has no parameters: inputs, outputs and errors, all at once)"""
    return list_request("/files")


def delete_file(file: str) -> Request:
    """https://docs.together.ai/reference/delete-files-id"""
    return Request("DELETE", f"/files/{encoded(file)}", repeatable=True)


def file_content(file: str) -> Transfer:
    """https://docs.together.ai/reference/get-files-id-content"""
    # Uncompressed: so its length is known in advance, and a part of it can be requested.
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    return Transfer(method="GET", path=f"/files/{encoded(file)}/content", repeatable=True, headers=headers)


def upload(content: UploadContent, purpose: str) -> Transfer:
    """https://docs.together.ai/reference/upload-file (the file as a part of a form)"""
    # An upload costs nothing, and a superfluous one is an unused file: so it may be repeated.
    return _form("/files/upload", _fields(content.name, purpose), content)


def begin_upload(name: str, purpose: str, checksum: str | None) -> Transfer:
    """Return the form that is answered with an upload URL, as the official SDKs send it; ``checksum`` is SHA-256."""
    fields = _fields(name, purpose)
    return _form("/files", fields if checksum is None else {**fields, "checksum": checksum})


def _fields(name: str, purpose: str) -> dict[str, str]:
    # Both are types that the service knows, though not for batches.
    suffix = name.rpartition(".")[2].lower()
    file_type = suffix if suffix in {"csv", "parquet"} else "jsonl"
    return {"purpose": purpose, "file_name": name, "file_type": file_type}


def put(content: UploadContent, target: str) -> Transfer:
    """Return the upload of the file itself to the URL from the service. It bypasses the service: no key."""
    return Transfer(method="PUT", path=urlsplit(target).path, repeatable=True, content=content, target=Secret(target))


def preprocess(file: str) -> Request:
    """Return the request that reports an uploaded file to the service, as the official Python SDK sends it."""
    return Request("POST", f"/files/{encoded(file)}/preprocess", repeatable=True)


def _form(path: str, fields: Mapping[str, str], content: UploadContent | None = None) -> Transfer:
    boundary = f"together-batches-{secrets.token_hex(16)}"
    part = f"--{boundary}\r\nContent-Disposition: form-data; name="
    head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    end = f"--{boundary}--\r\n"
    if content is not None:
        name = re.sub(r'["\r\n]', lambda found: f"%{ord(found[0]):02X}", content.name)
        head += f'{part}"file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        end = "\r\n" + end
    return Transfer(
        method="POST",
        path=path,
        repeatable=True,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        head=head.encode(),
        content=content,
        tail=end.encode(),
    )


class Uploaded(NamedTuple):
    """An uploaded file; ``known_id`` is the id under which the service already had that content, if any."""

    file: FileObject
    known_id: str | None = None


# --- responses ------------------------------------------------------------------------------------------------


def read_file(answer: Answer, expected: str | None = None) -> FileObject:
    """Return the file that an answer describes; it must be the ``expected`` one, if that is known."""
    what = "a file" if expected is None else f"file {expected}"
    try:
        file = job_codec.file(answer.body)
    except json_codec.WireError as error:
        raise invalid_response(answer, what, error.problem, error.where) from error
    if expected not in {None, file.id}:
        raise invalid_response(answer, what, f"it is about file {file.id!r}", "$.id")
    return attrs.evolve(file, seen_at=answer.date)


def read_files(answer: Answer) -> list[FileObject]:
    """Return all files of a list: of an object with ``data``, or of a bare one; null is an empty one."""
    seen_at = answer.date
    return [attrs.evolve(file, seen_at=seen_at) for file in read_list(answer, "a list of files", job_codec.file)]


def read_deleted(answer: Answer, expected: str) -> None:
    """Return None if the answer is that the file is deleted; otherwise raise."""
    what = f"that file {expected} is deleted"
    try:
        value = json_codec.decode(answer.body)
    except json_codec.WireError as error:
        raise invalid_response(answer, what, error.problem, error.where) from error
    said = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if said.get("deleted") is not True:
        raise invalid_response(answer, what, "it does not say so", "$.deleted")
    if said.get("id") not in (None, expected):  # not a set: the received value need not be hashable
        raise invalid_response(answer, what, f"it is about file {said['id']!r}", "$.id")


def read_target(answer: Answer) -> tuple[str, Secret]:
    """Return the id that a file will have, and the URL to upload it to."""
    what = "where to upload the file to"
    location = answer.headers.get("Location")
    file = answer.headers.get("X-Together-File-Id")
    if not 300 <= answer.status < 400 or not location or not file:
        raise invalid_response(answer, what, f"its status is {answer.status}, and it names no place or no file")
    try:
        return file_id(file), safe_target(answer.url, location, answer.url)
    except UsageError as error:
        raise invalid_response(answer, what, str(error)) from error
    except ValueError as error:
        raise invalid_response(answer, what, str(error), "Location") from error


def read_known(error: ConflictError) -> str:
    """Return the id of the file that has this content already; raise ``error`` if the refusal has another reason."""
    body = error.body
    said = cast("dict[str, object]", body).get("file_id") if isinstance(body, dict) else None
    try:
        return file_id(said)
    except UsageError:
        raise error from None
