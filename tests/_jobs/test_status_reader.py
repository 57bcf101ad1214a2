"""What calls about many jobs have in common: which of the listed jobs the ids mean."""

from __future__ import annotations

from together_batches._jobs.create import KnownJobs
from together_batches._jobs.status_reader import by_ids
from together_batches.models import BatchJob

_A, _B = BatchJob(id="a"), BatchJob(id="b")


def test_jobs_by_the_ids_that_mean_them() -> None:
    """Under the spelling of the caller; ids that the list does not name are left out."""
    assert by_ids([_A, _B], ["b", "c"]) == {"b": _B}
    assert by_ids([_A, _B], ["B", "a"]) == {"B": _B, "a": _A}
    assert by_ids([], ["a"]) == {}


def test_an_exact_spelling_comes_first() -> None:
    """Ids are opaque, so two that differ by letter case alone may be two jobs."""
    upper = BatchJob(id="A")
    assert by_ids([upper, _A], ["a", "A"]) == {"a": _A, "A": upper}
    assert by_ids([_A, upper], ["A"]) == {"A": upper}


def test_a_known_job_is_known_in_another_case() -> None:
    """The service answers ids in lower case, whatever the caller wrote."""
    known = KnownJobs()
    known.note(_A)
    assert known.knows("a")
    assert known.knows("A")
    assert not known.knows("b")
