"""``on_event`` of a client: what is emitted, when, and what is never in it."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from wires import AT_ONCE, KEY, RawServer, clocked, http, in_virtual_time, job

from together_batches import (
    APIConnectionError,
    APITimeoutError,
    AsyncBatches,
    Batches,
    BatchRequest,
    InternalServerError,
    UsageError,
    to_dict,
)
from together_batches.emulator import Emulator, Fault, Timing
from together_batches.events import (
    ClientEvent,
    JobChanged,
    JobCreated,
    RateChanged,
    RequestFinished,
    RetryScheduled,
    RunChanged,
)
from together_batches.runs import RunEvent, RunEventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOO_MANY = http(429, {"error": "slow down"}, headers={"x-request-id": "request-9"})
PROMPT = "What is the capital of Peru?"


class Heard(list[ClientEvent]):
    """A callback that keeps its events."""

    def __call__(self, event: ClientEvent) -> None:
        self.append(event)

    def of(self, kind: type[ClientEvent]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


def client(base_url: str, on_event: Callable[[ClientEvent], None], **options: Any) -> AsyncBatches:
    """A client that waits by the loop's clock."""
    batches = clocked(base_url, **options)
    batches.__add_callback__(on_event)
    return batches


# --- requests -------------------------------------------------------------------------------------------------


async def test_a_request_that_is_answered(emulator: Emulator) -> None:
    """Each attempt is an event, with the service's id of the request and the path without its query."""
    heard = Heard()
    job_id = emulator.add_job(status="COMPLETED")
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches:
        await batches.retrieve(job_id)
        await batches.request("GET", "/batches", params={"prompt": PROMPT})
    retrieved, listed = heard.of(RequestFinished)
    assert (retrieved.method, retrieved.path, retrieved.status) == ("GET", f"/batches/{job_id}", 200)
    assert (retrieved.attempt, retrieved.error) == (1, None)
    assert retrieved.request_id
    assert retrieved.host == emulator.base_url.split("/")[2]
    assert 0 < retrieved.seconds < 5
    assert listed.path == "/batches"


@in_virtual_time
async def test_a_request_that_is_sent_again() -> None:
    """A failed attempt is an event, and so is the next one, scheduled after a wait with its cause."""
    heard = Heard()
    async with (
        RawServer(http(503, headers={"x-request-id": "request-1"}), b"", http(200, job("a"))) as server,
        client(server.base_url, heard) as batches,
    ):
        await batches.retrieve("a")
    first, retry, second, retry_again, third, seen = heard
    assert isinstance(first, RequestFinished)
    assert (first.status, first.attempt, first.request_id, first.error) == (503, 1, "request-1", None)
    assert isinstance(retry, RetryScheduled)
    assert (retry.method, retry.path, retry.status) == ("GET", "/batches/a", 503)
    assert (retry.attempt, retry.cause, retry.wait) == (1, "InternalServerError", 0.5)
    assert isinstance(second, RequestFinished)
    assert (second.status, second.attempt, second.error) == (None, 2, "APIConnectionError")
    assert isinstance(retry_again, RetryScheduled)
    assert (retry_again.status, retry_again.cause, retry_again.wait) == (None, "APIConnectionError", 1.0)
    assert isinstance(third, RequestFinished)
    assert (third.status, third.attempt) == (200, 3)
    assert isinstance(seen, JobChanged)


@in_virtual_time
async def test_a_request_that_takes_too_long() -> None:
    """The seconds of an attempt are those until its time limit, if that ended it."""
    heard = Heard()
    async with (
        RawServer((asyncio.Event(),)) as server,
        client(server.base_url, heard, timeout=5, retry=AT_ONCE) as batches,
    ):
        with pytest.raises(APITimeoutError):
            await batches.retrieve("a")
    assert [event.error for event in heard.of(RequestFinished)] == ["APITimeoutError"] * 5
    assert heard.of(RequestFinished)[0].seconds == pytest.approx(5, abs=0.5)
    assert len(heard.of(RetryScheduled)) == 4


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/batches", "/batches"),
        ("/batches/job-1", "/batches/{id}"),
        ("/batches/upload/cancel", "/batches/{id}/cancel"),
        ("/files", "/files"),
        ("/files/upload", "/files/upload"),
        ("/files/file-1/content", "/files/{id}/content"),
        ("/chat/completions", "/chat"),
        (None, None),
    ],
)
def test_the_route_of_a_request(path: str | None, route: str | None) -> None:
    """A route has no ids, so that it can be a label of a metric."""
    event = RetryScheduled(method="GET", host="h", path=path, status=None, attempt=1, cause="APIError", wait=1)
    assert event.route == route
    assert to_dict(event).get("route") == route


@pytest.mark.parametrize("fault", [None, Fault(on="store", status=500), Fault(on="fetch", lose="answer")])
async def test_of_a_storage_only_the_host_is_known(tmp_path: Path, fault: Fault | None) -> None:
    """The URL of a storage is a secret: its events have the host and nothing else of it, also those of failures."""
    heard = Heard()
    async with (
        Emulator(api_key=KEY, content_from_storage=True) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE, on_event=heard) as batches,
    ):
        if fault is not None:
            emulator.fail(fault)
        file = await batches.files.upload([BatchRequest("1", {"model": "m", "prompt": PROMPT})], via="storage")
        await batches.files.download(file.id, tmp_path / "copy.jsonl")
        storage = emulator.storage_origin.partition("://")[2]
    assert {event.host for event in heard if getattr(event, "path", "") is None} == {storage}
    assert {event.method for event in heard.of(RequestFinished) if event.path is None} == {"PUT", "GET"}
    assert {event.host for event in heard.of(RequestFinished)} == {storage, emulator.base_url.split("/")[2]}
    assert "signature" not in str(heard).lower()


# --- the rate -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_allowed_rate() -> None:
    """A refusal that blocks all calls is a change of the rate, and so is the rate that is allowed afterwards."""
    heard = Heard()
    async with (
        RawServer(http(200, job("a")), TOO_MANY, TOO_MANY, http(200, job("a"))) as server,
        client(server.base_url, heard) as batches,
    ):
        await batches.retrieve("a")
        assert heard.of(RateChanged) == []
        await batches.retrieve("a")
    blocked, allowed = heard.of(RateChanged)
    assert blocked.rate is None
    assert blocked.pause > 0
    assert allowed.rate > 0
    assert allowed.pause == 0


# --- jobs -----------------------------------------------------------------------------------------------------


async def test_a_job_that_is_created(emulator: Emulator) -> None:
    """A created job is one event; its first state is not a further one."""
    heard = Heard()
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches:
        created = await batches.create("file-1", model_id="some-model")
        await batches.retrieve(created.id)
    (event,) = heard.of(JobCreated)
    assert (event.job_id, event.input_file_id, event.model_id) == (created.id, "file-1", "some-model")
    assert event.endpoint == "/v1/chat/completions"
    assert not event.found
    assert heard.of(JobChanged) == []


async def test_a_job_whose_create_lost_its_answer(emulator: Emulator) -> None:
    """The job of a lost response is created once, and marked as found."""
    heard = Heard()
    emulator.fail(Fault(on="create", lose="answer"))
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE, on_event=heard) as batches:
        created = await batches.create("file-1")
    assert [(event.job_id, event.found) for event in heard.of(JobCreated)] == [(created.id, True)]


@in_virtual_time
async def test_a_job_that_changes() -> None:
    """A job that is waited for is an event at first sight, and with each change of its status or progress."""
    heard = Heard()
    states = [("VALIDATING", None), ("IN_PROGRESS", 40), ("IN_PROGRESS", 40), ("IN_PROGRESS", 60), ("CANCELLED", 60)]
    replies = [http(200, job("a", status, progress=progress)) for status, progress in states]
    async with RawServer(*replies) as server, client(server.base_url, heard) as batches:
        await batches.wait("a")
    assert [(event.before, event.status, event.progress) for event in heard.of(JobChanged)] == [
        (None, "VALIDATING", None),
        ("VALIDATING", "IN_PROGRESS", 40),
        ("IN_PROGRESS", "IN_PROGRESS", 60),
        ("IN_PROGRESS", "CANCELLED", 60),
    ]


async def test_jobs_that_are_read_in_the_list() -> None:
    """Of jobs that are followed by the list of the account, each is an event at first sight, too."""
    heard, emulator = Heard(), Emulator(api_key=KEY, clock=lambda: 1.8e9)  # only ``advance`` moves the jobs
    ids = [emulator.add_job(status="IN_PROGRESS") for _ in range(50)]

    def on_event(event: ClientEvent) -> None:
        heard(event)
        if len(heard.of(JobChanged)) == len(ids) and isinstance(event, JobChanged):
            emulator.advance(1000)

    async with (
        emulator,
        AsyncBatches(KEY, base_url=emulator.base_url, on_event=on_event) as batches,
        batches.as_completed(ids, poll_interval=0.01) as finished,
    ):
        assert {each.id async for each in finished} == set(ids)
    # All are due at the first look. Later only a few may be, which are then read one by one.
    assert heard.of(RequestFinished)[0].path == "/batches"
    for job_id in ids:
        changes = [(event.before, event.status) for event in heard.of(JobChanged) if event.job_id == job_id]
        assert changes == [(None, "IN_PROGRESS"), ("IN_PROGRESS", "COMPLETED")]


async def test_jobs_that_are_only_listed(emulator: Emulator) -> None:
    """A list emits the changes of jobs that the client knows; of the rest of the account nothing is emitted."""
    heard = Heard()
    ids = [emulator.add_job(status="IN_PROGRESS") for _ in range(3)]
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches:
        await batches.list()
        assert heard.of(JobChanged) == []
        await batches.retrieve(ids[0])
        emulator.advance(1000)
        await batches.list()
        await batches.list()
    assert [(event.job_id, event.status) for event in heard.of(JobChanged)] == [
        (ids[0], "IN_PROGRESS"),
        (ids[0], "COMPLETED"),
    ]


async def test_jobs_that_are_cancelled() -> None:
    """The cancel of a job is a change, and so is its end."""
    heard = Heard()
    async with (
        Emulator(api_key=KEY, timing=Timing(canceling=0)) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches,
    ):
        ids = [emulator.add_job(status="IN_PROGRESS") for _ in range(3)]
        assert (await batches.cancel_many(ids, wait=True)).ok
    for job_id in ids:
        states = [event.status for event in heard.of(JobChanged) if event.job_id == job_id]
        assert states[-1] == "CANCELLED"
        assert len(states) == len(set(states))


# --- runs -----------------------------------------------------------------------------------------------------


async def test_a_run(emulator: Emulator, tmp_path: Path) -> None:
    """Each event of a run is an event of its client, too, without its message."""
    heard, of_run = Heard(), list[RunEvent]()
    emulator.timing = Timing(validating=0, running=0)
    requests = [BatchRequest(str(number), {"model": "m", "messages": []}) for number in range(3)]
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches:
        await batches.run(requests, tmp_path / "out.jsonl", poll_interval=0.01, on_event=of_run.append)
    events = heard.of(RunChanged)
    assert [(event.kind, event.at, event.shard, event.job_id) for event in events] == [
        (event.kind, event.at, event.shard, event.job_id) for event in of_run
    ]
    assert events[-1].kind == RunEventKind.FINISHED
    assert (events[-1].succeeded, events[-1].not_sent) == (3, 0)
    assert events[-1].directory == str(tmp_path / "out.jsonl.run")
    assert not hasattr(events[-1], "message")
    assert len(heard.of(JobCreated)) == 1


# --- what is never in an event ------------------------------------------------------------------------------------


async def test_nothing_leaks(tmp_path: Path) -> None:
    """No event has the key, a prompt, an answer, or a text of the service that may quote them."""
    heard = Heard()
    requests = [BatchRequest(str(n), {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}) for n in "12"]
    async with (
        Emulator(api_key=KEY, timing=Timing(validating=0, running=0), content_from_storage=True) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE, on_event=heard) as batches,
    ):
        emulator.fail(Fault(on="list", status=500, body={"error": {"message": f"odd: {PROMPT} {KEY}"}}))
        await batches.list()
        emulator.add_job(id="bad", status="FAILED", error=f"line 1: {PROMPT}")
        await batches.retrieve("bad")
        await batches.run(requests, tmp_path / "out.jsonl", poll_interval=0.01)
        job_id = heard.of(JobCreated)[0].job_id
        rows = [row async for row in batches.results(job_id)]
        answer = rows[0].text  # type: ignore[union-attr]
    assert len(heard) > 20
    for event in heard:
        shown = f"{event!r} {to_dict(event)}"
        assert PROMPT not in shown
        assert answer not in shown
        assert KEY not in shown


# --- the callback -------------------------------------------------------------------------------------------------


async def test_a_view_has_the_callback_of_its_client(emulator: Emulator) -> None:
    """``with_options`` returns a client with the same callback."""
    heard = Heard()
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard) as batches:
        await batches.with_options(headers={"X-Team": "blue"}).list()
    assert [event.path for event in heard.of(RequestFinished)] == ["/batches"]


async def test_what_cannot_be_a_callback() -> None:
    """A coroutine function is refused, because it is called and not awaited."""

    async def on_event(_: ClientEvent) -> None: ...

    with pytest.raises(TypeError, match="on_event must be a plain function"):
        AsyncBatches(KEY, on_event=on_event)  # type: ignore[arg-type]


async def test_a_callback_that_fails(emulator: Emulator, tmp_path: Path) -> None:
    """An exception from the callback aborts its call, unchanged, and no other one; no connection stays open."""

    def on_event(event: ClientEvent) -> None:
        if isinstance(event, RequestFinished) and fails:
            raise KeyError(event.path)

    file_id = emulator.add_file(b'{"custom_id": "1"}\n')
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=on_event) as batches:
        fails = True
        with pytest.raises(KeyError, match="/batches"):
            await batches.list()
        with pytest.raises(KeyError, match=file_id):
            await batches.files.download(file_id, tmp_path / "copy.jsonl")
        with pytest.raises(KeyError):
            await batches.cancel_many(["job-1", "job-2"])
        fails = False
        assert await batches.list() == []
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240  # an empty directory


@in_virtual_time
async def test_a_callback_that_fails_on_the_rate(tmp_path: Path) -> None:
    """An exception about the rate, too, leaves no connection open whose file has not arrived yet."""

    def on_event(event: ClientEvent) -> None:
        if isinstance(event, RateChanged) and event.rate is not None:
            raise KeyError(event.rate)

    arriving = http(200, b"{}\n", length=1_000_000), asyncio.Event()
    async with RawServer(TOO_MANY, arriving) as server, client(server.base_url, on_event) as batches:
        with pytest.raises(KeyError):
            await batches.files.download("file-1", tmp_path / "copy.jsonl")
        await asyncio.sleep(1)
        assert server.open == 0


def test_the_synchronous_client() -> None:
    """``Batches`` calls it in the thread of its loop; a call of the client from there is refused, as ever."""
    heard, names = Heard(), set[str]()

    def on_event(event: ClientEvent) -> None:
        heard(event)
        names.add(threading.current_thread().name)
        with pytest.raises(UsageError):
            batches.list()

    with (
        Emulator(api_key=KEY).running_in_thread() as emulator,
        Batches(KEY, base_url=emulator.base_url, on_event=on_event) as batches,
    ):
        batches.list()
        batches.with_options(timeout=3).list()
    assert names == {"together-batches"}
    assert len(heard.of(RequestFinished)) == 2


async def test_another_callback(emulator: Emulator) -> None:
    """A callback that is added is called after those that are there, until it is removed; it may be one of them."""
    first, second = Heard(), Heard()
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=first) as batches:
        remove = batches.__add_callback__(second)
        await batches.list()
        again = batches.__add_callback__(first)
        await batches.list()
        for end in (remove, again, again):
            end()
        await batches.list()
    assert (len(first), len(second)) == (4, 2)


async def test_an_unreachable_service() -> None:
    """Without a connection an attempt has no status, and the host is that of the service."""
    heard = Heard()
    async with AsyncBatches(KEY, base_url="http://127.0.0.1:9/v1", retry=AT_ONCE, on_event=heard) as batches:
        with pytest.raises(APIConnectionError):
            await batches.list()
    assert {(event.status, event.host, event.path) for event in heard.of(RequestFinished)} == {
        (None, "127.0.0.1:9", "/batches")
    }


async def test_events_are_plain_values(emulator: Emulator) -> None:
    """An event can be pickled, compared, hashed and written as plain data."""
    heard = Heard()
    emulator.fail(Fault(on="create", status=500))
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE, on_event=heard) as batches:
        with pytest.raises(InternalServerError):
            await batches.request("POST", "/batches", json={})
        await batches.retrieve(emulator.add_job(status="COMPLETED"))
    assert len(set(heard)) == len(heard)
    for event in heard:
        assert pickle.loads(pickle.dumps(event)) == event
    assert to_dict(heard[-1])["status"] == "COMPLETED"
    with pytest.raises(AttributeError):
        heard[0].method = "PUT"  # type: ignore[union-attr,misc]
