"""Cancelling one job: its state decides; what is unclear is looked up, and a 404 for a known job is doubted.

Built on small fakes of the service; every wait is in virtual time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from wires import a_job, in_virtual_time

from _jobs.cancel_service import (
    BEGAN,
    BROKEN,
    FORBIDDEN,
    NO_ANSWER,
    NOT_NOW,
    NOT_SENT,
    REFUSED_KEY,
    TOO_LATE,
    TOO_LATE_AS_DOCUMENTED,
    TROUBLE,
    UNFIT,
    UNKNOWN,
    R,
    Service,
    a_call,
    cancel_many,
    names,
    now,
    results,
)
from together_batches import (
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    BatchesError,
    BatchJob,
    CancelOutcome,
    CancelResult,
    RateLimitError,
    UsageError,
)
from together_batches._jobs import cancel as cancelling
from together_batches._protocol.jobs import NoJob


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("CANCELLED", R.CANCELLED),
        ("COMPLETED", R.ALREADY_FINISHED),
        ("FAILED", R.ALREADY_FINISHED),
        ("EXPIRED", R.ALREADY_FINISHED),
        ("CANCELING", R.CANCELING),
        ("IN_PROGRESS", R.CANCELING),
        ("VALIDATING", R.CANCELING),
        ("SOMETHING_NEW", R.CANCELING),
        (UNKNOWN, R.NOT_FOUND),
        (REFUSED_KEY, R.DENIED),
        (FORBIDDEN, R.DENIED),
        (NOT_SENT, R.FAILED),
        (RateLimitError("slowly", status=429), R.FAILED),
    ],
    ids=str,
)
async def test_the_state_of_the_job_decides(answer: Any, expected: CancelResult) -> None:
    """The outcome is decided by the job's state, or by the error if no state is known."""
    service = Service()
    service.cancels["a"] = answer
    outcome = await cancelling.cancel_one(service.api, a_call())
    assert (outcome.job_id, outcome.result, outcome.attempts) == ("a", expected, 1)
    assert outcome.error is (answer if isinstance(answer, Exception) else None)
    assert outcome.job == (None if isinstance(answer, Exception) else a_job("a", answer))
    assert outcome.accepted is not isinstance(answer, Exception)
    assert outcome.requested_at is not None
    assert service.read == service.read_once == []


UNCLEAR = [
    BROKEN,
    TROUBLE,
    APITimeoutError("too long"),
    APIStatusError("try there", status=307),
    APIStatusError("too slow", status=408),
    APIResponseValidationError("about another job"),
]


@pytest.mark.parametrize("many", [False, True], ids=["cancel", "cancel_many"])
@pytest.mark.parametrize("error", UNCLEAR, ids=str)
@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("CANCELLED", R.CANCELLED),
        ("CANCELING", R.CANCELING),
        ("COMPLETED", R.ALREADY_FINISHED),
        ("FAILED", R.ALREADY_FINISHED),
        ("EXPIRED", R.ALREADY_FINISHED),
        ("IN_PROGRESS", R.FAILED),
        ("SOMETHING_NEW", R.FAILED),
        (UNKNOWN, R.FAILED),
        (TROUBLE, R.FAILED),
        (FORBIDDEN, R.FAILED),
    ],
    ids=str,
)
def test_a_cancel_that_may_have_been_taken_is_looked_up_once(
    error: BatchesError, read: Any, expected: CancelResult, many: bool
) -> None:
    """A cancel that may have been accepted is looked up once; if that decides nothing, its error is the outcome."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.cancels["a"], service.reads["a"] = error, read
        if many:
            outcome = (await cancel_many(service, ["a"]))["a"]
        else:
            outcome = await cancelling.cancel_one(service.api, a_call())
        assert (outcome.result, outcome.attempts) == (expected, 1)
        assert outcome.error is (error if expected is R.FAILED else None)
        assert outcome.job == (None if isinstance(read, Exception) else a_job("a", read))
        assert (service.sent, service.read_once, service.read) == (["a"], ["a"], [])

    run()


@in_virtual_time
async def test_many_cancels_that_may_have_been_taken_are_looked_up_in_one_list() -> None:
    """Many unclear cancels are looked up in one list.

    With ``wait``, those that were accepted are followed like any other; the others are read for a while.
    """
    service = Service()
    service.cancels = dict.fromkeys(names(400), TROUBLE)
    service.reads = dict.fromkeys(names(400), "CANCELLED")
    service.list_answer = [a_job(name, "CANCELING") for name in names(300)]
    service.list_answer += [a_job(name, "IN_PROGRESS") for name in names(400)[300:]]
    report = await cancel_many(service, names(400))
    assert (report.counts[R.CANCELING], report.counts[R.FAILED]) == (300, 100)
    assert (service.lists, service.read_once, service.read) == (1, [], [])
    noted: list[CancelOutcome] = []
    report = await cancel_many(service, names(400), wait=True, timeout=600, on_outcome=noted.append)
    assert Counter(outcome.event for outcome in noted) == {"accepted": 300, "ended": 400}
    assert (report.counts[R.CANCELING], report.counts[R.FAILED]) == (300, 100)
    assert len(service.sent) == 800


@pytest.mark.unmeasured
@pytest.mark.parametrize("error", [BROKEN, TROUBLE], ids=str)
@pytest.mark.parametrize("list_answer", [TROUBLE, []], ids=["no list", "a list without them"])
@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_an_outage_costs_few_looks(error: BatchesError, list_answer: Any, seconds: float) -> None:
    """Thousands of failing cancels, fast or slow, cost few lookups: half a minute passes after a failed one."""

    @in_virtual_time
    async def run() -> None:
        service = Service(seconds=seconds)
        ids = names(3_000)
        service.cancels = dict.fromkeys(ids, error)
        service.reads = dict.fromkeys(ids, error)
        service.list_answer = list_answer
        report = await cancel_many(service, ids, max_concurrency=100)
        assert report.counts[R.FAILED] == 3_000
        assert {outcome.error for outcome in report} == {error}
        assert service.lists + len(service.read_once) < 100

    run()


@in_virtual_time
async def test_looks_are_made_again_after_an_outage() -> None:
    """A service that recovers from an outage decides the cancels that remain unanswered after it."""
    service = Service(seconds=1)
    ids = names(80)
    service.cancels = dict.fromkeys(ids, TROUBLE)
    service.reads = dict.fromkeys(ids[:40], TROUBLE) | dict.fromkeys(ids[40:], "CANCELLED")
    report = await cancel_many(service, ids, max_concurrency=1)
    assert [outcome.result for outcome in report][:40] == [R.FAILED] * 40
    assert {outcome.result for outcome in list(report)[70:]} == {R.CANCELLED}


@in_virtual_time
async def test_a_limit_before_a_look_at_what_is_unclear() -> None:
    """If the limit expires before an unclear cancel is looked up, the outcome is the error of the cancel."""
    service = Service()
    service.cancels["a"], service.reads["a"] = TROUBLE, "CANCELLED"
    assert (await cancel_many(service, ["a"], timeout=0.5))["a"].error is TROUBLE
    noted: list[CancelOutcome] = []
    task = asyncio.create_task(cancel_many(service, ["a"], on_outcome=noted.append))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(outcome.result, outcome.error) for outcome in noted] == [(R.FAILED, TROUBLE)]


async def test_misuse_at_such_a_look_is_raised() -> None:
    """Misuse during such a lookup is raised, for example a client that was closed meanwhile."""
    service = Service()
    service.cancels["a"], service.reads["a"] = TROUBLE, UsageError("this client is closed")
    with pytest.raises(UsageError, match="closed"):
        await cancelling.cancel_one(service.api, a_call())


@pytest.mark.parametrize("refusal", [TOO_LATE, TOO_LATE_AS_DOCUMENTED, NOT_NOW, UNFIT], ids=str)
@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("CANCELLED", R.CANCELLED),
        ("COMPLETED", R.ALREADY_FINISHED),
        ("EXPIRED", R.ALREADY_FINISHED),
        ("CANCELING", R.CANCELING),
        ("CANCELLING", R.CANCELING),
        ("IN_PROGRESS", R.FAILED),
        ("VALIDATING", R.FAILED),
        ("SOMETHING_NEW", R.FAILED),
    ],
)
async def test_after_a_refusal_the_state_of_the_job_decides(
    refusal: BatchesError, read: str, expected: CancelResult
) -> None:
    """After a refusal of any status the job is read once; a job that continues is a failure with that refusal."""
    service = Service()
    service.cancels["a"], service.reads["a"] = refusal, read
    outcome = await cancelling.cancel_one(service.api, a_call())
    assert (outcome.result, outcome.attempts, outcome.job) == (expected, 1, a_job("a", read))
    assert outcome.error is (refusal if expected is R.FAILED else None)
    assert outcome.accepted is (expected is R.CANCELING)
    assert outcome.ok is (expected is not R.FAILED)
    assert (service.sent, service.read) == (["a"], ["a"])


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (TOO_LATE, R.ALREADY_FINISHED),
        (TOO_LATE_AS_DOCUMENTED, R.ALREADY_FINISHED),
        (NOT_NOW, R.FAILED),
        (UNFIT, R.FAILED),
    ],
    ids=str,
)
@pytest.mark.parametrize("read", [TROUBLE, UNKNOWN, BROKEN], ids=str)
async def test_a_refusal_whose_job_cannot_be_read(
    refusal: BatchesError, expected: CancelResult, read: BatchesError
) -> None:
    """If the job cannot be read, a refusal because it has finished is believed; any other leaves it unknown."""
    service = Service()
    service.cancels["a"], service.reads["a"] = refusal, read
    outcome = await cancelling.cancel_one(service.api, a_call())
    assert (outcome.result, outcome.job, outcome.error) == (expected, None, refusal)
    assert not outcome.accepted


@pytest.mark.parametrize(
    ("accepted", "read", "expected"),
    [
        (True, "CANCELING", R.CANCELING),
        (True, "IN_PROGRESS", R.CANCELING),
        (True, "CANCELLED", R.CANCELLED),
        (True, "COMPLETED", R.ALREADY_FINISHED),
        (True, TROUBLE, R.FAILED),
        (False, "CANCELING", R.CANCELING),
        (False, "IN_PROGRESS", R.FAILED),
        (False, "CANCELLED", R.CANCELLED),
        (False, TROUBLE, R.FAILED),
    ],
    ids=str,
)
async def test_a_good_answer_without_a_job_is_looked_up(accepted: bool, read: Any, expected: CancelResult) -> None:
    """The service's 2xx without a job is an acceptance; after a proxy's page, only the state decides."""
    service = Service()
    service.cancels["a"], service.reads["a"] = NoJob(NO_ANSWER, accepted=accepted), read
    outcome = await cancelling.cancel_one(service.api, a_call())
    assert (outcome.result, outcome.attempts) == (expected, 1)
    assert outcome.error is (NO_ANSWER if expected is R.FAILED else None)
    assert outcome.accepted is (accepted or expected is R.CANCELING)
    assert service.read == ["a"]


@pytest.mark.parametrize("where", ["cancels", "reads"])
async def test_misuse_of_the_client_is_raised(where: str) -> None:
    """Misuse of the client is raised, and is not an outcome of a job."""
    service = Service()
    service.cancels["a"] = TOO_LATE
    getattr(service, where)["a"] = UsageError("this client is closed")
    with pytest.raises(UsageError):
        await cancelling.cancel_one(service.api, a_call())
    with pytest.raises(UsageError):
        await cancel_many(service, ["a", "b"])


# --- a 404 for a job that exists ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a job", "seen"])
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_job_that_is_known_to_exist_is_not_gone_for_one_404(how: str, many: bool) -> None:
    """A known job that answers 404 is cancelled again, with growing pauses; each cancel counts as an attempt."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.cancels["a"] = [UNKNOWN, UNKNOWN, UNKNOWN, "CANCELING"]
        service.known = {"a"} if how == "seen" else set()
        job: Any = "a" if how == "seen" else a_job("a", "IN_PROGRESS")
        if many:
            outcome = (await cancel_many(service, [job]))["a"]
        else:
            outcome = await cancelling.cancel_one(service.api, a_call(job if isinstance(job, BatchJob) else None))
        assert (outcome.result, outcome.attempts, outcome.error) == (R.CANCELING, 4, None)
        assert outcome.requested_at == BEGAN
        assert now() == pytest.approx(1 + 2 + 4, abs=0.5)

    run()


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_known_job_that_stays_absent_is_not_found_in_the_end(many: bool) -> None:
    """A known job is reported as not found after a minute of 404s, with the last of them as its error."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.cancels["a"], service.known = UNKNOWN, {"a"}
        if many:
            outcome = (await cancel_many(service, ["a"]))["a"]
        else:
            outcome = await cancelling.cancel_one(service.api, a_call())
        assert (outcome.result, outcome.error, outcome.attempts) == (R.NOT_FOUND, UNKNOWN, len(service.sent))
        assert 5 < len(service.sent) < 15
        assert now() == pytest.approx(60, abs=1)

    run()


@in_virtual_time
async def test_an_id_that_was_never_seen_is_not_found_at_once() -> None:
    """An id that was never seen is reported as not found at its first 404, even if other ids of the bulk exist."""
    service = Service()
    service.cancels = {"a": UNKNOWN}
    report = await cancel_many(service, ["a", "b"])
    assert (results(report), now()) == ([("a", R.NOT_FOUND), ("b", R.CANCELING)], 0)
    assert service.sent == ["a", "b"]


@in_virtual_time
async def test_patience_with_one_job_holds_up_no_other() -> None:
    """Retries for one absent job do not delay the others, and no more run at once than is allowed."""
    service = Service(seconds=1)
    ids = names(40)
    service.known = set(ids)
    service.cancels = {job_id: [UNKNOWN, "CANCELING"] for job_id in ids[:10]}
    noted: dict[str, float] = {}
    report = await cancel_many(
        service, ids, max_concurrency=5, on_outcome=lambda outcome: noted.setdefault(outcome.job_id, now())
    )
    assert report.counts[R.CANCELING] == 40
    assert max(noted[job_id] for job_id in ids[10:]) <= 11
    assert service.most_at_once <= 6


@pytest.mark.parametrize(
    ("then", "expected"), [(TROUBLE, R.FAILED), (TOO_LATE, R.CANCELLED), (REFUSED_KEY, R.DENIED)], ids=str
)
def test_another_answer_ends_the_doubt(then: BatchesError, expected: CancelResult) -> None:
    """Only 404s are doubted: any other response decides at once."""

    @in_virtual_time
    async def run() -> None:
        service = Service()
        service.cancels["a"], service.known = [UNKNOWN, then], {"a"}
        service.reads["a"] = "IN_PROGRESS" if then is TROUBLE else "CANCELLED"
        assert results(await cancel_many(service, ["a"])) == [("a", expected)]
        assert len(service.sent) == 2

    run()


@in_virtual_time
async def test_a_limit_while_a_404_is_doubted() -> None:
    """If the limit expires while a 404 is doubted, the job is not reported as not found: that is undecided."""
    service = Service()
    service.cancels["a"], service.known = UNKNOWN, {"a"}
    outcome = (await cancel_many(service, ["a"], timeout=5))["a"]
    assert (outcome.result, type(outcome.error)) == (R.FAILED, APITimeoutError)
