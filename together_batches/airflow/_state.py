"""The ledger of one task: its shard, and the attempts at it, each saved before and after what costs money.

It is kept in the task state store of Airflow 3.3 and newer, whose entries survive retries and clears, or as JSON
objects beside the results on older versions. What several tasks of a dataset read (its plan, and the first shard as
the task ``first`` began it) is always in such objects: a state store belongs to one task.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, cast

from anyio import to_thread

from together_batches import runs
from together_batches._protocol.to_dict import to_dict
from together_batches.airflow import _storage
from together_batches.errors import RunLedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from together_batches.airflow._airflow import Context
    from together_batches.airflow._storage import Location
    from together_batches.runs import Attempt, Shard


class Entries(Protocol):
    """Small JSON objects by name, each durable when ``set`` returns. The methods block."""

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an entry; None if there is none."""
        ...

    def set(self, name: str, value: Mapping[str, Any]) -> None:
        """Write an entry."""
        ...


class TaskEntries:
    """Entries in the task state store, which belong to a task instance of a DAG run, whatever its try.

    ``store`` is Airflow's accessor of it.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an entry; None if there is none."""
        return _checked(self._store.get(f"together_batches.{name}"), name)

    def set(self, name: str, value: Mapping[str, Any]) -> None:
        """Write an entry, which does not expire: a task that is cleared later must not pay again."""
        from together_batches.airflow._airflow import NEVER_EXPIRE

        self._store.set(f"together_batches.{name}", dict(value), retention=NEVER_EXPIRE)


class ObjectEntries:
    """Entries as JSON objects in a directory on object storage."""

    def __init__(self, directory: Location) -> None:
        self._directory = directory

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an entry; None if there is none."""
        content = _storage.read_bytes(self._directory / f"{name}.json")
        if content is None:
            return None
        try:
            value: object = json.loads(content)
        except ValueError:
            value = content
        return _checked(value, f"{self._directory / name}.json")

    def set(self, name: str, value: Mapping[str, Any]) -> None:
        """Write an entry."""
        _storage.put_bytes(json.dumps(value).encode(), self._directory / f"{name}.json")


def _checked(value: object, name: str) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any] | None", value)
    message = f"the record {name} of this task is damaged: it is not a JSON object"
    raise RunLedgerError(message, directory=name)


def entries_of(context: Context, directory: Location) -> Entries:
    """Return the entries of a task: in the task state store if this Airflow has one, else in ``directory``."""
    store = context.get("task_state_store")
    return ObjectEntries(directory) if store is None else TaskEntries(store)


class TaskLedger:
    """The records of a task, read as they are needed.

    ``before`` has the records of whatever began the same work: the task ``first`` of a dataset, or the same task
    before Airflow was upgraded to 3.3. It is not read if this task began the work itself.
    """

    def __init__(self, entries: Entries, before: Entries | None = None) -> None:
        self._entries = entries
        self._before = before
        self.shard: Shard | None = None
        self.response_format: str | None = None
        self.attempts: list[Attempt] = []

    async def load(self) -> None:
        """Read the records."""
        await to_thread.run_sync(self._load)

    def _load(self) -> None:
        shard = self._entries.get("shard")
        if shard is not None:
            self._before = None
        elif self._before is not None:
            shard = self._before.get("shard")
        if shard is not None:
            self.shard = runs.shard_from_dict(shard)
            self.response_format = shard.get("response_format")
        while (attempt := self._get(f"attempt-{len(self.attempts) + 1}")) is not None:
            self.attempts.append(runs.attempt_from_dict(attempt))

    def _get(self, name: str) -> dict[str, Any] | None:
        found = self._entries.get(name)
        return self._before.get(name) if found is None and self._before is not None else found

    async def begin(self, shard: Shard, response_format: str | None) -> None:
        """Record the shard, and that of its schema if it has one."""
        with_format = {} if response_format is None else {"response_format": response_format}
        await self.note("shard", to_dict(shard) | with_format)
        self.shard, self.response_format = shard, response_format
        self._before = None

    async def save(self, attempt: Attempt) -> None:
        """Record an attempt, and return when it is durable."""
        await self.note(f"attempt-{attempt.number}", to_dict(attempt))
        self.attempts[attempt.number - 1 : attempt.number] = [attempt]

    async def note(self, name: str, value: Mapping[str, Any]) -> None:
        """Record anything else."""
        await to_thread.run_sync(self._entries.set, name, value)

    async def noted(self, name: str) -> dict[str, Any]:
        """Return what was recorded by :meth:`note`; empty if nothing was."""
        return await to_thread.run_sync(self._get, name) or {}
