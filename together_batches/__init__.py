"""The async-first client for batch inference jobs on Together AI.

>>> from together_batches import AsyncBatches, Batches, BatchJob, BatchJobStatus

Jobs and errors load at once; the rows of jobs, the clients, and aiohttp with them, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._version import __version__
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
from together_batches.models import BatchJob, BatchJobStatus, FileObject, Response
from together_batches.outcomes import CancelOutcome, CancelReport, CancelResult

if TYPE_CHECKING:
    from together_batches import jsonl, runs
    from together_batches._plain import to_dict
    from together_batches._results import failed_requests
    from together_batches._wire import job_from_dict
    from together_batches.client import AsyncBatches
    from together_batches.rows import (
        BatchFailure,
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
    "to_dict",
]

_ON_FIRST_USE = {
    "AsyncBatches": "together_batches.client",
    "BatchFailure": "together_batches.rows",
    "BatchMissing": "together_batches.rows",
    "BatchRequest": "together_batches.rows",
    "BatchResult": "together_batches.rows",
    "BatchStray": "together_batches.rows",
    "BatchSuccess": "together_batches.rows",
    "Batches": "together_batches.sync",
    "Usage": "together_batches.rows",
    "failed_requests": "together_batches._results",
    "job_from_dict": "together_batches._wire",
    "jsonl": "together_batches.jsonl",
    "runs": "together_batches.runs",
    "to_dict": "together_batches._plain",
}


def __getattr__(name: str) -> object:
    if name not in _ON_FIRST_USE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    module = import_module(_ON_FIRST_USE[name])
    value: object = module if name in {"jsonl", "runs"} else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # The public names, and no modules that happen to be loaded nor what this file imports for itself.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
