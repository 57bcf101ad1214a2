"""A dataset of any size as a group of tasks: one mapped task for each batch job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from together_batches.airflow._airflow import TaskGroup, chain
from together_batches.airflow._dataset_tasks import FirstShardOperator, JoinOperator, PlanOperator, ShardOperator
from together_batches.airflow.hook import TogetherHook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from together_batches.airflow._common import FailWhen, OnKill, TaskSchema

__all__ = ["together_run"]


def together_run(
    group_id: str,
    *,
    requests_uri: str,
    results_uri: str,
    endpoint: str = "/v1/chat/completions",
    model_id: str | None = None,
    priority: int | None = None,
    schema: TaskSchema | None = None,
    retry_invalid: bool = False,
    max_rows_per_job: int = 50_000,
    max_attempts: int = 3,
    retry_delays: Sequence[float] = (30, 120, 600),
    fail_when: FailWhen = "all",
    on_kill: OnKill = "cancel",
    poll_interval: float | None = None,
    patience: float = 900,
    pool: str | None = None,
    conn_id: str = TogetherHook.default_conn_name,
    default_args: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """Answer a dataset of any size by as many batch jobs as it needs, and write the results in its order.

    Returns a group of four tasks: ``plan`` checks the requests and cuts them into shards, ``first`` begins the first
    shard and ends when its job has left VALIDATING or after 10 minutes, ``shards`` is mapped over all shards, each of
    which is worked on as by :class:`TogetherBatchOperator`, and ``join`` puts the results together. The result of
    ``join`` is a small dict like that of :class:`TogetherBatchOperator`, with the number of ``jobs``.

    The requests are read several times, and must not change until ``join`` has ended. The results of each shard stay
    in a directory beside the results, named like them with ``.run`` added, so that clearing a task costs nothing;
    remove it once no task of the DAG run will be cleared. Call it within a ``with DAG``
    block, or in a function that is decorated with ``@dag``.

    :param group_id: the id of the group.
    :param requests_uri: the URI of a file of requests, in the format of the Batch API (templated).
    :param results_uri: the URI of the file to write, which is replaced if it exists (templated).
    :param max_rows_per_job: maximum number of rows in a job.
    :param fail_when: fail ``join``, without a retry, when ``"any"`` row has no answer, or ``"all"`` rows have none,
        or ``"never"``. The results are written first.
    :param pool: the pool of the mapped tasks. One with ``include_deferred`` limits how many jobs run at once.
    :param default_args: arguments of all tasks of the group, such as ``{"retries": 2}``.

    The other parameters are those of :class:`TogetherBatchOperator`.
    """
    group = TaskGroup(group_id, default_args=dict(default_args or {}))
    shared: dict[str, Any] = {
        "requests_uri": requests_uri,
        "results_uri": results_uri,
        "endpoint": endpoint,
        "model_id": model_id,
        "priority": priority,
        "schema": schema,
        "retry_invalid": retry_invalid,
        "max_attempts": max_attempts,
        "retry_delays": retry_delays,
        "on_kill": on_kill,
        "poll_interval": poll_interval,
        "patience": patience,
        "conn_id": conn_id,
        # With those that it is in: groups of one name in two others are not the same.
        "group": group.group_id,
    }
    mapped = {} if pool is None else {"pool": pool}
    with group:
        plan = PlanOperator(
            task_id="plan",
            requests_uri=requests_uri,
            results_uri=results_uri,
            endpoint=endpoint,
            max_rows_per_job=max_rows_per_job,
            schema=schema,
            group=group.group_id,
        )
        first = FirstShardOperator(task_id="first", shard=1, fail_when="never", **shared)
        shards = ShardOperator.partial(task_id="shards", fail_when="never", **shared, **mapped).expand(
            shard=plan.output
        )
        join = JoinOperator(
            task_id="join",
            manifests=shards.output,
            results_uri=results_uri,
            group=group.group_id,
            fail_when=fail_when,
        )
        chain(plan, first, shards, join)
    return group
