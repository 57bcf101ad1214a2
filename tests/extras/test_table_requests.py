"""Requests of frames and Parquet files, read by pyarrow, and by arro3 where that is missing."""

from __future__ import annotations

import importlib
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import UsageError, ValidationError, jsonl
from together_batches.jsonl import _arrow

pa: Any = pytest.importorskip("pyarrow")
pd: Any = pytest.importorskip("pandas")
pl: Any = pytest.importorskip("polars")
pq: Any = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("arro3.io")

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS: dict[str, list[Any]] = {
    "id": [1, 2, 3],
    "city": ["Paris", "Genève", "{id}"],
    "size": [2.5, 0.2, 1.0],
    "tags": [["a", "b"], [], ["c"]],
}
_TEXTS = ['Paris 2.5 ["a","b"]', "Genève 0.2 []", '{id} 1.0 ["c"]']


@pytest.fixture(params=["pyarrow", "arro3"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that reads tables: arro3 only where pyarrow is missing."""

    def without_pyarrow(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return importlib.import_module(name)

    if request.param == "arro3":
        monkeypatch.setattr(_arrow, "import_module", without_pyarrow)
    return str(request.param)


def _requests(table: Any, prompt: Any = "{city} {size} {tags}", **options: Any) -> jsonl.TableRequests:
    return jsonl.requests(table, prompt=prompt, model="m", **options)


def _texts(requests: jsonl.TableRequests) -> list[str]:
    return [request.body["messages"][-1]["content"] for request in requests]


@pytest.mark.parametrize("kind", ["polars", "pandas", "pyarrow", "batches", "parquet"])
def test_rows_of_frames(kind: str, tmp_path: Path) -> None:
    """The requests, and their fingerprint, are those of the same rows as mappings; frames can be read again."""
    if kind == "polars":
        table = pl.DataFrame(_COLUMNS)
    elif kind == "pandas":
        table = pd.DataFrame(_COLUMNS, index=["x", "y", "z"])
    elif kind == "parquet":
        table = tmp_path / "cities.parquet"
        pl.DataFrame(_COLUMNS).write_parquet(table)
    else:
        table = pa.table(_COLUMNS)
        table = pa.RecordBatchReader.from_stream(table) if kind == "batches" else table
    requests = _requests(table)
    found = list(requests)
    assert [request.custom_id for request in found] == ["1", "2", "3"]
    assert [request.body["messages"][-1]["content"] for request in found] == _TEXTS
    mappings = [dict(zip(_COLUMNS, row, strict=True)) for row in zip(*_COLUMNS.values(), strict=True)]
    assert requests.fingerprint == _requests(mappings).fingerprint
    if kind != "batches":
        assert _texts(requests) == _TEXTS


def test_a_function_gets_all_columns() -> None:
    """As a mapping of Python values."""
    rows: list[Any] = []
    requests = _requests(pl.DataFrame(_COLUMNS), lambda row: rows.append(row) or [{"role": "user", "content": ""}])
    assert len(list(requests)) == 3
    assert rows[0] == {"id": 1, "city": "Paris", "size": 2.5, "tags": ["a", "b"]}


def test_ids_that_a_null_has_made_floats() -> None:
    """Pandas makes floats of integers with a null: they are refused, and so is the null."""
    frame = pd.DataFrame({"id": [1, None], "city": ["a", "b"]})
    with pytest.raises(ValidationError) as caught:
        list(_requests(frame, "{city}"))
    assert caught.value.problems == (
        "row 1, column 'id': the id 1.0 is of type float: an id is text or an integer",
        "row 2, column 'id': the value is null",
    )


def test_values_of_pandas_and_numpy() -> None:
    """A missing value of pandas is a null, and an array of numpy is no id: each is a problem of its row."""
    rows: list[Any] = [
        {"id": pd.NA, "city": "a"},
        {"id": pd.Series([1, 2]).to_numpy(), "city": "b"},
        {"id": 3, "city": pd.NA},
    ]
    with pytest.raises(ValidationError) as caught:
        list(_requests(rows, "{city}"))
    assert caught.value.problems == (
        "row 1, column 'id': the value is null",
        "row 2, column 'id': the id array([1, 2]) is of type ndarray: an id is text or an integer",
        "row 3, column 'city': the value is null",
    )
    assert str(jsonl.validate([{"custom_id": pd.NA, "body": {}}]).problems[0]).endswith(
        "custom_id is NAType, and must be text"
    )


def test_a_column_of_nulls(library: str) -> None:
    """Each is refused, with its row; arro3 cannot read such a column of polars if it has no type."""
    frame = pl.DataFrame({"id": [1, 2], "city": [None, None]})
    with pytest.raises(ValidationError, match="row 1, column 'city': the value is null; 2 problems in all"):
        list(_requests(frame.cast({"city": pl.String}), "{city}"))
    if library == "arro3":
        with pytest.raises(UsageError, match=r"cannot read the table: .*; give a column of nulls a type, or install"):
            list(_requests(frame, "{city}"))


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    """The error lists the columns of the file."""
    path = tmp_path / "cities.parquet"
    pl.DataFrame(_COLUMNS).write_parquet(path)
    with pytest.raises(UsageError) as caught:
        list(_requests(path, "{town}"))
    assert str(caught.value) == f"{path} has no column 'town'; its columns are 'id', 'city', 'size', 'tags'"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and no end", b"PAR1 a broken end \x09\0\0\0PAR1"])
def test_a_broken_parquet_file(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """The error names the file, whatever the library raises."""
    path = tmp_path / "cities.parquet"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        list(_requests(path))
    assert str(path) in str(caught.value)


def test_a_large_frame_is_read_in_parts() -> None:
    """Only some rows are Python objects at once, also if the frame is one batch."""
    rows = 10_000
    frame = pl.DataFrame({"id": range(rows), "city": [f"{number:0200}" for number in range(rows)]})
    requests = iter(_requests(frame, "{city}"))
    next(requests)
    tracemalloc.start()
    try:
        assert sum(1 for _ in requests) == rows - 1
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_without_an_arrow_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""

    def nothing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_arrow, "import_module", nothing)
    with pytest.raises(UsageError) as caught:
        list(_requests(pl.DataFrame(_COLUMNS)))
    assert str(caught.value) == 'no Arrow library is installed: pip install "together_batches[arrow]"'


def test_a_frame_whose_own_library_needs_pyarrow() -> None:
    """Pandas exports its frames by pyarrow alone; the error names it, whatever reads the table."""

    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            message = "`Import pyarrow` failed."
            raise ImportError(message)

    with pytest.raises(UsageError, match=r"^the table needs pyarrow, .*: pip install pyarrow$"):
        list(_requests(Frame()))
