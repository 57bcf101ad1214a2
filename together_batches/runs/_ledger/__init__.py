"""The ledger of a run in SQLite: one file in the run's directory.

A ledger appears under its name only after it has been read back in full, and is then either trusted or rejected: one
that cannot be read is never taken for an empty one, because its jobs would be paid for again.

Only SQLite opens the file, because closing any other handle would drop SQLite's locks
(https://www.sqlite.org/howtocorrupt.html, 2.2). It has a rollback journal and no write-ahead log, so that committed
data is in this one file, whatever happens to the files beside it.
"""

from together_batches.runs._ledger.connection import NAME
from together_batches.runs._ledger.creation import create
from together_batches.runs._ledger.reading import read
from together_batches.runs._ledger.schema import VERSION
from together_batches.runs._ledger.sqlite_ledger import SqliteLedger, note_delivery, opened

__all__ = ["NAME", "VERSION", "SqliteLedger", "create", "note_delivery", "opened", "read"]
