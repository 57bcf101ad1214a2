"""Tables in Arrow's format as rows, read by pyarrow if it is installed, otherwise by arro3 (the extra ``arrow``)."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from together_batches.errors import BatchesError, UsageError
from together_batches.jsonl._columns import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from together_batches.jsonl._columns import Row

ROWS_TOGETHER = 1000
"""Rows that are Python objects at once: a frame in memory may be one batch."""

T = TypeVar("T")


def stream_rows(table: object, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of an object with ``__arrow_c_stream__``, with the columns that are wanted, or all."""
    name = "the table"
    library = first_installed(partial(import_module, "pyarrow"), partial(import_module, "arro3.core"))
    with translated("read", name):
        reader = library.RecordBatchReader.from_stream(table)
    yield from _rows(name, reader, chosen(name, reader.schema.names, wanted))


def parquet_rows(path: Path, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file, with the columns that are wanted, or all."""
    check_parquet(path)  # first, because a missing file is the problem also if no library is installed
    library = first_installed(partial(import_module, "pyarrow.parquet"), partial(import_module, "arro3.io"))
    schema, batches = open_parquet(library, path, wanted)
    yield from _rows(str(path), batches, chosen(str(path), schema.names, wanted))


def open_parquet(library: Any, path: Path, wanted: Sequence[str] | None = None) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches of a Parquet file; ``library`` is ``pyarrow.parquet`` or ``arro3.io``.

    The batches have at least the columns that are wanted, or all. Call :func:`check_parquet` before.
    """
    with translated("read", path):
        if library.__name__ == "arro3.io":
            batches = library.read_parquet(path, batch_size=ROWS_TOGETHER)
            return batches.schema, iter(batches)
        file = library.ParquetFile(path)
        return file.schema_arrow, file.iter_batches(batch_size=ROWS_TOGETHER, columns=wanted)


def check_parquet(path: Path) -> None:
    """Raise :class:`UsageError` for a file that is certainly no Parquet, on which arro3 would report a panic."""
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        if file.read() != b"PAR1":
            message = f"{path} is not a whole Parquet file"
            raise UsageError(message)


def first_installed(*libraries: Callable[[], T]) -> T:
    """Return the result of the first function that finds its library; raise :class:`UsageError` if none does."""
    for library in libraries:
        try:
            return library()
        except ImportError:
            continue
    message = 'no Arrow library is installed: pip install "together_batches[arrow]"'
    raise UsageError(message)


def parts(name: str, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches in small parts."""
    batches = iter(batches)
    while True:
        with translated("read", name):
            batch = next(batches, None)
        if batch is None:
            return
        for start in range(0, batch.num_rows, ROWS_TOGETHER):
            yield batch.slice(start, min(ROWS_TOGETHER, batch.num_rows - start))  # beyond the end arro3 panics


def _rows(name: str, batches: Iterable[Any], columns: list[str]) -> Iterator[Row]:
    for part in parts(name, batches):
        with translated("read", name):
            names: list[str] = part.schema.names
            values = [part.column(names.index(column)).to_pylist() for column in columns]
        for row in zip(*values, strict=True):
            yield dict(zip(columns, row, strict=True))


@contextmanager
def translated(doing: str, what: object) -> Generator[None]:
    """Convert an error of a library to a :class:`UsageError` that says what failed."""
    try:
        yield
    except BatchesError:
        raise
    except BaseException as error:
        # The libraries, and those whose tables they read, share no base, and a panic of arro3 is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # arro3 refuses such a column as polars has it.
        advice = "; give a column of nulls a type, or install pyarrow" if '"Null"' in str(error) else ""
        message = f"cannot {doing} {what}: {error}{advice}"
        if isinstance(error, ImportError):  # pandas exports its frames by pyarrow alone
            message = f"{what} needs pyarrow, because its own library reads it with that: pip install pyarrow"
        raise UsageError(message) from error
