"""Each endpoint as a request value, each response as a value or an error. Pure: no I/O and no waiting."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

import attrs

from together_batches._protocol import job_codec, json_codec
from together_batches._protocol.paging import sign_in_headers
from together_batches._protocol.reach import is_disguised, reach_of
from together_batches.config import Secret
from together_batches.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    ConflictError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    UsageError,
)
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

EXCERPT_BYTES = 1 << 16
"""Maximum bytes of a refusal that are read and kept."""
_MOST_BYTES = 16 << 20
_MOST_BYTES_OF_A_LIST = 256 << 20
_log = logging.getLogger("together_batches")
_EXCERPT_CHARACTERS = 120
_PAGE_CHARACTERS = 4_000
"""Maximum characters of a page that are searched for a message: the patterns take quadratic time on other text."""


# Neither changes once created. They are not frozen because that doubles the cost of creating them, and each call
# creates two.
@attrs.define(eq=False)
class Request:
    """One call of the service.

    ``path`` is percent-encoded and comes after the base URL. ``repeatable`` means that sending it twice has the
    effect of sending it once, so that it may be sent again if its response is lost. ``most_bytes`` is the maximum
    size of a successful response, decoded.
    """

    method: str
    path: str
    repeatable: bool
    body: bytes | None = attrs.field(default=None, repr=False)
    most_bytes: int = attrs.field(default=_MOST_BYTES, repr=False)


@attrs.define(eq=False)
class Answer:
    """One complete response of the service. Names in ``headers`` are case-insensitive.

    ``redact`` removes secrets from a text that is made from it.
    """

    request: Request
    url: str
    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    redact: Callable[[str], str] = attrs.field(default=str, repr=False)

    @property
    def request_id(self) -> str | None:
        """The service's id for this request: from its own header, otherwise from the gateway's in front of it."""
        for name in ("x-request-id", "x-together-traceid", "cf-ray"):
            if value := self.headers.get(name):
                return value
        return None

    @property
    def date(self) -> datetime | None:
        """The service's own clock at the time of the response."""
        try:
            date = parsedate_to_datetime(self.headers["Date"])
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
        return date if date.tzinfo else date.replace(tzinfo=UTC)


# --- requests -------------------------------------------------------------------------------------------------


def job_id(job: object) -> str:
    """Return the id of a job or of an object with one; raise :class:`UsageError` if it cannot be part of a path.

    Ids are opaque (bare UUIDs in production, ``batch_job_…`` in the documentation), so only characters that would
    change the meaning of the path are refused.
    """
    return checked_id(job.id if isinstance(job, BatchJob) else job, "job", "a BatchJob")


def checked_id(value: object, kind: str, or_else: str) -> str:
    """Return ``value`` without surrounding white space, if it can be the id of a ``kind``.

    ``or_else`` names the alternative to an id in the error message.
    """
    if not isinstance(value, str):
        message = f"a {kind} id is text or {or_else}, not {type(value).__name__}: {value!r}"
        raise UsageError(message)
    if not value.strip():
        message = f"a {kind} id is empty"
        raise UsageError(message)
    # No id of the service has white space around it; a line of a file has its line end.
    value = value.strip()
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


_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


def encoded(job: str) -> str:
    """Return an id as a part of a path."""
    return job if _UNRESERVED(job) else quote(job, safe="")


def retrieve(job: str) -> Request:
    """https://docs.together.ai/reference/batch-get"""
    return Request("GET", f"/batches/{encoded(job)}", repeatable=True)


def list_jobs() -> Request:
    """https://docs.together.ai/reference/batch-list (it has no parameters: the whole account, unsorted)"""
    return list_request("/batches")


def list_request(path: str) -> Request:
    """Return a request for all objects of a kind: the service has no pages, so the response may be long."""
    return Request("GET", path, repeatable=True, most_bytes=_MOST_BYTES_OF_A_LIST)


def cancel(job: str) -> Request:
    """https://docs.together.ai/reference/batch-cancel"""
    return Request("POST", f"/batches/{encoded(job)}/cancel", repeatable=True)


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


def raw(method: str, path: str, *, json: object, params: Mapping[str, str] | None) -> Request:
    """Return any request of the API; ``path`` is within the API, with or without ``/v1``."""
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
    is_list = verb == "GET" and path.partition("?")[0].rstrip("/") in {"/batches", "/files"}
    most = _MOST_BYTES_OF_A_LIST if is_list else _MOST_BYTES
    return Request(verb, path, repeatable=verb in {"GET", "HEAD", "OPTIONS"}, body=body, most_bytes=most)


def _body(value: object) -> bytes:
    try:
        return json_codec.encode(value)
    except json_codec.WireError as error:
        message = f"the request cannot be written as JSON: {error.problem}"
        raise UsageError(message) from error


# --- responses ------------------------------------------------------------------------------------------------


@attrs.frozen
class NoJob:
    """A 2xx response to a cancel without a readable job.

    ``accepted`` is True for a response that an API may send (no body, or a JSON object that names no error), and
    False for one that may come from elsewhere, such as the page of a proxy. ``error`` describes the defect.
    """

    error: APIResponseValidationError
    accepted: bool


def read_job(answer: Answer, expected: str) -> BatchJob:
    """Return the job in a response to ``retrieve``; it must be the one with the ``expected`` id."""
    found = read_cancelled(answer, expected)
    if isinstance(found, NoJob):
        raise found.error
    return found


def read_cancelled(answer: Answer, expected: str) -> BatchJob | NoJob:
    """Return the job in a response to ``cancel``. Another job than the ``expected`` one is an invalid response."""
    what = f"batch job {expected}"
    try:
        job = job_in(answer.body)
    except json_codec.WireError as error:
        failure = invalid_response(answer, what, error.problem, error.where)
        failure.__cause__ = error
        return NoJob(failure, accepted=_is_acceptance(answer.body))
    # Ids may be spelled in either case, and the service answers in its own.
    if job.id != expected and job.id.lower() != expected.lower():
        raise invalid_response(answer, what, f"it is about job {job.id!r}", "$.id")
    return job


def _is_acceptance(body: bytes) -> bool:
    said = _readable(body)
    return not body.strip() or (isinstance(said, dict) and not cast("dict[str, object]", said).get("error"))


def job_in(body: bytes) -> BatchJob:
    """Return the job in a response, bare or as ``{"job": …}``; raise :class:`WireError` if there is none."""
    try:
        return job_codec.job(body)
    except json_codec.WireError:
        value = json_codec.read(body)
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        if "id" in fields or not isinstance(fields.get("job"), dict):
            raise
        return job_codec.job(fields["job"], "$.job")


def read_jobs(answer: Answer) -> list[BatchJob]:
    """Return all jobs of a list. An empty account answers a literal ``null``; an object with ``data`` also counts."""
    return read_list(answer, "a list of batch jobs", job_codec.job)


def read_list(answer: Answer, what: str, read: Callable[[object], T]) -> list[T]:
    """Return each entry of a list, parsed by ``read``; an invalid entry is omitted, unless all are invalid."""
    header = sign_in_headers(answer.headers)
    if header is not None:
        raise invalid_response(answer, what, "it is only a part of one, and no paging is known", f"header {header}")
    try:
        entries = job_codec.entries(answer.body)
    except json_codec.WireError as error:
        raise invalid_response(answer, what, error.problem, error.where) from error
    found: list[T] = []
    unread: dict[int, json_codec.WireError] = {}
    for index, entry in enumerate(entries):
        try:
            found.append(read(entry))
        except json_codec.WireError as error:
            unread[index] = error
    for index, unreadable in unread.items():
        where = f"$[{index}]{unreadable.where.removeprefix('$')}"
        if not found:
            raise invalid_response(answer, what, unreadable.problem, where) from unreadable
        _log.warning(
            "an entry of %s is left out, since it cannot be read: %s at %s",
            what,
            unreadable.problem,
            where,
            extra={"where": where},
        )
    return found


def read_created(answer: Answer, input_file_id: str) -> BatchJob:
    """Return the job in ``{"job": …, "warning": …}``, with the warning; raise :class:`JobNotCreatedError` if null."""
    what = "a created batch job"
    try:
        value = json_codec.read(answer.body)
        if not isinstance(value, dict):
            raise invalid_response(answer, what, f"{json_codec.kind(value)} in place of an object")
        if "job" not in value:
            raise invalid_response(answer, what, 'there is no "job"')
        envelope = cast("dict[str, object]", value)
        warning = envelope.get("warning")
        advice = warning if isinstance(warning, str) and warning else None
        if envelope["job"] is None:
            raise JobNotCreatedError(advice)
        job = job_codec.job(envelope["job"], "$.job")
        if job.input_file_id not in {None, input_file_id}:
            raise invalid_response(answer, what, f"it is about file {job.input_file_id!r}", "$.job.input_file_id")
        return attrs.evolve(job, warning=advice or job.warning)
    except json_codec.WireError as error:
        raise invalid_response(answer, what, error.problem, error.where) from error


def safe_target(here: str, location: str, base_url: str) -> Secret:
    """Return the whole URL of a place outside the service; raise ValueError, with a reason, if no file may go to it.

    Files may travel over plain HTTP only if the service itself is reached that way, on this machine or because the
    user chose it; and they may go to this machine or a private network only if the service itself is in one: a public
    service has no reason to send us to an address that only we can reach, such as the keys of a cloud's machine at
    169.254.169.254. The text is left unchanged, because it may be signed, and is a secret for the same reason.
    """
    objection = _objection_to_target(here, location, base_url)
    if objection is not None:  # raised in this frame, where no variable shows the URL
        raise ValueError(objection)
    return Secret(urljoin(here, location).partition("#")[0])


def _objection_to_target(here: str, location: str, base_url: str) -> str | None:
    """Return why files may not go to a place; None if they may."""
    try:
        target = urljoin(here, location)
        parts = urlsplit(target)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it leads to a place with an invalid host or port"
    plain = parts.scheme == "http" and here.startswith("http:")
    if not host or (parts.scheme != "https" and not plain):
        return f"it leads to a place that is not https:// ({parts.scheme}://{host or ''})"
    if "@" in parts.netloc or not re.fullmatch(r"[\x21-\x7e]+", target):
        return "it leads to a place that holds a login, or what is no part of a URL"
    if is_disguised(host):
        return f"it leads to {host}, an address that is not written as one"
    base_host = urlsplit(base_url).hostname or ""
    reach = reach_of(host)
    if host != base_host and reach not in {"public", reach_of(base_host)}:
        return f"it leads to {host}, which is {_REACHES[reach]}, and the service is not"
    return None


_REACHES = {
    "loopback": "this machine itself",
    "link-local": "an address of this machine's own link",
    "private": "an address of a private network",
}


def invalid_response(answer: Answer, expected: str, problem: str, where: str = "$") -> APIResponseValidationError:
    """Return the error for a response that does not match the documentation of its endpoint."""
    beginning = answer.body[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", "replace")
    return APIResponseValidationError(
        answer.redact(problem),
        expected=expected,
        where=where,
        excerpt=answer.redact(beginning)[:_EXCERPT_CHARACTERS],
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


def error_of(answer: Answer, *, retry_after: float | None = None, keep: int | None = None) -> APIStatusError:
    """Return the error for a response with an error status; ``retry_after`` in seconds, for a 429.

    ``keep`` is the maximum number of body bytes in the error and in the answer: a longer body becomes text.
    """
    body = _readable(answer.body)
    message, request_id = _error_details(body)
    if keep is not None and len(answer.body) > keep:
        answer.body = answer.body[:keep]
        body = answer.body.decode("utf-8", "replace")
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


def is_refusal(error: BatchesError) -> TypeGuard[APIStatusError]:
    """Return True if the service refused to cancel this job: a response about the job, and not a transient failure.

    An invalid key, an unknown job, and the statuses that are retried (408, 429, 5xx) do not count.
    """
    return (
        isinstance(error, APIStatusError)
        and 400 <= error.status < 500
        and error.status not in {401, 403, 404, 408, 429}
    )


def may_have_been_taken(error: BatchesError) -> bool:
    """Return True if a cancel may have taken effect although it got this error, or no response.

    False for a refusal (a 4xx except 408), and for a request that never reached the service.
    """
    if isinstance(error, APIConnectionError):
        return error.request_sent and error.is_transient
    if isinstance(error, APIStatusError):
        return error.status == HTTPStatus.REQUEST_TIMEOUT or not 400 <= error.status < 500
    return isinstance(error, APIResponseValidationError)


def means_already_finished(error: APIStatusError) -> bool:
    """Return True if a refused cancel means that the job has already finished.

    The service answers 409; its reference lists 400 and no 409, so the same text counts under either.
    """
    return error.status == HTTPStatus.CONFLICT or (
        error.status == HTTPStatus.BAD_REQUEST and "terminal state" in error.message.lower()
    )


def _readable(body: bytes) -> object:
    try:
        return json_codec.decode(body)
    except json_codec.WireError:
        return body.decode("utf-8", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def _error_details(body: object) -> tuple[str, str | None]:
    """Return the message in an error body, and the request id in it, in any of the shapes that the service uses.

    ``{"error": "text"}`` (batches), ``{"error": {"message": …}, "id": …}`` (files and the gateway),
    ``{"code": …, "message": …, "details": […]}`` (newer services), ``{"file_id": …}`` (a file known already), text
    or HTML (the edge), XML (the storage), or an empty body.
    """
    if isinstance(body, str):
        body = body[:_PAGE_CHARACTERS]
        if re.match(r"\s*<(\?xml|Error>)", body):  # from a storage
            parts = [re.search(rf"<{name}>([^<]+)</{name}>", body) for name in ("Code", "Message", "RequestId")]
            import html  # imported here because nothing else in this package needs it

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
