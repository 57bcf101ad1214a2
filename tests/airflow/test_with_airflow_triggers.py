"""Triggers, and the client and follower that those of one loop share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches.airflow import triggers
from together_batches.airflow.triggers import TogetherBatchTrigger, TogetherPauseTrigger
from together_batches.emulator import Emulator, Timing
from together_batches.models import BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = Timing(validating=0.1, running=3600)


@pytest.fixture
def service(connect: Callable[..., None]) -> Iterator[Emulator]:
    """An emulator whose jobs end when the test says so."""
    with Emulator(api_key=KEY, timing=LONG).running_in_thread() as running:
        connect(host=running.base_url)
        yield running


def _jobs(service: Emulator, count: int) -> list[str]:
    return [service.add_job(status="VALIDATING") for _ in range(count)]


async def _event(trigger: Any) -> Any:
    return (await anext(aiter(trigger.run()))).payload


def _rebuilt(trigger: Any) -> Any:
    path, arguments = trigger.serialize()
    assert path == f"together_batches.airflow.triggers.{type(trigger).__name__}"
    return type(trigger)(**arguments)


async def test_one_follower_for_all_triggers(service: Emulator) -> None:
    """Five hundred triggers of a loop read the list of the account, and not each its job."""
    ids = _jobs(service, 500)
    waiting = [
        asyncio.ensure_future(_event(_rebuilt(TogetherBatchTrigger(job_id=job_id, poll_interval=0.2))))
        for job_id in ids
    ]
    await asyncio.sleep(1.0)
    assert service.count("list") + service.count("retrieve") <= 8
    service.advance(7200)
    events = await asyncio.gather(*waiting)
    assert [(event["job_id"], event["status"], event["error"]) for event in events] == [
        (job_id, "COMPLETED", None) for job_id in ids
    ]
    assert triggers._shared == {}


async def test_a_repeated_job(service: Emulator) -> None:
    """A retried task waits for the same job in the same triggerer, also after its end."""
    (job_id,) = _jobs(service, 1)
    service.advance(7200)
    for _ in range(2):
        assert (await _event(TogetherBatchTrigger(job_id=job_id)))["status"] == "COMPLETED"


async def test_a_withdrawn_trigger_disturbs_no_other(service: Emulator) -> None:
    """A trigger that Airflow cancels takes nothing from the others, and cancels no job."""
    ids = _jobs(service, 2)
    first, second = (
        asyncio.ensure_future(_event(TogetherBatchTrigger(job_id=job_id, on_kill="cancel", poll_interval=0.1)))
        for job_id in ids
    )
    await asyncio.sleep(0.3)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    service.advance(7200)
    assert (await second)["status"] == "COMPLETED"
    assert [service.job(job_id)["status"] for job_id in ids] == ["COMPLETED"] * 2


async def test_a_kill_cancels_the_job(service: Emulator) -> None:
    """A person who clears or marks a task cancels its job, if that is wanted."""
    cancelled, left = _jobs(service, 2)
    await _rebuilt(TogetherBatchTrigger(job_id=cancelled, on_kill="cancel")).on_kill()
    await _rebuilt(TogetherBatchTrigger(job_id=left, on_kill="leave")).on_kill()
    assert service.job(cancelled)["status"] in {BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED}
    assert service.job(left)["status"] not in {BatchJobStatus.CANCELING, BatchJobStatus.CANCELLED}


async def test_the_arguments_hold_no_secret(service: Emulator) -> None:
    """What Airflow stores of a trigger holds ids, and never a key."""
    _, arguments = TogetherBatchTrigger(job_id="job-1").serialize()
    assert set(arguments) == {"job_id", "conn_id", "poll_interval", "accepted_within", "on_kill"}
    assert KEY not in str(arguments)


async def test_a_job_that_cannot_be_followed(service: Emulator) -> None:
    """An error is an event, because the task decides what follows from it."""
    event = await _event(TogetherBatchTrigger(job_id=" "))
    assert event["status"] is None
    assert event["error"].startswith("UsageError: ")


async def test_a_connection_without_a_key(service: Emulator, connect: Callable[..., None]) -> None:
    """A connection that makes no client is an event too, for every trigger that waits."""
    connect(password="")
    events = await asyncio.gather(*(_event(TogetherBatchTrigger(job_id=f"job-{n}")) for n in range(3)))
    assert {event["error"] for event in events} == {
        "UsageError: connection 'together_default' has no API key: set its password"
    }
    assert triggers._shared == {}


async def test_a_job_that_is_accepted(service: Emulator) -> None:
    """The first job of a dataset is waited for until it has left VALIDATING."""
    (job_id,) = _jobs(service, 1)
    event = await _event(_rebuilt(TogetherBatchTrigger(job_id=job_id, accepted_within=60, poll_interval=0.1)))
    assert event == {"job_id": job_id, "status": "IN_PROGRESS", "error": None}


async def test_a_job_that_is_accepted_late(connect: Callable[..., None]) -> None:
    """A queue at the service does not hold a dataset up: the wait ends after the time that was given."""
    with Emulator(api_key=KEY, timing=Timing(validating=3600)).running_in_thread() as service:
        connect(host=service.base_url)
        (job_id,) = _jobs(service, 1)
        event = await _event(TogetherBatchTrigger(job_id=job_id, accepted_within=0.5, poll_interval=0.1))
    assert event == {"job_id": job_id, "status": "VALIDATING", "error": None}


async def test_a_pause() -> None:
    """A pause ends at its moment; one that has passed ends at once."""
    for moment in (datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(seconds=0.1)):
        event = await _event(_rebuilt(TogetherPauseTrigger(moment=moment.isoformat())))
        assert datetime.fromisoformat(event["moment"]) == moment <= datetime.now(UTC)
