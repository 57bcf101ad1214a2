"""Spans and metrics of OpenTelemetry, from the events of a client and from the ledgers of runs.

It needs the extra ``otel``, which is OpenTelemetry's API alone; the SDK and its exporters are the program's own.
Every span is made when it is over, with its recorded times, so that none is open for the hours that a job takes.
Attributes have the names of the conventions for HTTP, and those in use for batches (``gen_ai.batch.id``).

>>> from together_batches.otel import instrument, trace_run
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from together_batches import runs
from together_batches._version import __version__
from together_batches.events import (
    ClientEvent,
    JobChanged,
    JobCreated,
    RateChanged,
    RequestFinished,
    RetryScheduled,
    RunChanged,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context

    from together_batches.client import AsyncBatches
    from together_batches.runs import AttemptView, RunView, ShardView
    from together_batches.sync import Batches

    Attributes: TypeAlias = dict[str, str | int | float | bool]

__all__ = ["instrument", "trace_run"]

_log = logging.getLogger("together_batches")
_NAME = "together_batches"
_JOB: Mapping[str, str] = {"gen_ai.operation.name": "batch", "gen_ai.provider.name": "together_ai"}
_ROW_STATES = ("succeeded", "invalid_answers", "failed", "missing", "invalid", "in_flight", "not_sent")


def instrument(
    client: AsyncBatches | Batches,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Callable[[], None]:
    """Report what a client does as spans and metrics, and return a function that ends that.

    Each attempt of a request becomes a span within the current one, and so does each job when it has finished, if the
    client saw it unfinished. ``on_event`` of the client is called as before, and views of the client are included. A
    failure of OpenTelemetry is logged once, and never raised.

    Parameters:
        client: an ``AsyncBatches`` or a ``Batches``.
        tracer_provider, meter_provider: of the SDK; by default the global ones.
    """
    telemetry = _Telemetry(
        trace.get_tracer(_NAME, __version__, tracer_provider),
        metrics.get_meter(_NAME, __version__, meter_provider),
    )
    return client.__add_callback__(telemetry)


class _Telemetry:
    """The callback: a span or a metric for each event."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._has_failed = False
        self._seconds = meter.create_histogram(
            "http.client.request.duration", "s", "Duration of each attempt of a request."
        )
        self._retries = meter.create_counter("together_batches.retries", "{retry}", "Requests that are sent again.")
        self._rate = meter.create_gauge(
            "together_batches.rate", "{request}/s", "Requests per second that the service allows, if it limits them."
        )
        self._created = meter.create_counter("together_batches.jobs.created", "{job}", "Jobs that were created.")
        self._finished = meter.create_histogram(
            "together_batches.job.duration", "s", "Time from the creation of a job to its end."
        )
        self._rows = meter.create_gauge("together_batches.run.rows", "{row}", "Rows of a run by their state.")

    def __call__(self, event: ClientEvent) -> None:
        try:
            self._note(event)
        except Exception as error:  # noqa: BLE001  # telemetry must not end what it watches
            if not self._has_failed:
                self._has_failed = True
                _log.warning(
                    "OpenTelemetry failed, and failures that follow are not logged: %s: %s",
                    type(error).__name__,
                    error,
                    extra={"where": type(event).__name__},
                )

    def _note(self, event: ClientEvent) -> None:
        match event:
            case RequestFinished():
                self._note_request(event)
            case RetryScheduled():
                where = {"http.request.method": event.method, **_route(event)}
                self._retries.add(1, {**where, "error.type": event.cause})
            case RateChanged():
                if event.rate is not None:
                    self._rate.set(event.rate)
            case JobCreated():
                self._created.add(1, {"together_batches.job.found": event.found})
            case JobChanged():
                self._note_job(event)
            case RunChanged():
                for state in _ROW_STATES:
                    run: Attributes = {"together_batches.run.directory": event.directory}
                    self._rows.set(getattr(event, state), {**run, "together_batches.row.state": state})

    def _note_request(self, event: RequestFinished) -> None:
        end = time.time_ns()
        shared: Attributes = {"http.request.method": event.method, **_server(event.host), **_route(event)}
        is_error = event.status is None or event.status >= 400
        if event.status is not None:
            shared["http.response.status_code"] = event.status
        if is_error:
            shared["error.type"] = event.error or str(event.status)
        self._seconds.record(event.seconds, shared)
        own: Attributes = {}
        if event.attempt > 1:
            own["http.request.resend_count"] = event.attempt - 1
        if event.request_id is not None:
            own["together_batches.request_id"] = event.request_id
        if event.path is not None and (event.route or "").startswith("/batches/{id}"):
            own["gen_ai.batch.id"] = unquote(event.path.split("/")[2])
        span = self._tracer.start_span(
            f"{event.method} {event.route}" if event.route else event.method,
            kind=SpanKind.CLIENT,
            attributes={**shared, **own},
            start_time=end - round(event.seconds * 1e9),
        )
        if is_error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def _note_job(self, event: JobChanged) -> None:
        status, created_at = event.status, event.created_at
        if event.before is None or status is None or not status.is_terminal or created_at is None:
            return
        ended_at = max(created_at, event.completed_at or datetime.now(UTC))
        model: Attributes = {} if event.model_id is None else {"gen_ai.request.model": event.model_id}
        shared: Attributes = {**_JOB, **model, "gen_ai.batch.status": str(status)}
        self._finished.record((ended_at - created_at).total_seconds(), shared)
        ids = {
            "gen_ai.batch.id": event.job_id,
            "gen_ai.batch.endpoint": event.endpoint,
            "gen_ai.batch.input_file_id": event.input_file_id,
        }
        span = self._tracer.start_span(
            _job_name(event.model_id), attributes={**shared, **_present(ids)}, start_time=_nanoseconds(created_at)
        )
        _set_outcome(span, str(status))
        span.end(_nanoseconds(ended_at))


def trace_run(
    directory: str | os.PathLike[str], *, tracer_provider: trace.TracerProvider | None = None
) -> trace.SpanContext:
    """Make the spans of a run from its ledger, with their recorded times, and return the context of the outermost.

    The spans are those of the run, within it of its shards, and within these of their attempts, each with what
    happened to its job as events. The run is a child of the current span, if any. Of a run that is not finished, the
    spans end with what was recorded last. Each call makes new spans, so call it when ``run()`` has returned.

    Parameters:
        directory: where the run is kept.
        tracer_provider: of the SDK; by default the global one.

    Raises:
        RunLedgerError: the directory holds no run, or its ledger cannot be read.
    """
    view = runs.read(directory)
    tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
    ends = [_end_of_shard(shard, view.started_at) for shard in view.shards]
    end = max([view.finished_at or view.started_at, *ends])
    run = tracer.start_span("run", attributes=_of_run(view), start_time=_nanoseconds(view.started_at))
    within = trace.set_span_in_context(run)
    for shard, shard_end in zip(view.shards, ends, strict=True):
        if not shard.attempts:
            continue
        number: Attributes = {"together_batches.shard": shard.number}
        counts = {"together_batches.first_line": shard.first_line, "gen_ai.batch.request_counts.total": shard.rows}
        start = min(attempt.planned_at for attempt in shard.attempts)
        span = tracer.start_span("shard", within, attributes={**number, **counts}, start_time=_nanoseconds(start))
        for attempt in shard.attempts:
            _trace_attempt(tracer, trace.set_span_in_context(span), view, attempt, number)
        span.end(_nanoseconds(shard_end))
    run.end(_nanoseconds(end))
    return run.get_span_context()


def _trace_attempt(
    tracer: trace.Tracer, context: Context, view: RunView, attempt: AttemptView, shard: Attributes
) -> None:
    span = tracer.start_span(
        _job_name(view.model_id),
        context,
        attributes={**shard, **_of_attempt(view, attempt)},
        start_time=_nanoseconds(attempt.planned_at),
    )
    for name, at in _moments(attempt).items():
        span.add_event(name, timestamp=_nanoseconds(at))
    if attempt.status is not None:
        _set_outcome(span, attempt.status)
    span.end(_nanoseconds(_end_of_attempt(attempt)))


def _of_run(view: RunView) -> Attributes:
    facts = {
        "gen_ai.batch.endpoint": view.endpoint,
        "gen_ai.request.model": view.model_id,
        "together_batches.run.directory": str(view.directory),
        "together_batches.run.input": view.input_name,
        "together_batches.run.state": view.state,
        "gen_ai.batch.request_counts.total": view.rows,
        "gen_ai.batch.request_counts.completed": view.succeeded + view.invalid_answers,
        "gen_ai.batch.request_counts.failed": view.failed,
        **{f"together_batches.rows.{state}": getattr(view, state) for state in _ROW_STATES},
        "gen_ai.usage.input_tokens": view.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": view.usage.completion_tokens,
    }
    return {**_JOB, **_present(facts)}


def _of_attempt(view: RunView, attempt: AttemptView) -> Attributes:
    facts: dict[str, str | int | None] = {
        "together_batches.attempt": attempt.number,
        "together_batches.attempt.state": attempt.state,
        "together_batches.job.found": attempt.found,
        "gen_ai.request.model": view.model_id,
        "gen_ai.batch.id": attempt.job_id,
        "gen_ai.batch.status": attempt.status,
        "gen_ai.batch.endpoint": view.endpoint,
        "gen_ai.batch.input_file_id": attempt.file_id,
        "gen_ai.batch.output_file_id": attempt.output_file_id,
        "gen_ai.batch.error_file_id": attempt.error_file_id,
        "gen_ai.batch.request_counts.total": attempt.rows,
    }
    if attempt.collected_at is not None:
        facts |= {
            "gen_ai.batch.request_counts.completed": attempt.succeeded + attempt.invalid_answers,
            "gen_ai.batch.request_counts.failed": attempt.failed + attempt.again,
            "together_batches.rows.missing": attempt.missing,
            "gen_ai.usage.input_tokens": attempt.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": attempt.usage.completion_tokens,
        }
    return {**_JOB, **_present(facts)}


def _moments(attempt: AttemptView) -> dict[str, datetime]:
    """Return what happened to an attempt and when, by the clock of the machine that ran it."""
    moments = {
        "uploaded": attempt.uploaded_at,
        "creating": attempt.creating_at,
        "created": attempt.known_at,
        "running": attempt.running_at,
        "ended": attempt.ended_at,
        "collected": attempt.collected_at,
    }
    return {name: at for name, at in moments.items() if at is not None}


def _end_of_attempt(attempt: AttemptView) -> datetime:
    return max([attempt.planned_at, *_moments(attempt).values()])


def _end_of_shard(shard: ShardView, start: datetime) -> datetime:
    return max([start, *(_end_of_attempt(attempt) for attempt in shard.attempts)])


def _job_name(model: str | None) -> str:
    return "batch" if model is None else f"batch {model}"


def _set_outcome(span: trace.Span, status: str) -> None:
    """Mark the span of a job that ended badly. The service's reason may quote a prompt, and so is not in it."""
    if status in {"FAILED", "EXPIRED"}:
        span.set_attribute("error.type", status)
        span.set_status(Status(StatusCode.ERROR, f"the job is {status}"))


def _server(host: str) -> Attributes:
    address, _, port = host.rpartition(":")
    return {"server.address": address, "server.port": int(port)} if port.isdecimal() else {"server.address": host}


def _route(event: RequestFinished | RetryScheduled) -> Attributes:
    return {} if event.route is None else {"url.template": event.route}


def _present(facts: Mapping[str, str | int | None]) -> Attributes:
    return {name: value for name, value in facts.items() if value is not None}


def _nanoseconds(at: datetime) -> int:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
