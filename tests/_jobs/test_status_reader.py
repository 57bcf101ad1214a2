"""What calls for many jobs share: matching listed jobs with ids."""

from __future__ import annotations

from together_batches._jobs.known_jobs import KnownJobs
from together_batches._jobs.status_reader import by_ids
from together_batches.models import BatchJob

_A, _B = BatchJob(id="a"), BatchJob(id="b")


def test_jobs_by_the_ids_that_mean_them() -> None:
    """Jobs are returned under the caller's spelling of their ids; ids that are not listed are omitted."""
    assert by_ids([_A, _B], ["b", "c"]) == {"b": _B}
    assert by_ids([_A, _B], ["B", "a"]) == {"B": _B, "a": _A}
    assert by_ids([], ["a"]) == {}


def test_an_exact_spelling_comes_first() -> None:
    """An exact match takes precedence: ids are opaque, so two that differ in case may be two jobs."""
    upper = BatchJob(id="A")
    assert by_ids([upper, _A], ["a", "A"]) == {"a": _A, "A": upper}
    assert by_ids([_A, upper], ["A"]) == {"A": upper}


def test_a_known_job_is_known_in_another_case() -> None:
    """A known job is recognised in another case, because the service returns ids in lower case."""
    known = KnownJobs()
    known.note(_A)
    assert known.knows("a")
    assert known.knows("A")
    assert not known.knows("b")
