"""Tables in Arrow's format as rows, read by pyarrow if it is installed, otherwise by arro3 (the extra ``arrow``)."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from together_batches.errors import BatchesError, UsageError
from together_batches.jsonl._columns import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from together_batches.jsonl._columns import Row

_ROWS_TOGETHER = 1000
"""Rows that are Python objects at once: a frame in memory may be one batch."""


def stream_rows(table: object, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of an object with ``__arrow_c_stream__``, with the columns that are wanted, or all."""
    name = "the table"
    reader = _reading(name, lambda: _library("pyarrow", "arro3.core").RecordBatchReader.from_stream(table))
    yield from _rows(name, reader, chosen(name, reader.schema.names, wanted))


def parquet_rows(path: Path, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file, with the columns that are wanted, or all."""
    name = str(path)
    check_parquet(path)
    library = _library("pyarrow.parquet", "arro3.io")
    if library.__name__ == "arro3.io":
        reader = _reading(name, lambda: library.read_parquet(path, batch_size=_ROWS_TOGETHER))
        yield from _rows(name, reader, chosen(name, reader.schema.names, wanted))
    else:
        file = _reading(name, lambda: library.ParquetFile(path))
        columns = chosen(name, file.schema_arrow.names, wanted)
        batches = _reading(name, lambda: file.iter_batches(batch_size=_ROWS_TOGETHER, columns=columns))
        yield from _rows(name, batches, columns)


def check_parquet(path: Path) -> None:
    """Raise :class:`UsageError` for a file that is certainly no Parquet, on which arro3 would report a panic."""
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        if file.read() != b"PAR1":
            message = f"{path} is not a whole Parquet file"
            raise UsageError(message)


def _library(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    message = 'this table needs an Arrow library: pip install "together_batches[arrow]"'
    raise UsageError(message)


def _rows(name: str, batches: Iterable[Any], columns: list[str]) -> Iterator[Row]:
    batches = iter(batches)
    while True:
        batch = _reading(name, lambda: next(batches, None))
        if batch is None:
            return
        rows: int = batch.num_rows
        for start in range(0, rows, _ROWS_TOGETHER):
            part = batch.slice(start, min(_ROWS_TOGETHER, rows - start))
            values = _reading(name, partial(_values, part, columns))
            for row in zip(*values, strict=True):
                yield dict(zip(columns, row, strict=True))


def _values(batch: Any, columns: Sequence[str]) -> list[list[Any]]:
    names: list[str] = batch.schema.names
    return [batch.column(names.index(column)).to_pylist() for column in columns]


def _reading(name: str, read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns; an error of either library becomes ours."""
    with translated("read", name):
        return read()


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
