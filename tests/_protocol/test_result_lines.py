"""Tests of lines of an output or an error file: an answer, an error in every shape, or unreadable."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._protocol.result_lines import read_row
from together_batches.rows import BatchFailure, BatchSuccess

_NEITHER = "the row has neither an answer nor an error"


def test_a_success() -> None:
    """A status of 2xx with a body is a success."""
    answer = {"status_code": 201, "body": {"choices": [{"message": {"content": "The Elbe."}}]}}
    row = read_row(msgspec.json.encode({"id": "br_1", "custom_id": "a", "response": answer}))
    assert isinstance(row, BatchSuccess)
    assert (row.custom_id, row.status_code, row.text) == ("a", 201, "The Elbe.")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"error": {"code": "timeout", "message": "too slow"}}, ("a", "timeout", "too slow", None)),
        ({"error": {"type": "not_found", "message": "gone", "code": None}}, ("a", "not_found", "gone", None)),
        ({"error": {"code": 429}}, ("a", "429", "the service gave no reason", None)),
        ({"error": {"message": 1}}, ("a", None, "the service gave no reason", None)),
        ({"error": "it broke"}, ("a", None, "it broke", None)),
        ({"error": 500}, ("a", "500", "the service gave no reason", None)),
        ({"error": [1]}, ("a", None, "the service gave no reason", None)),
        ({"error": "x", "response": {"status_code": 200, "body": {}}}, ("a", None, "x", 200)),
        ({"response": {"status_code": 500, "body": None}}, ("a", None, "the service answered 500", 500)),
        ({"response": {"status_code": 400, "body": {"error": "bad"}}}, ("a", None, "bad", 400)),
        ({"response": {"status_code": 404, "body": {"error": {"message": "m", "code": "c"}}}}, ("a", "c", "m", 404)),
        ({"response": {"status_code": 502, "body": "<html>"}}, ("a", None, "<html>", 502)),
        ({"response": {"status_code": 200, "body": None}}, ("a", None, "the answer is null", 200)),
        ({"response": {"status_code": "200", "body": {}}}, ("a", None, _NEITHER, None)),
        ({"response": {"status_code": True, "body": {}}}, ("a", None, _NEITHER, None)),
        ({"response": {"body": {}}}, ("a", None, _NEITHER, None)),
        ({"response": [], "error": {}}, ("a", None, _NEITHER, None)),
        ({}, ("a", None, _NEITHER, None)),
    ],
)
def test_a_failure(fields: dict[str, object], expected: tuple[object, ...]) -> None:
    """Every shape of an error, in either file, is a failure with the line as received."""
    line = msgspec.json.encode({"custom_id": "a", **fields})
    row = read_row(line)
    assert isinstance(row, BatchFailure)
    assert expected == (row.custom_id, row.code, row.message, row.status_code)
    assert row.raw == line.decode()


@pytest.mark.parametrize("error", [None, "", {}])
def test_an_error_that_is_none(error: object) -> None:
    """Null, an empty text and an empty object are not an error."""
    line = {"custom_id": "a", "error": error, "response": {"status_code": 200, "body": {"text": "hello"}}}
    row = read_row(msgspec.json.encode(line))
    assert isinstance(row, BatchSuccess)
    assert row.text == "hello"


@pytest.mark.parametrize("custom_id", [None, "", 7, ["a"]])
def test_an_answer_to_nobody(custom_id: object) -> None:
    """A row without a custom_id is a failure without one, whatever its answer."""
    line = msgspec.json.encode({"custom_id": custom_id, "response": {"status_code": 200, "body": {}}})
    assert read_row(line) == BatchFailure(None, None, "the row names no custom_id", 200, line.decode())


@pytest.mark.parametrize(
    ("line", "message", "raw"),
    [
        (b'{"custom_id": "a", ', "the line is invalid JSON", '{"custom_id": "a", '),
        (b'{"custom_id": NaN}', _NEITHER, '{"custom_id": NaN}'),
        (b'{"custom_id": "\xff"', "the line is invalid JSON", '{"custom_id": "\\xff"'),
        (b"[" * 5_000, "the line is invalid JSON", "[" * 5_000),
        (b"[1]", "the line is a list instead of an object", "[1]"),
        (b"null", "the line is null instead of an object", "null"),
    ],
)
def test_a_line_that_is_none(line: bytes, message: str, raw: str) -> None:
    """A line that is not a row is a failure without an id, with its text."""
    assert read_row(line) == BatchFailure(None, None, message, raw=raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 600) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["custom_id", "error", "code", "message", "response", "status_code", "body"]), inner
        )
    ),
)


@given(st.binary() | JSON.map(msgspec.json.encode))
def test_no_line_raises(line: bytes) -> None:
    """No line raises, whatever its content."""
    assert read_row(line)
