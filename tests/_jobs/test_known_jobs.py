"""What a client remembers of the jobs and files of its account."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta

import pytest

from together_batches._jobs.known_jobs import KnownJobs
from together_batches.models import BatchJob


def test_what_was_seen_before_a_mark() -> None:
    """``seen_before`` counts the first sight of a job: seeing it again does not make it newer."""
    known = KnownJobs()
    before, after = BatchJob(id="before"), BatchJob(id="after")
    assert known.note(before) is before
    mark = known.now
    known.note(after)
    known.note(before)
    assert known.seen_before(mark, before) is True
    assert known.seen_before(mark, after) is False
    assert known.seen_before(mark, BatchJob(id="never")) is False


@pytest.mark.unmeasured
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_list_of_twenty_thousand_does_not_crowd_out_the_youngest(*, newest_first: bool) -> None:
    """A list of twenty thousand jobs, in any order, does not evict the newest, which matter for creates."""
    noon = datetime(2026, 9, 14, 12, tzinfo=UTC)
    jobs = [BatchJob(id=str(age), created_at=noon - timedelta(seconds=age)) for age in range(20_000)]
    known = KnownJobs()
    for job in jobs if newest_first else reversed(jobs):
        known.note(job)
    assert all(known.seen_before(known.now, job) for job in jobs[:5_000])
    assert sum(known.seen_before(known.now, job) for job in jobs) <= 10_000


async def test_turns_of_a_thousand_files_are_not_kept() -> None:
    """Turns of finished files are dropped, so that a client that lives for years does not grow with each file."""
    known = KnownJobs()
    before = _locks()
    for number in range(1_000):
        async with known.turn(f"file-{number}"):
            pass
    assert _locks() == before


async def test_turns_of_a_file_are_taken_one_by_one() -> None:
    """Creates for one file run one after another, in their order; those for another file do not wait for them."""
    known = KnownJobs()
    seen: list[str] = []

    async def create(file_id: str, name: str) -> None:
        async with known.turn(file_id):
            seen.append(f"{name} begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(f"{name} ends")

    await asyncio.gather(create("file-1", "first"), create("file-1", "second"), create("file-2", "other"))
    first_two = [event for event in seen if not event.startswith("other")]
    assert first_two == ["first begins", "first ends", "second begins", "second ends"]
    assert seen.index("other begins") < seen.index("first ends")


def _locks() -> int:
    return sum(type(value) is asyncio.Lock for value in gc.get_objects())


def test_of_a_long_list_the_newest_jobs_are_remembered_and_those_without_a_time() -> None:
    """From a long list only the newest jobs and those without a time are remembered.

    Only a recent job can be confused with one just created, and one without a time may be recent, so it is never
    dropped.
    """
    known = KnownJobs()
    now = datetime(2026, 11, 1, tzinfo=UTC)
    jobs = [BatchJob(id=f"job-{age}", created_at=now - timedelta(minutes=age)) for age in range(12_000)]
    known.note_all([*jobs, BatchJob(id="undated")])
    assert [known.knows(name) for name in ("job-0", "job-4000", "job-11999", "undated")] == [True, True, False, True]


def test_a_known_job_is_known_in_another_case() -> None:
    """A known job is recognised in another case, because the service returns ids in lower case."""
    known = KnownJobs()
    known.note(BatchJob(id="a"))
    assert known.knows("a")
    assert known.knows("A")
    assert not known.knows("b")
