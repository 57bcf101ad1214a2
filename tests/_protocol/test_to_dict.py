"""Tests of values as plain data: what is written, what is omitted, and that any JSON library accepts it."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import pytest

from together_batches._fields import Plain
from together_batches._protocol.carried_body import Body
from together_batches._protocol.result_lines import read_row
from together_batches._protocol.to_dict import line_of, to_dict
from together_batches.config import Timeout
from together_batches.errors import NotFoundError, UsageError
from together_batches.jsonl import decode, validate
from together_batches.models import BatchJob, BatchJobStatus, FileObject, Response
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult
from together_batches.rows import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
    Usage,
)

_NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)


def test_a_job_as_plain_data() -> None:
    """Absent fields are omitted, times end in Z, the status is text, and entries of ``extra`` are beside fields."""
    job = BatchJob(id="a", status="PAUSED", progress=50, created_at=_NOON, extra={"organization_id": None})
    plain = to_dict(job)
    assert plain == {
        "id": "a",
        "status": "PAUSED",
        "progress": 50.0,
        "created_at": "2026-09-14T12:00:00Z",
        "organization_id": None,
    }
    assert type(plain["status"]) is str


def test_a_file_as_plain_data() -> None:
    """A file is written like a job: absent fields are omitted, and entries of ``extra`` are beside the fields."""
    file = FileObject(id="file-1", bytes=0, processed=False, created_at=_NOON, extra={"organization_id": None})
    assert to_dict(file) == {
        "id": "file-1",
        "bytes": 0,
        "processed": False,
        "created_at": "2026-09-14T12:00:00Z",
        "organization_id": None,
    }


def test_an_outcome_as_plain_data() -> None:
    """An outcome has the job if it is known, and the error as text and facts."""
    error = NotFoundError("Job not found", status=404, request_id="oJ3x")
    assert to_dict(CancelOutcome("a", CancelResult.CANCELLED, job=BatchJob(id="a"), attempts=1)) == {
        "job_id": "a",
        "result": "cancelled",
        "attempts": 1,
        "accepted": False,
        "job": {"id": "a"},
    }
    assert to_dict(CancelOutcome("b", CancelResult.NOT_FOUND, error=error, attempts=2)) == {
        "job_id": "b",
        "result": "not_found",
        "attempts": 2,
        "accepted": False,
        "error": {"type": "NotFoundError", "message": str(error), "status": 404, "request_id": "oJ3x"},
    }
    plain = to_dict(
        CancelOutcome(
            "c",
            CancelResult.CANCELING,
            accepted=True,
            status_before=BatchJobStatus.VALIDATING,
            requested_at=datetime(2026, 9, 14, 10, 20, 30, tzinfo=UTC),
            event="accepted",
        )
    )
    assert plain == {
        "job_id": "c",
        "event": "accepted",
        "result": "canceling",
        "attempts": 0,
        "accepted": True,
        "status_before": "VALIDATING",
        "requested_at": "2026-09-14T10:20:30Z",
    }
    assert json.loads(json.dumps(plain)) == plain
    assert to_dict(CancelOutcome("", CancelResult.FAILED, error=UsageError("a job id is empty")))["error"] == {
        "type": "UsageError",
        "message": "a job id is empty",
    }


def test_a_report_as_plain_data() -> None:
    """A report is complete, and ready for JSON."""
    report = CancelReport([CancelOutcome("a", CancelResult.CANCELLED), CancelOutcome("b", CancelResult.FAILED)])
    plain = to_dict(report)
    assert (plain["ok"], plain["counts"]["cancelled"], plain["counts"]["denied"]) == (False, 1, 0)
    assert [outcome["job_id"] for outcome in plain["outcomes"]] == ["a", "b"]
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            BatchSuccess("a", {"text": "x", "other": None}),
            {"custom_id": "a", "result": "success", "status_code": 200, "body": {"text": "x", "other": None}},
        ),
        (
            BatchFailure("a", "timeout", "too slow", 504, "{}"),
            {
                "custom_id": "a",
                "result": "failure",
                "code": "timeout",
                "message": "too slow",
                "status_code": 504,
                "raw": "{}",
            },
        ),
        (BatchFailure(None, None, "no JSON"), {"custom_id": None, "result": "failure", "message": "no JSON"}),
        (
            BatchSuccess("a", {"text": "7"}, parsed=7),
            {"custom_id": "a", "result": "success", "status_code": 200, "body": {"text": "7"}},
        ),
        (
            BatchInvalid("a", "x", "why", BatchSuccess("a", {"text": "x"})),
            {"custom_id": "a", "result": "invalid", "status_code": 200, "body": {"text": "x"}, "error": "why"},
        ),
        (BatchMissing("a"), {"custom_id": "a", "result": "missing"}),
        (BatchStray("a", "why", "{}"), {"custom_id": "a", "result": "stray", "reason": "why", "raw": "{}"}),
        (Usage(1, 2, 3), {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
    ],
)
def test_a_row_as_plain_data(row: BatchResult[object] | Usage, expected: dict[str, object]) -> None:
    """A row has its kind; absent fields are omitted, except that an absent id is null."""
    assert to_dict(row) == expected


_VALUES = [
    BatchJob(id="a", status="PAUSED", created_at=_NOON, extra={"more": [1]}),
    FileObject(id="file-1", bytes=0),
    BatchRequest("a", {"model": "m"}),
    decode(b'{"custom_id": "a", "method": "FILE", "body": {"model": "m"}}'),
    BatchSuccess("a", {"text": "x"}),
    BatchMissing("a"),
    CancelReport([CancelOutcome("a", CancelResult.FAILED, error=UsageError("no id"))]),
    Response(status=200, headers={"date": "now"}, body=b"{}"),
    Timeout(),
    validate(b"{}"),
]


@pytest.mark.parametrize("value", _VALUES, ids=lambda value: type(value).__name__)
def test_a_value_in_any_json_library(value: Any) -> None:
    """``to_dict`` is the function for unknown types of each library; ``vars`` gives the same plain data."""
    expected = {"values": [to_dict(value)]}
    given = {"values": [value]}
    assert json.loads(json.dumps(given, default=to_dict)) == expected
    assert json.loads(json.dumps(given, default=vars)) == expected
    assert msgspec.json.decode(msgspec.json.encode(given, enc_hook=to_dict)) == expected
    assert to_dict(pickle.loads(pickle.dumps(value))) == to_dict(copy.copy(value)) == to_dict(value)


def test_a_response_as_plain_data() -> None:
    """The body of a response is text, or base64 if it is none."""
    assert to_dict(Response(status=200, headers={}, body=b"{}", request_id="r")) == {
        "status": 200,
        "headers": {},
        "body": "{}",
        "request_id": "r",
    }
    assert to_dict(Response(status=200, headers={}, body=b"\xff"))["body_base64"] == "/w=="


def test_fields_that_attrs_finds() -> None:
    """A value is a class of attrs, although the list of its fields is not an attribute of its own."""
    assert [field.name for field in attrs.fields(Usage)] == ["prompt_tokens", "completion_tokens", "total_tokens"]
    assert attrs.evolve(Usage(1), total_tokens=2) == Usage(1, 0, 2)
    assert attrs.has(BatchJob)
    assert not attrs.has(Plain)
    assert not hasattr(Usage, "__pydantic_serializer__") or "pydantic_core" in sys.modules


def test_what_is_no_value_of_this_package() -> None:
    """A value of another type is refused, and the error names the type."""
    with pytest.raises(TypeError, match=r"to_dict takes the values of this package, not int"):
        to_dict(7)  # type: ignore[arg-type]


def test_an_answer_that_json_cannot_say() -> None:
    """An answer that JSON cannot represent is omitted, and is in ``raw``; any other that Python read is written."""
    line = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": %b}}}'
    plain = to_dict(read_row(line % b"NaN"))
    assert plain == {"custom_id": "a", "result": "success", "status_code": 200, "raw": (line % b"NaN").decode()}
    plain = to_dict(read_row(line % b'"\x01"'))
    assert (plain["body"], plain["raw"]) == ({"x": "\x01"}, (line % b'"\x01"').decode())


def test_a_row_as_a_line() -> None:
    """The answer in a line is as received; everything else is as in :func:`to_dict`, and JSON in any case."""
    body = b'{"x": 1E400, "y":\t"\\ud83d", "x": 12345678901234567890123}'
    row = BatchSuccess("\u00e9", Body(body), 201)
    assert line_of(row) == '{"custom_id":"\u00e9","result":"success","body":'.encode() + body + b',"status_code":201}'
    assert line_of(BatchMissing("a")) == b'{"custom_id":"a","result":"missing"}'
    invalid = BatchInvalid("\u00e9", None, 'why: "x"', row)
    begin = '{"custom_id":"\u00e9","result":"invalid","body":'.encode()
    assert line_of(invalid) == begin + body + b',"status_code":201,"error":"why: \\"x\\""}'
    for half in (
        BatchSuccess("\ud83d", Body(b"{}")),
        BatchInvalid("\ud83d", None, "x", BatchSuccess("\ud83d", Body(b"{}"))),
    ):
        assert json.loads(line_of(half))["custom_id"] == "\ud83d"
    stray = BatchStray("\ud83d", "why")
    assert json.loads(line_of(stray)) == to_dict(stray)
