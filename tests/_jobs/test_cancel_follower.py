"""Following the jobs of a bulk cancel until they have stopped, or until patience with a refusal is used up.

Built on small fakes of the service; every wait is in virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import anyio
import pytest
from wires import a_job, in_virtual_time

from _jobs.cancel_service import (
    BROKEN,
    FORBIDDEN,
    NOT_NOW,
    REFUSED_KEY,
    TOO_LATE,
    TROUBLE,
    UNKNOWN,
    R,
    Service,
    a_call,
    cancel_many,
    iter_cancel,
    names,
    now,
    results,
)
from together_batches import (
    APIResponseValidationError,
    BatchesError,
    BatchJob,
    CancelOutcome,
    UsageError,
)
from together_batches._jobs.cancel_follower import Doubt, End, Followed, Poll, after_read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from together_batches._jobs.status_reader import Found


@in_virtual_time
async def test_wait_follows_each_job_to_its_end() -> None:
    """``wait`` follows each job to its final state, completed included; a job that had finished is not read again."""
    service = Service()
    service.cancels = {"done": "CANCELLED", "late": "COMPLETED"}
    service.reads = {
        "drains": ["CANCELING", "CANCELING", "CANCELLED"],
        "outruns": ["CANCELING", "COMPLETED"],
        "fails": "FAILED",
    }
    noted: list[tuple[str, str | None]] = []
    ids = ["drains", "outruns", "fails", "done", "late"]
    report = await cancel_many(
        service, ids, wait=True, on_outcome=lambda outcome: noted.append((outcome.job_id, outcome.event))
    )
    assert results(report) == [
        ("drains", R.CANCELLED),
        ("outruns", R.ALREADY_FINISHED),
        ("fails", R.ALREADY_FINISHED),
        ("done", R.CANCELLED),
        ("late", R.ALREADY_FINISHED),
    ]
    assert {outcome.attempts for outcome in report} == {1}
    assert [outcome.completed_anyway for outcome in report] == [False, True, False, False, True]
    assert str(report) == "2 cancelled, 1 already finished, 2 completed anyway"
    assert noted == [
        ("drains", "accepted"),
        ("outruns", "accepted"),
        ("fails", "accepted"),
        ("done", "ended"),
        ("late", "ended"),
        ("fails", "ended"),
        ("outruns", "ended"),
        ("drains", "ended"),
    ]
    assert {outcome.job.status for outcome in report if outcome.job} == {"CANCELLED", "COMPLETED", "FAILED"}


@in_virtual_time
async def test_polls_come_soon_at_first_and_then_ever_more_seldom() -> None:
    """Polls start a second after the cancel and slow down, to intervals of about half a minute at most."""
    service = Service()
    service.reads["a"] = ["CANCELING"] * 20 + ["CANCELLED"]
    report = await cancel_many(service, ["a"], wait=True)
    assert report["a"].result is R.CANCELLED
    gaps = [after - before for before, after in itertools.pairwise(service.times)]
    assert service.times[0] == pytest.approx(1, abs=0.1)
    assert max(gaps) <= 37
    assert sum(gaps[-3:]) > sum(gaps[:3]) * 10


@in_virtual_time
async def test_a_new_job_is_not_late_because_an_old_one_is_stuck() -> None:
    """Each job is polled at its own intervals, so one that is stuck does not delay a new one."""
    service = Service()
    service.reads = {"stuck": "CANCELING", "new": "CANCELLED"}
    noted: dict[str, float] = {}

    async def ids() -> AsyncIterator[str]:
        yield "stuck"
        await asyncio.sleep(200)
        yield "new"

    await cancel_many(
        service, ids(), wait=True, timeout=300, on_outcome=lambda outcome: noted.__setitem__(outcome.job_id, now())
    )
    assert noted["new"] <= 200 + 3


@in_virtual_time
async def test_many_draining_jobs_are_read_in_one_list() -> None:
    """Many draining jobs are read in one list, cheaper than a thousand reads; those it omits are read one by one."""
    service = Service()
    ids = names(100)
    service.list_answer = [a_job(job_id, "CANCELLED") for job_id in ids[:95]]
    service.reads = dict.fromkeys(ids, "COMPLETED")
    report = await cancel_many(service, ids, wait=True)
    assert [outcome.result for outcome in report] == [R.CANCELLED] * 95 + [R.ALREADY_FINISHED] * 5
    assert (service.lists, sorted(service.read)) == (1, sorted(ids[95:]))


@in_virtual_time
async def test_jobs_that_drain_for_long_are_read_together() -> None:
    """Jobs that drain for long are read together, whenever each was cancelled, so that few lists are fetched."""
    service = Service(seconds=0.05)
    ids = names(1_000)
    service.list_answer = [a_job(job_id) for job_id in ids]
    report = await cancel_many(service, ids, wait=True, timeout=100)
    assert report.counts[R.CANCELING] == 1_000
    assert service.lists + len(service.read) <= 25


@in_virtual_time
async def test_few_draining_jobs_are_read_one_by_one() -> None:
    """Few draining jobs are read one by one, without a list of the account."""
    service = Service()
    service.reads = dict.fromkeys(names(3), "CANCELLED")
    await cancel_many(service, names(3), wait=True)
    assert (service.lists, len(service.read)) == (0, 3)


@in_virtual_time
async def test_a_very_long_account_is_read_once() -> None:
    """A very long account is listed once; afterwards the few draining jobs are read by id."""
    service = Service()
    ids = names(30)
    others = [a_job(f"other-{number}", "COMPLETED") for number in range(1_000)]
    service.list_answer = others + [a_job(job_id) for job_id in ids]
    service.reads = dict.fromkeys(ids, "CANCELLED")
    report = await cancel_many(service, ids, wait=True)
    assert report.counts[R.CANCELLED] == 30
    assert (service.lists, len(service.read)) == (1, 30)


@in_virtual_time
async def test_a_list_that_cannot_be_read_is_not_the_only_way() -> None:
    """If the list cannot be read, perhaps forever because of one bad entry, the jobs are read one by one."""
    service = Service()
    ids = names(50)
    service.list_answer = APIResponseValidationError("a number instead of text", where="$[3].id")
    service.reads = dict.fromkeys(ids, "CANCELLED")
    report = await cancel_many(service, ids, wait=True)
    assert report.counts[R.CANCELLED] == 50
    assert service.lists == 1


@in_virtual_time
async def test_ids_in_another_case_are_found_in_the_list() -> None:
    """Ids in another case than the service's own spelling are found in the list, in one request."""
    service = Service()
    service.list_answer = [a_job(name, "CANCELLED") for name in names(100)]
    report = await cancel_many(service, [name.upper() for name in names(100)], wait=True)
    assert report.counts[R.CANCELLED] == 100
    assert (service.lists, service.read) == (1, [])


@in_virtual_time
async def test_a_key_that_may_not_list_reads_one_by_one() -> None:
    """A refused list does not decide about the jobs: a key that may not list reads them one by one."""
    service = Service()
    service.list_answer = FORBIDDEN
    service.reads = dict.fromkeys(names(50), "CANCELLED")
    report = await cancel_many(service, names(50), wait=True)
    assert report.counts[R.CANCELLED] == 50


@in_virtual_time
async def test_failed_polls_are_repeated() -> None:
    """A few failed polls are retried; after that the last known state is reported, with the error."""
    service = Service()
    service.reads = {
        "shaken": [TROUBLE, BROKEN, TROUBLE, TROUBLE, "CANCELING", TROUBLE, TROUBLE, TROUBLE, TROUBLE, "CANCELLED"],
        "lost": TROUBLE,
    }
    report = await cancel_many(service, ["shaken", "lost"], wait=True)
    assert report["shaken"].result is R.CANCELLED
    assert report["shaken"].error is None
    assert (report["lost"].result, report["lost"].error) == (R.CANCELING, TROUBLE)
    assert report["lost"].job == a_job("lost")
    assert report["lost"].attempts == 1
    assert service.read.count("lost") == 5


@pytest.mark.parametrize("error", [REFUSED_KEY, FORBIDDEN], ids=str)
def test_polls_that_will_never_succeed(error: BatchesError) -> None:
    """Polls that cannot succeed are not retried; the cancel itself had been accepted."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.reads["a"] = error
        report = await cancel_many(service, ["a"], wait=True)
        assert (report["a"].result, report["a"].error) == (R.CANCELING, error)
        assert len(service.read) == 1

    run()


@in_virtual_time
async def test_a_job_that_took_the_cancel_and_is_absent_then() -> None:
    """A job that is absent after its cancel was accepted is reported as not found after a minute.

    Its 404s are doubted because it exists; each successful read restarts the minute.
    """
    service = Service()
    service.reads = {"back": [UNKNOWN] * 3 + ["CANCELING"] + [UNKNOWN] * 3 + ["CANCELLED"], "gone": UNKNOWN}
    report = await cancel_many(service, ["back", "gone"], wait=True)
    assert (report["back"].result, report["back"].error) == (R.CANCELLED, None)
    assert (report["gone"].result, report["gone"].error) == (R.NOT_FOUND, UNKNOWN)
    assert report["gone"].accepted
    assert now() == pytest.approx(61, abs=1.5)


@in_virtual_time
async def test_a_refused_cancel_is_looked_at_for_a_while_if_it_is_waited_for() -> None:
    """With ``wait`` a job is read for a while after a refused cancel, because its state may lag behind.

    If the job stops after all, the outcome is not a failure, and is reported as accepted then.
    """
    service = Service()
    service.cancels = dict.fromkeys(["stops", "goes on", "is over", "unread"], NOT_NOW)
    service.reads = {
        "stops": ["IN_PROGRESS", "IN_PROGRESS", "CANCELING", "CANCELLED"],
        "goes on": "IN_PROGRESS",
        "is over": ["IN_PROGRESS", "COMPLETED"],
        "unread": [TROUBLE, UNKNOWN, "CANCELLED"],
    }
    noted: list[tuple[str, str | None]] = []
    report = await cancel_many(
        service, list(service.cancels), wait=True, on_outcome=lambda found: noted.append((found.job_id, found.event))
    )
    assert results(report) == [
        ("stops", R.CANCELLED),
        ("goes on", R.FAILED),
        ("is over", R.ALREADY_FINISHED),
        ("unread", R.CANCELLED),
    ]
    assert (report["goes on"].error, report["goes on"].job) == (NOT_NOW, a_job("goes on", "IN_PROGRESS"))
    assert [outcome.accepted for outcome in report] == [True, False, False, False]
    assert not report["is over"].completed_anyway
    assert [name for name, event in noted if event == "accepted"] == ["stops"]
    assert sorted(name for name, event in noted if event == "ended") == sorted(service.cancels)
    assert now() == pytest.approx(60, abs=2)
    assert len(service.sent) == 4


@in_virtual_time
async def test_a_limit_while_a_refusal_is_doubted() -> None:
    """If the limit expires while a refusal is doubted, the refusal is reported, because it was the response."""
    service = Service()
    service.cancels["a"], service.reads["a"] = TOO_LATE, "IN_PROGRESS"
    outcome = (await cancel_many(service, ["a"], wait=True, timeout=5))["a"]
    assert (outcome.result, outcome.error) == (R.FAILED, TOO_LATE)


@in_virtual_time
async def test_a_job_whose_cancel_was_refused_and_that_cannot_be_read_for_long() -> None:
    """If a job cannot be read after a refused cancel, the refusal remains, and its wait ends like any other."""
    service = Service()
    service.cancels["a"], service.reads["a"] = NOT_NOW, TROUBLE
    outcome = (await cancel_many(service, ["a"], wait=True))["a"]
    assert (outcome.result, outcome.error) == (R.FAILED, NOT_NOW)
    assert len(service.read) == 1 + 5


@in_virtual_time
async def test_misuse_while_following_is_raised() -> None:
    """Misuse while following is raised, such as a client that was closed, during single polls and lists."""
    for count in (3, 30):
        service = Service()
        service.list_answer = UsageError("this client is closed")
        service.reads = dict.fromkeys(names(count), UsageError("this client is closed"))
        with pytest.raises(UsageError):
            await cancel_many(service, names(count), wait=True)


@in_virtual_time
async def test_wait_ends_at_once_where_nothing_drains() -> None:
    """``wait`` ends at once if nothing drains, and as soon as nothing drains any more."""
    service = Service(default="CANCELLED")
    await cancel_many(service, names(50), wait=True)
    assert now() < 0.1
    assert [o async for o in iter_cancel(service, names(5), wait=True)]
    assert now() < 0.1
    service = Service()
    service.reads["a"] = "CANCELLED"
    began = now()
    await cancel_many(service, ["a"], wait=True)
    assert now() - began == pytest.approx(1, abs=0.1)


@in_virtual_time
async def test_waiting_does_not_hold_up_the_cancelling() -> None:
    """Waiting does not delay the cancels: all are sent first, and each job is followed from its acceptance."""
    service = Service(seconds=0.1)
    service.reads = dict.fromkeys(names(200), "CANCELLED")
    service.list_answer = []
    report = await cancel_many(service, names(200), wait=True, max_concurrency=10)
    assert report.counts[R.CANCELLED] == 200
    assert service.most_at_once <= 10


@in_virtual_time
async def test_an_iteration_can_wait_too() -> None:
    """An iteration with ``wait`` yields each outcome when its job has stopped."""
    service = Service()
    service.reads = {"a": ["CANCELING", "CANCELLED"], "b": "CANCELLED"}
    found = [outcome async for outcome in iter_cancel(service, ["a", "b"], wait=True)]
    assert results(found) == [("b", R.CANCELLED), ("a", R.CANCELLED)]
    assert {outcome.event for outcome in found} == {None}


@in_virtual_time
async def test_an_iteration_that_waits_begins_no_more_than_it_can_follow() -> None:
    """An iteration with ``wait`` starts no more jobs than it can follow, so a million stuck ones do not pile up."""
    service = Service()
    service.list_answer = [a_job(job_id) for job_id in names(1_100)]
    outcomes = iter_cancel(service, (f"job-{number}" for number in range(10_000)), wait=True, max_concurrency=10)
    with anyio.move_on_after(30) as scope:
        await anext(outcomes)
    assert scope.cancelled_caught
    await outcomes.aclose()
    assert 1000 <= len(service.sent) < 1100


@in_virtual_time
async def test_a_key_refused_while_cancelling_leaves_those_that_drain_to_be_followed() -> None:
    """After a refused key, jobs whose cancel was accepted before are still followed."""
    service = Service()
    service.cancels["bad"] = REFUSED_KEY
    service.reads["good"] = "CANCELLED"
    report = await cancel_many(service, ["good", "bad", "rest"], wait=True, max_concurrency=1)
    assert results(report) == [("good", R.CANCELLED), ("bad", R.DENIED), ("rest", R.NOT_ATTEMPTED)]


# --- what follows from a read ---


def _outcome(result: R, job: BatchJob | None = None, error: BatchesError | None = None) -> CancelOutcome:
    return CancelOutcome("a", result, job, error, accepted=True)


DRAINS = _outcome(R.CANCELING)
RUNNING, STOPPING, STOPPED = a_job("a", "IN_PROGRESS"), a_job("a", "CANCELING"), a_job("a", "CANCELLED")


@pytest.mark.parametrize(
    ("found", "failures", "expected"),
    [
        (STOPPED, 3, End(_outcome(R.CANCELLED, STOPPED))),
        (STOPPING, 3, Poll(_outcome(R.CANCELING, STOPPING))),
        (RUNNING, 3, Poll(_outcome(R.CANCELING, RUNNING))),
        (UNKNOWN, 3, Doubt(DRAINS, _outcome(R.NOT_FOUND, error=UNKNOWN), 3)),
        (TROUBLE, 3, Poll(_outcome(R.CANCELING, error=TROUBLE), 4)),
        (TROUBLE, 4, End(_outcome(R.CANCELING, error=TROUBLE))),
        (REFUSED_KEY, 0, End(_outcome(R.CANCELING, error=REFUSED_KEY))),
        (FORBIDDEN, 0, End(_outcome(R.CANCELING, error=FORBIDDEN))),
    ],
)
def test_a_read_of_a_job_whose_cancel_was_accepted(found: Found, failures: int, expected: End | Poll | Doubt) -> None:
    """An accepted cancel is followed to the job's end; errors end that only if they stay or cannot pass."""
    call = a_call()
    call.accepted = True
    assert after_read(Followed(DRAINS, call, failures=failures), found) == expected


def test_a_read_of_a_job_whose_cancel_was_refused() -> None:
    """A job that goes on after a refused cancel is read again for a while, and has then failed to be cancelled."""
    call = a_call()
    call.refusal = NOT_NOW
    refused = CancelOutcome("a", R.FAILED, RUNNING, NOT_NOW)
    entry = Followed(refused, call)
    assert after_read(entry, RUNNING) == Doubt(refused, refused)
    assert after_read(entry, UNKNOWN) == Doubt(refused, refused)
    assert after_read(entry, TROUBLE) == Poll(refused, 1)
