"""Cancelling many jobs: one outcome for each id, in order, within limits, with nothing left behind.

Built on small fakes of the service; every wait is in virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import sys
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wires import a_job, in_virtual_time

from _jobs.cancel_service import (
    BEGAN,
    BROKEN,
    FORBIDDEN,
    NO_ANSWER,
    REFUSED_KEY,
    TOO_LATE,
    TROUBLE,
    UNKNOWN,
    R,
    Service,
    cancel_many,
    gather_into,
    iter_cancel,
    later,
    names,
    now,
    results,
)
from together_batches import (
    APITimeoutError,
    BatchJob,
    CancelOutcome,
    NotFoundError,
    UsageError,
    to_dict,
)
from together_batches._http.client_state import BulkContext, CallState
from together_batches._jobs import bulk_cancel
from together_batches._protocol.jobs import NoJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator


# --- which ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda ids: dict.fromkeys(ids, 1),
        lambda ids: (job_id for job_id in ids),
        lambda ids: iter(ids),
        lambda ids: later(ids),
        lambda ids: [a_job(job_id) for job_id in ids],
        lambda ids: later([a_job(job_id) for job_id in ids], 0.001),
    ],
    ids=["list", "tuple", "keys", "generator", "iterator", "async generator", "jobs", "async jobs"],
)
async def test_any_iterable_of_ids_or_jobs(make: Callable[[list[str]], Any]) -> None:
    """Any iterable of ids or jobs is accepted; each is cancelled once, and the report is in the order of the ids."""
    ids = names(25)
    service = Service()
    report = await cancel_many(service, make(ids))
    assert results(report) == [(job_id, R.CANCELING) for job_id in ids]
    assert sorted(service.sent) == sorted(ids)
    assert sorted(outcome.job_id for outcome in [o async for o in iter_cancel(Service(), make(ids))]) == sorted(ids)


@pytest.mark.parametrize("make", [list, later], ids=["list", "async"])
async def test_no_ids(make: Callable[[list[str]], Any]) -> None:
    """Without ids the call returns at once, successfully."""
    for wait in (False, True):
        report = await cancel_many(Service(), make([]), wait=wait)
        assert (len(report), report.ok, str(report)) == (0, True, "no jobs")
        assert [outcome async for outcome in iter_cancel(Service(), make([]), wait=wait)] == []


@pytest.mark.parametrize("make", [list, later], ids=["list", "async"])
async def test_a_repeated_id_is_sent_once(make: Callable[[list[Any]], Any]) -> None:
    """A repeated id is sent once, as a job too, and the report has it at its first position."""
    service = Service()
    report = await cancel_many(service, make(["b", "a", "b", a_job("a"), "b", "c"]))
    assert [outcome.job_id for outcome in report] == ["b", "a", "c"]
    assert Counter(service.sent) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("make", [list, later], ids=["list", "async"])
async def test_malformed_ids_are_failures_of_their_own(make: Callable[[list[Any]], Any]) -> None:
    """Malformed ids, None included, are failures without a request, and do not stop the other ids."""
    service = Service()
    malformed = ["", "  ", ".", "..", "\ud800", None, 7, b"a", 1.5]
    report = await cancel_many(service, make(["a", *malformed, "b", "7"]))
    assert [outcome.result for outcome in report] == [
        R.CANCELING,
        *[R.FAILED] * len(malformed),
        R.CANCELING,
        R.CANCELING,
    ]
    assert {outcome.attempts for outcome in report.failures} == {0}
    assert {type(outcome.error) for outcome in report.failures} == {UsageError}
    assert sorted(service.sent) == ["7", "a", "b"]


async def test_what_is_no_id_is_not_taken_for_one_that_looks_like_it() -> None:
    """7 is malformed and "7" is not, whichever comes first."""
    for ids in ([7, "7"], ["7", 7]):
        service = Service()
        report = await cancel_many(service, ids)
        assert service.sent == ["7"]
        assert report["7"].result is R.CANCELING
        assert len(report) == 2


async def test_white_space_around_an_id_is_no_part_of_it() -> None:
    """White space around an id, such as a line end, is ignored, and the report finds the job with or without it."""
    service = Service()
    report = await cancel_many(service, ["a\n", " b\r\n", "a", "c\t"])
    assert service.sent == ["a", "b", "c"]
    assert [outcome.job_id for outcome in report] == ["a", "b", "c"]
    assert report["a\n"] is report["a"]
    assert "b\r\n" in report
    assert "d\n" not in report


async def test_any_text_that_can_be_sent_is_an_id() -> None:
    """Any text that can be sent is accepted as an id, because its format is up to the service."""
    ids = ["a/b", "ü?", "%2F", "a b", "../x", "#", "x" * 500]
    report = await cancel_many(Service(), ids)
    assert results(report) == [(job_id, R.CANCELING) for job_id in ids]


async def test_one_worker_at_a_time_reads_the_source() -> None:
    """Only one worker at a time advances the source, because an async generator rejects concurrent use."""
    report = await cancel_many(Service(), later(names(50), 0.0001), max_concurrency=20)
    assert len(report) == 50


async def test_a_plain_async_iterator_serves() -> None:
    """A plain async iterator is accepted; it need not be a generator."""

    class Ids:
        def __init__(self) -> None:
            self.left = names(12)

        def __aiter__(self) -> Ids:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert len(await cancel_many(Service(), Ids())) == 12


# --- a bad id stops only itself, a refused key stops all ------------------------------------------------------


@in_virtual_time
async def test_failures_of_single_ids_stop_no_others() -> None:
    """Failures of single ids, of whatever kind, do not stop the others."""
    service = Service(default="IN_PROGRESS")
    ids = names(40)
    fates = itertools.cycle([UNKNOWN, FORBIDDEN, TROUBLE, BROKEN, "CANCELLED"])
    service.cancels = dict(zip(ids, fates, strict=False))
    report = await cancel_many(service, ids)
    expected = [R.NOT_FOUND, R.DENIED, R.FAILED, R.FAILED, R.CANCELLED] * 8
    assert [outcome.result for outcome in report] == expected
    assert len(service.sent) == 40
    assert not report.ok


@pytest.mark.parametrize("make", [list, later], ids=["list", "async"])
async def test_a_refused_key_stops_the_rest(make: Callable[[list[str]], Any]) -> None:
    """A refused key stops the bulk after no more calls than were in flight; the rest are not attempted."""
    service = Service(seconds=0.001)
    ids = names(500)
    service.cancels = dict.fromkeys(ids, REFUSED_KEY)
    report = await cancel_many(service, make(ids), max_concurrency=7)
    assert 1 <= len(service.sent) <= 7
    assert report.counts[R.DENIED] == len(service.sent)
    assert report.counts[R.NOT_ATTEMPTED] == 500 - len(service.sent)
    skipped = [outcome for outcome in report if outcome.result is R.NOT_ATTEMPTED]
    assert {(outcome.attempts, outcome.error, outcome.job) for outcome in skipped} == {(0, REFUSED_KEY, None)}
    assert [outcome.job_id for outcome in report] == ids
    with pytest.raises(ExceptionGroup) as caught:
        report.raise_for_failures()
    assert caught.value.exceptions == (REFUSED_KEY,)


async def test_a_key_refused_half_way_keeps_what_was_done() -> None:
    """Jobs that were cancelled before a key is refused are reported as cancelled."""
    service = Service()
    service.cancels = {"job-20": REFUSED_KEY}
    report = await cancel_many(service, names(100), max_concurrency=1)
    assert report.counts[R.CANCELING] == 20
    assert report.counts[R.DENIED] == 1
    assert report.counts[R.NOT_ATTEMPTED] == 79


async def test_a_refused_key_ends_an_iteration_too() -> None:
    """After a refused key an iteration still yields every id."""
    service = Service()
    service.cancels = dict.fromkeys(names(100), REFUSED_KEY)
    found = Counter([outcome.result async for outcome in iter_cancel(service, names(100), max_concurrency=4)])
    assert found[R.DENIED] <= 4
    assert found[R.DENIED] + found[R.NOT_ATTEMPTED] == 100


# --- concurrency ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_concurrency", "count", "expected"), [(1, 5, 1), (7, 50, 7), (100, 200, 100), (150, 3, 3)]
)
def test_as_many_at_once_as_allowed_and_no_more(max_concurrency: int, count: int, expected: int) -> None:
    """At most the allowed number of cancels run at once, for a report and for an iteration."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=1)
        await cancel_many(service, names(count), max_concurrency=max_concurrency)
        assert service.most_at_once == expected
        assert now() == pytest.approx(-(-count // expected), abs=0.1)
        service = Service(seconds=1)
        outcomes = iter_cancel(service, names(count), max_concurrency=max_concurrency)
        assert len([outcome async for outcome in outcomes]) == count
        assert service.most_at_once == expected

    run()


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("service", "count", "max_concurrency", "most", "took"),
    [
        pytest.param({"seconds": 0.01}, 2_000, 400, 400, pytest.approx(0.07, abs=0.001), id="near"),
        pytest.param({"seconds": 1}, 900, 1_000, 800, pytest.approx(2, abs=0.1), id="far"),
        pytest.param(
            {"seconds": 0.01, "capacity": 100}, 5_000, 1_000, 200, pytest.approx(0.5, rel=0.1), id="in vain"
        ),
    ],
)
def test_more_than_a_hundred_at_once_come_by_and_by(
    service: dict[str, Any], count: int, max_concurrency: int, most: int, took: object
) -> None:
    """The number of concurrent cancels grows in steps while that raises throughput.

    Once 100 have been answered, 200 are sent at once, or 800 if the service is far away. If it is near, that is 100,
    200 twice, and then 400. If more concurrent cancels are answered no sooner, it returns to 100.
    """

    @in_virtual_time
    async def run() -> None:
        requested = Service(**service)
        await cancel_many(requested, names(count), max_concurrency=max_concurrency)
        assert requested.most_at_once == most
        assert now() == took

    run()


async def test_few_ids_do_not_cost_many_tasks() -> None:
    """Few ids start few tasks: workers are started as work arrives."""
    most = 0

    class Counting(Service):
        async def cancel(self, job_id: str, call: CallState) -> BatchJob | NoJob:
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            return await super().cancel(job_id, call)

    await cancel_many(Counting(), names(3), max_concurrency=1000)
    assert most <= 6


class EnoughError(Exception):
    """The exception that these tests raise in callbacks and sources of the user."""


def failing_after(ids: Iterable[str], error: BaseException | None = None) -> Iterator[str]:
    yield from ids
    raise error or EnoughError


@in_virtual_time
async def test_ids_that_cost_nothing_do_not_block_the_loop() -> None:
    """Repeats, malformed ids and ids after a refused key need no request; other tasks still run meanwhile."""
    service = Service()
    service.cancels["refused"] = REFUSED_KEY
    for endless in (
        itertools.repeat("same"),
        (number for number in itertools.count()),
        itertools.chain(["refused"], map(str, itertools.count())),
    ):
        ticks = itertools.count()

        async def tick(ticks: Iterator[int] = ticks) -> None:
            while True:
                next(ticks)
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        with pytest.raises(EnoughError):
            await cancel_many(service, failing_after(itertools.islice(endless, 500)))
        assert next(ticks) > 20
        ticking.cancel()
        await asyncio.wait([ticking])


async def test_an_endless_repetition_in_flight_does_not_lock_an_iteration_up() -> None:
    """Endless repeats of an id in flight are merged without blocking its request, which returns."""
    found = 0
    async with iter_cancel(Service(seconds=0.001), itertools.repeat("same")) as outcomes:
        async for _ in outcomes:
            found += 1
            if found == 3:
                break
    assert found == 3


# --- outcomes as they become known ----------------------------------------------------------------------------


@in_virtual_time
async def test_outcomes_are_reported_as_they_become_known() -> None:
    """``on_outcome`` gets each outcome once, on the loop, in order of completion; the report is in that of ids."""
    noted: list[tuple[str, float]] = []
    service = Service()
    waits = {"slow": 3.0, "fast": 1.0, "faster": 0.5, "bad id": 0.0}

    async def cancel(job_id: str, call: CallState) -> BatchJob:
        call.attempts += 1
        await asyncio.sleep(waits[job_id])
        return a_job(job_id)

    api = service.verbs_with(cancel)
    report = await bulk_cancel.cancel_many(
        api,
        BulkContext(None),
        ["slow", "fast", "", "faster"],
        max_concurrency=10,
        wait=False,
        timeout=None,
        on_outcome=lambda outcome: noted.append((outcome.job_id, now())),
    )
    assert noted == [("", 0.0), ("faster", 0.5), ("fast", 1.0), ("slow", 3.0)]
    assert [outcome.job_id for outcome in report] == ["slow", "fast", "", "faster"]


async def test_fewer_at_once_if_the_service_gets_slow() -> None:
    """If the service slows down, surplus workers stop, and are started again if that did not help."""
    service = Service()
    at_once: list[int] = []
    running = 0

    async def cancel(job_id: str, call: CallState) -> BatchJob:
        nonlocal running
        call.attempts += 1
        running += 1
        at_once.append(running)
        await asyncio.sleep(0)
        call.seconds = 0.1 if len(at_once) < 500 else 2.0  # reports a duration, and takes none
        call.attempts += 1
        running -= 1
        return a_job(job_id)

    api = service.verbs_with(cancel)
    report = await bulk_cancel.cancel_many(
        api, BulkContext(None), names(1_000), max_concurrency=100, wait=False, timeout=None, on_outcome=None
    )
    assert len(report) == 1_000
    assert report.ok
    assert max(at_once[:500]) == 100
    assert min(max(at_once[some : some + 30]) for some in range(500, 900)) <= 12
    assert max(at_once[-30:]) > 20


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(
    "error", [EnoughError("enough"), asyncio.CancelledError("enough")], ids=lambda e: type(e).__name__
)
async def test_what_a_callback_raises_ends_the_call(wait: bool, error: BaseException) -> None:
    """An exception from a callback ends the call unchanged, outside any group; no further work is started."""
    service = Service(seconds=0.001, default="CANCELLED")
    noted: list[str] = []

    def tell(outcome: CancelOutcome) -> None:
        noted.append(outcome.job_id)
        if len(noted) == 5:
            raise error

    before = asyncio.all_tasks()
    with pytest.raises(type(error), match="enough"):
        await cancel_many(service, names(1000), on_outcome=tell, wait=wait)
    assert len(noted) == 5
    assert len(service.sent) <= 5 + 2 * 10
    assert asyncio.all_tasks() == before


@in_virtual_time
async def test_what_a_callback_raises_about_a_followed_job() -> None:
    """A cancellation that a callback raises ends the call also while jobs are followed."""
    service = Service()
    service.reads["job-0"] = "CANCELLED"

    def fail(outcome: CancelOutcome) -> None:
        if outcome.event == "ended":
            raise asyncio.CancelledError("enough")

    with pytest.raises(asyncio.CancelledError, match="enough"):
        await cancel_many(service, ["job-0", "job-1"], on_outcome=fail, wait=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["Ctrl-C", "exit"])
def test_a_callback_may_end_the_program(error: BaseException) -> None:
    """A callback may raise a ``BaseException`` to end the program; it passes through."""

    def tell(_: CancelOutcome) -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(cancel_many(Service(), names(10), on_outcome=tell))


async def test_a_group_that_a_callback_raises_stays_as_it_is() -> None:
    """An exception group from a callback is raised unchanged."""

    def tell(_: CancelOutcome) -> None:
        raise ExceptionGroup("mine", [ValueError("a"), ValueError("b")])

    with pytest.raises(ExceptionGroup, match="mine") as caught:
        await cancel_many(Service(), ["a"], on_outcome=tell)
    assert len(caught.value.exceptions) == 2


async def test_any_plain_callable_is_a_callback() -> None:
    """Any plain callable is accepted as a callback: a method, a partial, a lambda, a class."""
    noted: list[Any] = []
    for callback in (noted.append, functools.partial(noted.append), lambda outcome: noted.append(outcome), repr):
        await cancel_many(Service(), ["a"], on_outcome=callback)
    assert len(noted) == 3


# --- sources that fail ----------------------------------------------------------------------------------------


async def failing_later(ids: list[str], error: BaseException) -> AsyncIterator[str]:
    async for job_id in later(ids, 0.002):
        yield job_id
    await asyncio.sleep(0.01)
    raise error


@pytest.mark.parametrize("make", [failing_after, failing_later], ids=["generator", "async generator"])
@pytest.mark.parametrize(
    "error",
    [EnoughError("here"), TimeoutError("theirs"), asyncio.CancelledError("theirs")],
    ids=lambda e: type(e).__name__,
)
async def test_what_the_source_raises_is_raised(
    make: Callable[[list[str], BaseException], Any], error: BaseException
) -> None:
    """An exception or cancellation of the source is raised unchanged; otherwise ids would be lost silently."""
    noted: list[CancelOutcome] = []
    before = asyncio.all_tasks()
    with pytest.raises(type(error)):
        await cancel_many(
            Service(seconds=0.001), make(names(20), error), max_concurrency=5, on_outcome=noted.append, timeout=50
        )
    assert asyncio.all_tasks() == before
    assert len(noted) >= (20 if make is failing_later else 10)
    found: list[CancelOutcome] = []
    with pytest.raises(type(error)):
        await gather_into(found, iter_cancel(Service(seconds=0.001), make(names(20), error), max_concurrency=5))
    assert len(found) >= (20 if make is failing_later else 10)
    assert asyncio.all_tasks() == before
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# --- a time limit for the whole call --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, lambda ids: iter(ids)], ids=["list", "generator"])
def test_a_limit_ends_with_a_complete_report(make: Callable[[list[str]], Any]) -> None:
    """After a limit the report is complete: done as done, in flight as unknown, not sent as not attempted."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=1)
        noted: list[CancelOutcome] = []
        ids = [*names(50), "job-0"]
        report = await cancel_many(service, make(ids), max_concurrency=10, timeout=2.5, on_outcome=noted.append)
        assert now() == pytest.approx(2.5, abs=0.01)
        expected = [R.CANCELING] * 20 + [R.FAILED] * 10 + [R.NOT_ATTEMPTED] * 20
        assert [outcome.result for outcome in report] == expected
        assert {type(outcome.error) for outcome in report.failures} == {APITimeoutError}
        assert "timed out after 2.5 s, the limit of this bulk cancel" in str(report.failures[0].error)
        assert Counter(outcome.attempts for outcome in report) == {1: 30, 0: 20}
        assert [outcome.job_id for outcome in report] == names(50)
        assert sorted(outcome.job_id for outcome in noted) == sorted(names(50))
        assert service.at_once == 0

    run()


@in_virtual_time
async def test_no_time_at_all() -> None:
    """With a limit of zero nothing is sent, and every id is in the report."""
    service = Service(seconds=1)
    report = await cancel_many(service, names(5), timeout=0)
    assert [outcome.result for outcome in report] == [R.NOT_ATTEMPTED] * 5
    assert service.sent == []


@in_virtual_time
async def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    """A limit that is not reached changes nothing, even if it would expire a moment later."""
    report = await cancel_many(Service(seconds=1), names(5), timeout=1.01)
    assert report.counts[R.CANCELING] == 5


@in_virtual_time
async def test_a_limit_with_an_async_source() -> None:
    """After a limit the report contains exactly the ids that an async source had yielded."""
    report = await cancel_many(Service(seconds=10), later(names(50), 1), max_concurrency=100, timeout=5.5)
    assert results(report) == [(job_id, R.FAILED) for job_id in names(5)]


@in_virtual_time
async def test_a_limit_with_an_endless_source(caplog: pytest.LogCaptureFixture) -> None:
    """After a limit at most a million more ids of a generator are read, and other tasks run meanwhile."""
    ticks = itertools.count()

    async def tick() -> None:
        while True:
            next(ticks)
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    report = await cancel_many(Service(), itertools.repeat("same"), timeout=0)
    assert [outcome.result for outcome in report] == [R.NOT_ATTEMPTED]
    assert next(ticks) > 900
    assert "more than 1000000 ids were not sent; the others are not in the report" in caplog.messages
    ticking.cancel()
    await asyncio.wait([ticking])


@in_virtual_time
async def test_a_limit_while_calls_wait_for_their_turn() -> None:
    """After a limit an id that was not sent yet is not attempted, even if a worker had already taken it."""

    async def cancel(job_id: str, call: CallState) -> BatchJob:
        await asyncio.sleep(100)
        raise AssertionError

    service = Service()
    api = service.verbs_with(cancel)
    report = await bulk_cancel.cancel_many(
        api, BulkContext(None), names(3), max_concurrency=2, wait=False, timeout=1, on_outcome=None
    )
    assert [outcome.result for outcome in report] == [R.NOT_ATTEMPTED] * 3


@in_virtual_time
async def test_a_limit_while_jobs_drain() -> None:
    """After a limit jobs whose cancel was accepted are reported as draining, which is not a failure."""
    report = await cancel_many(Service(), names(30), wait=True, timeout=10)
    assert [outcome.result for outcome in report] == [R.CANCELING] * 30
    assert report.ok
    assert {type(outcome.error) for outcome in report} == {type(None)}


@in_virtual_time
async def test_a_limit_around_the_call() -> None:
    """A limit around the call, set by the caller, ends it with its own exception."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await cancel_many(Service(seconds=5), names(5), timeout=3)
    with anyio.move_on_after(1) as scope:
        await cancel_many(Service(seconds=5), names(5), timeout=3)
    assert scope.cancelled_caught


# --- ends from outside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["asyncio.timeout", "move_on_after", "a cancelled task"])
def test_what_was_accepted_by_then_has_been_reported(how: str) -> None:
    """With ``wait`` a job is reported when its cancel is accepted, and again when it has ended."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=0.1)
        service.list_answer = []
        noted: list[CancelOutcome] = []
        bulk = cancel_many(service, names(500), wait=True, on_outcome=noted.append)
        if how == "asyncio.timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3.05):
                    await bulk
        elif how == "move_on_after":
            with anyio.move_on_after(3.05):
                await bulk
        else:
            task = asyncio.create_task(bulk)
            await asyncio.sleep(3.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert {outcome.job_id for outcome in noted} == set(names(300))
        assert {(outcome.event, outcome.result, outcome.accepted) for outcome in noted} == {
            ("accepted", R.CANCELING, True)
        }
        assert to_dict(noted[0])["event"] == "accepted"

    run()


@pytest.mark.parametrize("limit", ["its own", "a cancelled task"])
@pytest.mark.parametrize("wait", [False, True])
def test_what_was_accepted_is_reported_also_while_its_job_is_looked_up(limit: str, wait: bool) -> None:
    """A 2xx without a job is reported as accepted, even if its job is still being looked up."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.cancels["a"] = NoJob(NO_ANSWER, accepted=True)
        service.cancels["b"] = NoJob(NO_ANSWER, accepted=False)
        noted: list[CancelOutcome] = []

        async def slowly(job_id: str, call: CallState) -> BatchJob:
            await asyncio.sleep(100)
            raise AssertionError(job_id)

        api = attrs.evolve(service.api, retrieve=slowly)
        timeout = 1 if limit == "its own" else None
        task = asyncio.create_task(
            bulk_cancel.cancel_many(
                api,
                BulkContext(None),
                ["a", "b"],
                max_concurrency=2,
                wait=wait,
                timeout=timeout,
                on_outcome=noted.append,
            )
        )
        if timeout is None:
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [(outcome.job_id, outcome.result) for outcome in noted] == [("a", R.CANCELING)]
        else:
            assert results(await task) == [("a", R.CANCELING), ("b", R.FAILED)]
        assert noted[0].accepted

    run()


@in_virtual_time
async def test_a_limit_of_its_own_ends_each_job_once() -> None:
    """At the call's own limit each job, a draining one too, has one final outcome: that of the report."""
    noted: list[CancelOutcome] = []
    report = await cancel_many(Service(), names(30), wait=True, timeout=10, on_outcome=noted.append)
    assert Counter(outcome.event for outcome in noted) == {"accepted": 30, "ended": 30}
    assert {outcome.job_id: outcome for outcome in noted if outcome.event == "ended"} == {
        outcome.job_id: outcome for outcome in report
    }


@pytest.mark.parametrize("wait", [False, True])
def test_a_cancelled_bulk_ends_at_once_and_leaves_nothing_running(wait: bool) -> None:
    """A cancelled bulk ends at once, leaves nothing running, and has reported what was known."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=1, default="CANCELLED")
        noted: list[CancelOutcome] = []
        task = asyncio.create_task(cancel_many(service, names(1000), wait=wait, on_outcome=noted.append))
        await asyncio.sleep(3.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == pytest.approx(3.5, abs=0.01)
        assert (len(noted), service.at_once) == (30, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run()


@in_virtual_time
async def test_an_iteration_is_cancelled_with_its_consumer() -> None:
    """An iteration is cancelled with its consumer, and nothing of it continues."""
    service = Service(seconds=1)
    found: list[CancelOutcome] = []

    async def consume() -> None:
        await gather_into(found, iter_cancel(service, names(1000)))

    task = asyncio.create_task(consume())
    await asyncio.sleep(2.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(found), service.at_once) == (20, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("way", ["break", "async with", "aclose", "error"])
def test_an_iteration_that_is_left_stops_its_work(way: str) -> None:
    """Leaving an iteration stops its work: ``async with`` and ``aclose`` wait for that, and ``break`` does not."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=1)
        outcomes = iter_cancel(service, names(1000))
        if way == "async with":
            async with outcomes:
                async for _ in outcomes:
                    break
        elif way == "error":
            with contextlib.suppress(EnoughError):
                async with outcomes:
                    async for _ in outcomes:
                        raise EnoughError
        else:
            async for _ in outcomes:
                break
            if way == "aclose":
                await outcomes.aclose()
                await outcomes.aclose()
        del outcomes
        if way == "break":
            gc.collect()
            await asyncio.sleep(0.1)
        assert service.at_once == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(service.sent) <= 30

    run()


async def test_an_iteration_that_never_began_has_nothing_to_stop() -> None:
    """Making an iteration sends nothing, so one that never began has nothing to stop."""
    service = Service()
    outcomes = iter_cancel(service, ["a"])
    await asyncio.sleep(0)
    await outcomes.aclose()
    assert service.sent == []
    assert [outcome async for outcome in outcomes] == []


@pytest.mark.parametrize("scope", ["fail_after", "move_on_after", "task group"])
def test_the_scopes_of_anyio_work_around_an_iteration(scope: str) -> None:
    """Scopes of anyio, which cancel repeatedly until left, work around an iteration, and nothing is left behind."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=1)
        found: list[CancelOutcome] = []

        async def consume() -> None:
            async with iter_cancel(service, names(1000)) as outcomes:
                await gather_into(found, outcomes)

        if scope == "fail_after":
            with pytest.raises(TimeoutError), anyio.fail_after(2.5):
                await consume()
        elif scope == "move_on_after":
            with anyio.move_on_after(2.5):
                await consume()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                await asyncio.sleep(2.5)
                group.cancel_scope.cancel()
        assert service.at_once == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert (len(found), now()) == (20, pytest.approx(2.5, abs=0.01))

    run()


@in_virtual_time
async def test_a_scope_may_be_opened_for_each_step() -> None:
    """An iteration never yields inside a scope of its own, so a scope around each step is properly nested."""
    outcomes = iter_cancel(Service(seconds=1), names(20), max_concurrency=5)
    found = []
    for _ in range(20):
        with anyio.fail_after(5):
            found.append(await anext(outcomes))
    with pytest.raises(StopAsyncIteration):
        await anext(outcomes)
    assert len(found) == 20


async def test_an_iteration_may_wander_from_task_to_task() -> None:
    """An iteration may begin in one task, continue in a second and end in a third."""
    outcomes = iter_cancel(Service(), names(30))
    found = [await asyncio.create_task(outcomes.__anext__()) for _ in range(5)]

    async def the_rest() -> None:
        found.extend([outcome async for outcome in outcomes])

    await asyncio.create_task(the_rest())
    assert sorted(outcome.job_id for outcome in found) == sorted(names(30))
    await asyncio.create_task(outcomes.aclose())


async def test_an_unread_error_of_an_iteration_that_was_left() -> None:
    """After an iteration is left, an unread error of its source is not reported as never retrieved."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    outcomes = iter_cancel(Service(), failing_after(names(3)), max_concurrency=1)
    await anext(outcomes)
    await asyncio.sleep(0.01)
    await outcomes.aclose()
    del outcomes
    gc.collect()
    assert complaints == []


# --- memory ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_slow_consumer_holds_the_work_back() -> None:
    """A slow consumer holds the work back: at most one round is done ahead."""
    service = Service(seconds=0.001)
    outcomes = iter_cancel(service, (f"job-{number}" for number in range(100_000)), max_concurrency=10)
    for taken in range(1, 50):
        await anext(outcomes)
        await asyncio.sleep(1)
        assert len(service.sent) <= taken + 2 * 10 + 1
    await outcomes.aclose()


@in_virtual_time
async def test_a_finished_id_may_come_again() -> None:
    """A finished id may come again: only repeats in flight are merged, because remembering all ids needs memory."""
    service = Service(seconds=1)

    async def ids() -> AsyncIterator[str]:
        yield "a"
        yield "a"
        await asyncio.sleep(5)
        yield "a"

    assert len([outcome async for outcome in iter_cancel(service, ids())]) == 2
    assert service.sent == ["a", "a"]


def peak_of(count: int) -> int:
    async def consume() -> None:
        seen = 0
        async for _ in iter_cancel(Lean(), (f"job-{number}" for number in range(count)), max_concurrency=50):
            seen += 1
        assert seen == count

    class Lean(Service):
        async def cancel(self, job_id: str, call: CallState) -> BatchJob | NoJob:
            call.attempts += 1
            await asyncio.sleep(0)
            if job_id.endswith("7"):
                raise NotFoundError("Job not found", status=404)
            return a_job(job_id)

    gc.collect()
    tracemalloc.start()
    try:
        asyncio.run(consume(), debug=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.unmeasured
def test_memory_does_not_grow_with_the_number_of_ids() -> None:
    """Twelve times the ids take the same memory, failures included."""
    peak_of(500)
    few, many = peak_of(500), peak_of(6_000)
    assert many < 2 * few + 200_000


async def test_failures_in_a_report_hold_no_frames() -> None:
    """Failures in a report keep no tracebacks, which would be most of the memory of ten thousand errors."""
    service = Service()
    service.cancels = dict.fromkeys(names(10), NotFoundError("Job not found", status=404))
    report = await cancel_many(service, names(10))
    assert {failure.error.__traceback__ for failure in report.failures if failure.error} == {None}


# --- what is known beside the result --------------------------------------------------------------------------


@in_virtual_time
async def test_an_outcome_says_what_was_known_before_and_when_it_was_sent() -> None:
    """An outcome has the status of a job that was passed in and the time of the first cancel, and None otherwise."""
    service = Service(seconds=1, default="CANCELLED")
    ids = [a_job("a", "IN_PROGRESS"), "b", a_job("c", "PAUSED"), "..", BatchJob(id="d")]
    report = await cancel_many(service, ids, max_concurrency=1)
    assert [outcome.status_before for outcome in report] == ["IN_PROGRESS", None, "PAUSED", None, None]
    moments = [BEGAN + timedelta(seconds=second) for second in range(3)]
    assert [outcome.requested_at for outcome in report] == [*moments, None, BEGAN + timedelta(seconds=3)]
    report = await cancel_many(service, [a_job("a", "IN_PROGRESS")], timeout=0)
    assert (report["a"].status_before, report["a"].requested_at) == ("IN_PROGRESS", None)


@pytest.mark.parametrize("status", ["CANCELING", "CANCELLED", "COMPLETED"])
@pytest.mark.parametrize("before", [None, "IN_PROGRESS", "a\0b\n", "\ud800"], ids=repr)
async def test_a_report_gives_what_the_callback_got(status: str, before: str | None) -> None:
    """A report has the outcomes that the callback got, although it keeps 2xx bodies as bytes."""
    at = datetime(2026, 11, 2, 10, 20, 30, 481_925, tzinfo=UTC)
    noted: list[CancelOutcome] = []

    async def cancel(job_id: str, call: CallState) -> BatchJob:
        call.attempts, call.requested_at = 1, at
        call.answer = f'{{"id": "{job_id}", "status": "{status}"}}'.encode()
        return a_job(job_id, status)

    api = Service().verbs_with(cancel)
    job: Any = "a" if before is None else a_job("a", before)
    report = await bulk_cancel.cancel_many(
        api, BulkContext(None), [job], max_concurrency=1, wait=False, timeout=None, on_outcome=noted.append
    )
    assert [report["a"]] == noted
    assert report["a"] is not noted[0]
    assert (report["a"].requested_at, report["a"].status_before, report["a"].accepted) == (at, before, True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("wait", [False, True])
def test_a_loop_with_eager_tasks_gives_the_same_outcomes(wait: bool) -> None:
    """With eager tasks the outcomes are the same, and a thousand workers at once do not nest on one stack."""

    @in_virtual_time
    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        for seconds in (0, 0.05):
            service = Service(seconds=seconds)
            ids = names(3_000)
            service.known = set(ids)
            service.cancels = {"job-7": [UNKNOWN, "CANCELING"], "job-8": TOO_LATE, "job-9": "COMPLETED"}
            service.reads = dict.fromkeys(ids, "CANCELLED")
            service.list_answer = [a_job(job_id, "CANCELLED") for job_id in ids]
            async with asyncio.timeout(60):
                report = await cancel_many(service, ids, wait=wait, max_concurrency=1_000)
            counts = {result: count for result, count in report.counts.items() if count}
            if wait:
                assert counts == {R.CANCELLED: 2_999, R.ALREADY_FINISHED: 1}
            else:
                assert counts == {R.CANCELLED: 1, R.CANCELING: 2_998, R.ALREADY_FINISHED: 1}
            async with asyncio.timeout(60):
                found = [outcome async for outcome in iter_cancel(service, ids, wait=wait, max_concurrency=1_000)]
            assert len(found) == 3_000

    run()


# --- arbitrary input ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(
        st.one_of(st.sampled_from(["a", "b", "c", "d/e", "", ".."]), st.text(max_size=3), st.none()), max_size=30
    ),
    fates=st.lists(
        st.sampled_from(["CANCELING", "CANCELLED", "COMPLETED", UNKNOWN, FORBIDDEN, TROUBLE, TOO_LATE, REFUSED_KEY]),
        min_size=1,
        max_size=10,
    ),
    max_concurrency=st.integers(1, 8),
    wait=st.booleans(),
    timeout=st.one_of(st.none(), st.floats(0, 4)),
    as_async=st.booleans(),
)
def test_every_id_ends_in_exactly_one_bucket(
    ids: list[Any], fates: list[Any], max_concurrency: int, wait: bool, timeout: float | None, as_async: bool
) -> None:
    """Every id ends in exactly one bucket, for any ids, outcomes, concurrency and limit."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=0.5, default="CANCELLED")
        turn = itertools.cycle(fates)
        service.cancels = {job_id.strip(): next(turn) for job_id in ids if isinstance(job_id, str)}
        noted: list[CancelOutcome] = []
        source = later(ids) if as_async else ids
        report = await cancel_many(
            service, source, max_concurrency=max_concurrency, wait=wait, timeout=timeout, on_outcome=noted.append
        )
        wanted = list(
            dict.fromkeys(job_id.strip() or job_id if isinstance(job_id, str) else f"<{job_id!r}>" for job_id in ids)
        )
        got = [outcome.job_id for outcome in report]
        assert got == wanted if not (as_async and timeout is not None) else got == wanted[: len(got)]
        ended = [outcome for outcome in noted if outcome.event != "accepted"]
        assert Counter(outcome.job_id for outcome in ended) == Counter(got)
        assert {outcome.job_id: outcome for outcome in ended} == {outcome.job_id: outcome for outcome in report}
        assert {outcome.job_id for outcome in noted if outcome.event == "accepted"} <= set(got)
        assert sum(report.counts.values()) == len(report)
        assert max(Counter(service.sent).values(), default=1) == 1
        assert service.most_at_once <= max_concurrency
        for outcome in report:
            assert (outcome.attempts == 0) == (outcome.job_id not in service.sent)
            assert (outcome.attempts == 0) == (outcome.requested_at is None)
            assert outcome.ok or outcome.error is not None

    run()
