"""The part of common-ai that the adapter uses, so that the package is checked without it."""

from collections.abc import Mapping
from typing import Any, ClassVar

class SubmitResult:
    batch_id: str

    def __init__(self, *, batch_id: str, provider_input_ref: str | None) -> None: ...

class BatchState:
    status: str

    def __init__(self, *, status: str, counts: Mapping[str, int] | None, error_message: str | None) -> None: ...

class RawResultItem:
    raw: Any

    def __init__(
        self,
        *,
        custom_id: str,
        index: int,
        provider_status: str,
        model: str | None,
        usage: Mapping[str, int] | None,
        finish_reason: str | None,
        error: Mapping[str, Any] | None,
        raw: Any,
    ) -> None: ...

class ExtractedOutput:
    def __init__(self, *, kind: str, text: str | None = None) -> None: ...

class BatchAdapter:
    name: ClassVar[str]
    conn_types: ClassVar[frozenset[str]]
    max_requests: ClassVar[int]
    max_payload_bytes: ClassVar[int]
    allows_per_request_model: ClassVar[bool]

    def check_custom_id_length(self, idempotency_key: str, request_count: int) -> None: ...
    def resolve_request_model(
        self, request_model: str | None, *, default_bare_model: str, request_index: int
    ) -> str: ...
