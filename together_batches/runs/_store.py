"""Records of a run, in memory and in the ledger: each change here is recorded there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from together_batches.rows import Usage
from together_batches.runs import rules
from together_batches.runs._records import Attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from together_batches.runs._records import Key, Ledger, LedgerSnapshot, Run, Shard

_NOTED_AFTER_SECONDS = 1.0
"""Maximum seconds that a change of a job waits for others, to be recorded together with them."""


def buckets_of(run: Run, shard: Shard, attempts: Sequence[Attempt]) -> rules.Buckets:
    """Return the buckets of a shard's rows, by the settings of the run."""
    return rules.buckets(shard, attempts, max_attempts=run.max_attempts, retry_invalid=run.retry_invalid)


class RunStore:
    """The run, its shards and the attempts at each of them, backed by a :class:`Ledger`.

    ``usage`` are the tokens of all attempts: those of one whose results are collected again count once.
    """

    def __init__(self, ledger: Ledger, snapshot: LedgerSnapshot) -> None:
        self._ledger = ledger
        self.run = snapshot.run
        self.shards = {shard.number: shard for shard in snapshot.shards}
        self._attempts = {shard.number: list[Attempt]() for shard in snapshot.shards}
        for attempt in snapshot.attempts:
            self._attempts[attempt.shard].append(attempt)
        self.usage = rules.usage(snapshot.attempts)
        self._counts: dict[int, rules.Buckets] = {}
        self._total = rules.Buckets()
        self._uncounted = set(self._attempts)
        self._changed: dict[Key, None] = {}
        self._change = asyncio.Event()

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

    def next_attempt(self, shard: Shard, now: datetime) -> Attempt | None:
        """Return the attempt to resume or to begin; None if no row of the shard is to be sent."""
        run = self.run
        return rules.next_attempt(
            shard, self.at_shard(shard), max_attempts=run.max_attempts, now=now, retry_invalid=run.retry_invalid
        )

    @property
    def buckets(self) -> rules.Buckets:
        """How many rows of the run are in each bucket.

        Only shards that changed since the last time are counted again, because each event has the buckets.
        """
        while self._uncounted:
            number = self._uncounted.pop()
            shard, before = self.shards[number], self._counts.get(number, rules.Buckets())
            found = buckets_of(self.run, shard, self._attempts[number])
            self._total += found - before
            self._counts[number] = found
        return self._total

    async def load(self) -> LedgerSnapshot:
        """Return the records as they are in the ledger."""
        return await self._ledger.load()

    async def save_run(self, **changes: Any) -> None:
        """Change the record of the run, and return when the change is durable."""
        self.run = attrs.evolve(self.run, **changes)
        await self._ledger.save_run(self.run)

    async def record(self, attempt: Attempt, *, planned_at: datetime) -> None:
        """Record an attempt if it is not recorded yet, or was planned again."""
        attempts = self._attempts[attempt.shard]
        if len(attempts) < attempt.number:
            attempts.append(attrs.evolve(attempt, planned_at=planned_at))
        elif attempts[attempt.number - 1] != attempt:
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
        before = self.at(key)
        attempt = attrs.evolve(before, **changes)
        self._attempts[shard][number - 1] = attempt
        self._uncounted.add(shard)
        self.usage = Usage(
            self.usage.prompt_tokens + attempt.prompt_tokens - before.prompt_tokens,
            self.usage.completion_tokens + attempt.completion_tokens - before.completion_tokens,
            self.usage.total_tokens + attempt.total_tokens - before.total_tokens,
        )
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
