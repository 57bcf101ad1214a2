"""Tests of the rules for lines of results: which of them is the result of its row."""

from __future__ import annotations

import pytest

from together_batches._protocol.line_rank import ANSWERED_BEFORE, FOREIGN, Rank, id_of_unreadable, stray_reason


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ([Rank.FAILURE, Rank.ANSWER], 1),
        ([Rank.ANSWER, Rank.FAILURE], 0),
        ([Rank.ANSWER, Rank.ANSWER], 0),
        ([Rank.FAILURE, Rank.FAILURE], 0),
        ([Rank.UNREADABLE, Rank.UNREADABLE], 0),
        ([Rank.UNREADABLE, Rank.FAILURE, Rank.UNREADABLE], 1),
        ([Rank.UNREADABLE, Rank.FAILURE, Rank.ANSWER, Rank.UNREADABLE], 2),
    ],
)
def test_the_result_of_a_row(lines: list[Rank], result: int) -> None:
    """An answer takes precedence over an error, both over an unreadable line; of equals the first counts."""
    found, before = -1, Rank.ABSENT
    for place, rank in enumerate(lines):
        if stray_reason(rank, before) is None:
            found, before = place, rank
        else:
            assert stray_reason(rank, before) == ANSWERED_BEFORE
    assert found == result


@pytest.mark.parametrize("rank", list(Rank))
def test_a_line_of_no_request(rank: Rank) -> None:
    """A line whose id is that of no request is a stray, whatever it says."""
    assert stray_reason(rank, None) == FOREIGN


def test_the_id_of_an_unreadable_line() -> None:
    """An unreadable line belongs to the row that it names, unless it was cut where more of it may follow."""
    text = b'{"custom_id": "a", "response": {"body": {"x": "'
    assert id_of_unreadable(text, whole=True, ended=True) == "a"
    assert id_of_unreadable(text, whole=True, ended=False) is None
    assert id_of_unreadable(text, whole=False, ended=False) == "a"
    assert id_of_unreadable(b"<html>", whole=True, ended=True) is None
