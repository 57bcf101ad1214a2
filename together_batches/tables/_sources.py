"""Tables from files, and from results as they come."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from together_batches._local.os_errors import explained
from together_batches._validation import path_of
from together_batches.errors import UsageError
from together_batches.tables._rows import rows_of_file, rows_of_results
from together_batches.tables._table import AnswerTable

if TYPE_CHECKING:
    import os

    from together_batches._protocol.result_rows import ResultRow
    from together_batches._schema.adapters import Schema
    from together_batches.rows import BatchResult
    from together_batches.tables._inputs import InputSource


def read(
    path: str | os.PathLike[str],
    *,
    schema: Schema | None = None,
    requests: InputSource | None = None,
    custom_id: str = "id",
) -> AnswerTable:
    """Return the table of a file of results, as a run or the command ``results`` writes it.

    The file is read anew each time that the table is used. The columns of the ``schema`` hold the answers that fit
    it; a row whose answer does not fit has ``"invalid"`` as its ``result``, and the reason in ``error``.

    Parameters:
        path: the file, JSON Lines.
        schema: a schema of the answers, such as a pydantic model, a dataclass or a JSON schema. It adds a column for
            each member, or the column ``parsed`` if the answers are not objects.
        requests: the input of the results, in the same order, whose columns are added. A file of requests adds
            ``prompt`` and ``request``.
        custom_id: the column of that table with the ids.

    Raises:
        UsageError: the file cannot be read, the schema or the input is invalid, or no Arrow library is installed.
            While the table is used: the input is in another order.
        ValidationError: while the table is used: a line is not a result.
    """
    place = path_of("path", path)
    with explained("read", place):
        place.stat()
    return AnswerTable(
        str(place), partial(rows_of_file, place), schema=schema, requests=requests, custom_id=custom_id
    )


def from_results(results: Iterable[BatchResult[object]], *, schema: Schema | None = None) -> AnswerTable:
    """Return the table of results as they come, such as those of ``Batches.results()``. It can be used once.

    Async code passes its results to :func:`write_parquet` instead.

    Parameters:
        results: the results.
        schema: as in :func:`read`; the values of results that were read by a schema before are taken as they are.

    Raises:
        UsageError: the schema is invalid, or no Arrow library is installed.
    """
    given: object = results
    if isinstance(given, AsyncIterable):
        message = "results of async code cannot be read by a table: use await tables.write_parquet(results, path)"
        raise UsageError(message)
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        message = f"results are an iterable of them, as Batches.results() returns it, not {type(results).__name__}"
        raise UsageError(message)
    left = [results]

    def rows() -> Iterator[list[ResultRow]]:
        if not left:
            message = "this table was used before, and its results come once: write them to a file, and read that"
            raise UsageError(message)
        return rows_of_results(left.pop())

    return AnswerTable("results", rows, schema=schema)
