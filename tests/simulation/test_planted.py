"""Bugs that are planted into a run are found: a simulation that finds none has looked."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest import mock

import attrs
import pytest

from together_batches import AsyncBatches
from together_batches.runs import _drafts, _joining, _ledger, _rules, _running, _workshop

from .plan import Death, Plan, drawn
from .play import durable, play

if TYPE_CHECKING:
    from collections.abc import Iterator

    from together_batches.runs._records import Attempt

MOST_SEEDS = 150

_save = _ledger.SqliteLedger.save
_verbs = AsyncBatches._run_verbs


async def _only_afterwards(self: _ledger.SqliteLedger, *attempts: Attempt) -> None:
    known = [attempt for attempt in attempts if attempt.creating_at is None or attempt.job_id is not None]
    await _save(self, *known)


def _by_the_clock_on_the_wall(self: AsyncBatches, *asked: Any) -> Any:
    verbs = _verbs(self, *asked)

    async def moment(file_id: str) -> Any:
        await verbs.moment(file_id)
        return self._transport.connection.now()

    return attrs.evolve(verbs, moment=moment)


def _in_haste(self: AsyncBatches, *asked: Any) -> Any:
    return attrs.evolve(_verbs(self, *asked), settle_seconds=0.001)


def _whatever_it_is(custom_ids: Any, output: Any, *rest: Any, **options: Any) -> _joining.Arranged:
    try:
        return _joining.arrange(custom_ids, output, *rest, **options)
    except _joining.ForeignFileError:
        return _joining.arrange(custom_ids, None, *rest, **options)


class _InPlace(_drafts.Draft):
    def __init__(self, target: Any, mark: str) -> None:
        super().__init__(target, mark)
        self._part.rename(target)

    def keep(self) -> None:
        self.finish()

    def drop(self) -> None:
        self._file.close()


class _OneInFourHundredLost(_drafts.Draft):
    lines = 0

    def write(self, content: bytes) -> None:
        type(self).lines += 1
        if self.lines % 400:
            super().write(content)


def _seeds() -> Iterator[Plan]:
    return map(drawn, range(MOST_SEEDS))


def _deaths_with_a_create_on_its_way() -> Iterator[Plan]:
    """Which takes longer than it takes to start again."""
    for plan in _seeds():
        yield attrs.evolve(plan, deaths=(Death(0, "send POST /v1/batches "),), slow_chance=0.4)


def _found(plans: Iterator[Plan]) -> str:
    """What is found first, and nothing where nothing is."""
    outcomes = (play("planted", plan, durable) for plan in plans)
    return next((outcome.failure for outcome in outcomes if outcome.failure), "")


@pytest.mark.parametrize(
    ("owner", "name", "instead", "plans"),
    [
        pytest.param(_rules, "orphan", lambda *_, **__: None, _seeds, id="a job is not looked for after a crash"),
        pytest.param(_ledger.SqliteLedger, "save", _only_afterwards, _seeds, id="a create is noted when it is done"),
        pytest.param(AsyncBatches, "_run_verbs", _by_the_clock_on_the_wall, _seeds, id="the clock here is believed"),
        pytest.param(AsyncBatches, "_run_verbs", _in_haste, _deaths_with_a_create_on_its_way, id="looked for once"),
        pytest.param(_workshop, "arrange", _whatever_it_is, _seeds, id="any page is taken for the results"),
        pytest.param(_running, "locked", lambda _: nullcontext(), _seeds, id="two processes are let in"),
        pytest.param(_running, "Draft", _InPlace, _seeds, id="the output is written in its place"),
        pytest.param(_running, "Draft", _OneInFourHundredLost, _seeds, id="a line is lost"),
    ],
)
def test_it_is_found(owner: object, name: str, instead: object, plans: Any) -> None:
    """Within a hundred and fifty seeds, of which each passes without it."""
    with mock.patch.object(owner, name, instead):
        assert _found(plans())
