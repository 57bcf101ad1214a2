"""The texts and fields of errors. Their class tree is tested in contracts/test_error_tree.py."""

from __future__ import annotations

import pytest

from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    RateLimitError,
    ResultsUnavailableError,
    ValidationError,
    WaitTimeoutError,
)
from together_batches.models import BatchJob

_URL = "https://api.together.ai/v1/batches/x"


def test_a_status_error_reads_as_a_sentence() -> None:
    """The text of a status error has the request, the status, the reason and the request id."""
    error = NotFoundError("Job not found", status=404, request_id="oJ3x", body={"error": 1}, method="GET", url=_URL)
    assert str(error) == f"the service answered 404 to GET {_URL}: Job not found (request id oJ3x)"
    assert (error.status, error.message, error.request_id) == (404, "Job not found", "oJ3x")
    assert (error.body, error.method, error.url) == ({"error": 1}, "GET", _URL)


def test_a_status_error_says_only_what_it_knows() -> None:
    """Without a request id and a request, the text of a status error is shorter, without gaps."""
    assert str(APIStatusError("I'm a teapot", status=418)) == "the service answered 418: I'm a teapot"


def test_a_rate_limit_is_a_429_with_the_wait_that_was_asked_for() -> None:
    """A 429 is a :class:`RateLimitError`; ``retry_after`` is in seconds, or None if the service sent none."""
    error = RateLimitError("slow down", retry_after=2.5)
    assert (error.status, error.retry_after) == (429, 2.5)
    assert RateLimitError("slow down").retry_after is None


def test_an_answer_that_is_none_says_what_was_wrong_where() -> None:
    """The text of an invalid response has the path in it, the beginning of the body and the request id."""
    error = APIResponseValidationError(
        "a number instead of a time",
        expected="a list of batch jobs",
        where="$[3].created_at",
        excerpt='[{"id"',
        method="GET",
        url=_URL,
        status=200,
        request_id="oJ3x",
    )
    assert str(error) == (
        f"the answer to GET {_URL} is not a list of batch jobs: a number instead of a time at $[3].created_at; "
        "it began '[{\"id\"' (request id oJ3x)"
    )
    assert (error.expected, error.where, error.excerpt) == ("a list of batch jobs", "$[3].created_at", '[{"id"')
    assert (error.status, error.request_id) == (200, "oJ3x")


def test_a_connection_error_says_whether_the_request_may_have_arrived() -> None:
    """By default a connection error means that the request may have been sent; its creator can exclude that."""
    assert APIConnectionError("the connection broke").request_sent is True
    assert APIConnectionError("refused", request_sent=False).request_sent is False


@pytest.mark.parametrize(
    "error",
    [
        APIConnectionError("no connection"),
        APITimeoutError("no answer"),
        NotFoundError("no job", status=404),
        APIResponseValidationError("no JSON", expected="a job"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_added_to_the_message_is_shown(error: APIConnectionError) -> None:
    """A note that is added to the message, such as why retries ended, is in the text."""
    error.message += "; given up after 5 attempts"
    assert "; given up after 5 attempts" in str(error)


@pytest.mark.parametrize("error", [APITimeoutError("no answer"), WaitTimeoutError("still running")], ids=repr)
def test_a_timeout_is_a_timeout_error_and_keeps_its_text(error: Exception) -> None:
    """``except TimeoutError`` catches an API timeout, and ``OSError``'s fields do not alter its text."""
    assert isinstance(error, TimeoutError)
    assert str(error) == error.args[0]


def test_a_job_that_was_not_created_says_the_service_s_reason() -> None:
    """The error of a job that was not created has the service's reason, or says that there is none."""
    assert str(JobNotCreatedError("quota")) == "the service created no job: quota"
    assert str(JobNotCreatedError()) == "the service created no job: it gave no reason"
    assert JobNotCreatedError().warning is None


def test_facts_are_kept_as_tuples() -> None:
    """Fields of any iterable are kept as tuples."""
    jobs = [BatchJob(id="a"), BatchJob(id="b")]
    assert CreateUnconfirmedError("?", input_file_id="f", candidates=iter(jobs)).candidates == tuple(jobs)
    assert WaitTimeoutError("?", jobs=iter(jobs)).jobs == tuple(jobs)
    assert ValidationError("?", problems=iter(["line 1: no"])).problems == ("line 1: no",)
    assert ResultsUnavailableError("?", file_ids=iter(["file-1", "file-2"])).file_ids == ("file-1", "file-2")


def test_results_that_are_unavailable_name_what_is_known() -> None:
    """The error of unavailable results has no job if only its file is known, and no file if the job names none."""
    error = ResultsUnavailableError("the results are absent", job_id="job-1")
    assert (str(error), error.job_id, error.file_ids) == ("the results are absent", "job-1", ())
    assert ResultsUnavailableError("file-1 is cut", file_ids=["file-1"]).job_id is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIError("the way there failed"), True),
        (APIConnectionError("no connection"), True),
        (APITimeoutError("no answer"), True),
        (APIResponseValidationError("no JSON", expected="a job"), True),
        (InternalServerError("in trouble", status=503), True),
        (APIStatusError("too late", status=408), True),
        (RateLimitError("slow down"), True),
        (NotFoundError("no job", status=404), False),
        (BadRequestError("what?", status=400), False),
        (APIStatusError("see other", status=303), False),
    ],
    ids=lambda value: str(getattr(value, "status", None) or type(value).__name__),
)
def test_trouble_that_may_pass(error: APIError, expected: bool) -> None:
    """``is_transient`` says if the same call may succeed later, which a 404 alone does not imply."""
    assert error.is_transient is expected


def test_data_that_is_wrong_is_a_value_error() -> None:
    """Errors about invalid data are caught by ``except ValueError``."""
    assert isinstance(ValidationError("wrong"), ValueError)
