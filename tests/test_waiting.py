"""Waiting: for one job, and for many with one poller, in days that take no time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
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
    _waiting,
)
from together_batches._waiting import Time, Verbs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

HOUR = 3600.0
DAY = 24 * HOUR
NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)

Phase = tuple[float, str] | tuple[float, str, float] | tuple[float, BatchesError]
"""From which second on: a status, perhaps with a progress, or what is raised in place of an answer."""
QUICK: list[Phase] = [(0, "IN_PROGRESS"), (10, "COMPLETED", 100)]
ENDLESS: list[Phase] = [(0, "IN_PROGRESS", 37.25)]
TROUBLE = InternalServerError("in trouble", status=500)


class Service:
    """Jobs whose lives are written down, and a note of what was asked when."""

    def __init__(self, *, seconds: float = 0, created: datetime | None = None, **lives: list[Phase]) -> None:
        self.lives = lives
        self.seconds = seconds
        self.created = created
        self.others = 0
        self.hidden: set[str] = set()
        self.list_fails: list[BatchesError | None] = []
        self.retrieved: list[tuple[float, str]] = []
        self.listed: list[float] = []
        self.running = self.most_running = 0
        self.verbs = Verbs(self.retrieve, self.list_jobs)

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
                return BatchJob(id=job_id, status=BatchJobStatus(status), progress=percent, created_at=self.created)
        raise AssertionError(phase)

    async def retrieve(self, job_id: str) -> BatchJob:
        self.retrieved.append((self.now, job_id))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if job_id not in self.lives:
            raise NotFoundError("no such job", status=404)
        return self.job(job_id)

    async def list_jobs(self) -> list[BatchJob]:
        self.listed.append(self.now)
        error = self.list_fails.pop(0) if self.list_fails else None
        if error is not None:
            raise error
        return [self.job(job_id) for job_id in self.lives if job_id not in self.hidden] + [
            BatchJob(id=f"other-{number}") for number in range(self.others)
        ]

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for time, _ in self.retrieved]


def clocked(chance: float = 0.5) -> Time:
    """The loop's own time; with this ``chance`` intervals are neither stretched nor shortened."""
    return Time(clock=asyncio.get_running_loop().time, chance=lambda: chance, now=lambda: NOON)


async def wait(service: Service, job: str | BatchJob = "a", *, chance: float = 0.5, **options: Any) -> BatchJob:
    options = {"timeout": None, "poll_interval": None, "on_update": None, **options}
    return await _waiting.wait(service.verbs, job, time=clocked(chance), **options)


def each(service: Service, jobs: Any, *, chance: float = 0.5, **options: Any) -> AsyncGenerator[BatchJob, None]:
    options = {"timeout": None, "poll_interval": None, "at_once": 100, **options}
    return _waiting.as_completed(service.verbs, jobs, time=clocked(chance), **options)


async def ids_of(jobs: AsyncIterator[BatchJob]) -> list[str]:
    return [job.id async for job in jobs]


def many(count: int, life: list[Phase]) -> dict[str, list[Phase]]:
    return {f"job-{number}": life for number in range(count)}


# --- when it looks ---


@without_wires
async def test_a_short_job_is_noticed_soon() -> None:
    """It is looked at at once, then every two seconds, then within a third of the time that it has taken."""
    service = Service(a=[(0, "VALIDATING"), (5, "IN_PROGRESS"), (13, "COMPLETED", 100)])
    assert (await wait(service)).status == BatchJobStatus.COMPLETED
    assert service.times[:5] == [0, 2, 4, 6, 8]
    assert service.times[-1] < 13 * 4 / 3


@pytest.mark.parametrize(("chance", "apart"), [(0, 30), (0.5, 45), (1, 60)])
@without_wires
async def test_a_long_one_is_looked_at_as_often_as_the_service_asks(chance: float, apart: float) -> None:
    """30 to 60 s apart, by chance."""
    service = Service(a=[(0, "IN_PROGRESS"), (HOUR, "COMPLETED")])
    await wait(service, chance=chance)
    assert service.times[-1] - service.times[-2] == pytest.approx(apart)


@without_wires
async def test_a_job_that_was_old_before_is_not_asked_after_more_often() -> None:
    """The age counts from its creation, and not from when the wait began."""
    service = Service(a=[(0, "IN_PROGRESS"), (100, "COMPLETED")], created=NOON - timedelta(hours=5))
    await wait(service)
    assert service.times == [0, 45, 90, 135]


@without_wires
async def test_a_job_created_in_the_future_is_a_young_one() -> None:
    """Clocks that are apart do no harm."""
    service = Service(a=QUICK, created=NOON + timedelta(days=1))
    await wait(service)
    assert service.times[:3] == [0, 2, 4]


@without_wires
async def test_a_cancelled_job_is_looked_at_soon() -> None:
    """Draining takes seconds, however long the job ran."""
    service = Service(a=[(0, "CANCELING"), (5, "CANCELLED")], created=NOON - timedelta(hours=5))
    await wait(service)
    assert service.times == [0, 2, 4, 6]


@without_wires
async def test_an_interval_of_ones_own_is_kept() -> None:
    """Neither spread nor grown."""
    service = Service(a=[(0, "IN_PROGRESS"), (1000, "COMPLETED")])
    await wait(service, poll_interval=300, chance=1)
    assert service.times == [0, 300, 600, 900, 1200]


@without_wires
async def test_days() -> None:
    """A job may outlive its deadline, and is waited for without one of the caller's."""
    service = Service(a=[(0, "IN_PROGRESS"), (3 * DAY, "COMPLETED")])
    await wait(service)
    assert pytest.approx(len(service.times), rel=0.01) == 3 * DAY / 45


@without_wires
async def test_a_finished_job_is_not_asked_after() -> None:
    """A terminal state never changes."""
    service = Service()
    told: list[BatchJob] = []
    job = BatchJob(id="a", status=BatchJobStatus.EXPIRED)
    assert job is await wait(service, job, on_update=told.append)
    assert ([job], []) == (told, service.retrieved)


@without_wires
async def test_a_status_of_tomorrow_is_waited_for() -> None:
    """It is not terminal."""
    service = Service(a=[(0, "PAUSED"), (100, "FAILED")])
    assert (await wait(service)).status == BatchJobStatus.FAILED


# --- what goes wrong ---


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
async def test_what_may_pass_is_ridden_out(trouble: BatchesError, caplog: pytest.LogCaptureFixture) -> None:
    """For hours, with a line in the log."""
    service = Service(a=[(0, "IN_PROGRESS"), (10, trouble), (2 * HOUR, "COMPLETED")])
    assert (await wait(service)).status == BatchJobStatus.COMPLETED
    assert ("together_batches", logging.WARNING) in {record[:2] for record in caplog.record_tuples}
    assert "1 of 1 jobs could not be looked at, and will be again: " in caplog.messages[0]


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("who?", status=401),
        PermissionDeniedError("no", status=403),
        NotFoundError("none", status=404),
        BadRequestError("what?", status=400),
        UsageError("this client is closed"),
    ],
)
@without_wires
async def test_what_stays_is_raised(error: BatchesError) -> None:
    """At once, as it is."""
    service = Service(a=[(0, "IN_PROGRESS"), (5, error)])
    with pytest.raises(type(error)) as raised:
        await wait(service)
    assert error is raised.value
    assert service.times == [0, 2, 4, 6]


@without_wires
async def test_the_end_of_the_time() -> None:
    """Names the job and its state; the cause is what went wrong last."""
    service = Service(a=[*ENDLESS, (500, TROUBLE)])
    with pytest.raises(WaitTimeoutError) as raised:
        await wait(service, timeout=600)
    assert str(raised.value) == (
        "the 600 s given to this wait are over, and 1 job was still pending; left alone: a was IN_PROGRESS at 37.25 %"
    )
    assert raised.value.jobs == (BatchJob(id="a", status=BatchJobStatus.IN_PROGRESS, progress=37.25),)
    assert TROUBLE is raised.value.__cause__
    assert pytest.approx(600) == service.now


@without_wires
async def test_a_look_before_the_end() -> None:
    """What finished since the last look is not missed."""
    service = Service(a=[(0, "IN_PROGRESS"), (590, "COMPLETED")])
    await wait(service, timeout=600, poll_interval=400)
    assert service.times == [0, 400, 599]


@without_wires
async def test_a_job_that_was_never_seen() -> None:
    """Is named all the same, and a call that hangs is cut off."""
    service = Service(a=QUICK, seconds=HOUR)
    with pytest.raises(WaitTimeoutError, match=r"left alone: a was never seen$") as raised:
        await wait(service, timeout=5)
    assert raised.value.jobs == (BatchJob(id="a"),)
    assert pytest.approx(5) == service.now
    assert service.running == 0


@without_wires
async def test_no_time_at_all_is_one_look() -> None:
    """Which takes as long as it takes."""
    finished = Service(a=[(0, "COMPLETED")], seconds=3)
    assert (await wait(finished, timeout=0)).is_terminal
    running = Service(a=ENDLESS)
    with pytest.raises(WaitTimeoutError, match=r"^looked once, and 1 job was still pending; left alone: a was IN_PR"):
        await wait(running, timeout=0)
    assert len(running.retrieved) == 1


@without_wires
async def test_a_timeout_is_a_timeout_error() -> None:
    """For those who catch Python's own."""
    with pytest.raises(TimeoutError):
        await wait(Service(a=ENDLESS), timeout=1)


@without_wires
async def test_a_cancelled_wait_ends_at_once() -> None:
    """And leaves nothing running."""
    service = Service(a=ENDLESS, seconds=5)
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(12):
            await wait(service)
    assert not isinstance(raised.value, WaitTimeoutError)
    assert pytest.approx(12) == service.now
    assert service.running == 0


@without_wires
async def test_a_cancelled_scope_around_a_wait() -> None:
    """anyio's cancellation goes on and on, and does not keep the wait from cleaning up."""
    service = Service(a=ENDLESS, seconds=5)
    with anyio.move_on_after(12) as scope:
        await wait(service)
    assert scope.cancelled_caught
    assert service.running == 0


# --- what is told meanwhile ---


@without_wires
async def test_updates() -> None:
    """The first state seen, each change, and at last what is returned; progress never goes back."""
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
    told: list[BatchJob] = []
    returned = await wait(service, poll_interval=1, on_update=told.append)
    assert [(str(job.status), job.progress) for job in told] == [
        ("VALIDATING", None),
        ("IN_PROGRESS", 10),
        ("IN_PROGRESS", 30),
        ("IN_PROGRESS", 40),
        ("FAILED", 40),
    ]
    assert told[-1] is returned


@without_wires
async def test_progress_that_was_known_before() -> None:
    """A job that is passed in is the first that is known of it."""
    known = BatchJob(id="a", status=BatchJobStatus.IN_PROGRESS, progress=50)
    told: list[BatchJob] = []
    await wait(Service(a=[(0, "IN_PROGRESS", 40), (5, "COMPLETED", 100)]), known, on_update=told.append)
    assert [job.progress for job in told] == [50, 100]


@without_wires
async def test_an_update_that_fails_ends_the_wait() -> None:
    """With its own error."""

    def fail(job: BatchJob) -> None:
        raise ValueError(job.id)

    with pytest.raises(ValueError, match=r"^a$"):
        await wait(Service(a=ENDLESS), on_update=fail)


@without_wires
async def test_a_coroutine_function_is_no_update() -> None:
    """It would never be awaited."""

    async def update(job: BatchJob) -> None: ...

    service = Service(a=QUICK)
    with pytest.raises(TypeError, match="on_update must be a plain function"):
        await wait(service, on_update=update)
    assert service.retrieved == []


@without_wires
async def test_a_job_that_does_not_move(caplog: pytest.LogCaptureFixture) -> None:
    """Is named in the log once an hour, for as long as it does not."""
    service = Service(a=[(0, "IN_PROGRESS", 5), (HOUR / 2, "IN_PROGRESS", 6), (5 * HOUR, "COMPLETED")])
    await wait(service)
    assert caplog.messages == [
        f"the job a was IN_PROGRESS at 6 % for {hours} h, without a change; it is still waited for"
        for hours in ("1.0", "2.0", "3.0", "4.0")
    ]


# --- many ---


@without_wires
async def test_each_as_it_finishes() -> None:
    """However it ends."""
    service = Service(
        a=[(0, "IN_PROGRESS"), (100, "FAILED")], b=[(0, "COMPLETED")], c=[(0, "VALIDATING"), (50, "CANCELLED")]
    )
    assert await ids_of(each(service, ["a", "b", "c"])) == ["b", "c", "a"]


@without_wires
async def test_a_repeated_id_is_given_once() -> None:
    """Also where it is an id once and a job another time."""
    service = Service(a=QUICK, b=QUICK)
    assert await ids_of(each(service, ["a", BatchJob(id="a"), "b", "a"])) == ["a", "b"]


@without_wires
async def test_none() -> None:
    """No jobs are none to wait for."""
    assert await ids_of(each(Service(), [])) == []


@without_wires
async def test_finished_ones_come_first_and_cost_nothing() -> None:
    """They are given before anything is asked."""
    service = Service(a=QUICK)
    done = BatchJob(id="b", status=BatchJobStatus.COMPLETED)
    async with aclosing(each(service, ["a", done])) as jobs:
        assert done is await anext(jobs)
        assert await ids_of(jobs) == ["a"]
    assert {job_id for _, job_id in service.retrieved} == {"a"}


@without_wires
async def test_many_are_read_from_the_list() -> None:
    """One answer for all of them, and none for each."""
    service = Service(**many(1000, [(0, "IN_PROGRESS"), (HOUR, "COMPLETED")]))
    service.others = 1000
    assert len(await ids_of(each(service, service.lives))) == 1000
    assert service.retrieved == []
    assert 80 < len(service.listed) < 110


@without_wires
async def test_few_are_read_one_by_one() -> None:
    """And so are many in an account that is far larger, once that is known; never too many at once."""
    few = Service(**many(5, QUICK))
    await ids_of(each(few, few.lives))
    assert few.listed == []


@without_wires
async def test_many_in_a_far_larger_account_are_read_one_by_one() -> None:
    """Once its size is known; never too many at once."""
    service = Service(seconds=0.1, **many(30, QUICK))
    service.others = 1000
    assert len(await ids_of(each(service, service.lives, at_once=7))) == 30
    assert len(service.listed) == 1
    assert service.most_running == 7


@without_wires
async def test_a_job_that_the_list_leaves_out() -> None:
    """Is asked after by itself."""
    service = Service(**many(30, QUICK))
    service.hidden = {"job-7"}
    assert len(await ids_of(each(service, service.lives))) == 30
    assert {job_id for _, job_id in service.retrieved} == {"job-7"}


@without_wires
async def test_a_key_that_may_not_list() -> None:
    """Says nothing about the jobs, and is not tried again."""
    lives = many(30, QUICK)
    service = Service(**lives)
    service.list_fails = [PermissionDeniedError("no", status=403)]
    assert len(await ids_of(each(service, lives))) == 30
    assert len(service.listed) == 1


@without_wires
async def test_a_key_that_is_refused_for_the_list() -> None:
    """Would be refused for each job too."""
    service = Service(**many(30, QUICK))
    service.list_fails = [AuthenticationError("who?", status=401)]
    with pytest.raises(AuthenticationError):
        await ids_of(each(service, service.lives))
    assert service.retrieved == []


@without_wires
async def test_a_list_that_fails() -> None:
    """Is done without for a look, and then tried again."""
    service = Service(**many(30, [(0, "IN_PROGRESS"), (HOUR, "COMPLETED")]))
    service.list_fails = [None, TROUBLE]
    assert len(await ids_of(each(service, service.lives))) == 30
    assert len(service.retrieved) == 30
    assert len(service.listed) > 50


@without_wires
async def test_an_outage_is_not_made_worse() -> None:
    """Where nothing works, a look gives up after a few in place of asking after everything."""
    lives = many(500, [(0, TROUBLE), (100, "COMPLETED")])
    service = Service(**lives)
    service.list_fails = [PermissionDeniedError("no", status=403)]
    assert len(await ids_of(each(service, lives, at_once=10))) == 500
    looks = {time for time, _ in service.retrieved if time < 100}
    assert len([time for time, _ in service.retrieved if time < 100]) <= 30 * len(looks)


@without_wires
async def test_jobs_of_different_ages_are_looked_at_together() -> None:
    """What is due a little later is looked at now."""
    lives = many(40, [(0, "IN_PROGRESS"), (2 * HOUR, "COMPLETED")])
    service = Service(**lives)

    async def slowly() -> AsyncIterator[str]:
        for job_id in lives:
            yield job_id
            await asyncio.sleep(3)

    await ids_of(each(service, slowly()))
    assert len({time for time in service.times if time > HOUR} | set(service.listed)) < 4 * HOUR / 45 * 2


# --- ids that come as they please ---


@without_wires
async def test_ids_are_followed_as_they_come() -> None:
    """Nobody waits for the last one."""
    service = Service(a=QUICK, b=[(0, "COMPLETED")])

    async def ids() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(1000)
        yield "b"

    given = [(service.now, job.id) async for job in each(service, ids())]
    assert given == [(pytest.approx(10.67, abs=1), "a"), (1000, "b")]


@without_wires
async def test_no_time_at_all_for_ids_that_come() -> None:
    """Each of them is looked at once."""
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
    """Ends it with its own error, whatever is pending."""

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
    """Is no source at its end."""

    async def ids() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ids_of(each(Service(a=ENDLESS), ids()))


@without_wires
async def test_a_long_source_lets_others_run() -> None:
    """A million ids are not taken in one go."""
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


# --- what goes wrong with some of many ---


@without_wires
async def test_a_job_that_cannot_be_followed(caplog: pytest.LogCaptureFixture) -> None:
    """Is told in the log at once, and raised when the others have been followed to their end."""
    service = Service(a=[(0, "IN_PROGRESS"), (HOUR / 2, "COMPLETED")])
    jobs = each(service, ["nowhere", "a"])
    assert (await anext(jobs)).id == "a"
    with pytest.raises(NotFoundError):
        await anext(jobs)
    assert len([job_id for _, job_id in service.retrieved if job_id == "nowhere"]) == 1
    assert caplog.messages[0].startswith("the job nowhere cannot be waited for: the service answered 404")


@without_wires
async def test_several_that_cannot_be_followed() -> None:
    """Are a group, with an error for each."""
    with pytest.raises(ExceptionGroup, match="2 jobs could not be waited for") as raised:
        await ids_of(each(Service(), ["x", "y"]))
    assert [NotFoundError, NotFoundError] == [type(error) for error in raised.value.exceptions]


@without_wires
async def test_a_refused_key_ends_it() -> None:
    """When all that is known was given."""
    service = Service(a=[(0, AuthenticationError("who?", status=401))], b=ENDLESS)
    jobs = each(service, ["a", "b", BatchJob(id="c", status=BatchJobStatus.COMPLETED)])
    assert (await anext(jobs)).id == "c"
    with pytest.raises(AuthenticationError):
        await anext(jobs)


@without_wires
async def test_what_is_no_id() -> None:
    """Is misuse, and ends it before anything is asked."""
    service = Service(a=QUICK)
    with pytest.raises(UsageError, match="a job id is text"):
        await ids_of(each(service, ["a", 7]))
    assert service.retrieved == []


@without_wires
async def test_the_end_of_the_time_for_many() -> None:
    """All that finished was given; the others are named, the first few of them in the text."""
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


# --- leaving ---


@without_wires
async def test_leaving_stops_the_work() -> None:
    """At once, in the middle of a call."""
    service = Service(a=[(0, "COMPLETED")], b=ENDLESS, seconds=1)
    async with aclosing(each(service, ["a", "b"])) as jobs:
        async for _ in jobs:
            await asyncio.sleep(2.5)  # the second look at b is under way
            assert service.running == 1
            break
    assert service.running == 0
    asked = len(service.retrieved)
    await asyncio.sleep(HOUR)
    assert len(service.retrieved) == asked


@without_wires
async def test_the_jobs_may_be_asked_for_from_different_tasks() -> None:
    """Nothing is yielded from within a task group or a cancel scope."""
    service = Service(a=[(0, "COMPLETED")], b=QUICK)
    jobs = each(service, ["a", "b"])
    with anyio.fail_after(5):
        assert (await anext(jobs)).id == "a"
    assert (await asyncio.ensure_future(anext(jobs))).id == "b"
    with anyio.move_on_after(0):
        await jobs.aclose()


@without_wires
async def test_a_slow_reader_does_not_hold_up_the_looking() -> None:
    """What finished meanwhile is ready."""
    service = Service(a=[(0, "COMPLETED")], b=QUICK, c=QUICK)
    given: list[float] = []
    async for _ in each(service, ["a", "b", "c"]):
        given.append(service.now)
        await asyncio.sleep(1000)
    assert given == [0, 1000, 2000]
