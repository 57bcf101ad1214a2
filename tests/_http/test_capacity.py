"""Tests of the limit on attempts under way on a machine that has run out of connections."""

from __future__ import annotations

import asyncio
import time

import pytest
from wires import without_wires

from together_batches._http.capacity import Capacity


class Machine:
    """A counter of the attempts under way."""

    def __init__(self, under_way: int) -> None:
        self.under_way = under_way
        self.capacity = Capacity(lambda: self.under_way, time.monotonic)

    async def begin(self, seconds_left: float = 60.0) -> None:
        await self.capacity.enter(seconds_left)
        self.under_way += 1

    def end(self, *, answered: bool = True) -> None:
        self.under_way -= 1
        self.capacity.leave(answered=answered)


@without_wires
async def test_there_is_no_limit_before_the_machine_runs_out() -> None:
    """Any number of attempts may begin without a limit."""
    machine = Machine(0)
    for _ in range(10_000):
        await machine.begin()
    assert machine.capacity.limit is None


@without_wires
async def test_fewer_run_at_once_afterwards() -> None:
    """The limit is four fifths of the possible attempts: files need descriptors. The lowest of a burst counts."""
    machine = Machine(250)
    machine.capacity.ran_out()
    assert machine.capacity.limit == 200
    machine.under_way = 300
    machine.capacity.ran_out()
    assert machine.capacity.limit == 200
    machine.under_way = 0
    machine.capacity.ran_out()
    assert machine.capacity.limit == 1


@without_wires
async def test_the_others_wait_in_the_order_in_which_they_came() -> None:
    """Each attempt that ends admits the next one in order of arrival."""
    machine = Machine(5)
    machine.capacity.ran_out()  # four may run
    order: list[int] = []

    async def work(number: int) -> None:
        await machine.begin()
        order.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    machine.end(answered=False)
    machine.end(answered=False)
    await asyncio.sleep(0.1)
    assert order == [0]
    machine.end(answered=False)
    await asyncio.sleep(0.1)
    assert order == [0, 1]
    late = asyncio.create_task(work(3))
    await asyncio.sleep(0)
    machine.end(answered=False)
    machine.end(answered=False)
    await asyncio.gather(*tasks, late)
    assert order == [0, 1, 2, 3]


@without_wires
async def test_answers_raise_the_limit() -> None:
    """The limit grows by one after as many answers as its value."""
    machine = Machine(5)
    machine.capacity.ran_out()
    for _ in range(4):
        machine.under_way += 1
        machine.end()
    assert machine.capacity.limit == 5


@without_wires
async def test_waiting_has_an_end() -> None:
    """A wait that exceeds its limit raises TimeoutError, and the place goes to the next attempt."""
    machine = Machine(2)
    machine.capacity.ran_out()
    with pytest.raises(TimeoutError):
        await machine.begin(seconds_left=3)
    assert machine.under_way == 2


@without_wires
async def test_a_turn_that_is_given_up_is_not_lost() -> None:
    """A place is passed on if its attempt is cancelled, even right after it was granted."""
    machine = Machine(2)
    machine.capacity.ran_out()
    machine.under_way = 1
    first = asyncio.create_task(machine.begin())
    second = asyncio.create_task(machine.begin())
    await asyncio.sleep(0)
    machine.end(answered=False)  # admits the first one
    first.cancel()
    await asyncio.wait([first])
    await second
    assert machine.under_way == 1


@without_wires
async def test_an_end_that_was_not_reported_is_noticed() -> None:
    """A place becomes free if a cancelled attempt does not report its end."""
    machine = Machine(2)
    machine.capacity.ran_out()
    waiting = asyncio.create_task(machine.begin())
    await asyncio.sleep(0)
    machine.under_way = 0
    await waiting
    assert machine.under_way == 1
