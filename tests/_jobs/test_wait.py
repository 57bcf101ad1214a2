"""Waiting for one job, and for many with one poller, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from wires import without_wires

from together_batches import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    BatchJob,
    BatchJobStatus,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UsageError,
    WaitTimeoutError,
)
from together_batches._jobs.job_requests import JobsApi
from together_batches._jobs.wait import Wait, as_completed, ended

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

HOUR = 3600.0
DAY = 24 * HOUR
NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)

Phase = tuple[float, str] | tuple[float, str, float] | tuple[float, BatchesError]
"""Seconds from which on a status, perhaps with a progress, is returned, or an error is raised."""
QUICK: list[Phase] = [(0, "IN_PROGRESS"), (10, "COMPLETED", 100)]
ENDLESS: list[Phase] = [(0, "IN_PROGRESS", 37.25)]
TROUBLE = InternalServerError("in trouble", status=500)
BACK_OFF = [0, 1, 3, 7, 15, 31, 60]
"""Seconds at which an absent object is read, with a patience of 60 s."""


def gone() -> NotFoundError:
    return NotFoundError("no such job", status=404)


async def not_called(*_: object) -> BatchJob:
    raise AssertionError


class Service:
    """Jobs with scripted states, and a record of the requests and their times.

    A completed job names its output, or follows ``files``: an id, and the second from which on it is named.
    """

    def __init__(
        self,
        *,
        seconds: float = 0,
        created: datetime | None = None,
        files: dict[str, float] | None = None,
        **lives: list[Phase],
    ) -> None:
        self.lives = lives
        self.files = {"output_file_id": 0.0} if files is None else files
        self.only_listed: set[str] = set()
        self.seconds = seconds
        self.created = created
        self.others = 0
        self.hidden: set[str] = set()
        self.list_fails: list[BatchesError | None] = []
        self.retrieved: list[tuple[float, str]] = []
        self.listed: list[float] = []
        self.running = self.most_running = 0

    def api(self, knows: Callable[[str], bool], chance: float) -> JobsApi:
        """Use the loop's clock; a ``chance`` of one half leaves intervals unchanged."""
        return JobsApi(
            cancel=not_called,
            retrieve=self.retrieve,
            retrieve_once=not_called,
            list_jobs=self.list_jobs,
            knows=knows,
            now=lambda: NOON,
            clock=asyncio.get_running_loop().time,
            sleep=asyncio.sleep,
            chance=lambda: chance,
            read=lambda _: None,
            seen=lambda _: None,
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def job(self, job_id: str) -> BatchJob:
        *_, phase = (phase for phase in self.lives[job_id] if phase[0] <= self.now)
        match phase:
            case (_, BatchesError() as error):
                raise error
            case (_, str() as status, *progress):
                percent = float(progress[0]) if progress else None
                files = {name: name for name, since in self.files.items() if since <= self.now}
                return BatchJob(
                    id=job_id,
                    status=BatchJobStatus(status),
                    progress=percent,
                    created_at=self.created,
                    **files if status == "COMPLETED" else {},
                )
        raise AssertionError(phase)

    async def retrieve(self, job_id: str, _: object = None) -> BatchJob:
        self.retrieved.append((self.now, job_id))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if job_id not in self.lives or job_id in self.only_listed:
            raise gone()
        return self.job(job_id)

    async def list_jobs(self, _: object = None) -> list[BatchJob]:
        self.listed.append(self.now)
        error = self.list_fails.pop(0) if self.list_fails else None
        if error is not None:
            raise error
        listed = [BatchJob(id=f"other-{number}") for number in range(self.others)]
        for job_id in self.lives:
            if job_id not in self.hidden:
                with suppress(NotFoundError):
                    listed.append(self.job(job_id))
        return listed

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for time, _ in self.retrieved]


def knows_none(_: str) -> bool:
    return False


def knows_all(_: str) -> bool:
    return True


def making(
    service: Service, *, knows: Callable[[str], bool] = knows_none, chance: float = 0.5, **options: Any
) -> partial[Wait]:
    """Return the function that makes a wait for jobs of a service."""
    usual = {"api": service.api(knows, chance), "max_concurrency": 100, "poll_interval": None, "patience": 60}
    return partial(Wait, **{**usual, **options})


async def wait(service: Service, job: str | BatchJob = "a", on_update: Any = None, **options: Any) -> BatchJob:
    return await ended(making(service, **options), job, on_update)


def each(service: Service, jobs: Any, **options: Any) -> AsyncGenerator[BatchJob, None]:
    return as_completed(making(service, **options), jobs)


async def ids_of(jobs: AsyncIterator[BatchJob]) -> list[str]:
    return [job.id async for job in jobs]


def many(count: int, life: list[Phase]) -> dict[str, list[Phase]]:
    return {f"job-{number}": life for number in range(count)}


# --- intervals -------


@without_wires
async def test_a_short_job_is_noticed_soon() -> None:
    """A short job is read at once, then every two seconds, then within a third of its duration so far."""
    service = Service(a=[(0, "VALIDATING"), (5, "IN_PROGRESS"), (13, "COMPLETED", 100)])
    assert (await wait(service)).status == BatchJobStatus.COMPLETED
    assert service.times[:5] == [0, 2, 4, 6, 8]
    assert service.times[-1] < 13 * 4 / 3


@pytest.mark.parametrize(("chance", "apart"), [(0, 30), (0.5, 45), (1, 60)])
@without_wires
async def test_a_long_job_is_read_as_often_as_the_service_recommends(chance: float, apart: float) -> None:
    """A long job is read every 30 to 60 s at random, as the service recommends."""
    service = Service(a=[(0, "IN_PROGRESS"), (HOUR, "COMPLETED")])
    await wait(service, chance=chance)
    assert service.times[-1] - service.times[-2] == pytest.approx(apart)


@without_wires
async def test_a_job_that_is_old_already_is_read_seldom() -> None:
    """The age of a job counts from its creation, not from the beginning of the wait."""
    service = Service(a=[(0, "IN_PROGRESS"), (100, "COMPLETED")], created=NOON - timedelta(hours=5))
    await wait(service)
    assert service.times == [0, 45, 90, 135]


@without_wires
async def test_a_job_created_in_the_future_is_a_young_one() -> None:
    """A job with a creation time in the future counts as new, so that different clocks are harmless."""
    service = Service(a=QUICK, created=NOON + timedelta(days=1))
    await wait(service)
    assert service.times[:3] == [0, 2, 4]


@without_wires
async def test_a_cancelled_job_is_looked_at_soon() -> None:
    """A cancelled job is read as often as after a cancel that is followed, however long it ran and drains."""
    service = Service(a=[(0, "CANCELING"), (5, "CANCELLED")], created=NOON - timedelta(hours=5))
    await wait(service)
    assert service.times == [0, 1, 2.5, 4.75, 8.125]
    service = Service(a=[(0, "CANCELING"), (170, "CANCELLED")], created=NOON)
    await wait(service)
    assert [after - before for before, after in pairwise(service.times)][-3:] == [30, 30, 30]


@without_wires
async def test_a_job_that_is_cancelled_during_the_wait() -> None:
    """From the first read that shows the cancel, a job is read often."""
    service = Service(a=[(0, "IN_PROGRESS"), (50, "CANCELING"), (95, "CANCELLED")], created=NOON - timedelta(hours=5))
    await wait(service)
    assert service.times == [0, 45, 90, 91, 92.5, 94.75, 98.125]


@without_wires
async def test_an_interval_of_ones_own_is_kept() -> None:
    """An interval set by the caller is used without growth or random variation."""
    service = Service(a=[(0, "IN_PROGRESS"), (1000, "COMPLETED")])
    await wait(service, poll_interval=300, chance=1)
    assert service.times == [0, 300, 600, 900, 1200]


@pytest.mark.unmeasured
@without_wires
async def test_days() -> None:
    """A job may outlive its deadline, and a wait without a timeout continues."""
    service = Service(a=[(0, "IN_PROGRESS"), (3 * DAY, "COMPLETED")])
    await wait(service)
    assert pytest.approx(len(service.times), rel=0.01) == 3 * DAY / 45


@without_wires
async def test_a_finished_job_is_not_read() -> None:
    """A finished job is not read, because a terminal state never changes."""
    service = Service()
    updates: list[BatchJob] = []
    job = BatchJob(id="a", status=BatchJobStatus.EXPIRED)
    assert job is await wait(service, job, on_update=updates.append)
    assert ([job], []) == (updates, service.retrieved)


@without_wires
async def test_a_status_of_tomorrow_is_waited_for() -> None:
    """An unknown status is waited for, because it is not terminal."""
    service = Service(a=[(0, "PAUSED"), (100, "FAILED")])
    assert (await wait(service)).status == BatchJobStatus.FAILED


# --- failures ----------


@pytest.mark.parametrize(
    "trouble",
    [
        APIConnectionError("no answer"),
        APITimeoutError("not in time"),
        InternalServerError("in trouble", status=503),
        RateLimitError("too fast", status=429, retry_after=5),
        APIResponseValidationError("garbage", expected="a job"),
    ],
)
@without_wires
async def test_transient_errors_are_waited_out(trouble: BatchesError, caplog: pytest.LogCaptureFixture) -> None:
    """Transient errors are retried for hours, with a line in the log."""
    service = Service(a=[(0, "IN_PROGRESS"), (10, trouble), (2 * HOUR, "COMPLETED")])
    assert (await wait(service)).status == BatchJobStatus.COMPLETED
    assert ("together_batches", logging.WARNING) in {record[:2] for record in caplog.record_tuples}
    assert "1 of 1 jobs could not be read, and will be read again: " in caplog.messages[0]


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("who?", status=401),
        PermissionDeniedError("no", status=403),
        BadRequestError("what?", status=400),
        UsageError("this client is closed"),
    ],
)
@without_wires
async def test_permanent_errors_are_raised(error: BatchesError) -> None:
    """Permanent errors are raised at once, unchanged."""
    service = Service(a=[(0, "IN_PROGRESS"), (5, error)])
    with pytest.raises(type(error)) as raised:
        await wait(service)
    assert error is raised.value
    assert service.times == [0, 2, 4, 6]


@without_wires
async def test_the_end_of_the_time() -> None:
    """The timeout error names the job, its state and a continuing outage; its cause is the last error."""
    service = Service(a=[*ENDLESS, (500, TROUBLE)])
    with pytest.raises(WaitTimeoutError) as raised:
        await wait(service, timeout=600)
    assert str(raised.value) == (
        "timed out after 600 s, and 1 job was still pending; left alone: a was IN_PROGRESS at 37.25 %"
        "; the service has not answered successfully since 2026-09-14 12:00:00 UTC"
    )
    assert raised.value.jobs == (BatchJob(id="a", status=BatchJobStatus.IN_PROGRESS, progress=37.25),)
    assert TROUBLE is raised.value.__cause__
    assert pytest.approx(600) == service.now


@without_wires
async def test_a_look_before_the_end() -> None:
    """There is a last read before the timeout, so a job that finished since the previous one is not missed."""
    service = Service(a=[(0, "IN_PROGRESS"), (590, "COMPLETED")])
    await wait(service, timeout=600, poll_interval=400)
    assert service.times == [0, 400, 599]


@without_wires
async def test_a_job_that_was_never_seen() -> None:
    """A timeout names a job that was never seen too, and interrupts a call that hangs."""
    service = Service(a=QUICK, seconds=HOUR)
    with pytest.raises(WaitTimeoutError, match=r"left alone: a was never seen$") as raised:
        await wait(service, timeout=5)
    assert raised.value.jobs == (BatchJob(id="a"),)
    assert pytest.approx(5) == service.now
    assert service.running == 0


@without_wires
async def test_no_time_at_all_is_one_look() -> None:
    """A timeout of zero is one read, of any duration."""
    finished = Service(a=[(0, "COMPLETED")], seconds=3)
    assert (await wait(finished, timeout=0)).is_terminal
    running = Service(a=ENDLESS)
    with pytest.raises(WaitTimeoutError, match=r"^checked once, and 1 job was still pending; left alone: a was IN"):
        await wait(running, timeout=0)
    assert len(running.retrieved) == 1


@without_wires
async def test_a_timeout_is_a_timeout_error() -> None:
    """A timeout of a wait is also Python's ``TimeoutError``."""
    with pytest.raises(TimeoutError):
        await wait(Service(a=ENDLESS), timeout=1)


@without_wires
async def test_a_cancelled_wait_ends_at_once() -> None:
    """A cancelled wait ends at once and leaves nothing running."""
    service = Service(a=ENDLESS, seconds=5)
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(12):
            await wait(service)
    assert not isinstance(raised.value, WaitTimeoutError)
    assert pytest.approx(12) == service.now
    assert service.running == 0


@without_wires
async def test_a_cancelled_scope_around_a_wait() -> None:
    """A wait can clean up in a cancelled scope of anyio, which cancels repeatedly."""
    service = Service(a=ENDLESS, seconds=5)
    with anyio.move_on_after(12) as scope:
        await wait(service)
    assert scope.cancelled_caught
    assert service.running == 0


# --- an absent job ----------


@without_wires
async def test_an_id_that_was_never_seen_is_a_404_at_once() -> None:
    """A 404 for an id that was never seen is raised at once, without another read or list: the id is wrong."""
    service = Service()
    with pytest.raises(NotFoundError, match=r"no such job$"):
        await wait(service, "nowhere")
    assert (service.times, service.listed) == ([0], [])


@pytest.mark.parametrize("known", ["passed as a job", "seen before", "seen by this wait"])
@without_wires
async def test_a_404_of_a_known_job_passes(known: str, caplog: pytest.LogCaptureFixture) -> None:
    """A known job that answers 404 is searched for by id and in the list, with back-off and a warning each time."""
    seen = known == "seen by this wait"
    service = Service(a=[*([(0, "VALIDATING")] if seen else []), (1 if seen else 0, gone()), (30, "COMPLETED")])
    job = BatchJob(id="a") if known == "passed as a job" else "a"
    assert (await wait(service, job, knows=knows_all if known == "seen before" else knows_none)).status == "COMPLETED"
    looks = [0, 2, 3, 5, 9, 17, 33] if seen else [0, 1, 3, 7, 15, 31]
    assert looks == service.times
    assert service.listed == looks[seen:-1]
    assert "job a is absent (the service answered 404: no such job); it is read again in 1 s" in caplog.messages


@without_wires
async def test_a_job_that_only_the_list_shows_is_there() -> None:
    """A job that only the list shows is followed: the list counts like a read, for its final state too."""
    service = Service(a=QUICK)
    service.only_listed = {"a"}
    updates: list[BatchJob] = []
    assert (await wait(service, knows=knows_all, on_update=updates.append)).status == "COMPLETED"
    assert [job.status for job in updates] == ["IN_PROGRESS", "COMPLETED"]
    assert [round(time, 3) for time in service.listed] == service.times


@pytest.mark.parametrize(
    ("patience", "looks", "text"),
    [
        (60, BACK_OFF, r"no such job \(it exists as far as is known, and has been absent for 60 s\)$"),
        (2.5, [0, 1, 2.5], r"no such job \(it exists as far as is known, and has been absent for 2.5 s\)$"),
        (0, [0], "no such job$"),
    ],
)
@without_wires
async def test_a_404_that_stays(patience: float, looks: list[float], text: str) -> None:
    """A lasting 404 is raised when patience is over, and the text names it; without patience there is one read."""
    service = Service()
    with pytest.raises(NotFoundError, match=text):
        await wait(service, knows=knows_all, patience=patience)
    assert looks == service.times
    assert looks == service.listed


@without_wires
async def test_an_outage_is_no_absence() -> None:
    """An outage is not an absence: only 404s count towards patience, which restarts when the job is seen."""
    service = Service(
        a=[(0, gone()), (20, TROUBLE), (HOUR, gone()), (HOUR + 40, "IN_PROGRESS"), (2 * HOUR, gone())],
    )
    with pytest.raises(NotFoundError, match="absent for 60 s"):
        await wait(service, knows=knows_all)
    after = [time for time in service.times if time >= 2 * HOUR]
    assert [round(time - after[0], 3) for time in after] == BACK_OFF


@pytest.mark.parametrize("error", [PermissionDeniedError("no", status=403), TROUBLE])
@without_wires
async def test_a_list_that_cannot_be_read_shows_nothing(error: BatchesError) -> None:
    """If the list cannot be read either, the 404 counts as an absence."""
    service = Service(a=[(0, gone()), (5, "COMPLETED")])
    service.list_fails = [error] * 9
    assert (await wait(service, knows=knows_all)).status == "COMPLETED"
    assert service.times == [0, 1, 3, 7]


@pytest.mark.parametrize("error", [AuthenticationError("who?", status=401), UsageError("this client is closed")])
@without_wires
async def test_a_list_that_says_that_nothing_will_work(error: BatchesError) -> None:
    """A permanent error of the list ends the wait at once."""
    service = Service()
    service.list_fails = [error]
    with pytest.raises(type(error)):
        await wait(service, knows=knows_all)
    assert service.times == [0]


@without_wires
async def test_the_end_of_the_time_while_a_job_is_absent() -> None:
    """If the timeout expires while a job is absent, its cause is the 404, because the job may not exist any more."""
    for timeout in (0, 10):
        with pytest.raises(WaitTimeoutError, match="a was never seen") as raised:
            await wait(Service(), knows=knows_all, timeout=timeout)
        assert isinstance(raised.value.__cause__, NotFoundError)


@without_wires
async def test_an_absent_job_does_not_hold_up_the_others() -> None:
    """An absent job does not delay the others; their polls do not use up its patience: its schedule is its own."""
    service = Service(a=[(0, gone()), (58, "COMPLETED")], b=[(0, "IN_PROGRESS"), (9, "FAILED")], c=ENDLESS)
    jobs = each(service, ["a", "b", "c"], knows=knows_all, poll_interval=1.5, timeout=100)
    given = [((await anext(jobs)).id, service.now) for _ in range(2)]
    assert given == [("b", 9), ("a", 60)]
    assert [time for time, job_id in service.retrieved if job_id == "a"] == BACK_OFF
    await jobs.aclose()


@without_wires
async def test_an_absent_job_among_many_is_raised_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """An absent job among many is raised after all others were followed to their end."""
    lives = many(30, [(0, "IN_PROGRESS"), (HOUR, "COMPLETED")])
    service = Service(**lives)
    jobs = each(service, ["gone", *lives], knows=knows_all)
    given = [(await anext(jobs)).id for _ in lives]
    assert sorted(given) == sorted(lives)
    with pytest.raises(NotFoundError, match="absent for 60 s"):
        await anext(jobs)
    assert "the job gone cannot be waited for" in caplog.text


# --- result files that are late ----------


@without_wires
async def test_a_completed_job_is_held_until_it_names_a_file() -> None:
    """A completed job is held until it names a file, which may be later than its status.

    It is read with back-off, and each change is an update.
    """
    service = Service(a=[(0, "COMPLETED", 100)], files={"output_file_id": 20})
    updates: list[BatchJob] = []
    job = await wait(service, on_update=updates.append)
    assert job.output_file_id
    assert service.times == [0, 1, 3, 7, 15, 31]
    assert [seen.output_file_id for seen in updates] == [None, "output_file_id"]


@pytest.mark.parametrize("first", ["output_file_id", "error_file_id"])
@without_wires
async def test_one_file_of_two_is_enough(first: str) -> None:
    """One file is enough, because a job may have only answers or only errors."""
    service = Service(a=[(0, "COMPLETED")], files={"output_file_id": 50, "error_file_id": 50, first: 5})
    job = await wait(service)
    assert service.now == 7
    assert {job.output_file_id, job.error_file_id} == {first, None}


@pytest.mark.parametrize(("patience", "looks"), [(60, BACK_OFF), (5, [0, 1, 3, 5]), (0, [0])])
@without_wires
async def test_a_completed_job_that_names_no_file(
    patience: float, looks: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """A completed job without a file is returned with a warning when patience is over, because it has completed."""
    service = Service(a=[(0, "COMPLETED")], files={})
    assert (await wait(service, patience=patience)).status == "COMPLETED"
    assert looks == service.times
    assert caplog.messages == ["job a is COMPLETED and names no file of results; they may appear later"]


@pytest.mark.parametrize("timeout", [0, 10])
@without_wires
async def test_the_end_of_the_time_while_a_job_is_held(timeout: float, caplog: pytest.LogCaptureFixture) -> None:
    """If the timeout expires while a completed job is held, the job is returned with the warning."""
    service = Service(a=[(0, "COMPLETED")], b=ENDLESS, files={})
    assert (await wait(service, timeout=timeout)).status == "COMPLETED"
    assert service.now == timeout
    jobs = each(service, ["b", "a"], timeout=timeout)
    assert (await anext(jobs)).id == "a"
    with pytest.raises(WaitTimeoutError, match="1 job was still pending; left alone: b was IN_PROGRESS"):
        await anext(jobs)
    assert set(caplog.messages) == {"job a is COMPLETED and names no file of results; they may appear later"}


@pytest.mark.parametrize("status", ["FAILED", "EXPIRED", "CANCELLED"])
@without_wires
async def test_a_job_that_ended_otherwise_is_not_held(status: str) -> None:
    """A job that ended otherwise is not held, because it may have no files at all."""
    service = Service(a=[(0, status)], files={})
    assert (await wait(service)).status == status
    assert service.times == [0]


@without_wires
async def test_a_completed_job_without_files_that_is_passed_in() -> None:
    """A completed job without files that is passed in is returned without a request: the caller knows its state."""
    job = BatchJob(id="a", status=BatchJobStatus.COMPLETED)
    service = Service()
    assert job is await wait(service, job)
    assert service.retrieved == []


@without_wires
async def test_an_outage_while_a_job_is_held() -> None:
    """An outage while a job is held is retried and uses up no patience."""
    service = Service(a=[(0, "COMPLETED"), (10, TROUBLE), (HOUR, "COMPLETED")], files={"output_file_id": HOUR + 30})
    assert (await wait(service)).output_file_id


@pytest.mark.parametrize("lagging", [(10, gone()), (10, "IN_PROGRESS", 50)])
@without_wires
async def test_an_end_is_an_end(lagging: Phase) -> None:
    """A terminal state is final: a later, different one comes from an outdated replica, and names no file either."""
    service = Service(a=[(0, "COMPLETED", 100), lagging], files={})
    updates: list[BatchJob] = []
    assert (await wait(service, on_update=updates.append)).status == "COMPLETED"
    assert service.times == BACK_OFF
    assert [job.status for job in updates] == ["COMPLETED"]


@without_wires
async def test_no_job_is_held_for_those_who_look_for_files_themselves() -> None:
    """With no wait for files, each job is returned when it has ended."""
    service = Service(a=[(0, "COMPLETED")], files={})
    assert await ids_of(each(service, ["a"], holds=False)) == ["a"]
    assert service.times == [0]


@without_wires
async def test_held_jobs_do_not_hold_up_the_others() -> None:
    """Held jobs do not delay the others: each is returned when it is ready."""
    service = Service(a=[(0, "COMPLETED")], b=[(0, "IN_PROGRESS"), (9, "FAILED")], files={"output_file_id": 20})
    jobs = each(service, ["a", "b"])
    assert [(job.id, service.now >= 20) async for job in jobs] == [("b", False), ("a", True)]


# --- updates ------------------


@without_wires
async def test_updates() -> None:
    """``on_update`` gets the first state, each change and the final job, and progress never decreases."""
    service = Service(
        a=[
            (0, "VALIDATING"),
            (10, "IN_PROGRESS", 10),
            (20, "IN_PROGRESS", 30),
            (30, "IN_PROGRESS", 20),
            (40, "IN_PROGRESS"),
            (50, "IN_PROGRESS", 40),
            (60, "FAILED", 0),
        ]
    )
    updates: list[BatchJob] = []
    returned = await wait(service, poll_interval=1, on_update=updates.append)
    assert [(str(job.status), job.progress) for job in updates] == [
        ("VALIDATING", None),
        ("IN_PROGRESS", 10),
        ("IN_PROGRESS", 30),
        ("IN_PROGRESS", 40),
        ("FAILED", 40),
    ]
    assert updates[-1] is returned


@without_wires
async def test_progress_that_was_known_before() -> None:
    """The progress of a job that is passed in is its first known progress."""
    known = BatchJob(id="a", status=BatchJobStatus.IN_PROGRESS, progress=50)
    updates: list[BatchJob] = []
    await wait(Service(a=[(0, "IN_PROGRESS", 40), (5, "COMPLETED", 100)]), known, on_update=updates.append)
    assert [job.progress for job in updates] == [50, 100]


@without_wires
async def test_an_update_that_fails_ends_the_wait() -> None:
    """An exception from ``on_update`` ends the wait and is raised unchanged."""

    def fail(job: BatchJob) -> None:
        raise ValueError(job.id)

    with pytest.raises(ValueError, match=r"^a$"):
        await wait(Service(a=ENDLESS), on_update=fail)


@without_wires
async def test_an_update_that_raises_a_cancellation_ends_the_wait() -> None:
    """A cancellation that ``on_update`` raises, such as of a future of its own, ends the wait, too."""

    def fail(_: BatchJob) -> None:
        raise asyncio.CancelledError

    service = Service(a=ENDLESS)
    with pytest.raises(asyncio.CancelledError):
        await wait(service, on_update=fail)
    assert service.times == [0]


@without_wires
async def test_a_job_that_does_not_move(caplog: pytest.LogCaptureFixture) -> None:
    """A job without changes is logged once an hour."""
    service = Service(a=[(0, "IN_PROGRESS", 5), (HOUR / 2, "IN_PROGRESS", 6), (5 * HOUR, "COMPLETED")])
    await wait(service)
    assert caplog.messages == [
        f"the job a was IN_PROGRESS at 6 % for {hours} h, without a change; it is still waited for"
        for hours in ("1.0", "2.0", "3.0", "4.0")
    ]


# --- many jobs ---


@without_wires
async def test_each_as_it_finishes() -> None:
    """Each job is yielded as it finishes, in whatever final state."""
    service = Service(
        a=[(0, "IN_PROGRESS"), (100, "FAILED")], b=[(0, "COMPLETED")], c=[(0, "VALIDATING"), (50, "CANCELLED")]
    )
    assert await ids_of(each(service, ["a", "b", "c"])) == ["b", "c", "a"]


@without_wires
async def test_a_repeated_id_is_given_once() -> None:
    """A repeated job is yielded once, by id or as a job."""
    service = Service(a=QUICK, b=QUICK)
    assert await ids_of(each(service, ["a", BatchJob(id="a"), "b", "a"])) == ["a", "b"]


@without_wires
async def test_none() -> None:
    """Without jobs the iteration is empty."""
    assert await ids_of(each(Service(), [])) == []


@without_wires
async def test_finished_ones_come_first_and_cost_nothing() -> None:
    """Finished jobs are yielded first, before any request."""
    service = Service(a=QUICK)
    done = BatchJob(id="b", status=BatchJobStatus.COMPLETED)
    async with aclosing(each(service, ["a", done])) as jobs:
        assert done is await anext(jobs)
        assert await ids_of(jobs) == ["a"]
    assert {job_id for _, job_id in service.retrieved} == {"a"}


@pytest.mark.unmeasured
@without_wires
async def test_many_are_read_from_the_list() -> None:
    """Many jobs are read in one list, not one by one."""
    service = Service(**many(200, [(0, "IN_PROGRESS"), (HOUR, "COMPLETED")]))
    service.others = 200
    assert len(await ids_of(each(service, service.lives))) == 200
    assert service.retrieved == []
    assert 80 < len(service.listed) < 110


@without_wires
async def test_few_are_read_one_by_one() -> None:
    """Few jobs are read one by one, and never too many at once."""
    few = Service(**many(5, QUICK))
    await ids_of(each(few, few.lives))
    assert few.listed == []


@without_wires
async def test_many_in_a_far_larger_account_are_read_one_by_one() -> None:
    """Many jobs in a far larger account are read one by one once its size is known, and never too many at once."""
    service = Service(seconds=0.1, **many(30, QUICK))
    service.others = 1000
    assert len(await ids_of(each(service, service.lives, max_concurrency=7))) == 30
    assert len(service.listed) == 1
    assert service.most_running == 7


@without_wires
async def test_a_job_that_the_list_leaves_out() -> None:
    """A job that the list omits is read by itself."""
    service = Service(**many(30, QUICK))
    service.hidden = {"job-7"}
    assert len(await ids_of(each(service, service.lives))) == 30
    assert {job_id for _, job_id in service.retrieved} == {"job-7"}


@without_wires
async def test_a_key_that_may_not_list() -> None:
    """A refused list does not decide about the jobs, and is not tried again."""
    lives = many(30, QUICK)
    service = Service(**lives)
    service.list_fails = [PermissionDeniedError("no", status=403)]
    assert len(await ids_of(each(service, lives))) == 30
    assert len(service.listed) == 1


@without_wires
async def test_a_key_that_is_refused_for_the_list() -> None:
    """A key that is refused for the list ends the wait, because it would be refused for each job too."""
    service = Service(**many(30, QUICK))
    service.list_fails = [AuthenticationError("who?", status=401)]
    with pytest.raises(AuthenticationError):
        await ids_of(each(service, service.lives))
    assert service.retrieved == []


@without_wires
async def test_a_list_that_fails() -> None:
    """A failed list is skipped for one round, and then tried again."""
    service = Service(**many(30, [(0, "IN_PROGRESS"), (HOUR, "COMPLETED")]))
    service.list_fails = [None, TROUBLE]
    assert len(await ids_of(each(service, service.lives))) == 30
    assert len(service.retrieved) == 30
    assert len(service.listed) > 50


@without_wires
async def test_an_outage_is_not_made_worse() -> None:
    """During an outage a round stops after a few failures, so that it does not request every job."""
    lives = many(500, [(0, TROUBLE), (100, "COMPLETED")])
    service = Service(**lives)
    service.list_fails = [PermissionDeniedError("no", status=403)]
    assert len(await ids_of(each(service, lives, max_concurrency=10))) == 500
    looks = {time for time, _ in service.retrieved if time < 100}
    assert len([time for time, _ in service.retrieved if time < 100]) <= 30 * len(looks)


@without_wires
async def test_jobs_of_different_ages_are_looked_at_together() -> None:
    """Jobs that are due soon are read together with those due now."""
    lives = many(40, [(0, "IN_PROGRESS"), (2 * HOUR, "COMPLETED")])
    service = Service(**lives)

    async def slowly() -> AsyncIterator[str]:
        for job_id in lives:
            yield job_id
            await asyncio.sleep(3)

    await ids_of(each(service, slowly()))
    assert len({time for time in service.times if time > HOUR} | set(service.listed)) < 4 * HOUR / 45 * 2


# --- ids from an async source -------


@without_wires
async def test_ids_are_followed_as_they_come() -> None:
    """Ids are followed as they arrive, without waiting for the last one."""
    service = Service(a=QUICK, b=[(0, "COMPLETED")])

    async def ids() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(1000)
        yield "b"

    given = [(service.now, job.id) async for job in each(service, ids())]
    assert given == [(pytest.approx(10.67, abs=1), "a"), (1000, "b")]


@without_wires
async def test_no_time_at_all_for_ids_that_come() -> None:
    """With a timeout of zero, each id of an async source is read once."""
    service = Service(a=ENDLESS, b=[(0, "COMPLETED")])

    async def ids() -> AsyncIterator[str]:
        for job_id in ("a", "b"):
            yield job_id
            await asyncio.sleep(1)

    jobs = each(service, ids(), timeout=0)
    assert (await anext(jobs)).id == "b"
    with pytest.raises(WaitTimeoutError, match="a was IN_PROGRESS"):
        await anext(jobs)
    assert len(service.retrieved) == 2


@without_wires
async def test_a_source_that_fails() -> None:
    """An exception from the source ends the iteration unchanged, even if jobs are pending."""

    async def ids() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(100)
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        await ids_of(each(Service(a=ENDLESS), ids()))

    def plain() -> Iterable[str]:
        yield "a"
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        await ids_of(each(Service(a=ENDLESS), plain()))


@without_wires
async def test_a_source_that_was_cancelled() -> None:
    """A cancelled source is an error, not the end of the source."""

    async def ids() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ids_of(each(Service(a=ENDLESS), ids()))


@without_wires
async def test_a_long_source_lets_others_run() -> None:
    """A million ids are not consumed in one step, so that other tasks run."""
    service = Service()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    done = (BatchJob(id=str(number), status=BatchJobStatus.COMPLETED) for number in range(5000))
    assert len(await ids_of(each(service, done))) == 5000
    counting.cancel()
    await asyncio.wait([counting])
    assert turns >= 5


# --- failures of some of many ------------


@without_wires
async def test_a_job_that_cannot_be_followed(caplog: pytest.LogCaptureFixture) -> None:
    """A job that cannot be followed is logged at once, and raised after the others were followed to their end."""
    service = Service(a=[(0, "IN_PROGRESS"), (HOUR / 2, "COMPLETED")])
    jobs = each(service, ["nowhere", "a"])
    assert (await anext(jobs)).id == "a"
    with pytest.raises(NotFoundError):
        await anext(jobs)
    assert len([job_id for _, job_id in service.retrieved if job_id == "nowhere"]) == 1
    assert caplog.messages[0].startswith("the job nowhere cannot be waited for: the service answered 404")


@without_wires
async def test_the_only_job_cannot_be_followed(caplog: pytest.LogCaptureFixture) -> None:
    """The error of the only job is raised at once, and not logged as well."""
    with pytest.raises(NotFoundError):
        await ids_of(each(Service(), ["nowhere"]))
    assert not caplog.messages


@without_wires
async def test_several_that_cannot_be_followed() -> None:
    """Several jobs that cannot be followed raise a group with an error for each."""
    with pytest.raises(ExceptionGroup, match="2 jobs could not be waited for") as raised:
        await ids_of(each(Service(), ["x", "y"]))
    assert [NotFoundError, NotFoundError] == [type(error) for error in raised.value.exceptions]


@without_wires
async def test_a_refused_key_ends_it() -> None:
    """A refused key ends the iteration after all known jobs were yielded."""
    service = Service(a=[(0, AuthenticationError("who?", status=401))], b=ENDLESS)
    jobs = each(service, ["a", "b", BatchJob(id="c", status=BatchJobStatus.COMPLETED)])
    assert (await anext(jobs)).id == "c"
    with pytest.raises(AuthenticationError):
        await anext(jobs)


@without_wires
async def test_what_is_no_id() -> None:
    """An invalid id is misuse, and ends the iteration before any request."""
    service = Service(a=QUICK)
    with pytest.raises(UsageError, match="a job id is text"):
        await ids_of(each(service, ["a", 7]))
    assert service.retrieved == []


@without_wires
async def test_the_end_of_the_time_for_many() -> None:
    """At the timeout all finished jobs were yielded; the error has the others, and its text the first few."""
    lives = many(8, ENDLESS)
    service = Service(a=[(0, "IN_PROGRESS"), (50, "COMPLETED")], **lives)
    jobs = each(service, ["a", "nowhere", *lives], timeout=100)
    assert (await anext(jobs)).id == "a"
    with pytest.raises(WaitTimeoutError) as raised:
        await anext(jobs)
    assert list(lives) == [job.id for job in raised.value.jobs]
    assert "8 jobs were still pending; left alone: job-0 was IN_PROGRESS at 37.25 %; job-1" in str(raised.value)
    assert str(raised.value).endswith("job-4 was IN_PROGRESS at 37.25 %; and 3 more")
    assert isinstance(raised.value.__cause__, NotFoundError)


@without_wires
async def test_the_end_of_the_time_with_endless_ids() -> None:
    """A timeout ends a wait whose ids have no end, too."""
    given = itertools.count()

    async def sleep(_: float) -> None:
        for _ in itertools.islice(given, 50):
            await asyncio.sleep(0)

    service = Service(a=ENDLESS)
    api = attrs.evolve(service.api(knows_none, 0.5), sleep=sleep)
    endless = each(service, ("a" for _ in given), api=api, timeout=10)
    with pytest.raises(WaitTimeoutError, match="job was still pending; left alone: a"):
        await anext(endless)


# --- leaving ---


@without_wires
async def test_leaving_stops_the_work() -> None:
    """Leaving stops the work at once, even in the middle of a call."""
    service = Service(a=[(0, "COMPLETED")], b=ENDLESS, seconds=1)
    async with aclosing(each(service, ["a", "b"])) as jobs:
        async for _ in jobs:
            await asyncio.sleep(2.5)  # the second read of b is under way
            assert service.running == 1
            break
    assert service.running == 0
    requested = len(service.retrieved)
    await asyncio.sleep(HOUR)
    assert len(service.retrieved) == requested


@without_wires
async def test_jobs_may_be_requested_from_different_tasks() -> None:
    """Each job may be requested from a different task, because no task group or cancel scope is open at a yield."""
    service = Service(a=[(0, "COMPLETED")], b=QUICK)
    jobs = each(service, ["a", "b"])
    with anyio.fail_after(5):
        assert (await anext(jobs)).id == "a"
    assert (await asyncio.ensure_future(anext(jobs))).id == "b"
    with anyio.move_on_after(0):
        await jobs.aclose()


@without_wires
async def test_a_slow_reader_does_not_hold_up_the_looking() -> None:
    """A slow consumer does not delay the polls, and gets what finished meanwhile at once."""
    service = Service(a=[(0, "COMPLETED")], b=QUICK, c=QUICK)
    given: list[float] = []
    async for _ in each(service, ["a", "b", "c"]):
        given.append(service.now)
        await asyncio.sleep(1000)
    assert given == [0, 1000, 2000]
