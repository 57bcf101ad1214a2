"""The errors of this package.

::

    BatchesError
    ├── APIError                            the request failed: the service, or the network
    │   ├── APIStatusError                  a response with an error status
    │   │   ├── BadRequestError             400
    │   │   ├── AuthenticationError         401
    │   │   ├── PermissionDeniedError       403
    │   │   ├── NotFoundError               404
    │   │   ├── ConflictError               409
    │   │   ├── UnprocessableEntityError    422
    │   │   ├── RateLimitError              429
    │   │   └── InternalServerError         5xx
    │   ├── APIConnectionError              no response, or only a part of one
    │   │   └── APITimeoutError             no complete response in time (also a TimeoutError)
    │   └── APIResponseValidationError      an invalid response
    ├── JobNotCreatedError                  the service declined the job, with its reason
    ├── CreateUnconfirmedError              a job may exist, but cannot be identified
    ├── WaitTimeoutError                    jobs were still running (also a TimeoutError)
    ├── ResultsUnavailableError             a job, or a file of its results, stays absent
    ├── RunError                            a durable run cannot continue
    │   ├── RunInUseError                   another process is working on it
    │   ├── RunChangedError                 its input or a setting differs from the original
    │   └── RunLedgerError                  its ledger cannot be read or written
    ├── ValidationError                     invalid user data (also a ValueError)
    └── UsageError                          this package was called incorrectly

The names are those of the official SDK if it has them. Facts are attributes; the text is a sentence.
Every error can be pickled, and none ever contains the API key. Two exceptions are raised deliberately and are not
here: ``TypeError``, such as for one id instead of many or a coroutine function as a callback; and, by tasks of
Airflow, a subclass of :class:`RunError` for rows without an answer.
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
    """The base class of all exceptions that this package raises deliberately."""

    is_transient: bool = False
    """True if the same request may succeed later; only an :class:`APIError` may be."""

    # Exceptions pickle by calling the class with ``args``; these require further arguments besides the text.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints for this error."""
        from together_batches._display import tracebacks

        return tracebacks.rendered(self)


class APIError(BatchesError):
    """The request failed, at the service or on the way to it; ``method`` and ``url`` are those of the request.

    ``is_transient`` is True if the same request may succeed later: the network or the service failed.
    """

    def __init__(self, message: str, *, method: str = "", url: str = "") -> None:
        super().__init__(message)
        self.is_transient = True
        self.message = message
        self.method = method
        self.url = url

    def __str__(self) -> str:
        # Not ``args``, because the reason why a call is not retried is added to ``message``.
        return self.message


class APIStatusError(APIError):
    """The service responded with an error status.

    ``status`` is the HTTP status, ``message`` the service's message, ``body`` the decoded body (its text if it is not
    JSON), ``request_id`` the service's id of this request, or None: quote it to support. ``is_transient`` is True for
    a 5xx, a 408 and a 429.
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
    """400: the service cannot process the request."""


class AuthenticationError(APIStatusError):
    """401: the API key was refused."""


class PermissionDeniedError(APIStatusError):
    """403: the key is valid, but has no permission for the request."""


class NotFoundError(APIStatusError):
    """404: the job or file does not exist for this key."""


class ConflictError(APIStatusError):
    """409: the current state does not allow the request, such as cancelling a job that has finished."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed but invalid."""


class RateLimitError(APIStatusError):
    """429: too many requests. ``retry_after`` is the delay in seconds that the service requested, or None."""

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
    """5xx: the service, or a gateway in front of it, failed."""


class APIConnectionError(APIError):
    """No response was received, or only a part of one.

    ``request_sent`` is False if the request certainly did not reach the service (no connection could be opened), and
    True if it may have been executed. ``status`` is that of a response that broke off, and None if none had begun.
    ``is_transient`` is False if the same request would fail again in the same way: an untrusted certificate, a proxy
    that requires a login.
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
    """No complete response was received in time; also a :class:`TimeoutError`."""


class APIResponseValidationError(APIError):
    """The response is not what the endpoint documents.

    ``expected`` describes a valid response, ``where`` is the path of the invalid value (such as ``$[3].created_at``),
    ``excerpt`` the beginning of the actual response.
    """

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
    """The service accepted the request and created no job; ``warning`` is its reason, or None."""

    def __init__(self, warning: str | None = None) -> None:
        super().__init__(f"the service created no job: {warning or 'it gave no reason'}")
        self.warning = warning


class CreateUnconfirmedError(BatchesError):
    """A create lost its response, and searching for the job was inconclusive.

    Creating it again might pay twice, so the caller decides: ``candidates`` are the jobs that may be the created one
    (empty if none was found), and ``input_file_id`` is the file to search for in ``list``.
    """

    def __init__(self, message: str, *, input_file_id: str, candidates: Iterable[BatchJob] = ()) -> None:
        super().__init__(message)
        self.input_file_id = input_file_id
        self.candidates: tuple[BatchJob, ...] = tuple(candidates)


class WaitTimeoutError(BatchesError, TimeoutError):
    """The time limit of a wait is over; ``jobs`` are those still running, as last seen. They are not affected."""

    def __init__(self, message: str, *, jobs: Iterable[BatchJob] = ()) -> None:
        super().__init__(message)
        self.jobs: tuple[BatchJob, ...] = tuple(jobs)


class ResultsUnavailableError(BatchesError):
    """A job that existed, or a file of its results, stayed absent for longer than ``patience``.

    Its rows may have been answered and charged, so they are not sent again. ``job_id`` is the job (None if only the
    file is known), ``file_ids`` are the files that could not be read, empty if the job itself is absent or names no
    file.
    """

    def __init__(self, message: str, *, job_id: str | None = None, file_ids: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.file_ids: tuple[str, ...] = tuple(file_ids)


class RunError(BatchesError):
    """A durable run cannot continue; ``directory`` is where it is kept. Completed work is kept.

    ``directory`` is empty if the records are not in one, but with a caller that drives single attempts.
    """

    def __init__(self, message: str, *, directory: str) -> None:
        super().__init__(message)
        self.directory = directory


class RunInUseError(RunError):
    """Another process is working on this run, or has taken it over: ``pid`` on ``host``, each None if unknown."""

    def __init__(self, message: str, *, directory: str, pid: int | None = None, host: str | None = None) -> None:
        super().__init__(message, directory=directory)
        self.pid = pid
        self.host = host


class RunChangedError(RunError):
    """The input, or a setting that affects the requests, differs from that of the run."""


class RunLedgerError(RunError):
    """The ledger of a run cannot be read or written: corrupt, of a newer version, locked, or on a full disk.

    It is never treated as empty, because the jobs in it would be paid for again.
    """


class ValidationError(BatchesError, ValueError):
    """Invalid user data; ``problems`` are all that were found, each a sentence with its location.

    By default, the message is the only one.
    """

    def __init__(self, message: str, *, problems: Iterable[str] | None = None) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = (message,) if problems is None else tuple(problems)


class UsageError(BatchesError):
    """An invalid argument or configuration, a closed client, or a client used from another loop or process."""
