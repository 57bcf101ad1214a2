"""Tables as rows: mappings and CSV files; tests/extras has frames and Parquet."""

from __future__ import annotations

import csv
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import UsageError
from together_batches.jsonl._tables import check_table, rows_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from together_batches.jsonl import Table


def _csv(directory: Path, content: str | bytes) -> Path:
    path = directory / "cities.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _checked(table: Table, wanted: list[str] | None) -> Iterator[Any]:
    check_table(table)
    return rows_in(table, wanted)


def _refusal(table: Table, wanted: list[str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        list(_checked(table, wanted))
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "id,city\n1,Paris\n2,London\n",
        "id,city\r\n1,Paris\r\n2,London",
        "\ufeffid,city\n\n1,Paris\n\n2,London\n\n",
        '"id","city"\n"1","Paris"\n"2","London"\n',
    ],
    ids=["plain", "as of Windows", "with a byte order mark and blank lines", "in quotes"],
)
def test_a_csv_file_has_a_header_and_rows(tmp_path: Path, content: str) -> None:
    """The values are text; blank lines are not rows."""
    rows = list(rows_in(_csv(tmp_path, content), ["city"]))
    assert rows == [{"id": "1", "city": "Paris"}, {"id": "2", "city": "London"}]


def test_a_value_of_csv_may_have_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    """Within quotes a value is as it is; a quote is written twice."""
    path = _csv(tmp_path, 'id,text\n1,"a, ""b""\r\nc\u2028"\n')
    assert list(rows_in(path, None)) == [{"id": "1", "text": 'a, "b"\r\nc\u2028'}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_file_in_utf_16_is_refused(tmp_path: Path, encoding: str) -> None:
    """The error says how to convert it."""
    path = _csv(tmp_path, "id,city\n1,Paris\n".encode(encoding))
    assert _refusal(path) == (
        f"{path}: the file is UTF-16: save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", " has no column 'id'; its columns are none"),
        (
            "id;city\n1;Paris\n",
            " has no column 'id'; its columns are 'id;city'; the values of a CSV file are separated by commas",
        ),
        ("id,city,id\n1,a,2\n", " has two columns 'id'; its columns are 'id', 'city', 'id'"),
        (
            "id,city\n1\n",
            ": row 1 has 1 value, and the header has 2: put a value with a comma or a line end in quotes",
        ),
        ('id\n1\n"2\n', ": row 2 is not valid CSV: unexpected end of data"),
        ('id\n"1"x\n', ": row 1 is not valid CSV: ',' expected after '\"'"),
        (b"PK\x03\x04", ": the file is a zip archive or a spreadsheet: unpack it, or export it as JSON Lines or CSV"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | bytes, problem: str) -> None:
    """The error names the file, and the row if it is about one."""
    path = _csv(tmp_path, content)
    assert _refusal(path, ["id"]) == f"{path}{problem}"


def test_a_long_value_of_csv_needs_the_limit_of_python_raised(tmp_path: Path) -> None:
    """The limit of the module csv is the caller's: the error names the function that changes it."""
    path = _csv(tmp_path, f"id\n{'x' * (csv.field_size_limit() + 1)}\n")
    assert _refusal(path) == (
        f"{path}: row 1 is not valid CSV: field larger than field limit (131072); csv.field_size_limit(10_000_000) "
        "allows longer ones"
    )


def test_mappings_are_rows() -> None:
    """Also those of a generator, and of :class:`csv.DictReader`."""
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2, "more": 3}]
    assert list(rows_in(rows, ["id"])) == rows
    assert list(rows_in((row for row in rows), None)) == rows
    assert list(rows_in(csv.DictReader(["id,city", "1,Paris"]), ["city"])) == [{"id": "1", "city": "Paris"}]


def test_a_column_that_the_first_row_lacks_is_refused() -> None:
    """The error lists the columns; that of a prompt with JSON says how to write its braces."""
    assert (
        _refusal([{"id": 1, "city": "a"}], ["town"]) == "the table has no column 'town'; its columns are 'id', 'city'"
    )
    many = [{f"c{number}": 0 for number in range(30)}]
    assert _refusal(many, ["id"]).endswith("'c18', 'c19', …; custom_id names the column with the ids")
    assert _refusal([{"id": 1}], ['"label": "x"']) == (
        "the table has no column '\"label\": \"x\"'; its columns are 'id'; write a brace of a prompt's own text twice"
    )


_KINDS = "a table is the path of a CSV or Parquet file, a frame with __arrow_c_stream__, or an iterable of mappings, "


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (5, f"{_KINDS}not int"),
        ({"id": [1]}, f"{_KINDS}not dict"),
        ([1], "row 1 of the table is 1; it must be a mapping from columns to values"),
        ("cities.xlsx", "the table cities.xlsx is neither a .csv nor a .parquet file"),
        ("a\0.csv", "the table is not a path that a file can have: 'a\\x00.csv'"),
        ("absent.csv", "cannot read absent.csv: there is no such file or directory"),
        ("absent.parquet", "cannot read absent.parquet: there is no such file or directory"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, problem: str) -> None:
    """The error says what can be one."""
    assert _refusal(table) == problem


def test_a_csv_file_is_read_in_parts(tmp_path: Path) -> None:
    """The memory does not grow with the file."""
    path = _csv(tmp_path, "id,text\n" + "".join(f"{number},{'x' * 200}\n" for number in range(20_000)))
    rows: Iterator[Any] = rows_in(path, ["text"])
    next(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 19_999
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
