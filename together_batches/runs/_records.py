"""What a ledger holds, as plain values, and what is asked of whatever holds it.

The rules of a run (:mod:`together_batches.runs._rules`) and the engine that follows them know these and no database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import attrs

__all__ = ["Attempt", "Key", "Ledger", "LedgerSnapshot", "Run", "Shard"]

Key = tuple[int, int]
"""An attempt: the number of its shard, and its own."""


@attrs.frozen(kw_only=True)
class Run:
    """What the run is about, and how far it is with its output.

    ``spooled`` says that the input is a copy in the run's directory, since it came from an iterable. ``claims`` are
    the hashes of all that the run has written, or was about to: by them, and not by paths, it knows its own files, so
    that it may be moved, and replaces nothing of anybody else's.
    """

    id: str
    input_name: str
    input_bytes: int
    input_sha256: str
    spooled: bool
    endpoint: str
    model_id: str | None
    priority: int | None
    max_attempts: int
    invalid: int
    started_at: datetime
    finished_at: datetime | None = None
    claims: str = ""


@attrs.frozen(kw_only=True)
class Shard:
    """A range of ``size`` bytes of the input. ``skipped`` are the bad lines within it, as ``packed`` wrote them."""

    number: int
    first_line: int
    rows: int
    offset: int
    size: int
    sha256: str
    skipped: bytes = b""


@attrs.frozen(kw_only=True)
class Attempt:
    """One sending of rows of a shard. Which step it is at shows in which of the times are there.

    ``marked`` says that the file has content that no other file has, so that a job of it is the job of this attempt;
    ``former_file_ids`` are those that it had before ``file_id``, with a space between them. ``posts`` counts the
    creates that may have reached the service, noted before each is sent. ``since`` is the service's own clock when
    the first of them was about to be sent. ``output_bytes`` and ``error_bytes`` are the sizes of the files of results
    as they were collected. ``piece_sha256`` is the hash of the piece that was made of them, empty if none was noted.
    ``outcomes`` has a byte for each row of the attempt, compressed, once its results are here.
    """

    shard: int
    number: int
    rows: int
    planned_at: datetime
    marked: bool = False
    file_id: str | None = None
    former_file_ids: str = ""
    uploaded_at: datetime | None = None
    since: datetime | None = None
    creating_at: datetime | None = None
    posts: int = 0
    job_id: str | None = None
    found: bool = False
    known_at: datetime | None = None
    created_at: datetime | None = None
    warning: str | None = None
    status: str | None = None
    progress: float | None = None
    running_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    output_bytes: int | None = None
    error_bytes: int | None = None
    collected_at: datetime | None = None
    piece_sha256: str = ""
    outcomes: bytes = b""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @property
    def key(self) -> Key:
        """What tells it from all others of the run."""
        return self.shard, self.number

    @property
    def file_ids(self) -> tuple[str, ...]:
        """The inputs that it has had, the present one last."""
        return tuple(self.former_file_ids_with(self.file_id).split())

    def former_file_ids_with(self, file_id: str | None) -> str:
        """``former_file_ids``, with one more if there is one."""
        return f"{self.former_file_ids} {file_id or ''}".strip()


@attrs.frozen
class LedgerSnapshot:
    """All that a ledger holds: the run, its shards in order, and their attempts in order."""

    run: Run
    shards: tuple[Shard, ...]
    attempts: tuple[Attempt, ...] = ()


class Ledger(Protocol):
    """Where the ledger of a run are kept. What is saved is there for good when the call returns.

    Each raises :class:`RunLedgerError` if that cannot be, and :class:`RunInUseError` once another process goes on
    with the run: then nothing more is saved, and so no job is created either.
    """

    async def load(self) -> LedgerSnapshot:
        """All of it, as last saved."""
        ...

    async def save(self, *attempts: Attempt) -> None:
        """Put down attempts as they now are, all of them or none."""
        ...

    async def save_run(self, run: Run) -> None:
        """Put down the run as it now is."""
        ...
