"""A table of results as an Arrow stream, and as a Parquet file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from together_batches._local.atomic_file import AtomicFile
from together_batches._validation import path_of
from together_batches.errors import UsageError
from together_batches.tables._columns import RESULT_COLUMNS, unique

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from together_batches._protocol.result_rows import ResultRow
    from together_batches.tables._answers import Answers
    from together_batches.tables._arrow import Arrow
    from together_batches.tables._inputs import Input


class AnswerTable:
    """A table of results that is made while it is read: an Arrow stream, or a Parquet file.

    Pass it to polars, pandas, pyarrow, DuckDB or another library that reads ``__arrow_c_stream__``.
    """

    def __init__(
        self,
        name: str,
        rows: Callable[[], Iterator[list[ResultRow]]],
        arrow: Arrow,
        *,
        answers: Answers | None,
        requests: Input | None,
    ) -> None:
        self._name = name
        self._rows = rows
        self._arrow = arrow
        self._answers = answers
        self._input = requests
        self._columns = [*RESULT_COLUMNS, *(() if answers is None else answers.columns)]
        fields = arrow.fields(self._columns)
        names = [column.name for column in self._columns]
        for field in () if requests is None else requests.fields:
            names.append(unique(field.name, "input_", names))
            fields.append(field.with_name(names[-1]).with_nullable(True))
        self._schema = arrow.schema(fields)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"

    def __arrow_c_schema__(self) -> object:
        """Return the columns and their types, by the interface of Arrow."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a stream of batches, by the interface of Arrow."""
        return self._arrow.reader(self._schema, self._batches()).__arrow_c_stream__(requested_schema)

    def write_parquet(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write the table to a Parquet file, compressed by zstd; return the number of its rows.

        The file appears under its name when it is complete. Memory holds a part of it, about 16 MB.

        Raises:
            UsageError: the file exists and ``overwrite`` is false, or something cannot be read or written.
            ValidationError: a line is not a result.
        """
        target = path_of("path", path)
        with AtomicFile(target, replace=overwrite) as file:
            output = _Output(file.write)
            try:
                self._arrow.write_parquet(self._schema, output.taken(self._batches()), cast("BinaryIO", output))
            except Exception as error:  # the libraries have no base of their own
                output.error = output.error or UsageError(f"cannot write {target}: {error}")
            if output.error is not None:
                raise output.error
            file.commit()
        return output.rows

    def _batches(self) -> Iterator[Any]:
        merge = None if self._input is None else self._input.opened()
        for rows in filter(None, self._rows()):
            values = [*zip(*rows, strict=True)] if self._answers is None else self._answers.read(rows)
            made = zip(self._columns, values, strict=True)
            arrays = [self._arrow.array(column.kind, each) for column, each in made]
            if merge is None:
                yield self._arrow.batch(arrays, self._schema)
                continue
            start = 0
            for part in merge.beside(rows):
                count = part.num_rows
                yield self._arrow.batch([*(array.slice(start, count) for array in arrays), *part.columns], self._schema)
                start += count


class _Output(io.RawIOBase):
    """What a library writes to, and the batches that it writes.

    After an error in either, no more batches come, and what is written is dropped: the error would become another one
    in the library, or a panic of its thread.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.error: BaseException | None = None
        self.rows = 0

    def taken(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches, and count their rows."""
        try:
            for batch in batches:
                self.rows += batch.num_rows
                yield batch
                if self.error is not None:
                    return
        except BaseException as error:  # noqa: BLE001  # raised when the library has returned
            self.error = error

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        if self.error is None:
            try:
                self._write(bytes(content))
            except BaseException as error:  # noqa: BLE001  # likewise
                self.error = error
        return len(content)
