"""Spans and metrics of OpenTelemetry, read back from the exporters in memory of its SDK."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from wires import AT_ONCE, KEY

from together_batches import AsyncBatches, Batches, BatchRequest, RunLedgerError, runs
from together_batches.emulator import Emulator, Failure, Fault, Timing
from together_batches.otel import instrument, trace_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from together_batches.events import ClientEvent

PROMPT = "What is the capital of Peru?"


class Telemetry:
    """Providers of the SDK, and what they were given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracers, "meter_provider": self.meters}

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def points(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


def facts(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


# --- a client ---------------------------------------------------------------------------------------------------


async def test_the_spans_of_requests(emulator: Emulator, telemetry: Telemetry) -> None:
    """Each attempt is a span within the current one, and is named by its route."""
    emulator.fail(Fault(on="cancel", status=503))
    job_id = emulator.add_job(status="IN_PROGRESS")
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches:
        instrument(batches, **telemetry.providers)
        with telemetry.tracers.get_tracer("mine").start_as_current_span("nightly") as nightly:
            await batches.cancel(job_id)
        await batches.with_options(timeout=3).list()
    first, second, _, listed = telemetry.spans
    for span in (first, second):
        assert span.name == "POST /batches/{id}/cancel"
        assert span.kind is SpanKind.CLIENT
        assert span.parent is not None
        assert span.parent.span_id == nightly.get_span_context().span_id
        assert facts(span)["gen_ai.batch.id"] == job_id
        assert facts(span)["server.address"] == "127.0.0.1"
        assert facts(span)["server.port"] == emulator.port
        assert 0 < seconds(span) < 5
    assert first.status.status_code is StatusCode.ERROR
    assert (facts(first)["http.response.status_code"], facts(first)["error.type"]) == (503, "503")
    assert "http.request.resend_count" not in facts(first)
    assert second.status.status_code is StatusCode.UNSET
    assert (facts(second)["http.response.status_code"], facts(second)["http.request.resend_count"]) == (200, 1)
    assert facts(second)["together_batches.request_id"]
    assert (listed.name, listed.parent) == ("GET /batches", None)


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
async def test_the_span_of_a_job(telemetry: Telemetry, status: str) -> None:
    """A job becomes a span when it has finished, from its creation to its end, and none is open before."""
    async with (
        Emulator(api_key=KEY, timing=Timing(validating=600, running=36_000)) as emulator,
        AsyncBatches(KEY, base_url=emulator.base_url) as batches,
    ):
        instrument(batches, **telemetry.providers)
        emulator.ends_as = status
        job = await batches.create(emulator.add_file(b'{"custom_id": "1"}\n'), model_id="some-model")
        assert [span.name for span in telemetry.spans] == ["POST /batches"]
        emulator.advance(40_000)
        ended = await batches.wait(job)
        await batches.retrieve(job)
    (span,) = [span for span in telemetry.spans if span.name.startswith("batch")]
    assert facts(span)["gen_ai.batch.id"] == job.id
    assert facts(span)["gen_ai.batch.status"] == status
    assert facts(span)["gen_ai.batch.input_file_id"] == job.input_file_id
    assert facts(span)["gen_ai.operation.name"] == "batch"
    assert job.created_at is not None
    assert ended.completed_at is not None
    assert span.start_time == round(job.created_at.timestamp() * 1e6) * 1000
    assert span.end_time == round(ended.completed_at.timestamp() * 1e6) * 1000
    assert (span.status.status_code is StatusCode.ERROR) == (status == "FAILED")
    (duration,) = telemetry.points["together_batches.job.duration"]
    assert duration.sum == pytest.approx(seconds(span))


async def test_the_metrics(emulator: Emulator, telemetry: Telemetry, tmp_path: Path) -> None:
    """Requests, retries, the rate, jobs and the rows of a run are metrics."""
    emulator.timing = Timing(validating=0, running=0)
    emulator.fail(Fault(on="files", status=500))
    emulator.fail(Fault(on="list", status=429, times=2))
    requests = [BatchRequest(str(number), {"model": "m", "messages": []}) for number in range(3)]
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=AT_ONCE) as batches:
        instrument(batches, **telemetry.providers)
        await batches.files.list()
        await batches.list()
        await batches.run(requests, tmp_path / "out.jsonl", poll_interval=0.01)
    points = telemetry.points
    durations = points["http.client.request.duration"]
    assert {point.attributes.get("url.template") for point in durations} >= {"/batches", "/files", "/batches/{id}"}
    assert all(point.attributes["server.address"] for point in durations)
    causes = Counter[str]()
    for point in points["together_batches.retries"]:
        causes[point.attributes["error.type"]] += point.value
    assert causes == {"InternalServerError": 1, "RateLimitError": 2}
    assert [point.value > 0 for point in points["together_batches.rate"]] == [True]
    assert [point.value for point in points["together_batches.jobs.created"]] == [1]
    rows = {
        point.attributes["together_batches.row.state"]: point.value for point in points["together_batches.run.rows"]
    }
    assert (rows["succeeded"], rows["not_sent"], sum(rows.values())) == (3, 0, 3)


async def test_it_chains_onto_a_callback(emulator: Emulator, telemetry: Telemetry) -> None:
    """``on_event`` is called as before, and after the end of telemetry, too."""
    heard: list[ClientEvent] = []
    async with AsyncBatches(KEY, base_url=emulator.base_url, on_event=heard.append) as batches:
        stop = instrument(batches, **telemetry.providers)
        await batches.list()
        stop()
        await batches.list()
        stop()
    assert (len(heard), len(telemetry.spans)) == (2, 1)


def test_the_synchronous_client(telemetry: Telemetry) -> None:
    """The spans of a ``Batches`` are within the current span of the thread that calls it."""
    with (
        Emulator(api_key=KEY).running_in_thread() as emulator,
        Batches(KEY, base_url=emulator.base_url) as batches,
    ):
        instrument(batches, **telemetry.providers)
        with telemetry.tracers.get_tracer("mine").start_as_current_span("nightly") as nightly:
            batches.list()
    assert telemetry.spans[0].parent == nightly.get_span_context()


async def test_a_failure_is_never_raised(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """A failure of a provider is logged once, and does not end the call."""

    class Broken(SpanExporter):
        pass

    tracers = TracerProvider(shutdown_on_exit=False)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no spans today")

    tracers.get_tracer = lambda *_, **__: type("Tracer", (), {"start_span": fail})()  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, logger="together_batches"):
        async with AsyncBatches(KEY, base_url=emulator.base_url) as batches:
            instrument(batches, tracer_provider=tracers)
            assert await batches.list() == []
            assert await batches.list() == []
    assert [record.getMessage() for record in caplog.records] == [
        "OpenTelemetry failed, and failures that follow are not logged: RuntimeError: no spans today"
    ]


async def test_without_an_sdk(emulator: Emulator) -> None:
    """The API alone reports nothing, and changes nothing."""
    async with AsyncBatches(KEY, base_url=emulator.base_url) as batches:
        instrument(batches)
        assert await batches.list() == []


# --- a run ------------------------------------------------------------------------------------------------------


async def run(emulator: Emulator, output: Path, rows: int, per_job: int, **options: Any) -> runs.RunReport:
    """A run of which every second row fails, in each of its two attempts."""

    def answer(request: Mapping[str, object]) -> Failure | None:
        return Failure(code="internal_error") if int(str(request["custom_id"])) % 2 else None

    emulator.answer = answer
    emulator.timing = Timing(validating=0, running=0)
    message = {"role": "user", "content": PROMPT}
    requests = [BatchRequest(str(number), {"model": "some-model", "messages": [message]}) for number in range(rows)]
    async with AsyncBatches(KEY, base_url=emulator.base_url) as batches:
        fixed = {"poll_interval": 0.01, "max_attempts": 2, "patience": 0, "retry_delays": 0}
        return await batches.run(requests, output, max_rows_per_job=per_job, **fixed, **options)


async def test_the_spans_of_a_run(emulator: Emulator, telemetry: Telemetry, tmp_path: Path) -> None:
    """A run of 20 shards with two attempts each is a trace of 61 spans with the times of its ledger."""
    report = await run(emulator, tmp_path / "out.jsonl", 40, 2, model_id="some-model")
    assert (report.succeeded, report.failed) == (20, 20)
    began = datetime.now(UTC)
    context = trace_run(report.directory, tracer_provider=telemetry.tracers)
    spans = telemetry.spans
    assert Counter(span.name for span in spans) == {"run": 1, "shard": 20, "batch some-model": 40}
    assert {span.context.trace_id for span in spans if span.context} == {context.trace_id}
    assert all(span.end_time is not None and span.end_time < began.timestamp() * 1e9 for span in spans)
    by_id = {span.context.span_id: span for span in spans if span.context}
    root = by_id[context.span_id]
    assert root.parent is None
    view = runs.read(report.directory)
    attempts = {attempt.job_id: (shard, attempt) for shard in view.shards for attempt in shard.attempts}
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert seconds(span) >= 0
        if span.parent is not None:
            above = by_id[span.parent.span_id]
            assert above.start_time is not None
            assert above.end_time is not None
            assert above.start_time <= span.start_time <= span.end_time <= above.end_time
        if span.name.startswith("batch"):
            shard, attempt = attempts.pop(facts(span)["gen_ai.batch.id"])
            assert facts(span)["together_batches.shard"] == shard.number
            assert facts(span)["together_batches.attempt"] == attempt.number
            assert facts(span)["gen_ai.batch.status"] == "COMPLETED"
            assert facts(span)["gen_ai.batch.input_file_id"] == attempt.file_id
            assert facts(span)["gen_ai.batch.request_counts.total"] == (2 if attempt.number == 1 else 1)
            assert facts(span)["gen_ai.batch.request_counts.completed"] == (1 if attempt.number == 1 else 0)
            assert facts(span)["gen_ai.batch.request_counts.failed"] == 1
            assert [span.events[0].name, span.events[-1].name] == ["uploaded", "collected"]
            assert attempt.collected_at is not None
            assert span.events[-1].timestamp == span.end_time
            assert span.end_time == round(attempt.collected_at.timestamp() * 1e6) * 1000
    assert attempts == {}
    assert facts(root)["gen_ai.batch.request_counts.total"] == 40
    assert facts(root)["gen_ai.batch.request_counts.completed"] == 20
    assert facts(root)["gen_ai.batch.request_counts.failed"] == 20
    assert facts(root)["together_batches.run.state"] == "finished"
    assert facts(root)["gen_ai.usage.output_tokens"] == report.usage.completion_tokens
    assert PROMPT not in str([span.to_json() for span in spans])


async def test_the_spans_of_a_run_that_was_stopped(emulator: Emulator, telemetry: Telemetry, tmp_path: Path) -> None:
    """The spans of an unfinished run end with what was recorded last, and shards without an attempt have none."""
    report = await run(emulator, tmp_path / "out.jsonl", 6, 2, stop_after_rows=2, max_jobs=1)
    assert report.not_sent
    with telemetry.tracers.get_tracer("mine").start_as_current_span("nightly") as nightly:
        context = trace_run(str(report.directory), tracer_provider=telemetry.tracers)
    assert context.trace_id == nightly.get_span_context().trace_id
    spans = telemetry.spans
    assert Counter(span.name for span in spans)["shard"] < 3
    (root,) = [span for span in spans if span.name == "run"]
    assert root.parent == nightly.get_span_context()
    assert root.end_time == max(span.end_time or 0 for span in spans if span.name == "batch")
    assert facts(root)["together_batches.run.state"] == "interrupted"


async def test_a_job_that_failed_as_a_whole(emulator: Emulator, telemetry: Telemetry, tmp_path: Path) -> None:
    """The span of a failed job is an error, without the reason of the service, which may quote a request."""
    emulator.ends_as = "FAILED"
    report = await run(emulator, tmp_path / "out.jsonl", 2, 2)
    trace_run(report.directory, tracer_provider=telemetry.tracers)
    failed = [span for span in telemetry.spans if span.name == "batch"]
    assert failed
    for span in failed:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "the job is FAILED"
        assert facts(span)["error.type"] == "FAILED"


def test_a_directory_without_a_run(tmp_path: Path, telemetry: Telemetry) -> None:
    """Without a ledger there is nothing to trace."""
    with pytest.raises(RunLedgerError):
        trace_run(tmp_path, tracer_provider=telemetry.tracers)
    assert telemetry.spans == ()
