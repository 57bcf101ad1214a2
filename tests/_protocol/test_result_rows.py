"""Results as rows of a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from together_batches._protocol.carried_body import Body
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.result_rows import (
    ResultRow,
    row_of_line,
    row_of_result,
    rows_of_lines,
    with_texts,
)
from together_batches._protocol.to_dict import line_of
from together_batches.rows import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchResult,
    BatchStray,
    BatchSuccess,
)

CHAT = {
    "choices": [{"message": {"content": "The Elbe."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}
ROW = ResultRow("a", "success", "The Elbe.", "stop", 7, 3)
RESULTS: list[tuple[BatchResult, ResultRow]] = [
    (BatchSuccess("a", CHAT), ROW),
    (BatchSuccess("a", Body(json.dumps(CHAT).encode())), ROW),
    (BatchSuccess("a", {"text": "spoken"}), ResultRow("a", "success", "spoken")),
    (BatchSuccess("a", {"choices": []}), ResultRow("a", "success")),
    (BatchSuccess("a", {"data": [{"embedding": [0.5]}]}), ResultRow("a", "success")),
    (BatchFailure("a", "timeout", "too slow"), ResultRow("a", "failure", error_code="timeout", error="too slow")),
    (BatchFailure("a", None, "busy", 503), ResultRow("a", "failure", error_code="503", error="busy")),
    (BatchFailure(None, None, "unreadable", raw="{"), ResultRow(None, "failure", error="unreadable")),
    (BatchMissing("a"), ResultRow("a", "missing")),
    (BatchStray("a", "of no request"), ResultRow("a", "stray", error="of no request")),
    (
        BatchInvalid("a", "The Elbe.", "the answer is not JSON", BatchSuccess("a", CHAT)),
        ROW._replace(result="invalid", error="the answer is not JSON"),
    ),
]


def line(**members: Any) -> bytes:
    return json.dumps({"custom_id": "a", "result": "success", **members}).encode() + b"\n"


@pytest.mark.parametrize(("result", "row"), RESULTS)
def test_a_result_and_its_line_are_the_same_row(result: BatchResult, row: ResultRow) -> None:
    """A result is the same row as its line in an output, read alone or with others."""
    text = line_of(result) + b"\n"
    assert row_of_result(result) == row
    assert row_of_line(text) == row
    assert rows_of_lines(text * 2, [text, text]) == [row, row]


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ({**CHAT, "usage": {"prompt_tokens": 7.5, "completion_tokens": 3}}, ROW._replace(prompt_tokens=None)),
        ({**CHAT, "usage": "none"}, ROW._replace(prompt_tokens=None, completion_tokens=None)),
        ({**CHAT, "choices": [{"message": {"content": ["a", "b"]}}]}, ROW._replace(text=None, finish_reason=None)),
        ({**CHAT, "choices": {}}, ROW._replace(text=None, finish_reason=None)),
        ({**CHAT, "choices": [None]}, ROW._replace(text=None, finish_reason=None)),
        ("an answer", ResultRow("a", "success")),
    ],
)
def test_a_member_of_another_type_is_null(body: object, row: ResultRow) -> None:
    """A member that has another type than usual is null; the others of its line are read, and so are other lines."""
    odd, usual = line(body=body), line(body=CHAT)
    assert rows_of_lines(odd + usual, [odd, usual]) is None
    assert row_of_line(odd) == row
    assert row_of_line(usual) == ROW


def test_half_a_character_costs_no_row() -> None:
    """Half of a surrogate pair, which Python reads and msgspec does not, is kept."""
    text = b'{"custom_id":"a\\ud83d","result":"success","body":{"text":"\\ud83d"}}'
    assert row_of_line(text) == ResultRow("a\ud83d", "success", "\ud83d")


def test_an_answer_that_is_nested_too_deeply() -> None:
    """Of a line that cannot be decoded as a whole, what is beside the nested value is read."""
    body = json.dumps(CHAT)[:-1].encode() + b', "logprobs": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    text = b'{"custom_id":"a","result":"success","body":' + body + b"}"
    assert row_of_line(text) == ROW
    assert row_of_line(text.replace(b'"choices": [', b'"choices": [' + b"[" * 5000 + b"]" * 5000 + b",")).text is None


def test_an_answer_that_is_no_plain_json_is_read_from_its_original() -> None:
    """An answer with a NaN is not in the line as JSON, and is read from the line as the service wrote it."""
    body = json.dumps({**CHAT, "logprobs": float("nan")})
    original = f'{{"custom_id": "a", "response": {{"status_code": 200, "body": {body}}}}}'
    assert row_of_line(line(status_code=200, raw=original)) == ROW
    assert row_of_line(line(status_code=200, raw="[")) == ResultRow("a", "success")
    assert row_of_line(line(status_code=200)) == ResultRow("a", "success")


@pytest.mark.parametrize("text", ["The Elbe.", 'a "b"\n', "Größe", "half \ud83d"])
def test_a_line_gets_its_text(text: str) -> None:
    """The text of an answer is added to its line, which otherwise stays as it is, to the byte."""
    answered = line(body={"choices": [{"message": {"content": text}}]})
    failed = b'{"custom_id":"b","result":"failure","message":"too slow"}\n'
    lines = with_texts(answered + failed).splitlines(keepends=True)
    assert lines[0].startswith(answered[:-2] + b',"text":')
    assert json.loads(lines[0])["text"] == text
    assert lines[1:] == [failed]


def test_the_line_of_a_newer_version() -> None:
    """A result that this version does not know keeps its name."""
    assert row_of_line(line(result="postponed", message="later")) == ResultRow("a", "postponed", error="later")


def test_lines_as_the_service_writes_them() -> None:
    """Lines of an output or error file are results, too."""
    answered = json.dumps({"id": "1", "custom_id": "a", "response": {"status_code": 200, "body": CHAT}}).encode()
    failed = b'{"custom_id": "a", "error": {"code": "timeout", "message": "too slow"}}'
    assert row_of_line(answered) == ROW
    assert row_of_line(failed) == ResultRow("a", "failure", error_code="timeout", error="too slow")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"custom_id": "a", "body": {"model": "m"}}', "a request instead of a result"),
        (b'{"a": 1}', "an object that is not a result"),
        (b"[1]", "a list instead of a result"),
        (b"{", "invalid JSON"),
    ],
)
def test_a_line_that_is_no_result(text: bytes, problem: str) -> None:
    """The error of a line without a result says what it is."""
    with pytest.raises(WireError) as caught:
        row_of_line(text)
    assert caught.value.problem == problem


def test_a_value_that_was_read_by_a_schema() -> None:
    """A result that was read by a schema keeps its value."""
    assert row_of_result(BatchSuccess("a", CHAT, parsed=7)).parsed == 7
