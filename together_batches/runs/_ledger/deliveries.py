"""Notes of delivered notifications in a ledger: beside the process that holds the run, or after its end."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from together_batches.runs import _lock
from together_batches.runs._ledger.advice import explained
from together_batches.runs._ledger.connection import connected, make_durable, path_in, transaction, version_of
from together_batches.runs._ledger.schema import DELIVERY

if TYPE_CHECKING:
    from pathlib import Path

    from together_batches.runs._records import Delivery


def note_delivery(directory: Path, delivery: Delivery) -> None:
    """Note a delivery, durably. The run may go on meanwhile, unless its file system has no locks."""
    path = path_in(directory)
    with explained(directory, "written"), ExitStack() as stack:
        if not _lock.has_record_locks(directory):
            stack.enter_context(_lock.locked(directory))
        connection = stack.enter_context(closing(connected(path, "mode=rw")))
        version_of(directory, connection)
        make_durable(directory, connection)
        with transaction(connection):
            DELIVERY.save(connection, [delivery])
