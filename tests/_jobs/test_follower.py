"""One poller of jobs that many tasks share, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import attrs
import pytest
from wires import without_wires

from tests._jobs.test_wait import BACK_OFF, ENDLESS, QUICK, Service, gone, knows_all, making, many
from together_batches import (
    AuthenticationError,
    BatchJob,
    BatchJobStatus,
    InternalServerError,
    NotFoundError,
    UsageError,
    WaitTimeoutError,
)
from together_batches._jobs.follower import AsyncFollower


def follower(service: Service, **options: Any) -> AsyncFollower:
    return AsyncFollower(making(service, **options), asyncio.sleep)


async def start(ending: Any) -> asyncio.Task[BatchJob]:
    """Begin to wait, and return the task when it waits."""
    task = asyncio.ensure_future(ending)
    await asyncio.sleep(0.5)
    return task


async def stop(*tasks: asyncio.Task[BatchJob]) -> None:
    """Cancel tasks, and return when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def others() -> int:
    """Return the number of tasks besides the current one."""
    return len(asyncio.all_tasks()) - 1


# --- the end of jobs ---


@without_wires
async def test_each_task_gets_its_job() -> None:
    """Tasks wait for different jobs at the same time, each until its own has finished."""
    service = Service(a=QUICK, b=[(0, "IN_PROGRESS"), (30, "FAILED")])
    together = follower(service)
    first, second = await asyncio.gather(together.ended("a"), together.ended("b"))
    assert (first.id, first.status, second.id, second.status) == ("a", "COMPLETED", "b", "FAILED")
    assert others() == 0


@without_wires
async def test_many_tasks_are_one_poller() -> None:
    """500 tasks cause one list of the account for each interval, and no other requests."""
    service = Service(**many(500, [(0, "IN_PROGRESS"), (60, "COMPLETED")]))
    together = follower(service, poll_interval=5)
    await asyncio.gather(*(together.ended(f"job-{number}") for number in range(500)))
    assert len(service.listed) <= 60 / 5 + 2
    assert not service.retrieved


@without_wires
async def test_a_job_has_any_number_of_waiters() -> None:
    """Two tasks that wait for one job cause the reads of one, and both get it."""
    service = Service(a=QUICK)
    together = follower(service)
    jobs = await asyncio.gather(together.ended("a"), together.ended(" a\n"), together.ended(BatchJob(id="a")))
    assert [job.status for job in jobs] == 3 * ["COMPLETED"]
    assert service.times == [0, 2, 4, 6, 8, 10.667]


@without_wires
async def test_ids_that_differ_in_case() -> None:
    """Ids that differ only in case may be two jobs, and each caller gets its own."""
    together = follower(Service(a=QUICK, A=[(0, "IN_PROGRESS"), (30, "FAILED")]))
    lower, upper = await asyncio.gather(together.ended("a"), together.ended("A"))
    assert [(job.id, job.status) for job in (lower, upper)] == [("a", "COMPLETED"), ("A", "FAILED")]


@without_wires
async def test_a_service_with_a_spelling_of_its_own() -> None:
    """If the service answers in lower case, a caller gets its job under any spelling, and the other is withdrawn."""

    class Lower(Service):
        async def retrieve(self, job_id: str, _: object = None) -> BatchJob:
            return attrs.evolve(await super().retrieve(job_id), id=job_id.lower())

    service = Lower(A=ENDLESS, a=QUICK, B=QUICK)
    together = follower(service)
    leaving = asyncio.ensure_future(together.ended("A"))
    await asyncio.sleep(0)
    staying = [asyncio.ensure_future(together.ended(job)) for job in "aB"]
    await stop(leaving)
    assert [(await job).id for job in staying] == ["a", "b"]
    assert "A" not in [job_id for _, job_id in service.retrieved]
    assert others() == 0


@without_wires
async def test_a_job_may_be_followed_again() -> None:
    """A job that has ended is read again for the next caller, also while other jobs are followed."""
    service = Service(a=QUICK, b=ENDLESS)
    together = follower(service)
    other = await start(together.ended("b"))
    for _ in range(2):
        assert (await together.ended("a")).status == BatchJobStatus.COMPLETED
    await stop(other)


@without_wires
async def test_a_finished_job_is_returned_at_once() -> None:
    """A job that is passed in as finished causes no request."""
    service = Service()
    job = BatchJob(id="a", status=BatchJobStatus.CANCELLED)
    assert await follower(service).ended(job) is job
    assert not service.retrieved


# --- updates ---


@without_wires
async def test_updates_go_to_each_caller() -> None:
    """Each caller sees the job as last seen when it joins, and then each change."""
    service = Service(a=[(0, "VALIDATING"), (10, "IN_PROGRESS", 50), (20, "COMPLETED", 100)])
    together = follower(service, poll_interval=2)
    seen: tuple[list[BatchJob], list[BatchJob]] = ([], [])
    first = await start(together.ended("a", on_update=seen[0].append))
    await asyncio.sleep(12)
    await asyncio.gather(first, together.ended("a", on_update=seen[1].append))
    assert [job.status for job in seen[0]] == ["VALIDATING", "IN_PROGRESS", "COMPLETED"]
    assert [job.status for job in seen[1]] == ["IN_PROGRESS", "COMPLETED"]


@without_wires
async def test_an_error_of_a_callback_is_that_of_one_caller() -> None:
    """An exception from ``on_update`` is raised by its own call, and the others go on."""

    def fail(_: BatchJob) -> None:
        message = "no"
        raise ValueError(message)

    together = follower(Service(a=QUICK))
    failed, good = await asyncio.gather(
        together.ended("a", on_update=fail), together.ended("a"), return_exceptions=True
    )
    assert isinstance(failed, ValueError)
    assert isinstance(good, BatchJob)


@without_wires
async def test_a_callback_that_raises_stop_iteration() -> None:
    """``StopIteration`` from ``on_update``, such as of ``next()``, is an error of its own call, too."""
    together = follower(Service(a=QUICK))
    failed, good = await asyncio.gather(
        together.ended("a", on_update=lambda _: next(iter(()))), together.ended("a"), return_exceptions=True
    )
    assert isinstance(failed, RuntimeError)
    assert isinstance(failed.__cause__, StopIteration)
    assert isinstance(good, BatchJob)


async def test_a_coroutine_function_is_no_callback() -> None:
    """A coroutine function would never run, and is refused."""

    async def update(_: BatchJob) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        await follower(Service()).ended("a", on_update=update)  # type: ignore[arg-type]


# --- leaving ---


@without_wires
async def test_cancelling_a_caller_withdraws_that_one() -> None:
    """If one of two callers is cancelled, the other gets the job; if all are, the job is not read any more."""
    service = Service(a=QUICK, b=ENDLESS, c=ENDLESS)
    together = follower(service, poll_interval=1)
    leaving, staying, last = [await start(together.ended(job)) for job in "bbc"]
    await stop(leaving)
    await asyncio.sleep(5)
    assert [name for time, name in service.retrieved if time > service.now - 3].count("b") == 3
    await stop(staying)
    await asyncio.sleep(5)
    assert "b" not in [name for time, name in service.retrieved if time > service.now - 3]
    assert (await together.ended("a")).id == "a"
    await stop(last)
    assert others() == 0


@without_wires
async def test_a_caller_that_leaves_before_the_first_read() -> None:
    """An id whose only caller left at once is not read; a caller that comes meanwhile is served."""
    service = Service(a=QUICK, b=ENDLESS)
    together = follower(service)
    other = await start(together.ended("b"))
    leaving = asyncio.ensure_future(together.ended("a"))
    await asyncio.sleep(0)
    await stop(leaving)
    assert (await together.ended("a")).id == "a"
    assert service.times[:2] == [0, 0.5]
    await stop(other)


@without_wires
async def test_a_caller_leaves_during_a_read() -> None:
    """The result of a read whose caller has left is ignored, and the others get theirs."""
    service = Service(a=QUICK, b=QUICK, seconds=5)
    together = follower(service)
    leaving, staying = await start(together.ended("a")), await start(together.ended("b"))
    await stop(leaving)
    assert (await staying).id == "b"


@without_wires
async def test_a_second_cancellation_waits_for_the_work() -> None:
    """A caller that leaves last returns when the work has ended, also if it is cancelled once more meanwhile."""

    class SlowToEnd:
        def follow(self, name: str, given: object) -> None: ...

        def withdraw(self, name: str) -> None: ...

        async def run(self, ids: None) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)

    task = await start(AsyncFollower(lambda **_: cast("Any", SlowToEnd()), asyncio.sleep).ended("a"))
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.1)
    await asyncio.wait([task])
    assert task.cancelled()
    assert others() == 0


@without_wires
async def test_leaving_the_block_ends_all() -> None:
    """Leaving the block ends the waits that are left with an error; a closed follower serves no one."""
    async with follower(Service(a=QUICK, b=ENDLESS)) as together:
        left = await start(together.ended("b"))
        assert (await together.ended("a")).id == "a"
    with pytest.raises(UsageError, match="follower is closed"):
        await left
    with pytest.raises(UsageError, match="follower is closed"):
        await together.ended("a")
    async with follower(Service()):
        pass


@without_wires
async def test_the_time_is_over() -> None:
    """After ``timeout`` the error has the job as last seen, and other callers go on."""
    service = Service(a=ENDLESS)
    together = follower(service)
    other = await start(together.ended("a"))
    with pytest.raises(WaitTimeoutError, match=r"after 10 s: job a was IN_PROGRESS at 37\.25 %") as caught:
        await together.ended("a", timeout=10)
    assert [job.progress for job in caught.value.jobs] == [37.25]
    assert not other.done()
    await stop(other)
    with pytest.raises(WaitTimeoutError, match="never seen"):
        await follower(Service(a=[(0, InternalServerError("no", status=500))])).ended("a", timeout=10)
    assert (await follower(Service(a=QUICK)).ended("a", timeout=60)).id == "a"


# --- errors ---


@without_wires
async def test_a_refusal_is_of_one_job() -> None:
    """A job that does not exist is an error for its callers, and the others are followed."""
    together = follower(Service(a=QUICK))
    found, *missing = await asyncio.gather(
        together.ended("a"), together.ended("x"), together.ended("x"), return_exceptions=True
    )
    assert isinstance(found, BatchJob)
    assert [type(error) for error in missing] == 2 * [NotFoundError]


@without_wires
async def test_a_job_that_is_known_is_looked_for_with_patience() -> None:
    """A job that is known to exist is read again after a 404, as long as by ``wait``."""
    service = Service(a=[(0, gone())])
    with pytest.raises(NotFoundError, match="absent for 60 s"):
        await follower(service, knows=knows_all).ended("a")
    assert service.times == BACK_OFF


@without_wires
async def test_a_refused_key_ends_all() -> None:
    """A refused key is an error for all callers; a later call tries again."""
    refused = AuthenticationError("no", status=401)
    together = follower(Service(a=[(0, refused), (5, "COMPLETED")], b=ENDLESS))
    errors = await asyncio.gather(together.ended("a"), together.ended("b"), return_exceptions=True)
    assert errors == 2 * [refused]
    await asyncio.sleep(5)
    assert (await together.ended("a")).status == BatchJobStatus.COMPLETED


async def test_another_loop() -> None:
    """A follower that is in use belongs to its loop; later it may be used on another one."""
    together = follower(Service(a=ENDLESS))
    first = asyncio.ensure_future(together.ended("a"))
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, together.ended("a"))
    await stop(first)


@pytest.mark.parametrize("job", ["", " ", 7])
async def test_an_invalid_id(job: Any) -> None:
    """An invalid id or timeout is refused, and nothing is begun."""
    with pytest.raises(UsageError):
        await follower(Service()).ended(job)
    with pytest.raises(UsageError, match="timeout"):
        await follower(Service()).ended("a", timeout=0)
    assert others() == 0
