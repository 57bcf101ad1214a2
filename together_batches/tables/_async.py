"""Parquet files from results that come in async code: the file is written in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from anyio import EndOfStream, create_memory_object_stream, from_thread

from together_batches._jobs.tasks import plain_group
from together_batches.errors import UsageError
from together_batches.rows import BatchResult
from together_batches.runs._threads import in_thread
from together_batches.tables._rows import rows_of_results
from together_batches.tables._table import AnswerTable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from together_batches._schema.adapters import Schema

_RESULTS_TOGETHER = 100


async def write_parquet(
    results: AsyncIterable[BatchResult[object]] | AnswerTable,
    path: str | os.PathLike[str],
    *,
    schema: Schema | None = None,
    overwrite: bool = False,
) -> int:
    """Write results to a Parquet file, in a thread, while they come; return the number of rows.

    The file appears under its name when it is complete.

    Parameters:
        results: the results, such as those of :meth:`together_batches.AsyncBatches.results`, or a table.
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
        return await in_thread(lambda check: _written(given, path, overwrite, check))
    if not isinstance(given, AsyncIterable):
        message = f"results are an async iterable of them or a table, not {type(results).__name__}"
        raise UsageError(message)
    send, receive = create_memory_object_stream[list[BatchResult[object]] | None](1)

    def arriving() -> Iterator[BatchResult[object]]:
        while (some := from_thread.run(receive.receive)) is not None:
            yield from some

    def write(check: Callable[[], None]) -> int:
        table = AnswerTable("results", lambda: rows_of_results(arriving()), schema=schema)
        try:
            return _written(table, path, overwrite, check)
        except EndOfStream:  # the results broke off, and their error is raised
            return 0

    with receive:
        async with plain_group() as group:
            writing = group.create_task(in_thread(write))
            with send:
                some: list[BatchResult[object]] = []
                async for result in given:
                    some.append(result)
                    if len(some) >= _RESULTS_TOGETHER:
                        await send.send(some)
                        some = []
                await send.send(some)
                await send.send(None)
    return writing.result()


def _written(table: AnswerTable, path: str | os.PathLike[str], overwrite: bool, check: Callable[[], None]) -> int:
    return table.write_parquet(path, overwrite=overwrite, on_progress=lambda _: check())
