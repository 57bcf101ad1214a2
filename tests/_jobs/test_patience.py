"""Patience with an absence: how often it is checked, with which pauses, and when it is final."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._jobs.patience import Absence, until_found
from together_batches.errors import APIConnectionError, NotFoundError


def pauses(absence: Absence) -> list[float]:
    """Return all pauses that are left."""
    return list(iter(absence.pause, None))


class Shelf:
    """A resource that appears after a number of reads, unless a read fails with another error."""

    def __init__(self, absent: int, failure: Exception | None = None) -> None:
        self.looks = 0
        self.slept: list[float] = []
        self._absent = absent
        self._failure = failure

    async def look(self) -> str:
        self.looks += 1
        if self.looks <= self._absent:
            raise NotFoundError(f"absent at look {self.looks}", status=404)
        if self._failure is not None:
            raise self._failure
        return "there"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def found(self, patience: float) -> str:
        return await until_found(self.look, patience=patience, sleep=self.sleep)


def test_the_pauses_double() -> None:
    """Pauses double from one second to thirty; the last one is the rest of patience."""
    assert pauses(Absence(120)) == [1, 2, 4, 8, 16, 30, 30, 29]
    assert pauses(Absence(10, shortest=2, longest=3)) == [2, 3, 3, 2]


@pytest.mark.parametrize("patience", [0, 0.0, -1])
def test_without_patience_there_is_one_look(patience: float) -> None:
    """Without patience there is one read and no pause."""
    assert pauses(Absence(patience)) == []


@given(st.floats(0, 10_000))
def test_the_last_look_is_when_patience_ends(patience: float) -> None:
    """The last read is exactly when patience ends, so anything that appears within patience is seen."""
    taken = pauses(Absence(patience))
    assert sum(taken) == pytest.approx(patience)
    assert all(0 < pause <= 30 for pause in taken)


def test_patience_that_is_used_up_stays_used_up() -> None:
    """Used-up patience stays used up: a further failed read does not restart it."""
    absence = Absence(1)
    assert [absence.pause() for _ in range(3)] == [1, None, None]


def test_what_was_seen_starts_anew() -> None:
    """After a successful read, a second absence has the full patience."""
    absence = Absence(3)
    assert pauses(absence) == [1, 2]
    absence.over()
    assert pauses(absence) == [1, 2]


@pytest.mark.parametrize(("absent", "slept"), [(0, []), (1, [1]), (4, [1, 2, 4, 3])])
async def test_what_shows_in_time_is_found(absent: int, slept: list[float]) -> None:
    """What appears in time is found: by the first read without a pause, or by the last one within patience."""
    shelf = Shelf(absent)
    assert await shelf.found(10) == "there"
    assert (shelf.looks, shelf.slept) == (absent + 1, slept)


async def test_what_stays_absent() -> None:
    """A lasting absence is raised as the error of the last read."""
    shelf = Shelf(99)
    with pytest.raises(NotFoundError, match="absent at look 5"):
        await shelf.found(10)
    assert shelf.slept == [1, 2, 4, 3]


async def test_any_other_error_is_raised_at_once() -> None:
    """Any error other than an absence is raised at once."""
    failure = APIConnectionError("no connection")
    shelf = Shelf(1, failure)
    with pytest.raises(APIConnectionError) as caught:
        await shelf.found(10)
    assert caught.value is failure
    assert shelf.looks == 2
