"""Tests of the codec: which JSON is read, which is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
import sys
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from together_batches._protocol import json_codec
from together_batches._protocol.json_codec import WireError, job_from_dict
from together_batches._protocol.to_dict import to_dict
from together_batches.errors import ValidationError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)

# --- JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "nothing at all"),
        (b" ", "no JSON"),
        (b"<html>", "no JSON"),
        (b'{"id": "a"', "no JSON"),
        (b'{"id": "a"} trailing', "no JSON"),
        (b"{'id': 'a'}", "no JSON"),
        (b'{"id": NaN}', "no JSON"),
        (b'{"id": Infinity}', "no JSON"),
        (b'{"id": 1e999}', "no JSON"),
        (b'"\xff"', "no JSON"),
        (b'"\\ud800"', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b"9" * 10_000, "no JSON"),
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
        (b'{"id": "a", "x": 1e999}', math.inf),
        (b'{"id": "a", "x": -Infinity}', -math.inf),
        (b'{"id": "a", "x": "\\ud800"}', "\ud800"),
        (b'{"id": "a", "x": "\xe2\x80"}', "\ufffd"),
        (b'{"id": "a", "x": "\x01"}', "\x01"),
    ],
)
def test_what_python_reads_and_json_has_not(text: bytes, value: object) -> None:
    """A value that only Python reads, in an unknown field, affects neither a job nor a list of jobs."""
    assert json_codec.read(text) == {"id": "a", "x": value}
    assert json_codec.job(text) == BatchJob(id="a", extra={"x": value})
    assert [json_codec.job(entry).extra for entry in json_codec.entries(b"[" + text + b"]")] == [{"x": value}]
    with pytest.raises(WireError, match="no JSON"):
        json_codec.decode(text)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[" * 100_000, b'{"id": "a"', b"9" * 10_000])
def test_what_nobody_reads(text: bytes) -> None:
    """Text that nothing reads is refused by every reader."""
    for reader in (json_codec.read, json_codec.job, json_codec.file, json_codec.entries):
        with pytest.raises(WireError, match=r"no JSON|nothing at all"):
            reader(text)


# --- a job in the form of the service -----------------------------------------------------------------------------


def _job(**fields: object) -> BatchJob:
    return json_codec.job({"id": "a", **fields})


def test_every_field_arrives() -> None:
    """Every field is read under its own name, in its own type."""
    sent = {
        "id": "5b0c2d6e",
        "user_id": "6710aa3f",
        "input_file_id": "file-3e9d",
        "file_size_bytes": 48213,
        "status": "COMPLETED",
        "job_deadline": "2026-09-15T10:20:30.481922Z",
        "created_at": "2026-09-14T10:20:30.481925Z",
        "endpoint": "/v1/chat/completions",
        "progress": 100,
        "model_id": "openai/gpt-oss-20b",
        "output_file_id": "file-a447",
        "error_file_id": "file-f81b",
        "error": "text [1]",
        "completed_at": "2026-09-14T10:27:02.1Z",
        "warning": "advice",
        "organization_id": "org-example",
    }
    assert json_codec.job(sent) == BatchJob(
        id="5b0c2d6e",
        user_id="6710aa3f",
        input_file_id="file-3e9d",
        file_size_bytes=48213,
        status=BatchJobStatus.COMPLETED,
        job_deadline=datetime(2026, 9, 15, 10, 20, 30, 481922, UTC),
        created_at=datetime(2026, 9, 14, 10, 20, 30, 481925, UTC),
        endpoint="/v1/chat/completions",
        progress=100.0,
        model_id="openai/gpt-oss-20b",
        output_file_id="file-a447",
        error_file_id="file-f81b",
        error="text [1]",
        completed_at=datetime(2026, 9, 14, 10, 27, 2, 100000, UTC),
        warning="advice",
        extra={"organization_id": "org-example"},
    )


_OPTIONAL = [field.name for field in attrs.fields(BatchJob) if field.name not in {"id", "extra"}]


@pytest.mark.parametrize("name", _OPTIONAL)
@pytest.mark.parametrize("nothing", [None, ""], ids=["null", "empty"])
def test_null_and_empty_are_absent(name: str, nothing: object) -> None:
    """Null and empty are one absent value."""
    assert _job(**{name: nothing}) == BatchJob(id="a")


@pytest.mark.parametrize("name", ["created_at", "completed_at", "job_deadline"])
@pytest.mark.parametrize(
    "zero",
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000000Z", "0001-01-01T00:00:00+09:00", "0001-01-01T00:00:00"],
)
def test_the_zero_time_is_absent(name: str, zero: str) -> None:
    """The zero time is absent, because the backend writes it for null."""
    assert _job(**{name: zero}) == BatchJob(id="a")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-09-14T12:00:00Z", _NOON),
        ("2026-09-14T12:00:00.5Z", _NOON.replace(microsecond=500_000)),
        ("2026-09-14T12:00:00.12Z", _NOON.replace(microsecond=120_000)),
        ("2026-09-14T12:00:00.123Z", _NOON.replace(microsecond=123_000)),
        ("2026-09-14T12:00:00.1234Z", _NOON.replace(microsecond=123_400)),
        ("2026-09-14T12:00:00.12345Z", _NOON.replace(microsecond=123_450)),
        ("2026-09-14T12:00:00.123456Z", _NOON.replace(microsecond=123_456)),
        ("2026-09-14T12:00:00.1234567Z", _NOON.replace(microsecond=123_456)),
        ("2026-09-14T12:00:00.12345678Z", _NOON.replace(microsecond=123_456)),
        ("2026-09-14T12:00:00.123456789Z", _NOON.replace(microsecond=123_456)),
        ("2026-09-14T12:00:00+00:00", _NOON),
        ("2026-09-14T12:00:00-00:00", _NOON),
        ("2026-09-14T21:00:00.000001+09:00", _NOON.replace(microsecond=1)),
        ("2026-09-14T08:30:00-03:30", _NOON),
        ("2026-09-14T12:00:00", _NOON),
        ("2026-09-14 12:00:00Z", _NOON),
    ],
)
def test_a_time_in_any_spelling(text: str, time: datetime) -> None:
    """A time may have zero to nine fractional digits and any offset; without a zone it is UTC, as in the service."""
    job = _job(created_at=text)
    assert job.created_at == time
    assert job.created_at is not None
    assert job.created_at.tzinfo is UTC


@pytest.mark.parametrize("text", ["completed", "Completed", " COMPLETED\\n"])
def test_a_status_in_another_spelling(text: str) -> None:
    """A status in another letter case or with white space is recognised, in a job by itself and in a list."""
    sent = f'{{"id": "a", "status": "{text}"}}'.encode()
    assert json_codec.job(sent).status is BatchJobStatus.COMPLETED
    assert [json_codec.job(entry).status for entry in json_codec.entries(b"[" + sent + b"]")] == [
        BatchJobStatus.COMPLETED
    ]


@pytest.mark.parametrize("status", ["PAUSED", "paused", "COMPLETED?", "0"])
def test_a_status_that_is_not_known(status: str) -> None:
    """An unknown status keeps its text."""
    assert _job(status=status).status == status
    assert _job(status=status).is_terminal is False


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.0), (37.25, 37.25), (100, 100.0), (-0.1, 0.0), (101, 100.0), (10**18, 100.0)]
)
def test_progress_stays_between_nought_and_a_hundred(progress: float, expected: float) -> None:
    """Progress is clamped to the range of a percentage."""
    assert _job(progress=progress).progress == expected


@pytest.mark.parametrize(
    "value", [None, "", 0, False, [], {}, "text", {"nested": [None, ""]}, "0001-01-01T00:00:00Z"]
)
def test_what_is_unknown_is_kept_as_it_came(value: object) -> None:
    """An unknown field is kept even if it is null, empty or zero, because its meaning is unknown."""
    assert _job(request_count=value, extra=value).extra == {"request_count": value, "extra": value}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "null in place of an object"),
        (True, "true or false in place of an object"),
        (7, "a number in place of an object"),
        (7.5, "a number in place of an object"),
        ("job", "text in place of an object"),
        ([], "a list in place of an object"),
    ],
    ids=repr,
)
def test_what_is_no_object_is_no_job(value: object, problem: str) -> None:
    """The error names the type of the value in the terms of JSON."""
    with pytest.raises(WireError) as caught:
        json_codec.job(value, "$[3]")
    assert (caught.value.problem, caught.value.where) == (problem, "$[3]")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "no id"),
        ({"id": None}, "no id"),
        ({"id": ""}, "no id"),
        ({"id": 7}, "a number in place of an id"),
        ({"id": True}, "true or false in place of an id"),
        ({"id": ["a"]}, "a list in place of an id"),
        ({"id": {}}, "an object in place of an id"),
    ],
    ids=repr,
)
def test_a_job_has_an_id(fields: dict[str, object], problem: str) -> None:
    """A job needs an id that is text and not empty; a number is not converted."""
    with pytest.raises(WireError) as caught:
        json_codec.job({"status": "COMPLETED", **fields}, "$[3]")
    assert (caught.value.problem, caught.value.where) == (problem, "$[3].id")


_ODD_FIELDS: list[tuple[str, object]] = [
    *((name, 7) for name in ("endpoint", "model_id", "input_file_id", "user_id", "error")),
    *((name, {}) for name in ("output_file_id", "error_file_id", "warning")),
    ("error", False),
    ("error", {"message": "m"}),
    ("error", ["a"]),
    ("status", 7),
    ("status", 0),
    ("status", []),
    ("status", False),
    ("file_size_bytes", 1.5),
    ("file_size_bytes", 6311.0),
    ("file_size_bytes", "48213"),
    ("file_size_bytes", True),
    ("progress", "37"),
    ("progress", True),
    ("progress", [37]),
    ("created_at", 1789381230),
    ("created_at", 0),
    ("created_at", {}),
    ("completed_at", "yesterday"),
    ("completed_at", "2026-13-01T00:00:00Z"),
    ("completed_at", "2016-12-31T23:59:60Z"),
    ("job_deadline", "9999-12-31T23:59:59-09:00"),
    ("job_deadline", " @ " * 1000),
]


@pytest.mark.parametrize(("name", "value"), _ODD_FIELDS, ids=lambda value: repr(value)[:30])
def test_a_field_that_cannot_be_read(name: str, value: object) -> None:
    """An invalid field is None, with its value in ``extra`` under its name; the rest of the job is read."""
    sent = {"id": "a", "user_id": "u", "project_id": "p", "created_at": "2026-09-14T12:00:00Z", name: value}
    job = json_codec.job(sent)
    assert job == json_codec.job(json.dumps(sent).encode())
    assert (getattr(job, name), job.extra) == (None, {"project_id": "p", name: value})
    assert job == job_from_dict(to_dict(job))
    rest = {"user_id": "u", "created_at": _NOON}
    assert {other: getattr(job, other) for other in rest if other != name} == {
        other: kept for other, kept in rest.items() if other != name
    }


def test_several_fields_that_cannot_be_read() -> None:
    """Each of several invalid fields affects only itself."""
    sent = {"id": "a", "status": "FAILED", "progress": "100", "error": {"code": 1}, "extra": 2}
    job = json_codec.job(sent)
    assert job == BatchJob(id="a", status="FAILED", extra={"progress": "100", "error": {"code": 1}, "extra": 2})
    assert job.is_terminal


def test_a_job_whose_status_cannot_be_read_has_not_ended() -> None:
    """A job with an invalid status has not ended, and the value is kept."""
    job = _job(status=["COMPLETED"])
    assert (job.status, job.is_terminal, job.extra) == (None, False, {"status": ["COMPLETED"]})


def test_a_huge_number_is_a_number() -> None:
    """A huge integer is kept exactly."""
    assert job_from_dict({"id": "a", "file_size_bytes": 2**200}).file_size_bytes == 2**200


# --- the public functions -----------------------------------------------------------------------------------------

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_names = {field.name for field in attrs.fields(BatchJob)} - {"extra"}
_text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_times = st.none() | st.datetimes(datetime(2, 1, 2), timezones=st.just(UTC))
_jobs = st.builds(
    BatchJob,
    id=st.text(min_size=1, max_size=20),
    status=st.none() | st.sampled_from(list(BatchJobStatus)) | st.text(max_size=10),
    progress=st.none() | st.floats() | st.integers(),
    file_size_bytes=st.none() | st.integers(),
    created_at=_times,
    completed_at=_times,
    job_deadline=_times,
    extra=st.dictionaries(st.text(max_size=10).filter(lambda name: name not in _names), _json, max_size=4),
    **dict.fromkeys(
        ["endpoint", "model_id", "input_file_id", "output_file_id", "error_file_id", "error", "user_id", "warning"],
        _text,
    ),
)


@settings(max_examples=80, deadline=None)
@given(_jobs)
@example(BatchJob(id="a", extra={"null": None, "empty": "", "zero": "0001-01-01T00:00:00Z", "extra": {"extra": 1}}))
@example(BatchJob(id="a", extra={"\0extra": {"id": "b"}}))
@example(BatchJob(id="a", status="PAUSED", created_at=datetime(2026, 9, 14, 12, 0, 0, 1, UTC)))
def test_a_job_comes_back_as_it_was(job: BatchJob) -> None:
    """A job with any content, known or not, is equal after a round trip through plain data."""
    decoded = to_dict(job)
    twin = job_from_dict(decoded)
    assert twin == job
    assert twin.extra == job.extra
    assert to_dict(twin) == decoded


@settings(max_examples=50, deadline=None)
@given(_jobs)
def test_a_job_comes_back_through_json(job: BatchJob) -> None:
    """The output of ``to_dict`` is accepted by any JSON library."""
    assert job_from_dict(json.loads(json.dumps(to_dict(job)))) == job


@settings(max_examples=100, deadline=None)
@given(_json)
def test_no_json_crashes_the_reader(value: Any) -> None:
    """Any JSON is a job or raises :class:`WireError`, and nothing else."""
    wheres = []
    for sent in (value, {"id": "a", "status": value}, {"id": value}, {"id": "a", "created_at": value}):
        try:
            json_codec.job(sent)
        except WireError as error:
            wheres.append(error.where)
    assert all(where.startswith("$") for where in wheres)


def test_any_mapping_will_do_and_is_left_as_it_was() -> None:
    """A mapping that is read is not changed."""
    given_ = {"id": "a", "organization_id": "org"}
    assert job_from_dict(MappingProxyType(given_)).extra == {"organization_id": "org"}
    assert given_ == {"id": "a", "organization_id": "org"}


def test_a_mapping_that_is_no_job_is_the_caller_s_mistake() -> None:
    """The error for an invalid mapping names the field."""
    with pytest.raises(
        ValidationError, match=r"this is no batch job: a number in place of an id at \$\.id"
    ) as caught:
        job_from_dict({"id": 7})
    assert caught.value.problems == (str(caught.value),)
    with pytest.raises(ValidationError, match="expected a mapping, not list"):
        job_from_dict(cast("Any", ["id"]))


# --- the quick reader and the thorough one --------------------------------------------------------------------------

_ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.none(), max_size=1)
_TIMES = st.sampled_from(
    ["2026-09-14T10:20:30.5Z", "2026-09-14T10:20:30", "2026-09-14T10:20:30.123456789+09:00", "0001-01-01T00:00:00Z"]
)


@pytest.mark.parametrize("status", ["CANCELING", "COMPLETED"])
def test_what_is_usual_is_read_by_msgspec(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """Usual input is read by msgspec, and not by cattrs, which takes ten times the time."""
    monkeypatch.setattr(json_codec, "_structured", None)
    sent = {"created_at": "2026-09-14T12:00:00.1Z", "completed_at": None, "progress": 40, "file_size_bytes": 3}
    job = _job(status=status, **sent, endpoint="/v1/chat/completions", error_file_id=None, project_id="p")
    assert job.created_at == _NOON.replace(microsecond=100_000)
    assert (job.status, job.progress, job.error_file_id, job.extra) == (status, 40.0, None, {"project_id": "p"})


@given(st.dictionaries(st.sampled_from([*_names, "extra", "project_id"]), _ODD | _TIMES, max_size=8))
def test_every_way_of_reading_a_job_agrees(sent: dict[str, Any]) -> None:
    """msgspec, for text and for a dict, and cattrs yield the same job, and its plain data yields it again."""
    sent["id"] = "job-1"
    job = json_codec.job(sent)
    assert repr(job) == repr(json_codec._structured(BatchJob, sent, "$"))
    assert repr(job) == repr(json_codec.job(json.dumps(sent).encode()))
    assert repr(job) == repr(job_from_dict(to_dict(job)))
    assert type(job) is BatchJob


def test_what_is_unknown_is_read_when_it_is_wanted() -> None:
    """``extra`` is read on first use, and once: it is the job's own dict, copied and pickled with it."""
    job = json_codec.job(b'{"id": "a", "extra": {"b": [1]}, "project_id": "p"}')
    assert job.extra is job.extra
    assert type(job.extra) is dict
    for twin in (pickle.loads(pickle.dumps(job)), copy.deepcopy(job), attrs.evolve(job, user_id=None)):
        assert twin == job
        assert twin.extra == {"extra": {"b": [1]}, "project_id": "p"}
    assert "project_id" in repr(json_codec.job(b'{"id": "a", "project_id": "p"}'))


def test_what_is_unknown_and_too_deep_is_left_out() -> None:
    """``extra`` that is too deep is empty, and does not raise. Since Python 3.12 depth in C has its own limit."""
    deep = b'{"id": "a", "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    job = json_codec.job(deep)

    def deeper(levels: int) -> list[str]:
        return deeper(levels - 1) if levels else list(job.extra)

    assert deeper(150) == ([] if sys.version_info < (3, 12) else ["x"])


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


@given(st.lists(_result_lines(), min_size=1, max_size=3))
def test_rows_that_are_read_together_equal_those_read_alone(lines: list[bytes]) -> None:
    """Lines are read together as each would be read alone, with the same text of the body, or not at all."""
    found = json_codec.answers(b"\n".join([*lines, b""]), len(lines))
    for line, answer in zip(lines, found or [], strict=bool(found)):
        row = json_codec.decode_row(line)
        if answer.response is not None and not answer.error:
            assert (answer.custom_id, answer.response.status_code) == (row.custom_id, row.status_code)
            assert bytes(answer.response.body) == row.body


@pytest.mark.parametrize("body", [b'{"choices": [{"message": {"content": "hi"}}]}', b"{}", b"[" * 300 + b"]" * 300])
def test_usual_lines_are_read_together(body: bytes) -> None:
    """Lines as the service and others write them are read together, whatever the body."""
    line = b'{"id":"br_1","custom_id":"a","response":{"status_code":200,"body":' + body + b"}}\n"
    failure = b'{"id":"br_2","custom_id":"b","error":{"code":"c","message":"m"}}\n'
    first, second = json_codec.answers(line + failure, 2) or []
    assert first.response is not None
    assert (first.custom_id, bytes(first.response.body), first.error) == ("a", body, None)
    assert (second.custom_id, second.response, second.error) == ("b", None, {"code": "c", "message": "m"})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}\n{}",
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
    assert json_codec.answers(usual + b"\n", 1) is not None
    assert json_codec.answers(usual + b"\n" + line + b"\n", 2) is None


@given(
    st.lists(st.sampled_from([b"{}", b"{", b"}", b'{"a":1}', b"", b" ", b"{} {}", b'{"}', b'{"', b"[]"]), min_size=1)
)
def test_lines_that_look_like_objects(lines: list[bytes]) -> None:
    """Lines look like objects if each begins and ends with a brace; if they are JSON, each then is one or several."""
    text = b"\n".join([*lines, b""])
    each = [line.startswith(b"{") and line.endswith(b"}") for line in lines]
    assert json_codec.are_objects(text, len(lines)) == all(each)
    found = json_codec.requests(text.replace(b"{}", b'{"custom_id":"a","body":{"model":"m"}}'), len(lines))
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
