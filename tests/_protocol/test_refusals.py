"""Tests of refusals: error responses as errors, and what a refused cancel means."""

from __future__ import annotations

import pytest

from tests._protocol.answers import FILE, answer, sample
from together_batches._protocol import refusals
from together_batches.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    UsageError,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, APIStatusError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, APIStatusError),
        (408, APIStatusError),
        (409, ConflictError),
        (413, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (451, APIStatusError),
        (499, APIStatusError),
        (500, InternalServerError),
        (502, InternalServerError),
        (503, InternalServerError),
        (504, InternalServerError),
        (524, InternalServerError),
        (599, InternalServerError),
    ],
)
def test_the_kind_of_an_error(status: int, kind: type[APIStatusError]) -> None:
    """Each status that requires a different reaction has its own class."""
    error = refusals.error_of(answer('{"error": "text"}', status))
    assert type(error) is kind
    assert (error.status, error.message, error.body) == (status, "text", {"error": "text"})


@pytest.mark.parametrize(
    ("case", "kind", "message", "request_id"),
    [
        ("error-a-not-found", NotFoundError, "Job not found", "oJ3xQ2k"),
        ("error-a-terminal", ConflictError, "Cannot cancel job - already in terminal state: COMPLETED", None),
        ("error-b-key-refused", AuthenticationError, "Invalid API key provided", None),
        ("error-b-with-id", InternalServerError, "internal error", "oJ3xQ2k"),
        ("error-b-file-not-found", NotFoundError, "File file-1 not found", None),
        ("error-b-too-fast", RateLimitError, "slow down", None),
        (
            "error-c",
            UnprocessableEntityError,
            "invalid argument; input_file_id is malformed; endpoint is unknown",
            None,
        ),
        ("error-d-plain", PermissionDeniedError, "error code: 1010", None),
        ("error-d-page", InternalServerError, "502 Bad Gateway", None),
        ("error-e-known-file", ConflictError, f"this content was uploaded before, as {FILE}", None),
        ("error-f-empty", InternalServerError, "Internal Server Error", None),
        ("error-storage", PermissionDeniedError, "AccessDenied: Request has expired", None),
    ],
)
def test_an_error_as_the_service_sends_it(
    case: str, kind: type[APIStatusError], message: str, request_id: str | None
) -> None:
    """Every recorded shape of an error body yields its message and its request id."""
    error = refusals.error_of(sample(case))
    assert (type(error), error.message, error.request_id) == (kind, message, request_id)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "Service Unavailable"),
        ("   \n", "Service Unavailable"),
        ("null", "Service Unavailable"),
        ("[]", "Service Unavailable"),
        ('["error"]', "Service Unavailable"),
        ("7", "Service Unavailable"),
        ("{}", "Service Unavailable"),
        ('"overloaded"', "overloaded"),
        ("overloaded", "overloaded"),
        ('{"error": null}', "Service Unavailable"),
        ('{"error": ""}', "Service Unavailable"),
        ('{"error": 7}', "Service Unavailable"),
        ('{"error": ["a", "b"]}', "Service Unavailable"),
        ('{"error": {}}', "Service Unavailable"),
        ('{"error": {"message": null, "type": "server_error"}}', "Service Unavailable"),
        ('{"error": {"message": ["a"]}}', "Service Unavailable"),
        ('{"error": null, "message": "overloaded"}', "overloaded"),
        ('{"code": 14, "message": "overloaded"}', "overloaded"),
        ('{"code": 14, "message": "overloaded", "details": null}', "overloaded"),
        ('{"code": 14, "message": "overloaded", "details": [null, {}, {"detail": "x"}]}', "overloaded; x"),
        ('{"code": 14, "details": [{"detail": "x"}]}', "x"),
        ('{"file_id": 7}', "Service Unavailable"),
        ("<h1>Over\n<b>loaded</b></h1>", "Over loaded"),
        ("<TITLE lang=en>Over\tloaded</TITLE><p>more", "Over loaded"),
        ("<html><body></body></html>", "Service Unavailable"),
        ("x" * 5_000, "x" * 300),
    ],
    ids=lambda value: value[:40],
)
def test_the_text_of_an_error(body: str, message: str) -> None:
    """The message is the service's text in one line, otherwise the name of the status."""
    assert refusals.error_of(answer(body, 503)).message == message


def test_a_status_without_a_name() -> None:
    """An error with an unnamed status and no body has a generic message."""
    assert refusals.error_of(answer("", 524)).message == "no reason given"


@pytest.mark.parametrize("page", ["<title>" * 100_000, "<" * 700_000, "<title " * 100_000], ids=lambda page: page[:8])
def test_a_malicious_page_takes_no_time(page: str) -> None:
    """Half a megabyte of unfinished tags is parsed in time (the suite's time limit is the bar)."""
    assert refusals.error_of(answer(page, 502)).status == 502


def test_bytes_that_are_no_text() -> None:
    """Bytes that are not text are shown as far as possible."""
    assert refusals.error_of(answer(b"\xff\xfenope", 500)).message == "\N{REPLACEMENT CHARACTER}" * 2 + "nope"


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ('{"error": "x", "request_id": "body"}', "body"),
        ('{"error": {"message": "x"}, "id": "body"}', "body"),
        ('{"error": "x"}', "header"),
        ('{"error": "x", "request_id": ""}', "header"),
        ('{"error": "x", "request_id": 7}', "header"),
        ("<html>", "header"),
    ],
)
def test_the_request_id_of_an_error(body: str, request_id: str) -> None:
    """The request id in the body, which is the service's own, takes precedence over that of the headers."""
    error = refusals.error_of(answer(body, 500, {"x-request-id": "header"}))
    assert error.request_id == request_id
    assert f"(request id {request_id})" in str(error)


def test_a_rate_limit_carries_the_wait() -> None:
    """The error for a 429 has the wait in seconds."""
    error = refusals.error_of(sample("error-b-too-fast"), retry_after=2.5)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 2.5


@pytest.mark.parametrize(
    ("case", "finished"),
    [
        ("error-a-terminal", True),
        ("error-a-terminal-as-documented", True),
        ("error-e-known-file", True),
        ("error-a-not-found", False),
        ("error-c", False),
    ],
)
def test_a_refused_cancel_that_means_finished(case: str, *, finished: bool) -> None:
    """A 409 means finished, and so does a 400 whose text says so, because the reference lists no 409."""
    assert refusals.means_already_finished(refusals.error_of(sample(case))) is finished


@pytest.mark.parametrize(
    ("status", "text", "finished"),
    [
        (409, "whatever", True),
        (400, "Already in TERMINAL STATE: EXPIRED", True),
        (400, "invalid id", False),
        (404, "terminal state", False),
        (500, "terminal state", False),
    ],
)
def test_only_a_refusal_can_mean_finished(status: int, text: str, *, finished: bool) -> None:
    """The text without a fitting status does not mean finished."""
    assert refusals.means_already_finished(refusals.error_of(answer(f'{{"error": "{text}"}}', status))) is finished


@pytest.mark.parametrize(
    ("status", "refusal"),
    [(400, True), (402, True), (405, True), (409, True), (410, True), (422, True)]
    + [(status, False) for status in (401, 403, 404, 408, 429, 500, 503, 599)],
)
def test_what_refuses_to_cancel_a_job(status: int, *, refusal: bool) -> None:
    """A refused key, an unknown job and a transient failure do not count as a refusal to cancel the job."""
    assert refusals.is_refusal(APIStatusError("no", status=status)) is refusal
    assert not refusals.is_refusal(UsageError("closed"))


def test_an_error_keeps_no_more_of_a_body_than_it_may() -> None:
    """The message of a truncated body is still found; the body in the error becomes text."""
    refused = answer('{"error": "no", "request_id": "r-1", "page": "' + 5_000 * "x" + '"}', 400)
    error = refusals.error_of(refused, keep=100)
    assert (error.message, error.request_id) == ("no", "r-1")
    assert isinstance(error.body, str)
    assert len(error.body) == len(refused.body) == 100
