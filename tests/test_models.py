"""The values of the service: frozen, comparable, hashable, with one representation of absence."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import attrs
import pytest

from together_batches import job_from_dict
from together_batches.models import BatchJob, BatchJobStatus, Response

if TYPE_CHECKING:
    from collections.abc import Callable

# --- status -------------------------------------------------------------------------------------------------------

_ALL = ["VALIDATING", "IN_PROGRESS", "CANCELING", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED"]
_TERMINAL = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}
_UNKNOWN = ["PAUSED", "paused ", "IN_PROGRESS_SOON", "COMPLETED!", "\N{SNOWMAN}"]

_WAYS: list[Callable[[object], object]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]
_each_way = pytest.mark.parametrize("way", _WAYS, ids=["copy", "deepcopy", *map("pickle {}".format, range(6))])


def test_the_known_statuses_are_those_of_the_service() -> None:
    """The known statuses are the six of the reference, and CANCELING, which the service sends too."""
    assert list(BatchJobStatus) == _ALL


@pytest.mark.parametrize("text", _ALL)
def test_a_known_status(text: str) -> None:
    """A known status equals its text, is a single object, and knows if it is terminal."""
    status = BatchJobStatus(text)
    assert status is BatchJobStatus[text]
    assert str(status) == f"{status}" == status == text
    assert status.is_terminal is (text in _TERMINAL)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("completed", "COMPLETED"),
        ("Cancelled", "CANCELLED"),
        (" FAILED\n", "FAILED"),
        ("\tin_progress", "IN_PROGRESS"),
        ("In Progress", "IN_PROGRESS"),
        ("CANCELED", "CANCELLED"),
        ("canceled", "CANCELLED"),
        ("CANCELLING", "CANCELING"),
    ],
)
def test_a_known_status_in_another_spelling(text: str, status: str) -> None:
    """A known status is recognised in any letter case, with white space, and with one L or two."""
    assert BatchJobStatus(text) is BatchJobStatus[status]
    job = BatchJob(id="a", status=text)
    assert job.status is BatchJobStatus[status]
    assert job_from_dict({"id": "a", "status": text}) == job
    assert job.is_terminal is (status in _TERMINAL)


@pytest.mark.parametrize("text", _UNKNOWN)
def test_an_unknown_status(text: str) -> None:
    """An unknown status keeps its text, is not terminal, and equals another one of the same text."""
    status = BatchJobStatus(text)
    assert isinstance(status, BatchJobStatus)
    assert str(status) == f"{status}" == status == status.value == status.name == text
    assert status.is_terminal is False
    assert status == BatchJobStatus(text)
    assert hash(status) == hash(BatchJobStatus(text)) == hash(text)
    assert {status: 1}[BatchJobStatus(text)] == 1
    assert text in repr(status)


@pytest.mark.parametrize("text", [*_ALL, *_UNKNOWN])
@_each_way
def test_a_status_survives_a_copy(text: str, way: Callable[[object], object]) -> None:
    """A known or unknown status survives a copy with the same text."""
    twin = way(BatchJobStatus(text))
    assert type(twin) is BatchJobStatus
    assert twin == text


def test_unknown_statuses_are_not_remembered() -> None:
    """Unknown statuses are not added to the members of the enum."""
    BatchJobStatus("NONSENSE")
    assert list(BatchJobStatus) == _ALL
    assert "NONSENSE" not in BatchJobStatus.__members__


@pytest.mark.parametrize("value", [None, 7, b"COMPLETED", ["COMPLETED"]], ids=repr)
def test_a_status_is_text(value: object) -> None:
    """A status that is not text is an error."""
    with pytest.raises(ValueError, match="not a valid BatchJobStatus"):
        BatchJobStatus(value)  # type: ignore[arg-type]


# --- job ----------------------------------------------------------------------------------------------------------

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
_JOB = BatchJob(
    id="a",
    status="PAUSED",
    progress=12.5,
    created_at=_NOON,
    model_id="m",
    file_size_bytes=2**70,
    extra={"organization_id": "org", "nested": {"list": [1, None, ""]}},
)


def test_a_job_needs_nothing_but_an_id() -> None:
    """Only the id of a job is required; every other field may be absent, and is None then."""
    job = BatchJob(id="a")
    rest = {name: value for name, value in attrs.asdict(job).items() if name not in {"id", "extra"}}
    assert set(rest.values()) == {None}
    assert job.extra == {}
    assert job.is_terminal is False


def test_a_job_is_named_by_keywords_only() -> None:
    """The fields of a job are keyword-only, because the order of fifteen is hard to remember."""
    with pytest.raises(TypeError, match="positional"):
        BatchJob("a")  # type: ignore[misc]


def test_a_job_cannot_be_changed() -> None:
    """A job has no settable attributes, neither fields nor others."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        _JOB.status = None  # type: ignore[misc]
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        _JOB.label = "mine"  # type: ignore[attr-defined]


def test_the_empty_text_is_absent() -> None:
    """An empty text is None, because a backend sends it as null."""
    names = [
        "endpoint",
        "model_id",
        "input_file_id",
        "output_file_id",
        "error_file_id",
        "error",
        "user_id",
        "warning",
    ]
    job = BatchJob(id="a", status="", **dict.fromkeys(names, ""))  # type: ignore[arg-type]
    assert job == BatchJob(id="a")


@pytest.mark.parametrize("name", ["created_at", "completed_at", "job_deadline"])
@pytest.mark.parametrize(
    "zero",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-9))),
    ],
    ids=str,
)
def test_the_zero_time_is_absent(name: str, zero: datetime) -> None:
    """A zero time is None in any time zone, because a backend sends it as null."""
    assert BatchJob(id="a", **{name: zero}) == BatchJob(id="a")  # type: ignore[arg-type]


def test_times_are_in_utc() -> None:
    """Times are converted to UTC, so that equal moments are equal values."""
    tokyo = _NOON.astimezone(timezone(timedelta(hours=9)))
    job = BatchJob(id="a", created_at=tokyo)
    assert job.created_at == _NOON
    assert job.created_at is not None
    assert job.created_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    """A time without a zone is refused, because its moment is unknown."""
    with pytest.raises(ValueError, match="invalid time 2026-09-14T12:00:00: it has no time zone; pass an aware"):
        BatchJob(id="a", created_at=datetime(2026, 9, 14, 12))


@pytest.mark.parametrize(
    ("given", "progress"),
    [(0, 0), (100, 100), (37.25, 37.25), (-3, 0), (100.0001, 100), (float("inf"), 100), (float("nan"), None)],
)
def test_progress_is_a_percentage(given: float, progress: float | None) -> None:
    """Progress is a percentage: values beyond the ends are clamped, and invalid ones are None."""
    assert BatchJob(id="a", progress=given).progress == progress


@pytest.mark.parametrize("status", [*_ALL, "PAUSED"])
def test_a_job_is_terminal_where_its_status_is(status: str) -> None:
    """``job.is_terminal`` equals that of its status."""
    assert BatchJob(id="a", status=status).is_terminal is (status in _TERMINAL)


def test_a_job_is_a_key() -> None:
    """Equal jobs have equal hashes, and ``extra``, which may contain anything, is ignored."""
    other = attrs.evolve(_JOB, extra={"organization_id": "other"})
    assert hash(other) == hash(_JOB)
    assert other != _JOB
    assert len({_JOB, attrs.evolve(_JOB), other}) == 2


def test_extra_holds_only_what_has_no_field() -> None:
    """``extra`` has no keys of fields, because two values for one fact could disagree."""
    with pytest.raises(ValueError, match="has these: model_id, status"):
        BatchJob(id="a", extra={"status": "COMPLETED", "model_id": "m", "other": 1})


def test_extra_holds_what_a_field_cannot() -> None:
    """``extra`` keeps values that a field cannot represent, until the field has a value."""
    odd = {"created_at": "soon", "file_size_bytes": "6311", "progress": [1], "error": {"code": 1}, "id": 7}
    job = BatchJob(id="a", error="e", extra={**odd, "other": 1})
    assert job.extra == {"created_at": "soon", "file_size_bytes": "6311", "progress": [1], "other": 1}
    assert attrs.evolve(job, created_at=_NOON, progress=1).extra == {"file_size_bytes": "6311", "other": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [("created_at", "2026-09-14T12:00:00Z"), ("progress", 5), ("file_size_bytes", 5), ("error", None), ("error", "")],
)
def test_extra_does_not_hold_what_the_field_could(name: str, value: object) -> None:
    """``extra`` refuses values that belong in a field, where readers of the job expect them."""
    with pytest.raises(ValueError, match=f"has these: {name}"):
        BatchJob(id="a", extra={name: value})


def test_extra_may_hold_a_key_named_extra() -> None:
    """``extra`` may have a key named extra, because the service may use that name too."""
    assert BatchJob(id="a", extra={"extra": 1}).extra == {"extra": 1}


@_each_way
def test_a_job_survives_a_copy(way: Callable[[object], object]) -> None:
    """A job survives a copy, with its unknown status and ``extra``."""
    assert way(_JOB) == _JOB


# --- response -----------------------------------------------------------------------------------------------------

_RESPONSE = Response(status=200, headers={"set-cookie": "session=secret"}, body=b"secret", request_id="oJ3x")


def test_a_response_shows_neither_headers_nor_body() -> None:
    """The ``repr`` of a response has neither headers nor body, so that a log line reveals nothing."""
    assert repr(_RESPONSE) == "Response(status=200, request_id='oJ3x')"


@_each_way
def test_a_response_survives_a_copy(way: Callable[[object], object]) -> None:
    """A response survives a copy completely."""
    assert way(_RESPONSE) == _RESPONSE
    assert hash(way(_RESPONSE)) == hash(_RESPONSE)
