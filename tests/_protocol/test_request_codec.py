"""Tests of lines of requests: read together as alone, and carried as they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._protocol import request_codec
from together_batches._protocol.json_codec import WireError, are_objects

if TYPE_CHECKING:
    from collections.abc import Callable


def _together(decode: Callable[[bytes, list[bytes]], Any], *lines: bytes) -> Any:
    texts = [line + b"\n" for line in lines]
    return decode(b"".join(texts), b"".join(texts).splitlines(keepends=True))


@given(
    st.lists(st.sampled_from([b"{}", b"{", b"}", b'{"a":1}', b"", b" ", b"{} {}", b'{"}', b'{"', b"[]"]), min_size=1)
)
def test_lines_that_look_like_objects(lines: list[bytes]) -> None:
    """Lines look like objects if each begins and ends with a brace; if they are JSON, each then is one or several."""
    each = [line.startswith(b"{") and line.endswith(b"}") for line in lines]
    assert are_objects([line + b"\n" for line in lines]) == all(each)
    rows = [line.replace(b"{}", b'{"custom_id":"a","body":{"model":"m"}}') for line in lines]
    found = _together(request_codec.requests, *rows)
    if found is not None:
        assert set(lines) <= {b"{}"}


def test_a_request_with_a_number_beyond_floats() -> None:
    """A number beyond floats is JSON and is carried; in a line that is not a request, the error names that defect."""
    body = b'{"model": "m", "x": 1e999, "y": ' + b"1" * 5_000 + b"}"
    line = b'{"custom_id": "a", "body": ' + body + b"}"
    value: Any = request_codec.request(line)
    assert (value["custom_id"], value["body"]["x"]) == ("a", math.inf)
    found = request_codec.carried_request(line)
    assert found is not None
    assert (found[0], found[1].text, found[2]) == ("a", body, None)
    with pytest.raises(WireError):
        request_codec.request(b'{"custom_id": "a", "x": 1e999}')
    with pytest.raises(WireError):
        request_codec.request(line.replace(b'"m"', b'"\xff"'))


def test_the_ids_of_requests() -> None:
    """Ids are read without the bodies, and may be absent."""
    assert request_codec.custom_ids(b'{"custom_id": "a", "body": {}}\n{"body": [[]], "custom_id": "b"}\n') == [
        "a",
        "b",
    ]
    odd = b'x\n[]\n{}\n{"custom_id": 7}\n{"custom_id": "a"}\n'
    assert request_codec.custom_ids(odd) == ["", "", "", "", "a"]


def test_ids_that_are_kept() -> None:
    """Ids are kept as lines of JSON, and nothing else is read as such."""
    lines = (
        request_codec.packed_ids(["a", "\u00e9\n"]) + request_codec.packed_ids([]) + request_codec.packed_ids(["b"])
    )
    assert request_codec.unpacked_ids(lines) == ["a", "\u00e9\n", "b"]
    for other in (b"[7]\n", b"{}\n", b'["a"', b'["\xff"]\n'):
        with pytest.raises(WireError):
            request_codec.unpacked_ids(other)


MEMBER = request_codec.response_format_member(b'{"type":"json_schema"}')
DEEP = b"[" * 5_000 + b"]" * 5_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"custom_id": "a", "body": {"model": "m"}}\r\n', b'{"custom_id": "a", "body": {+,"model": "m"}}\r\n'),
        (b'{"body": { } , "custom_id":"a"}', b'{"body": {+ } , "custom_id":"a"}'),
        (b'\xef\xbb\xbf{"body": {"model": "m"}}', b'\xef\xbb\xbf{"body": {+,"model": "m"}}'),
        (b'{"x": {"model": 1}, "body": {"model": 1}}', b'{"x": {"model": 1}, "body": {+,"model": 1}}'),
        (b'{"body": {"a": 1}, "x": {"a": 1}}', b'{"body": {+,"a": 1}, "x": {"a": 1}}'),
        (b'{"x": {"body": {}}, "body": {}, "y": [{}]}', b'{"x": {"body": {}}, "body": {+}, "y": [{}]}'),
        (b'{"body": {"a": 1}, "body": {"a": 1}}', b'{"body": {"a": 1}, "body": {+,"a": 1}}'),
        (b'{"body": {"x": {"response_format": 1}}}', b'{"body": {+,"x": {"response_format": 1}}}'),
        (b'{"body": {"x": "\\ud83d", "y": 1e999}}', b'{"body": {+,"x": "\\ud83d", "y": 1e999}}'),
        (b'{"body": {"x": %b}}' % DEEP, b'{"body": {+,"x": %b}}' % DEEP),
    ],
)
def test_a_member_that_is_added(line: bytes, expected: bytes) -> None:
    """A body gets ``response_format`` as its first member; no other byte of the line changes."""
    assert request_codec.with_response_format(line, MEMBER) == expected.replace(b"+", MEMBER)


@pytest.mark.parametrize(
    "line",
    [
        b'{"body": {"model": "m", "response_format": {"type": "text"}}}\n',
        b'{"body": {"response_format": null}}',
        b'{"body": {"x": %b, "response_format": 1}}' % DEEP,
        b'{"body": [{"a": 1}]}',
        b'{"custom_id": "a"}',
        b'{"body": "{}"}',
        b"\n",
        b"{",
        b'{"body": {"a": 1',
        b'[{"body": {}}]',
        b"\xff",
    ],
)
def test_a_member_that_is_not_added(line: bytes) -> None:
    """A body that has a ``response_format`` keeps it; a line that is no request is left as it is."""
    assert request_codec.with_response_format(line, MEMBER) == line
