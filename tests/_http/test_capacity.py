"""The number of attempts under way on a machine that has run out of connections."""

from __future__ import annotations

import asyncio

import pytest
from wires import without_wires

from together_batches._http.capacity import Capacity


class Machine:
    """Counts the attempts under way."""

    def __init__(self, under_way: int) -> None:
        self.under_way = under_way
        self.capacity = Capacity(lambda: self.under_way)

    async def begin(self, seconds_left: float = 60.0) -> None:
        await self.capacity.enter(seconds_left)
        self.under_way += 1

    def end(self, *, answered: bool = True) -> None:
        self.under_way -= 1
        self.capacity.leave(answered=answered)


@without_wires
async def test_there_is_no_limit_before_the_machine_runs_out() -> None:
    """Any number may begin."""
    machine = Machine(0)
    for _ in range(10_000):
        await machine.begin()
    assert machine.capacity.limit is None


@without_wires
async def test_fewer_run_at_once_afterwards() -> None:
    """Four fifths of what was possible: files of the program need descriptors, too. The lowest of a burst counts."""
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
    """Each end lets the next one in."""
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
    """By one, after as many as the limit is."""
    machine = Machine(5)
    machine.capacity.ran_out()
    for _ in range(4):
        machine.under_way += 1
        machine.end()
    assert machine.capacity.limit == 5


@without_wires
async def test_waiting_has_an_end() -> None:
    """Then it is a timeout, and the turn goes to the next one."""
    machine = Machine(2)
    machine.capacity.ran_out()
    with pytest.raises(TimeoutError):
        await machine.begin(seconds_left=3)
    assert machine.under_way == 2


@without_wires
async def test_a_turn_that_is_given_up_is_not_lost() -> None:
    """Not even if it had just come."""
    machine = Machine(2)
    machine.capacity.ran_out()
    machine.under_way = 1
    first = asyncio.create_task(machine.begin())
    second = asyncio.create_task(machine.begin())
    await asyncio.sleep(0)
    machine.end(answered=False)  # the first one's turn
    first.cancel()
    await asyncio.wait([first])
    await second
    assert machine.under_way == 1


@without_wires
async def test_an_end_that_was_not_reported_is_noticed() -> None:
    """An attempt that is cancelled reports nothing."""
    machine = Machine(2)
    machine.capacity.ran_out()
    waiting = asyncio.create_task(machine.begin())
    await asyncio.sleep(0)
    machine.under_way = 0
    await waiting
    assert machine.under_way == 1
