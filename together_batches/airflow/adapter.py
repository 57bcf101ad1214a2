"""Adapter for ``@task.llm_batch`` of the provider ``apache-airflow-providers-common-ai``.

That provider finds it by an entry point, so ``model_id="together:MODEL"`` works once both packages are installed. Its
interface is experimental (common-ai 1.0).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.ai.batch.base import (
    BatchAdapter,
    BatchState,
    ExtractedOutput,
    RawResultItem,
    SubmitResult,
)
from airflow.providers.common.ai.exceptions import LLMBatchLimitExceededError

from together_batches._text import format_count
from together_batches.rows import BatchFailure, BatchSuccess, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import ClassVar

    from airflow.providers.common.ai.batch.output_schema import OutputSpec

    from together_batches.models import BatchJob
    from together_batches.rows import BatchResult
    from together_batches.sync import Batches

__all__ = ["TogetherBatchAdapter"]

_ENDED = {"COMPLETED": "completed", "FAILED": "failed", "EXPIRED": "expired", "CANCELLED": "cancelled"}
_CLOCK_SLACK = timedelta(minutes=5)
"""By how much the clock of the machine that recorded an intent may be ahead of the service's."""


class TogetherBatchAdapter(BatchAdapter):
    """Batch jobs of Together AI for ``@task.llm_batch``.

    It takes connections of the type ``together`` and ``pydanticai``: the password is the API key, and the host the
    base URL. The service may omit a row that failed; common-ai counts such a row as missing.

    :param api_key: the API key; defaults to ``TOGETHER_API_KEY``.
    :param base_url: URL of the service; defaults to ``TOGETHER_BASE_URL``, then to Together AI.
    :param client: a client to use instead of a new one.
    """

    name = "together"
    conn_types: ClassVar[frozenset[str]] = frozenset({"together", "pydanticai"})
    max_requests = 50_000
    max_payload_bytes = 100_000_000
    allows_per_request_model = False

    def __init__(
        self, *, api_key: str | None = None, base_url: str | None = None, client: Batches | None = None
    ) -> None:
        if client is None:
            from together_batches.sync import Batches

            client = Batches(api_key, base_url=base_url)
        self._client: Batches = client

    def validate_requests(
        self,
        requests: list[dict[str, Any]],
        *,
        model: str,
        output_spec: OutputSpec,
        idempotency_key: str,
        **kwargs: Any,
    ) -> None:
        """Refuse more requests, or more bytes of them, than one job takes."""
        self.check_custom_id_length(idempotency_key, len(requests))
        lines = self._lines(requests, model=model, idempotency_key=idempotency_key, spec=output_spec, **kwargs)
        _check("requests", len(requests), self.max_requests)
        _check("bytes of requests", sum(map(len, lines)), self.max_payload_bytes)

    def submit(
        self,
        requests: list[dict[str, Any]],
        *,
        model: str,
        idempotency_key: str,
        input_fingerprint: str,
        output_spec: OutputSpec,
        **kwargs: Any,
    ) -> SubmitResult:
        """Upload the requests, and create exactly one job of them."""
        lines = self._lines(requests, model=model, idempotency_key=idempotency_key, spec=output_spec, **kwargs)
        file = self._client.files.upload(b"".join(lines), filename=_file_name(idempotency_key, input_fingerprint))
        job = self._client.create(file.id)
        return SubmitResult(batch_id=job.id, provider_input_ref=file.id)

    def get_batch(self, batch_id: str) -> BatchState:
        """Return the state of a job. The service counts no rows."""
        job = self._client.retrieve(batch_id)
        return BatchState(status=_ENDED.get(job.status, "in_progress"), counts=None, error_message=job.error)

    def cancel_batch(self, batch_id: str) -> None:
        """Cancel a job."""
        self._client.cancel(batch_id)

    def iter_results(self, batch_id: str) -> Iterator[RawResultItem]:
        """Return an iterator over the results of a job."""
        job = self._client.retrieve(batch_id)
        return self._results(job)

    def _results(self, job: BatchJob) -> Iterator[RawResultItem]:
        with self._client.results(job) as results:
            for result in results:
                item = _item_of(result)
                if item is not None:
                    yield item

    def build_output_directive(self, spec: OutputSpec) -> dict[str, Any]:
        """Return the fields of a request that ask for structured output."""
        if not spec.is_structured:
            return {}
        schema = {"name": spec.schema_name, "schema": spec.json_schema}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def extract_output(self, raw: RawResultItem, spec: OutputSpec) -> ExtractedOutput:
        """Return the text of an answer."""
        if raw.raw is None:
            return ExtractedOutput(kind="absent")
        return ExtractedOutput(kind="json_text" if spec.is_structured else "text", text=raw.raw)

    def find_orphaned_batch(self, idempotency_key: str, input_fingerprint: str, not_before: str) -> str | None:
        """Return the newest job whose file has the name that :meth:`submit` gives, if there is one."""
        name = _file_name(idempotency_key, input_fingerprint)
        files = {file.id for file in self._client.files.list() if file.filename == name}
        since = datetime.fromisoformat(not_before) - _CLOCK_SLACK if not_before else None
        jobs = self._client.list(created_after=since) if files else []
        return next((job.id for job in jobs if job.input_file_id in files), None)  # newest first

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _lines(
        self,
        requests: list[dict[str, Any]],
        *,
        model: str,
        idempotency_key: str,
        spec: OutputSpec,
        system_prompt: str = "",
        max_tokens: int = 1024,
        request_params: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Iterator[bytes]:
        directive = self.build_output_directive(spec)
        for index, request in enumerate(requests):
            messages: list[dict[str, Any]] = [{"role": "user", "content": request["prompt"]}]
            system = request.get("system_prompt") or system_prompt
            if system:
                messages.insert(0, {"role": "system", "content": system})
            body: dict[str, Any] = {
                **(request_params or {}),
                **(request.get("params") or {}),
                "model": self.resolve_request_model(
                    request.get("model"), default_bare_model=model, request_index=index
                ),
                "messages": messages,
                "max_tokens": request.get("max_tokens") or max_tokens,
                **directive,
            }
            line: dict[str, Any] = {"custom_id": f"{idempotency_key}-{index}", "body": body}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        found = format_count(count)
        message = f"a batch job takes at most {format_count(limit)} {what}, not {found}: split them with .expand()"
        raise LLMBatchLimitExceededError(message)


def _file_name(idempotency_key: str, input_fingerprint: str) -> str:
    return f"{idempotency_key}-{input_fingerprint[:16]}.jsonl"


def _item_of(result: BatchResult) -> RawResultItem | None:
    """Return a result as common-ai has it; None for a row of no request, which belongs in no count."""
    if not isinstance(result, BatchSuccess | BatchFailure):
        return None
    custom_id = result.custom_id or ""
    index = custom_id.rpartition("-")[2]
    if not index.isdecimal():
        return None
    if isinstance(result, BatchSuccess):
        usage = result.usage or Usage()
        return RawResultItem(
            custom_id=custom_id,
            index=int(index),
            provider_status="success",
            model=result.body.get("model"),
            usage={"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
            finish_reason=_finish_reason(result.body),
            error=None,
            raw=result.text,
        )
    code = result.code or result.status_code
    return RawResultItem(
        custom_id=custom_id,
        index=int(index),
        provider_status="errored",
        model=None,
        usage=None,
        finish_reason=None,
        error={
            "type": "provider_error",
            "message": result.message,
            "provider_code": None if code is None else str(code),
            "stage": "provider",
        },
        raw=None,
    )


def _finish_reason(body: Mapping[str, Any]) -> str | None:
    try:
        return str(body["choices"][0]["finish_reason"])
    except (KeyError, IndexError, TypeError):
        return None
