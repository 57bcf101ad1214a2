"""The async-first client for batch inference jobs on Together AI.

>>> from together_batches import AsyncBatches, Batches, BatchJob, BatchJobStatus

Every name is loaded on first use, so that a program loads only what it uses: the command loads no client, and errors
load no aiohttp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._version import __version__

if TYPE_CHECKING:
    from together_batches import jsonl, runs, tables
    from together_batches._jobs.results import failed_requests
    from together_batches._protocol.job_codec import job_from_dict
    from together_batches._protocol.to_dict import to_dict
    from together_batches.client import AsyncBatches
    from together_batches.config import RetryPolicy, Timeout
    from together_batches.errors import (
        APIConnectionError,
        APIError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BatchesError,
        ConflictError,
        CreateUnconfirmedError,
        InternalServerError,
        JobNotCreatedError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        ResultsUnavailableError,
        RunChangedError,
        RunError,
        RunInUseError,
        RunLedgerError,
        UnprocessableEntityError,
        UsageError,
        ValidationError,
        WaitTimeoutError,
    )
    from together_batches.models import BatchJob, BatchJobStatus, FileObject, Price, Response
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
    from together_batches.sync import Batches

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncBatches",
    "AuthenticationError",
    "BadRequestError",
    "BatchFailure",
    "BatchInvalid",
    "BatchJob",
    "BatchJobStatus",
    "BatchMissing",
    "BatchRequest",
    "BatchResult",
    "BatchStray",
    "BatchSuccess",
    "Batches",
    "BatchesError",
    "CancelOutcome",
    "CancelReport",
    "CancelResult",
    "ConflictError",
    "CreateUnconfirmedError",
    "FileObject",
    "InternalServerError",
    "JobNotCreatedError",
    "NotFoundError",
    "PermissionDeniedError",
    "Price",
    "RateLimitError",
    "Response",
    "ResultsUnavailableError",
    "RetryPolicy",
    "RunChangedError",
    "RunError",
    "RunInUseError",
    "RunLedgerError",
    "Timeout",
    "UnprocessableEntityError",
    "Usage",
    "UsageError",
    "ValidationError",
    "WaitTimeoutError",
    "__version__",
    "failed_requests",
    "job_from_dict",
    "jsonl",
    "runs",
    "tables",
    "to_dict",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "_protocol.to_dict": ("to_dict",),
    "_jobs.results": ("failed_requests",),
    "_protocol.job_codec": ("job_from_dict",),
    "client": ("AsyncBatches",),
    "config": ("RetryPolicy", "Timeout"),
    "models": ("BatchJob", "BatchJobStatus", "FileObject", "Price", "Response"),
    "outcomes": ("CancelOutcome", "CancelReport", "CancelResult"),
    "rows": (
        "BatchFailure",
        "BatchInvalid",
        "BatchMissing",
        "BatchRequest",
        "BatchResult",
        "BatchStray",
        "BatchSuccess",
        "Usage",
    ),
    "sync": ("Batches",),
}
"""The public names of each module; those in no other are errors."""

_MODULES = {"config", "errors", "events", "jsonl", "models", "outcomes", "runs", "tables"}
"""Modules that are also loaded on first use."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Only the public names, without modules that happen to be loaded and the imports of this file.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
