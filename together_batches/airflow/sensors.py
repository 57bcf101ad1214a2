"""Sensor of batch jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from together_batches.airflow._airflow import AirflowFailException, BaseSensorOperator
from together_batches.airflow._common import explained_deferral, failing_for_good
from together_batches.airflow.hook import TogetherHook
from together_batches.errors import BatchesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from together_batches.airflow._airflow import Context

__all__ = ["TogetherBatchSensor"]


class TogetherBatchSensor(BaseSensorOperator):
    """Wait until a batch job has finished, whatever created it.

    The result is a dict with ``job_id``, ``status``, ``output_file_id`` and ``error_file_id``.

    :param job_id: the id of the job (templated).
    :param conn_id: the connection to use (templated).
    :param allowed_statuses: the final status, or statuses, with which the task succeeds; any other fails it, without
        a retry.
    :param deferrable: wait in the triggerer, together with all other tasks, without a worker. Otherwise
        ``poke_interval`` and ``mode`` apply.
    """

    template_fields: Sequence[str] = ("job_id", "conn_id")

    def __init__(
        self,
        *,
        job_id: str,
        conn_id: str = TogetherHook.default_conn_name,
        allowed_statuses: str | Sequence[str] = ("COMPLETED",),
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.conn_id = conn_id
        self.allowed_statuses: Sequence[str] = (
            (allowed_statuses,) if isinstance(allowed_statuses, str) else allowed_statuses
        )
        self.deferrable = deferrable

    @failing_for_good()
    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the job."""
        allowed = self._allowed()
        if self.deferrable and not self.poke(context):
            from together_batches.airflow.triggers import TogetherBatchTrigger

            self.defer(
                trigger=TogetherBatchTrigger(job_id=self.job_id, conn_id=self.conn_id),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout),
            )
        if not self.deferrable:
            super().execute(context)
        return self._result(allowed)

    @failing_for_good()
    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a task that was deferred."""
        if not self.poke(context):
            message = f"the triggerer could not follow the job: {event['error']}"
            raise BatchesError(message)
        return self._result(self._allowed())

    @explained_deferral()
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the task was deferred, as Airflow calls it."""
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> bool:
        """Return whether the job has finished."""
        with TogetherHook(self.conn_id).get_conn() as client:
            self._job = client.retrieve(self.job_id)
        self.log.info("job %s is %s", self._job.id, self._job.status)
        return self._job.is_terminal

    def _allowed(self) -> set[str]:
        from together_batches.models import BatchJobStatus

        allowed = {str(BatchJobStatus(status)) for status in self.allowed_statuses}
        if unknown := allowed - set(BatchJobStatus):
            message = f"unknown status {', '.join(sorted(unknown))} in allowed_statuses"
            raise UsageError(message)
        return allowed

    def _result(self, allowed: set[str]) -> dict[str, Any]:
        job = self._job
        if job.status not in allowed:
            message = f"job {job.id} is {job.status}" + (f": {job.error}" if job.error else "")
            raise AirflowFailException(message)
        return {
            "job_id": job.id,
            "status": str(job.status),
            "output_file_id": job.output_file_id,
            "error_file_id": job.error_file_id,
        }
