"""Tests of the codec of jobs and files: what is read, what is refused and where, and that nothing is lost."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
from datetime import UTC, datetime
from traceback import TracebackException
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from together_batches._protocol import job_codec
from together_batches._protocol.job_codec import job_from_dict
from together_batches._protocol.json_codec import WireError
from together_batches._protocol.to_dict import to_dict
from together_batches.errors import ValidationError
from together_batches.models import BatchJob, BatchJobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


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
    assert job_codec.job(text) == BatchJob(id="a", extra={"x": value})
    assert [job_codec.job(entry).extra for entry in job_codec.entries(b"[" + text + b"]")] == [{"x": value}]


@pytest.mark.parametrize("text", [b"", b"<html>", b"[" * 100_000, b'{"id": "a"', b"9" * 10_000])
def test_what_nobody_reads(text: bytes) -> None:
    """Text that nothing reads is refused by every reader."""
    for reader in (job_codec.job, job_codec.file, job_codec.entries):
        with pytest.raises(WireError, match=r"invalid JSON|an empty body"):
            reader(text)


# --- a job in the form of the service -----------------------------------------------------------------------------


def _job(**fields: object) -> BatchJob:
    return job_codec.job({"id": "a", **fields})


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
    assert job_codec.job(sent) == BatchJob(
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


def _listed(sent: object) -> BatchJob:
    """Return the only job in a list."""
    (entry,) = job_codec.entries(json.dumps([sent]).encode())
    return job_codec.job(entry)


_OPTIONAL = [field.name for field in attrs.fields(BatchJob) if field.name not in {"id", "extra"}]


@pytest.mark.parametrize("name", _OPTIONAL)
@pytest.mark.parametrize("nothing", [None, ""], ids=["null", "empty"])
def test_null_and_empty_are_absent(name: str, nothing: object) -> None:
    """Null and empty are one absent value."""
    sent = {"id": "a", name: nothing}
    assert job_codec.job(sent) == _listed(sent) == BatchJob(id="a")
    assert getattr(_listed(sent), name) is None


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
    assert job_codec.job(sent).status is BatchJobStatus.COMPLETED
    assert [job_codec.job(entry).status for entry in job_codec.entries(b"[" + sent + b"]")] == [
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
        (None, "null instead of an object"),
        (True, "true or false instead of an object"),
        (7, "a number instead of an object"),
        (7.5, "a number instead of an object"),
        ("job", "text instead of an object"),
        ([], "a list instead of an object"),
    ],
    ids=repr,
)
def test_what_is_no_object_is_no_job(value: object, problem: str) -> None:
    """The error names the type of the value in the terms of JSON."""
    with pytest.raises(WireError) as caught:
        job_codec.job(value, "$[3]")
    assert (caught.value.problem, caught.value.where) == (problem, "$[3]")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "no id"),
        ({"id": None}, "no id"),
        ({"id": ""}, "no id"),
        ({"id": 7}, "a number instead of an id"),
        ({"id": True}, "true or false instead of an id"),
        ({"id": ["a"]}, "a list instead of an id"),
        ({"id": {}}, "an object instead of an id"),
    ],
    ids=repr,
)
def test_a_job_has_an_id(fields: dict[str, object], problem: str) -> None:
    """A job needs an id that is text and not empty; a number is not converted."""
    with pytest.raises(WireError) as caught:
        job_codec.job({"status": "COMPLETED", **fields}, "$[3]")
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
    job = job_codec.job(sent)
    assert job == job_codec.job(json.dumps(sent).encode())
    assert (getattr(job, name), job.extra) == (None, {"project_id": "p", name: value})
    assert job == job_from_dict(to_dict(job))
    rest = {"user_id": "u", "created_at": _NOON}
    assert {other: getattr(job, other) for other in rest if other != name} == {
        other: kept for other, kept in rest.items() if other != name
    }


def test_several_fields_that_cannot_be_read() -> None:
    """Each of several invalid fields affects only itself."""
    sent = {"id": "a", "status": "FAILED", "progress": "100", "error": {"code": 1}, "extra": 2}
    job = job_codec.job(sent)
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
            job_codec.job(sent)
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
    with pytest.raises(ValidationError, match=r"invalid batch job: a number instead of an id at \$\.id") as caught:
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
    monkeypatch.setattr(job_codec, "_structured", None)
    sent = {"created_at": "2026-09-14T12:00:00.1Z", "completed_at": None, "progress": 40, "file_size_bytes": 3}
    job = _job(status=status, **sent, endpoint="/v1/chat/completions", error_file_id=None, project_id="p")
    assert job.created_at == _NOON.replace(microsecond=100_000)
    assert (job.status, job.progress, job.error_file_id, job.extra) == (status, 40.0, None, {"project_id": "p"})


@given(st.dictionaries(st.sampled_from([*_names, "extra", "project_id"]), _ODD | _TIMES, max_size=8))
def test_every_way_of_reading_a_job_agrees(sent: dict[str, Any]) -> None:
    """msgspec, for text, in a list and for a dict, and cattrs yield the same job; so does its plain data."""
    sent["id"] = "job-1"
    job = job_codec.job(sent)
    assert repr(job) == repr(job_codec._structured(BatchJob, sent, "$"))
    assert repr(job) == repr(job_codec.job(json.dumps(sent).encode()))
    assert repr(job) == repr(job_from_dict(to_dict(job)))
    assert repr(job) == repr(_listed(sent))
    assert repr(_listed(sent).extra) == repr(job.extra)
    assert type(job) is BatchJob


@given(st.dictionaries(st.sampled_from([*_names, "project_id"]), _ODD | _TIMES, max_size=8), st.data())
def test_a_job_of_a_list_is_read_in_any_order(sent: dict[str, Any], data: st.DataObject) -> None:
    """Fields of a job of a list are read on first use; the order in which they are used makes no difference."""
    sent["id"] = "job-1"
    names = data.draw(st.permutations([field.name for field in attrs.fields(BatchJob)]))
    job, listed = job_codec.job(sent), _listed(sent)
    for name in names:
        value = getattr(listed, name)
        assert repr(value) == repr(getattr(job, name))
        assert getattr(listed, name) is value


_WAYS: list[Callable[[BatchJob], BatchJob]] = [
    lambda job: pickle.loads(pickle.dumps(job)),
    copy.copy,
    copy.deepcopy,
    lambda job: attrs.evolve(job, user_id=None),
    lambda job: job_from_dict(to_dict(job)),
]


@pytest.mark.parametrize("way", _WAYS, ids=["pickle", "copy", "deepcopy", "evolve", "to_dict"])
def test_a_job_of_a_list_is_copied_whole(way: Callable[[BatchJob], BatchJob]) -> None:
    """A job of a list whose fields were not used is copied, compared and hashed with all of them."""
    sent = {"id": "a", "status": "FAILED", "created_at": "2026-09-14T12:00:00Z", "model_id": "m", "x": [1]}
    job = BatchJob(id="a", status="FAILED", created_at=_NOON, model_id="m", extra={"x": [1]})
    assert way(_listed(sent)) == job == _listed(sent)
    assert hash(_listed(sent)) == hash(job)


@pytest.mark.parametrize("job", [BatchJob(id="a"), job_codec.job(b'{"id": "a"}'), _listed({"id": "a"})])
def test_a_job_has_no_other_attributes(job: BatchJob) -> None:
    """A name that is not that of a field is an AttributeError, as for any other value."""
    assert not hasattr(job, "read")
    with pytest.raises(AttributeError, match="'BatchJob' object has no attribute 'label'"):
        job.label  # type: ignore[attr-defined]  # noqa: B018


def test_a_number_that_nothing_reads_does_not_cost_the_list() -> None:
    """A job of a list keeps its id and status although one of its fields is a number that nothing reads."""
    text = b'[{"id": "a", "status": "FAILED", "output_file_id": "f", "progress": ' + b"9" * 10_000 + b"}]"
    (job,) = map(job_codec.job, job_codec.entries(text))
    assert (job.progress, job.extra) == (None, {})
    assert (job.id, job.status, job.output_file_id) == ("a", "FAILED", "f")


def test_what_is_unknown_is_read_when_it_is_wanted() -> None:
    """``extra`` is read on first use, and once: it is the job's own dict, copied and pickled with it."""
    job = job_codec.job(b'{"id": "a", "extra": {"b": [1]}, "project_id": "p"}')
    assert job.extra is job.extra
    assert type(job.extra) is dict
    for twin in (pickle.loads(pickle.dumps(job)), copy.deepcopy(job), attrs.evolve(job, user_id=None)):
        assert twin == job
        assert twin.extra == {"extra": {"b": [1]}, "project_id": "p"}
    assert "project_id" in repr(job_codec.job(b'{"id": "a", "project_id": "p"}'))


def test_what_is_unknown_and_too_deep_is_left_out() -> None:
    """``extra`` that is too deep is empty, and does not raise. Since Python 3.12 depth in C has its own limit."""
    deep = b'{"id": "a", "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    job = job_codec.job(deep)

    def deeper(levels: int) -> list[str]:
        return deeper(levels - 1) if levels else list(job.extra)

    assert deeper(150) == ([] if sys.version_info < (3, 12) else ["x"])


def test_the_error_for_what_is_no_job_can_be_shown() -> None:
    """An error can be shown with the variables of its frames: none of them is a half-made job."""
    with pytest.raises(WireError) as caught:
        job_codec.job(b'{"id": "a", "created_at": "soon", "progress": ' + b"9" * 10_000 + b"}")
    assert "WireError" in "".join(TracebackException.from_exception(caught.value, capture_locals=True).format())
