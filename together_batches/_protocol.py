"""Each endpoint as a request value, each answer as a value or an error. Nothing here waits for anything."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

import attrs

from together_batches import _wire
from together_batches.config import Secret
from together_batches.errors import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    UsageError,
)
from together_batches.models import BatchJob, FileObject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_EXCERPT_CHARACTERS = 120
_PAGE_CHARACTERS = 4_000
"""So much of a page is searched for what it says: the patterns take quadratic time on what is no page."""


# Neither is changed once made. They are not frozen because that doubles the cost of making them, and two are made
# for each call.
@attrs.define(eq=False)
class Request:
    """One call of the service.

    ``path`` is percent-encoded and comes after the base URL. ``repeatable`` says that doing it twice is the same as
    doing it once, so that it may be sent again when its answer is lost.
    """

    method: str
    path: str
    repeatable: bool
    body: bytes | None = attrs.field(default=None, repr=False)


class Content(Protocol):
    """What is uploaded. It can be read again from its start, for it may have to be sent again."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    async def block(self, position: int) -> bytes:
        """The bytes that begin here, as many as are read at a time. They are asked for in order."""
        ...


@attrs.define(eq=False, kw_only=True)
class Transfer(Request):
    """A call with a file in it or in its answer, or one that prepares such a call.

    ``headers`` are sent beside the client's own. The ``content`` is sent between ``head`` and ``tail``. With
    ``target`` the call goes there (a presigned URL, which is a secret) and not to the service, without the key;
    ``path`` is then what may be told of it.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    head: bytes = attrs.field(default=b"", repr=False)
    content: Content | None = None
    tail: bytes = attrs.field(default=b"", repr=False)
    target: Secret | None = attrs.field(default=None, repr=False)

    @property
    def length(self) -> int:
        """How many bytes the body has."""
        return len(self.head) + (self.content.size if self.content else 0) + len(self.tail)


@attrs.define(eq=False)
class Answer:
    """One whole answer of the service. ``headers`` are looked up without regard to case."""

    request: Request
    url: str
    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The service's name for this request: its own header first, then the one of the gateway before it."""
        for name in ("x-request-id", "x-together-traceid", "cf-ray"):
            if value := self.headers.get(name):
                return value
        return None

    @property
    def date(self) -> datetime | None:
        """The service's own clock when it answered."""
        try:
            date = parsedate_to_datetime(self.headers["Date"])
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
        return date if date.tzinfo else date.replace(tzinfo=UTC)


# --- requests -------------------------------------------------------------------------------------------------


def job_id(job: object) -> str:
    """The id of a job or of what stands for one; a :class:`UsageError` where it cannot be part of a path.

    Ids are opaque (bare UUIDs live, ``batch_job_…`` in the documentation), so only what would change the path's
    meaning is refused.
    """
    return _checked_id(job.id if isinstance(job, BatchJob) else job, "job", "a BatchJob")


def _checked_id(value: object, kind: str, or_else: str) -> str:
    if not isinstance(value, str):
        message = f"a {kind} id is text or {or_else}, not {type(value).__name__}: {value!r}"
        raise UsageError(message)
    if not value.strip():
        message = f"a {kind} id is empty"
        raise UsageError(message)
    if value in {".", ".."}:
        message = f"{value!r} is no {kind} id"
        raise UsageError(message)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{value!r} is no {kind} id: it is not text that can be sent"
            raise UsageError(message) from None
    return value


def file_id(file: object) -> str:
    """The id of a file or of what stands for one; a :class:`UsageError` where it cannot be part of a path."""
    return _checked_id(file.id if isinstance(file, FileObject) else file, "file", "a FileObject")


_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


def _encoded(job: str) -> str:
    return job if _UNRESERVED(job) else quote(job, safe="")


def retrieve(job: str) -> Request:
    """https://docs.together.ai/reference/batch-get"""
    return Request("GET", f"/batches/{_encoded(job)}", repeatable=True)


def list_jobs() -> Request:
    """https://docs.together.ai/reference/batch-list (it has no parameters: the whole account, unsorted)"""
    return Request("GET", "/batches", repeatable=True)


def cancel(job: str) -> Request:
    """https://docs.together.ai/reference/batch-cancel"""
    return Request("POST", f"/batches/{_encoded(job)}/cancel", repeatable=True)


def create(
    input_file_id: str,
    *,
    endpoint: str,
    completion_window: str | None,
    model_id: str | None,
    priority: int | None,
) -> Request:
    """https://docs.together.ai/reference/batch-create (the service knows no idempotency key)"""
    fields: dict[str, object] = {
        "input_file_id": input_file_id,
        "endpoint": endpoint,
        "completion_window": completion_window,
        "model_id": model_id,
        "priority": priority,
    }
    for name, value in fields.items():
        if name == "priority":
            good, wanted = value is None or (isinstance(value, int) and not isinstance(value, bool)), "a whole number"
        else:
            optional = name in {"completion_window", "model_id"}
            good = (optional and value is None) or (isinstance(value, str) and bool(value.strip()))
            wanted = "text that is not empty"
        if not good:
            message = f"{name} must be {wanted}; it is {value!r}"
            raise UsageError(message)
    body = _body({name: value for name, value in fields.items() if value is not None})
    return Request("POST", "/batches", repeatable=False, body=body)


def retrieve_file(file: str) -> Request:
    """https://docs.together.ai/reference/get-files-id"""
    return Request("GET", f"/files/{_encoded(file)}", repeatable=True)


def list_files() -> Request:
    """https://docs.together.ai/reference/get-files (it has no parameters: inputs, outputs and errors, all at once)"""
    return Request("GET", "/files", repeatable=True)


def delete_file(file: str) -> Request:
    """https://docs.together.ai/reference/delete-files-id"""
    return Request("DELETE", f"/files/{_encoded(file)}", repeatable=True)


def file_content(file: str) -> Transfer:
    """https://docs.together.ai/reference/get-files-id-content"""
    # As it is and not compressed on the way: so its length is known before, and a part of it can be asked for.
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    return Transfer(method="GET", path=f"/files/{_encoded(file)}/content", repeatable=True, headers=headers)


@attrs.frozen
class Upload:
    """What an upload says of its file."""

    filename: str
    purpose: str
    content: Content

    @property
    def fields(self) -> dict[str, str]:
        """The fields that every upload has."""
        # Both are types that the service knows, though not for batches.
        suffix = self.filename.rpartition(".")[2].lower()
        file_type = suffix if suffix in {"csv", "parquet"} else "jsonl"
        return {"purpose": self.purpose, "file_name": self.filename, "file_type": file_type}


def upload(file: Upload) -> Transfer:
    """https://docs.together.ai/reference/upload-file (the file as a part of a form)"""
    # Nothing is paid for an upload, and one too many is a file that nobody uses: so it may be repeated.
    name = re.sub(r'["\r\n]', lambda found: f"%{ord(found[0]):02X}", file.filename)
    return _form("/files/upload", file.fields, file=(name, file.content))


def begin_upload(file: Upload, checksum: str | None) -> Transfer:
    """The form that is answered with where to upload to, as the official SDKs send it; ``checksum`` is SHA-256."""
    fields = file.fields if checksum is None else {**file.fields, "checksum": checksum}
    return _form("/files", fields)


def put(content: Content, target: str) -> Transfer:
    """The file itself, to where the service said. Not through the service, so without the key."""
    return Transfer(method="PUT", path=urlsplit(target).path, repeatable=True, content=content, target=Secret(target))


def preprocess(file: str) -> Request:
    """Tell the service that a file is there, as the official Python SDK does."""
    return Request("POST", f"/files/{_encoded(file)}/preprocess", repeatable=True)


def _form(path: str, fields: Mapping[str, str], *, file: tuple[str, Content] | None = None) -> Transfer:
    boundary = f"together-batches-{secrets.token_hex(16)}"
    part = f"--{boundary}\r\nContent-Disposition: form-data; name="
    head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    end = f"--{boundary}--\r\n"
    if file is not None:
        head += f'{part}"file"; filename="{file[0]}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        end = "\r\n" + end
    return Transfer(
        method="POST",
        path=path,
        repeatable=True,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        head=head.encode(),
        content=file[1] if file is not None else None,
        tail=end.encode(),
    )


def raw(method: str, path: str, *, json: object, params: Mapping[str, str] | None) -> Request:
    """A call that this package has no name for; ``path`` is within the API, with or without ``/v1``."""
    verb = str(method).upper()
    if verb not in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}:
        message = f"method must be an HTTP method; it is {method!r}"
        raise UsageError(message)
    path = str(path)
    inside = path.startswith("/") and not path.startswith("//")
    unsafe = re.search(r"[\x00-\x20\x7f\\#\ud800-\udfff]", path)
    steps = re.sub("%2e", ".", path, flags=re.IGNORECASE).partition("?")[0].split("/")
    if not inside or unsafe or "." in steps or ".." in steps:
        message = f"path must begin with one / and stay within the API, such as /batches; it is {path!r}"
        raise UsageError(message)
    path = quote(re.sub(r"^/v1(?=/|\?|$)", "", path) or "/", safe="/?&=%:@!$'()*+,;~-._")
    if params:
        try:
            path += ("&" if "?" in path else "?") + urlencode(params)
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            message = "params must be a mapping of names to values, of text that can be sent"
            raise UsageError(message) from error
    body = None if json is None else _body(json)
    return Request(verb, path, repeatable=verb in {"GET", "HEAD", "OPTIONS"}, body=body)


def _body(value: object) -> bytes:
    try:
        return _wire.encode(value)
    except _wire.WireError as error:
        message = f"the request cannot be written as JSON: {error.problem}"
        raise UsageError(message) from error


# --- answers --------------------------------------------------------------------------------------------------


def read_job(answer: Answer, expected: str) -> BatchJob:
    """The bare job that ``retrieve`` and ``cancel`` answer; it must be the one that was asked for."""
    what = f"batch job {expected}"
    try:
        job = _wire.job(_wire.decode(answer.body))
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, error.where) from error
    if job.id != expected:
        raise no_answer(answer, what, f"it is about job {job.id!r}", "$.id")
    return job


def read_jobs(answer: Answer) -> list[BatchJob]:
    """All jobs of a list. An empty account answers a literal ``null``; an object with ``data`` is taken too."""
    return _read_list(answer, "a list of batch jobs", _wire.job)


def _read_list(answer: Answer, what: str, read: Callable[[object], T]) -> list[T]:
    try:
        value = _wire.decode(answer.body)
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, error.where) from error
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("data", cast("object", value))
    if value is None:
        return []
    if not isinstance(value, list):
        raise no_answer(answer, what, f"{_wire.kind(value)} in place of a list")
    entries = cast("list[Any]", value)
    index = 0
    try:
        for index, entry in enumerate(entries):  # in place, so that there are never two of each
            entries[index] = read(entry)
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, f"$[{index}]{error.where.removeprefix('$')}") from error
    return cast("list[T]", entries)


def read_created(answer: Answer, input_file_id: str) -> BatchJob:
    """The job in ``{"job": …, "warning": …}``, with the warning; :class:`JobNotCreatedError` where it is null."""
    what = "a created batch job"
    try:
        value = _wire.decode(answer.body)
        if not isinstance(value, dict):
            raise no_answer(answer, what, f"{_wire.kind(value)} in place of an object")
        if "job" not in value:
            raise no_answer(answer, what, 'there is no "job"')
        envelope = cast("dict[str, object]", value)
        warning = envelope.get("warning")
        advice = warning if isinstance(warning, str) and warning else None
        if envelope["job"] is None:
            raise JobNotCreatedError(advice)
        job = _wire.job(envelope["job"], "$.job")
        if job.input_file_id not in {None, input_file_id}:
            raise no_answer(answer, what, f"it is about file {job.input_file_id!r}", "$.job.input_file_id")
        return attrs.evolve(job, warning=advice or job.warning)
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, error.where) from error


def read_file(answer: Answer, expected: str | None = None) -> FileObject:
    """The file that an answer describes; it must be the ``expected`` one, if that is known."""
    what = "a file" if expected is None else f"file {expected}"
    try:
        file = _wire.file(_wire.decode(answer.body))
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, error.where) from error
    if expected not in {None, file.id}:
        raise no_answer(answer, what, f"it is about file {file.id!r}", "$.id")
    return file


def read_files(answer: Answer) -> list[FileObject]:
    """All files of a list: of an object with ``data``, or of a bare one; null is an empty one."""
    return _read_list(answer, "a list of files", _wire.file)


def read_deleted(answer: Answer, expected: str) -> None:
    """Nothing, where the answer is that the file is deleted."""
    what = f"that file {expected} is deleted"
    try:
        value = _wire.decode(answer.body)
    except _wire.WireError as error:
        raise no_answer(answer, what, error.problem, error.where) from error
    said = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if said.get("deleted") is not True:
        raise no_answer(answer, what, "it does not say so", "$.deleted")
    if said.get("id") not in {None, expected}:
        raise no_answer(answer, what, f"it is about file {said['id']!r}", "$.id")


def read_target(answer: Answer) -> tuple[str, str]:
    """The id that a file will have, and the URL to upload it to."""
    what = "where to upload the file to"
    location = answer.headers.get("Location")
    file = answer.headers.get("X-Together-File-Id")
    if not 300 <= answer.status < 400 or not location or not file:
        raise no_answer(answer, what, f"its status is {answer.status}, and it names no place or no file")
    try:
        return file_id(file), safe_target(answer.url, location)
    except UsageError as error:
        raise no_answer(answer, what, str(error)) from error
    except ValueError as error:
        raise no_answer(answer, what, str(error), "Location") from error


def read_known(error: ConflictError) -> str:
    """The id of the file that has this content already; raises ``error`` where the refusal says something else."""
    body = error.body
    said = cast("dict[str, object]", body).get("file_id") if isinstance(body, dict) else None
    try:
        return file_id(said)
    except UsageError:
        raise error from None


def safe_target(here: str, location: str) -> str:
    """The whole URL of a place away from the service; ValueError, with a sentence, where files may not go there.

    Only where the service itself is reached over plain HTTP, on this machine or because the user said so, may the
    file travel like that too. The text is left as it is, for it may be signed.
    """
    target = urljoin(here, location)
    parts = urlsplit(target)
    plain = parts.scheme == "http" and here.startswith("http:")
    if not parts.hostname or (parts.scheme != "https" and not plain):
        message = f"it leads to a place that is not https:// ({parts.scheme}://{parts.hostname or ''})"
        raise ValueError(message)
    if "@" in parts.netloc or not re.fullmatch(r"[\x21-\x7e]+", target):
        message = "it leads to a place that holds a login, or what is no part of a URL"
        raise ValueError(message)
    return target.partition("#")[0]


def no_answer(answer: Answer, expected: str, problem: str, where: str = "$") -> APIResponseValidationError:
    """The error for an answer that is none."""
    return APIResponseValidationError(
        problem,
        expected=expected,
        where=where,
        excerpt=answer.body[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", "replace")[:_EXCERPT_CHARACTERS],
        method=answer.request.method,
        url=answer.url,
        status=answer.status,
        request_id=answer.request_id,
    )


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
}


def error_of(answer: Answer, *, retry_after: float | None = None) -> APIStatusError:
    """The error that an answer with an error status is; ``retry_after`` in seconds, for a 429."""
    body = _readable(answer.body)
    message, request_id = _told(body)
    facts: dict[str, Any] = {
        "status": answer.status,
        "request_id": request_id or answer.request_id,
        "body": body,
        "method": answer.request.method,
        "url": answer.url,
    }
    text = message or _phrase(answer.status)
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitError(text, retry_after=retry_after, **facts)
    fallback = InternalServerError if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else APIStatusError
    return _BY_STATUS.get(answer.status, fallback)(text, **facts)


def says_finished(error: APIStatusError) -> bool:
    """True where a refused cancel means that the job has already finished.

    The service answers 409; its reference lists 400 and no 409, so the same text is understood under either.
    """
    return error.status == HTTPStatus.CONFLICT or (
        error.status == HTTPStatus.BAD_REQUEST and "terminal state" in error.message.lower()
    )


def _readable(body: bytes) -> object:
    try:
        return _wire.decode(body)
    except _wire.WireError:
        return body.decode("utf-8", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def _told(body: object) -> tuple[str, str | None]:
    """What an error body says, and the request id in it, whichever of its shapes the service chose.

    ``{"error": "text"}`` (batches), ``{"error": {"message": …}, "id": …}`` (files and the gateway),
    ``{"code": …, "message": …, "details": […]}`` (newer services), ``{"file_id": …}`` (a file known already), text
    or HTML (the edge), XML (the storage), nothing at all.
    """
    if isinstance(body, str):
        body = body[:_PAGE_CHARACTERS]
        if re.match(r"\s*<(\?xml|Error>)", body):  # a storage
            parts = [re.search(rf"<{name}>([^<]+)</{name}>", body) for name in ("Code", "Message", "RequestId")]
            import html  # of all that this package does, only this needs it

            code, why, request = (html.unescape(part[1]).strip() if part else "" for part in parts)
            if code or why:
                return ": ".join(part for part in (code, why) if part)[:300], request or None
        title = re.search(r"<title[^>]*>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
        text = title.group(1) if title else re.sub(r"<[^>]*>", " ", body)
        return " ".join(text.split())[:300], None
    if not isinstance(body, dict):
        return "", None
    said = cast("dict[str, object]", body)
    request_id = said.get("request_id") or said.get("id")
    error: object = said.get("error")
    if isinstance(error, dict):
        error = cast("dict[str, object]", error).get("message")
    message = error or said.get("message")
    if not message and isinstance(said.get("file_id"), str):
        message = f"this content was uploaded before, as {said['file_id']}"
    details = said.get("details")
    if isinstance(details, list):
        entries = [
            cast("dict[str, object]", entry) for entry in cast("list[object]", details) if isinstance(entry, dict)
        ]
        message = "; ".join(str(part) for part in (message, *(entry.get("detail") for entry in entries)) if part)
    return (
        message if isinstance(message, str) else "",
        request_id if isinstance(request_id, str) and request_id else None,
    )
