"""The tables of a ledger: a column for each field of its records, and the steps from older versions to this one."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from together_batches._fields import fields_of
from together_batches.runs import rules
from together_batches.runs._records import Attempt, Delivery, LedgerSnapshot, Run, Session, Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UPGRADES = {
    1: """
ALTER TABLE run ADD COLUMN holder INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN marked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN former_file_ids TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN posts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN output_bytes INTEGER;
ALTER TABLE attempt ADD COLUMN error_bytes INTEGER;
UPDATE attempt SET posts = 1 WHERE creating_at IS NOT NULL;
""",
    2: "ALTER TABLE attempt ADD COLUMN piece_sha256 TEXT NOT NULL DEFAULT ''",
    3: """
ALTER TABLE run ADD COLUMN made_of TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN deduped TEXT NOT NULL DEFAULT '';
ALTER TABLE shard ADD COLUMN copies BLOB NOT NULL DEFAULT X'';
ALTER TABLE run ADD COLUMN response_format TEXT;
ALTER TABLE run ADD COLUMN retry_invalid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN retries_invalid INTEGER NOT NULL DEFAULT 0;
""",
    4: """
CREATE TABLE session (
    number INTEGER NOT NULL, began_at TEXT NOT NULL, last_at TEXT NOT NULL, PRIMARY KEY (number)
);
CREATE TABLE delivery (
    message_id TEXT NOT NULL, channel TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (message_id, channel)
);
""",
}
"""Statements that upgrade a ledger of each version to the next. Version 1 recorded a create, but not how often it was
sent: at least once."""
VERSION = len(UPGRADES) + 1

Record = TypeVar("Record", bound=Run | Shard | Attempt | Session | Delivery)


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC)


def _as_it_is(value: Any) -> Any:
    return value


_COLUMNS: dict[object, tuple[str, Callable[[Any], Any]]] = {
    bool: ("INTEGER NOT NULL", bool),
    int: ("INTEGER NOT NULL", _as_it_is),
    int | None: ("INTEGER", _as_it_is),
    float | None: ("REAL", _as_it_is),
    str: ("TEXT NOT NULL", _as_it_is),
    str | None: ("TEXT", _as_it_is),
    bytes: ("BLOB NOT NULL", _as_it_is),
    datetime: ("TEXT NOT NULL", _time),
    datetime | None: ("TEXT", _time),
}
"""How a field of each type is stored and read."""


class Table(Generic[Record]):
    """Table of records, with a column for each of their fields, and ``more`` columns and constraints."""

    def __init__(self, name: str, kind: type[Record], key: str, *more: str) -> None:
        self._name = name
        self._kind = kind
        self._fields = fields_of(kind)
        self._key = key
        self._more = more

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table."""
        columns = [f"{name} {_COLUMNS[field.type][0]}" for name, field in self._fields.items()]
        columns += [*self._more, f"PRIMARY KEY ({self._key})"]
        connection.execute(f"CREATE TABLE {self._name} ({', '.join(columns)})")

    def save(self, connection: sqlite3.Connection, records: Iterable[Record]) -> None:
        """Insert records, or replace those that have the same keys."""
        names = list(self._fields)
        # Not OR REPLACE: of two attempts with the same job it would silently drop the first.
        statement = (
            f"INSERT INTO {self._name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608
            f"ON CONFLICT ({self._key}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}"
        )
        for record in records:
            values = [getattr(record, name) for name in names]
            connection.execute(
                statement, [value.isoformat() if isinstance(value, datetime) else value for value in values]
            )

    def load(self, connection: sqlite3.Connection) -> list[Record]:
        """Return all records, in the order of their keys; none if an older version has no such table."""
        # Fields that an older version lacks keep their defaults.
        present = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [self._name])}
        if not present:
            return []
        reads = {name: _COLUMNS[field.type][1] for name, field in self._fields.items() if name in present}
        rows = connection.execute(f"SELECT {', '.join(reads)} FROM {self._name} ORDER BY {self._key}")  # noqa: S608
        return [
            self._kind(**{name: read(value) for (name, read), value in zip(reads.items(), row, strict=True)})
            for row in rows
        ]


RUN = Table("run", Run, "id", "holder INTEGER NOT NULL DEFAULT 0")
SHARD = Table("shard", Shard, "number")
ATTEMPT = Table(
    "attempt", Attempt, "shard, number", "FOREIGN KEY (shard) REFERENCES shard (number)", "UNIQUE (job_id)"
)
SESSION = Table("session", Session, "number")
DELIVERY = Table("delivery", Delivery, "message_id, channel")


def load_all(connection: sqlite3.Connection) -> LedgerSnapshot:
    """Return all records of one moment; raise :class:`sqlite3.DatabaseError` if some are missing or unreadable."""
    connection.execute("BEGIN")
    try:
        (run,) = RUN.load(connection)
        shards = SHARD.load(connection)
        attempts = ATTEMPT.load(connection)
        sessions = SESSION.load(connection)
        deliveries = DELIVERY.load(connection)
    finally:
        connection.execute("ROLLBACK")
    last = {shard.number: 0 for shard in shards}
    for attempt in attempts:
        last[attempt.shard] = last.get(attempt.shard, -1) + 1
        if attempt.number != last[attempt.shard]:
            raise sqlite3.DatabaseError(f"attempts of shard {attempt.shard} are missing")
        rules.outcomes_of(attempt)
    return LedgerSnapshot(run, tuple(shards), tuple(attempts), tuple(sessions), tuple(deliveries))
