"""``wait`` and ``as_completed`` of both clients, over a real connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from wires import AT_ONCE, KEY, RawServer, clocked, http, in_virtual_time, job

from together_batches import (
    AsyncBatches,
    Batches,
    BatchJob,
    BatchJobStatus,
    NotFoundError,
    UsageError,
    WaitTimeoutError,
)
from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GONE = http(404, {"error": "Job not found"})


@in_virtual_time
async def test_wait() -> None:
    """``wait`` reads a job until it has finished, through errors that outlast the retries of a single call."""
    replies = [
        http(200, job("a", "VALIDATING")),
        *[http(503)] * 7,
        http(200, b"<html>"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "reset"),
        http(200, job("a", "IN_PROGRESS", progress=37.25)),
        http(200, job("a", "COMPLETED", progress=100, output_file_id="file-o")),
    ]
    shown: list[float | None] = []
    async with RawServer(*replies) as server, clocked(server.base_url, chance=0.5) as batches:
        finished = await batches.wait("a", on_update=lambda seen: shown.append(seen.progress))
        assert (finished.status, finished.output_file_id) == ("COMPLETED", "file-o")
        assert shown == [None, 37.25, 100]
        assert set(server.lines) == {"GET /v1/batches/a"}
        assert 6 < asyncio.get_running_loop().time() < 60


@in_virtual_time
async def test_wait_through_an_outage() -> None:
    """``wait`` survives an outage of ten minutes, measured by the client's own clock."""
    down = asyncio.Event()

    async def restart() -> None:
        await asyncio.sleep(600)
        down.set()

    async with RawServer(http(503)) as server, clocked(server.base_url, chance=0.5) as batches:
        restarting = asyncio.create_task(restart())
        waiting = asyncio.create_task(batches.wait("a"))
        await down.wait()
        server.replies = [http(200, job("a", "FAILED", error="no"))]
        assert (await waiting).error == "no"
        await restarting


@in_virtual_time
async def test_wait_raises_what_stays() -> None:
    """A nonexistent job is raised."""
    async with RawServer(GONE) as server, clocked(server.base_url) as batches:
        with pytest.raises(NotFoundError):
            await batches.wait("a")
        assert len(server.requests) == 1


@in_virtual_time
async def test_wait_for_a_job_that_was_seen() -> None:
    """A 404 for a known job may be a passing inconsistency: the job is searched for by id and in the list."""
    replies = [
        http(201, {"job": job("a", "VALIDATING", input_file_id="file-i")}),
        *[GONE, http(200, [])] * 2,
        *[GONE, http(200, [job("a", "IN_PROGRESS")])],
        http(200, job("a", "COMPLETED", output_file_id="file-o")),
    ]
    async with RawServer(*replies) as server, clocked(server.base_url, chance=0.5) as batches:
        await batches.create("file-i")
        assert (await batches.wait("a")).output_file_id == "file-o"
        assert server.lines[1:3] == ["GET /v1/batches/a", "GET /v1/batches"]
        assert len(server.lines) == len(replies)


@pytest.mark.parametrize("known", ["created", "retrieved", "listed", "passed as a job"])
@in_virtual_time
async def test_a_job_that_was_seen_and_is_gone(known: str) -> None:
    """The absence of a known job is raised when patience is over; a view shares what its client has seen."""
    shown = job("a", "IN_PROGRESS", input_file_id="file-i")
    first = {"created": http(201, {"job": shown}), "retrieved": http(200, shown), "listed": http(200, [shown])}
    async with RawServer(first.get(known, GONE), GONE) as server, clocked(server.base_url) as batches:
        wanted: str | BatchJob = "a"
        match known:
            case "created":
                await batches.create("file-i")
            case "retrieved":
                await batches.retrieve("a")
            case "listed":
                await batches.list()
            case _:
                wanted = BatchJob(id="a")
        with pytest.raises(NotFoundError, match="has been absent for 3 s"):
            await batches.with_options(headers={"X-Team": "blue"}).wait(wanted, patience=3)
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.1)
        looked = len(server.requests)
        with pytest.raises(NotFoundError):
            await anext(batches.as_completed([wanted], patience=0))
        assert len(server.requests) == looked + 2


@in_virtual_time
async def test_wait_for_files_that_are_late(caplog: pytest.LogCaptureFixture) -> None:
    """A completed job is returned once it names a file, or with a warning when patience is over."""
    bare = http(200, job("a", "COMPLETED"))
    replies = [bare, bare, http(200, job("a", "COMPLETED", error_file_id="file-e"))]
    async with RawServer(*replies) as server, clocked(server.base_url) as batches:
        assert (await batches.wait("a")).error_file_id == "file-e"
    async with RawServer(bare) as server, clocked(server.base_url) as batches:
        began = asyncio.get_running_loop().time()
        assert (await batches.wait("a")).status == "COMPLETED"
        assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=0.1)
        assert [given.id async for given in batches.as_completed(["a"], patience=0)] == ["a"]
    assert caplog.messages == ["job a is COMPLETED and names no file of results; they may appear later"] * 2


@in_virtual_time
async def test_wait_in_vain() -> None:
    """The timeout of ``wait`` applies in the middle of a call too, and nothing is left open."""
    async with RawServer((asyncio.Event(),)) as server, clocked(server.base_url) as batches:
        with pytest.raises(WaitTimeoutError, match="a was never seen") as raised:
            await batches.wait("a", timeout=7)
        assert raised.value.jobs == (BatchJob(id="a"),)
        assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)


async def test_nothing_is_asked_about_a_finished_job() -> None:
    """A finished job is returned without any request, even if the service is down."""
    finished = BatchJob(id="a", status=BatchJobStatus.COMPLETED)
    async with AsyncBatches(KEY, base_url="http://127.0.0.1:9") as batches:
        assert finished is await batches.wait(finished)
        assert [finished] == [given async for given in batches.as_completed([finished])]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": float("nan")},
        {"poll_interval": 0},
        {"poll_interval": float("inf")},
        {"patience": -1},
        {"patience": float("nan")},
        {"patience": "60"},
        {"patience": True},
        {"patience": None},
    ],
)
async def test_numbers_that_cannot_be(options: dict[str, Any]) -> None:
    """Both methods refuse invalid numbers when they are passed in."""
    async with AsyncBatches(KEY) as batches:
        with pytest.raises(UsageError, match="must be a number"):
            await batches.wait("a", **options)
        with pytest.raises(UsageError, match="must be a number"):
            batches.as_completed(["a"], **options)


async def test_ids_that_cannot_be() -> None:
    """A single id instead of several is refused, and so is an invalid id."""
    async with AsyncBatches(KEY) as batches:
        with pytest.raises(TypeError, match=r"for one id pass \['a'\], or use wait"):
            batches.as_completed("a")
        with pytest.raises(UsageError, match="a job id is empty"):
            await batches.wait("")


async def test_as_completed(emulator: Emulator) -> None:
    """``as_completed`` accepts ids, jobs and repeats, and reads many of them from the list."""
    statuses = ("COMPLETED", "FAILED", "EXPIRED", "CANCELLED") * 10
    ids = [emulator.add_job(status=status, output_file_id="file-o") for status in statuses]
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches:
        jobs = await batches.list()
        given = [job.id async for job in batches.as_completed([*ids, *jobs])]
        assert sorted(given) == sorted(ids)
        assert (emulator.count("list"), emulator.count("retrieve")) == (2, 0)


async def test_as_completed_of_few_takes_the_clients_slots(emulator: Emulator) -> None:
    """``as_completed`` runs no more calls at once than the client allows, and accepts ids from an async iterable."""
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(15)]

    async def source() -> AsyncIterator[str]:
        for job_id in ids:
            yield job_id

    async with AsyncBatches(KEY, base_url=emulator.base_url, max_concurrency=2) as batches:
        async with batches.as_completed(source(), timeout=0) as jobs:
            assert {job.id async for job in jobs} == set(ids)
        assert emulator.count("retrieve") == 15


async def test_as_completed_in_vain(emulator: Emulator) -> None:
    """On timeout ``as_completed`` has yielded the finished jobs; the error names the others, which keep running."""
    running = emulator.add_job(ends_as="IN_PROGRESS")
    done = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    async with AsyncBatches(KEY, base_url=emulator.base_url) as batches:
        jobs = batches.as_completed([running, done], timeout=0)
        assert done == (await anext(jobs)).id
        with pytest.raises(WaitTimeoutError) as raised:
            await anext(jobs)
    assert [job.id for job in raised.value.jobs] == [running]
    assert emulator.count("cancel") == 0


def test_the_same_without_async() -> None:
    """The sync client returns plain values and iterators, and raises plain errors."""
    with Emulator(api_key=KEY).running_in_thread() as emulator:
        done = [emulator.add_job(status=status, output_file_id="file-o") for status in ("COMPLETED", "FAILED")]
        running = emulator.add_job(ends_as="IN_PROGRESS")
        emulator.fail(Fault(on="retrieve", status=503))
        with Batches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches:
            seen: list[BatchJob] = []
            finished = batches.wait(done[0], on_update=seen.append)
            assert (finished.status, seen) == ("COMPLETED", [finished])
            assert {job.id for job in batches.as_completed(done)} == set(done)
            with pytest.raises(WaitTimeoutError, match=f"{running} was IN_PROGRESS"):
                batches.wait(running, timeout=0)
            with batches.as_completed([done[0], running]) as jobs:
                assert next(jobs).id == done[0]
            bare = emulator.add_job(status="COMPLETED", output_file_id=None)
            assert batches.wait(bare, patience=0).id == bare
            assert [job.id for job in batches.as_completed([bare], patience=0)] == [bare]
            with pytest.raises(UsageError, match="patience must be a number"):
                batches.wait(bare, patience=-1)
