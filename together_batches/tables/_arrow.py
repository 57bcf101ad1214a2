"""The library that makes Arrow tables: arro3, or pyarrow if that alone is installed.

Both take columns as lists, and write Parquet by the same settings. arro3 comes first because it has a fifth of the
size of pyarrow, and takes less time and memory for what is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import attrs

from together_batches._local.os_errors import explained
from together_batches._protocol import json_codec
from together_batches.jsonl._arrow import check_parquet, first_installed, open_parquet, translated
from together_batches.tables._columns import ListOf, Record, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from together_batches.tables._columns import Column, Kind

_Make = Callable[..., Any]

COMPRESSION = "zstd"
"""The compression of Parquet files; by default one library would take another and the other none."""
COMPRESSION_LEVEL = 1
_GROUP_BYTES = 16_000_000
_MOST_GROUP_ROWS = 1 << 15
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_MOST_OF_A_FLOAT = 10**308


@attrs.frozen
class Arrow:
    """A library: the functions that it has under a name of its own, and the modules that have the others."""

    core: Any
    parquet: Any
    scalars: Mapping[Scalar, Any]
    offset_type: Any
    list_type: _Make
    struct_type: _Make
    field: _Make
    schema: _Make
    scalar_array: _Make
    list_array: _Make
    struct_array: _Make
    take: Callable[[Any, Sequence[int | None]], Any]
    """Return the values of an array at places, and null for None."""
    write_parquet: Callable[[Any, Iterator[Any], BinaryIO], None]
    """Write batches of a schema to a file."""

    def fields(self, columns: Iterable[Column]) -> list[Any]:
        """Return the fields of columns."""
        return [self.field(column.name, self.type_of(column.kind)) for column in columns]

    def type_of(self, kind: Kind) -> Any:
        """Return the type of the library for one of ours."""
        if isinstance(kind, ListOf):
            return self.list_type(self.field("item", self.type_of(kind.item)))
        if isinstance(kind, Record):
            return self.struct_type(self.fields(kind.members))
        return self.scalars[kind]

    def array(self, kind: Kind, values: Sequence[Any]) -> Any:
        """Return values of JSON as an array; a value that is not of the type becomes null."""
        if isinstance(kind, ListOf):
            lists = [cast("Sequence[Any]", value) if isinstance(value, list | tuple) else None for value in values]
            offsets = [*accumulate([0 if each is None else len(each) for each in lists], initial=0)]
            items = self.array(kind.item, [*chain.from_iterable(filter(None, lists))])
            places = self.scalar_array(offsets, self.offset_type)
            return self.list_array(places, items, type=self.type_of(kind), mask=self._nulls(lists))
        if isinstance(kind, Record):
            objects = [cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None for value in values]
            members = [
                self.array(member.kind, [None if each is None else each.get(member.name) for each in objects])
                for member in kind.members
            ]
            return self.struct_array(members, fields=self.fields(kind.members), mask=self._nulls(objects))
        if kind == "json":
            values = [_as_json(value) for value in values]
        try:
            return self.scalar_array(values, self.scalars[kind])
        except (TypeError, ValueError, OverflowError):
            return self.scalar_array([_fitting(kind, value) for value in values], self.scalars[kind])

    def _nulls(self, values: Sequence[object]) -> Any:
        return self.scalar_array([value is None for value in values], self.scalars["boolean"])

    def batch(self, arrays: Sequence[Any], schema: Any) -> Any:
        """Return arrays as a batch."""
        return self.core.RecordBatch.from_arrays(arrays, schema=schema)

    def reader(self, schema: Any, batches: Iterable[Any]) -> Any:
        """Return a stream of batches, which are made when they are read."""
        return self.core.RecordBatchReader.from_batches(schema, iter(batches))

    def plain_field(self, field: Any) -> Any:
        """Return the field of a column of any table; categories of text, which not every file can hold, are text."""
        return field.with_type(self.scalars["text"]) if _is_category(field.type) else field

    def plain(self, array: Any) -> Any:
        """Return a column of any table, as :meth:`plain_field` describes it."""
        return self.array("text", array.to_pylist()) if _is_category(array.type) else array

    def read_table(self, table: object) -> tuple[Any, Iterator[Any]]:
        """Return the schema and the batches of an object with ``__arrow_c_stream__``, of any library."""
        with translated("read", "the input"):
            reader = self.core.RecordBatchReader.from_stream(table)
        return reader.schema, iter(reader)

    def read_parquet(self, path: Path) -> tuple[Any, Iterator[Any]]:
        """Return the schema and the batches of a Parquet file."""
        with explained("read", path):
            check_parquet(path)
            return open_parquet(self.parquet, path)


def library() -> Arrow:
    """Return the library that is installed; raise :class:`UsageError`, which names the extra, if none is."""
    return first_installed(_arro3, _pyarrow)


def _module(name: str) -> Any:
    return import_module(name)  # typed as little as the less typed of the two


def _arro3() -> Arrow:
    core, io = _module("arro3.core"), _module("arro3.io")
    types = core.DataType
    try:
        core.RecordBatchReader.from_batches(core.Schema([]), iter(()))
    except TypeError as error:
        message = "before 0.9, arro3 holds all batches in memory"
        raise ImportError(message) from error

    def write_parquet(schema: Any, batches: Iterator[Any], file: BinaryIO) -> None:
        # The size of a row group is a number of rows, and the writer holds the group: the first rows decide.
        first = next(batches, None)
        together = [] if first is None else [first]
        rows = max(1, _GROUP_BYTES * first.num_rows // max(first.nbytes, 1)) if first is not None else 1
        io.write_parquet(
            core.RecordBatchReader.from_batches(schema, chain(together, batches)),
            file,
            compression=f"{COMPRESSION}({COMPRESSION_LEVEL})",
            max_row_group_size=min(rows, _MOST_GROUP_ROWS),
        )

    def take(array: Any, places: Sequence[int | None]) -> Any:
        return array.take(core.Array(places, types.int64()))

    return Arrow(
        core=core,
        parquet=io,
        scalars=_scalars(types.utf8(), types.int64(), types.float64(), types.bool()),
        offset_type=types.int32(),
        list_type=types.list,
        struct_type=types.struct,
        field=core.Field,
        schema=core.Schema,
        scalar_array=core.Array,
        list_array=core.list_array,
        struct_array=core.struct_array,
        take=take,
        write_parquet=write_parquet,
    )


def _pyarrow() -> Arrow:
    core, parquet = _module("pyarrow"), _module("pyarrow.parquet")

    def write_parquet(schema: Any, batches: Iterator[Any], file: BinaryIO) -> None:
        with parquet.ParquetWriter(
            file, schema, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL
        ) as writer:
            for group in _groups(batches):
                writer.write_table(core.Table.from_batches(group, schema))
                core.default_memory_pool().release_unused()  # otherwise it keeps several times as much

    def take(array: Any, places: Sequence[int | None]) -> Any:
        try:
            return array.take(core.array(places, core.int64()))
        except core.ArrowNotImplementedError:  # text as frames of polars have it
            null = core.nulls(1, array.type)
            return core.concat_arrays([null if place is None else array.slice(place, 1) for place in places])

    return Arrow(
        core=core,
        parquet=parquet,
        scalars=_scalars(core.string(), core.int64(), core.float64(), core.bool_()),
        offset_type=core.int32(),
        list_type=core.list_,
        struct_type=core.struct,
        field=core.field,
        schema=core.schema,
        scalar_array=core.array,
        list_array=core.ListArray.from_arrays,
        struct_array=core.StructArray.from_arrays,
        take=take,
        write_parquet=write_parquet,
    )


def _is_category(kind: Any) -> bool:
    name = str(kind).lower()
    return "dictionary" in name and ("string" in name or "utf8" in name)


def _scalars(text: Any, integer: Any, number: Any, boolean: Any) -> dict[Scalar, Any]:
    return {"text": text, "json": text, "integer": integer, "number": number, "boolean": boolean}


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield batches that are one row group together."""
    group: list[Any] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _MOST_GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group.clear()  # in place, so that no other name keeps it while the next one is made
            rows = size = 0
    if group:
        yield group


def _as_json(value: object) -> str | None:
    try:
        return None if value is None else json_codec.encode(value).decode()
    except json_codec.WireError:  # a default of a class may be a NaN
        return None


def _fitting(kind: Scalar, value: object) -> object:
    """Return a value of JSON as one that the type can hold; None if it cannot."""
    if kind in {"text", "json"}:
        # Half of a surrogate pair is text for Python alone.
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if kind == "number":
        return value if isinstance(value, float) or abs(value) < _MOST_OF_A_FLOAT else None
    whole = int(value) if isinstance(value, int) or value.is_integer() else None
    return whole if whole is not None and _SMALLEST <= whole <= _LARGEST else None
