"""Starting, stopping and controlling the emulator, from one loop, other threads and other processes."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest

from emulator.conftest import START
from together_batches.emulator import Answer, Emulator, Fault, RecordedRequest, Reply, Timing
from together_batches.emulator._faults import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from emulator.conftest import FakeClock

HEADERS = {"Authorization": "Bearer emulator-key", "User-Agent": "test"}


def fetch(url: str) -> object:
    """Return the JSON at a loopback URL, from plain synchronous code."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "::", "192.168.0.1", ""])
def test_only_loopback_will_do(host: str) -> None:
    """Only loopback hosts are accepted, because the emulator must never be reachable for others."""
    with pytest.raises(ValueError, match="loopback"):
        Emulator(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_it_listens_where_it_says(host: str) -> None:
    """The emulator listens at ``base_url``, which has exactly one port."""
    async with Emulator(host=host) as emulator:
        assert emulator.base_url.endswith(f":{emulator.port}/v1")
        assert emulator.base_url in repr(emulator)
        async with (
            aiohttp.ClientSession(headers=HEADERS) as http,
            http.get(f"{emulator.base_url}/batches") as response,
        ):
            assert response.status == 200


def test_a_v6_address_is_written_in_brackets() -> None:
    """An IPv6 address is in brackets, as URLs require."""
    assert Emulator(host="::1", port=8123).base_url == "http://[::1]:8123/v1"


def test_there_is_no_port_before_the_start() -> None:
    """A port that was not given is unknown before the start."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = emulator.base_url
    assert repr(emulator) == "<Emulator not running>"


async def test_starting_twice_is_a_mistake_and_closing_twice_is_none() -> None:
    """A second start is an error and a second close is not, as with files."""
    emulator = Emulator()
    await emulator.close()
    await emulator.start()
    with pytest.raises(RuntimeError, match="running already"):
        await emulator.start()
    await emulator.close()
    await emulator.close()


async def test_a_second_start_serves_the_same_jobs_on_the_same_port() -> None:
    """A second start serves the same jobs on the same port, as after an outage."""
    emulator = Emulator()
    async with emulator:
        job_id, url = emulator.add_job(), emulator.base_url
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{url}/batches")
        async with emulator, http.get(f"{url}/batches/{job_id}") as response:
            assert response.status == 200


async def test_a_taken_port_is_an_oserror() -> None:
    """A taken port raises OSError, and leaves the emulator unchanged."""
    async with Emulator() as first:
        second = Emulator(port=first.port)
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.close()


@pytest.mark.parametrize(
    "fault", [Fault(delay=3600), Fault(drip=3600), Fault(delay=3600, lose="answer")], ids=["delay", "drip", "lose"]
)
async def test_closing_waits_for_nobody(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Closing waits neither for requests in flight nor for idle connections, and logs nothing."""
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        reached, never = asyncio.Event(), asyncio.Event()

        async def sleep(_seconds: float) -> None:
            reached.set()
            await never.wait()

        emulator = Emulator(sleep=sleep)
        await emulator.start()
        url = f"{emulator.base_url}/batches"
        async with http.get(url) as response:
            await response.read()
        emulator.fail(fault)

        async def ask() -> None:
            async with http.get(url) as response:
                await response.read()

        asking = asyncio.create_task(ask())
        await reached.wait()
        began = time.monotonic()
        await emulator.close()
        assert time.monotonic() - began < 1
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_client_that_does_not_read_does_not_hold_up_closing() -> None:
    """A client that does not read does not delay closing: its response is discarded with the connection."""
    emulator = Emulator()
    await emulator.start()
    file_id = emulator.add_file(b"x" * 20_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port, limit=1000)
    writer.write(
        b"GET /v1/files/%s/content HTTP/1.1\r\nHost: x\r\nUser-Agent: t\r\nAuthorization: Bearer emulator-key\r\n\r\n"
        % file_id.encode()
    )
    await reader.readline()
    await asyncio.wait_for(emulator.close(), 2)
    writer.transport.abort()


async def test_it_is_closed_on_its_own_loop() -> None:
    """The emulator is closed on its own loop; another one raises."""
    async with Emulator() as emulator:
        problems: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(emulator.close())
            except RuntimeError as error:
                problems.append(error)

        await asyncio.to_thread(elsewhere)
        assert "another loop" in str(problems)


async def test_many_may_connect_at_once() -> None:
    """A burst of new connections is accepted without delay."""
    async with Emulator(seed=1, timing=Timing(canceling=600)) as emulator:
        ids = [emulator.add_job() for _ in range(150)]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=HEADERS, connector=connector) as http:

            async def cancel(job_id: str) -> int:
                async with http.post(f"batches/{job_id}/cancel") as response:
                    return response.status

            assert await asyncio.gather(*map(cancel, ids)) == [200] * 150
    assert {job["status"] for job in emulator.jobs} == {"CANCELING"}


def test_synchronous_code_has_it_in_a_thread() -> None:
    """Synchronous code runs the emulator in a thread, and every method works while it serves there."""
    with Emulator().running_in_thread() as emulator:
        job_id = emulator.add_job(id="a", status="VALIDATING")
        assert fetch(f"{emulator.base_url}/batches/a") == emulator.job(job_id)
        emulator.advance(32)
        assert emulator.job(job_id)["status"] == "COMPLETED"
        port = emulator.port
    assert not [thread for thread in threading.enumerate() if "emulator" in thread.name]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_threads_may_steer_it_while_it_serves() -> None:
    """Other threads may control the emulator while it serves, without losses or errors."""
    with Emulator(seed=2).running_in_thread() as emulator:

        def seed() -> None:
            for _ in range(500):
                emulator.add_job()
                emulator.advance(0.001)

        threads = [threading.Thread(target=seed) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            fetch(f"{emulator.base_url}/batches")
        assert len({job["id"] for job in emulator.jobs}) == 2000


def test_a_start_that_fails_in_the_thread_is_raised_here() -> None:
    """A failed start in the thread is raised in the caller, and the thread has ended."""
    with (
        Emulator().running_in_thread() as first,
        pytest.raises(OSError, match="in use"),
        Emulator(port=first.port).running_in_thread(),
    ):
        raise AssertionError("it started")
    assert not [thread for thread in threading.enumerate() if "emulator" in thread.name]


def test_what_the_block_raises_comes_out() -> None:
    """An exception in the block is raised after the emulator has stopped."""
    with pytest.raises(LookupError), Emulator().running_in_thread():
        raise LookupError


async def test_the_same_seed_and_clock_give_the_same_answers() -> None:
    """The same seed and clock give the same responses, byte for byte, request ids and dates included."""

    async def story() -> list[object]:
        seen: list[object] = []
        faults = [Fault(status=500, times=None, chance=0.3)]
        async with Emulator(seed=9, clock=lambda: 1_789_381_230.0, faults=faults) as emulator:
            ids = [emulator.add_job() for _ in range(5)]
            async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=HEADERS) as http:
                for path in ["batches", *(f"batches/{job_id}" for job_id in ids)]:
                    async with http.get(path) as response:
                        seen.append((dict(response.headers), await response.read()))
        return seen

    assert await story() == await story()


def test_faults_do_not_change_ids() -> None:
    """Faults do not change ids, because their random numbers come from another source."""
    plain, faulty = Emulator(seed=5), Emulator(seed=5, faults=[Fault(status=500, chance=0.5)])
    assert plain.add_job() == faulty.add_job()


def test_odd_steps_are_refused() -> None:
    """A negative advance is refused, and an unknown job is a KeyError."""
    emulator = Emulator()
    with pytest.raises(ValueError, match="forward"):
        emulator.advance(-1)
    with pytest.raises(KeyError, match="no-such-job"):
        emulator.job("no-such-job")


def test_seeding_many_jobs_is_cheap() -> None:
    """Seeding ten thousand jobs takes far less than a second; benchmarks seed ten times as many."""
    emulator = Emulator()
    began = time.process_time()
    for _ in range(10_000):
        emulator.add_job()
    assert time.process_time() - began < 1


def test_the_operations_that_are_counted() -> None:
    """Each operation that can be counted is documented, and another is refused."""
    emulator = Emulator()
    assert [emulator.count(name) for name in OPERATIONS] == [0] * len(OPERATIONS)
    assert {name for name in OPERATIONS if not re.search(rf"\b{name}\b", str(Emulator.count.__doc__))} == set()
    with pytest.raises(ValueError, match="no operation 'destroy'"):
        emulator.count("destroy")


def test_it_knows_nothing_of_the_client() -> None:
    """The emulator imports nothing of the client, so that one cannot hide the other's mistake."""
    imported: set[str] = set()
    for path in Path(inspect.getfile(Emulator)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(f"{'.' * node.level}{node.module}")
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    allowed = ("aiohttp", "attrs", "msgspec", "together_batches.emulator.")
    assert {name for name in foreign if not name.startswith(allowed)} == set()


def test_it_leaves_no_warning_behind() -> None:
    """A process that ends with requests in flight ends without warnings."""
    script = """
import asyncio, aiohttp
from together_batches.emulator import Emulator, Fault
async def main():
    async with Emulator(faults=[Fault(delay=60)]) as emulator:
        headers = {"Authorization": "Bearer emulator-key"}
        async with aiohttp.ClientSession(headers=headers) as http:
            asking = asyncio.create_task(http.get(f"{emulator.base_url}/batches"))
            while not emulator.count("list"):
                await asyncio.sleep(0.001)
    try:
        await asking
    except aiohttp.ClientError:
        print("dropped")
asyncio.run(main(), debug=True)
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "dropped\n", "")


def test_the_storage_has_an_origin_once_started() -> None:
    """The storage has an origin once it is started, and keeps it over an outage."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="no storage before"):
        _ = emulator.storage_origin
    with emulator.running_in_thread():
        origin = emulator.storage_origin
    with emulator.running_in_thread():
        assert emulator.storage_origin == origin


async def test_a_storage_port_that_was_taken_meanwhile_is_an_oserror() -> None:
    """A storage port that was taken meanwhile raises OSError, and neither server keeps listening."""
    emulator = Emulator()
    async with emulator:
        port = int(emulator.storage_origin.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="in use"):
        await emulator.start()
    async with emulator:
        assert emulator.files == []


async def test_a_close_that_is_cancelled() -> None:
    """A close within a cancelled scope closes both ports, and then raises the cancellation."""
    emulator = Emulator()
    with anyio.CancelScope() as scope:
        async with emulator:
            scope.cancel()
    assert scope.cancelled_caught
    for url in (emulator.base_url, emulator.storage_origin):
        parts = urlsplit(url)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(parts.hostname, parts.port)


async def test_a_start_that_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled between its two servers leaves neither of them listening."""
    loop = asyncio.get_running_loop()
    really, opened = loop.create_server, list[asyncio.Server]()

    async def create_server(*arguments: Any, **options: Any) -> asyncio.Server:
        if opened:
            await asyncio.Event().wait()
        opened.append(await really(*arguments, **options))
        return opened[0]

    monkeypatch.setattr(loop, "create_server", create_server)
    starting = asyncio.create_task(Emulator().start())
    while not opened:  # noqa: ASYNC110  # what follows is to begin in the next round of the loop
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not opened[0].is_serving()


def test_files_can_be_looked_at_from_outside() -> None:
    """Files and their content can be read from outside."""
    emulator = Emulator()
    file_id = emulator.add_file(b"abc", filename="in.jsonl")
    assert [(file["id"], file["bytes"]) for file in emulator.files] == [(file_id, 3)]
    assert emulator.content(file_id) == b"abc"
    with pytest.raises(KeyError, match="file-gone"):
        emulator.content("file-gone")


def test_a_job_is_changed_and_deleted() -> None:
    """Fields of a job are replaced until they are changed again; a deleted job is unknown, and its file is kept."""
    emulator = Emulator()
    job_id = emulator.add_job(ends_as="IN_PROGRESS", progress=7)
    emulator.change_job(job_id, status="EXPIRED", input_file_id=None)
    assert [emulator.job(job_id)[name] for name in ("status", "input_file_id", "progress")] == ["EXPIRED", None, 0]
    emulator.change_job(job_id)
    assert emulator.job(job_id)["status"] == "IN_PROGRESS"
    file_id = str(emulator.job(job_id)["input_file_id"])
    emulator.delete_job(job_id)
    assert emulator.content(file_id)
    emulator.delete_file(file_id)
    assert (emulator.jobs, emulator.files) == ([], [])
    for act in (emulator.job, emulator.change_job, emulator.delete_job, emulator.content, emulator.delete_file):
        with pytest.raises(KeyError, match="gone"):
            act("gone")


async def test_responses_of_ones_own(clock: FakeClock) -> None:
    """``respond`` decides what is sent: the usual reply, an altered one, or one without carrying the request out."""

    def respond(request: RecordedRequest, usual: Callable[[], Reply]) -> Reply:
        if request.operation == "cancel":
            return Reply(503, b"later")
        reply = usual()
        return Reply(200, reply.read().replace(b"IN_PROGRESS", b"PAUSED")) if reply.status == 200 else reply

    async with Emulator(clock=clock, respond=respond) as emulator:
        job_id = emulator.add_job()
        async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=HEADERS) as http:
            async with http.post(f"batches/{job_id}/cancel") as answer:
                assert (answer.status, await answer.read()) == (503, b"later")
            async with http.get(f"batches/{job_id}") as answer:
                assert (await answer.json())["status"] == "PAUSED"
            async with http.get("batches/none") as answer:
                assert answer.status == 404
    assert emulator.job(job_id)["status"] == "IN_PROGRESS"
    assert [request.status for request in emulator.requests] == [503, 200, 404]


async def test_a_file_is_changed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Changed content is served under another ETag, so that no download continues with it."""
    file_id = emulator.add_file(b"before")
    tags = set()
    for expected in (b"before", b"after!"):
        emulator.change_file(file_id, expected)
        async with http.get(f"files/{file_id}/content") as answer:
            assert await answer.read() == expected
            tags.add(answer.headers["ETag"])
    assert len(tags) == 2
    with pytest.raises(KeyError):
        emulator.change_file("file-none", b"")


def test_a_job_is_created_without_a_request(clock: FakeClock) -> None:
    """``create_job`` does what a create does, refusals included, and no request is recorded."""
    emulator = Emulator(clock=clock, ends_as="FAILED")
    file_id = emulator.add_file(b'{"custom_id": "a", "body": {"model": "m"}}\n')
    job_id = emulator.create_job(input_file_id=file_id, endpoint="/v1/chat/completions")
    assert emulator.job(job_id)["status"] == "VALIDATING"
    with pytest.raises(ValueError, match="invalid endpoint"):
        emulator.create_job(input_file_id=file_id, endpoint="/v1/none")
    assert not emulator.requests


def test_the_phases_of_a_job_are_known_beforehand(clock: FakeClock) -> None:
    """``phases`` has each status of a job with its time, past and planned; a cancel changes the plan."""
    emulator = Emulator(clock=clock, timing=Timing(validating=2, running=30, canceling=1))
    job_id = emulator.add_job(status="VALIDATING")
    assert emulator.phases(job_id) == [(START, "VALIDATING"), (START + 2, "IN_PROGRESS"), (START + 32, "COMPLETED")]
    with pytest.raises(KeyError):
        emulator.phases("none")


def test_answers_of_later_jobs(clock: FakeClock) -> None:
    """Another ``answer`` applies to the jobs that are created from then on, and not to earlier ones."""
    emulator = Emulator(clock=clock, answer=lambda _: Answer("first"))
    file_id = emulator.add_file(b'{"custom_id": "a", "body": {"model": "m"}}\n')
    jobs = [emulator.create_job(input_file_id=file_id, endpoint="/v1/chat/completions")]
    emulator.answer = lambda _: Answer("second")
    jobs.append(emulator.create_job(input_file_id=file_id, endpoint="/v1/chat/completions"))
    emulator.advance(60)
    outputs = [emulator.content(str(emulator.job(job_id)["output_file_id"])) for job_id in jobs]
    assert [b"first" in outputs[0], b"second" in outputs[1]] == [True, True]
