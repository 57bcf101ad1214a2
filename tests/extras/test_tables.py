"""Tables of answers, made by each library, and read by others."""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal  # noqa: TC003  # read by the schema
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import BatchFailure, BatchMissing, BatchSuccess, UsageError, ValidationError, jsonl, tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from together_batches.rows import BatchResult

pytest.importorskip("arro3.core")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pl = pytest.importorskip("polars")
pd = pytest.importorskip("pandas")
pydantic = pytest.importorskip("pydantic")

TEXTS = ["The Elbe.", "half \ud83d", "10¹⁰⁰", None]
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "population": {"type": ["integer", "null"]},
        "share": {"type": "number"},
        "is_capital": {"type": "boolean"},
        "rivers": {"type": "array", "items": {"type": "string"}},
        "place": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}},
        "twins": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "notes": {"type": "object"},
        "text": {"type": "string"},
    },
    "required": ["name"],
}


@pytest.fixture(params=["arro3", "pyarrow"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make tables with each of the two libraries."""
    if request.param == "pyarrow":
        monkeypatch.setitem(sys.modules, "arro3.core", None)
    return str(request.param)


def answered(custom_id: str, text: object, **more: object) -> dict[str, object]:
    message = {"content": text if text is None or isinstance(text, str) else json.dumps(text)}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}, **more}
    return {"custom_id": custom_id, "result": "success", "body": body, "status_code": 200}


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Return a file of seven results."""
    rows = [answered(str(number), text) for number, text in enumerate(TEXTS)]
    rows.append({"custom_id": "4", "result": "failure", "code": "timeout", "message": "too slow"})
    rows.append({"custom_id": "5", "result": "missing"})
    rows.append({"custom_id": "9", "result": "stray", "reason": "of no request"})
    return written(tmp_path / "answers.jsonl", rows)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_in(table: tables.AnswerTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.table(table).to_pylist()
    return rows


# --- the columns --------------------------------------------------------------------------------------------------


def test_the_columns(answers: Path) -> None:
    """A table has a row for each line, in order, and nulls for what a result does not have."""
    table = pa.table(tables.read(answers))
    assert table.column_names == [
        *("custom_id", "result", "text", "finish_reason"),
        *("prompt_tokens", "completion_tokens", "error_code", "error"),
    ]
    assert table["result"].to_pylist() == [*["success"] * 4, "failure", "missing", "stray"]
    assert table["text"].to_pylist() == ["The Elbe.", "half ?", "10¹⁰⁰", None, None, None, None]
    assert table["prompt_tokens"].to_pylist() == [5, 5, 5, 5, None, None, None]
    assert table["error_code"].to_pylist()[4:] == ["timeout", None, None]
    assert table["error"].to_pylist()[4:] == ["too slow", None, "of no request"]


def test_the_members_of_a_schema_are_columns(tmp_path: Path) -> None:
    """Lists are lists, objects are records, and what may be anything is JSON as text."""
    prague = {
        "name": "Prague",
        "population": 1357326,
        "share": 1,
        "is_capital": True,
        "rivers": ["Vltava"],
        "place": {"x": 14.4, "y": 50.1},
        "twins": [{"name": "Berlin"}, {"name": "Chicago"}],
        "notes": {"motto": ["Praga Caput Rei publicae"]},
        "text": "golden",
    }
    path = written(tmp_path / "answers.jsonl", [answered("a", prague), answered("b", {"name": "Brno"})])
    first, second = rows_in(tables.read(path, schema=CITY))
    assert {
        name: first[name] for name in ("name", "population", "share", "is_capital", "rivers", "place", "twins")
    } == {name: prague[name] for name in ("name", "population", "share", "is_capital", "rivers", "place", "twins")}
    assert json.loads(first["notes"]) == prague["notes"]
    assert first["answer_text"] == "golden"
    assert [second[name] for name in ("name", "population", "rivers", "place", "notes")] == ["Brno", *[None] * 4]


def test_answers_of_a_model(tmp_path: Path) -> None:
    """A column of a pydantic model has the parsed values, with defaults; a bad answer is invalid and costs no row."""

    class Label(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        value: str
        score: float = 0.5

    path = written(tmp_path / "answers.jsonl", [answered("a", {"value": "good"}), answered("b", "no label")])
    good, bad = rows_in(tables.read(path, schema=Label))
    assert (good["value"], good["score"]) == ("good", 0.5)
    assert (bad["result"], bad["error"], bad["value"]) == ("invalid", "the answer is not JSON", None)


def test_names_and_types_of_a_model(tmp_path: Path) -> None:
    """Columns are named as the model writes its members, and have the types that it writes."""

    class Label(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        value: str = pydantic.Field(serialization_alias="label")
        score: Decimal = pydantic.Field(validation_alias="points")
        loose: dict[str, float]

    answer = {"value": "good", "points": 1.5, "loose": {"x": float("nan")}}
    path = written(tmp_path / "answers.jsonl", [answered("a", answer), answered("b", {**answer, "loose": {"x": 1}})])
    first, second = rows_in(tables.read(path, schema=Label))
    assert [row["label"] for row in (first, second)] == ["good", "good"]
    assert [row["score"] for row in (first, second)] == ["1.5", "1.5"]
    # JSON cannot hold NaN, and a value that a column cannot hold is null.
    assert (first["loose"], second["loose"]) == (None, '{"x":1.0}')


def test_answers_that_are_no_objects(tmp_path: Path) -> None:
    """If the schema is that of a list, there is one column, ``parsed``."""
    path = written(tmp_path / "answers.jsonl", [answered("a", [1, 2])])
    (row,) = rows_in(tables.read(path, schema=pydantic.TypeAdapter(list[int])))
    assert row["parsed"] == [1, 2]


def test_values_that_a_type_cannot_hold(tmp_path: Path) -> None:
    """A value that fits the schema and not the type is null: an integer of more than 64 bits; 3.0 is an integer."""
    path = written(
        tmp_path / "answers.jsonl", [answered(str(n), {"name": "", "population": n}) for n in (2**64, 3.0)]
    )
    assert [row["population"] for row in rows_in(tables.read(path, schema=CITY))] == [None, 3]


# --- joined with the input ----------------------------------------------------------------------------------------


def frame(**more: object) -> Any:
    """Return the input of the answers, with a row that has no result."""
    return pl.DataFrame({"id": [0, 1, 2, 3, 7, 4, 5], "city": list("abcdefg"), **more})


def joined(table: tables.AnswerTable, column: str = "city") -> list[Any]:
    return [row[column] for row in rows_in(table)]


CITIES = ["a", "b", "c", "d", "f", "g", None]
"""The input beside the answers: its fifth row has no result, and the last result belongs to none."""


def test_a_frame_is_joined(answers: Path) -> None:
    """The columns of the input are beside those of its results, by the column of ids; the table can be read again."""
    lists = pl.Series([[name, None] for name in "abcdefg"])
    categories = pl.Series(list("uvuvuvu"), dtype=pl.Categorical)
    table = tables.read(answers, requests=frame(text=range(7), lists=lists, kind=categories))
    assert joined(table) == joined(table) == CITIES
    assert joined(table, "input_text") == [0, 1, 2, 3, 5, 6, None]
    assert joined(table, "lists")[-2:] == [["g", None], None]
    assert joined(table, "kind") == ["u", "v", "u", "v", "v", "u", None]


def test_a_frame_of_pandas(answers: Path, tmp_path: Path) -> None:
    """So are those of a frame of pandas, with another name for the ids."""
    table = tables.read(answers, requests=frame().to_pandas().rename(columns={"id": "key"}), custom_id="key")
    assert table.write_parquet(tmp_path / "answers.parquet") == 7
    assert pd.read_parquet(tmp_path / "answers.parquet")["city"].tolist()[:6] == CITIES[:6]


def test_a_frame_whose_own_library_needs_pyarrow(answers: Path) -> None:
    """The error names pyarrow, by which pandas exports its frames, as for a table that requests are made of."""

    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            message = "`Import pyarrow` failed."
            raise ImportError(message)

    with pytest.raises(UsageError, match=r"^the input needs pyarrow, .*: pip install pyarrow$"):
        tables.read(answers, requests=Frame())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_file_of_a_table(answers: Path, tmp_path: Path, kind: str) -> None:
    """A CSV or Parquet file is such a table."""
    path = tmp_path / f"cities.{kind}"
    getattr(frame(), f"write_{kind}")(path)
    assert joined(tables.read(answers, requests=path)) == CITIES


def test_requests_of_a_table(answers: Path) -> None:
    """Requests made of a table stand for it, and know the column of its ids."""
    cities = frame().rename({"id": "key"})
    requests = jsonl.requests(cities, prompt="Where is {city}?", model="m", custom_id="key")
    assert joined(tables.read(answers, requests=requests)) == CITIES


def test_a_file_of_requests(answers: Path, tmp_path: Path) -> None:
    """A file of requests adds what the user wrote, and the whole request; bad lines have no result."""
    message = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where?"}]
    rows = [{"custom_id": str(number), "body": {"model": "m", "messages": message}} for number in range(5)]
    rows[4]["body"] = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]}
    path = written(tmp_path / "requests.jsonl", [rows[0], {"bad": 1}, *rows[1:], {**rows[0], "custom_id": "5"}])
    table = tables.read(answers, requests=path)
    assert joined(table, "prompt") == [*["Where?"] * 4, None, "Where?", None]
    assert json.loads(joined(table, "request")[4]) == rows[4]["body"]


def test_a_long_input_is_read_in_parts(tmp_path: Path) -> None:
    """Rows are found across the borders of the parts in which both tables are read."""
    ids = [str(number) for number in range(5000)]
    kept = [name for name in ids if not name.endswith("7")]
    path = written(tmp_path / "answers.jsonl", [{"custom_id": name, "result": "missing"} for name in kept])
    table = tables.read(path, requests=pl.DataFrame({"id": ids, "same": ids}))
    assert joined(table, "same") == kept


@pytest.mark.parametrize(
    ("requests", "problem"),
    [
        (
            pl.DataFrame({"key": ["0"]}),
            "the input has no column 'id' with the ids; custom_id= names",
        ),
        (pl.DataFrame({"id": ["0", "2", "1"]}), "the input has no row '2' after '1'"),
        (pl.DataFrame({"id": [0.0]}), "the input has 0.0 in the column of its ids"),
        (pl.DataFrame({"id": pl.Series([None], dtype=pl.String)}), "the input has None in the column of its ids"),
        ([{"id": "0"}], "requests is the path of a file, a frame .*, not list: the columns need types"),
        (
            jsonl.requests([{"id": "0"}], prompt="{id}", model="m"),
            "or what jsonl.requests made of one of these, not requests made of list",
        ),
    ],
)
def test_an_input_that_cannot_be_joined(answers: Path, tmp_path: Path, requests: Any, problem: str) -> None:
    """An input of other rows, in another order, or without its ids is an error, and no file appears."""
    with pytest.raises(UsageError, match=problem):
        tables.read(answers, requests=requests).write_parquet(tmp_path / "answers.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl"]


# --- Parquet ------------------------------------------------------------------------------------------------------


def test_the_file(answers: Path, tmp_path: Path) -> None:
    """Both libraries write the same rows and types, compressed by zstd."""
    path = tmp_path / "answers.parquet"
    table = tables.read(answers, schema=CITY, requests=frame())
    assert table.write_parquet(path) == 7
    file = pq.ParquetFile(path)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read().to_pylist() == rows_in(table)


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    """A row group has about 16 MB, so that its writer holds no more."""
    path = written(tmp_path / "answers.jsonl", [answered(str(number), "x" * 100_000) for number in range(400)])
    tables.read(path).write_parquet(tmp_path / "answers.parquet")
    metadata = pq.ParquetFile(tmp_path / "answers.parquet").metadata
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sum(rows) == 400
    assert all(140 <= count <= 180 for count in rows[:-1])


def test_no_rows(tmp_path: Path) -> None:
    """A table without rows has its columns."""
    (tmp_path / "answers.jsonl").write_bytes(b"")
    assert tables.read(tmp_path / "answers.jsonl").write_parquet(tmp_path / "answers.parquet") == 0
    assert pl.read_parquet(tmp_path / "answers.parquet").shape == (0, 8)


def test_an_existing_file_is_left_alone(answers: Path, tmp_path: Path) -> None:
    """An existing file is replaced only on request."""
    path = tmp_path / "answers.parquet"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        tables.read(answers).write_parquet(path)
    assert path.read_bytes() == b"mine"
    assert tables.read(answers).write_parquet(path, overwrite=True) == 7


def test_a_line_that_is_no_result(answers: Path, tmp_path: Path) -> None:
    """A line that is not a result is named, and there is no file, whole or not."""
    answers.write_bytes(answers.read_bytes() + b'\n{"custom_id": "a", "body": {"model": "m"}}\n')
    with pytest.raises(ValidationError, match="line 9 is a request instead of a result") as caught:
        tables.read(answers).write_parquet(tmp_path / "answers.parquet")
    assert caught.value.problems == ("line 9 is a request instead of a result",)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_disk_that_is_full(answers: Path) -> None:
    """A file that cannot be written is an error of the package, and nothing is printed."""
    with pytest.raises(UsageError, match="cannot write"):
        tables.read(answers).write_parquet("/dev/full")


def test_progress(answers: Path, tmp_path: Path) -> None:
    """Progress is the number of rows; an exception from it ends the call, as it is."""
    seen: list[int] = []
    tables.read(answers).write_parquet(tmp_path / "answers.parquet", on_progress=seen.append)
    assert seen == [7]

    def stop(_: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        tables.read(answers).write_parquet(tmp_path / "others.parquet", on_progress=stop)
    assert not (tmp_path / "others.parquet").exists()


# --- results as they come -----------------------------------------------------------------------------------------

RESULTS: list[BatchResult] = [
    BatchSuccess("a", {"choices": [{"message": {"content": '{"name": "Prague"}'}}]}),
    BatchFailure("b", "timeout", "too slow"),
    BatchMissing("c"),
]


def test_results_of_a_stream() -> None:
    """Results are read once, in order."""
    table = tables.from_results(iter(RESULTS), schema=CITY)
    assert [(row["custom_id"], row["result"], row["name"]) for row in rows_in(table)] == [
        ("a", "success", "Prague"),
        ("b", "failure", None),
        ("c", "missing", None),
    ]
    with pytest.raises(Exception, match="was used before"):
        pa.table(table)


@pytest.mark.parametrize("results", [3, "text", {}])
def test_what_are_no_results(results: Any) -> None:
    """Anything but an iterable of results is refused."""
    with pytest.raises(UsageError, match="results are an iterable"):
        tables.from_results(results)


async def arriving(results: list[BatchResult]) -> AsyncIterator[BatchResult]:
    for result in results:
        await asyncio.sleep(0)
        yield result


async def test_results_of_async_code(answers: Path, tmp_path: Path) -> None:
    """Async results are written while they come, as are tables; only the former are refused by ``from_results``."""
    path = tmp_path / "answers.parquet"
    assert await tables.write_parquet(arriving(RESULTS * 500), path, schema=CITY) == 1500
    assert pl.read_parquet(path)["name"].drop_nulls().len() == 500
    assert await tables.write_parquet(tables.read(answers), path, overwrite=True) == 7
    with pytest.raises(UsageError, match="a table has a schema of its own"):
        await tables.write_parquet(tables.read(answers), path, schema=CITY)
    with pytest.raises(UsageError, match="use await tables"):
        tables.from_results(arriving([]))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="results are an async iterable"):
        await tables.write_parquet(RESULTS, path)  # type: ignore[arg-type]


async def test_results_that_break_off(tmp_path: Path) -> None:
    """An error of the results is raised as it is, and there is no file."""

    async def broken() -> AsyncIterator[BatchResult]:
        yield RESULTS[0]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await tables.write_parquet(broken(), tmp_path / "answers.parquet")
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240


async def test_a_file_that_cannot_be_written_ends_the_results(tmp_path: Path) -> None:
    """An error of the file is raised while results still come."""

    async def endless() -> AsyncIterator[BatchResult]:
        while True:
            await asyncio.sleep(0)
            yield RESULTS[0]

    (tmp_path / "answers.parquet").touch()
    with pytest.raises(UsageError, match="exists already"):
        await tables.write_parquet(endless(), tmp_path / "answers.parquet")


async def test_a_cancelled_call_leaves_no_file(tmp_path: Path) -> None:
    """A cancelled call has ended its thread, and there is no file."""
    begun = asyncio.Event()

    async def waiting() -> AsyncIterator[BatchResult]:
        for _ in range(500):
            yield RESULTS[0]
        begun.set()
        await asyncio.Event().wait()
        yield RESULTS[0]

    task = asyncio.create_task(tables.write_parquet(waiting(), tmp_path / "answers.parquet"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240


# --- other libraries ----------------------------------------------------------------------------------------------


def test_a_table_is_read_by_frames(answers: Path) -> None:
    """Polars and pandas read a table without a file."""
    table = tables.read(answers)
    assert pl.DataFrame(table)["result"].value_counts().height == 4
    assert pa.schema(table).names == pl.DataFrame(table).columns
    if hasattr(pd.DataFrame, "from_arrow"):
        assert len(pd.DataFrame.from_arrow(table)) == 7
    assert repr(table) == f"<AnswerTable of {answers}>"
