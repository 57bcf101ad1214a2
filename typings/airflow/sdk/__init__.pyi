"""The part of Airflow's task SDK that the provider uses, so that the package is checked without Airflow."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from logging import Logger
from typing import IO, Any, NoReturn, Self

from airflow.triggers.base import BaseTrigger

Context = Mapping[str, Any]  # the keys and types of values are Airflow's

NEVER_EXPIRE: timedelta | None  # new in 3.3

class BaseOperator:
    template_fields: Sequence[str]
    task_id: str
    retries: int
    output: Any
    log: Logger

    def __init__(self, **kwargs: Any) -> None: ...
    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial: ...
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

class OperatorPartial:
    def expand(self, **kwargs: Any) -> BaseOperator: ...

def chain(*tasks: BaseOperator) -> None: ...

class BaseSensorOperator(BaseOperator):
    timeout: float

    def poke(self, context: Context) -> bool: ...

class Connection:
    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    password: str | None
    extra: str | None

class BaseHook:
    log: Logger

    def __init__(self, logger_name: str | None = None) -> None: ...
    @classmethod
    def get_connection(cls, conn_id: str) -> Connection: ...
    def get_conn(self) -> Any: ...

class ObjectStoragePath:
    name: str
    parent: ObjectStoragePath
    protocol: str
    path: str
    fs: Any

    def __init__(self, path: str, *, conn_id: str | None = None) -> None: ...
    def __truediv__(self, name: str) -> ObjectStoragePath: ...
    def open(self, mode: str) -> IO[bytes]: ...

class TaskGroup:
    group_id: str

    def __init__(self, group_id: str, **kwargs: Any) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
