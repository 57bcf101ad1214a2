"""Triggers of batch jobs, and the follower that they share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from together_batches.airflow._airflow import BaseTrigger, TriggerEvent
from together_batches.airflow.hook import TogetherHook
from together_batches.errors import BatchesError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from together_batches.airflow._common import OnKill
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob
    from together_batches.typing import AsyncFollower

__all__ = ["TogetherBatchTrigger", "TogetherPauseTrigger"]


class TogetherBatchTrigger(BaseTrigger):
    """Wait until a batch job has finished.

    All triggers of a triggerer that use the same connection share one client and one follower, which reads the list
    of the account once in each interval, however many jobs are waited for. The event holds ``job_id``, the final
    ``status``, and ``error``: the reason if the job could not be followed.

    :param job_id: the id of the job.
    :param conn_id: the connection to use.
    :param poll_interval: seconds between reads; by default about 2 for a young job, and up to 60 for an older one.
    :param accepted_within: end when the job has left VALIDATING, or after this number of seconds, whatever is first;
        ``status`` is then that of the job as last seen. By default the trigger waits for the end of the job.
    :param on_kill: ``"cancel"`` to cancel the job if a person clears or marks the deferred task (Airflow 3.3 and
        newer), or ``"leave"``. A restart of the triggerer never cancels a job.
    """

    def __init__(
        self,
        *,
        job_id: str,
        conn_id: str = TogetherHook.default_conn_name,
        poll_interval: float | None = None,
        accepted_within: float | None = None,
        on_kill: OnKill = "leave",
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.accepted_within = accepted_within
        self.when_killed: OnKill = on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments, which hold neither a key nor a row."""
        return f"{__name__}.{type(self).__name__}", {
            "job_id": self.job_id,
            "conn_id": self.conn_id,
            "poll_interval": self.poll_interval,
            "accepted_within": self.accepted_within,
            "on_kill": self.when_killed,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the job has finished, and yield one event."""
        try:
            async with _client_of(self.conn_id, self.poll_interval) as (_, follower):
                job = await self._awaited(follower)
        except BatchesError as error:
            self.log.warning("job %s cannot be followed: %s", self.job_id, error)
            yield TriggerEvent({"job_id": self.job_id, "status": None, "error": f"{type(error).__name__}: {error}"})
        else:
            yield TriggerEvent({"job_id": job.id, "status": str(job.status), "error": None})

    async def _awaited(self, follower: AsyncFollower) -> BatchJob:
        from together_batches.models import BatchJob
        from together_batches.runs import rules

        def see(job: BatchJob) -> None:
            if self.accepted_within is not None and rules.shows_valid_input(job.status):
                raise _AcceptedError(job)

        try:
            # As a job, because it is known to exist: a 404 may pass.
            return await follower.ended(BatchJob(id=self.job_id), timeout=self.accepted_within, on_update=see)
        except _AcceptedError as accepted:
            return accepted.job
        except WaitTimeoutError as error:
            return error.jobs[0]

    async def on_kill(self) -> None:
        """Cancel the job, if that is wanted: a person has cleared or marked the task."""
        if self.when_killed != "cancel":
            return
        async with _client_of(self.conn_id, self.poll_interval) as (client, _):
            job = await client.cancel(self.job_id)
        self.log.info("job %s is %s, because its task was cleared or marked", job.id, job.status)


class _AcceptedError(Exception):
    """Raised to end a wait when the job has left VALIDATING."""

    def __init__(self, job: BatchJob) -> None:
        super().__init__(job.id)
        self.job = job


class TogetherPauseTrigger(BaseTrigger):
    """Wait until a moment, after which a task goes on.

    :param moment: the moment, in ISO format with its offset.
    """

    def __init__(self, *, moment: str) -> None:
        super().__init__()
        self.moment = moment

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments."""
        return f"{__name__}.{type(self).__name__}", {"moment": self.moment}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        await asyncio.sleep(max(0, (datetime.fromisoformat(self.moment) - datetime.now(UTC)).total_seconds()))
        yield TriggerEvent({"moment": self.moment})


# --- one client for each loop and connection ----------------------------------------------------------------------


_Key = tuple[asyncio.AbstractEventLoop, str, float | None]


@attrs.define(eq=False)
class _Shared:
    """A client and its follower, the task that makes them, and the number of triggers that use them."""

    made: asyncio.Task[tuple[AsyncBatches, AsyncFollower]]
    users: int = 0


_shared: dict[_Key, _Shared] = {}


@asynccontextmanager
async def _client_of(conn_id: str, poll_interval: float | None) -> AsyncGenerator[tuple[AsyncBatches, AsyncFollower]]:
    """Lend the client and the follower that all triggers of this loop and connection share; the last closes them."""
    loop = asyncio.get_running_loop()
    key: _Key = (loop, conn_id, poll_interval)
    shared = _shared.get(key)
    if shared is None:
        shared = _shared[key] = _Shared(loop.create_task(_made(conn_id, poll_interval)))
    shared.users += 1
    try:
        # Shielded, because one trigger that is withdrawn must not take the client from the others.
        yield await asyncio.shield(shared.made)
    finally:
        shared.users -= 1
        if not shared.users:
            if _shared.get(key) is shared:
                del _shared[key]
            await asyncio.shield(loop.create_task(_closed(shared.made)))


async def _made(conn_id: str, poll_interval: float | None) -> tuple[AsyncBatches, AsyncFollower]:
    # In a thread, because Airflow reads a connection by a call that blocks.
    client = await asyncio.to_thread(TogetherHook(conn_id).get_async_conn)
    return client, client.follower(poll_interval=poll_interval)


async def _closed(made: asyncio.Task[tuple[AsyncBatches, AsyncFollower]]) -> None:
    await asyncio.wait([made])
    if not made.cancelled() and made.exception() is None:
        client, follower = made.result()
        async with client, follower:
            pass
