"""Creation of a ledger: complete and read back, or not at all."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from together_batches._local.replace import created
from together_batches.errors import RunLedgerError
from together_batches.runs._ledger.advice import explained
from together_batches.runs._ledger.connection import (
    APPLICATION,
    JOURNALS,
    NAME,
    PAGE_BYTES,
    check,
    connected,
    make_durable,
    sync_directory,
    transaction,
)
from together_batches.runs._ledger.schema import ATTEMPT, DELIVERY, RUN, SESSION, SHARD, VERSION, load_all
from together_batches.runs._records import LedgerSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from together_batches.runs._records import Run, Shard


def create(directory: Path, run: Run, shards: Iterable[Shard]) -> None:
    """Create a ledger that contains all of this, or none."""
    snapshot = LedgerSnapshot(run, tuple(shards))
    with explained(directory, "written"):
        _refuse_journals(directory)
        part = directory / f".{NAME}.{secrets.token_hex(8)}.part"
        _remove_parts(directory)
        try:
            created(part).close()  # before SQLite creates it, with the default permissions
            with closing(connected(part, "mode=rw")) as connection:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                make_durable(directory, connection)
                with transaction(connection):
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                    for table in (RUN, SHARD, ATTEMPT, SESSION, DELIVERY):
                        table.create(connection)
                    RUN.save(connection, [run])
                    SHARD.save(connection, snapshot.shards)
            with closing(connected(part, "mode=ro")) as connection:
                check(part, connection)
                if load_all(connection) != snapshot:
                    raise sqlite3.DatabaseError("what was written is not what is read back")
            part.replace(directory / NAME)
            sync_directory(directory)
        finally:
            _remove_parts(directory)


def _refuse_journals(directory: Path) -> None:
    """Reject a journal of an earlier ledger, which SQLite would apply to the new one."""
    for end in (*JOURNALS, "-shm"):
        left = directory / f"{NAME}{end}"
        if end in JOURNALS and left.exists() and left.stat().st_size:
            message = (
                f"{directory} holds {left.name} and no {NAME}: put it back, or begin a new run in another directory; "
                "all its jobs would be created again"
            )
            raise RunLedgerError(message, directory=str(directory))
        left.unlink(missing_ok=True)


def _remove_parts(directory: Path) -> None:
    for left in directory.glob(f".{NAME}.*.part*"):
        left.unlink(missing_ok=True)
