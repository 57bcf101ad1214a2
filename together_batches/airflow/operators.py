"""Operators of batch jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from together_batches.airflow._airflow import AirflowFailException, BaseOperator
from together_batches.airflow.hook import TogetherHook
from together_batches.errors import (
    AuthenticationError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)
from together_batches.outcomes import CancelResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from together_batches.airflow._airflow import Context
    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelReport

__all__ = ["TogetherCancelOperator"]


class TogetherCancelOperator(BaseOperator):
    """Cancel batch jobs: those of given ids, or all that match filters and have not finished.

    The result is a dict: ``summary``, a sentence; ``counts`` of jobs by result; ``failures``, the first hundred jobs
    that could not be cancelled, each with ``job_id``, ``result`` and ``error``. It is pushed before the task fails,
    which it does if any job could not be cancelled; without a retry, if a retry cannot help. A job that had finished
    before is no failure.

    :param job_ids: an id, or ids (templated). With ``job_ids``, no filter applies.
    :param status: cancel jobs of this status, or these (templated).
    :param model_id: cancel jobs of this model (templated).
    :param older_than: cancel jobs created at least this long ago.
    :param all_jobs: cancel every unfinished job of the account; without it, and without ids, a filter is required.
    :param wait: wait until each job has stopped. The worker is busy meanwhile.
    :param timeout: maximum seconds for the whole task; unlimited by default.
    :param conn_id: the connection to use (templated).
    """

    template_fields: Sequence[str] = ("job_ids", "status", "model_id", "conn_id")

    def __init__(
        self,
        *,
        job_ids: str | Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
        model_id: str | None = None,
        older_than: timedelta | None = None,
        all_jobs: bool = False,
        wait: bool = False,
        timeout: float | None = None,
        conn_id: str = TogetherHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_ids = job_ids
        self.status = status
        self.model_id = model_id
        self.older_than = older_than
        self.all_jobs = all_jobs
        self.wait = wait
        self.timeout = timeout
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel the jobs, and return the report."""
        try:
            report = self._cancel()
        except (UsageError, AuthenticationError, PermissionDeniedError) as error:
            raise AirflowFailException(str(error)) from error
        result = _as_data(report)
        self.log.info("%s", report)
        if not report.ok:
            context["ti"].xcom_push(key="return_value", value=result)
            raise _failure(report)
        return result

    def _cancel(self) -> CancelReport:
        by_filters = self.all_jobs or any(
            given is not None for given in (self.status, self.model_id, self.older_than)
        )
        if by_filters == (self.job_ids is not None):
            message = "give job_ids, or filters (status, model_id, older_than), or all_jobs=True; not ids and filters"
            raise UsageError(message)
        with TogetherHook(self.conn_id).get_conn() as client:
            job_ids: Iterable[str | BatchJob]
            if self.job_ids is None:
                found = client.list(status=self.status, model_id=self.model_id, created_before=self.older_than)
                job_ids = [job for job in found if not job.is_terminal]
            else:
                job_ids = [self.job_ids] if isinstance(self.job_ids, str) else self.job_ids
            return client.cancel_many(job_ids, wait=self.wait, timeout=self.timeout)


_FAILURES_IN_RESULT = 100


def _as_data(report: CancelReport) -> dict[str, Any]:
    """Return a report as small data for XCom."""
    return {
        "summary": str(report),
        "counts": {str(result): count for result, count in report.counts.items() if count},
        "failures": [
            {"job_id": failure.job_id, "result": str(failure.result), "error": str(failure.error)}
            for failure in report.failures[:_FAILURES_IN_RESULT]
        ],
    }


def _failure(report: CancelReport) -> Exception:
    """Return the error of a report with failures: one that fails the task for good if no retry can help."""
    first = report.failures[0]
    message = f"{report}; the first that could not be cancelled is {first.job_id}: {first.error}"
    lasting = all(
        failure.result in {CancelResult.NOT_FOUND, CancelResult.DENIED}
        or isinstance(failure.error, AuthenticationError | NotFoundError | UsageError)
        for failure in report.failures
    )
    return AirflowFailException(message) if lasting else BatchesError(message)
