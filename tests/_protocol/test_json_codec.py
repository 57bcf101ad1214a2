"""Tests of the codec: which JSON is read, which is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._protocol import json_codec
from together_batches._protocol.json_codec import WireError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)

# --- JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "an empty body"),
        (b" ", "invalid JSON"),
        (b"<html>", "invalid JSON"),
        (b'{"id": "a"', "invalid JSON"),
        (b'{"id": "a"} trailing', "invalid JSON"),
        (b"{'id': 'a'}", "invalid JSON"),
        (b'{"id": NaN}', "invalid JSON"),
        (b'{"id": Infinity}', "invalid JSON"),
        (b'{"id": 1e999}', "invalid JSON"),
        (b'"\xff"', "invalid JSON"),
        (b'"\\ud800"', "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"a":' * 100_000, "invalid JSON"),
        (b"9" * 10_000, "invalid JSON"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_json(body: bytes, problem: str) -> None:
    """Broken, truncated, too deep, or otherwise invalid JSON raises one kind of error."""
    with pytest.raises(WireError) as caught:
        json_codec.decode(body)
    assert (caught.value.problem, caught.value.where) == (problem, "$")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "a number is not finite"),
        ({"a": [1, (float("inf"),)]}, "a number is not finite"),
        ({math.nan: 1}, "Dict key must be str"),
        (b"bytes", "Type is not JSON serializable: bytes"),
        ({1, 2}, "Type is not JSON serializable: set"),
        (Decimal("0.5"), "Type is not JSON serializable: Decimal"),
        (BatchJob, "not JSON serializable"),
        ({1: 2}, "Dict key must be str"),
        ("\ud800", "surrogates not allowed"),
        (object(), "not JSON serializable"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_json_cannot_say(value: object, problem: str) -> None:
    """A value that JSON cannot represent is refused, and not replaced: NaN does not become null."""
    with pytest.raises(WireError, match=problem):
        json_codec.encode(value)


def test_what_refers_to_itself_is_no_json() -> None:
    """A value that contains itself is refused, and does not end the process."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(WireError):
        json_codec.encode(value)


def test_null_is_json() -> None:
    """Null of the caller is sent as null."""
    assert json_codec.encode({"a": None, "b": [1.5, None]}) == b'{"a":null,"b":[1.5,null]}'


@dataclass
class _Options:
    temperature: object
    _private: object = None


@attrs.frozen
class _Attrs:
    temperature: object


class _Level(enum.Enum):
    HALF = 0.5
    ODD = math.inf


class _Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "holder",
    [
        _Options,
        _Attrs,
        lambda value: [_Options(value)],
        lambda value: {"a": (_Attrs(value),)},
        UserDict,
        dict,
        OrderedDict,
    ],
)
def test_what_holds_a_number_that_is_not_finite(holder: Callable[[Any], object]) -> None:
    """A non-finite number is refused at any depth, although msgspec would write null."""
    given_ = {"a": math.nan} if holder in {UserDict, dict, OrderedDict} else math.nan
    with pytest.raises(WireError, match="a number is not finite"):
        json_codec.encode(holder(given_))
    with pytest.raises(WireError, match="a number is not finite"):
        json_codec.encode(_Level.ODD)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (_Options(0.5), b'{"temperature":0.5}'),
        (_Attrs({"a": _Level.HALF}), b'{"temperature":{"a":0.5}}'),
        (BatchJobStatus("PAUSED"), b'"PAUSED"'),
        ({BatchJobStatus.FAILED: _Text("é")}, '{"FAILED":"é"}'.encode()),
        (UserDict(a=MappingProxyType({"b": ()})), b'{"a":{"b":[]}}'),
        (True, b"true"),
        (-(2**200), str(-(2**200)).encode()),
        (_NOON, b'"2026-09-14T12:00:00Z"'),
        (UUID(int=7), b'"00000000-0000-0000-0000-000000000007"'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_json_s_own_is_written_as_what_it_holds(value: object, text: bytes) -> None:
    """Dataclasses, attrs classes, enums and mappings are written as their content; any integer is exact."""
    assert json_codec.encode(value) == text


class _Number:
    """A number as in numpy: neither int nor float, and convertible into both."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)


class _Integer(_Number):
    pass


class _Floating(_Number):
    pass


class _Bool(_Number):
    pass


@pytest.fixture
def numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes in place of numpy's, because numpy is not a dependency."""
    classes = SimpleNamespace(integer=_Integer, floating=_Floating, bool_=_Bool)
    monkeypatch.setitem(sys.modules, "numpy", classes)


@pytest.mark.usefixtures("numpy")
def test_numbers_of_numpy_are_the_numbers_that_they_are() -> None:
    """A number of numpy is written as its value, and refused if it is not finite."""
    assert json_codec.encode([_Bool(1), _Floating(1.5), _Integer(7)]) == b"[true,1.5,7]"
    with pytest.raises(WireError, match="a number is not finite"):
        json_codec.encode({"a": _Floating("nan")})


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "-" + "9" * 40, "18446744073709551616", "-0.0"])
def test_a_number_is_exact(number: str) -> None:
    """An integer beyond 64 bits is written as it was read."""
    text = f'{{"a":[{number}]}}'.encode()
    assert json_codec.encode(json_codec.decode(text)) == text


@pytest.mark.parametrize("decode", [json_codec.decode, json_codec.read])
def test_deep_and_repeated(decode: Callable[[bytes], object]) -> None:
    """Three hundred levels are read, and of two values with one key the last counts."""
    deep = b"[" * 300 + b"]" * 300
    assert json_codec.encode(decode(deep)) == deep
    assert decode(b'{"a": 1, "b": {"c": 2, "c": 3}, "a": 4}') == {"a": 4, "b": {"c": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"x": 1e999}', math.inf),
        (b'{"x": -Infinity}', -math.inf),
        (b'{"x": "\\ud800"}', "\ud800"),
        (b'{"x": "\xe2\x80"}', "\ufffd"),
        (b'{"x": "\x01"}', "\x01"),
    ],
)
def test_what_python_reads_and_json_has_not(text: bytes, value: object) -> None:
    """A value that only Python reads is read where it does no harm, and refused elsewhere."""
    assert json_codec.read(text) == {"x": value}
    with pytest.raises(WireError, match="invalid JSON"):
        json_codec.decode(text)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[" * 100_000, b'{"id": "a"', b"9" * 10_000])
def test_what_cannot_be_read(text: bytes) -> None:
    """Text that nothing reads is refused."""
    with pytest.raises(WireError, match=r"invalid JSON|an empty body"):
        json_codec.read(text)


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
    row = json_codec.decode_row(_line(body, b', "error": null'))
    assert row == json_codec.Row("a", 200, None, body)
    assert type(row.body) is bytes


def test_a_carriage_return_between_tokens_is_a_space() -> None:
    """A carriage return between tokens becomes a space, because it would end a line for some readers."""
    assert json_codec.decode_row(_line(b'{\r"a":\r1}') + b"\r").body == b'{ "a": 1}'


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
    row = json_codec.decode_row(_line(body))
    assert (row.custom_id, row.status_code, row.error, row.body) == ("a", 200, None, None)
    assert row.value == value


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"{}", json_codec.Row()),
        (b'{"custom_id": 7, "response": null}', json_codec.Row(7)),
        (b'{"custom_id": "a", "response": "text"}', json_codec.Row("a")),
        (
            b'{"custom_id": "a", "response": {"status_code": "200", "body": {}}}',
            json_codec.Row("a", "200", None, b"{}"),
        ),
        (
            b'{"custom_id": "a", "response": {"status_code": 1e999, "body": 1}}',
            json_codec.Row("a", math.inf, None, b"1"),
        ),
        (
            b'{"custom_id": "a", "error": {"code": 1, "message": "m"}}',
            json_codec.Row("a", None, {"code": 1, "message": "m"}),
        ),
        (b'{"custom_id": "a", "error": "\\ud800"}', json_codec.Row("a", None, "\ud800")),
        (b'{"custom_id": "a", "custom_id": "b"}', json_codec.Row("b")),
        (
            b'{"response": {"status_code": 1, "body": {}}, "response": {"status_code": 2}, "custom_id": "\\ud800"}',
            json_codec.Row("\ud800", 2),
        ),
        (b'{"response": {"status_code": 1, "body": {}}, "response": {"status_code": 2}}', json_codec.Row(None, 2)),
    ],
)
def test_a_row_of_any_shape(line: bytes, row: object) -> None:
    """A row of any shape has the values of its line; of two members with one name the last counts."""
    assert json_codec.decode_row(line) == row


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b'{"custom_id": "a"', b"<html>", b"\xff", b"[" * 100_000])
def test_a_line_that_nothing_reads(line: bytes) -> None:
    """A line that nothing reads raises one kind of error."""
    with pytest.raises(WireError):
        json_codec.decode_row(line)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "other": 1e999}}', (7, 2, 9)),
        (b'{"usage": {"prompt_tokens": 7, "completion_tokens": null, "total_tokens": "9"}}', (7, 0, 0)),
        (b'{"x": "\\ud800", "usage": {"prompt_tokens": 7}}', (7, 0, 0)),
        (b'{"usage": {}}', (0, 0, 0)),
        (b'{"usage": null}', None),
        (b'{"usage": 7}', None),
        (b"{}", None),
        (b"[]", None),
        (b"null", None),
        (b'"usage"', None),
        (b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_tokens_of_an_answer(body: bytes, tokens: object) -> None:
    """The tokens of an answer are read without decoding the rest of it."""
    assert json_codec.usage(body) == tokens


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
    assert json_codec.decode_row(_line(text)).body == text


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
    found = _together(json_codec.answers, *lines)
    for line, answer in zip(lines, found or [], strict=bool(found)):
        row = json_codec.decode_row(line)
        if answer.response is not None and not answer.error:
            assert (answer.custom_id, answer.response.status_code) == (row.custom_id, row.status_code)
            assert bytes(answer.response.body) == row.body


@pytest.mark.parametrize("body", [b'{"choices": [{"message": {"content": "hi"}}]}', b"{}", b"[" * 300 + b"]" * 300])
def test_usual_lines_are_read_together(body: bytes) -> None:
    """Lines as the service and others write them are read together, whatever the body."""
    line = b'{"id":"br_1","custom_id":"a","response":{"status_code":200,"body":' + body + b"}}"
    failure = b'{"id":"br_2","custom_id":"b","error":{"code":"c","message":"m"}}'
    first, second = _together(json_codec.answers, line, failure) or []
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
    assert _together(json_codec.answers, usual) is not None
    assert _together(json_codec.answers, usual, line) is None


@given(
    st.lists(st.sampled_from([b"{}", b"{", b"}", b'{"a":1}', b"", b" ", b"{} {}", b'{"}', b'{"', b"[]"]), min_size=1)
)
def test_lines_that_look_like_objects(lines: list[bytes]) -> None:
    """Lines look like objects if each begins and ends with a brace; if they are JSON, each then is one or several."""
    each = [line.startswith(b"{") and line.endswith(b"}") for line in lines]
    assert json_codec.are_objects([line + b"\n" for line in lines]) == all(each)
    rows = [line.replace(b"{}", b'{"custom_id":"a","body":{"model":"m"}}') for line in lines]
    found = _together(json_codec.requests, *rows)
    if found is not None:
        assert set(lines) <= {b"{}"}


def test_a_request_with_a_number_beyond_floats() -> None:
    """A number beyond floats is JSON and is carried; in a line that is not a request, the error names that defect."""
    body = b'{"model": "m", "x": 1e999, "y": ' + b"1" * 5_000 + b"}"
    line = b'{"custom_id": "a", "body": ' + body + b"}"
    value: Any = json_codec.request(line)
    assert (value["custom_id"], value["body"]["x"]) == ("a", math.inf)
    found = json_codec.carried_request(line)
    assert found is not None
    assert (found[0], found[1].text, found[2]) == ("a", body, None)
    with pytest.raises(WireError):
        json_codec.request(b'{"custom_id": "a", "x": 1e999}')
    with pytest.raises(WireError):
        json_codec.request(line.replace(b'"m"', b'"\xff"'))


def test_the_ids_of_requests() -> None:
    """Ids are read without the bodies, and may be absent."""
    assert json_codec.custom_ids(b'{"custom_id": "a", "body": {}}\n{"body": [[]], "custom_id": "b"}\n') == ["a", "b"]
    odd = b'x\n[]\n{}\n{"custom_id": 7}\n{"custom_id": "a"}\n'
    assert json_codec.custom_ids(odd) == ["", "", "", "", "a"]
