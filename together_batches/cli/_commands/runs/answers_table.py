"""The Parquet file that ``run`` makes of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._local.replace import check_replaceable, exists_already
from together_batches.cli._inputs.local_files import has_run
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from together_batches._protocol.result_rows import ResultRow
    from together_batches._schema.adapters import Schema
    from together_batches.jsonl import TableRequests

_MARK = "together_batches.run"
"""The entry of a file's metadata with the id of the run that it was made of."""


def is_parquet(path: Path) -> bool:
    """Return whether an output is to be a Parquet file."""
    return path.suffix.lower() == ".parquet"


class RunTable:
    """A Parquet file beside the lines of a run, and made of them when the run has all.

    It is made again by each call, which replaces the file of the same run; another file only on request.
    """

    def __init__(self, path: Path, directory: Path, *, overwrite: bool) -> None:
        self.path = path
        self.lines = path.with_name(f"{path.name}.jsonl")
        self._directory = directory
        self._overwrite = overwrite

    def check(self, requests: TableRequests | None, schema: Schema | None) -> None:
        """Raise :class:`UsageError`, before anything is paid for, if the file cannot be written or has no columns."""
        from together_batches.tables import AnswerTable

        AnswerTable(str(self.lines), list[list["ResultRow"]]().__iter__, schema=schema, requests=requests)
        check_replaceable(self.path)
        if self.path.exists() and not self._overwrite and self._run_of_file() != self._run_id():
            raise exists_already(self.path)

    async def write(self, requests: TableRequests | None, schema: Schema | None) -> None:
        """Write the file, with the columns of a schema, and those of the table that the requests were made of."""
        from together_batches import tables
        from together_batches.runs._threads import in_thread

        def write(raise_if_cancelled: Callable[[], None]) -> None:
            self.check(requests, schema)  # again, because a file may have appeared meanwhile
            table = tables.read(self.lines, schema=schema, requests=requests)
            mark = {_MARK: self._run_id()}
            table.write_parquet(self.path, overwrite=True, metadata=mark, on_progress=lambda _: raise_if_cancelled())

        await in_thread(write)

    def _run_id(self) -> str:
        from together_batches.runs import _ledger

        return _ledger.read(self._directory).run.id if has_run(self._directory) else "none yet"

    def _run_of_file(self) -> str | None:
        from together_batches.tables import _table

        try:
            return _table.metadata_in(self.path).get(_MARK)
        except BatchesError:  # no Parquet file
            return None
