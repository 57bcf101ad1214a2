"""A table of results as an Arrow stream, and as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from together_batches._local.atomic_file import AtomicFile
from together_batches._validation import check_callback, path_of
from together_batches.jsonl._arrow import translated
from together_batches.tables._answers import Answers
from together_batches.tables._arrow import library
from together_batches.tables._columns import RESULT_COLUMNS, unique
from together_batches.tables._inputs import Input

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from together_batches._protocol.result_rows import ResultRow
    from together_batches._schema.adapters import Schema
    from together_batches.tables._inputs import InputSource

Rows = Callable[[], Iterator[list["ResultRow"]]]
"""Begin to read the rows of a table."""


class AnswerTable:
    """A table of results that is made while it is read: an Arrow stream, or a Parquet file.

    Pass it to polars, pandas, pyarrow, DuckDB or another library that reads ``__arrow_c_stream__``.
    """

    def __init__(
        self,
        name: str,
        rows: Rows,
        *,
        schema: Schema | None = None,
        requests: InputSource | None = None,
        custom_id: str = "id",
    ) -> None:
        self._name = name
        self._rows = rows
        self._arrow = library()
        self._answers = None if schema is None else Answers(schema)
        self._input = None if requests is None else Input(requests, custom_id, self._arrow)
        self._columns = [*RESULT_COLUMNS, *(() if self._answers is None else self._answers.columns)]
        fields = self._arrow.fields(self._columns)
        names = [column.name for column in self._columns]
        for field in () if self._input is None else self._input.fields:
            names.append(unique(field.name, "input_", names))
            fields.append(field.with_name(names[-1]).with_nullable(True))
        self._schema = self._arrow.schema(fields)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"

    def __arrow_c_schema__(self) -> object:
        """Return the columns and their types, by the interface of Arrow."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a stream of batches, by the interface of Arrow."""
        return self._arrow.reader(self._schema, self._batches()).__arrow_c_stream__(requested_schema)

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Write the table to a Parquet file, compressed by zstd; return the number of its rows.

        The file appears under its name when it is complete. Memory holds a part of it, of about 16 MB.

        Parameters:
            path: the file to write.
            overwrite: replace an existing file.
            metadata: texts about the file, by name, that are written into it.
            on_progress: called now and then with the number of rows so far; an exception from it ends the call.

        Raises:
            UsageError: the file exists and ``overwrite`` is false, or something cannot be read or written.
            ValidationError: a line is not a result.
        """
        target = path_of("path", path)
        check_callback("on_progress", on_progress)
        with AtomicFile(target, replace=overwrite) as file:
            output = _Output(file.write)
            batches = output.taken(self._batches(), on_progress)
            schema = self._schema.with_metadata(dict(metadata)) if metadata else self._schema
            with translated("write", target):
                self._arrow.write_parquet(schema, batches, cast("BinaryIO", output))
            if output.error is not None:
                raise output.error
            file.commit()
        return output.rows

    def _batches(self) -> Iterator[Any]:
        merge = None if self._input is None else self._input.merge()
        for found in filter(None, self._rows()):
            rows, values = (found, []) if self._answers is None else self._answers.read(found)
            facts = list(zip(*rows, strict=True))[: len(RESULT_COLUMNS)]
            columns = zip(self._columns, [*facts, *values], strict=True)
            arrays = [self._arrow.array(column.kind, each) for column, each in columns]
            if merge is None:
                yield self._arrow.batch(arrays, self._schema)
                continue
            start = 0
            for count, beside in merge.beside(rows):
                parts = [array.slice(start, count) for array in arrays]
                yield self._arrow.batch([*parts, *beside], self._schema)
                start += count


def metadata_in(path: Path) -> dict[str, str]:
    """Return the ``metadata`` with which a file was written; raise :class:`UsageError` if it cannot be read."""
    found: dict[bytes, bytes] = library().read_parquet(path)[0].metadata or {}
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in found.items()}


class _Output(io.RawIOBase):
    """What a library writes to, and the batches that it writes.

    After an error in either, no more batches come, and what is written is dropped: the error would become another one
    in the library, or a panic of its thread.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.error: BaseException | None = None
        self.rows = 0

    def taken(self, batches: Iterator[Any], on_progress: Callable[[int], None] | None) -> Iterator[Any]:
        """Yield the batches, and count their rows."""
        try:
            for batch in batches:
                yield batch
                self.rows += batch.num_rows
                if on_progress is not None:
                    on_progress(self.rows)
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
