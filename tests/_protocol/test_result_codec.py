"""Tests of lines of results: each is cut as it came, one by one or together."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._protocol import result_codec
from together_batches._protocol.json_codec import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

# --- a row --------------------------------------------------------------------------------------------------------


def _line(body: bytes, more: bytes = b"") -> bytes:
    return b'{"id": "br_1", "custom_id": "a", "response": {"status_code": 200, "body": ' + body + b"}" + more + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "x"}',
        b'{ "b" :1 ,\t"a": [ ] }',
        b'{"x": 1234567890123456789012345678901234567890, "y": -0.0, "z": 1E400, "e": 1e999, "w": 1.50}',
        b'{"x": 1, "x": 2}',
        b'{"x": "\\ud83d", "y": "\\uDE00\\ud83d", "z": "\\ud83d\\ude00"}',
        '{"x": "\u2028 \u00e9 \U0001f600"}'.encode(),
        b"[" * 300 + b"]" * 300,
        b"[" * 20_000 + b"]" * 20_000,
        b"null",
        b'"text"',
        b"7",
        b'"' + b"x" * 1_000_000 + b'"',
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_body_is_cut_as_it_came(body: bytes) -> None:
    """A body is cut byte for byte, and does not keep its line in memory."""
    row = result_codec.decode_row(_line(body, b', "error": null'))
    assert row == result_codec.Row("a", 200, None, body)
    assert type(row.body) is bytes


def test_a_carriage_return_between_tokens_is_a_space() -> None:
    """A carriage return between tokens becomes a space, because it would end a line for some readers."""
    assert result_codec.decode_row(_line(b'{\r"a":\r1}') + b"\r").body == b'{ "a": 1}'


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"x": NaN}', {"x": pytest.approx(math.nan, nan_ok=True)}),
        (b'{"x": -Infinity}', {"x": -math.inf}),
        (b'{"x": "a\x01b"}', {"x": "a\x01b"}),
        (b'{"x": "\xe2\x80"}', {"x": "\ufffd"}),
        (b'{"x": 1, "y": "\xff"}', {"x": 1, "y": "\ufffd"}),
    ],
)
def test_a_body_that_is_no_json_is_not_cut(body: bytes, value: object) -> None:
    """A body that only Python reads is not cut as text, because it must not appear in a file of JSON."""
    row = result_codec.decode_row(_line(body))
    assert (row.custom_id, row.status_code, row.error, row.body) == ("a", 200, None, None)
    assert row.value == value


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"{}", result_codec.Row()),
        (b'{"custom_id": 7, "response": null}', result_codec.Row(7)),
        (b'{"custom_id": "a", "response": "text"}', result_codec.Row("a")),
        (
            b'{"custom_id": "a", "response": {"status_code": "200", "body": {}}}',
            result_codec.Row("a", "200", None, b"{}"),
        ),
        (
            b'{"custom_id": "a", "response": {"status_code": 1e999, "body": 1}}',
            result_codec.Row("a", math.inf, None, b"1"),
        ),
        (
            b'{"custom_id": "a", "error": {"code": 1, "message": "m"}}',
            result_codec.Row("a", None, {"code": 1, "message": "m"}),
        ),
        (b'{"custom_id": "a", "error": "\\ud800"}', result_codec.Row("a", None, "\ud800")),
        (b'{"custom_id": "a", "custom_id": "b"}', result_codec.Row("b")),
        (
            b'{"response": {"status_code": 1, "body": {}}, "response": {"status_code": 2}, "custom_id": "\\ud800"}',
            result_codec.Row("\ud800", 2),
        ),
        (b'{"response": {"status_code": 1, "body": {}}, "response": {"status_code": 2}}', result_codec.Row(None, 2)),
    ],
)
def test_a_row_of_any_shape(line: bytes, row: object) -> None:
    """A row of any shape has the values of its line; of two members with one name the last counts."""
    assert result_codec.decode_row(line) == row


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b'{"custom_id": "a"', b"<html>", b"\xff", b"[" * 100_000])
def test_a_line_that_nothing_reads(line: bytes) -> None:
    """A line that nothing reads raises one kind of error."""
    with pytest.raises(WireError):
        result_codec.decode_row(line)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "other": 1e999}}', (7, 2, 9)),
        (b'{"usage": {"prompt_tokens": 7, "completion_tokens": null, "total_tokens": "9"}}', (7, 0, 0)),
        (b'{"x": "\\ud800", "usage": {"prompt_tokens": 7}}', (7, 0, 0)),
        (b'{"usage": {}}', (0, 0, 0)),
        (b'{"usage": null}', (0, 0, 0)),
        (b'{"usage": 7}', (0, 0, 0)),
        (b"{}", (0, 0, 0)),
        (b"[]", (0, 0, 0)),
        (b"null", (0, 0, 0)),
        (b'"usage"', (0, 0, 0)),
        (b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", (0, 0, 0)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_tokens_of_an_answer(body: bytes, tokens: tuple[int, int, int]) -> None:
    """The tokens of answers are read without decoding the rest of them, and are added up; what has none counts 0."""
    assert result_codec.usage([body]) == tokens
    usual = b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}'
    more = (tokens[0] + 2, tokens[1] + 4, tokens[2] + 6)
    assert result_codec.usage([usual, body, usual]) == more


_row_bodies = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_row_bodies, st.booleans(), st.sampled_from([None, 0]))
def test_any_body_is_cut_as_it_came(body: object, ascii_only: bool, indent: int | None) -> None:
    """Any output of a JSON library is cut unchanged, including surrogates without a partner."""
    try:
        text = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode().replace(b"\n", b" ")
    except UnicodeEncodeError:
        return
    assert result_codec.decode_row(_line(text)).body == text


# --- rows that are read together ----------------------------------------------------------------------------------

_ends = st.sampled_from(
    [b"}}", b"} }", b'}, "error": null}', b'}, "error": {"code": 1}}', b', "x": {}}}', b"}}}", b"}", b"}} {}"]
)
_members = st.lists(
    st.sampled_from(
        [
            b'"custom_id": "b"',
            b'"body": {"x": 1}',
            b'"body" :null',
            b'"b\\u006fdy":{"y": 2}',
            b'"status_code": 200',
            b'"status_code": 200.0',
            b'"status_code": 500',
            b'"response": {"status_code": 200, "body": {}}',
            b'"error": null',
            b'"x": {"body": {"z": 3}}',
            b'"x": {"body": 7',
            b'"x": "\\"body\\":{"',
            b'"x": "\xff"',
        ]
    ),
    max_size=3,
)


@st.composite
def _result_lines(draw: st.DrawFn) -> bytes:
    text = b'{"t": ' + json.dumps(draw(_row_bodies)).encode() + b', "usage": {"prompt_tokens": 3}}'
    within = [b'"status_code": 200', *draw(_members)]
    head = [b'"custom_id": "a"', *draw(_members), b'"response": {' + b", ".join(within)]
    return b"{" + b", ".join(head) + b', "body":' + draw(st.sampled_from([b"", b" ", b"  "])) + text + draw(_ends)


def _together(decode: Callable[[bytes, list[bytes]], Any], *lines: bytes) -> Any:
    texts = [line + b"\n" for line in lines]
    return decode(b"".join(texts), b"".join(texts).splitlines(keepends=True))


@given(st.lists(_result_lines(), min_size=1, max_size=3))
def test_rows_that_are_read_together_equal_those_read_alone(lines: list[bytes]) -> None:
    """Lines are read together as each would be read alone, with the same text of the body, or not at all."""
    found = _together(result_codec.answers, *lines)
    for line, answer in zip(lines, found or [], strict=bool(found)):
        row = result_codec.decode_row(line)
        if answer.response is not None and not answer.error:
            assert (answer.custom_id, answer.response.status_code) == (row.custom_id, row.status_code)
            assert bytes(answer.response.body) == row.body


@pytest.mark.parametrize("body", [b'{"choices": [{"message": {"content": "hi"}}]}', b"{}", b"[" * 300 + b"]" * 300])
def test_usual_lines_are_read_together(body: bytes) -> None:
    """Lines as the service and others write them are read together, whatever the body."""
    line = b'{"id":"br_1","custom_id":"a","response":{"status_code":200,"body":' + body + b"}}"
    failure = b'{"id":"br_2","custom_id":"b","error":{"code":"c","message":"m"}}'
    first, second = _together(result_codec.answers, line, failure) or []
    assert first.response is not None
    assert (first.custom_id, bytes(first.response.body), first.error) == ("a", body, None)
    assert (second.custom_id, second.response, second.error) == ("b", None, {"code": "c", "message": "m"})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"custom_id": 7}',
        b'{"custom_id": "a", "response": "x"}',
        b'{"custom_id": "a", "response": {"body": {}}}',
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": "\xff"}}}',
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": NaN}}}',
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": "\x01"}}}',
    ],
)
def test_any_other_line_is_left_to_be_read_alone(line: bytes) -> None:
    """A line of another shape, or with broken text, is not read together with others."""
    usual = b'{"custom_id": "a", "response": {"status_code": 200, "body": {}}}'
    assert _together(result_codec.answers, usual) is not None
    assert _together(result_codec.answers, usual, line) is None
