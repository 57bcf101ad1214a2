"""The rows of a job: frozen values, and shortcuts for the most common parts of a response."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

import together_batches
from together_batches import APIResponseValidationError, rows, to_dict
from together_batches._protocol.carried_body import Body
from together_batches._text import format_count
from together_batches.rows import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchRequest,
    BatchStray,
    BatchSuccess,
    Usage,
)

_ROWS = [
    BatchRequest("a", {"model": "m", "messages": []}),
    BatchSuccess("a", {"text": "hello"}),
    BatchSuccess("a", {"text": "{}"}, parsed={}),
    BatchInvalid("a", "hello", "why", BatchSuccess("a", {"text": "hello"})),
    BatchFailure(None, "code", "why", 400, "{"),
    BatchMissing("a"),
    BatchStray("a", "why", "{}"),
    Usage(1, 2, 3),
]


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: type(row).__name__)
def test_a_row_is_a_value(row: attrs.AttrsInstance) -> None:
    """A row is frozen, hashable, and can be pickled."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(row, attrs.fields(type(row))[0].name, None)
    for twin in (copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert twin == row
        assert hash(twin) == hash(row)


@pytest.mark.parametrize("name", rows.__all__)
def test_where_a_row_is_to_be_had(name: str) -> None:
    """A row class is the same object in the package and in its module."""
    assert getattr(together_batches, name) is getattr(rows, name)


def test_tokens_add_up() -> None:
    """Tokens can be added with ``sum``, from ``Usage()``."""
    assert sum([Usage(1, 2, 3), Usage(10, 20, 30)], Usage()) == Usage(11, 22, 33)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}, Usage(1, 2, 3)),
        ({"usage": {"total_tokens": 3, "prompt_tokens": None}}, Usage(0, 0, 3)),
        ({"usage": None}, None),
        ({"usage": [1]}, None),
        ({}, None),
    ],
)
def test_tokens_of_an_answer(body: dict[str, object], expected: Usage | None) -> None:
    """The tokens of a response are read from it if it has them."""
    assert BatchSuccess("a", body).usage == expected


# --- a body that is decoded on access -----------------------------------------------------------------------------

DEEP = b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b', "text": "hello", "usage": {"total_tokens": 3}}'


def _carried(text: bytes) -> BatchSuccess:
    return BatchSuccess("a", Body(text))


def test_a_body_is_decoded_when_it_is_wanted() -> None:
    """A body is decoded on first access, and once: changes to it are kept and written."""
    row = _carried(b'{"text": "hello"}')
    assert row.body == {"text": "hello"}
    assert row.body is row.body
    row.body["more"] = 1  # type: ignore[index]
    assert to_dict(row)["body"] == {"text": "hello", "more": 1}


def test_text_tokens_and_status_need_no_decoding() -> None:
    """Text, tokens and status are read without decoding the rest of the body, which may be anything."""
    body = b'{"x": "\\ud83d", "choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 1}}'
    for row in (_carried(body), BatchSuccess("a", {**_carried(body).body})):
        assert (row.text, row.usage, row.status_code) == ("hi", Usage(1, 0, 0), 200)
    assert _carried(b'{"choices": 7, "text": "hi"}').text == "hi"
    assert (row.finish_reason, _carried(b'{"choices": [{"finish_reason": 7}]}').finish_reason) == (None, None)
    assert _carried(b'{"choices": [{"finish_reason": "length"}]}').finish_reason == "length"


@pytest.mark.parametrize("row", [_carried(DEEP), BatchSuccess("a", Body(DEEP), 200, "the line")])
def test_a_body_that_cannot_be_decoded(row: BatchSuccess) -> None:
    """A body that cannot be decoded raises on access, and is harmless otherwise."""
    with pytest.raises(APIResponseValidationError, match="nested too deeply; its text is in raw"):
        row.body  # noqa: B018
    assert (row.custom_id, row.status_code, row.text, row.usage) == ("a", 200, None, None)
    assert f"{format_count(len(DEEP))} bytes that cannot be decoded" in repr(row)
    assert "body" not in to_dict(row)
    for twin in (copy.deepcopy(row), pickle.loads(pickle.dumps(row)), attrs.evolve(row)):
        assert twin == row
        assert hash(twin) == hash(row)
    assert attrs.evolve(row, body={}).body == {}
    assert row != attrs.evolve(row, body={})


def test_rows_are_equal_if_what_they_say_is() -> None:
    """Rows are equal if their content is, in any spelling, decoded or not, and differ if any field does."""
    assert _carried(b'{"x":1, "y":2}') == _carried(b'{"y": 2, "x": 1.0}') == BatchSuccess("a", {"x": 1, "y": 2})
    assert _carried(b'{"x": 1}') != _carried(b'{"x": 2}')
    assert BatchSuccess("a", {}) != BatchSuccess("a", {}, 201)
    assert BatchSuccess("a", {}) != BatchSuccess("a", {}, raw="x")
    assert BatchSuccess("a", {}) != BatchRequest("a", {})
    assert BatchSuccess("a", {}, parsed=1) != BatchSuccess("a", {}, parsed=2)
    assert repr(BatchSuccess("a", {}, parsed=1)) == "BatchSuccess(custom_id='a', body={}, status_code=200, parsed=1)"
    assert repr(BatchSuccess("a", {})) == "BatchSuccess(custom_id='a', body={}, status_code=200)"


def test_rows_are_matched_by_place_and_by_name() -> None:
    """Rows match patterns by position and by keyword, and the body in a pattern is decoded."""
    match _carried(b'{"x": 1}'):
        case BatchSuccess(custom_id, body, 200, raw):
            assert (custom_id, body, raw) == ("a", {"x": 1}, "")
    match BatchRequest("a", {"model": "m"}):
        case BatchRequest(custom_id="a", body={"model": model}, method=None):
            assert model == "m"
