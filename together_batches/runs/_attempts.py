"""Current attempts of a run, in memory and in the ledger: each change here is recorded there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from together_batches.runs import _rules
from together_batches.runs._records import Attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from together_batches.runs._records import Key, Ledger, LedgerSnapshot, Shard

__all__ = ["AttemptStore"]

_NOTED_AFTER_SECONDS = 1.0
"""Maximum seconds that a change of a job waits for others, to be recorded together with them."""


class _Counts(NamedTuple):
    buckets: _rules.Buckets = _rules.Buckets()
    answered: int = 0

    def changed(self, before: _Counts, after: _Counts) -> _Counts:
        """Return the counts after those of one shard change."""
        answered = self.answered - before.answered + after.answered
        return _Counts(self.buckets - before.buckets + after.buckets, answered)


class AttemptStore:
    """The attempts at each shard, backed by a :class:`Ledger`."""

    def __init__(self, ledger: Ledger, snapshot: LedgerSnapshot) -> None:
        self._ledger = ledger
        self._attempts = {shard.number: list[Attempt]() for shard in snapshot.shards}
        for attempt in snapshot.attempts:
            self._attempts[attempt.shard].append(attempt)
        self._counts: dict[int, _Counts] = {}
        self._total = _Counts()
        self._uncounted = set(self._attempts)
        self._changed: dict[Key, None] = {}
        self._change = asyncio.Event()
        self.shards = {shard.number: shard for shard in snapshot.shards}

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts."""
        return [attempt for attempts in self._attempts.values() for attempt in attempts]

    def at_shard(self, shard: Shard) -> Sequence[Attempt]:
        """Return the attempts at a shard."""
        return self._attempts[shard.number]

    def at(self, key: Key) -> Attempt:
        """Return one attempt."""
        shard, number = key
        return self._attempts[shard][number - 1]

    def earlier(self, key: Key) -> Sequence[Attempt]:
        """Return the attempts at the same shard before this one."""
        shard, number = key
        return self._attempts[shard][: number - 1]

    def buckets(self, max_attempts: int) -> _rules.Buckets:
        """Return how many rows of the run are in each bucket."""
        found = (
            _rules.buckets(shard, self.at_shard(shard), max_attempts=max_attempts) for shard in self.shards.values()
        )
        return sum(found, _rules.Buckets())

    def counts(self, max_attempts: int) -> tuple[_rules.Buckets, int]:
        """Return the buckets, and how many rows in flight are answered according to the progress of their jobs.

        Only shards that changed since the last call are counted again, because it is called for each event.
        """
        while self._uncounted:
            number = self._uncounted.pop()
            attempts = self._attempts[number]
            found = _Counts(
                _rules.buckets(self.shards[number], attempts, max_attempts=max_attempts), _rules.answered(attempts)
            )
            self._total = self._total.changed(self._counts.get(number, _Counts()), found)
            self._counts[number] = found
        return self._total.buckets, self._total.answered

    async def begin(self, attempt: Attempt, *, planned_at: datetime) -> None:
        """Record an attempt if it is not recorded yet, or was planned again."""
        attempts = self._attempts[attempt.shard]
        if len(attempts) < attempt.number:
            attempts.append(attrs.evolve(attempt, planned_at=planned_at))
        elif attempts[attempt.number - 1].rows != attempt.rows:
            attempts[attempt.number - 1] = attempt
        else:
            return
        self._uncounted.add(attempt.shard)
        await self._ledger.save(self.at(attempt.key))

    async def save(self, key: Key, **changes: Any) -> None:
        """Change an attempt, and return when the change is durable."""
        self._changed.pop(key, None)
        await self._ledger.save(self._put(key, changes))

    def change(self, key: Key, **changes: Any) -> bool:
        """Change an attempt, to be recorded soon; return False if nothing changed."""
        before = self.at(key)
        if self._put(key, changes) == before:
            return False
        self._changed[key] = None
        self._change.set()
        return True

    def _put(self, key: Key, changes: dict[str, Any]) -> Attempt:
        shard, number = key
        attempt = attrs.evolve(self.at(key), **changes)
        self._attempts[shard][number - 1] = attempt
        self._uncounted.add(shard)
        return attempt

    async def note_changes(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Record changes in groups until cancelled."""
        while True:
            await self._change.wait()
            await sleep(_NOTED_AFTER_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Record pending changes now."""
        self._change.clear()
        if self._changed:
            changed = [self.at(key) for key in self._changed]
            self._changed.clear()
            await self._ledger.save(*changed)
