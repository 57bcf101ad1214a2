"""Records of a ledger, as plain values, and the interface of a ledger.

The rules of a run (:mod:`together_batches.runs.rules`) and the engine depend on these and not on a database.
"""

from __future__ import annotations

import zlib
from array import array
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs

from together_batches._fields import Plain, written
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Key = tuple[int, int]
"""Key of an attempt: the number of its shard, and its own."""


VERSION = 1
"""Version of attempts and shards as plain data."""


class Versioned(Plain):
    """A record that :func:`together_batches.to_dict` writes with its version, without the fields that have defaults.

    Bytes are written as base64.
    """

    __slots__ = ()

    def __to_dict__(self) -> dict[str, Any]:
        names = [
            field.name
            for field in attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
            if getattr(self, field.name) != field.default
        ]
        values = {name: getattr(self, name) for name in names}
        return {
            "version": VERSION,
            **{
                name: b64encode(value).decode() if isinstance(value, bytes) else written(value)
                for name, value in values.items()
            },
        }


@attrs.frozen(kw_only=True)
class Run:
    """Input and settings of a run, and the state of its output.

    ``spooled`` means that the input is a copy in the run's directory, because it came from an iterable or an open
    file. ``claims`` are the hashes of all outputs that the run has written, or was about to write: it recognises its
    own files by them and not by paths, so that it can be moved and never replaces other files. ``made_of`` is the
    fingerprint, as JSON, of requests that were made of a table. ``deduped`` are the hashes of the files that the rows
    are sent from if equal ones are sent once, and empty otherwise. ``response_format`` is that of the schema as first
    sent, as JSON, None without a schema.
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
    made_of: str = ""
    deduped: str = ""
    response_format: str | None = None
    retry_invalid: bool = False


@attrs.frozen(kw_only=True)
class Shard(Versioned):
    """A range of the input, whose rows are sent in one job: ``size`` bytes from ``offset`` on.

    ``number`` counts from 1, ``first_line`` is the line in which it begins, ``sha256`` the hash of its rows.
    ``skipped`` are the bad lines within it, compressed. ``copies`` has the number of rows of the input for which each
    row is sent, compressed; it is empty if that is one for each.
    """

    number: int
    first_line: int
    rows: int
    offset: int
    size: int
    sha256: str
    skipped: bytes = b""
    copies: bytes = b""


@attrs.frozen(kw_only=True)
class Attempt(Versioned):
    """One sending of rows of a shard, in a job of their own. The times that are set show its step.

    ``shard`` and ``number`` count from 1: they are the key of the attempt.
    ``marked`` means that no other file has the same content, so that a job of the file is the job of this attempt;
    ``former_file_ids`` are the file ids before ``file_id``, separated by spaces. ``posts`` counts the creates that
    may have reached the service, recorded before each is sent. ``since`` is the service's own clock immediately
    before the first of them. ``output_bytes`` and ``error_bytes`` are the sizes of the files of results when they
    were collected. ``piece_sha256`` is the hash of the piece made from them, empty if none was recorded. ``outcomes``
    has a byte for each row of the attempt, compressed, once its results are collected. ``retries_invalid`` means that
    it contains the rows whose answers were invalid, too.
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
    retries_invalid: bool = False

    @property
    def key(self) -> Key:
        """Key of the attempt, unique within the run."""
        return self.shard, self.number

    @property
    def file_ids(self) -> tuple[str, ...]:
        """Ids of all its input files, the current one last."""
        return tuple(self.former_file_ids_with(self.file_id).split())

    def former_file_ids_with(self, file_id: str | None) -> str:
        """Return ``former_file_ids`` with ``file_id`` appended, if there is one."""
        return f"{self.former_file_ids} {file_id or ''}".strip()


@attrs.frozen(kw_only=True)
class Session:
    """The time for which a process held the run: ``number`` is its holder number.

    ``last_at`` is when it let the run go or, if it was killed, when it recorded something last.
    """

    number: int
    began_at: datetime
    last_at: datetime


@attrs.frozen(kw_only=True)
class Delivery:
    """A notification of the run, with the id ``message_id``, that the command has delivered by a channel."""

    message_id: str
    channel: str
    at: datetime


def check_order(shard: int, attempts: Iterable[Attempt], *, gaps: bool = False) -> None:
    """Raise :class:`UsageError` unless these are attempts at a shard in order, from the first on if without ``gaps``.

    Sorted by the names of their files, attempt 10 comes before attempt 2; rows that were answered would then be sent,
    and paid for, again, or be missing from the results.
    """
    before = 0
    for attempt in attempts:
        number = attempt.number
        if attempt.shard != shard or number <= before or not (gaps or number == before + 1):
            message = (
                f"attempt {number} of shard {attempt.shard} cannot follow attempt {before} of shard {shard}: pass "
                "all attempts at one shard, in the order of their numbers"
            )
            raise UsageError(message)
        before = number


@attrs.frozen
class LedgerSnapshot:
    """Content of a ledger: the run, its shards in order, their attempts in order, and delivered notifications.

    ``sessions`` are those of all processes, none from before they were recorded; they are not part of equality.
    """

    run: Run
    shards: tuple[Shard, ...]
    attempts: tuple[Attempt, ...] = ()
    sessions: tuple[Session, ...] = attrs.field(default=(), eq=False)
    deliveries: tuple[Delivery, ...] = ()


class Ledger(Protocol):
    """Storage of a run's ledger. Each save is durable when the call returns.

    Each method raises :class:`RunLedgerError` if it fails, and :class:`RunInUseError` once another process has taken
    over the run: then nothing more is saved, and so no job is created either.
    """

    async def load(self) -> LedgerSnapshot:
        """Return the whole ledger, as last saved."""
        ...

    async def save(self, *attempts: Attempt) -> None:
        """Save attempts, all of them or none."""
        ...

    async def save_run(self, run: Run) -> None:
        """Save the run."""
        ...


def packed(numbers: bytes | Sequence[int]) -> bytes:
    """Compress outcomes or line numbers for the ledger; nearly all are alike, so they take little space."""
    return zlib.compress(numbers if isinstance(numbers, bytes) else array("I", numbers).tobytes())


def unpacked(kept: bytes) -> Sequence[int]:
    """Return the line numbers that were packed."""
    numbers = array("I")
    if kept:
        numbers.frombytes(zlib.decompress(kept))
    return numbers
