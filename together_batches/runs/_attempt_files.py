"""The files of an attempt, wherever they are kept: the name and the mark of its upload, and its ordered results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from together_batches._jobs.upload_source import has_room
from together_batches._protocol.upload_marks import place_in, sendable, tagged_name
from together_batches.models import BatchJobStatus
from together_batches.runs import rules
from together_batches.runs._joining import Arranged, arrange

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from pathlib import Path

    from together_batches._local.atomic_file import AtomicFile
    from together_batches._protocol.upload_marks import Mark
    from together_batches._schema.adapters import SchemaAdapter
    from together_batches.runs._records import Attempt

_LONGEST_STEM = 40
"""Maximum characters of the input's name in the names of uploads, whose length the service limits."""


def file_name(attempt: Attempt) -> str:
    """Return the name of a file of an attempt, without its suffix."""
    return f"{attempt.shard:05}-{attempt.number}"


def upload_name(stem: str, attempt: Attempt, mark: Mark | None) -> str:
    """Return the name under which the rows of an attempt are uploaded, from an input whose name is ``stem``."""
    name = f"{sendable(stem)[:_LONGEST_STEM]}-{file_name(attempt)}.jsonl"
    return name if mark is None else tagged_name(name, mark)


def with_mark(rows: bytes, mark: Mark) -> bytes | None:
    """Return rows, the first of them whole, with the mark in it; None if it has no room for that."""
    place = place_in(rows)
    if place is None or not has_room(rows, place):
        return None
    return rows[:place] + mark.white_space + rows[place:]


def write_piece(
    piece: AtomicFile,
    attempt: Attempt,
    custom_ids: Sequence[str],
    output: Path | None,
    errors: Path | None,
    *,
    settled: Container[str],
    raise_if_cancelled: Callable[[], None],
    schema: SchemaAdapter[Any] | None = None,
) -> Arranged:
    """Write the results of an attempt in the order of its rows; ``settled`` and ``schema`` as for :func:`arrange`."""
    with piece:
        arranged = arrange(
            custom_ids,
            output,
            errors,
            piece,
            completed=attempt.status == BatchJobStatus.COMPLETED,
            absent=partial(rules.absent, attempt),
            raise_if_cancelled=raise_if_cancelled,
            settled=settled,
            schema=schema,
        )
        piece.commit()
    return attrs.evolve(arranged, piece_sha256=piece.sha256)
