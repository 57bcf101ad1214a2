"""The client for code without await: the same verbs, from any thread."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from wires import AT_ONCE, KEY, ONCE, shown_text

from together_batches import (
    AuthenticationError,
    Batches,
    BatchJob,
    BatchJobStatus,
    CancelOutcome,
    CancelResult,
    NotFoundError,
    UsageError,
    WaitTimeoutError,
)
from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

R = CancelResult


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY).running_in_thread() as running:
        yield running


@pytest.fixture
def batches(emulator: Emulator) -> Iterator[Batches]:
    with Batches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as client:
        yield client


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "together-batches"]


# --- the verbs ------------------------------------------------------------------------------------------------


def test_threads_share_a_follower(emulator: Emulator, batches: Batches) -> None:
    """Threads wait for their jobs by one follower; leaving its block ends the waits that are left."""
    jobs = [emulator.add_job(status="COMPLETED") for _ in range(3)]
    endless = emulator.add_job(status="IN_PROGRESS")
    seen: list[BatchJob] = []
    with ThreadPoolExecutor() as executor, batches.follower(poll_interval=0.05) as follower:
        left = executor.submit(follower.ended, endless)
        ended = [executor.submit(follower.ended, job, on_update=seen.append) for job in [*jobs, jobs[0]]]
        assert {future.result().id for future in ended} == set(jobs)
        with pytest.raises(WaitTimeoutError):
            follower.ended(endless, timeout=0.2)
        assert not left.done()
        follower.__exit__(None, None, None)
        with pytest.raises(UsageError, match="closed"):
            left.result()
    assert {job.id for job in seen} == set(jobs)


def test_every_verb(emulator: Emulator, batches: Batches) -> None:
    """Creates, reads, filters and cancels work, for one job and for many."""
    created = batches.create("file-1", model_id="m")
    assert isinstance(created, BatchJob)
    assert batches.retrieve(created.id) == batches.retrieve(created)
    assert [job.id for job in batches.list(status=BatchJobStatus.VALIDATING, input_file_id="file-1")] == [created.id]
    assert batches.list(created_before=datetime(2020, 1, 1, tzinfo=UTC)) == []
    assert batches.cancel(created).status == "CANCELING"
    done = emulator.add_job(status="COMPLETED")
    report = batches.cancel_many([created, done, "no-such-job", done], max_concurrency=2, rate=1000, timeout=30)
    assert [outcome.result for outcome in report] == [R.CANCELING, R.ALREADY_FINISHED, R.NOT_FOUND]
    response = batches.request("GET", f"/batches/{done}")
    assert response.status == 200
    assert b"COMPLETED" in response.body


def test_waiting_for_the_end(emulator: Emulator, batches: Batches) -> None:
    """``wait`` behaves as in the async client."""
    job_id = emulator.add_job()
    threading.Timer(0.3, emulator.advance, [60]).start()
    assert batches.cancel_many([job_id], wait=True)[job_id].result is R.CANCELLED


def test_errors_are_the_same(batches: Batches) -> None:
    """Errors are the same as in the async client, with their fields and without the key."""
    with pytest.raises(NotFoundError) as caught:
        batches.retrieve("no-such-job")
    assert caught.value.request_id
    assert KEY not in shown_text(caught.value)
    with pytest.raises(UsageError):
        batches.cancel("")
    with pytest.raises(TypeError):
        batches.cancel_many("job-1")
    with pytest.raises(TypeError):
        batches.iter_cancel("job-1")


def test_ids_may_come_from_anything_that_can_be_iterated(emulator: Emulator, batches: Batches) -> None:
    """Ids may come from a generator or an async generator; both run in the client's own thread."""
    ids = [emulator.add_job() for _ in range(20)]
    where = set()

    def some() -> Iterator[str]:
        where.add(threading.current_thread().name)
        yield from ids

    async def others() -> AsyncIterator[str]:
        where.add(threading.current_thread().name)
        for job_id in ids:
            await asyncio.sleep(0)
            yield job_id

    assert len(batches.cancel_many(some())) == len(batches.cancel_many(others())) == 20
    assert where == {"together-batches"}


# --- where it is called from ----------------------------------------------------------------------------------


async def test_it_works_where_a_loop_is_running(emulator: Emulator) -> None:
    """The client works in a thread with a running loop, such as a notebook's, which is blocked meanwhile."""
    job_id = emulator.add_job()
    with Batches(KEY, base_url=emulator.base_url) as batches:
        assert batches.cancel(job_id).status == "CANCELING"
        assert [outcome.job_id for outcome in batches.iter_cancel([job_id])] == [job_id]


def test_it_works_from_many_threads(emulator: Emulator, batches: Batches) -> None:
    """One client serves many threads, with single and bulk calls at once."""
    ids = [[emulator.add_job() for _ in range(25)] for _ in range(8)]
    every_id = list(itertools.chain.from_iterable(ids))
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(batches.cancel_many, ids))
        singles = list(pool.map(batches.retrieve, every_id))
    assert all(report.counts[R.CANCELING] == 25 for report in reports)
    assert [job.id for job in singles] == every_id
    assert emulator.count("cancel") == 200


def test_its_slots_are_shared_between_threads(emulator: Emulator) -> None:
    """The concurrency limit is shared by threads: sixteen make no more than the allowed four connections."""
    emulator.fail(Fault(on="retrieve", delay=0.02, status=404, times=None))
    with (
        Batches(KEY, base_url=emulator.base_url, max_concurrency=4, retry=ONCE) as batches,
        ThreadPoolExecutor(16) as pool,
    ):

        def missing(number: int) -> bool:
            with pytest.raises(NotFoundError):
                batches.retrieve(f"job-{number}")
            return True

        assert all(pool.map(missing, range(16)))
    assert emulator.count("retrieve") == 16


# --- callbacks and iterators ----------------------------------------------------------------------------------


def test_outcomes_are_told_in_the_clients_thread(emulator: Emulator, batches: Batches) -> None:
    """Callbacks run in the client's thread as outcomes become known; their exceptions end the call and are raised."""
    ids = [emulator.add_job() for _ in range(20)]
    told_of: list[tuple[str, str]] = []

    def tell(outcome: CancelOutcome) -> None:
        told_of.append((outcome.job_id, threading.current_thread().name))
        if len(told_of) == 25:
            raise LookupError("enough")

    batches.cancel_many(ids, on_outcome=tell)
    assert sorted(job_id for job_id, _ in told_of) == sorted(ids)
    assert {name for _, name in told_of} == {"together-batches"}
    with pytest.raises(LookupError, match="enough"):
        batches.cancel_many(ids, on_outcome=tell)
    assert len(told_of) == 25
    assert len(batches.list()) == 20


def test_a_callback_that_calls_the_client_would_wait_for_itself(emulator: Emulator, batches: Batches) -> None:
    """A callback that calls the client is refused, because the call would wait for itself."""
    job_id = emulator.add_job()
    with pytest.raises(UsageError, match="called from its own loop"):
        batches.cancel_many([job_id], on_outcome=lambda outcome: batches.retrieve(outcome.job_id))
    assert batches.retrieve(job_id).status == "CANCELING"


def test_an_iterator_gives_each_outcome(emulator: Emulator, batches: Batches) -> None:
    """A plain iterator yields each outcome and ends."""
    ids = [emulator.add_job() for _ in range(600)]
    outcomes = batches.iter_cancel(ids)
    assert iter(outcomes) is outcomes
    assert sorted(outcome.job_id for outcome in outcomes) == sorted(ids)
    assert list(outcomes) == []


def test_leaving_an_iterator_stops_its_work(emulator: Emulator, batches: Batches) -> None:
    """Leaving an iterator by ``with`` or ``close`` stops its work."""
    ids = [emulator.add_job() for _ in range(3_000)]
    with batches.iter_cancel(ids, max_concurrency=5) as outcomes:
        for outcome in outcomes:
            assert outcome.ok
            break
    sent = emulator.count("cancel")
    assert sent < 2_000
    assert batches.request("GET", "/batches").status == 200
    assert emulator.count("cancel") <= sent + 5  # those in flight
    outcomes = batches.iter_cancel(ids, max_concurrency=5)
    next(outcomes)
    outcomes.close()
    outcomes.close()
    assert emulator.count("cancel") < 4_000


def test_an_iterator_hands_over_what_came_before_an_error(emulator: Emulator, batches: Batches) -> None:
    """An iterator yields the items before an error, and then raises it."""
    ids = [emulator.add_job() for _ in range(10)]

    def failing() -> Iterator[str]:
        yield from ids
        raise LookupError("the file ended")

    found = []
    with (
        pytest.raises(LookupError, match="the file ended"),
        batches.iter_cancel(failing(), max_concurrency=1) as outcomes,
    ):
        found.extend(outcome.job_id for outcome in outcomes)
    assert emulator.count("cancel") >= 9


# --- making, viewing, closing ---------------------------------------------------------------------------------


def test_it_is_closed_once_and_for_all(emulator: Emulator) -> None:
    """A client is closed by ``with`` or ``close``, repeatedly without harm, and its thread ends."""
    before = len(threads())
    batches = Batches(KEY, base_url=emulator.base_url)
    assert len(threads()) == before + 1
    batches.list()
    batches.close()
    batches.close()
    assert len(threads()) == before
    for call in (lambda: batches.list(), lambda: batches.cancel_many([]), lambda: next(batches.iter_cancel(["a"]))):
        with pytest.raises(UsageError, match="this client is closed"):
            call()


def test_a_view_differs_in_what_was_said(emulator: Emulator, batches: Batches) -> None:
    """A view shares thread and connections and differs in the given options; closing it closes nothing."""
    view = batches.with_options(headers={"X-Team": "blue"}, timeout=5, retry=ONCE)
    assert isinstance(view, Batches)
    before = len(threads())
    with view:
        view.list()
    batches.list()
    assert len(threads()) == before
    assert [request.headers.get("X-Team") for request in emulator.requests] == ["blue", None]
    batches.close()
    with pytest.raises(UsageError, match="closed"):
        view.list()


def test_closing_ends_calls_in_other_threads(emulator: Emulator) -> None:
    """Closing a client ends calls in other threads with an error that gives the reason."""
    emulator.fail(Fault(on="retrieve", delay=0.5, status=404, times=None))
    batches = Batches(KEY, base_url=emulator.base_url)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(batches.retrieve, "job-1")
        while not emulator.count("retrieve"):
            threading.Event().wait(0.005)
        batches.close()
        with pytest.raises(UsageError, match="closed"):
            call.result()


@pytest.mark.parametrize(
    "options", [{"api_key": ""}, {"timeout": -1}, {"base_url": "ftp://x"}, {"max_concurrency": 0}], ids=str
)
def test_a_client_that_cannot_be_made_leaves_no_thread(options: dict[str, Any]) -> None:
    """If a client cannot be made, no thread remains, and the error does not show the key."""
    before = threads()
    with pytest.raises(UsageError) as caught:
        Batches(**{"api_key": KEY, **options})
    assert threads() == before
    assert KEY not in shown_text(caught.value)


def test_it_takes_no_session() -> None:
    """A session is refused, because it belongs to the loop that made it, and this client has its own loop."""
    with pytest.raises(TypeError, match="session"):
        Batches(KEY, session=None)  # type: ignore[call-arg]


def test_its_text_shows_no_key(batches: Batches, emulator: Emulator) -> None:
    """The texts of the client and its parts do not show the key."""
    assert repr(batches) == f"<Batches {emulator.base_url}>"
    assert KEY not in repr(vars(batches))
    assert repr(object.__new__(Batches)) == "<Batches not made>"


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda way: way.__name__)
def test_it_is_not_pickled_or_copied(batches: Batches, way: Callable[[Any], Any]) -> None:
    """A client cannot be pickled or copied, because it holds a thread, connections and a key."""
    with pytest.raises(TypeError, match="Batches cannot be pickled or copied"):
        way(batches)


def test_a_wrong_key(emulator: Emulator) -> None:
    """With a wrong key single calls raise, and a bulk call reports."""
    with Batches("wrong-key-0123", base_url=emulator.base_url) as batches:
        with pytest.raises(AuthenticationError):
            batches.list()
        report = batches.cancel_many([f"job-{number}" for number in range(500)], max_concurrency=3)
    assert report.counts[R.DENIED] <= 3
    assert report.counts[R.NOT_ATTEMPTED] >= 497
