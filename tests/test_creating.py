"""Creating a job exactly once, against a service that loses answers, on a virtual clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from together_batches._creating import KnownJobs, Listing, create_once
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    RateLimitError,
    UsageError,
)
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = "file-1"
_SETTLE = 8.0
_LOST = APIConnectionError("the connection broke")


@attrs.frozen
class Post:
    """What becomes of one create: whether it makes a job, what is heard of it, how long it takes, when it shows."""

    makes: bool = True
    heard: BatchesError | None = None
    seconds: float = 0.1
    shown_after: float = 0.0


_OK = Post()
_LOST_AFTER = Post(heard=_LOST)
_LOST_BEFORE = Post(makes=False, heard=_LOST)


class Service:
    """The service, with a list, a clock of its own, and a script of what becomes of each create."""

    def __init__(self, *posts: Post, clock: datetime = datetime(2026, 9, 14, 12, tzinfo=UTC)) -> None:
        self.script = list(posts)
        self.jobs: list[tuple[float, BatchJob]] = []
        self.posts = 0
        self.looks = 0
        self.slept: list[float] = []
        self.unreadable: BatchesError | None = None
        self.tells_the_time = True
        self.tells_when_created = True
        self._midnight = clock
        self._seconds = 1000.0
        self._names = count(1)

    @property
    def now(self) -> datetime:
        return self._midnight + timedelta(seconds=self._seconds)

    def clock(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._seconds += seconds

    def add(
        self,
        *,
        input_file_id: str = _FILE,
        ago: float | None = 0.0,
        shown_after: float = 0.0,
        job_id: str | None = None,
    ) -> BatchJob:
        """A job, created so many seconds ago (None: the service does not say when)."""
        created_at = None if ago is None else self.now - timedelta(seconds=ago)
        job = BatchJob(id=job_id or f"job-{next(self._names)}", input_file_id=input_file_id, created_at=created_at)
        self.jobs.append((self._seconds + shown_after, job))
        return job

    async def post(self) -> BatchJob:
        self.posts += 1
        fate = self.script.pop(0)
        self._seconds += fate.seconds / 2
        ago = 0.0 if self.tells_when_created else None
        job = self.add(shown_after=fate.shown_after, ago=ago) if fate.makes else None
        self._seconds += fate.seconds / 2
        await asyncio.sleep(0)
        if fate.heard is not None:
            raise fate.heard
        assert job is not None
        return job

    async def list_jobs(self) -> Listing:
        self.looks += 1
        self._seconds += 0.1
        await asyncio.sleep(0)
        if self.unreadable is not None:
            raise self.unreadable
        shown = [job for at, job in self.jobs if at <= self._seconds]
        # A Date header has whole seconds.
        return Listing(shown, self.now.replace(microsecond=0) if self.tells_the_time else None)

    async def create(self, known: KnownJobs | None = None) -> BatchJob:
        return await create_once(
            self.post,
            self.list_jobs,
            input_file_id=_FILE,
            known=known or KnownJobs(),
            settle_seconds=_SETTLE,
            sleep=self.sleep,
            clock=self.clock,
        )

    @property
    def effort(self) -> tuple[int, int, list[float]]:
        return self.posts, self.looks, self.slept


# --- no answer was lost -------------------------------------------------------------------------------------------


async def test_a_create_that_is_answered_is_one_call() -> None:
    """Nothing is looked for."""
    service = Service(_OK)
    job = await service.create()
    assert job == service.jobs[0][1]
    assert service.effort == (1, 0, [])


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("invalid endpoint", status=400),
        AuthenticationError("Unauthorized", status=401),
        APIStatusError("pay first", status=402),
        APIStatusError("too large", status=413),
        RateLimitError("slow down"),
        JobNotCreatedError("quota"),
        APIConnectionError("no connection", request_sent=False),
        APITimeoutError("no connection in time", request_sent=False),
        APIResponseValidationError("it is a redirect", expected="an answer", status=302),
        APIResponseValidationError("no JSON", expected="an answer"),
        UsageError("this client is closed"),
    ],
    ids=repr,
)
async def test_what_certainly_made_no_job_is_raised_as_it_is(error: BatchesError) -> None:
    """Refused, declined, never sent: there is nothing to look for, and nothing is sent again."""
    service = Service(Post(makes=False, heard=error))
    with pytest.raises(type(error)) as caught:
        await service.create()
    assert caught.value is error
    assert service.effort == (1, 0, [])


# --- an answer was lost -------------------------------------------------------------------------------------------

_AMBIGUOUS: list[APIError] = [
    _LOST,
    APITimeoutError("nothing came"),
    InternalServerError("internal error", status=500),
    InternalServerError("bad gateway", status=502),
    InternalServerError("a gateway's own", status=524),
    APIStatusError("request timeout", status=408),
    APIResponseValidationError("no JSON", expected="a created batch job", status=200),
    APIResponseValidationError('there is no "job"', expected="a created batch job", status=201),
]
_each_ambiguous = pytest.mark.parametrize("error", _AMBIGUOUS, ids=repr)


@_each_ambiguous
async def test_a_job_whose_answer_was_lost_is_found(error: APIError) -> None:
    """At the first look: it is handed out, and nothing is sent again."""
    service = Service(Post(heard=error))
    assert await service.create() == service.jobs[0][1]
    assert service.effort == (1, 1, [])


@_each_ambiguous
async def test_a_create_that_did_not_arrive_is_sent_once_more(error: APIError) -> None:
    """After two looks with a wait between them."""
    service = Service(Post(makes=False, heard=error), _OK)
    assert await service.create() == service.jobs[0][1]
    assert service.effort == (2, 2, [_SETTLE])
    assert len(service.jobs) == 1


async def test_a_job_that_shows_late_is_found_at_the_second_look() -> None:
    """The service may still be at it when the answer is lost."""
    service = Service(Post(heard=_LOST, shown_after=5.0))
    assert await service.create() == service.jobs[0][1]
    assert service.effort == (1, 2, [_SETTLE])


async def test_a_second_answer_that_is_lost_is_looked_for_as_well() -> None:
    """And found."""
    service = Service(_LOST_BEFORE, _LOST_AFTER)
    assert await service.create() == service.jobs[0][1]
    assert service.effort == (2, 3, [_SETTLE])


async def test_there_are_never_more_than_two_posts() -> None:
    """Then it is for the caller to decide, with all that is known."""
    service = Service(_LOST_BEFORE, _LOST_BEFORE)
    with pytest.raises(CreateUnconfirmedError, match="was sent twice, both answers were lost") as caught:
        await service.create()
    assert service.effort == (2, 4, [_SETTLE, _SETTLE])
    assert (caught.value.input_file_id, caught.value.candidates) == (_FILE, ())
    assert "the connection broke" in str(caught.value)
    assert caught.value.__cause__ is _LOST


async def test_a_second_post_that_is_refused_is_raised_as_it_is() -> None:
    """The first one made no job that could be seen, and the second certainly made none."""
    refusal = BadRequestError("no such endpoint", status=400)
    service = Service(_LOST_BEFORE, Post(makes=False, heard=refusal))
    with pytest.raises(BadRequestError) as caught:
        await service.create()
    assert caught.value is refusal
    assert service.posts == 2


async def test_a_job_hidden_beyond_the_wait_is_seen_as_a_rival() -> None:
    """Where the first job shows only after the second was made and its answer lost, nothing is guessed."""
    service = Service(Post(heard=_LOST, shown_after=8.4), _LOST_AFTER)
    with pytest.raises(CreateUnconfirmedError, match="these jobs could be the one") as caught:
        await service.create()
    assert len(caught.value.candidates) == 2


# --- which job it is ----------------------------------------------------------------------------------------------


async def test_several_candidates_are_never_guessed_at() -> None:
    """They are named, and nothing is sent again."""
    service = Service(_LOST_AFTER)
    rival = service.add(ago=60.0)
    with pytest.raises(CreateUnconfirmedError, match="which of them cannot be told: job-1, job-2") as caught:
        await service.create()
    assert caught.value.candidates == (rival, service.jobs[1][1])
    assert caught.value.__cause__ is _LOST
    assert service.effort == (1, 1, [])


async def test_a_job_without_a_time_could_be_any() -> None:
    """It is a candidate, and never certain."""
    service = Service(_LOST_AFTER)
    service.tells_when_created = False
    with pytest.raises(CreateUnconfirmedError) as caught:
        await service.create()
    assert caught.value.candidates == (service.jobs[0][1],)


async def test_a_job_of_no_known_time_stands_in_the_way_of_certainty() -> None:
    """It may be the one as well as the other."""
    service = Service(_LOST_AFTER)
    service.add(ago=None)
    with pytest.raises(CreateUnconfirmedError) as caught:
        await service.create()
    assert len(caught.value.candidates) == 2


async def test_jobs_of_other_files_and_of_no_file_are_no_candidates() -> None:
    """Only the same input file counts."""
    service = Service(_LOST_AFTER)
    service.add(input_file_id="file-2")
    service.add(input_file_id="")
    assert (await service.create()).input_file_id == _FILE


async def test_an_old_job_is_no_candidate() -> None:
    """One created more than five minutes before the attempt began."""
    service = Service(_LOST_AFTER)
    service.add(ago=5 * 60 + 2.0)
    assert (await service.create()).id == "job-2"


async def test_a_job_within_the_margin_is_a_candidate() -> None:
    """The clocks of the service's machines may be minutes apart."""
    service = Service(_LOST_BEFORE)
    young = service.add(ago=5 * 60 - 2.0)
    assert await service.create() == young


async def test_the_attempt_began_when_it_began() -> None:
    """A job that was made at the beginning of an hour of trying is found at its end."""
    service = Service(Post(heard=_LOST, seconds=7200.0))
    assert await service.create() == service.jobs[0][1]


async def test_a_job_that_was_known_before_is_no_candidate() -> None:
    """Listed, retrieved, cancelled or created by this client: it is another one."""
    service = Service(_LOST_AFTER)
    known = KnownJobs()
    known.note(service.add(ago=10.0))
    known.note(service.add(ago=None))
    assert (await service.create(known)).id == "job-3"


async def test_a_job_that_somebody_saw_since_is_a_candidate() -> None:
    """A listing in another task, while a create is under way, does not hide the job from its own create."""
    service = Service(Post(heard=_LOST, shown_after=5.0))
    known = KnownJobs()

    async def sleep_and_be_seen(seconds: float) -> None:
        await service.sleep(seconds)
        for _, job in service.jobs:
            known.note(job)

    job = await create_once(
        service.post,
        service.list_jobs,
        input_file_id=_FILE,
        known=known,
        settle_seconds=_SETTLE,
        sleep=sleep_and_be_seen,
        clock=service.clock,
    )
    assert job == service.jobs[0][1]


async def test_a_job_is_handed_out_once() -> None:
    """Two creates of one file whose answers were both lost get a job each."""
    service = Service(_LOST_AFTER, _LOST_AFTER, _OK, _LOST_AFTER)
    known = KnownJobs()
    jobs = [await service.create(known) for _ in range(4)]
    assert [job.id for job in jobs] == ["job-1", "job-2", "job-3", "job-4"]


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
async def test_the_service_s_clock_decides(days: int) -> None:
    """However far it is from ours: its own ``Date`` is what its times are compared with."""
    service = Service(_LOST_AFTER, clock=datetime.now(UTC) + timedelta(days=days))
    service.add(ago=600.0)
    assert (await service.create()).id == "job-2"


async def test_a_service_that_does_not_tell_the_time_is_read_by_our_clock() -> None:
    """The next best."""
    service = Service(_LOST_AFTER, clock=datetime.now(UTC) - timedelta(seconds=1000))
    service.tells_the_time = False
    service.add(ago=900.0)
    assert (await service.create()).id == "job-2"


@pytest.mark.parametrize(
    "unreadable",
    [
        APIConnectionError("no connection", request_sent=False),
        RateLimitError("slow down"),
        APIResponseValidationError("no JSON", expected="a list of batch jobs", status=200),
        UsageError("this client is closed"),
    ],
    ids=repr,
)
async def test_a_list_that_cannot_be_read_settles_nothing(unreadable: BatchesError) -> None:
    """Nothing is sent again, and the caller is told that a job may exist."""
    service = Service(_LOST_AFTER)
    service.unreadable = unreadable
    with pytest.raises(CreateUnconfirmedError, match="the list of jobs could not be read") as caught:
        await service.create()
    assert (caught.value.input_file_id, caught.value.candidates) == (_FILE, ())
    assert caught.value.__cause__ is unreadable
    assert service.posts == 1


async def test_the_second_look_can_fail_too() -> None:
    """After the wait."""
    service = Service(_LOST_BEFORE)

    async def sleep_and_break(seconds: float) -> None:
        service.unreadable = APIConnectionError("no connection")

    with pytest.raises(CreateUnconfirmedError, match="the list of jobs could not be read"):
        await create_once(
            service.post,
            service.list_jobs,
            input_file_id=_FILE,
            known=KnownJobs(),
            settle_seconds=_SETTLE,
            sleep=sleep_and_break,
            clock=service.clock,
        )
    assert service.posts == 1


# --- turns --------------------------------------------------------------------------------------------------------


class _Gate:
    """Creates that wait until they are let go, and note which are under way."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        self.open = asyncio.Event()
        self._names = count(1)

    def create(self, known: KnownJobs, input_file_id: str) -> asyncio.Task[BatchJob]:
        async def post() -> BatchJob:
            self.under_way.append(input_file_id)
            await self.open.wait()
            return BatchJob(id=f"job-{next(self._names)}", input_file_id=input_file_id)

        async def list_jobs() -> Listing:
            raise AssertionError

        return asyncio.ensure_future(
            create_once(post, list_jobs, input_file_id=input_file_id, known=known, settle_seconds=_SETTLE)
        )


async def _let_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_creates_for_one_file_run_one_after_another() -> None:
    """Otherwise two lost answers could not be told apart; creates for other files do not wait."""
    gate, known = _Gate(), KnownJobs()
    tasks = [gate.create(known, name) for name in ("a", "a", "b", "a")]
    await _let_run()
    assert gate.under_way == ["a", "b"]
    gate.open.set()
    jobs = await asyncio.gather(*tasks)
    assert gate.under_way == ["a", "b", "a", "a"]
    assert len({job.id for job in jobs}) == 4


async def test_a_cancelled_create_gives_up_its_turn() -> None:
    """Whether it was under way or waiting for it."""
    gate, known = _Gate(), KnownJobs()
    under_way, waiting, last = (gate.create(known, "a") for _ in range(3))
    await _let_run()
    waiting.cancel()
    await _let_run()
    assert gate.under_way == ["a"]
    under_way.cancel()
    await _let_run()
    assert gate.under_way == ["a", "a"]
    gate.open.set()
    assert (await last).id == "job-1"
    assert (under_way.cancelled(), waiting.cancelled()) == (True, True)


async def test_a_failed_create_gives_up_its_turn() -> None:
    """The next one is not held up."""
    service = Service(Post(makes=False, heard=RateLimitError("slow down")), _OK)
    known = KnownJobs()
    with pytest.raises(RateLimitError):
        await service.create(known)
    assert (await service.create(known)).id == "job-1"


async def test_turns_of_a_thousand_files_are_not_kept() -> None:
    """A client that lives for years does not grow by each file."""
    known = KnownJobs()
    for number in range(1_000):
        async with known.turn(f"file-{number}"):
            pass
    assert known._turns == {}


# --- what is known ------------------------------------------------------------------------------------------------


def test_what_was_seen_before_a_mark() -> None:
    """And what was seen again stays as old as it was."""
    known = KnownJobs()
    before, after = BatchJob(id="before"), BatchJob(id="after")
    assert known.note(before) is before
    mark = known.now
    known.note(after)
    known.note(before)
    assert known.seen_before(mark, before) is True
    assert known.seen_before(mark, after) is False
    assert known.seen_before(mark, BatchJob(id="never")) is False


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_list_of_twenty_thousand_does_not_crowd_out_the_youngest(*, newest_first: bool) -> None:
    """Only jobs of the last minutes can be mistaken for one just created, and the list has its jobs in any order."""
    noon = datetime(2026, 9, 14, 12, tzinfo=UTC)
    jobs = [BatchJob(id=str(age), created_at=noon - timedelta(seconds=age)) for age in range(20_000)]
    known = KnownJobs()
    for job in jobs if newest_first else reversed(jobs):
        known.note(job)
    assert all(known.seen_before(known.now, job) for job in jobs[:5_000])
    assert sum(known.seen_before(known.now, job) for job in jobs) <= 10_000


# --- any losses ---------------------------------------------------------------------------------------------------

_ended_well = st.builds(Post, seconds=st.floats(0, 60), shown_after=st.floats(0, _SETTLE - 1))
_lost_after = st.builds(
    Post, heard=st.sampled_from(_AMBIGUOUS), seconds=st.floats(0, 300), shown_after=st.floats(0, _SETTLE - 1)
)
_lost_before = st.builds(
    Post, makes=st.just(value=False), heard=st.sampled_from(_AMBIGUOUS), seconds=st.floats(0, 300)
)
_refused = st.builds(
    Post,
    makes=st.just(value=False),
    heard=st.sampled_from(
        [RateLimitError("slow down"), JobNotCreatedError("quota"), APIConnectionError("no", request_sent=False)]
    ),
)
_fates = st.lists(st.one_of(_ended_well, _lost_after, _lost_before, _refused), min_size=10, max_size=10)


async def _create_five_times(
    fates: list[Post], check: Callable[[BatchJob | BatchesError, list[BatchJob]], None]
) -> None:
    service, known = Service(*fates), KnownJobs()
    for _ in range(5):
        before = len(service.jobs)
        outcome: BatchJob | BatchesError
        try:
            outcome = await service.create(known)
        except BatchesError as error:
            outcome = error
        check(outcome, [job for _, job in service.jobs[before:]])


@settings(max_examples=100, deadline=None)
@given(_fates)
def test_whatever_is_lost_no_job_is_made_twice(fates: list[Post]) -> None:
    """As long as the list shows a job within the wait: one job and its owner, or none and an error."""

    def check(outcome: BatchJob | BatchesError, made: list[BatchJob]) -> None:
        assert made == ([outcome] if isinstance(outcome, BatchJob) else [])

    asyncio.run(_create_five_times(fates, check))


@settings(max_examples=50, deadline=None)
@given(_fates, st.integers(0, 9))
def test_only_a_job_that_is_hidden_can_be_made_twice(fates: list[Post], hidden: int) -> None:
    """One that the list hides for a minute: then two at most, and whoever is given one is given one of these."""
    fates[hidden] = attrs.evolve(fates[hidden], shown_after=60.0)

    def check(outcome: BatchJob | BatchesError, made: list[BatchJob]) -> None:
        assert len(made) <= 2

    asyncio.run(_create_five_times(fates, check))
