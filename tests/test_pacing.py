"""The rate at which a client may send, measured against limiters on a virtual clock."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Protocol

import attrs
import pytest

from together_batches import _retry
from together_batches._pacing import Brake, Breadth, Pace
from together_batches._protocol import Request
from together_batches.config import RetryPolicy
from together_batches.errors import (
    APIConnectionError,
    APIError,
    InternalServerError,
    RateLimitError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# --- a pace -------------------------------------------------------------------------------------------------------


def test_the_first_send_is_free() -> None:
    """A pace costs a single call nothing."""
    assert Pace(10).take(0.0) == 0


def test_sends_are_spaced_evenly() -> None:
    """At ten a second the next one is a tenth of a second away, and asking again does not push it off."""
    pace = Pace(10)
    pace.take(0.0)
    assert pace.take(0.0) == pytest.approx(0.08)  # 20 ms of slack count as late
    assert pace.take(0.05) == pytest.approx(0.03)
    assert pace.take(0.08) == 0


def test_a_late_timer_is_caught_up() -> None:
    """Timers that fire 10 ms late do not cost any of the rate."""
    pace = Pace(100)
    sent, now = 0, 0.0
    while now < 10:
        wait = pace.take(now)
        if wait == 0:
            sent += 1
        else:
            now += wait + 0.01
    assert sent == pytest.approx(1000, rel=0.01)


def test_a_pause_is_not_caught_up() -> None:
    """A quiet hour does not pay for a flood."""
    pace = Pace(10)
    pace.take(0.0)
    assert [pace.take(3600.0) == 0 for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_rate_is_a_number_above_zero(rate: object) -> None:
    """Anything else is misuse, said in a sentence."""
    with pytest.raises(UsageError, match="rate must be a number, more than zero"):
        Pace(rate)  # type: ignore[arg-type]


# --- the brake, step by step --------------------------------------------------------------------------------------


def test_a_few_calls_are_never_held_back() -> None:
    """Fifty calls at once go out at once; only what is more comes at the first pace."""
    brake = Brake()
    assert [brake.take(0.0) == 0 for _ in range(60)].count(True) == 50
    assert brake.take(0.0) > 0


def test_a_brake_that_meets_no_refusal_lets_go() -> None:
    """Where all goes well at full speed there is soon nothing more to ask."""
    brake = Brake()
    now = 0.0
    while brake.on and now < 10:
        wait = brake.take(now)
        brake.accepted()
        now += wait
    assert brake.on is False
    assert brake.rate is None
    assert brake.take(now) == 0
    assert now < 0.5


def test_calls_that_nobody_waits_for_prove_nothing() -> None:
    """A client that sends one call a minute is not let off, so that its first flood is not a flood."""
    brake = Brake()
    for minute in range(100):
        assert brake.take(60.0 * minute) == 0
        brake.accepted()
    assert brake.rate == 500


def test_a_refusal_slows_everyone() -> None:
    """After one 429 all callers of the client go slowly, after a breath in which the limit recovers."""
    brake = Brake()
    brake.take(0.0)
    brake.refused(1.0, sent_at=0.9)
    assert brake.rate == 20
    assert brake.take(1.0) == pytest.approx(0.05)
    assert brake.take(1.06) == 0
    assert brake.take(1.06) > 0


def test_a_limit_that_is_told_is_where_it_begins() -> None:
    """``x-ratelimit-limit`` spares the search; from there on the rate is measured as ever."""
    brake = Brake()
    brake.refused(1.0, sent_at=0.9, limit=100.0)
    assert brake.rate == pytest.approx(97)
    for _ in range(40):
        brake.accepted()
    brake.refused(3.0, sent_at=2.9, limit=100.0)
    assert brake.rate == pytest.approx(0.97 * 97 / 4)  # 20 a second got through, and a quarter is the least believed


@pytest.mark.parametrize(("limit", "rate"), [(500.0, 20), (1e300, 20), (1e-300, 1)])
def test_a_limit_that_cannot_be_is_not_believed(limit: float, rate: float) -> None:
    """Who was refused at 500 a second is not allowed 500; and a year for each call is no limit."""
    brake = Brake()
    brake.refused(1.0, sent_at=0.9, limit=limit)
    assert brake.rate == rate


def test_refusals_of_one_flood_count_once() -> None:
    """What was sent before the brake was corrected says nothing about the corrected rate."""
    brake = Brake()
    for _ in range(100):
        brake.refused(1.0, sent_at=0.9)
    assert brake.rate == 20
    assert brake.hold(1.0) == 0


def test_the_answer_is_what_was_let_through_between_two_refusals() -> None:
    """Forty in two seconds: twenty a second is allowed, and it stays a little below."""
    brake = Brake()
    brake.refused(1.0, sent_at=0.9)
    for _ in range(40):
        brake.accepted()
    brake.refused(3.0, sent_at=2.9)
    assert brake.rate == pytest.approx(0.97 * 20)


def test_a_shut_door_is_tried_ever_more_seldom() -> None:
    """Where nothing gets through, everyone waits: a fifth of a second, then double, at most eight seconds."""
    brake = Brake()
    now, holds = 1.0, []
    brake.refused(now, sent_at=0.9)
    for _ in range(8):
        now += 1
        brake.refused(now, sent_at=now - 0.1)
        holds.append(brake.hold(now))
        assert brake.take(now) == holds[-1]
        now += holds[-1]
    assert holds == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8, 8])


def test_a_shut_door_is_shut_for_as_long_as_the_service_says() -> None:
    """Its Retry-After holds for everyone where it is longer than our own patience."""
    brake = Brake()
    brake.refused(1.0, sent_at=0.9)
    brake.refused(2.0, sent_at=1.9, retry_after=30.0)
    assert brake.hold(2.0) == 30
    assert brake.hold(31.0) == 1
    assert brake.hold(40.0) == 0


def test_a_door_that_opens_is_gone_through_at_the_rate_of_before() -> None:
    """The first answer after a closed door brings back the rate that held before it."""
    brake = Brake()
    brake.refused(1.0, sent_at=0.9)
    for _ in range(400):
        brake.accepted()
    brake.refused(3.0, sent_at=2.9)
    before = brake.rate
    brake.refused(4.0, sent_at=3.9)
    assert brake.rate == 20
    brake.accepted()
    assert brake.rate == before


# --- the brake against limiters -----------------------------------------------------------------------------------


class Limiter(Protocol):
    """A service's limit: whether it lets one through now, and what it advises where not."""

    def allow(self, now: float) -> bool: ...
    def retry_after(self, now: float) -> float | None: ...


class Bucket:
    """Tokens that come at a rate, at most a burst of them; the rate may change at given times."""

    def __init__(self, rate: float, burst: float, *changes: tuple[float, float], advises: bool = False) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0
        self.changes = deque(changes)
        self.advises = advises

    def allow(self, now: float) -> bool:
        while self.changes and self.changes[0][0] <= now:
            at, rate = self.changes.popleft()
            self._fill(at)
            self.rate = rate
        self._fill(now)
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True

    def _fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now

    def retry_after(self, now: float) -> float | None:
        return max(1.0, math.ceil((1 - self.tokens) / self.rate)) if self.advises else None

    def best(self, calls: int, *changes: tuple[float, float]) -> float:
        """The seconds that a perfect sender would take: everything the limit gives is used, from the start."""
        left, since, rate = calls - self.burst, 0.0, self.rate
        for at, changed in changes:
            if left <= (at - since) * rate:
                break
            left, since, rate = left - (at - since) * rate, at, changed
        return since + max(0.0, left) / rate


class Window:
    """So many in each window of time, counted anew when the next one begins."""

    def __init__(self, limit: int, seconds: float, *, advises: bool = False) -> None:
        self.limit, self.seconds, self.advises = limit, seconds, advises
        self.window, self.used = -1, 0

    def allow(self, now: float) -> bool:
        window = int(now / self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        self.used += 1
        return self.used <= self.limit

    def retry_after(self, now: float) -> float | None:
        return (int(now / self.seconds) + 1) * self.seconds - now if self.advises else None


class Shut:
    """Lets nobody through."""

    def allow(self, now: float) -> bool:
        return False

    def retry_after(self, now: float) -> float | None:
        return None


@attrs.define
class Run:
    """What came of a simulation, in virtual seconds."""

    done: int = 0
    lost: int = 0
    refused: int = 0
    failed: int = 0
    sent_at: list[float] = attrs.Factory(list)
    seconds: float = 0.0


_POLICY = RetryPolicy()
_REQUEST = Request("POST", "/batches/x/cancel", repeatable=True)


@attrs.define(eq=False)
class _Caller:
    began: float
    attempts: int = 0


class Simulation:
    """Callers of one client, as the transport lets them go: they queue for the brake, are sent, and are repeated.

    An answer takes ``latency`` seconds, a fifth more or less; timers fire a millisecond late. Of what the limiter
    lets through, the share ``failing`` is answered with 500, and the share ``losing`` not at all.
    """

    def __init__(
        self, limiter: Limiter, *, latency: float, seed: int, failing: float = 0.0, losing: float = 0.0
    ) -> None:
        self.limiter = limiter
        self.latency = latency
        self.failing = failing
        self.losing = losing
        self.random = random.Random(seed)
        self.brake = Brake()
        self.budget = _retry.Budget(100)
        self.queue: deque[_Caller] = deque()
        self.todo = 0
        self.run_ = Run()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    def at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def run(self, calls: int, in_flight: int, *, until: float = float("inf")) -> Run:
        self.todo = calls
        for _ in range(in_flight):
            self.at(0.0, self.next_call)
        while self._events and self._events[0][0] <= until:
            time, _, event = heapq.heappop(self._events)
            event(time)
        return self.run_

    def next_call(self, now: float) -> None:
        if self.todo:
            self.todo -= 1
            self.enter(now, _Caller(now))

    def enter(self, now: float, caller: _Caller) -> None:
        if not self.brake.on:
            self.send(now, caller)
            return
        if not self.queue:
            wait = self.brake.take(now)
            if wait == 0:
                self.send(now, caller)
                return
            self.at(now + wait + 0.001, self.let_in)
        self.queue.append(caller)

    def let_in(self, now: float) -> None:
        while self.queue:
            wait = self.brake.take(now)
            if wait > 0:
                self.at(now + wait + 0.001, self.let_in)
                return
            self.send(now, self.queue.popleft())

    def send(self, now: float, caller: _Caller) -> None:
        caller.attempts += 1
        self.run_.sent_at.append(now)
        half = self.latency / 2 * self.random.uniform(0.8, 1.2)

        def arrive(there: float) -> None:
            allowed = self.limiter.allow(there)
            advice = None if allowed else self.limiter.retry_after(there)
            luck = self.random.random()
            error: APIError | None = None
            if not allowed:
                error = RateLimitError("slow down")
            elif luck < self.failing:
                error = InternalServerError("out of order", status=500)
            elif luck < self.failing + self.losing:
                error = APIConnectionError("lost", request_sent=True)
            self.at(there + half, lambda back: self.answered(back, caller, now, error, advice))

        self.at(now + half, arrive)

    def answered(
        self, now: float, caller: _Caller, sent_at: float, error: APIError | None, advice: float | None
    ) -> None:
        self.run_.seconds = now
        if isinstance(error, RateLimitError):
            self.run_.refused += 1
            self.brake.refused(now, sent_at=sent_at, retry_after=advice)
        elif not isinstance(error, APIConnectionError):
            self.brake.accepted()
        if error is None:
            self.budget.succeeded()
            self.run_.done += 1
            self.next_call(now)
            return
        self.run_.failed += not isinstance(error, RateLimitError)
        wait = _retry.delay(
            _REQUEST,
            error,
            {} if advice is None else {"Retry-After": str(advice)},
            attempt=caller.attempts,
            policy=_POLICY,
            seconds_left=caller.began + _POLICY.max_elapsed - now,
            budget=self.budget,
            chance=self.random.random,
        )
        if wait is None:
            self.run_.lost += 1
            self.next_call(now)
        else:
            self.at(now + wait, lambda later: self.enter(later, caller))


def simulate(limiter: Limiter, calls: int, in_flight: int, *, latency: float = 0.005, seed: int = 1) -> Run:
    """All ``calls``, with at most so many under way."""
    return Simulation(limiter, latency=latency, seed=seed).run(calls, in_flight)


def floods(
    rate: float,
    burst: float,
    *changes: tuple[float, float],
    calls: int,
    latency: float,
    advises: bool = False,
    in_flight: int = 100,
) -> tuple[list[float], list[float], int]:
    """Ten floods with 3 % of 500s and 1 % of lost answers.

    Sorted, how long they took against the best that a perfect sender could have done with the same failures, and
    what share was refused; and how many calls were lost in all.
    """
    times: list[float] = []
    refused: list[float] = []
    lost = 0
    for seed in range(10):
        bucket = Bucket(rate, burst, *changes, advises=advises)
        best = Bucket(rate, burst).best
        run = Simulation(bucket, latency=latency, seed=seed, failing=0.03, losing=0.01).run(calls, in_flight)
        times.append(run.seconds / best(calls + run.failed, *changes))
        refused.append(run.refused / calls)
        lost += run.lost
    return sorted(times), sorted(refused), lost


_IN_FLIGHT = pytest.mark.parametrize("in_flight", [100, 2_000], ids="{} in flight".format)


@_IN_FLIGHT
@pytest.mark.parametrize("seed", [1, 2, 3], ids="seed {}".format)
def test_a_flood_meets_a_limit(in_flight: int, seed: int) -> None:
    """2,000 calls against 200 a second: none is lost, few are refused, and they take hardly longer than they must."""
    run = simulate(Bucket(200, 50), 2_000, in_flight, seed=seed)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.02 * 2_000
    assert run.seconds <= 1.05 * (2_000 - 50) / 200


_LATENCY = pytest.mark.parametrize("latency", [0.001, 0.005, 0.05], ids="{} s".format)
_ADVISES = pytest.mark.parametrize("advises", [False, True], ids=["silent", "with Retry-After"])


@_LATENCY
@_ADVISES
def test_a_flood_of_a_service_that_also_fails(latency: float, *, advises: bool) -> None:
    """200 a second, 3 % of 500s, 1 % of answers lost: no call is, and the usual flood wastes next to nothing."""
    times, refused, lost = floods(200, 50, calls=2_000, latency=latency, advises=advises)
    assert lost == 0
    assert statistics.median(times) <= 1.08
    assert times[-1] <= 1.25
    assert refused[-1] <= (0.02 if latency < 0.05 else 0.05)


@_LATENCY
@_ADVISES
def test_a_limit_that_halves_and_doubles_under_a_failing_service(latency: float, *, advises: bool) -> None:
    """200 a second, then 100, then 200 again, and the same failures."""
    times, refused, lost = floods(200, 50, (3.0, 100), (8.0, 200), calls=2_000, latency=latency, advises=advises)
    assert lost == 0
    assert statistics.median(times) <= 1.2
    assert times[-1] <= 1.4
    assert refused[-1] <= 0.05


@_LATENCY
@pytest.mark.parametrize(
    ("rate", "burst", "calls", "in_flight"),
    [(50, 10, 500, 20), (200, 5, 2_000, 100), (200, 500, 3_000, 100), (1_000, 100, 6_000, 100)],
)
def test_a_flood_of_other_limits(rate: float, burst: int, calls: int, in_flight: int, latency: float) -> None:
    """Slow or quick, of small or large bursts: beyond what is under way when it is met, little is refused."""
    times, refused, lost = floods(rate, burst, calls=calls, latency=latency, in_flight=in_flight)
    assert lost == 0
    assert statistics.median(times) <= 1.25
    assert refused[-1] * calls <= in_flight + 0.03 * calls


@pytest.mark.parametrize(
    ("limiter", "calls", "at_best"),
    [
        pytest.param(Bucket(5, 5), 100, 19, id="five a second"),
        pytest.param(Bucket(50, 10), 1_000, 19.8, id="fifty a second"),
        pytest.param(Bucket(1_000, 100), 5_000, 4.9, id="a thousand a second"),
        pytest.param(Bucket(200, 5), 2_000, 9.975, id="a small burst"),
        pytest.param(Bucket(200, 1_000), 4_000, 15, id="a large burst"),
    ],
)
def test_any_limit_is_found(limiter: Bucket, calls: int, at_best: float) -> None:
    """Whether five or a thousand a second is allowed, and whatever the burst."""
    run = simulate(limiter, calls, 100)
    assert (run.done, run.lost) == (calls, 0)
    assert run.seconds <= 1.25 * at_best


@pytest.mark.parametrize("latency", [0.001, 0.05, 0.2], ids="{} s".format)
def test_a_slow_wire_does_not_matter(latency: float) -> None:
    """What is under way when the first refusal comes cannot be called back, but nothing more is refused for it."""
    run = simulate(Bucket(200, 50), 4_000, 100, latency=latency)
    assert (run.done, run.lost) == (4_000, 0)
    assert run.refused <= 0.05 * 4_000
    assert run.seconds <= 1.25 * (4_000 - 50) / 200


@_IN_FLIGHT
def test_the_limit_is_halved_in_mid_flight(in_flight: int) -> None:
    """From 200 to 100 a second after five seconds: the brake follows."""
    run = simulate(Bucket(200, 50, (5.0, 100)), 3_000, in_flight)
    assert (run.done, run.lost) == (3_000, 0)
    assert run.refused <= 0.05 * 3_000
    assert run.seconds <= 1.4 * (5 + (3_000 - 1_050) / 100)


@_IN_FLIGHT
def test_the_limit_is_doubled_in_mid_flight(in_flight: int) -> None:
    """From 200 to 400 a second after five seconds: the brake follows."""
    run = simulate(Bucket(200, 50, (5.0, 400)), 3_000, in_flight)
    assert (run.done, run.lost) == (3_000, 0)
    assert run.refused <= 0.05 * 3_000
    assert run.seconds <= 1.4 * (5 + (3_000 - 1_050) / 400)


@_IN_FLIGHT
@pytest.mark.parametrize("advises", [False, True], ids=["silent", "with Retry-After"])
def test_a_window_instead_of_a_bucket(in_flight: int, *, advises: bool) -> None:
    """200 in each second of the clock, and everything more refused until the next second."""
    run = simulate(Window(200, 1.0, advises=advises), 2_000, in_flight)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.05 * 2_000
    assert run.seconds <= 1.4 * 2_000 / 200


def test_a_window_of_a_minute() -> None:
    """600 a minute: the first 600 go at once, and then the door is shut for most of a minute; nobody is lost."""
    run = simulate(Window(600, 60.0, advises=True), 2_000, 100)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.1 * 2_000


@_IN_FLIGHT
def test_a_door_that_stays_shut_is_met_by_a_trickle(in_flight: int) -> None:
    """After the first second it is a call or three every eight seconds, however many are waiting."""
    run = Simulation(Shut(), latency=0.005, seed=1).run(2_000, in_flight, until=120.0)
    assert run.done == 0
    assert len(run.sent_at) <= 120
    assert sum(60 <= sent < 120 for sent in run.sent_at) <= 25


def test_an_open_service_is_not_kept_waiting() -> None:
    """Where nothing is refused, 20,000 calls at 100 at once take a fifth of a second longer than they must."""

    class Open(Shut):
        def allow(self, now: float) -> bool:
            return True

    run = simulate(Open(), 20_000, 100)
    assert (run.done, run.refused) == (20_000, 0)
    assert run.seconds <= 20_000 / 100 * 0.005 + 0.2


def test_a_high_limit_is_no_flood_either() -> None:
    """2,000 in flight against 1,000 a second: the brake does not let go before it has seen that it may."""
    run = simulate(Bucket(1_000, 100), 5_000, 2_000)
    assert (run.done, run.lost) == (5_000, 0)
    assert run.refused <= 0.05 * 5_000
    assert run.seconds <= 1.25 * 4.9


# --- how many at once ---------------------------------------------------------------------------------------------


class Crew:
    """Callers of one bulk, and a service that works at so many calls at a time and lets the others queue.

    ``work`` gives the seconds of work in a call, at a given time; the way there and back takes ``way``.
    """

    def __init__(self, wanted: int, *, workers: int, work: Callable[[float], float], way: float) -> None:
        self.breadth = Breadth(wanted)
        self.workers = [0.0] * workers
        self.work = work
        self.way = way
        self.narrowest, self.widest = wanted, 0
        self.history: list[tuple[float, int]] = []
        self.slowest_of_the_end = 0.0

    def run(self, calls: int, *, waited: float = 0.0) -> float:
        """The seconds that all of them take; each is said to have waited for so many."""
        random_ = random.Random(1)
        answers: list[tuple[float, float, int]] = []
        now, sent = 0.0, 0
        while sent < calls or answers:
            while sent < calls and len(answers) < self.breadth.now:
                free = heapq.heappop(self.workers)
                done = max(free, now + self.way / 2) + self.work(now)
                heapq.heappush(self.workers, done)
                there = done + self.way / 2 * random_.uniform(0.9, 1.1)
                heapq.heappush(answers, (there, now, self.breadth.changes))
                sent += 1
            now, sent_at, changes = heapq.heappop(answers)
            self.breadth.answered(now - sent_at, changes=changes, waited=waited)
            self.narrowest = min(self.narrowest, self.breadth.now)
            self.widest = max(self.widest, self.breadth.now)
            if not self.history or self.history[-1][1] != self.breadth.now:
                self.history.append((now, self.breadth.now))
            if sent > 0.9 * calls:
                self.slowest_of_the_end = max(self.slowest_of_the_end, now - sent_at)
        return now

    def first(self, is_it: Callable[[float, int], bool]) -> float:
        """When the number at once was first such."""
        return next(now for now, breadth in self.history if is_it(now, breadth))


@pytest.mark.parametrize("way", [0.0, 0.05, 0.2], ids="{} s away".format)
@pytest.mark.parametrize("wanted", [1, 100, 400, 2_000], ids="{} at once".format)
def test_a_healthy_service_is_asked_for_all_that_it_can_do(wanted: int, way: float) -> None:
    """Near or far, and also where 4,000 a second are all that gets done, by the service or by ourselves."""
    crew = Crew(wanted, workers=1, work=lambda _: 0.00025, way=way)
    most = min(4_000.0, wanted / (way + 0.00025))
    assert crew.run(20_000) <= 1.001 * 20_000 / most + 4 * way
    assert crew.narrowest == min(wanted, 100)


@pytest.mark.parametrize("wanted", [400, 2_000], ids="{} at once".format)
def test_more_at_once_than_get_more_done_are_not_asked_for(wanted: int) -> None:
    """Where a hundred at once keep a near service busy, more would only wait; that is tried seldom, and not far."""
    crew = Crew(wanted, workers=1, work=lambda _: 0.00025, way=0.001)
    crew.run(20_000)
    assert (crew.breadth.now, crew.widest) == (100, 200)


def test_answers_that_take_now_longer_and_now_less_are_no_reason_to_ask_for_fewer() -> None:
    """It is their average that has to grow with the number."""
    times = random.Random(1)
    crew = Crew(2_000, workers=2_000, work=lambda _: times.choice([0.02, 0.05, 0.3, 0.9]), way=0.02)
    assert crew.run(40_000) <= 40_000 / (2_000 / 0.34) + 5
    assert (crew.breadth.now, crew.narrowest) == (2_000, 100)


def test_a_service_that_gets_faster_is_asked_for_more() -> None:
    """What was in vain is tried again."""
    crew = Crew(800, workers=100, work=lambda now: 0.1 if now < 5.0 else 0.0001, way=0.1)
    crew.run(60_000)
    assert crew.breadth.now == 800


def test_calls_that_wait_at_the_brake_are_not_made_more() -> None:
    """How many wait there decides nothing."""
    crew = Crew(400, workers=400, work=lambda _: 0.05, way=0.05)
    crew.run(5_000, waited=0.2)
    assert (crew.breadth.now, crew.widest) == (100, 100)


@pytest.mark.parametrize("wanted", [100, 2_000], ids="{} at once".format)
def test_a_slow_service_is_not_buried(wanted: int) -> None:
    """Where twenty a second get done, a few are in its queue, as much gets done, and nobody waits for long."""
    crew = Crew(wanted, workers=5, work=lambda _: 0.25, way=0.05)
    seconds = crew.run(6_000)
    assert crew.narrowest < 40
    assert crew.slowest_of_the_end < 4
    assert seconds <= 1.02 * 6_000 / 20


@pytest.mark.parametrize("wanted", [400, 2_000], ids="{} at once".format)
def test_a_service_that_becomes_slow_is_not_buried_either(wanted: int) -> None:
    """Of those who were many at once, half are gone in five seconds, though few answers come to tell of it."""
    crew = Crew(wanted, workers=5, work=lambda now: 0.00025 if now < 5 else 0.25, way=0.2)
    crew.run(wanted * 25 + 6_000)
    assert crew.widest == wanted
    assert crew.first(lambda now, breadth: now > 5 and breadth <= wanted / 2) < 10
    assert crew.first(lambda now, breadth: now > 5 and breadth <= 40) < 20
    assert crew.slowest_of_the_end < 4


def test_what_was_in_vain_stays_so_after_a_stumble() -> None:
    """A service that stood still has not become one that is far away."""
    stalls = iter([3.0])
    crew = Crew(2_000, workers=1, work=lambda now: 0.00025 if now < 1 else next(stalls, 0.00025), way=0.001)
    assert crew.run(100_000) <= 1.02 * 100_000 / 4_000 + 3
    assert crew.narrowest < 100
    assert crew.widest == 200


def test_some_quick_answers_do_not_make_the_others_slow() -> None:
    """Jobs that are not there may be answered at once, and the others are no slower for that."""
    times = random.Random(1)
    crew = Crew(400, workers=400, work=lambda _: 0.02 if times.random() < 0.05 else 1.5, way=0.02)
    assert crew.run(10_000) <= 1.1 * 10_000 * 1.5 / 400
    assert crew.narrowest == 100


def test_a_stumble_is_soon_forgotten() -> None:
    """A service that stood still for three seconds is soon asked for as much as before."""
    crew = Crew(400, workers=400, work=lambda now: 3.0 if 2.0 < now < 2.1 else 0.05, way=0.05)
    seconds = crew.run(40_000)
    assert crew.narrowest < 400
    assert crew.breadth.now == 400
    assert seconds <= 40_000 / 4_000 + 3 + 2


def test_a_service_that_is_slow_for_other_reasons_is_asked_for_as_much_as_before() -> None:
    """Where fewer at once are answered no sooner, there is nothing to be gained by going on with few."""
    crew = Crew(200, workers=200, work=lambda now: 0.05 if now < 2.0 else 3.0, way=0.05)
    crew.run(20_000)
    assert crew.narrowest == 10
    assert crew.breadth.now == 200
