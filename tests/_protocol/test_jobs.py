"""Tests of the endpoints: requests as values, and responses as values or errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import stable

from tests._protocol.answers import FILE, ID, URL, answer, sample
from together_batches._protocol import jobs as job_protocol
from together_batches.errors import (
    APIResponseValidationError,
    JobNotCreatedError,
    UsageError,
)
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from together_batches._protocol.jobs import Request

# --- requests -----------------------------------------------------------------------------------------------------


def _facts(request: Request) -> tuple[str, str, bool, bytes | None]:
    return request.method, request.path, request.repeatable, request.body


def test_retrieve() -> None:
    """A retrieve is a bare GET that may be repeated."""
    assert _facts(job_protocol.retrieve(ID)) == ("GET", f"/batches/{ID}", True, None)


def test_list() -> None:
    """A list request has no parameters."""
    assert _facts(job_protocol.list_jobs()) == ("GET", "/batches", True, None)


def test_cancel() -> None:
    """A cancel is a POST without a body that may be repeated, because a second one has no further effect."""
    assert _facts(job_protocol.cancel(ID)) == ("POST", f"/batches/{ID}/cancel", True, None)


def _create(input_file_id: Any = FILE, **fields: Any) -> Request:
    defaults = {
        "endpoint": "/v1/chat/completions",
        "completion_window": None,
        "model_id": None,
        "priority": None,
    }
    return job_protocol.create(input_file_id, **{**defaults, **fields})


def test_create() -> None:
    """A create is a POST that must not be repeated; omitted arguments are not sent."""
    body = b'{"input_file_id":"file-1","endpoint":"/v1/chat/completions"}'
    assert _facts(_create("file-1")) == ("POST", "/batches", False, body)


def test_create_with_everything() -> None:
    """A priority of 0 is sent."""
    request = _create("file-1", endpoint="/e", completion_window="24h", model_id="m", priority=0)
    assert request.body == (
        b'{"input_file_id":"file-1","endpoint":"/e","completion_window":"24h","model_id":"m","priority":0}'
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        *(
            ({name: ""}, f"{name} must be text that is not empty")
            for name in ("input_file_id", "endpoint", "model_id")
        ),
        *(({name: 7}, f"{name} must be text that is not empty") for name in ("input_file_id", "endpoint")),
        ({"input_file_id": "  \n"}, "input_file_id must be text that is not empty"),
        ({"input_file_id": None}, "input_file_id must be text that is not empty"),
        ({"endpoint": None}, "endpoint must be text that is not empty"),
        ({"input_file_id": "\ud800"}, "cannot be written as JSON"),
        ({"completion_window": 24}, "completion_window must be text that is not empty"),
        ({"model_id": b"m"}, "model_id must be text that is not empty"),
        ({"priority": "1"}, "priority must be a whole number"),
        ({"priority": 1.0}, "priority must be a whole number"),
        ({"priority": float("nan")}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
    ],
    ids=ascii,
)
def test_what_cannot_be_created(fields: dict[str, Any], reason: str) -> None:
    """An invalid argument is refused before anything is sent."""
    with pytest.raises(UsageError, match=reason):
        _create(**fields)


# --- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "path"),
    [
        (ID, ID),
        ("batch_job_7", "batch_job_7"),
        ("a/b", "a%2Fb"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("a%b", "a%25b"),
        ("%2e%2e", "%252e%252e"),
        ("../files", "..%2Ffiles"),
        ("...", "..."),
        ("a b", "a%20b"),
        ("a\nb", "a%0Ab"),
        ("a\0b", "a%00b"),
        ("ä", "%C3%A4"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("a;b=c,d:e@f", "a%3Bb%3Dc%2Cd%3Ae%40f"),
        ("a\\b", "a%5Cb"),
    ],
    ids=ascii,
)
def test_an_id_is_opaque(job: str, path: str) -> None:
    """Any id becomes one step of the path and changes no other."""
    assert job_protocol.job_id(job) == job
    assert job_protocol.retrieve(job).path == f"/batches/{path}"
    assert job_protocol.cancel(job).path == f"/batches/{path}/cancel"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: text.strip() not in {"", ".", ".."}
    )
)
def test_any_id_arrives_as_it_was(job: str) -> None:
    """The service decodes exactly the id that was passed, without the white space around it."""
    path = job_protocol.retrieve(job_protocol.job_id(job)).path
    assert path.isascii()
    assert path.count("/") == 2
    assert unquote(path.removeprefix("/batches/"), errors="strict") == job.strip()


def test_a_job_serves_as_an_id() -> None:
    """A job is accepted instead of an id."""
    assert job_protocol.job_id(BatchJob(id=ID)) == ID


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("", "a job id is empty"),
        (" ", "a job id is empty"),
        ("\t\r\n", "a job id is empty"),
        ("\u2003", "a job id is empty"),
        (BatchJob(id=""), "a job id is empty"),
        (".", "invalid job id '.'"),
        ("..", "invalid job id '..'"),
        (BatchJob(id=".."), "invalid job id '..'"),
        ("a\ud800b", "it is not text that can be sent"),
        (None, "a job id is text or a BatchJob, not NoneType"),
        (7, "a job id is text or a BatchJob, not int"),
        (b"a", "a job id is text or a BatchJob, not bytes"),
        (["a"], "a job id is text or a BatchJob, not list"),
    ],
    ids=ascii,
)
def test_what_is_no_id(job: Any, reason: str) -> None:
    """An id that would change the path's meaning is refused before anything is sent."""
    with pytest.raises(UsageError, match=reason):
        job_protocol.job_id(job)


# --- raw requests -------------------------------------------------------------------------------------------------


def _raw(method: Any = "GET", path: Any = "/batches", *, json: Any = None, params: Any = None) -> Request:
    return job_protocol.raw(method, path, json=json, params=params)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/batches", "/batches"),
        ("/v1/batches", "/batches"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1?a=1", "?a=1"),
        ("/v1beta/batches", "/v1beta/batches"),
        ("/v10", "/v10"),
        ("/files/a%2Fb/content?x=1&y=a+b", "/files/a%2Fb/content?x=1&y=a+b"),
        ("/files/ä", "/files/%C3%A4"),
        ("/a..b/...", "/a..b/..."),
        ("/batches?next=/../x", "/batches?next=/../x"),
    ],
)
def test_a_raw_path(path: str, sent: str) -> None:
    """A raw path is within the API, with or without its prefix; encoded parts stay unchanged."""
    assert _raw(path=path).path == sent


@pytest.mark.parametrize(
    "path",
    [
        "",
        "batches",
        "https://evil.example/v1/batches",
        "//evil.example/batches",
        "@evil.example",
        "/../admin",
        "/v1/../admin",
        "/batches/..",
        "/batches/./x",
        "/%2e%2e/admin",
        "/batches/%2E./x",
        "/a b",
        "/a\r\nHost: evil.example",
        "/a\tb",
        "/a\\..\\b",
        "/a#b",
        "/a\0",
        "/a\ud800",
        None,
        b"/batches",
    ],
    ids=ascii,
)
def test_a_raw_path_that_leads_elsewhere(path: Any) -> None:
    """A path that leads out of the API is refused before anything is sent."""
    with pytest.raises(UsageError, match="path must begin with one / and stay within the API"):
        _raw(path=path)


@pytest.mark.parametrize("method", ["", "TRACE", "GET /x HTTP/1.1\r\nA: b", "CONNECT", None, 7], ids=repr)
def test_what_is_no_method(method: object) -> None:
    """An unsupported method, or one with headers smuggled in, is refused."""
    with pytest.raises(UsageError, match="method must be an HTTP method"):
        _raw(method)


@pytest.mark.parametrize(
    ("method", "repeatable"),
    [
        ("GET", True),
        ("head", True),
        ("OPTIONS", True),
        ("POST", False),
        ("put", False),
        ("PATCH", False),
        ("DELETE", False),
    ],
)
def test_only_what_reads_is_repeated(method: str, *, repeatable: bool) -> None:
    """Only a raw request with a method that reads is repeated, because nothing else is known of it."""
    assert _raw(method).repeatable is repeatable
    assert _raw(method).method == method.upper()


def test_a_raw_body_and_parameters() -> None:
    """The body is encoded; parameters are appended to those of the path."""
    request = _raw("POST", "/files?a=1", json={"x": [1, None]}, params={"b": "ä&c", "d": 2})
    assert request.path == "/files?a=1&b=%C3%A4%26c&d=2"
    assert request.body == b'{"x":[1,null]}'
    assert _raw(params={"b": "c"}).path == "/batches?b=c"
    assert _raw("POST", json=[]).body == b"[]"


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}], ids=stable)
def test_what_is_no_json_is_not_sent(value: object) -> None:
    """A value that is not JSON is refused, and nothing is sent in its place."""
    with pytest.raises(UsageError, match="the request cannot be written as JSON"):
        _raw("POST", json=value)


@pytest.mark.parametrize("params", [7, "a=b", {"a": "\ud800"}], ids=ascii)
def test_what_are_no_parameters(params: object) -> None:
    """Invalid parameters raise one clear error."""
    with pytest.raises(UsageError, match="params must be a mapping"):
        _raw(params=params)


# --- a response ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-request-id": "a", "x-together-traceid": "b", "cf-ray": "c"}, "a"),
        ({"x-together-traceid": "b", "cf-ray": "c"}, "b"),
        ({"cf-ray": "c"}, "c"),
        ({"x-request-id": "", "cf-ray": "c"}, "c"),
    ],
)
def test_the_name_of_a_request(headers: dict[str, str], request_id: str | None) -> None:
    """The request id is the service's own, otherwise that of a gateway in front of it."""
    assert answer(b"", headers=headers).request_id == request_id


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Mon, 14 Sep 2026 12:00:00 GMT", datetime(2026, 9, 14, 12, tzinfo=UTC)),
        ("Mon, 14 Sep 2026 12:00:00 -0000", datetime(2026, 9, 14, 12, tzinfo=UTC)),
        ("Mon, 14 Sep 2026 14:00:00 +0200", datetime(2026, 9, 14, 12, tzinfo=UTC)),
        ("", None),
        ("soon", None),
        ("Mon, 99 Sep 2026 12:00:00 GMT", None),
        ("Mon, 14 Sep 99999 12:00:00 GMT", None),
        ("Mon, 14 Sep 2026 12:00:00 +99999999999999", None),
    ],
)
def test_the_service_s_own_clock(date: str, expected: datetime | None) -> None:
    """The service's clock is an aware time, or None if it is absent or invalid."""
    assert answer(b"", headers={"Date": date}).date == expected
    assert answer(b"").date is None


def test_neither_answers_nor_requests_show_what_is_in_them() -> None:
    """The repr of requests and responses contains no headers and no bodies, so that no log does."""
    shown = repr(answer(b"secret", headers={"set-cookie": "secret"})) + repr(_create("secret"))
    assert "secret" not in shown


# --- jobs in responses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("retrieve-in-progress", "IN_PROGRESS"),
        ("retrieve-completed", "COMPLETED"),
        ("retrieve-failed", "FAILED"),
        ("retrieve-expired", "EXPIRED"),
        ("cancel-accepted", "CANCELING"),
        ("cancel-done-with-nulls", "CANCELLED"),
        ("cancel-done-with-zero-time", "CANCELLED"),
    ],
)
def test_a_job_as_the_service_sends_it(case: str, status: str) -> None:
    """Every recorded job is read."""
    job = job_protocol.read_job(sample(case), ID)
    assert (job.id, job.status) == (ID, status)
    assert isinstance(job.status, BatchJobStatus)
    assert job.extra == {}


def test_nothing_is_nothing_in_a_job_either() -> None:
    """Null, empty and zero, as recorded, are absent values."""
    job = job_protocol.read_job(sample("cancel-done-with-nulls"), ID)
    assert (job.completed_at, job.output_file_id, job.error_file_id) == (None, None, None)
    assert job_protocol.read_job(sample("cancel-done-with-zero-time"), ID).completed_at is None


_NO_JOBS = [
    ("", "an empty body", "$"),
    ("null", "null instead of an object", "$"),
    ("[]", "a list instead of an object", "$"),
    ('"ok"', "text instead of an object", "$"),
    ("true", "true or false instead of an object", "$"),
    ("200", "a number instead of an object", "$"),
    ("{}", "no id", "$.id"),
    ('{"id": null, "status": "CANCELLED"}', "no id", "$.id"),
    ('{"id": "", "status": "CANCELLED"}', "no id", "$.id"),
    ('{"id": 7}', "a number instead of an id", "$.id"),
    ('{"status": "CANCELLED"}', "no id", "$.id"),
    ('{"error": "internal error"}', "no id", "$.id"),
    ('{"job": {"status": "CANCELLED"}}', "no id", "$.job.id"),
    ('{"job": null}', "no id", "$.id"),
    (f'{{"id": "{ID}"', "invalid JSON", "$"),
    ("<html><title>Welcome</title></html>", "invalid JSON", "$"),
    ("[" * 10_000, "invalid JSON", "$"),
    ('{"id": "another"}', "it is about job 'another'", "$.id"),
]


@pytest.mark.parametrize(("body", "problem", "where"), _NO_JOBS, ids=lambda value: value[:30])
def test_an_answer_that_is_not_the_job(body: str, problem: str, where: str) -> None:
    """The error contains the request, the problem and its place, the start of the body, and the request id."""
    with pytest.raises(APIResponseValidationError) as caught:
        job_protocol.read_job(answer(body, headers={"x-request-id": "oJ3x"}), ID)
    error = caught.value
    assert (error.message, error.where, error.expected) == (problem, where, f"batch job {ID}")
    assert (error.status, error.request_id, error.method, error.url) == (200, "oJ3x", "GET", URL)
    assert error.excerpt == body[:120]


@pytest.mark.parametrize("body", [f'{{"id": "{ID.upper()}"}}', f'{{"job": {{"id": "{ID}"}}, "warning": null}}'])
def test_the_same_job_in_other_clothes(body: str) -> None:
    """A job is read with its id in the other letter case, and in an envelope."""
    assert job_protocol.read_job(answer(body), ID).id.lower() == ID


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        ("", True),
        (" \r\n", True),
        ("{}", True),
        ('{"status": "CANCELING"}', True),
        ('{"job": null, "error": null}', True),
        ('{"error": "internal error"}', False),
        ("[]", False),
        ("null", False),
        ("OK", False),
        ("<html><title>Welcome</title></html>", False),
    ],
)
def test_a_good_answer_to_a_cancel_that_has_no_job(body: str, *, accepted: bool) -> None:
    """A 2xx without a job is accepted if an API may have sent it; not if it names an error or is from elsewhere."""
    found = job_protocol.read_cancelled(answer(body), ID)
    assert isinstance(found, job_protocol.NoJob)
    assert found.accepted is accepted
    assert found.error.expected == f"batch job {ID}"
    with pytest.raises(APIResponseValidationError) as caught:
        job_protocol.read_cancelled(answer('{"id": "another"}'), ID)
    assert caught.value.message == "it is about job 'another'"


def test_an_answer_of_bytes_is_quoted_as_text() -> None:
    """A body that is not text is quoted as text, up to a maximum length."""
    with pytest.raises(APIResponseValidationError) as caught:
        job_protocol.read_job(answer(b"\xff\xfe" * 1000), ID)
    assert caught.value.excerpt == "\N{REPLACEMENT CHARACTER}" * 120


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_list_as_the_service_sends_it() -> None:
    """A list keeps the order of the service, without selection or sorting."""
    assert [job.status for job in job_protocol.read_jobs(sample("list-two"))] == ["COMPLETED", "CANCELLED"]
    assert [job.id for job in job_protocol.read_jobs(sample("list-in-data"))] == [ID]


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "[]",
        '{"data": [], "has_more": false}',
        '{"data": []}',
        '{"data": null}',
        '{"object": "list", "data": []}',
    ],
)
def test_an_empty_account(body: str) -> None:
    """An empty account is a literal null, as recorded, an empty list, or an object with either."""
    assert job_protocol.read_jobs(answer(body)) == []
    assert job_protocol.read_jobs(sample("list-empty-account")) == []


@pytest.mark.parametrize(
    ("body", "problem", "where"),
    [
        ("", "an empty body", "$"),
        ("7", "a number instead of a list", "$"),
        ('"none"', "text instead of a list", "$"),
        ("{}", "an object instead of a list", "$"),
        ('{"error": "internal error"}', "an object instead of a list", "$"),
        ('{"data": {}}', "an object instead of a list", "$"),
        ('{"data": 7}', "a number instead of a list", "$"),
        ("[null]", "null instead of an object", "$[0]"),
        ("[[]]", "a list instead of an object", "$[0]"),
        ('[{}, {"id": 7}]', "no id", "$[0].id"),
        ("<html></html>", "invalid JSON", "$"),
        (
            '{"data": [{"id": "a"}], "has_more": true}',
            "it is only a part of one, and no paging is known",
            "$.has_more",
        ),
    ],
)
def test_an_answer_that_is_no_list(body: str, problem: str, where: str) -> None:
    """The path in the error counts the entries."""
    with pytest.raises(APIResponseValidationError) as caught:
        job_protocol.read_jobs(answer(body))
    assert (caught.value.message, caught.value.where) == (problem, where)
    assert caught.value.expected == "a list of batch jobs"


def test_an_entry_that_is_no_job_does_not_cost_the_list(caplog: pytest.LogCaptureFixture) -> None:
    """An invalid entry is omitted, and the log has its position and the reason."""
    body = '[{"id": "a"}, {"id": 7}, {"id": "b", "created_at": 7}, {}]'
    assert [job.id for job in job_protocol.read_jobs(answer(body))] == ["a", "b"]
    assert caplog.messages == [
        f"an entry of a list of batch jobs is left out, since it cannot be read: {problem}"
        for problem in ("a number instead of an id at $[1].id", "no id at $[3].id")
    ]


# --- created jobs -------------------------------------------------------------------------------------------------


def test_a_created_job() -> None:
    """A created job is taken from its envelope, with unknown fields in ``extra``."""
    job = job_protocol.read_created(sample("create-accepted"), FILE)
    assert (job.id, job.status, job.warning) == (ID, "VALIDATING", None)
    assert job.extra == {"project_id": "proj-example", "organization_id": "org-example"}


def test_advice_is_in_the_job() -> None:
    """The envelope's warning is in the job."""
    assert (
        job_protocol.read_created(sample("create-with-warning"), FILE).warning == "this model has no batch discount"
    )


@pytest.mark.parametrize("warning", ["null", '""', "7", "[]", '{"a": 1}'])
def test_advice_that_is_none(warning: str) -> None:
    """An invalid warning does not affect the job."""
    body = f'{{"job": {{"id": "a"}}, "warning": {warning}}}'
    assert job_protocol.read_created(answer(body, 201), FILE) == BatchJob(id="a")


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        ('{"job": null}', None),
        ('{"job": null, "warning": null}', None),
        ('{"job": null, "warning": ""}', None),
        ('{"job": null, "warning": 7}', None),
        ('{"job": null, "warning": "quota"}', "quota"),
    ],
)
def test_a_job_that_was_not_created(body: str, warning: str | None) -> None:
    """A null job is a refusal by the service, with its reason if it has one."""
    with pytest.raises(JobNotCreatedError) as caught:
        job_protocol.read_created(answer(body), FILE)
    assert caught.value.warning == warning


def test_a_declined_job_as_recorded() -> None:
    """The error contains the recorded reason."""
    with pytest.raises(JobNotCreatedError, match="the queue for this model is full"):
        job_protocol.read_created(sample("create-declined"), FILE)


@pytest.mark.parametrize(
    ("body", "problem", "where"),
    [
        ("", "an empty body", "$"),
        ("null", "null instead of an object", "$"),
        ("[]", "a list instead of an object", "$"),
        ("{}", 'there is no "job"', "$"),
        ('{"id": "a"}', 'there is no "job"', "$"),
        ('{"warning": "quota"}', 'there is no "job"', "$"),
        ('{"job": []}', "a list instead of an object", "$.job"),
        ('{"job": false}', "true or false instead of an object", "$.job"),
        ('{"job": {}}', "no id", "$.job.id"),
        ('{"job": {"id": ""}}', "no id", "$.job.id"),
        ('{"job": {"id": "a", "input_file_id": "other"}}', "it is about file 'other'", "$.job.input_file_id"),
        ("<html></html>", "invalid JSON", "$"),
    ],
)
def test_an_answer_that_is_no_created_job(body: str, problem: str, where: str) -> None:
    """An invalid response to a create does not show whether a job exists, so the caller has to check."""
    with pytest.raises(APIResponseValidationError) as caught:
        job_protocol.read_created(answer(body, 201), FILE)
    assert (caught.value.message, caught.value.where, caught.value.status) == (problem, where, 201)


@pytest.mark.parametrize(
    ("request_", "megabytes"),
    [
        (job_protocol.list_jobs(), 256),
        (job_protocol.raw("GET", "/batches?x=1", json=None, params=None), 256),
        (job_protocol.raw("GET", "/v1/files/", json=None, params=None), 256),
        (job_protocol.retrieve("job-1"), 16),
        (job_protocol.raw("GET", "/models", json=None, params=None), 16),
    ],
)
def test_only_lists_may_be_long(request_: job_protocol.Request, megabytes: int) -> None:
    """Only a list may exceed the usual limit, because the service has no pages."""
    assert request_.most_bytes == megabytes << 20
