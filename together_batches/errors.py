"""Everything that this package raises on purpose.

::

    BatchesError
    ├── APIError                            the service, or the way to it
    │   ├── APIStatusError                  it answered with an error status
    │   │   ├── BadRequestError             400
    │   │   ├── AuthenticationError         401
    │   │   ├── PermissionDeniedError       403
    │   │   ├── NotFoundError               404
    │   │   ├── ConflictError               409
    │   │   ├── UnprocessableEntityError    422
    │   │   ├── RateLimitError              429
    │   │   └── InternalServerError         5xx
    │   ├── APIConnectionError              no answer, or half of one
    │   │   └── APITimeoutError             none in time (also a TimeoutError)
    │   └── APIResponseValidationError      an answer that is no answer
    ├── JobNotCreatedError                  the service declined, and said why
    ├── CreateUnconfirmedError              a job may exist; which one cannot be told
    ├── WaitTimeoutError                    jobs were still running (also a TimeoutError)
    ├── ResultsUnavailableError             a job, or a file of its results, stays absent
    ├── RunError                            a durable run cannot go on
    │   ├── RunInUseError                   another process is at it
    │   ├── RunChangedError                 its input or a setting is not what it began with
    │   └── RunLedgerError                  what it had noted cannot be read or written
    ├── ValidationError                     your data is wrong (also a ValueError)
    └── UsageError                          this package was called wrongly

The names are those of the official SDK where it has them. Facts are attributes; the text is a sentence.
Every error can be pickled, and none ever holds the API key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from together_batches.models import BatchJob

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BatchesError",
    "ConflictError",
    "CreateUnconfirmedError",
    "InternalServerError",
    "JobNotCreatedError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResultsUnavailableError",
    "RunChangedError",
    "RunError",
    "RunInUseError",
    "RunLedgerError",
    "UnprocessableEntityError",
    "UsageError",
    "ValidationError",
    "WaitTimeoutError",
]


def _restore(cls: type[BatchesError], args: tuple[Any, ...], state: dict[str, Any]) -> BatchesError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BatchesError(Exception):
    """The root: ``except BatchesError`` catches all that this package raises on purpose."""

    # Exceptions pickle by calling the class with ``args``; ours have required facts beside the text.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


class APIError(BatchesError):
    """The service, or the way to it, failed; ``method`` and ``url`` are those of the call.

    ``is_transient`` says whether the same call may succeed later: the network failed, or the service is in trouble.
    """

    def __init__(self, message: str, *, method: str = "", url: str = "") -> None:
        super().__init__(message)
        self.is_transient = True
        self.message = message
        self.method = method
        self.url = url

    def __str__(self) -> str:
        # Not ``args``: the reason why a call is not repeated is added to ``message``.
        return self.message


class APIStatusError(APIError):
    """The service answered with an error status.

    ``status`` is the HTTP status, ``message`` what the service said, ``body`` the decoded body (the text where
    it was no JSON), ``request_id`` the service's name for this request, if it gave one: quote it to support. It
    ``is_transient`` if it is a 5xx, a 408 or a 429.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        request_id: str | None = None,
        body: object = None,
        method: str = "",
        url: str = "",
    ) -> None:
        super().__init__(message, method=method, url=url)
        self.status = status
        self.is_transient: bool = status >= 500 or status in {408, 429}
        self.request_id = request_id
        self.body = body

    def __str__(self) -> str:
        request = f" to {self.method} {self.url}" if self.method else ""
        quoted = f" (request id {self.request_id})" if self.request_id else ""
        return f"the service answered {self.status}{request}: {self.message}{quoted}"


class BadRequestError(APIStatusError):
    """400: the request makes no sense to the service."""


class AuthenticationError(APIStatusError):
    """401: the API key was refused."""


class PermissionDeniedError(APIStatusError):
    """403: the key is known, but may not do this."""


class NotFoundError(APIStatusError):
    """404: no such job or file for this key."""


class ConflictError(APIStatusError):
    """409: the state of the thing forbids it, such as cancelling a job that has finished."""


class UnprocessableEntityError(APIStatusError):
    """422: well-formed, and still unacceptable."""


class RateLimitError(APIStatusError):
    """429: too many requests. ``retry_after`` is the wait in seconds that the service asked for, if any."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        request_id: str | None = None,
        body: object = None,
        method: str = "",
        url: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id, body=body, method=method, url=url)
        self.retry_after = retry_after


class InternalServerError(APIStatusError):
    """5xx: the service, or a gateway before it, is in trouble."""


class APIConnectionError(APIError):
    """No answer came, or only a part of one.

    ``request_sent`` is False where the request certainly did not reach the service (no connection could be
    opened), and True if it may have been acted upon. ``status`` is that of an answer that broke off, and None if none
    had begun. ``is_transient`` is False if the same call would fail in the same way again: an untrusted certificate,
    a proxy that wants a login.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        request_sent: bool = True,
        status: int | None = None,
        is_transient: bool = True,
    ) -> None:
        super().__init__(message, method=method, url=url)
        self.request_sent = request_sent
        self.status = status
        self.is_transient = is_transient


class APITimeoutError(APIConnectionError, TimeoutError):
    """No whole answer came in time; also a :class:`TimeoutError`."""


class APIResponseValidationError(APIError):
    """An answer came that is none: ``expected`` says what should have come, ``where`` is the path of what was
    wrong (such as ``$[3].created_at``), ``excerpt`` the beginning of what came instead."""

    def __init__(
        self,
        message: str,
        *,
        expected: str = "",
        where: str = "$",
        excerpt: str = "",
        method: str = "",
        url: str = "",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, method=method, url=url)
        self.expected = expected
        self.where = where
        self.excerpt = excerpt
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        request = f" to {self.method} {self.url}" if self.method else ""
        quoted = f" (request id {self.request_id})" if self.request_id else ""
        came = f"; it began {self.excerpt!r}" if self.excerpt else ""
        return f"the answer{request} is not {self.expected}: {self.message} at {self.where}{came}{quoted}"


class JobNotCreatedError(BatchesError):
    """The service took the request and created no job; ``warning`` is its reason, where it gave one."""

    def __init__(self, warning: str | None = None) -> None:
        super().__init__(f"the service created no job: {warning or 'it gave no reason'}")
        self.warning = warning


class CreateUnconfirmedError(BatchesError):
    """A create was sent, its answer was lost, and looking for the job did not settle what became of it.

    Creating again might pay twice, so that is left to you: ``candidates`` are the jobs that could be the one
    (none where none was found), and ``input_file_id`` is what to look for in ``list``.
    """

    def __init__(self, message: str, *, input_file_id: str, candidates: Iterable[BatchJob] = ()) -> None:
        super().__init__(message)
        self.input_file_id = input_file_id
        self.candidates: tuple[BatchJob, ...] = tuple(candidates)


class WaitTimeoutError(BatchesError, TimeoutError):
    """The time given to a wait is over; ``jobs`` are those still running, as last seen. They were left alone."""

    def __init__(self, message: str, *, jobs: Iterable[BatchJob] = ()) -> None:
        super().__init__(message)
        self.jobs: tuple[BatchJob, ...] = tuple(jobs)


class ResultsUnavailableError(BatchesError):
    """A job that existed, or a file of its results, stayed absent for longer than ``patience``.

    Its rows may have been answered and paid for, so they are not sent again. ``job_id`` is the job (None if only
    the file is known), ``file_ids`` are the files that could not be read, none if the job itself is absent or names
    no file.
    """

    def __init__(self, message: str, *, job_id: str | None = None, file_ids: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.file_ids: tuple[str, ...] = tuple(file_ids)


class RunError(BatchesError):
    """A durable run cannot go on; ``directory`` is where it is kept. What it had done stays done."""

    def __init__(self, message: str, *, directory: str) -> None:
        super().__init__(message)
        self.directory = directory


class RunInUseError(RunError):
    """Another process is at this run, or has taken it over: ``pid`` on ``host``, each None if unknown."""

    def __init__(self, message: str, *, directory: str, pid: int | None = None, host: str | None = None) -> None:
        super().__init__(message, directory=directory)
        self.pid = pid
        self.host = host


class RunChangedError(RunError):
    """The input, or a setting that is part of the requests, is not the one that the run began with."""


class RunLedgerError(RunError):
    """The ledger of a run cannot be read or written: broken, of a newer version, locked, or on a full disk.

    It is never taken for an empty one: the jobs that it names would be paid for again.
    """


class ValidationError(BatchesError, ValueError):
    """Data of yours is wrong; ``problems`` are all that were found, each a sentence that says where."""

    def __init__(self, message: str, *, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = tuple(problems)


class UsageError(BatchesError):
    """A bad argument or configuration, a closed client, or a client used from another loop or process."""
