"""Parquet files from results that come in async code: the file is written in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING

from anyio import EndOfStream, create_memory_object_stream, from_thread, to_thread

from together_batches._jobs.task_group import plain_group
from together_batches._protocol.result_rows import ResultRow, row_of_result
from together_batches.errors import UsageError
from together_batches.tables._rows import RowsTogether
from together_batches.tables._table import AnswerTable, write_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from together_batches._schema.adapters import Schema
    from together_batches.rows import BatchResult


async def write_parquet(
    results: AsyncIterable[BatchResult] | AnswerTable,
    path: str | os.PathLike[str],
    *,
    schema: Schema | None = None,
    overwrite: bool = False,
) -> int:
    """Write results to a Parquet file, in a thread, while they come; return the number of rows.

    The file appears under its name when it is complete.

    Parameters:
        results: the results, such as those of :meth:`AsyncBatches.results`, or a table.
        path: the file to write.
        schema: as in :func:`read`; a table has its own.
        overwrite: replace an existing file.

    Raises:
        UsageError: the file exists and ``overwrite`` is false, the schema is invalid, no Arrow library is installed,
            or something cannot be read or written.
        BatchesError: whatever the results raise.
    """
    given: object = results
    if isinstance(given, AnswerTable):
        if schema is not None:
            message = "a table has a schema of its own: pass it to tables.read()"
            raise UsageError(message)
        return await _write(given, path, overwrite=overwrite)
    if not isinstance(given, AsyncIterable):
        message = f"results are an async iterable of them or a table, not {type(results).__name__}"
        raise UsageError(message)
