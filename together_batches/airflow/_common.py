"""What the tasks of the provider share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from together_batches._text import short
from together_batches.airflow._airflow import HAS_ON_KILL, AirflowFailException, TaskDeferralError, version
from together_batches.errors import (
    APIError,
    BatchesError,
    ConflictError,
    NotFoundError,
    RunError,
    UsageError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from together_batches._schema.adapters import Adapter
    from together_batches.airflow._airflow import Context
    from together_batches.airflow._shard import Start

FailWhen = Literal["any", "all", "never"]
"""Which rows without an answer fail a task."""
OnKill = Literal["cancel", "leave"]
"""What becomes of the job of a task that a person marks or clears."""
TaskSchema = Mapping[str, object] | str
"""A JSON schema, or the import path of a class, such as ``"my_package.answers.Review"``."""

_LASTING = (RunError, UsageError, ValidationError)
_LASTING_OF_FILES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the storage that a retry does not mend; any other, such as a timeout, may pass."""


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise :class:`UsageError` for a value that is not one of the choices."""
    if value not in choices:
        message = f"{name} is one of {', '.join(map(repr, choices))}; it is {short(value)}"
        raise UsageError(message)


def check_schema(schema: TaskSchema | None, *, retry_invalid: bool) -> None:
    """Raise :class:`UsageError` for what cannot be kept in a DAG, which Airflow stores as JSON; load nothing."""
    if schema is None and retry_invalid:
        message = "retry_invalid needs a schema, because without one no answer is invalid"
        raise UsageError(message)
    given: object = schema
    if not isinstance(given, str | Mapping | None):
        name = f"{given.__module__}.{given.__qualname__}" if isinstance(given, type) else type(given).__name__
        message = (
            "schema is a JSON schema as a dict, or the import path of a class as text, such as "
            f"'my_package.answers.Review', because Airflow stores a DAG as JSON; it is {name}"
        )
        raise UsageError(message)


def schema_of(schema: TaskSchema | None) -> Adapter[Any] | None:
    """Return a schema as answers are read by it; a class is imported."""
    from together_batches._schema.adapters import adapter_of

    if schema is None:
        return None
    if not isinstance(schema, str):
        return adapter_of(schema)
    try:
        found: Any = resolve_name(schema)
    except Exception as error:  # code of the module runs here, and may raise anything
        message = f"schema {schema!r} cannot be imported on this worker: {type(error).__name__}: {error}"
        raise UsageError(message) from error
    return adapter_of(found)


@contextmanager
def failing_for_good() -> Generator[None]:
    """Fail a task without a retry, which Airflow would make after any other error, if no retry can help."""
    try:
        yield
    except BatchesError as error:
        if not _is_lasting(error):
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def _is_lasting(error: BatchesError) -> bool:
    """Return whether a retry of the task would fail in the same way."""
    if isinstance(error, APIError):
        # What exists may be absent for a while.
        return not error.is_transient and not isinstance(error, NotFoundError | ConflictError)
    cause = error.__cause__
    may_pass = isinstance(cause, OSError) and not isinstance(cause, _LASTING_OF_FILES)
    return isinstance(error, _LASTING) and not may_pass


@contextmanager
def explained_deferral() -> Generator[None]:
    """Say what to do about a trigger that failed before it could wait, which Airflow reports as a failure alone."""
    try:
        yield
    except TaskDeferralError as error:
        message = (
            f"the triggerer could not wait for the job ({error}): its log and the lines above say why; "
            'together_batches must be installed where the triggerer runs (pip install "together_batches[airflow]"); '
            "the job runs on, and a retry takes it up"
        )
        raise BatchesError(message) from error


@contextmanager
def pushed_if_failing(context: Context, result: dict[str, Any]) -> Generator[None]:
    """Push the result of a task although the task fails, because its results are written."""
    try:
        yield
    except BatchesError:
        context["ti"].xcom_push(key="return_value", value=result)
        raise


def start_of(context: Context, retries: int) -> Start:
    """Return what began this try.

    A clear allows ``retries`` further tries from then on, and a retry changes nothing. Before Airflow 3.3, which
    cancels no job of a deferred task, and for a task that was cleared while it ran on a worker, which has cancelled
    the job by then, a clear counts as a retry.
    """
    ti = context["ti"]
    if ti.try_number == 1:
        return "first"
    is_cleared = ti.try_number == ti.max_tries - retries + 1
    return "clear" if is_cleared and version() >= HAS_ON_KILL else "retry"


def identity_of(context: Context) -> str:
    """Return a text that is unique to a task and its DAG run, and the same for each of its tries."""
    ti = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}"
