"""Tests of the number of calls of a bulk that run at once, against services on a virtual clock."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

import pytest

from together_batches._http.concurrency import AdaptiveConcurrency

if TYPE_CHECKING:
    from collections.abc import Callable


class Crew:
    """The callers of one bulk, and a service that works on a limited number of calls at a time and queues the others.

    ``work`` returns the seconds of work in a call, at a given time; the round trip takes ``way``.
    """

    def __init__(self, wanted: int, *, workers: int, work: Callable[[float], float], way: float) -> None:
        self.concurrency = AdaptiveConcurrency(wanted)
        self.workers = [0.0] * workers
        self.work = work
        self.way = way
        self.narrowest, self.widest = wanted, 0
        self.history: list[tuple[float, int]] = []
        self.slowest_of_the_end = 0.0

    def run(self, calls: int, *, waited: float = 0.0) -> float:
        """Return the seconds that all calls take together; each reports ``waited`` seconds of waiting."""
        random_ = random.Random(1)
        answers: list[tuple[float, float, int]] = []
        now, sent = 0.0, 0
        while sent < calls or answers:
            while sent < calls and len(answers) < self.concurrency.limit:
                free = heapq.heappop(self.workers)
                done = max(free, now + self.way / 2) + self.work(now)
                heapq.heappush(self.workers, done)
                shown = done + self.way / 2 * random_.uniform(0.9, 1.1)
                heapq.heappush(answers, (shown, now, self.concurrency.generation))
                sent += 1
            now, sent_at, generation = heapq.heappop(answers)
            self.concurrency.answered(now - sent_at, generation=generation, waited=waited)
            self.narrowest = min(self.narrowest, self.concurrency.limit)
            self.widest = max(self.widest, self.concurrency.limit)
            if not self.history or self.history[-1][1] != self.concurrency.limit:
                self.history.append((now, self.concurrency.limit))
            if sent > 0.9 * calls:
                self.slowest_of_the_end = max(self.slowest_of_the_end, now - sent_at)
        return now

    def first(self, is_it: Callable[[float, int], bool]) -> float:
        """Return when the number at once first met a condition."""
        return next(now for now, limit in self.history if is_it(now, limit))


@pytest.mark.unmeasured
@pytest.mark.parametrize("way", [0.0, 0.05, 0.2], ids="{} s away".format)
@pytest.mark.parametrize("wanted", [1, 100, 400, 2_000], ids="{} at once".format)
def test_a_healthy_service_is_asked_for_all_that_it_can_do(wanted: int, way: float) -> None:
    """A healthy service is used in full, near or far, also if it, or the client, handles at most 4,000 a second."""
    crew = Crew(wanted, workers=1, work=lambda _: 0.00025, way=way)
    most = min(4_000.0, wanted / (way + 0.00025))
    assert crew.run(20_000) <= 1.001 * 20_000 / most + 4 * way
    assert crew.narrowest == min(wanted, 100)


@pytest.mark.parametrize("wanted", [400, 2_000], ids="{} at once".format)
def test_more_at_once_than_get_more_done_are_not_asked_for(wanted: int) -> None:
    """If 100 at once keep a near service busy, more would only wait; probes beyond are rare and small."""
    crew = Crew(wanted, workers=1, work=lambda _: 0.00025, way=0.001)
    crew.run(20_000)
    assert (crew.concurrency.limit, crew.widest) == (100, 200)


def test_answers_that_take_now_longer_and_now_less_are_no_reason_to_ask_for_fewer() -> None:
    """Varying response times lower the number only if their average grows with it."""
    times = random.Random(1)
    crew = Crew(2_000, workers=2_000, work=lambda _: times.choice([0.02, 0.05, 0.3, 0.9]), way=0.02)
    assert crew.run(40_000) <= 40_000 / (2_000 / 0.34) + 5
    assert (crew.concurrency.limit, crew.narrowest) == (2_000, 100)


def test_a_service_that_gets_faster_is_asked_for_more() -> None:
    """A number that was useless before is tried again after the service becomes faster."""
    crew = Crew(800, workers=100, work=lambda now: 0.1 if now < 5.0 else 0.0001, way=0.1)
    crew.run(60_000)
    assert crew.concurrency.limit == 800


def test_calls_that_wait_for_a_permit_are_not_made_more() -> None:
    """Calls that wait for a permit do not raise the number at once."""
    crew = Crew(400, workers=400, work=lambda _: 0.05, way=0.05)
    crew.run(5_000, waited=0.2)
    assert (crew.concurrency.limit, crew.widest) == (100, 100)


@pytest.mark.parametrize("wanted", [100, 2_000], ids="{} at once".format)
def test_a_slow_service_is_not_buried(wanted: int) -> None:
    """If a service handles 20 a second, a few calls are in its queue, throughput stays, and waits stay short."""
    crew = Crew(wanted, workers=5, work=lambda _: 0.25, way=0.05)
    seconds = crew.run(6_000)
    assert crew.narrowest < 40
    assert crew.slowest_of_the_end < 4
    assert seconds <= 1.02 * 6_000 / 20


@pytest.mark.parametrize("wanted", [400, 2_000], ids="{} at once".format)
def test_a_service_that_becomes_slow_is_not_buried_either(wanted: int) -> None:
    """The number at once halves within five seconds, although few answers arrive to show the delay."""
    crew = Crew(wanted, workers=5, work=lambda now: 0.00025 if now < 5 else 0.25, way=0.2)
    crew.run(wanted * 25 + 6_000)
    assert crew.widest == wanted
    assert crew.first(lambda now, limit: now > 5 and limit <= wanted / 2) < 10
    assert crew.first(lambda now, limit: now > 5 and limit <= 40) < 20
    assert crew.slowest_of_the_end < 4


def test_what_was_in_vain_stays_so_after_a_stumble() -> None:
    """A service that paused for a moment is not treated as a distant one."""
    stalls = iter([3.0])
    crew = Crew(2_000, workers=1, work=lambda now: 0.00025 if now < 1 else next(stalls, 0.00025), way=0.001)
    assert crew.run(100_000) <= 1.02 * 100_000 / 4_000 + 3
    assert crew.narrowest < 100
    assert crew.widest == 200


def test_some_quick_answers_do_not_make_the_others_slow() -> None:
    """Unknown jobs may be answered at once, and do not make the other answers count as slow."""
    times = random.Random(1)
    crew = Crew(400, workers=400, work=lambda _: 0.02 if times.random() < 0.05 else 1.5, way=0.02)
    assert crew.run(10_000) <= 1.1 * 10_000 * 1.5 / 400
    assert crew.narrowest == 100


def test_a_stumble_is_soon_forgotten() -> None:
    """A service that paused for three seconds soon gets as many calls as before."""
    crew = Crew(400, workers=400, work=lambda now: 3.0 if 2.0 < now < 2.1 else 0.05, way=0.05)
    seconds = crew.run(40_000)
    assert crew.narrowest < 400
    assert crew.concurrency.limit == 400
    assert seconds <= 40_000 / 4_000 + 3 + 2


def test_a_service_that_is_slow_for_other_reasons_is_asked_for_as_much_as_before() -> None:
    """The number recovers if fewer calls at once are answered no sooner."""
    crew = Crew(200, workers=200, work=lambda now: 0.05 if now < 2.0 else 3.0, way=0.05)
    crew.run(20_000)
    assert crew.narrowest == 10
    assert crew.concurrency.limit == 200
