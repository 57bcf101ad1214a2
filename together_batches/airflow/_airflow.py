"""The part of Airflow that the provider uses, from wherever the installed version has it.

No other module of the provider imports Airflow. Each name is loaded on first use, because triggers and object storage
take time to import, and a DAG file that is parsed needs neither. For type checkers the names are declared here, so
that the package is checked without Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import timedelta
    from logging import Logger
    from typing import IO, Any, NoReturn, Self

    Context = Mapping[str, Any]
    """What a task finds about itself; the keys and types of values are Airflow's."""

    NEVER_EXPIRE: timedelta | None

    class AirflowFailException(Exception):  # noqa: N818  # Airflow's name
        """Exception that fails a task without retrying it."""

    class TaskDeferralError(Exception):
        """Exception for a trigger that failed."""

    class TriggerEvent:
        """Result of a trigger."""

        payload: Any

        def __init__(self, payload: Any) -> None: ...

    class BaseTrigger:
        """Base class of triggers."""

        log: Logger

        def __init__(self) -> None: ...

        def serialize(self) -> tuple[str, dict[str, Any]]: ...

        def run(self) -> AsyncIterator[TriggerEvent]: ...

        async def on_kill(self) -> None: ...

    class BaseOperator:
        """Base class of operators."""

        template_fields: Sequence[str]
        task_id: str
        retries: int
        output: Any
        log: Logger

        def __init__(self, **kwargs: Any) -> None: ...

        @classmethod
        def partial(cls, **kwargs: Any) -> Partial: ...

        def defer(
            self,
            *,
            trigger: BaseTrigger,
            method_name: str,
            kwargs: dict[str, Any] | None = None,
            timeout: timedelta | None = None,
        ) -> NoReturn: ...

        def execute(self, context: Context) -> Any: ...

        def on_kill(self) -> None: ...

        def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any: ...

    def chain(*tasks: BaseOperator) -> None:
        """Let each task begin after the one before."""

    class Partial:
        """An operator whose instances are made for the items of an earlier task's result."""

        def expand(self, **kwargs: Any) -> BaseOperator: ...

    class BaseSensorOperator(BaseOperator):
        """Base class of sensors."""

        timeout: float

        def poke(self, context: Context) -> bool: ...

    class Connection:
        """Connection, as Airflow stores it."""

        conn_id: str
        host: str | None
        port: int | None
        schema: str | None
        password: str | None
        extra: str | None

    class BaseHook:
        """Base class of hooks."""

        log: Logger

        def __init__(self, logger_name: str | None = None) -> None: ...

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection: ...

        def get_conn(self) -> Any: ...

    class ObjectStoragePath:
        """Path on object storage or on a disk."""

        name: str
        parent: ObjectStoragePath
        protocol: str
        path: str

        def __init__(self, path: str, *, conn_id: str | None = None) -> None: ...

        def __truediv__(self, name: str) -> ObjectStoragePath: ...

        fs: Any

        def open(self, mode: str) -> IO[bytes]: ...

    class conf:  # noqa: N801  # Airflow's name
        """Configuration of Airflow."""

        @staticmethod
        def getint(section: str, key: str, *, fallback: int) -> int: ...

    class TaskGroup:
        """Group of tasks."""

        group_id: str

        def __init__(self, group_id: str, **kwargs: Any) -> None: ...

        def __enter__(self) -> Self: ...

        def __exit__(self, *exc_info: object) -> None: ...

else:
    from importlib import import_module

    _HOMES = {
        "AirflowFailException": ("airflow.sdk.exceptions", "airflow.exceptions"),
        "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
        "BaseOperator": ("airflow.sdk",),
        "BaseSensorOperator": ("airflow.sdk",),
        "BaseTrigger": ("airflow.triggers.base",),
        "NEVER_EXPIRE": ("airflow.sdk",),
        "ObjectStoragePath": ("airflow.sdk",),
        "TaskDeferralError": ("airflow.sdk.exceptions", "airflow.exceptions"),
        "TaskGroup": ("airflow.sdk",),
        "conf": ("airflow.sdk.configuration", "airflow.configuration"),
        "chain": ("airflow.sdk",),
        "TriggerEvent": ("airflow.triggers.base",),
    }
    """The modules that have each name: those of the newest version first."""

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        if version() < (3, 0):
            raise ImportError(_TOO_OLD.format(found=_found()))
        for home in _HOMES[name]:
            try:
                value = getattr(import_module(home), name)
            except (ImportError, AttributeError):
                continue
            globals()[name] = value
            return value
        if name == "NEVER_EXPIRE":  # new in 3.3
            return None
        message = f"{name} is in none of the modules where Airflow {_found()} is expected to have it"
        raise ImportError(message)


_TOO_OLD = (
    "together_batches.airflow needs Apache Airflow 3.0 or newer, and {found} is installed; on Airflow 2, call "
    "together_batches.Batches().run() in a task, on a directory that survives the worker"
)


def _found() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apache-airflow-core")  # since Airflow 3
    except PackageNotFoundError:
        pass
    try:
        return version("apache-airflow")
    except PackageNotFoundError:
        return "none"


def version() -> tuple[int, int]:
    """Return the installed version of Airflow, (0, 0) if there is none."""
    parts = _found().split(".")
    return (int(parts[0]), int(parts[1])) if parts[0].isdecimal() else (0, 0)


HAS_ON_KILL = (3, 3)
"""The first version that calls ``on_kill`` of triggers, and that has the task state store."""
