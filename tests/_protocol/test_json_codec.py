"""Tests of the codec: which JSON is read, which is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

import enum
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

from together_batches._protocol import json_codec
from together_batches._protocol.json_codec import WireError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


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
    """Classes instead of numpy's, because numpy is not a dependency."""
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
