"""Tests of members cut by the grammar: exactly the members that a decoder finds, and exactly JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from together_batches._protocol.json_members import members, salvaged_id

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), _ANY, max_size=4), st.sampled_from([None, 1]))
def test_the_members_are_those_that_a_decoder_finds(value: dict[str, object], indent: int | None) -> None:
    """The members of the object and of objects directly in it are those of a decoder, whatever is between them."""
    expected: dict[tuple[str, ...], object] = {}
    for name, inner in value.items():
        expected[name,] = inner
        if isinstance(inner, dict):
            expected |= {(name, below): found for below, found in inner.items()}
    cut = members(json.dumps(value, indent=indent).encode())
    assert {path: json.loads(text) for path, text in cut.items()} == expected


@given(st.text('{}[],:"\\u0a1.-e \n', max_size=10))
@example("}")
@example('"a":01')
@example('"a":[1,]')
@example('"a":"\\ud800"')
def test_what_is_json_is_decided_by_the_grammar(inside: str) -> None:
    """Text is JSON for this module if it is JSON for Python."""
    text = f"{{{inside}}}"
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match="invalid JSON object"):
            members(text.encode())
    else:
        members(text.encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'{"a": NaN}', b'{"a": "\x01"}', b'{"a": "\xff"}', b"{} {}"])
def test_what_is_no_object(text: bytes) -> None:
    """Text that is not a JSON object is refused, even if Python reads it."""
    with pytest.raises(ValueError, match=r"invalid JSON object|utf-8"):
        members(text)


def test_any_depth() -> None:
    """Any depth is read, because nothing here is recursive."""
    deep = b'{"a":' * 100_000 + b"[]" + b"}" * 100_000
    assert members(b'{"b": ' + deep + b"}")["b",] == deep


def test_the_last_of_two_is_taken_with_what_is_in_it() -> None:
    """Of two members with one name the last counts with its content, and nothing of the first remains."""
    assert members(b'{"a": {"b": 1, "c": 2}, "a": {"c" : 3 }}') == {("a",): b'{"c" : 3 }', ("a", "c"): b"3"}


@pytest.mark.parametrize(
    ("line", "custom_id"),
    [
        (b'{"custom_id": "a", "response": {"x": }}', "a"),
        (b'{"custom_id" : "a\x01", "x": [{"custom_id": "b"', "a\x01"),
        (b'{"x": "custom_id", "custom_id": "\\u00e9",,', "\u00e9"),
        (b'{"custom_id": "a", "custom_id": "b", NaN', "b"),
        (b'{"custom_id": "a", "custom_id": 7,', None),
        (b'{"x": {"custom_id": "a"},', None),
        (b'{"x": "\\"custom_id\\": \\"a\\"",', None),
        (b'{} {"custom_id": "a"', None),
        (b'[{"custom_id": "a"', None),
        (b'{"custom_id": "a', None),
        (b'{"custom_id": "",', None),
        (b'{"custom_id": ' + b"[" * 100_000, None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_id_in_a_line_that_nothing_reads(line: bytes, custom_id: str | None) -> None:
    """Only an id directly in the object counts; of several the last."""
    assert salvaged_id(line) == custom_id
