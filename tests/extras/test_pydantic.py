"""Values in pydantic: written as plain data, read from JSON, and described by a schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from together_batches import (
    BatchFailure,
    BatchInvalid,
    BatchJob,
    BatchJobStatus,
    BatchMissing,
    BatchRequest,
    BatchResult,
    BatchStray,
    BatchSuccess,
    CancelOutcome,
    CancelReport,
    CancelResult,
    FileObject,
    NotFoundError,
    Price,
    Response,
    RetryPolicy,
    Timeout,
    Usage,
    jsonl,
    runs,
    to_dict,
)
from together_batches.runs import rules

pydantic = pytest.importorskip("pydantic")
jsonschema = pytest.importorskip("jsonschema")

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
JOB = BatchJob(id="a", status="PAUSED", progress=50, created_at=NOON, extra={"organization_id": "org"})
FILE = FileObject(id="file-1", bytes=3, file_type="jsonl", created_at=NOON, processed=True, extra={"more": [1]})
REQUEST = BatchRequest("a", {"model": "m", "messages": []})
ROWS = {"succeeded": 1, "failed": 0, "missing": 0, "not_sent": 0, "usage": Usage(1, 2, 3)}
ATTEMPT = runs.AttemptView(number=1, rows=1, state="collected", planned_at=NOON, status="COMPLETED")
OUTCOMES = [
    CancelOutcome("a", CancelResult.CANCELLED, job=JOB, status_before=JOB.status, requested_at=NOON),
    CancelOutcome("b", CancelResult.NOT_FOUND, error=NotFoundError("none", status=404, request_id=None)),
    CancelOutcome("c", CancelResult.CANCELING, event="accepted"),
]
VALUES = [
    JOB,
    FILE,
    *OUTCOMES,
    CancelReport(OUTCOMES),
    REQUEST,
    jsonl.decode(b'{"custom_id": "a", "method": "FILE", "body": {"model": "m"}}'),
    BatchSuccess("a", {"choices": []}),
    BatchSuccess("a", {"x": float("nan")}, raw="NaN"),
    BatchFailure(None, None, "it failed"),
    BatchInvalid("a", "x", "it is not JSON", BatchSuccess("a", {"choices": []})),
    BatchMissing("a"),
    BatchStray("a", "answered before", "{}"),
    Usage(1, 2, 3),
    Response(status=200, headers={"date": "now"}, body=b"{}", request_id="r"),
    Response(status=200, headers={}, body=b"\xff"),
    Timeout(),
    RetryPolicy(),
    jsonl.validate(b"{}\n"),
    jsonl.Problem("it is blank", 1, 0),
    jsonl.estimate(b'{"custom_id": "a", "body": {"model": "m"}}\n'),
    Price(0.05, 0.2),
    rules.Buckets(1, 2),
    runs.Attempt(shard=1, number=1, rows=3, planned_at=NOON, outcomes=b"xyz"),
    runs.Shard(number=1, first_line=1, rows=3, offset=0, size=30, sha256="ff", skipped=b"x"),
    runs.UnfinishedJobs(jobs=(JOB,), unconfirmed=("file-1",)),
    runs.RunEvent(kind=runs.RunEventKind.BEGUN, message="begun", at=NOON),
    runs.RunReport(
        directory=Path("run"),
        output=None,
        failures=None,
        invalid_lines=None,
        invalid=0,
        job_ids=("a",),
        started_at=NOON,
        finished_at=NOON,
        **ROWS,
    ),
    runs.RunView(
        directory=Path("run"),
        state="running",
        pid=1,
        host="here",
        input_name="in.jsonl",
        input_bytes=3,
        input_sha256="ff",
        endpoint="/v1/chat/completions",
        model_id=None,
        priority=None,
        max_attempts=3,
        started_at=NOON,
        finished_at=None,
        shards=(runs.ShardView(number=1, first_line=1, rows=1, offset=0, bytes=3, attempts=(ATTEMPT,)),),
        invalid=0,
        in_flight=0,
        **ROWS,
    ),
]
each_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(to_dict(value)))


@each_value
def test_a_value_in_a_model(value: Any) -> None:
    """A field of the type of a value accepts an instance as it is, and writes it as :func:`to_dict` does."""
    model = pydantic.create_model("Model", value=(type(value), ...), values=(list[type(value)], ...))
    made = model(value=value, values=[value])
    assert made.value is value
    assert made.model_dump() == {"value": to_dict(value), "values": [to_dict(value)]}
    assert json.loads(made.model_dump_json()) == {"value": _plain(value), "values": [_plain(value)]}


@each_value
def test_a_value_of_unknown_type(value: Any) -> None:
    """A value is written in the same way if the field is of any type."""
    assert json.loads(pydantic.TypeAdapter(dict[str, Any]).dump_json({"x": value})) == {"x": _plain(value)}


@each_value
def test_a_value_in_orjson(value: Any) -> None:
    """Other libraries of JSON take :func:`to_dict` for the types that they do not know."""
    orjson = pytest.importorskip("orjson")
    assert json.loads(orjson.dumps([value], default=to_dict)) == [_plain(value)]


@each_value
def test_the_schema_of_a_value(value: Any) -> None:
    """The schema has the name of the class, names every member of the plain data, and fits it."""
    schema = pydantic.TypeAdapter(type(value)).json_schema(mode="serialization")
    plain = _plain(value)
    jsonschema.validate(plain, schema)
    assert (schema["title"], schema["type"]) == (type(value).__name__, "object")
    others = {"organization_id", "more"}  # of "extra"
    assert plain.keys() - others <= schema["properties"].keys()
    assert schema["description"].endswith((".", ";", ","))
    assert "::" not in schema["description"]


@pytest.mark.parametrize("value", [JOB, FILE, REQUEST], ids=lambda value: type(value).__name__)
def test_a_value_from_json(value: Any) -> None:
    """Jobs, files and requests are read from the JSON that was written."""
    adapter = pydantic.TypeAdapter(type(value))
    assert adapter.validate_json(adapter.dump_json(value)) == value
    assert adapter.validate_python(to_dict(value)) == value


def test_a_file_of_the_service() -> None:
    """A file is read as the service sends it, too."""
    sent = {"id": "file-1", "created_at": 1789387200, "FileType": "jsonl", "Processed": True, "bytes": 3, "more": [1]}
    assert pydantic.TypeAdapter(FileObject).validate_python(sent) == FILE


def test_invalid_fields_of_a_job() -> None:
    """A field that cannot be read costs only itself, as in a job from the service."""
    job = pydantic.TypeAdapter(BatchJob).validate_python({"id": "a", "progress": "much"})
    assert (job.progress, job.extra) == (None, {"progress": "much"})


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        (BatchJob, {}, "invalid batch job: no id at $.id"),
        (BatchJob, 7, "Input should be a valid dictionary"),
        (FileObject, {"id": 7}, "invalid file: a number instead of an id at $.id"),
        (BatchRequest, {"custom_id": "a", "body": 7}, "body is a number, and must be an object"),
        (BatchMissing, {"custom_id": "a"}, "Input should be an instance of BatchMissing"),
        (BatchJobStatus, 7, "Input should be a valid string"),
    ],
)
def test_what_is_no_value(kind: Any, given: Any, reason: str) -> None:
    """An invalid value is an error of pydantic, at the place where it stands, with our reason."""
    model = pydantic.create_model("Model", values=(list[kind], ...))
    with pytest.raises(pydantic.ValidationError) as caught:
        model(values=[given])
    (error,) = caught.value.errors()
    assert (error["loc"], error["msg"]) == (("values", 0), reason)


def test_a_status_is_an_open_string() -> None:
    """Any text is a status, known ones become members, and the schema is a string with examples."""
    adapter = pydantic.TypeAdapter(BatchJobStatus)
    assert adapter.validate_python("canceled") is BatchJobStatus.CANCELLED
    assert isinstance(adapter.validate_json('"PAUSED"'), BatchJobStatus)
    assert adapter.dump_json(BatchJobStatus.EXPIRED) == b'"EXPIRED"'
    assert pydantic.TypeAdapter(list[Any]).dump_json([BatchJobStatus("PAUSED")]) == b'["PAUSED"]'
    schema = adapter.json_schema()
    assert schema == {"type": "string", "examples": [str(status) for status in BatchJobStatus]}
    assert pydantic.TypeAdapter(BatchJob).json_schema()["properties"]["status"] == {**schema, "title": "Status"}


def test_rows_of_each_kind() -> None:
    """A stream of results is a union of its kinds, each with its name in the schema."""
    rows = [value for value in VALUES if isinstance(value, (BatchSuccess, BatchInvalid, BatchFailure, BatchMissing))]
    adapter = pydantic.TypeAdapter(list[BatchResult[int]])
    assert json.loads(adapter.dump_json(adapter.validate_python(rows))) == [_plain(row) for row in rows]
    assert {"BatchSuccess", "BatchInvalid", "BatchFailure", "BatchMissing", "BatchStray"} <= adapter.json_schema()[
        "$defs"
    ].keys()


def test_a_value_with_others_inside() -> None:
    """A value inside another is a definition of its own."""
    schema = pydantic.TypeAdapter(CancelReport).json_schema()
    assert {"BatchJob", "CancelOutcome"} <= schema["$defs"].keys()
    assert schema["$defs"]["CancelOutcome"]["properties"]["job"] == {"$ref": "#/$defs/BatchJob"}
