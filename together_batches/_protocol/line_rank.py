"""Which line of a job's files is the result of a row: one set of rules, for results and for runs.

A row may have several lines, in one file or in two. The first of those with the highest rank is its result, and the
others are strays, like the lines whose ``custom_id`` is that of no request.
"""

from __future__ import annotations

from enum import IntEnum

from together_batches._protocol.json_members import salvaged_id

ANSWERED_BEFORE = "a row with this custom_id came before"
FOREIGN = "its custom_id is not among the requests"


class Rank(IntEnum):
    """Weight of a line as the result of its row.

    An answer is paid for, so it outweighs an error, even if it is invalid: if it does not fit the schema. An answer
    that fits outweighs one that does not. An unreadable line, which belongs to a row only by the ``custom_id`` in its
    text, may be an answer: it outweighs the absence of any line, so that its row is not sent again.
    """

    ABSENT = 0
    UNREADABLE = 1
    FAILURE = 2
    INVALID = 3
    ANSWER = 4


def stray_reason(rank: Rank, before: Rank | None) -> str | None:
    """Return why a line is a stray; None if it is the result of its row, instead of any line before it.

    ``before`` is the rank of the row's result so far, None if there is no such row.
    """
    if before is None:
        return FOREIGN
    return None if rank > before else ANSWERED_BEFORE


def id_of_unreadable(text: bytes, *, whole: bool, ended: bool) -> str | None:
    """Return the ``custom_id`` in the text of an unreadable line, if it has one.

    A line without a line end (not ``ended``) was truncated and proves nothing, because its rest may still appear;
    unless it was too long to be held (not ``whole``), and so is unreadable whatever follows.
    """
    return salvaged_id(text) if ended or not whole else None
