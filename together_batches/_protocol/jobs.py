"""Each endpoint as a request value, each response as a value or an error. Pure: no I/O and no waiting."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import quote, urlencode

import attrs

from together_batches._protocol import job_codec, json_codec
from together_batches._protocol.paging import sign_in_headers
from together_batches._protocol.refusals import readable
from together_batches.errors import (
    APIResponseValidationError,
    JobNotCreatedError,
    UsageError,
)
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from together_batches.config import Secret

T = TypeVar("T")

EXCERPT_BYTES = 1 << 16
"""Maximum bytes of a refusal that are read and kept."""
_MOST_BYTES = 16 << 20
_MOST_BYTES_OF_A_LIST = 256 << 20
_log = logging.getLogger("together_batches")
_EXCERPT_CHARACTERS = 120


# Neither changes once created. They are not frozen because that doubles the cost of creating them, and each call
# creates two.
@attrs.define(eq=False)
class Request:
    """One call of the service.

    ``path`` is percent-encoded and comes after the base URL. ``repeatable`` means that sending it twice has the
    effect of sending it once, so that it may be sent again if its response is lost. ``most_bytes`` is the maximum
    size of a successful response, decoded. With ``target`` the call goes to that URL (presigned, and so a secret) and
    not to the service, without the key; ``path`` is then the part that may be shown.
    """

    method: str
    path: str
    repeatable: bool
    body: bytes | None = attrs.field(default=None, repr=False)
    most_bytes: int = attrs.field(default=_MOST_BYTES, repr=False)
    target: Secret | None = attrs.field(default=None, repr=False)


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
        return date_of(self.headers.get("Date"))

    def close(self) -> None:
        """Release the connection, if the body has not arrived yet; here it has."""


def date_of(header: str | None) -> datetime | None:
    """Return the date in a header; None if it is absent or invalid."""
    try:
        date = parsedate_to_datetime(header or "")
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


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
    # No id of the service has white space around it; a line of a file has its line end.
    value = value.strip()
    if not value:
        message = f"a {kind} id is empty"
        raise UsageError(message)
    if value in {".", ".."}:
        message = f"invalid {kind} id {value!r}"
        raise UsageError(message)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"invalid {kind} id {value!r}: it is not text that can be sent"
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
    said = readable(body)
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
            raise invalid_response(answer, what, f"{json_codec.kind(value)} instead of an object")
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
