"""Cancellation of one job.

Built on functions that are passed in (:class:`JobsApi`): it can be tested with three-line fakes and does not depend
on HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._http.client_state import CallState
from together_batches._jobs.patience import Absence
from together_batches._protocol import refusals
from together_batches.errors import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
)
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.outcomes import CancelOutcome, CancelResult

if TYPE_CHECKING:
    from together_batches._http.client_state import BulkContext
    from together_batches._jobs.job_requests import JobsApi

_PATIENCE_SECONDS = 60.0
"""Seconds for which answers that contradict known facts are doubted: a 404 for an existing job, a refused cancel."""
_LONGEST_PAUSE_SECONDS = 10.0
# Aliases, because looking up an enum member takes time.
_CANCELLED, _CANCELING, _DRAINING = BatchJobStatus.CANCELLED, BatchJobStatus.CANCELING, CancelResult.CANCELING


class CancelCall(CallState):
    """The cancel of one job: the job as known before, and what the responses have shown so far."""

    accepted = False
    refusal: APIError | None = None
    """The error that answered the cancel, while the state of the job is in doubt."""
    _absence: Absence | None = None

    def __init__(self, bulk: BulkContext | None, job_id: str, job: BatchJob | None = None) -> None:
        super().__init__(bulk)
        self.job_id = job_id
        self.job = job
        """The job that was passed in, which shows that it exists; None for an id."""

    def read(self) -> CallState:
        """Return a call that reads the job: part of the same bulk, but not a cancel."""
        return CallState(self.bulk)

    def next_pause(self) -> float | None:
        """Return the seconds until the next read of a job in doubt; None if patience is used up."""
        if self._absence is None:
            self._absence = Absence(_PATIENCE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)
        return self._absence.pause()

    def restart_patience(self) -> None:
        """Start over with the patience at the next answer that contradicts known facts."""
        self._absence = None

    def outcome(
        self, result: CancelResult, job: BatchJob | None = None, error: BatchesError | None = None
    ) -> CancelOutcome:
        """Return an outcome with what is known of this call."""
        before = None if self.job is None else self.job.status
        return CancelOutcome(self.job_id, result, job, error, self.attempts, self.accepted, before, self.requested_at)

    def outcome_of(self, job: BatchJob) -> CancelOutcome:
        """Return the outcome that the job's state implies: after a refusal, a job that still runs is a failure."""
        status = job.status
        if status is not _CANCELING and job.is_terminal:
            return self.outcome(
                CancelResult.CANCELLED if status is _CANCELLED else CancelResult.ALREADY_FINISHED, job
            )
        if self.accepted or status is _CANCELING:
            self.accepted = True  # by an earlier cancel, if not by this one
            return self.outcome(_DRAINING, job)
        return self.outcome(CancelResult.FAILED, job, self.refusal)

    def outcome_without_answer(self, error: BatchesError) -> CancelOutcome:
        """Return the outcome that an error implies which says nothing about the state of the job."""
        if self.attempts == 0:
            result = CancelResult.NOT_ATTEMPTED
        elif isinstance(error, NotFoundError):
            result = CancelResult.NOT_FOUND
        elif isinstance(error, (AuthenticationError, PermissionDeniedError)):
            result = CancelResult.DENIED
        else:
            result = CancelResult.FAILED
        return self.outcome(result, None, error)


async def cancel_one(api: JobsApi, call: CancelCall) -> CancelOutcome:
    """Cancel one job and return its outcome. Only misuse of the client raises.

    A 404 for a job that is known to exist is doubted for a while, and the cancel is sent again. If a cancel may have
    been accepted without a successful response, the job is read once.
    """
    while True:
        outcome = await cancel_once(api, call)
        if is_unclear(outcome, call):
            try:
                job = await api.retrieve_once(call.job_id, call.read())
            except APIError:
                return outcome
            return outcome_of_unclear(outcome, job, call)
        pause = pause_in_doubt(api, outcome, call)
        if pause is None:
            return outcome
        await api.sleep(pause)


def pause_in_doubt(api: JobsApi, outcome: CancelOutcome, call: CancelCall) -> float | None:
    """Return the seconds until a cancel that got a 404 is sent again; None if the 404 is accepted as final."""
    if outcome.result is CancelResult.NOT_FOUND and (call.job is not None or api.knows(outcome.job_id)):
        return call.next_pause()
    return None


def is_unclear(outcome: CancelOutcome, call: CancelCall) -> bool:
    """Return True if a cancel that got no successful response may have been accepted, and no read followed."""
    if outcome.result is not CancelResult.FAILED or outcome.error is None or outcome.error is call.refusal:
        return False
    return refusals.may_have_been_taken(outcome.error)


def outcome_of_unclear(outcome: CancelOutcome, job: BatchJob, call: CancelCall) -> CancelOutcome:
    """Return the outcome that the job's state implies for a cancel whose result was unclear."""
    assert isinstance(outcome.error, APIError)  # noqa: S101  # that is why it is unclear
    call.refusal = outcome.error
    return call.outcome_of(job)


async def cancel_once(api: JobsApi, call: CancelCall) -> CancelOutcome:
    """Send one cancel. If the response is a refusal, or contains no job, read the job to learn its state."""
    try:
        answer = await api.cancel(call.job_id, call)
    except APIError as error:
        if not refusals.is_refusal(error):
            return call.outcome_without_answer(error)
        refusal: APIError = error
    else:
        if isinstance(answer, BatchJob):
            call.accepted = True
            return call.outcome_of(answer)
        call.accepted = call.accepted or answer.accepted
        refusal = answer.error
    call.refusal = refusal
    try:
        job = await api.retrieve(call.job_id, call.read())
    except APIError:
        finished = isinstance(refusal, APIStatusError) and refusals.means_already_finished(refusal)
        result = CancelResult.ALREADY_FINISHED if finished else CancelResult.FAILED
        return call.outcome(result, None, refusal)
    return call.outcome_of(job)
