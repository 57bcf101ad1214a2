"""Manifests: what a task says of the results that it has written, and when they fail it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from together_batches._text import count_of, format_count
from together_batches.errors import RunError
from together_batches.runs import rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from together_batches.airflow._storage import Location
    from together_batches.runs import Attempt, Shard


class RowsFailedError(RunError):
    """Rows have no answer, and ``fail_when`` makes the task fail for that; the results are written."""


def manifest_of(
    shard: Shard,
    attempts: Sequence[Attempt],
    *,
    max_attempts: int,
    retry_invalid: bool,
    results: Location,
    failures: Location | None,
) -> dict[str, Any]:
    """Return the manifest of a shard."""
    buckets = rules.buckets(shard, attempts, max_attempts=max_attempts, retry_invalid=retry_invalid)
    used = rules.usage(attempts)
    return {
        **_places(results, failures),
        "rows": shard.rows,
        "succeeded": buckets.succeeded,
        "failed": buckets.failed,
        "missing": buckets.missing,
        "invalid": buckets.invalid_answers,
        "job_ids": [attempt.job_id for attempt in attempts if attempt.job_id],
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.total_tokens,
    }


_SUMMED = ("rows", "succeeded", "failed", "missing", "invalid", "prompt_tokens", "completion_tokens", "total_tokens")


def sum_of(manifests: Sequence[Mapping[str, Any]], results: Location, failures: Location | None) -> dict[str, Any]:
    """Return the manifest of a dataset from those of its shards, of which older ones have no ``invalid``."""
    return {
        **_places(results, failures),
        **{name: sum(manifest.get(name, 0) for manifest in manifests) for name in _SUMMED},
        "jobs": sum(len(manifest["job_ids"]) for manifest in manifests),
    }


def _places(results: Location, failures: Location | None) -> dict[str, str | None]:
    return {"results_uri": str(results), "failures_uri": None if failures is None else str(failures)}


def check_outcome(manifest: dict[str, Any], fail_when: str) -> None:
    """Raise :class:`RowsFailedError` if rows without an answer are to fail the task."""
    unanswered = manifest["rows"] - manifest["succeeded"]
    invalid = manifest.get("invalid", 0)
    if unanswered and (fail_when == "any" or (fail_when == "all" and not manifest["succeeded"])):
        message = f"{format_count(unanswered)} of {count_of(manifest['rows'], 'row')} have no "
        message += f"valid answer ({format_count(invalid)} do not fit the schema)" if invalid else "answer"
        if unanswered > invalid:
            message += f"; {'others' if invalid else 'they'} are in {manifest['failures_uri']}, and"
        else:
            message += ";"
        message += f" everything is in {manifest['results_uri']}"
        raise RowsFailedError(message, directory=manifest["results_uri"])
