"""Refusals of the service: error responses as errors, and what a refused cancel means."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from together_batches._protocol import json_codec
from together_batches.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from together_batches._protocol.jobs import Answer

_PAGE_CHARACTERS = 4_000
"""Maximum characters of a page that are searched for a message: the patterns take quadratic time on other text."""
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
    body = readable(answer.body)
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
    """Return True if a request may have taken effect although it got this error, or no response.

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


def readable(body: bytes) -> object:
    """Return the JSON value in a body, or its text."""
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
        return _details_of_page(body[:_PAGE_CHARACTERS])
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


def _details_of_page(page: str) -> tuple[str, str | None]:
    """Return the same for a body that is text: XML, HTML, or anything else."""
    if re.match(r"\s*<(\?xml|Error>)", page):  # from a storage
        parts = [re.search(rf"<{name}>([^<]+)</{name}>", page) for name in ("Code", "Message", "RequestId")]
        import html  # imported here because nothing else in this package needs it

        code, why, request = (html.unescape(part[1]).strip() if part else "" for part in parts)
        if code or why:
            return ": ".join(part for part in (code, why) if part)[:300], request or None
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    text = title.group(1) if title else re.sub(r"<[^>]*>", " ", page)
    return " ".join(text.split())[:300], None
