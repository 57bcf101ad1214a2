"""Responses, and the error format of each part of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from together_batches.emulator._content import Content
    from together_batches.emulator._routes import Route

__all__ = ["ERROR_TEXTS", "Refusal", "Reply", "json_reply", "refused"]

ERROR_TEXTS = {
    400: "bad request",
    401: "Unauthorized",
    403: "forbidden",
    404: "Job not found",
    429: "too many requests",
    500: "internal error",
}
ERROR_TYPES = {401: "invalid_request_error", 404: "not_found", 429: "rate_limit"}
STORAGE_CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a fault of this program
    """A refusal by the service: an HTTP status and a text, in the format of the part that was called.

    ``code`` is the error code of the storage.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code


class Reply(NamedTuple):
    """A response. With ``gzip`` the body is compressed while it is sent, and its length is not announced."""

    status: int
    body: bytes | Content
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    gzip: bool = False


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a value as a JSON response."""
    return Reply(status, msgspec.json.encode(value))


def refused(route: Route, status: int, message: str, request_id: str, code: str = "") -> Reply:
    """Return an error in the format of this part of the service.

    It is XML for the storage, a text for batches, an object for everything else.
    """
    if route.about_storage:
        code = code or STORAGE_CODES.get(status, "BadRequest" if status < 500 else "ServiceUnavailable")
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>{request_id}</RequestId></Error>"
        )
        return Reply(status, text.encode(), "application/xml")
    if route.about_batches:
        # The request id in the body was seen with 404 and not with 409; the real service is no more regular.
        return json_reply(
            {"error": message, "request_id": request_id} if status == 404 else {"error": message}, status
        )
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return json_reply({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
