"""Creating a job exactly once, against a service that loses responses, in virtual time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from together_batches._jobs.create import Created, CreateRecord, Listing, WantedJob, best_of, create_once
from together_batches._jobs.known_jobs import KnownJobs
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    ConflictError,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    UsageError,
)
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = "file-1"
_CHAT = "/v1/chat/completions"
_PATIENCE = 120.0
_PAUSES = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 29.0]
"""Seconds between reads of the list, until patience is used up."""
_LOST = APIConnectionError("the connection broke")
_WANTED = WantedJob(file_id=_FILE, endpoint=_CHAT)
_OWN = attrs.evolve(_WANTED, has_own_file=True)


def _odd(problem: str, *, status: int = 201, where: str = "$") -> APIResponseValidationError:
    return APIResponseValidationError(
        problem, expected="a created batch job", where=where, excerpt='{"job": {"id": "job-9"', status=status
    )


@attrs.frozen
class Post:
    """The effects of one create: if it makes a job, its response, its duration, and when the job is listed."""

    makes: bool = True
    heard: BatchesError | None = None
    seconds: float = 0.1
    shown_after: float = 0.0


_OK = Post()
_LOST_AFTER = Post(heard=_LOST)
_LOST_BEFORE = Post(makes=False, heard=_LOST)


class Service:
    """A service with a list, a clock of its own, and a script for each create."""

    def __init__(self, *posts: Post, clock: datetime = datetime(2026, 9, 14, 12, tzinfo=UTC)) -> None:
        self.script = list(posts)
        self.jobs: list[tuple[float, BatchJob]] = []
        self.posts = 0
        self.looks = 0
        self.slept: list[float] = []
        self.noted: list[int] = []
        self.unreadable: Callable[[int], BatchesError | None] = lambda _: None
        """The error for a read of the list, by its number, or None."""
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

    def add(self, *, ago: float | None = 0.0, shown_after: float = 0.0, **fields: Any) -> BatchJob:
        """Add a job that was created so many seconds ago (None: the job has no creation time)."""
        created_at = None if ago is None else self.now - timedelta(seconds=ago)
        usual = {"id": f"job-{next(self._names)}", "input_file_id": _FILE, "created_at": created_at}
        job = BatchJob(**usual | fields)
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
        error = self.unreadable(self.looks)
        if error is not None:
            raise error
        shown = [job for at, job in self.jobs if at <= self._seconds]
        # A Date header has whole seconds.
        return Listing(shown, self.now.replace(microsecond=0) if self.tells_the_time else None)

    async def note_posts(self, posts: int) -> None:
        self.noted.append(posts)
        await asyncio.sleep(0)

    async def create(
        self,
        known: KnownJobs | None = None,
        wanted: WantedJob = _WANTED,
        *,
        patience: float = _PATIENCE,
        sleep: Callable[[float], Any] | None = None,
        **record: Any,
    ) -> Created:
        return await create_once(
            wanted,
            post=self.post,
            list_jobs=self.list_jobs,
            known=known or KnownJobs(),
            patience=patience,
            sleep=sleep or self.sleep,
            clock=self.clock,
            record=CreateRecord(note_posts=self.note_posts, **record),
        )

    async def refused(self, *args: Any, **options: Any) -> CreateUnconfirmedError:
        """The error of a create that could not be confirmed."""
        with pytest.raises(CreateUnconfirmedError) as caught:
            await self.create(*args, **options)
        assert caught.value.input_file_id == _FILE
        return caught.value

    @property
    def effort(self) -> tuple[int, int, list[float]]:
        return self.posts, self.looks, self.slept


# --- no response was lost -----------------------------------------------------------------------------------------


async def test_a_create_that_is_answered_is_one_call() -> None:
    """A create with a response is one request; the list is not read."""
    service = Service(_OK)
    assert await service.create() == Created(service.jobs[0][1])
    assert service.effort == (1, 0, [])


_REFUSED: list[BatchesError] = [
    BadRequestError("invalid endpoint", status=400),
    AuthenticationError("Unauthorized", status=401),
    APIStatusError("pay first", status=402),
    PermissionDeniedError("not yours", status=403),
    NotFoundError("no such path", status=404),
    APIStatusError("too large", status=413),
    UnprocessableEntityError("no such model", status=422),
    RateLimitError("slow down"),
    JobNotCreatedError("quota"),
    APIConnectionError("no connection", request_sent=False),
    APITimeoutError("no connection in time", request_sent=False),
    UsageError("this client is closed"),
]


@pytest.mark.parametrize("error", _REFUSED, ids=repr)
async def test_what_certainly_made_no_job_is_raised_at_once(error: BatchesError) -> None:
    """A refusal, a decline or an unsent request made no job: it is raised at once, without search or retry."""
    service = Service(Post(makes=False, heard=error))
    with pytest.raises(type(error)) as caught:
        await service.create()
    assert caught.value is error
    assert service.effort == (1, 0, [])


# --- a response was lost ------------------------------------------------------------------------------------------

_LOSSES: list[APIError] = [
    _LOST,
    APITimeoutError("nothing came"),
    APIConnectionError("the answer broke off", status=500),
    InternalServerError("internal error", status=500),
    InternalServerError("bad gateway", status=502),
    InternalServerError("a gateway's own", status=524),
    APIStatusError("request timeout", status=408),
    ConflictError("there is one", status=409),
    APIStatusError("too early", status=425),
    _odd("its status is 101", status=101),
    _odd("it is a redirect (302)", status=302),
    _odd("it is a redirect (303)", status=303),
    APIResponseValidationError("no JSON", expected="an answer"),
]
_each_loss = pytest.mark.parametrize("error", _LOSSES, ids=repr)


@_each_loss
async def test_a_job_whose_answer_was_lost_is_found(error: APIError) -> None:
    """A job whose response was lost is found in the first list and returned; nothing is sent again."""
    service = Service(Post(heard=error))
    assert await service.create() == Created(service.jobs[0][1], found=True)
    assert service.effort == (1, 1, [])


@_each_loss
async def test_a_create_that_did_not_arrive_is_sent_once_more(error: APIError) -> None:
    """A create that did not arrive is sent once more, after reads of the list throughout ``patience``."""
    service = Service(Post(makes=False, heard=error), _OK)
    assert await service.create() == Created(service.jobs[0][1])
    assert service.effort == (2, 9, _PAUSES)
    assert sum(_PAUSES) == _PATIENCE


@pytest.mark.parametrize("seconds", [0.5, 5.0, 12.0, 60.0, 119.9])
async def test_a_job_that_is_listed_late_is_found(seconds: float) -> None:
    """A job is found if it is listed at any time within ``patience``, because the service may list it late."""
    service = Service(Post(heard=_LOST, shown_after=seconds))
    assert await service.create() == Created(service.jobs[0][1], found=True)
    assert service.posts == 1
    assert sum(service.slept) >= seconds - 1


@pytest.mark.parametrize(("patience", "slept"), [(0, []), (0.5, [0.5]), (10, [1, 2, 4, 3])])
async def test_patience_is_how_long_is_looked(patience: float, slept: list[float]) -> None:
    """``patience`` is the duration of the search; with 0 the list is read once."""
    service = Service(_LOST_BEFORE, _OK)
    await service.create(patience=patience)
    assert service.effort == (2, len(slept) + 1, slept)


async def test_a_second_answer_that_is_lost_is_looked_for_as_well() -> None:
    """If the second response is lost too, its job is searched for and found."""
    service = Service(_LOST_BEFORE, Post(heard=_LOST, shown_after=100))
    assert await service.create() == Created(service.jobs[0][1], found=True)
    assert service.posts == 2


async def test_there_are_never_more_than_two_posts() -> None:
    """At most two creates are sent; then the error gives the caller all that is known, to decide."""
    service = Service(_LOST_BEFORE, _LOST_BEFORE)
    error = await service.refused()
    assert service.effort == (2, 18, _PAUSES * 2)
    assert error.candidates == ()
    assert str(error) == (
        "a create for file-1 was sent, its answer was lost (the connection broke), and no job of the file was listed "
        "for 120 s; look at the list before you create again"
    )
    assert error.__cause__ is _LOST


async def test_a_second_post_that_is_refused_is_raised_as_it_is() -> None:
    """A refused second create is raised: the first made no visible job, and the second certainly made none."""
    refusal = BadRequestError("no such endpoint", status=400)
    service = Service(_LOST_BEFORE, Post(makes=False, heard=refusal))
    with pytest.raises(BadRequestError) as caught:
        await service.create()
    assert caught.value is refusal
    assert service.posts == 2


# --- unexpected 2xx responses -------------------------------------------------------------------------------------

_ACCEPTED: list[APIError] = [
    _odd("it is about file 'file-2'", where="$.job.input_file_id"),
    _odd('there is no "job"'),
    _odd("a number instead of a time", where="$.job.created_at"),
    _odd("no JSON", status=200),
    _odd("nothing at all", status=204),
    APIConnectionError("the answer broke off", status=201),
    APITimeoutError("no whole answer in time", status=200),
]
_each_accepted = pytest.mark.parametrize("error", _ACCEPTED, ids=repr)


@_each_accepted
async def test_a_job_whose_answer_was_odd_is_found(error: APIError) -> None:
    """A job whose 2xx response was unexpected is found in the list, whenever it is listed."""
    service = Service(Post(heard=error, shown_after=100))
    assert await service.create() == Created(service.jobs[0][1], found=True)
    assert service.posts == 1


@_each_accepted
async def test_after_a_2xx_nothing_is_posted_again(error: APIError) -> None:
    """After a 2xx nothing is sent again; if its job is not listed within ``patience``, the error quotes the body."""
    service = Service(Post(makes=False, heard=error))
    unconfirmed = await service.refused()
    assert service.effort == (1, 9, _PAUSES)
    assert f"its answer does not name the job ({error})" in str(unconfirmed)
    assert unconfirmed.__cause__ is error


async def test_after_a_second_2xx_that_is_odd_neither() -> None:
    """After a second, unexpected 2xx nothing is sent again, and the error is about the last response."""
    service = Service(_LOST_BEFORE, Post(makes=False, heard=_odd("no JSON")))
    assert "no JSON" in str(await service.refused())
    assert service.posts == 2


# --- the list cannot be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unreadable",
    [
        PermissionDeniedError("not yours", status=403),
        AuthenticationError("Unauthorized", status=401),
        NotFoundError("no such path", status=404),
        UsageError("this client is closed"),
    ],
    ids=repr,
)
async def test_a_list_that_is_refused_settles_nothing(unreadable: BatchesError) -> None:
    """A refused list decides nothing: it is raised at once, and nothing is sent again."""
    service = Service(_LOST_AFTER)
    service.unreadable = lambda _: unreadable
    error = await service.refused()
    assert str(error) == (
        "a create for file-1 was sent, its answer was lost (the connection broke), and the list of jobs could not be "
        f"read ({unreadable}): look for a job of that file before you create again"
    )
    assert (error.__cause__, error.candidates) == (unreadable, ())
    assert service.effort == (1, 1, [])


_UNREADABLE: list[APIError] = [
    InternalServerError("bad gateway", status=502),
    RateLimitError("slow down"),
    APIConnectionError("no connection", request_sent=False),
    APIResponseValidationError("no JSON", expected="a list of batch jobs", status=200),
]


@pytest.mark.parametrize("unreadable", _UNREADABLE, ids=repr)
@pytest.mark.parametrize("post", [_LOST_AFTER, _LOST_BEFORE], ids=["made", "not made"])
async def test_a_list_in_trouble_is_read_again(unreadable: APIError, post: Post) -> None:
    """A failing list is read again throughout ``patience``; if it keeps failing, the create is not sent again."""
    service = Service(post)
    service.unreadable = lambda _: unreadable
    error = await service.refused()
    assert "the list of jobs could not be read" in str(error)
    assert error.__cause__ is unreadable
    assert service.effort == (1, 9, _PAUSES)


async def test_a_list_that_recovers_shows_the_job() -> None:
    """A failing list decides nothing; once it recovers, the job is found in it."""
    service = Service(_LOST_AFTER)
    service.unreadable = lambda look: _UNREADABLE[0] if look < 5 else None
    assert await service.create() == Created(service.jobs[0][1], found=True)
    assert service.effort == (1, 5, _PAUSES[:4])


async def test_a_list_that_recovers_and_shows_no_job() -> None:
    """If a recovered list omits the job when patience ends, the create is sent once more."""
    service = Service(_LOST_BEFORE, _OK)
    service.unreadable = lambda look: _UNREADABLE[0] if look < 9 else None
    assert (await service.create()).found is False
    assert service.effort == (2, 9, _PAUSES)


async def test_a_list_that_fails_at_the_last_look() -> None:
    """If the last read of the list fails, nothing is sent again, because the job may be listed last."""
    service = Service(_LOST_BEFORE)
    service.unreadable = lambda look: _UNREADABLE[0] if look == 9 else None
    assert "could not be read" in str(await service.refused())
    assert service.posts == 1


# --- identification of the job ------------------------------------------------------------------------------------


async def test_jobs_of_other_files_and_of_no_file_are_others() -> None:
    """Only jobs of the same input file are candidates."""
    service = Service(_LOST_AFTER)
    service.add(input_file_id="file-2")
    service.add(input_file_id=None)
    assert (await service.create()).job.input_file_id == _FILE


@pytest.mark.parametrize(
    "fields",
    [{"endpoint": "/v1/audio/translations"}, {"model_id": "n"}, {"extra": {"priority": 2}}],
    ids=["endpoint", "model", "priority"],
)
async def test_a_job_with_other_settings_is_another(fields: dict[str, Any]) -> None:
    """A job with other settings belongs to another program, however recent it is."""
    service = Service(_LOST_BEFORE, _OK)
    service.add(ago=60.0, **fields)
    wanted = attrs.evolve(_WANTED, model_id="m", priority=1)
    assert (await service.create(wanted=wanted)).job.id == "job-2"
    assert service.posts == 2


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (_WANTED, {"endpoint": _CHAT, "model_id": "n", "extra": {"priority": 2}}),
        (attrs.evolve(_WANTED, model_id="m", priority=1), {"endpoint": _CHAT}),
        (
            attrs.evolve(_WANTED, model_id="m", priority=1),
            {"endpoint": _CHAT, "model_id": "m", "extra": {"priority": 1}},
        ),
    ],
    ids=["none wanted", "none shown", "the same"],
)
async def test_settings_that_do_not_differ(wanted: WantedJob, fields: dict[str, Any]) -> None:
    """An absent setting does not exclude a job: a model is shown after validation, a priority perhaps never."""
    service = Service(_LOST_BEFORE)
    job = service.add(ago=60.0, **fields)
    assert (await service.create(wanted=wanted)).job == job


async def test_an_old_job_is_another() -> None:
    """A job created more than five minutes before the attempt began is not adopted."""
    service = Service(_LOST_AFTER)
    service.add(ago=5 * 60 + 2.0)
    assert (await service.create()).job.id == "job-2"


async def test_a_job_within_the_margin_may_be_the_one() -> None:
    """A job within the margin may be adopted, because clocks of the service may differ by minutes."""
    service = Service(_LOST_BEFORE)
    young = service.add(ago=5 * 60 - 2.0)
    assert (await service.create()).job == young


async def test_the_attempt_began_when_it_began() -> None:
    """The margin counts from the beginning of the attempt: an early job is found even after an hour of retries."""
    service = Service(Post(heard=_LOST, seconds=7200.0))
    assert (await service.create()).job == service.jobs[0][1]


async def test_a_job_that_was_known_before_is_another() -> None:
    """A job that this client had already listed, retrieved, cancelled or created is not adopted."""
    service = Service(_LOST_AFTER)
    known = KnownJobs()
    known.note(service.add(ago=10.0))
    known.note(service.add(ago=None))
    assert (await service.create(known)).job.id == "job-3"


async def test_a_job_that_was_seen_since_may_be_the_one() -> None:
    """A job that another task lists during a create remains a candidate for that create."""
    service = Service(Post(heard=_LOST, shown_after=5.0))
    known = KnownJobs()

    async def sleep_and_be_seen(seconds: float) -> None:
        await service.sleep(seconds)
        for _, job in service.jobs:
            known.note(job)

    assert (await service.create(known, sleep=sleep_and_be_seen)).job == service.jobs[0][1]


async def test_a_job_is_handed_out_once() -> None:
    """Each job is returned once: two creates of one file that both lost their responses get different jobs."""
    service = Service(_LOST_AFTER, _LOST_AFTER, _OK, _LOST_AFTER)
    known = KnownJobs()
    created = [await service.create(known) for _ in range(4)]
    assert [each.job.id for each in created] == ["job-1", "job-2", "job-3", "job-4"]


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
async def test_the_service_s_clock_decides(days: int) -> None:
    """Times of jobs are compared with the service's ``Date``, however far it is from the local clock."""
    service = Service(_LOST_AFTER, clock=datetime.now(UTC) + timedelta(days=days))
    service.add(ago=600.0)
    assert (await service.create()).job.id == "job-2"


async def test_a_service_that_does_not_tell_the_time_is_read_by_our_clock() -> None:
    """If the service sends no ``Date``, times are compared with the local clock."""
    service = Service(_LOST_AFTER, clock=datetime.now(UTC) - timedelta(seconds=1000))
    service.tells_the_time = False
    service.add(ago=900.0)
    assert (await service.create()).job.id == "job-2"


@pytest.mark.parametrize("post", [_LOST_AFTER, _LOST_BEFORE], ids=["made", "not made"])
async def test_a_job_of_no_known_time_is_never_certain(post: Post) -> None:
    """A job without creation time is named as a candidate when patience ends, and nothing is sent again."""
    service = Service(post)
    service.tells_when_created = False
    job = service.add(ago=None) if not post.makes else None
    error = await service.refused()
    assert error.candidates == (job or service.jobs[0][1],)
    assert "these jobs of the file do not say when they were created and could be the one: job-1" in str(error)
    assert service.effort == (1, 9, _PAUSES)


async def test_a_job_of_no_known_time_does_not_hide_a_certain_one() -> None:
    """A job without creation time does not hide one whose time matches, which is adopted."""
    service = Service(Post(heard=_LOST, shown_after=20))
    service.add(ago=None)
    assert await service.create() == Created(service.jobs[1][1], found=True)


async def test_candidates_are_named_if_the_list_fails_in_the_end() -> None:
    """If the last read of the list fails, the candidates of earlier reads are named."""
    service = Service(_LOST_BEFORE)
    job = service.add(ago=None)
    service.unreadable = lambda look: PermissionDeniedError("not yours", status=403) if look == 3 else None
    assert (await service.refused()).candidates == (job,)


# --- a file that only this attempt has ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"ago": 400 * 86_400.0},
        {"ago": None},
        {"endpoint": "/v1/audio/translations", "model_id": "n"},
        {"input_file_id": "file-0"},
    ],
    ids=["old", "without a time", "other settings", "former file"],
)
async def test_a_job_of_an_own_file_is_the_job(fields: dict[str, Any]) -> None:
    """A job of a file that only this attempt has is adopted whatever its fields, because no other create made it."""
    service = Service(_LOST_BEFORE)
    job = service.add(**fields)
    wanted = attrs.evolve(_OWN, model_id="m", former_file_ids=("file-0",))
    assert await service.create(wanted=wanted) == Created(job, found=True)


async def test_a_job_of_another_file_is_none_of_an_own_file() -> None:
    """A job of another file is not adopted, however well its fields match."""
    service = Service(_LOST_BEFORE, _OK)
    service.add(input_file_id="file-2")
    assert (await service.create(wanted=_OWN)).job.id == "job-2"


# --- several candidates -------------------------------------------------------------------------------------------

_S = BatchJobStatus
_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
_BEST_FIRST = [
    BatchJob(id="results", status=_S.COMPLETED, output_file_id="o", created_at=_NOON + timedelta(seconds=9)),
    BatchJob(id="errors", status=_S.FAILED, error_file_id="e", created_at=_NOON + timedelta(seconds=10)),
    BatchJob(id="files to come", status=_S.COMPLETED, created_at=_NOON + timedelta(seconds=11)),
    BatchJob(id="first", status=_S.IN_PROGRESS, created_at=_NOON),
    BatchJob(id="second", status=_S.VALIDATING, created_at=_NOON + timedelta(seconds=1)),
    BatchJob(id="timeless", status=_S.VALIDATING),
    BatchJob(id="failed", status=_S.FAILED, created_at=_NOON),
    BatchJob(id="half done", status=_S.CANCELLED, output_file_id="o", created_at=_NOON),
    BatchJob(id="cancelling", status=_S.CANCELING, created_at=_NOON),
    BatchJob(id="cancelled", status=_S.CANCELLED, created_at=_NOON),
]


@given(st.lists(st.sampled_from(_BEST_FIRST), unique=True))
def test_the_best_of_several(candidates: list[BatchJob]) -> None:
    """The best candidate is adopted by its results, present or expected; failed ranks above cancelled only."""
    best = best_of(candidates)
    ordered = tuple(sorted(candidates, key=_BEST_FIRST.index))
    assert best == (Created(ordered[0], True, ordered[1:]) if ordered else None)


@pytest.mark.parametrize("wanted", [_WANTED, _OWN], ids=["caller's file", "own file"])
async def test_one_of_several_is_taken_and_the_others_are_named(
    caplog: pytest.LogCaptureFixture, wanted: WantedJob
) -> None:
    """One of several candidates is adopted; a warning names the others, so that running ones can be cancelled."""
    service, known = Service(_LOST_BEFORE), KnownJobs()
    for name in ("a", "b"):
        service.add(id=name, status=BatchJobStatus.COMPLETED)
    best = service.add(id="c", status=BatchJobStatus.COMPLETED, output_file_id="file-9")
    created = await service.create(known, wanted)
    assert (created.job, [job.id for job in created.others]) == (best, ["a", "b"])
    assert caplog.messages == [
        "the answer to a create for file-1 was lost; its job c was found",
        "job c of file-1 is used; these could be it as well, cancel them if they still run: a, b",
    ]
    for _, job in service.jobs:
        known.note(job)
    assert len(caplog.messages) == 2


# --- a second job that is listed later ----------------------------------------------------------------------------


def _seconds(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if message.startswith("two jobs were created")]


@pytest.mark.parametrize("wanted", [_WANTED, _OWN], ids=["caller's file", "own file"])
@pytest.mark.parametrize("second", [_OK, _LOST_AFTER], ids=["answered", "found"])
async def test_a_second_job_that_shows_later_is_named_once(
    caplog: pytest.LogCaptureFixture, wanted: WantedJob, second: Post
) -> None:
    """A second job that is listed after all patience is named once, because it runs, and costs, until cancelled."""
    service, known = Service(Post(heard=_LOST, shown_after=500.0), second), KnownJobs()
    created = await service.create(known, wanted)
    first, used = (job for _, job in service.jobs)
    assert created.job == used
    for job in (used, first, used, first):
        known.note(job)
    assert _seconds(caplog) == [
        "two jobs were created from file-1: job-2 is used, and job-1 has shown since; cancel it if it still runs"
    ]


async def test_a_job_of_the_caller_s_file_that_another_create_made_is_no_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job of the caller's file that is older, much newer, different or already known is not named as a second.

    The advice to cancel it would be wrong.
    """
    service, known = Service(_LOST_AFTER, _OK), KnownJobs()
    earlier = known.note(service.add(ago=10.0))
    await service.create(known)
    known.note(earlier)
    for fields in ({"ago": 3600.0}, {"ago": -3600.0}, {"ago": None}, {"endpoint": "/v1/audio/translations"}):
        known.note(service.add(**fields))
    await service.create(known)
    assert service.posts == 2
    assert _seconds(caplog) == []


async def test_an_answered_create_expects_no_second(caplog: pytest.LogCaptureFixture) -> None:
    """After a create with a response its job is certain, so other jobs of the file are not named as a second."""
    service, known = Service(_OK), KnownJobs()
    await service.create(known)
    known.note(service.add())
    assert caplog.messages == []


# --- resumed creates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posts", [1, 2])
async def test_a_create_that_was_sent_before_is_looked_for_first(posts: int) -> None:
    """A create that was sent by an earlier call is searched for first, and found without a create, however late."""
    service = Service()
    job = service.add(ago=30.0, shown_after=_PATIENCE - 1)
    assert await service.create(posts=posts) == Created(job, found=True)
    assert (service.posts, service.noted) == (0, [])


async def test_a_create_that_was_sent_before_in_vain_is_sent_once_more() -> None:
    """If an earlier create made no job within all of patience, it is sent once more, as the second one."""
    service = Service(_OK)
    assert (await service.create(posts=1)).found is False
    assert (service.effort, service.noted) == ((1, 9, _PAUSES), [2])


async def test_two_creates_that_were_sent_before_are_enough() -> None:
    """After two earlier creates the job is only searched for, and nothing is sent."""
    service = Service()
    error = await service.refused(posts=2)
    assert service.effort == (0, 9, _PAUSES)
    assert "was sent before, without a record of its answer, and no job of the file was listed" in str(error)


async def test_a_second_create_may_be_left_to_a_later_call() -> None:
    """A create that was sent before is not sent again if the caller says so; a first one is."""
    service = Service(_LOST_BEFORE)
    await service.refused(posts=1, posts_again=False)
    assert service.posts == 0
    await service.refused(posts_again=False)
    assert service.posts == 1


async def test_a_caller_may_read_the_list_itself() -> None:
    """The job is searched for in the list of the caller, if it has its own."""
    service, other = Service(), Service()
    job = other.add()
    assert await service.create(posts=1, list_jobs=other.list_jobs) == Created(job, found=True)
    assert (service.looks, other.looks) == (0, 1)


async def test_the_time_of_an_earlier_process_counts() -> None:
    """A job created after an earlier process began is adopted, even if that was long before this process began."""
    service = Service(_OK)
    job = service.add(ago=7200.0)
    older = service.add(ago=8000.0)
    assert (await service.create(posts=1, since=service.now - timedelta(seconds=7300))).job == job
    assert older.id == "job-2"


async def test_a_caller_may_say_which_jobs_are_others() -> None:
    """If the caller names the jobs that are not candidates, the jobs that this client has seen do not matter."""
    service, known = Service(), KnownJobs()
    other, job = known.note(service.add()), known.note(service.add())
    assert (await service.create(known, posts=1, is_another=lambda seen: seen == other)).job == job


@pytest.mark.parametrize(
    ("posts", "noted"),
    [
        ([_OK], [1]),
        ([_LOST_AFTER], [1]),
        ([_LOST_BEFORE, _OK], [1, 2]),
        ([Post(heard=_odd("no JSON"))], [1, 2]),
        ([Post(makes=False, heard=BadRequestError("no", status=400))], [1, 0]),
        ([Post(makes=False, heard=RateLimitError("slow down"))], [1, 0]),
        ([Post(makes=False, heard=APIConnectionError("no connection", request_sent=False))], [1, 0]),
        ([Post(makes=False, heard=JobNotCreatedError("quota"))], [1, 0]),
        ([_LOST_BEFORE, Post(makes=False, heard=RateLimitError("slow down"))], [1, 2, 1]),
    ],
    ids=["answered", "lost", "twice", "odd", "refused", "429", "not sent", "declined", "second refused"],
)
async def test_the_number_of_creates_is_noted_before_each(
    posts: list[Post], noted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``note_posts`` counts the creates that may have made a job: not refused ones, and none after a 2xx."""
    service = Service(*posts)
    seen: list[tuple[int, list[int]]] = []
    post = service.post

    async def post_and_see() -> BatchJob:
        seen.append((service.posts + 1, list(service.noted)))
        return await post()

    monkeypatch.setattr(service, "post", post_and_see)
    with suppress(BatchesError):
        await service.create()
    assert service.noted == noted
    assert all(already[-1] == number for number, already in seen)


async def test_a_create_that_cannot_be_noted_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that cannot be recorded is not sent, because a crash after it would leave a job without a record."""
    service = Service(_OK)

    async def fail(_: int) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(service, "note_posts", fail)
    with pytest.raises(UsageError, match="the disk is full"):
        await service.create()
    assert service.posts == 0


# --- creates in turn ----------------------------------------------------------------------------------------------


class _Gate:
    """Creates that block until they are released, and record which are under way."""

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

        async def created() -> BatchJob:
            wanted = attrs.evolve(_WANTED, file_id=input_file_id)
            created = await create_once(
                wanted,
                post=post,
                list_jobs=list_jobs,
                known=known,
                patience=0,
                sleep=asyncio.sleep,
                clock=time.monotonic,
            )
            return created.job

        return asyncio.ensure_future(created())


async def _let_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_creates_for_one_file_run_one_after_another() -> None:
    """Creates for one file run in sequence, or two lost responses would be ambiguous; other files do not wait."""
    gate, known = _Gate(), KnownJobs()
    tasks = [gate.create(known, name) for name in ("a", "a", "b", "a")]
    await _let_run()
    assert gate.under_way == ["a", "b"]
    gate.open.set()
    jobs = await asyncio.gather(*tasks)
    assert gate.under_way == ["a", "b", "a", "a"]
    assert len({job.id for job in jobs}) == 4


async def test_a_cancelled_create_gives_up_its_turn() -> None:
    """A cancelled create releases its turn, no matter if it was under way or waiting."""
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
    """A failed create releases its turn to the next one."""
    service = Service(Post(makes=False, heard=RateLimitError("slow down")), _OK)
    known = KnownJobs()
    with pytest.raises(RateLimitError):
        await service.create(known)
    assert (await service.create(known)).job.id == "job-1"


# --- random losses ------------------------------------------------------------------------------------------------

_late = st.floats(0, _PATIENCE)
_slow = st.floats(0, 300)
_not_made = st.just(value=False)
_fate = st.one_of(
    st.builds(Post, seconds=_slow, shown_after=_late),
    st.builds(Post, heard=st.sampled_from(_LOSSES + _ACCEPTED), seconds=_slow, shown_after=_late),
    st.builds(Post, makes=_not_made, heard=st.sampled_from(_LOSSES), seconds=_slow),
    st.builds(Post, makes=_not_made, heard=st.sampled_from(_ACCEPTED), seconds=_slow),
    st.builds(Post, makes=_not_made, heard=st.sampled_from(_REFUSED)),
)
_fates = st.lists(_fate, min_size=6, max_size=6)


async def _create_thrice(service: Service, wanted: WantedJob) -> list[tuple[Created | BatchesError, list[BatchJob]]]:
    """Run three creates, one after another, and return the jobs that each made."""
    known = KnownJobs()
    ends: list[tuple[Created | BatchesError, list[BatchJob]]] = []
    for _ in range(3):
        before = len(service.jobs)
        outcome: Created | BatchesError
        try:
            outcome = await service.create(known, wanted)
        except BatchesError as error:
            outcome = error
        ends.append((outcome, [job for _, job in service.jobs[before:]]))
    return ends


@settings(max_examples=100, deadline=None)
@given(_fates)
def test_whatever_is_lost_late_or_odd_no_job_is_made_twice(fates: list[Post]) -> None:
    """Whatever is lost, late or invalid, each create makes one job and returns it, or makes none and raises.

    This holds if the list shows a job within patience.
    """
    for outcome, made in asyncio.run(_create_thrice(Service(*fates), _WANTED)):
        assert made == ([outcome.job] if isinstance(outcome, Created) else [])


@settings(max_examples=100, deadline=None)
@given(_fates, st.sets(st.integers(1, 60)), st.booleans(), st.booleans())
def test_nor_if_the_list_says_less(
    fates: list[Post], unreadable: set[int], tells_when_created: bool, tells_the_time: bool
) -> None:
    """With a list that fails at times or jobs without times, each create makes at most one job."""
    service = Service(*fates, clock=datetime.now(UTC) - timedelta(seconds=1000))
    service.tells_when_created, service.tells_the_time = tells_when_created, tells_the_time
    service.unreadable = lambda look: _UNREADABLE[0] if look in unreadable else None
    ends = asyncio.run(_create_thrice(service, _WANTED))
    assert max(len(made) for _, made in ends) <= 1
    given_out = [outcome.job.id for outcome, _ in ends if isinstance(outcome, Created)]
    assert len(set(given_out)) == len(given_out)


@settings(max_examples=100, deadline=None)
@given(_fates, st.integers(0, 5), st.booleans())
def test_only_a_job_that_stays_unlisted_can_be_made_twice(fates: list[Post], hidden: int, own: bool) -> None:
    """Only a job that stays unlisted beyond patience can be made twice, and never three times."""
    fates[hidden] = attrs.evolve(fates[hidden], shown_after=1_000.0)
    for _, made in asyncio.run(_create_thrice(Service(*fates), _OWN if own else _WANTED)):
        assert len(made) <= 2
