"""The tasks of a dataset: plan, first, shards, join."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from together_batches.airflow import _storage
from together_batches.airflow._airflow import BaseOperator
from together_batches.airflow._common import check_choice, failing_for_good, pushed_if_failing, schema_of
from together_batches.airflow.operators import TogetherBatchOperator
from together_batches.errors import RunChangedError, RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from together_batches.airflow._airflow import BaseTrigger, Context
    from together_batches.airflow._common import FailWhen, TaskSchema
    from together_batches.airflow._shard import Work
    from together_batches.airflow._state import Entries, TaskLedger
    from together_batches.airflow._storage import Location

_SHARDS_ON_PAGE = 100
"""Shards in a page of the plan. A mapped task reads its page, so that what all of them read grows as they do."""


def _group_identity(context: Context, group: str) -> str:
    """Return a text that is unique to the group and its DAG run, the same for all of its tasks."""
    ti = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{group}"


def _directory(results_uri: str, context: Context, group: str) -> tuple[Location, Location]:
    """Return the place of the results, and the directory of the group's own files."""
    results = _storage.location(results_uri, parameter="results_uri")
    return results, _storage.directory_of(results, _group_identity(context, group))


def _plan_of(directory: Location, name: str = "plan") -> dict[str, Any]:
    """Return the plan, or a page of it."""
    from together_batches.airflow._state import ObjectEntries

    found = ObjectEntries(directory).get(name)
    if found is None:
        message = f"{directory / name}.json does not exist: clear the task plan too"
        raise RunError(message, directory=str(directory))
    return found


def _page_of(number: int) -> str:
    """Return the name of the page that has a shard."""
    return f"plan-{(number - 1) // _SHARDS_ON_PAGE + 1}"


class PlanOperator(BaseOperator):
    """Check the requests of a dataset, and cut them into shards. The result is the list of their numbers.

    The parameters are those of :func:`together_run`.
    """

    template_fields: Sequence[str] = ("requests_uri", "results_uri", "endpoint")

    def __init__(
        self,
        *,
        requests_uri: str,
        results_uri: str,
        endpoint: str,
        max_rows_per_job: int,
        group: str,
        schema: TaskSchema | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.schema = schema
        self.requests_uri = requests_uri
        self.results_uri = results_uri
        self.endpoint = endpoint
        self.max_rows_per_job = max_rows_per_job
        self.group = group

    @failing_for_good()
    def execute(self, context: Context) -> list[int]:
        """Cut the requests, and keep the plan beside the results."""
        from together_batches import runs
        from together_batches._protocol.to_dict import to_dict
        from together_batches._text import count_of, format_count
        from together_batches.airflow._state import ObjectEntries

        results, directory = _directory(self.results_uri, context, self.group)
        _storage.check_target(results)
        source = _storage.reader(_storage.requests_of(self.requests_uri, self.results_uri))
        shards = runs.shards(
            source,
            endpoint=self.endpoint,
            max_rows_per_job=self.max_rows_per_job,
            schema=schema_of(self.schema),
        )
        most = most_mapped()
        if len(shards) > most:
            message = (
                f"{self.requests_uri} needs {format_count(len(shards))} jobs, and Airflow maps a task at most "
                f"{format_count(most)} times "
                "([core] max_map_length): raise that, or split the requests"
            )
            raise UsageError(message)
        entries = ObjectEntries(directory)
        plan: dict[str, Any] = {
            "version": 1,
            "requests_uri": self.requests_uri,
            "shards": [to_dict(shard) for shard in shards],
        }
        known = entries.get("plan")
        if known is not None and known["shards"] != plan["shards"]:
            message = (
                f"{self.requests_uri} or max_rows_per_job has changed since this DAG run began: put it back as it "
                "was, or start a new DAG run"
            )
            raise RunChangedError(message, directory=str(directory))
        for start in range(0, len(shards), _SHARDS_ON_PAGE):
            page = plan["shards"][start : start + _SHARDS_ON_PAGE]
            entries.set(_page_of(start + 1), {"version": 1, "shards": page})
        entries.set("plan", plan)
        rows = sum(shard.rows for shard in shards)
        self.log.info("%s for %s", count_of(len(shards), "job"), count_of(rows, "row"))
        return [shard.number for shard in shards]


def most_mapped() -> int:
    """Return how many times Airflow maps a task at most."""
    from together_batches.airflow._airflow import conf

    return conf.getint("core", "max_map_length", fallback=1024)


class ShardOperator(TogetherBatchOperator):
    """Work on one shard of a dataset.

    :param shard: the number of the shard.
    :param group: the id of the group.

    The other parameters are those of :class:`TogetherBatchOperator`.
    """

    template_fields: Sequence[str] = (*TogetherBatchOperator.template_fields, "shard")

    def __init__(self, *, shard: int, group: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.group = group

    def _plan(self, context: Context, scratch: Path) -> tuple[Work, TaskLedger]:
        from together_batches.airflow._state import ObjectEntries, TaskLedger, entries_of

        work, directory = self._part(context)
        # The first shard goes on with what the task before has begun.
        return work, TaskLedger(entries_of(context, directory), before=ObjectEntries(directory))

    def _part(self, context: Context) -> tuple[Work, Location]:
        """Return the work on the shard, and the directory of its files."""
        from together_batches import runs

        _, directory = _directory(self.results_uri, context, self.group)
        number = int(self.shard)
        page = _plan_of(directory, _page_of(number))["shards"]
        shard = next(runs.shard_from_dict(item) for item in page if item["number"] == number)
        requests_uri = self.requests_uri or ""
        pieces = directory / f"shard-{number}"
        work = self._work(
            context,
            _storage.reader(_storage.location(requests_uri, parameter="requests_uri")),
            requests_uri,
            _results_of(directory, number),
            pieces,
            identity=f"{_group_identity(context, self.group)}/{number}",
            given=shard,
        )
        return work, pieces


class FirstShardOperator(ShardOperator):
    """Begin the first shard of a dataset, and end when its job has left VALIDATING: an invalid input fails there.

    The parameters are those of :class:`ShardOperator`. What it has begun is kept beside the results, and the mapped
    task of the shard goes on with it.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the first shard, unless that was done: its mapped task may have gone on since."""
        entries = self._entries(context)
        return entries.get("handed-over") or self._work_on(context, is_new=True)

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, outages: int = 0
    ) -> dict[str, Any]:
        """End if the job was accepted; otherwise go on until one is."""
        from together_batches.runs import rules

        status = None if event is None else event.get("status")
        # It is still VALIDATING after the time in which it is alone.
        if event is not None and (status == "VALIDATING" or rules.shows_valid_input(status)):
            handed_over = {"job_id": event["job_id"], "status": event["status"]}
            self._entries(context).set("handed-over", handed_over)
            return handed_over
        return super().execute_complete(context, event, outages)

    def _entries(self, context: Context) -> Entries:
        from together_batches.airflow._state import ObjectEntries

        _, directory = _directory(self.results_uri, context, self.group)
        return ObjectEntries(directory / "shard-1")

    def _plan(self, context: Context, scratch: Path) -> tuple[Work, TaskLedger]:
        from together_batches.airflow._state import TaskLedger

        work, _ = self._part(context)
        return work, TaskLedger(self._entries(context))

    def _check(self, context: Context, manifest: dict[str, Any]) -> None:
        if manifest["succeeded"]:
            self._entries(context).set("handed-over", manifest)
        else:
            message = (
                f"no row of the first {manifest['rows']} was answered, so the others are not sent; they are in "
                f"{manifest['failures_uri']}"
            )
            raise RunError(message, directory=manifest["results_uri"])

    def _trigger(self, job_id: str) -> BaseTrigger:
        from together_batches.airflow.triggers import TogetherBatchTrigger
        from together_batches.runs import rules

        return TogetherBatchTrigger(
            job_id=job_id,
            conn_id=self.conn_id,
            poll_interval=self.poll_interval,
            on_kill=self.when_killed,
            accepted_within=rules.ALONE_SECONDS,
        )


def _results_of(directory: Location, shard: int) -> Location:
    """Return the place of the results of one shard."""
    return directory / f"shard-{shard}.jsonl"


class JoinOperator(BaseOperator):
    """Put the results of all shards together. The result is a manifest.

    :param manifests: the results of the mapped tasks.
    :param fail_when: when rows without an answer fail the task.

    The other parameters are those of :func:`together_run`.
    """

    template_fields: Sequence[str] = ("manifests", "results_uri")

    def __init__(
        self,
        *,
        manifests: Any,  # an XComArg when the DAG is parsed, a sequence of dicts when the task runs
        results_uri: str,
        group: str,
        fail_when: FailWhen,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("fail_when", fail_when, ("any", "all", "never"))
        self.manifests = manifests
        self.results_uri = results_uri
        self.group = group
        self.fail_when = fail_when

    @failing_for_good()
    def execute(self, context: Context) -> dict[str, Any]:
        """Write the results, and return the manifest."""
        from together_batches.airflow._manifest import check_outcome, sum_of

        results, directory = _directory(self.results_uri, context, self.group)
        places = [_results_of(directory, shard["number"]) for shard in _plan_of(directory)["shards"]]
        manifests: list[dict[str, Any]] = [item for item in self.manifests if item]
        finished = {item["results_uri"] for item in manifests}
        unfinished = [str(index) for index, place in enumerate(places) if str(place) not in finished]
        if unfinished:
            named = ", ".join(unfinished[:10]) + (", …" if unfinished[10:] else "")
            message = (
                f"mapped tasks have no result, though they are marked as successful: clear those with index {named}"
            )
            raise RunError(message, directory=str(directory))
        failures = [
            _storage.failures_of(place) for place, item in zip(places, manifests, strict=True) if item["failures_uri"]
        ]
        if failures:
            _storage.put_all(chain.from_iterable(map(_storage.blocks_of, failures)), _storage.failures_of(results))
        else:
            _storage.remove(_storage.failures_of(results))  # of an earlier run
        _storage.put_all(chain.from_iterable(map(_storage.blocks_of, places)), results)
        manifest = sum_of(manifests, results, _storage.failures_of(results) if failures else None)
        with pushed_if_failing(context, manifest):
            check_outcome(manifest, self.fail_when)
        return manifest
