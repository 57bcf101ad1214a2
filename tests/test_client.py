"""The client from its users' side: each verb over a real connection, on one loop, one session, one rate limiter."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import pickle
import warnings
from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock
from urllib.parse import unquote

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wires import AT_ONCE, KEY, ONCE, RawServer, clocked, http, in_virtual_time, job, shown_text, stable
from yarl import URL

from together_batches import (
    APIError,
    APIResponseValidationError,
    APIStatusError,
    AsyncBatches,
    AuthenticationError,
    BatchJob,
    BatchJobStatus,
    CancelOutcome,
    CancelResult,
    CreateUnconfirmedError,
    JobNotCreatedError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    UsageError,
)
from together_batches.emulator import Emulator, Fault, RateLimit, Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aioresponses import aioresponses

R = CancelResult
BASE = "https://api.together.invalid/v1"


@pytest.fixture
async def batches(emulator: Emulator) -> AsyncIterator[AsyncBatches]:
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as client:
        yield client


def virtual_emulator(**options: Any) -> Emulator:
    """An emulator whose clock is that of the running loop."""
    return Emulator(api_key=KEY, clock=lambda: 1_789_381_230 + asyncio.get_running_loop().time(), **options)


def requested(emulator: Emulator) -> list[str]:
    return [f"{request.method} {request.path}" for request in emulator.requests]


# --- addresses and keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_base_url_with_or_without_version_and_slash(emulator: Emulator, suffix: str) -> None:
    """The base URL is the same with or without version and trailing slash."""
    job_id = emulator.add_job()
    base_url = emulator.base_url.removesuffix("/v1") + suffix
    async with AsyncBatches(KEY, base_url=base_url) as batches:
        await batches.retrieve(job_id)
    assert requested(emulator) == [f"GET /v1/batches/{job_id}"]


async def test_a_base_url_may_have_a_path() -> None:
    """A base URL may have a path, for example that of a gateway."""
    async with RawServer(http(200, job())) as server:
        async with AsyncBatches(KEY, base_url=f"{server.origin}/gate%20way/together") as batches:
            await batches.retrieve("job-1")
        assert server.lines == ["GET /gate%20way/together/v1/batches/job-1"]


async def test_key_and_address_may_come_from_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and base URL are read from the environment when the client is made; arguments take precedence."""
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
    batches = AsyncBatches()
    monkeypatch.setenv("TOGETHER_API_KEY", "another")
    async with batches:
        assert await batches.list() == []
    async with AsyncBatches() as batches:
        with pytest.raises(AuthenticationError):
            await batches.list()
    async with AsyncBatches(KEY) as batches:
        assert await batches.list() == []


def test_without_a_key_there_is_no_client() -> None:
    """A missing key is reported in one sentence, before anything is sent."""
    with pytest.raises(UsageError, match="no API key: set TOGETHER_API_KEY, or pass api_key="):
        AsyncBatches()


def test_the_key_does_not_travel_in_the_clear_unless_told_to() -> None:
    """Plain HTTP is accepted for this machine only, unless it is allowed explicitly."""
    with pytest.raises(UsageError, match="plain HTTP") as caught:
        AsyncBatches(KEY, base_url="http://gateway.invalid")
    assert KEY not in str(caught.value)
    AsyncBatches(KEY, base_url="http://gateway.invalid", allow_insecure_http=True)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        AsyncBatches(KEY, base_url=f"http://{host}:8000")


async def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment is not used for this machine, and aiohttp does not read it on its own."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=ONCE) as batches:
        assert await batches.list() == []


# --- the shape of each request --------------------------------------------------------------------------------


async def test_create_sends_what_was_given_and_no_more(answers: aioresponses) -> None:
    """Absent fields are omitted from the body of a create, not sent as null."""
    created = {"job": {"id": "job-1", "status": "VALIDATING"}, "warning": ""}
    answers.post(f"{BASE}/batches", status=201, payload=created, repeat=True)
    async with AsyncBatches(KEY, base_url=BASE) as batches:
        assert (await batches.create("file-1")).id == "job-1"
        await batches.create(
            "file-1", endpoint="/v1/audio/transcriptions", completion_window="24h", model_id="m", priority=0
        )
    first, second = answers.requests["POST", URL(f"{BASE}/batches")]
    assert msgspec.json.decode(first.kwargs["data"]) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
    }
    assert msgspec.json.decode(second.kwargs["data"]) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/audio/transcriptions",
        "completion_window": "24h",
        "model_id": "m",
        "priority": 0,
    }


async def test_the_other_verbs_send_no_body(answers: aioresponses) -> None:
    """Retrieve, list and cancel send a method and a path, and no body."""
    answers.get(f"{BASE}/batches/job-1", payload=job())
    answers.get(f"{BASE}/batches", payload=None, body="null")
    answers.post(f"{BASE}/batches/job-1/cancel", payload=job())
    async with AsyncBatches(KEY, base_url=BASE) as batches:
        await batches.retrieve("job-1")
        await batches.list()
        await batches.cancel("job-1")
    calls = [call for found in answers.requests.values() for call in found]
    assert len(calls) == 3
    assert {call.kwargs.get("data") for call in calls} == {None}


async def test_a_sequence_of_replies(answers: aioresponses) -> None:
    """Two failures and a success are one successful call."""
    url = f"{BASE}/batches/job-1/cancel"
    answers.post(url, status=503)
    answers.post(url, exception=aiohttp.ServerDisconnectedError())
    answers.post(url, payload=job(status="CANCELLED"))
    async with AsyncBatches(KEY, base_url=BASE, retry=AT_ONCE) as batches:
        assert (await batches.cancel("job-1")).status == "CANCELLED"
    assert len(answers.requests["POST", URL(url)]) == 3


ODD_IDS = {
    "a/b": "a%2Fb",
    "a?b=c": "a%3Fb%3Dc",
    "a#b": "a%23b",
    "100%": "100%25",
    "a%2Fb": "a%252Fb",
    "a b": "a%20b",
    "a+b&c": "a%2Bb%26c",
    "a\\b": "a%5Cb",
    "a:b@c": "a%3Ab%40c",
    "übung": "%C3%BCbung",
    "批": "%E6%89%B9",
    "🙂": "%F0%9F%99%82",
    "...": "...",
    "../x": "..%2Fx",
    "a\r\nX-Evil: 1": "a%0D%0AX-Evil%3A%201",
    "a\x00b": "a%00b",
    "~a-b_c.d": "~a-b_c.d",
}


@pytest.mark.parametrize(("job_id", "encoded"), ODD_IDS.items(), ids=map(repr, ODD_IDS))
async def test_ids_are_opaque(job_id: str, encoded: str) -> None:
    """Every verb percent-encodes an id once, into a single path segment."""
    async with RawServer(http(200, job(job_id))) as server, AsyncBatches(KEY, base_url=server.base_url) as batches:
        assert (await batches.retrieve(job_id)).id == job_id
        assert (await batches.cancel(job_id)).id == job_id
        assert (await batches.cancel_many([job_id])).ok
        path = f"/v1/batches/{encoded}"
        assert server.lines == [f"GET {path}", f"POST {path}/cancel", f"POST {path}/cancel"]


@pytest.mark.parametrize("wrong", ["", " ", "\t\n", ".", "..", "\ud800", None, 7, b"job-1", ["job-1"]], ids=repr)
async def test_what_cannot_be_an_id_is_refused_before_anything_is_sent(
    emulator: Emulator, batches: AsyncBatches, wrong: Any
) -> None:
    """Empty ids, dot segments and values that are not text are refused before anything is sent."""
    for verb in (batches.retrieve, batches.cancel):
        with pytest.raises(UsageError):
            await verb(wrong)
    assert (await batches.cancel_many([wrong])).counts[R.FAILED] == 1
    assert requested(emulator) == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job_id=st.text(max_size=12) | st.text("./%\\?#\r\n \x00ü", min_size=1, max_size=6))
def test_any_text_is_refused_or_arrives_as_it_is(job_id: str) -> None:
    """An id is either refused or, decoded once by the server, equal to the original without outer white space."""

    @in_virtual_time
    async def run() -> None:
        async with RawServer(http(404)) as server, clocked(server.base_url) as batches:
            outcome = next(iter(await batches.cancel_many([job_id])))
            if outcome.attempts == 0:
                assert outcome.result is R.FAILED
                assert isinstance(outcome.error, UsageError)
                assert job_id.strip() in {"", ".", ".."}
            else:
                (line,) = server.lines
                path = line.removeprefix("POST ")
                assert path.isascii()
                _, v1, collection, step, verb = path.split("/")
                assert (v1, collection, verb) == ("v1", "batches", "cancel")
                assert unquote(step) == job_id.strip()

    run()


# --- retrieve and list ----------------------------------------------------------------------------------------


async def test_retrieve(emulator: Emulator, batches: AsyncBatches) -> None:
    """``retrieve`` returns the current job, given an id or a job that was read earlier."""
    job_id = emulator.add_job(status="IN_PROGRESS", input_file_id="file-1", project_id="p-1")
    found = await batches.retrieve(job_id)
    assert (found.id, found.status, found.input_file_id) == (job_id, BatchJobStatus.IN_PROGRESS, "file-1")
    assert found.extra["project_id"] == "p-1"
    assert found.created_at is not None
    assert found.created_at.tzinfo is UTC
    emulator.advance(1000)
    assert (await batches.retrieve(found)).status == "COMPLETED"


async def test_retrieve_an_unknown_job(batches: AsyncBatches) -> None:
    """An unknown job is a 404 error with the request id from the body."""
    with pytest.raises(NotFoundError, match="Job not found") as caught:
        await batches.retrieve("no-such-job")
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)


async def test_an_account_without_jobs(batches: AsyncBatches) -> None:
    """The service answers null for an account without jobs; the client returns an empty list."""
    assert await batches.list() == []


async def test_the_newest_come_first(emulator: Emulator, batches: AsyncBatches) -> None:
    """Jobs are sorted newest first, because the service does not sort; jobs without a time come last."""
    ids = [emulator.add_job(age_seconds=age) for age in (50, 10, 90, 30)]
    timeless = emulator.add_job(created_at=None)
    expected = [ids[1], ids[3], ids[0], ids[2], timeless]
    assert [found.id for found in await batches.list()] == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abcd"),
        ({"status": "IN_PROGRESS"}, "a"),
        ({"status": BatchJobStatus.COMPLETED}, "c"),
        ({"status": ["COMPLETED", BatchJobStatus.IN_PROGRESS]}, "ac"),
        ({"status": iter(["COMPLETED"])}, "c"),
        ({"status": []}, ""),
        ({"status": "PAUSED"}, "d"),
        ({"model_id": "m-1"}, "ad"),
        ({"endpoint": "/v1/audio/transcriptions"}, "b"),
        ({"input_file_id": "file-b"}, "b"),
        ({"model_id": "m-1", "status": "PAUSED"}, "d"),
        ({"model_id": "none"}, ""),
    ],
    ids=stable,
)
async def test_jobs_can_be_chosen(
    emulator: Emulator, batches: AsyncBatches, filters: dict[str, Any], expected: str
) -> None:
    """Jobs are filtered by the client, because the service does not filter; it takes one request."""
    emulator.add_job(id="a", age_seconds=1, model_id="m-1")
    emulator.add_job(
        id="b", age_seconds=2, status="VALIDATING", input_file_id="file-b", endpoint="/v1/audio/transcriptions"
    )
    emulator.add_job(id="c", age_seconds=3, status="COMPLETED")
    emulator.add_job(id="d", age_seconds=4, status="PAUSED", model_id="m-1")
    assert "".join([found.id for found in await batches.list(**filters)]) == expected
    assert emulator.count("list") == 1


async def test_jobs_can_be_chosen_by_age(emulator: Emulator, batches: AsyncBatches) -> None:
    """Times select jobs from one moment up to before another, in any time zone; jobs without a time never match."""
    for name, created in {
        "old": "2026-09-14T10:00:00Z",
        "mid": "2026-09-14T11:00:00Z",
        "new": "2026-09-14T12:00:00Z",
    }.items():
        emulator.add_job(id=name, created_at=created)
    emulator.add_job(id="never", created_at=None)
    eleven = datetime(2026, 9, 14, 13, tzinfo=timezone(timedelta(hours=2)))

    async def chosen(**filters: datetime) -> list[str]:
        return [found.id for found in await batches.list(**filters)]

    assert await chosen(created_after=eleven) == ["new", "mid"]
    assert await chosen(created_before=eleven) == ["old"]
    assert await chosen(created_after=eleven, created_before=eleven + timedelta(hours=1)) == ["mid"]


async def test_an_age_is_measured_by_the_clock_of_the_service() -> None:
    """An age is measured by the service's clock, which may be hours off; the local clock is the fallback."""
    jobs = [job(name, created_at=f"2031-05-05T{hour}:00:00Z") for name, hour in {"old": "08", "new": "10"}.items()]
    dated = http(200, jobs, headers={"Date": "Mon, 05 May 2031 11:00:00 GMT"})
    async with (
        RawServer(dated, dated, dated, http(200, jobs)) as server,
        AsyncBatches(KEY, base_url=server.base_url) as batches,
    ):
        hours = timedelta(hours=2)
        assert [found.id for found in await batches.list(created_before=hours)] == ["old"]
        assert [found.id for found in await batches.list(created_after=hours)] == ["new"]
        assert len(await batches.list(created_after=timedelta.max, created_before=timedelta.min)) == 2
        assert await batches.list(created_before=timedelta(0)) == []


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (datetime(2026, 9, 14, 10), "has no time zone: 2026-09-14T10:00:00"),
        ("2026-09-14", "must be a datetime with a time zone, or a timedelta; it is '2026-09-14'"),
        (date(2026, 9, 14), "must be a datetime with a time zone"),
        (7_200, "must be a datetime with a time zone"),
    ],
    ids=repr,
)
async def test_a_time_that_means_no_moment_is_refused(
    emulator: Emulator, batches: AsyncBatches, name: str, wrong: Any, says: str
) -> None:
    """A time without a zone is refused, because it means another moment on each machine."""
    with pytest.raises(UsageError, match=f"{name} {says}"):
        await batches.list(**{name: wrong})
    assert requested(emulator) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 7},
        {"status": b"FAILED"},
        {"status": [None]},
        {"model_id": ["a", "b"]},
        {"model_id": ""},
        {"endpoint": 1},
    ],
    ids=str,
)
async def test_a_filter_of_another_kind_is_refused(
    emulator: Emulator, batches: AsyncBatches, wrong: dict[str, Any]
) -> None:
    """A filter of the wrong type is refused; it would match nothing and look like an account without jobs."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        await batches.list(**wrong)
    assert requested(emulator) == []


async def test_the_spelling_of_a_status(emulator: Emulator, batches: AsyncBatches) -> None:
    """A status matches in any case; one that is neither known nor present in a job is an error, not an empty list."""
    emulator.add_job(id="a", status="IN_PROGRESS")
    emulator.add_job(id="b", status="Paused")
    for status in ("in_progress", "In_Progress", ["IN_PROGRESS", "expired"]):
        assert [found.id for found in await batches.list(status=status)] == ["a"]
    assert [found.id for found in await batches.list(status="PAUSED")] == ["b"]
    assert await batches.list(status="completed") == []
    for status in ("RUNNING", "", ["IN_PROGRESS", "RUNNING"]):
        with pytest.raises(UsageError, match=r"unknown status '(RUNNING)?', and no job has it; the known"):
            await batches.list(status=status)


async def test_a_part_of_a_list_is_not_taken_for_all_of_it() -> None:
    """A partial list is an error: paging is not documented, so the rest could not be fetched."""
    page = http(200, {"data": [job()], "has_more": True})
    async with RawServer(page) as server, AsyncBatches(KEY, base_url=server.base_url) as batches:
        with pytest.raises(APIResponseValidationError, match=r"only a part .* at \$.has_more"):
            await batches.list()
        with pytest.raises(APIResponseValidationError, match="only a part"):
            await batches.files.list()


async def test_a_very_long_list() -> None:
    """A list of fifty thousand jobs does not block the loop, because it is decoded in another thread."""
    entry = b'{"id":"job-%d","status":"COMPLETED","created_at":"2026-09-14T10:00:00Z"}'
    body = b"[" + b",".join(entry % number for number in range(20_000)) + b"]"
    async with RawServer(http(200, body)) as server, AsyncBatches(KEY, base_url=server.base_url) as batches:
        assert len(await batches.list()) == 20_000


# --- create ---------------------------------------------------------------------------------------------------


async def test_create(emulator: Emulator, batches: AsyncBatches) -> None:
    """A create returns a job, with the service's advice if there is any."""
    created = await batches.create("file-unknown", completion_window="48h")
    assert (created.status, created.input_file_id) == ("VALIDATING", "file-unknown")
    assert created.warning
    emulator.advance(60)
    assert (await batches.retrieve(created)).status == "FAILED"


async def test_a_create_that_was_declined() -> None:
    """A declined create raises with the service's reason, and no job is searched for."""
    reply = http(201, {"job": None, "warning": "too many jobs"})
    async with RawServer(reply) as server, AsyncBatches(KEY, base_url=server.base_url) as batches:
        with pytest.raises(JobNotCreatedError, match="too many jobs") as caught:
            await batches.create("file-1")
    assert caught.value.warning == "too many jobs"


_LOST_CREATES = {
    "answer lost": Fault(on="create", lose="answer"),
    "request lost": Fault(on="create", lose="request"),
    "500": Fault(on="create", status=500),
    "500 that worked": Fault(on="create", status=500, acts=True),
    "502 that worked": Fault(on="create", status=502, body="<html>", content_type="text/html", acts=True),
    "504 that worked": Fault(on="create", status=504, acts=True),
    "408 that worked": Fault(on="create", status=408, acts=True),
    "409 that worked": Fault(on="create", status=409, acts=True),
    "302 that worked": Fault(on="create", status=302, headers={"Location": "/v1/batches"}, acts=True),
    "303 that worked": Fault(on="create", status=303, headers={"Location": "/v1/batches"}, acts=True),
    "307 that worked": Fault(on="create", status=307, headers={"Location": "/v1/batches"}, acts=True),
    "308 that did not": Fault(on="create", status=308, headers={"Location": "/v1/batches"}),
    "cut": Fault(on="create", cut_after=10),
    "no JSON": Fault(on="create", body=b"no JSON"),
    "no content": Fault(on="create", status=204, acts=True),
    "no id": Fault(on="create", body={"job": {"id": ""}}),
    "another file": Fault(on="create", body={"job": {"id": "job-1", "input_file_id": "file-2"}}),
    "a bare job": Fault(on="create", body={"id": "job-1", "input_file_id": "file-1"}),
    "429": Fault(on="create", status=429),
    "429 thrice": Fault(on="create", status=429, times=3, headers={"Retry-After": "0"}),
}


@pytest.mark.parametrize("fault", _LOST_CREATES.values(), ids=_LOST_CREATES)
async def test_a_create_makes_one_job_whatever_happens_to_its_answer(
    emulator: Emulator, batches: AsyncBatches, fault: Fault
) -> None:
    """A create makes exactly one job if its answer is lost, and returns that job, not an older one of the file."""
    emulator.add_job(input_file_id="file-1", age_seconds=3600)
    emulator.fail(fault)
    created = await batches.create("file-1", patience=0)
    jobs = [found for found in emulator.jobs if found["input_file_id"] == "file-1"]
    assert len(jobs) == 2
    assert created.id == jobs[1]["id"]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
async def test_a_create_that_was_refused(emulator: Emulator, batches: AsyncBatches, status: int) -> None:
    """A refused create is raised at once: no job is searched for, and nothing is sent again."""
    emulator.fail(Fault(on="create", status=status, body={"error": "no"}, times=None))
    with pytest.raises(APIStatusError, match="no") as caught:
        await batches.create("file-1")
    assert caught.value.status == status
    assert [request.operation for request in emulator.requests] == ["create"]


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        (Fault(on="create", status=204), "an empty body at \\$"),
        (Fault(on="create", status=200, body=b"hello"), "invalid JSON at \\$; it began 'hello'"),
        (Fault(on="create", status=201, body={"id": "job-1"}), 'there is no "job" .* began .*job-1'),
        (Fault(on="create", status=201, body={"job": {"id": "job-1", "input_file_id": "file-2"}}), "file 'file-2'"),
        (Fault(on="create", status=201, body={"job": 7}), "\\$.job"),
        (Fault(on="create", status=201, body=b"x" * 99, cut_after=9), "the answer of .* broke off"),
    ],
    ids=["no content", "no JSON", "a bare job", "another file", "no job", "cut"],
)
async def test_after_a_2xx_nothing_is_posted_again(
    emulator: Emulator, batches: AsyncBatches, fault: Fault, reads: str
) -> None:
    """After a 2xx a create is not sent again if its job does not appear; the error quotes what was read."""
    emulator.fail(fault)
    with pytest.raises(CreateUnconfirmedError, match=f"its answer does not name the job .*{reads}") as caught:
        await batches.create("file-1", patience=0)
    assert (caught.value.input_file_id, caught.value.candidates) == ("file-1", ())
    assert [request.operation for request in emulator.requests] == ["create", "list"]
    assert KEY not in shown_text(caught.value)


@in_virtual_time
async def test_a_create_is_looked_for_throughout_its_patience() -> None:
    """A lost create is searched for with back-off, for two minutes by default, then sent once more, never again."""
    async with virtual_emulator() as emulator, clocked(emulator.base_url) as batches:
        emulator.fail(Fault(on="create", lose="request", times=None))
        with pytest.raises(CreateUnconfirmedError, match="no job of the file was listed for 120 s"):
            await batches.create("file-1")
        assert (emulator.count("create"), emulator.count("list")) == (2, 18)
        assert 240 <= asyncio.get_running_loop().time() < 250


@in_virtual_time
async def test_a_job_that_is_listed_late_is_not_made_twice() -> None:
    """A job that is listed as late as a minute after its create is not made twice."""
    async with virtual_emulator() as emulator, clocked(emulator.base_url) as batches:
        emulator.fail(Fault(on="create", lose="answer"))
        emulator.fail(Fault(on="list", body=b"null", times=6))
        created = await batches.create("file-1")
        assert [created.id] == [found["id"] for found in emulator.jobs]
        assert asyncio.get_running_loop().time() > 60


async def test_a_job_with_other_settings_is_not_taken(emulator: Emulator, batches: AsyncBatches) -> None:
    """A job of the same file with another endpoint or model, made by another program, is not adopted."""
    emulator.add_job(input_file_id="file-1", endpoint="/v1/audio/translations")
    emulator.add_job(input_file_id="file-1", model_id="another/model")
    emulator.fail(Fault(on="create", lose="request"))
    created = await batches.create("file-1", model_id="one/model", patience=0)
    assert created.id == emulator.jobs[2]["id"]


async def test_creates_for_one_file_do_not_mistake_each_others_jobs(
    emulator: Emulator, batches: AsyncBatches
) -> None:
    """Creates for one file run one after another, and each knows the jobs that the others made."""
    emulator.fail(Fault(on="create", lose="answer", times=None, chance=0.4))
    created = await asyncio.gather(*(batches.create("file-1") for _ in range(8)))
    assert len({made.id for made in created}) == len(emulator.jobs) == 8


async def test_a_create_whose_job_is_one_of_several(
    emulator: Emulator, batches: AsyncBatches, caplog: pytest.LogCaptureFixture
) -> None:
    """If another program made a job of the same file meanwhile, one is adopted and a warning names the other."""
    emulator.fail(Fault(on="create", lose="answer"))
    other = emulator.add_job(input_file_id="file-1", status="CANCELLED")
    created = await batches.create("file-1")
    assert created.id == emulator.jobs[1]["id"]
    assert caplog.messages[-1] == (
        f"job {created.id} of file-1 is used; these could be it as well, cancel them if they still run: {other}"
    )


async def test_a_create_that_cannot_be_settled(emulator: Emulator, batches: AsyncBatches) -> None:
    """If a job of the file has no creation time, the error names it and nothing is sent again."""
    emulator.fail(Fault(on="create", lose="request"))
    emulator.add_job(id="job-1", input_file_id="file-1", created_at=None)
    with pytest.raises(CreateUnconfirmedError, match=r"do not say when they were created .*job-1") as caught:
        await batches.create("file-1", patience=0)
    assert [candidate.id for candidate in caught.value.candidates] == ["job-1"]
    assert caught.value.input_file_id == "file-1"
    assert emulator.count("create") == 1
    assert KEY not in shown_text(caught.value)


async def test_a_second_job_that_shows_later(
    emulator: Emulator, batches: AsyncBatches, caplog: pytest.LogCaptureFixture
) -> None:
    """A second job that appears later is named in one warning, when this client first sees it."""
    emulator.fail(Fault(on="create", lose="answer"))
    emulator.fail(Fault(on="list", body=b"null"))
    created = await batches.create("file-1", patience=0)
    first, used = (str(found["id"]) for found in emulator.jobs)
    assert created.id == used
    for _ in range(2):
        await batches.list()
    assert [message for message in caplog.messages if "jobs were created" in message] == [
        f"two jobs were created from file-1: {used} is used, and {first} has shown since; cancel it if it still runs"
    ]


@pytest.mark.parametrize("patience", [-1, float("nan"), "60", True, None], ids=repr)
async def test_a_patience_that_cannot_be(emulator: Emulator, batches: AsyncBatches, patience: Any) -> None:
    """An invalid patience is refused before anything is sent."""
    for call in (batches.create("file-1", patience=patience), batches.submit(b"{}", patience=patience)):
        with pytest.raises(UsageError, match="patience must be"):
            await call
    assert len(emulator.requests) == 0


# --- cancel ---------------------------------------------------------------------------------------------------


async def test_cancel(emulator: Emulator, batches: AsyncBatches) -> None:
    """A cancelled job drains first and is then cancelled; cancelling it again changes nothing."""
    job_id = emulator.add_job()
    assert (await batches.cancel(job_id)).status == "CANCELING"
    assert (await batches.cancel(job_id)).status == "CANCELING"
    emulator.advance(5)
    assert (await batches.cancel(job_id)).status == "CANCELLED"
    assert requested(emulator)[-2:] == [f"POST /v1/batches/{job_id}/cancel", f"GET /v1/batches/{job_id}"]


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "EXPIRED", "CANCELLED"])
async def test_a_job_that_had_finished_is_an_answer(emulator: Emulator, batches: AsyncBatches, status: str) -> None:
    """The cancel of a finished job returns its final state, with one POST and one GET."""
    job_id = emulator.add_job(status=status)
    assert (await batches.cancel(await batches.retrieve(job_id))).status == status
    assert (emulator.count("cancel"), emulator.count("retrieve")) == (1, 2)


async def test_a_cancel_survives_what_the_network_does(emulator: Emulator, batches: AsyncBatches) -> None:
    """A cancel is retried after a lost answer, a gateway's page or a stalled body, until an answer arrives."""
    job_id = emulator.add_job()
    emulator.fail(Fault(on="cancel", lose="answer"))
    emulator.fail(Fault(on="cancel", status=502, body="<html>", content_type="text/html"))
    emulator.fail(Fault(on="cancel", cut_after=7))
    assert (await batches.cancel(job_id)).status == "CANCELING"
    assert emulator.count("cancel") == 4


async def test_cancel_raises_what_no_answer_explains(emulator: Emulator, batches: AsyncBatches) -> None:
    """A single cancel raises errors that the job's state does not explain, because it has no report for them."""
    with pytest.raises(NotFoundError):
        await batches.cancel("no-such-job")
    job_id = emulator.add_job()
    emulator.fail(Fault(on="cancel", status=500, times=None))
    with pytest.raises(APIStatusError, match="given up after 5 attempts"):
        await batches.cancel(job_id)


# --- bulk calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True], ids=["cancel", "cancel_many"])
@pytest.mark.parametrize("trouble", [http(503), http(307), b""], ids=["503", "307", "a lost answer"])
@in_virtual_time
async def test_a_cancel_without_a_good_answer_that_took(trouble: bytes, many: bool) -> None:
    """After the last attempt of a cancel, the job is read once, by a request that is not retried."""
    policy = RetryPolicy(max_attempts=3, base_delay=0)
    attempts = 1 if trouble.startswith(b"HTTP/1.1 307") else 3
    for found, expected in ((http(200, job("a", "CANCELING")), "CANCELING"), (http(503), None)):
        replies = [*[trouble or (b"", "reset")] * attempts, found]
        async with RawServer(*replies) as server, clocked(server.base_url, retry=policy) as batches:
            if many:
                outcome = (await batches.cancel_many(["a"]))["a"]
                assert (outcome.ok, outcome.job and str(outcome.job.status)) == (expected is not None, expected)
            elif expected is None:
                with pytest.raises(APIError):
                    await batches.cancel("a")
            else:
                assert (await batches.cancel("a")).status == expected
            assert server.lines == ["POST /v1/batches/a/cancel"] * attempts + ["GET /v1/batches/a"]


async def test_cancel_many_of_mixed_fates(emulator: Emulator, batches: AsyncBatches) -> None:
    """A bulk cancel over a real connection reports each kind of outcome."""
    running = emulator.add_job()
    done = emulator.add_job(status="COMPLETED")
    gone = emulator.add_job(status="CANCELLED")
    ids = [running, done, gone, "no-such-job", "", running, await batches.retrieve(done)]
    told_of: list[CancelOutcome] = []
    report = await batches.cancel_many(ids, on_outcome=told_of.append)
    assert [(outcome.job_id, outcome.result) for outcome in report] == [
        (running, R.CANCELING),
        (done, R.ALREADY_FINISHED),
        (gone, R.CANCELLED),
        ("no-such-job", R.NOT_FOUND),
        ("", R.FAILED),
    ]
    assert str(report) == "1 cancelled, 1 canceling, 1 already finished, 1 not found, 1 failed"
    assert len(told_of) == 5
    assert emulator.count("cancel") == 4


@in_virtual_time
async def test_wait_over_a_real_wire() -> None:
    """With ``wait``, each job is followed until it has stopped, one that finishes before its cancel included."""
    async with virtual_emulator(timing=Timing(canceling=15)) as emulator, clocked(emulator.base_url) as batches:
        ids = [emulator.add_job() for _ in range(60)]
        fast = emulator.add_job(cancels_as="COMPLETED")
        report = await batches.cancel_many([*ids, fast], wait=True)
        assert report.counts[R.CANCELLED] == 60
        assert report[fast].result is R.ALREADY_FINISHED
        assert emulator.count("retrieve") + emulator.count("list") < 61
        assert 15 <= asyncio.get_running_loop().time() < 40


@in_virtual_time
async def test_a_limit_over_a_real_wire() -> None:
    """When the time limit expires, calls in flight are abandoned, sockets closed, and the client remains usable."""
    async with virtual_emulator(sleep=asyncio.sleep) as emulator, clocked(emulator.base_url) as batches:
        ids = [emulator.add_job() for _ in range(30)]
        emulator.fail(Fault(on="cancel", delay=20, status=503, times=None))
        report = await batches.cancel_many(ids, timeout=5, max_concurrency=10)
        assert (report.counts[R.FAILED], report.counts[R.NOT_ATTEMPTED]) == (10, 20)
        emulator.clear_faults()
        assert (await batches.cancel_many(ids)).ok
        await asyncio.sleep(20)  # for the emulator's own tasks


@in_virtual_time
async def test_a_rate_is_kept() -> None:
    """A fixed rate limits all requests of a bulk call, reads of finished jobs included."""
    async with virtual_emulator() as emulator, clocked(emulator.base_url) as batches:
        ids = [emulator.add_job(status="COMPLETED") for _ in range(20)]
        report = await batches.cancel_many(ids, rate=5)
        assert report.counts[R.ALREADY_FINISHED] == 20
        assert asyncio.get_running_loop().time() == pytest.approx(39 / 5, abs=0.5)


@in_virtual_time
async def test_a_refused_key_stops_a_capped_bulk_at_once() -> None:
    """After a refused key, a rate-limited bulk call stops without sending the calls that still wait."""
    async with virtual_emulator() as emulator, clocked(emulator.base_url) as batches:
        emulator.fail(Fault(on="cancel", status=401, times=None))
        report = await batches.cancel_many([f"job-{number}" for number in range(100)], rate=1, max_concurrency=10)
        assert report.counts[R.DENIED] <= 2
        assert report.counts[R.NOT_ATTEMPTED] == 100 - report.counts[R.DENIED]
        assert asyncio.get_running_loop().time() < 3


async def test_a_wrong_key_over_a_real_wire(emulator: Emulator) -> None:
    """A wrong key ends a bulk call after no more requests than were in flight."""
    async with AsyncBatches("wrong-key-0123", base_url=emulator.base_url, max_concurrency=5) as batches:
        report = await batches.cancel_many([emulator.add_job() for _ in range(200)])
    assert emulator.count("cancel") == report.counts[R.DENIED] <= 5
    assert report.counts[R.NOT_ATTEMPTED] == 200 - report.counts[R.DENIED]


@in_virtual_time
async def test_a_flood_finds_the_rate_that_the_service_allows() -> None:
    """Cancels without a rate of their own succeed at 50 requests/s, with few refusals, in about the minimum time."""
    limit = RateLimit(per_second=50, burst=50)
    async with virtual_emulator(rate_limit=limit) as emulator, clocked(emulator.base_url) as batches:
        ids = [emulator.add_job() for _ in range(250)]
        report = await batches.cancel_many(ids)
        assert report.counts[R.CANCELING] == 250
        statuses = Counter(request.status for request in emulator.requests)
        assert statuses[429] < 100
        assert 4 <= asyncio.get_running_loop().time() <= 12


async def test_an_outage_is_ridden_out(emulator: Emulator) -> None:
    """A bulk call survives an outage of the service."""
    job_id = emulator.add_job()
    policy = RetryPolicy(max_attempts=100, base_delay=0.01, max_delay=0.02)
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=policy) as batches:
        await batches.retrieve(job_id)
        await emulator.close()
        task = asyncio.create_task(batches.cancel(job_id))
        await asyncio.sleep(0.05)
        await emulator.start()
        assert (await task).status == "CANCELING"


@in_virtual_time
async def test_concurrency_of_single_calls_and_of_bulks() -> None:
    """Single calls share the client's concurrency; a bulk call may set a higher one for itself."""
    reply = (1.0, http(404, '{"error": "Job not found"}'))
    async with RawServer(reply) as server, clocked(server.base_url, max_concurrency=3) as batches:
        await asyncio.gather(*(batches.retrieve("job-1") for _ in range(9)), return_exceptions=True)
        assert server.most_open == 3
        await batches.cancel_many([f"job-{number}" for number in range(40)], max_concurrency=20)
        assert server.most_open == 20
        server.most_open = 0
        await batches.cancel_many([f"job-{number}" for number in range(9)])
        assert server.most_open == 3


@in_virtual_time
async def test_a_cancelled_bulk_leaves_no_socket_and_no_task() -> None:
    """A cancelled bulk call leaves no socket or task, has reported all known outcomes; the client stays usable."""
    replies = *[http(200, job("job-0"))] * 3, (asyncio.Event(),)
    async with RawServer(*replies) as server, clocked(server.base_url) as batches:
        told_of: list[CancelOutcome] = []
        ids = [f"job-{number}" for number in range(50)]
        task = asyncio.create_task(batches.cancel_many(ids, max_concurrency=10, on_outcome=told_of.append))
        await asyncio.sleep(1)
        assert server.open == 10
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert (server.open, len(told_of)) == (0, 3)
        server.replies = [http(200, job("job-0"))]
        assert (await batches.cancel("job-0")).id == "job-0"


async def test_iter_cancel(emulator: Emulator, batches: AsyncBatches) -> None:
    """``iter_cancel`` yields each outcome as soon as it is known, and leaving it stops the work."""
    ids = [emulator.add_job() for _ in range(30)]
    found = [outcome async for outcome in batches.iter_cancel(ids)]
    assert sorted(outcome.job_id for outcome in found) == sorted(ids)
    async with batches.iter_cancel(ids * 100, max_concurrency=2) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok
            break
    assert emulator.count("cancel") < 40


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 0},
        {"max_concurrency": -1},
        {"max_concurrency": 1.5},
        {"max_concurrency": True},
        {"rate": 0},
        {"rate": -1},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": "5"},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "5"},
    ],
    ids=str,
)
async def test_numbers_that_cannot_be(emulator: Emulator, batches: AsyncBatches, options: dict[str, Any]) -> None:
    """Invalid numbers are refused before anything is sent, and the error names the argument."""
    (name,) = options
    with pytest.raises(UsageError, match=f"{name} must be"):
        await batches.cancel_many(["job-1"], **options)
    if name != "timeout":
        with pytest.raises(UsageError, match=f"{name} must be"):
            batches.iter_cancel(["job-1"], **options)
    assert requested(emulator) == []


@pytest.mark.parametrize("wrong", ["job-1", b"job-1", BatchJob(id="job-1"), 7, None], ids=repr)
async def test_one_id_where_many_are_expected(emulator: Emulator, batches: AsyncBatches, wrong: Any) -> None:
    """A single id instead of several is a ``TypeError``, raised at once."""
    with pytest.raises(TypeError):
        await batches.cancel_many(wrong)
    with pytest.raises(TypeError):
        batches.iter_cancel(wrong)
    assert requested(emulator) == []


async def never(_: object) -> None:
    raise AssertionError


class AsyncCallable:
    async def __call__(self, outcome: object) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    "wrong",
    [never, AsyncCallable(), functools.partial(never), AsyncMock(), [], "print"],
    ids=["coroutine function", "async callable", "partial", "mock", "list", "text"],
)
async def test_a_callback_is_a_plain_function(emulator: Emulator, batches: AsyncBatches, wrong: Any) -> None:
    """A callback that is not a plain function is refused before anything is sent: it would never be awaited."""
    with pytest.raises(TypeError, match="on_outcome must be a plain function"):
        await batches.cancel_many(["a"], on_outcome=wrong)
    with pytest.raises(TypeError, match="on_update must be a plain function"):
        await batches.wait("a", on_update=wrong)
    assert requested(emulator) == []


# --- any request of the API -----------------------------------------------------------------------------------


async def test_the_raw_door() -> None:
    """``request`` sends any API request and returns the response; its text shows neither headers nor body."""
    reply = http(200, {"data": []}, headers={"X-Request-Id": "req-1", "X-Other": "secret-header"})
    async with RawServer(reply) as server, AsyncBatches(KEY, base_url=server.base_url) as batches:
        response = await batches.request("get", "/models")
        assert (response.status, response.body, response.request_id) == (200, b'{"data":[]}', "req-1")
        assert response.headers["x-other"] == "secret-header"
        assert repr(response) == "Response(status=200, request_id='req-1')"
        await batches.request("POST", "/v1/files?a=b", json={"x": "ü"}, params={"q": "a b&c"})
        assert server.lines == ["GET /v1/models", "POST /v1/files?a=b&q=a+b%26c"]
        assert server.requests[1].endswith('\r\n\r\n{"x":"ü"}'.encode())
        assert server.headers()["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "https://evil.invalid/", {}),
        ("GET", "//evil.invalid/x", {}),
        ("GET", "models", {}),
        ("GET", "", {}),
        ("GET", "@evil.invalid", {}),
        ("GET", "/a/../../b", {}),
        ("GET", "/a/%2e%2E/b", {}),
        ("GET", "/./a", {}),
        ("GET", "/a\r\nX: 1", {}),
        ("GET", "/a b", {}),
        ("GET", "/a#b", {}),
        ("GET", "/\\evil.invalid", {}),
        ("GET", None, {}),
        ("BREW", "/pot", {}),
        ("GET\r\nX: 1", "/a", {}),
        ("", "/a", {}),
        ("CONNECT", "/a", {}),
        ("POST", "/a", {"json": {1, 2}}),
        ("POST", "/a", {"json": float("nan")}),
        ("GET", "/a", {"params": {"a": "\ud800"}}),
    ],
    ids=repr,
)
async def test_the_raw_door_leads_nowhere_else(
    emulator: Emulator, batches: AsyncBatches, method: str, path: str, options: dict[str, Any]
) -> None:
    """``request`` accepts only paths within the API, and only values that can be sent."""
    with pytest.raises(UsageError):
        await batches.request(method, path, **options)
    assert requested(emulator) == []


@pytest.mark.parametrize(("method", "expected"), [("GET", 5), ("HEAD", 5), ("POST", 1), ("DELETE", 1), ("PUT", 1)])
async def test_only_reads_are_repeated_at_the_raw_door(method: str, expected: int) -> None:
    """``request`` retries only reads, because the effect of repeating another request is unknown."""
    async with RawServer(b"") as server, AsyncBatches(KEY, base_url=server.base_url, retry=AT_ONCE) as batches:
        with pytest.raises(APIError):
            await batches.request(method, "/x")
        assert server.connections == expected


# --- views ----------------------------------------------------------------------------------------------------


async def test_a_view_shares_connections(emulator: Emulator, batches: AsyncBatches) -> None:
    """A view differs from its client only in the given options, and closing it closes nothing."""
    view = batches.with_options(timeout=5, headers={"X-Team": "blue"}, retry=ONCE)
    assert isinstance(view, AsyncBatches)
    async with view:
        await view.list()
    await view.close()
    await batches.list()
    teams = [request.headers.get("X-Team") for request in emulator.requests]
    assert teams == ["blue", None]
    await batches.close()
    with pytest.raises(UsageError, match="this client is closed"):
        await view.list()


async def test_headers_of_one_view_are_not_those_of_another(emulator: Emulator) -> None:
    """Each view sends its own headers, no matter which one opens the shared connection."""
    async with AsyncBatches(KEY, base_url=emulator.base_url, headers={"X-Base": "1"}) as base:
        blue = base.with_options(headers={"X-Team": "blue"})
        deep = blue.with_options(headers={"x-team": "deep blue", "user-agent": "mine/1"})
        for client in (deep, blue, base):
            await client.list()
    sent = [
        (request.headers.get("X-Base"), request.headers.get("X-Team"), request.headers["User-Agent"].split("/")[0])
        for request in emulator.requests
    ]
    assert sent == [("1", "deep blue", "mine"), ("1", "blue", "together-batches"), ("1", None, "together-batches")]
    assert {request.headers["Authorization"] for request in emulator.requests} == {f"Bearer {KEY}"}


@in_virtual_time
async def test_views_share_the_brake() -> None:
    """A 429 to one view slows the others."""
    async with RawServer(http(429), http(200, job())) as server, clocked(server.base_url, retry=ONCE) as batches:
        view = batches.with_options(timeout=5)
        with pytest.raises(RateLimitError):
            await view.retrieve("job-1")
        await asyncio.gather(*(batches.retrieve("job-1") for _ in range(20)))
        assert asyncio.get_running_loop().time() > 0.2


async def test_views_share_what_they_know_of_jobs(emulator: Emulator, batches: AsyncBatches) -> None:
    """Views share known jobs: none adopts the job of another, and creates for one file wait for each other."""
    await batches.create("file-1")
    emulator.fail(Fault(on="create", lose="answer"))
    second = await batches.with_options(timeout=5).create("file-1")
    assert second.id == emulator.jobs[1]["id"]


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "x"}, {"retry": 3}, {"headers": {"Host": "x"}}], ids=str
)
async def test_options_that_cannot_be(batches: AsyncBatches, options: dict[str, Any]) -> None:
    """Options of a view get the same checks as those of a client."""
    with pytest.raises(UsageError):
        batches.with_options(**options)


# --- the session ----------------------------------------------------------------------------------------------


async def test_a_session_that_was_handed_in_is_never_closed(emulator: Emulator) -> None:
    """A session that was passed in is never closed; closing it is up to its owner."""
    async with aiohttp.ClientSession() as session:
        async with AsyncBatches(KEY, base_url=emulator.base_url, session=session) as batches:
            await batches.list()
        assert not session.closed
        with pytest.raises(UsageError, match="this client is closed"):
            await batches.list()
        async with AsyncBatches(KEY, base_url=emulator.base_url, session=session) as batches:
            await batches.list()


async def _reads(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    response = await handler(request)
    await response.read()
    return response


def _reading_hook() -> aiohttp.TraceConfig:
    async def read(_: object, __: object, found: aiohttp.TraceRequestEndParams) -> None:
        await found.response.text()

    hooks = aiohttp.TraceConfig()
    hooks.on_request_end.append(read)
    return hooks


@pytest.mark.parametrize(
    "settings",
    [
        {"middlewares": (_reads,)},
        {"trace_configs": [_reading_hook()]},
        {"raise_for_status": True},
        {"base_url": "http://127.0.0.1:9/elsewhere/"},
        {"headers": {"Authorization": "Basic abc", "X-Mine": "1", "Content-Type": "text/plain", "User-Agent": "x"}},
        {"timeout": aiohttp.ClientTimeout(total=1e-9)},
        {"cookie_jar": None, "cookies": {"a": "b"}},
        {"json_serialize": repr},
        {"requote_redirect_url": False},
    ],
    ids=stable,
)
async def test_the_settings_of_a_given_session_do_no_harm(emulator: Emulator, settings: dict[str, Any]) -> None:
    """With a given session, errors, address, key and limits are still those of the client."""
    job_id = emulator.add_job()
    async with (
        aiohttp.ClientSession(**settings) as session,
        AsyncBatches(KEY, base_url=emulator.base_url, session=session) as batches,
    ):
        assert (await batches.cancel(job_id)).status == "CANCELING"
        assert (await batches.create("file-a/b")).status == "VALIDATING"
        with pytest.raises(NotFoundError):
            await batches.retrieve("no-such-job")
    assert {request.headers["Authorization"] for request in emulator.requests} == {f"Bearer {KEY}"}
    assert {request.headers["Content-Type"] for request in emulator.requests} == {"application/json"}


async def test_a_given_session_with_a_login_of_its_own_is_refused() -> None:
    """A given session with its own login is refused: aiohttp sends only one of the two, and which is not obvious."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with session:
        with pytest.raises(UsageError, match="the session has a login of its own"):
            AsyncBatches(KEY, session=session)


async def test_connections_open_on_first_use_and_close_without_a_warning(emulator: Emulator) -> None:
    """Connections open on first use and close without a warning; an unused client opens none."""
    AsyncBatches(KEY, base_url=emulator.base_url)
    client = AsyncBatches(KEY, base_url=emulator.base_url)
    await client.close()
    client = AsyncBatches(KEY, base_url=emulator.base_url)
    await client.list()
    await client.close()
    await client.close()
    assert emulator.count("list") == 1


async def test_connections_are_used_again(emulator: Emulator) -> None:
    """A hundred consecutive calls use one connection."""
    async with RawServer(b"") as server:
        body = msgspec.json.encode(job())
        kept = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        # Two answers on one connection: the second is sent ahead, for the next request on that connection.
        server.replies = [(kept, 0.05, kept, 0.2)]
        async with AsyncBatches(KEY, base_url=server.base_url, retry=ONCE) as batches:
            await batches.retrieve("job-1")
        assert server.connections == 1


# --- where a client can be used -------------------------------------------------------------------------------


async def test_a_closed_client_says_so(emulator: Emulator) -> None:
    """Each verb of a closed client raises one sentence that says so."""
    batches = AsyncBatches(KEY, base_url=emulator.base_url)
    await batches.close()
    calls: list[Callable[[], Any]] = [
        lambda: batches.create("file-1"),
        lambda: batches.retrieve("job-1"),
        lambda: batches.list(),
        lambda: batches.cancel("job-1"),
        lambda: batches.cancel_many(["job-1"]),
        lambda: batches.request("GET", "/models"),
        lambda: anext(batches.iter_cancel(["job-1"])),
        lambda: batches.__aenter__(),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="this client is closed"):
            await call()
    assert requested(emulator) == []


def test_a_client_belongs_to_one_loop() -> None:
    """Use in a second event loop is an error, for single and for bulk calls."""
    batches = AsyncBatches(KEY, base_url="http://127.0.0.1:1", retry=ONCE)

    async def first() -> None:
        with pytest.raises(APIError):
            await batches.list()

    async def second(*, many: bool) -> None:
        with pytest.raises(UsageError, match="belongs to another event loop; make one for each loop, inside it"):
            await (batches.cancel_many(["job-1"]) if many else batches.list())

    with asyncio.Runner() as runner:
        runner.run(first())
        asyncio.run(second(many=True))
        asyncio.run(second(many=False))
        runner.run(batches.close())


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda way: way.__name__)
def test_a_client_is_not_pickled_or_copied(way: Callable[[Any], Any]) -> None:
    """A client cannot be pickled or copied, because it holds connections and a key."""
    with pytest.raises(TypeError, match="AsyncBatches cannot be pickled or copied"):
        way(AsyncBatches(KEY))


# --- the key --------------------------------------------------------------------------------------------------


async def test_nothing_about_a_client_shows_its_key(
    emulator: Emulator, batches: AsyncBatches, caplog: pytest.LogCaptureFixture
) -> None:
    """The key appears in no text of a client or its parts, and in no debug log of successful or failed calls."""
    caplog.set_level(logging.DEBUG)
    emulator.fail(Fault(on="cancel", status=503, times=2))
    job_id = emulator.add_job()
    await batches.cancel(job_id)
    with pytest.raises(NotFoundError):
        await batches.cancel("no-such-job")
    shown = [repr(batches), repr(vars(batches)), caplog.text]
    assert "attempt 1 failed" in caplog.text
    assert [text for text in shown if KEY in text] == []
    assert repr(batches) == f"<AsyncBatches {emulator.base_url}>"


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": -1},
        {"max_concurrency": 0},
        {"retry": 3},
        {"headers": {"Host": "x"}},
        {"proxy": "ftp://x"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("environment", [True, False], ids=["from the environment", "as an argument"])
def test_a_client_that_cannot_be_made_shows_no_key(
    wrong: dict[str, Any], environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key does not appear if a debugger dumps the variables of this package's frames."""
    if environment:
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    with pytest.raises(UsageError) as caught:
        AsyncBatches(**wrong) if environment else AsyncBatches(KEY, **wrong)
    assert KEY not in shown_text(caught.value)
