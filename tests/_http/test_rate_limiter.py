"""Tests of the rate at which a client may send, against limiters on a virtual clock."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics

import pytest

from tests._http.rate_limits import Bucket, Open, Shut, Simulation, Window, simulate
from together_batches._http.rate_limiter import AdaptiveRateLimiter, FixedRate, Permit
from together_batches.errors import UsageError

# --- a fixed rate --------------------------------------------------------------------------------------------------


def test_the_first_send_is_free() -> None:
    """A rate does not delay a single call."""
    assert FixedRate(10).try_acquire(0.0) == 0


def test_sends_are_spaced_evenly() -> None:
    """At ten a second the next send is a tenth of a second away, and a second query does not postpone it."""
    limiter = FixedRate(10)
    limiter.try_acquire(0.0)
    assert limiter.try_acquire(0.0) == pytest.approx(0.08)  # 20 ms of slack count as late
    assert limiter.try_acquire(0.05) == pytest.approx(0.03)
    assert limiter.try_acquire(0.08) == 0


def test_a_late_timer_is_caught_up() -> None:
    """Timers that fire 10 ms late do not reduce the rate."""
    limiter = FixedRate(100)
    sent, now = 0, 0.0
    while now < 10:
        wait = limiter.try_acquire(now)
        if wait == 0:
            sent += 1
        else:
            now += wait + 0.01
    assert sent == pytest.approx(1000, rel=0.01)


def test_a_pause_is_not_caught_up() -> None:
    """An hour without sends does not permit a burst."""
    limiter = FixedRate(10)
    limiter.try_acquire(0.0)
    assert [limiter.try_acquire(3600.0) == 0 for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_rate_is_a_number_above_zero(rate: object) -> None:
    """A rate that is not a number above zero raises a clear error."""
    with pytest.raises(UsageError, match="rate must be a number, more than zero"):
        FixedRate(rate)  # type: ignore[arg-type]


# --- the adaptive limiter, step by step ---------------------------------------------------------------------------


class Steps:
    """A limiter, and the calls of one bulk, each answered a given time after it was sent."""

    def __init__(self) -> None:
        self.limiter = AdaptiveRateLimiter()
        self.now = 0.0

    def send(self, most: int = 1_000) -> list[float]:
        """Return the send times of all calls that may be sent now."""
        sent: list[float] = []
        while len(sent) < most and self.limiter.try_acquire(self.now) == 0:
            sent.append(self.now)
        return sent

    def refuse(self, *, retry_after: float | None = None, limit: float | None = None) -> None:
        """Refuse the first call sent from now on, with an answer after a hundredth of a second."""
        self.now += self.limiter.try_acquire(self.now)
        sent_at = self.now
        self.limiter.try_acquire(sent_at)
        self.now += 0.01
        self.limiter.on_refused(self.now, sent_at=sent_at, retry_after=retry_after, limit=limit)


def test_a_few_calls_are_never_held_back() -> None:
    """Fifty calls are sent at once; further ones wait for an answer, or for a twentieth of a second."""
    steps = Steps()
    assert len(steps.send()) == 50
    assert steps.limiter.try_acquire(0.0) == pytest.approx(0.05)


def test_what_is_answered_lets_more_go() -> None:
    """After the first fifty one call is in flight, and then three more for each eight answers."""
    limiter = AdaptiveRateLimiter()
    rounds = [50]
    for _ in range(50):
        limiter.try_acquire(0.0)
    now = 0.0
    for _ in range(10):
        assert limiter.try_acquire(now) > 0
        in_flight, sent_at = rounds[-1], now
        now += 0.001
        rounds.append(0)
        for _ in range(in_flight):
            limiter.on_accepted(now, sent_at=sent_at)
            while limiter.try_acquire(now) == 0:
                rounds[-1] += 1
    assert rounds[:3] == [50, 1, 1]
    assert all(more <= less + math.ceil(3 * less / 8) for less, more in itertools.pairwise(rounds[1:]))
    assert rounds[-1] >= 8


def test_a_call_without_an_answer_does_not_block_the_others() -> None:
    """Twenty a second are sent even without any answer, and a call that ends without one makes room."""
    steps = Steps()
    steps.send()
    steps.now = 1.0
    assert len(steps.send()) == 20
    for _ in range(70):
        steps.limiter.on_unanswered()
    assert len(steps.send()) == 1


def test_a_limiter_that_meets_no_refusal_lets_go() -> None:
    """After some hundred accepted calls in quick succession further ones need no permit."""
    limiter = AdaptiveRateLimiter()
    now = 0.0
    while limiter.is_active and now < 1:
        sent_at = now
        while limiter.try_acquire(now) == 0:
            limiter.on_accepted(now + 0.001, sent_at=sent_at)
            if not limiter.is_active:
                break
        now += 0.001
    assert limiter.is_active is False
    assert limiter.rate is None
    assert limiter.try_acquire(now) == 0
    assert now < 0.1


def test_answers_that_come_in_crowds_and_late_let_more_go() -> None:
    """A far service reaches full speed also if one answer is quick and the others arrive in groups."""
    limiter = AdaptiveRateLimiter()
    on_the_way: list[tuple[float, float]] = []
    sent = 0
    for tick in range(250):
        now = tick / 100
        for answer in [answer for answer in on_the_way if answer[0] <= now]:
            on_the_way.remove(answer)
            limiter.on_accepted(now, sent_at=answer[1])
        while len(on_the_way) < 100 and limiter.try_acquire(now) == 0:
            latency = 0.01 if not sent else 0.35 if sent % 4 == 0 else 0.1
            on_the_way.append((now + latency, now))
            sent += 1
    assert sent > 400


@pytest.mark.parametrize("pause", [60.0, 0.04, 0.01], ids="one every {} s".format)
def test_calls_that_need_no_speed_prove_nothing(pause: float) -> None:
    """A client with occasional calls stays limited, so that its first burst is bounded."""
    limiter = AdaptiveRateLimiter()
    for number in range(2_000):
        now = pause * number
        assert limiter.try_acquire(now) == 0
        limiter.on_accepted(now + 0.005, sent_at=now)
    assert limiter.is_active is True


def test_a_refusal_blocks_everyone() -> None:
    """After one 429 no call of the client is sent for a moment, and then a single one."""
    limiter = AdaptiveRateLimiter()
    limiter.try_acquire(1.0)
    limiter.on_refused(1.0, sent_at=1.0)
    assert limiter.blocked_for(1.0) == limiter.try_acquire(1.0) == pytest.approx(0.05)
    assert limiter.try_acquire(1.06) == 0
    assert limiter.try_acquire(1.06) > 0


def test_the_pauses_say_at_what_rate_to_go_on() -> None:
    """No token in 0.05 s, none in 0.16 s, and one in 0.37 s: the rate is between 2.7 and 6.3 a second."""
    steps = Steps()
    steps.refuse()
    empty_at = steps.now
    steps.refuse()
    steps.refuse()
    steps.now += steps.limiter.try_acquire(steps.now)
    (sent_at,) = steps.send()
    steps.now += 0.01
    steps.limiter.on_accepted(steps.now, sent_at=sent_at)
    assert steps.now - empty_at == pytest.approx(0.37)
    assert steps.limiter.rate == pytest.approx(math.sqrt(1 / 0.37 / 0.16), rel=0.01)


def test_a_limit_that_is_named_is_where_it_begins() -> None:
    """``x-ratelimit-limit`` replaces the search; from then on the rate is measured as usual."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, limit=100.0)
    assert limiter.rate == pytest.approx(97)
    for _ in range(40):
        limiter.on_accepted(2.0, sent_at=1.5)
    limiter.on_refused(3.0, sent_at=2.9, limit=100.0)
    assert limiter.rate == pytest.approx(
        0.97 * 97 / 4
    )  # 20 a second were accepted, and a quarter is the lowest rate believed


@pytest.mark.parametrize(("limit", "rate"), [(500.0, None), (1e300, None), (1e-300, 1)])
def test_a_limit_that_cannot_be_is_not_believed(limit: float, rate: float | None) -> None:
    """A large limit, which may count by the minute, is not used at first; a tiny one is raised to one a second."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, limit=limit)
    assert limiter.rate == rate


def test_refusals_of_one_flood_count_once() -> None:
    """A refusal of a call sent before the correction does not change the corrected rate."""
    limiter = AdaptiveRateLimiter()
    for _ in range(100):
        limiter.on_refused(1.0, sent_at=0.97)
    assert limiter.blocked_for(1.0) == pytest.approx(0.02)


def test_the_answer_is_what_was_let_through_between_two_refusals() -> None:
    """Forty accepted calls in two seconds mean twenty a second, and the rate stays slightly below."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, limit=50.0)
    for _ in range(40):
        limiter.on_accepted(2.0, sent_at=1.5)
    limiter.on_refused(3.0, sent_at=2.9)
    assert limiter.rate == pytest.approx(0.97 * 20)


def test_a_block_is_tried_ever_more_seldom() -> None:
    """While nothing is accepted, the pauses double from a twentieth of a second to at most eight seconds."""
    limiter = AdaptiveRateLimiter()
    now, pauses = 1.0, []
    for _ in range(10):
        limiter.on_refused(now, sent_at=now - 0.001)
        pauses.append(limiter.blocked_for(now))
        assert limiter.try_acquire(now) == pauses[-1]
        now += pauses[-1] + 0.01
    assert pauses == pytest.approx([0.049, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8, 8])


def test_a_call_that_was_lost_does_not_block_for_ever() -> None:
    """Another call is sent if the single one has no answer after a second."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9)
    assert limiter.try_acquire(2.0) == 0
    assert limiter.try_acquire(2.0) == 1
    assert limiter.try_acquire(3.0) == 0


def test_a_block_lasts_for_as_long_as_the_service_says() -> None:
    """A Retry-After applies to all calls if a call after the first pause is refused as well."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, retry_after=30.0)
    assert limiter.blocked_for(1.0) < 1
    limiter.on_refused(2.0, sent_at=1.9, retry_after=30.0)
    assert limiter.blocked_for(2.0) == 30
    assert limiter.blocked_for(31.0) == 1
    assert limiter.blocked_for(40.0) == 0


@pytest.mark.parametrize("is_known", [False, True], ids=["while the rate is searched", "at a known rate"])
def test_no_advice_ends_the_work_for_good(is_known: bool) -> None:
    """A Retry-After of years, such as a moment in seconds since 1970, blocks all calls for an hour at most."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, limit=300.0 if is_known else None)
    limiter.on_refused(2.0, sent_at=1.9, retry_after=1.8e9)
    assert 3_599 < limiter.blocked_for(2.0) <= 3_600
    assert limiter.try_acquire(3_603.0) == 0


def test_after_a_block_it_goes_on_at_the_rate_of_before() -> None:
    """The first accepted call after a block restores the rate measured before."""
    limiter = AdaptiveRateLimiter()
    limiter.on_refused(1.0, sent_at=0.9, limit=300.0)
    for _ in range(400):
        limiter.on_accepted(2.0, sent_at=1.5)
    limiter.on_refused(3.0, sent_at=2.9)
    before = limiter.rate
    limiter.on_refused(4.0, sent_at=3.9)
    assert limiter.blocked_for(4.0) > 0
    assert limiter.try_acquire(4.5) == 0
    limiter.on_accepted(4.6, sent_at=4.5)
    assert limiter.blocked_for(4.6) == 0
    assert limiter.rate == before


# --- the adaptive limiter against limits of a service -------------------------------------------------------------


def floods(
    rate: float,
    burst: float,
    *changes: tuple[float, float],
    calls: int,
    latency: float,
    advises: bool = False,
    in_flight: int = 100,
) -> tuple[list[float], list[float], int]:
    """Run ten bulks with 3 % of 500s and 1 % of lost answers.

    Returns, both sorted, their times relative to a perfect sender with the same failures, and the shares refused; and
    the total of lost calls.
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
    """2,000 calls against 200 a second: none is lost, few are refused, and the time is close to the minimum."""
    run = simulate(Bucket(200, 50), 2_000, in_flight, seed=seed)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.02 * 2_000
    assert run.seconds <= 1.05 * (2_000 - 50) / 200


_LATENCY = pytest.mark.parametrize("latency", [0.001, 0.005, 0.05], ids="{} s".format)
_ADVISES = pytest.mark.parametrize("advises", [False, True], ids=["silent", "with Retry-After"])


@pytest.mark.unmeasured
@_LATENCY
@_ADVISES
def test_a_flood_of_a_service_that_also_fails(latency: float, *, advises: bool) -> None:
    """200 a second, 3 % of 500s, 1 % of answers lost: no call is lost, and a usual bulk wastes next to nothing."""
    times, refused, lost = floods(200, 50, calls=2_000, latency=latency, advises=advises)
    assert lost == 0
    assert statistics.median(times) <= 1.08
    assert times[-1] <= 1.25
    assert refused[-1] <= (0.02 if latency < 0.05 else 0.05)


@pytest.mark.unmeasured
@_LATENCY
@_ADVISES
def test_a_limit_that_halves_and_doubles_under_a_failing_service(latency: float, *, advises: bool) -> None:
    """200 a second, then 100, then 200 again, and the same failures: no call is lost."""
    times, refused, lost = floods(200, 50, (3.0, 100), (8.0, 200), calls=2_000, latency=latency, advises=advises)
    assert lost == 0
    assert statistics.median(times) <= 1.2
    assert times[-1] <= 1.4
    assert refused[-1] <= 0.05


@pytest.mark.unmeasured
@_LATENCY
@pytest.mark.parametrize(
    ("rate", "burst", "calls", "in_flight"),
    [(50, 10, 500, 20), (200, 5, 2_000, 100), (200, 500, 3_000, 100), (1_000, 100, 6_000, 100)],
)
def test_a_flood_of_other_limits(rate: float, burst: int, calls: int, in_flight: int, latency: float) -> None:
    """Slow or fast, with small or large bursts: beyond the calls in flight at the first refusal, few are refused."""
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
    """A limit from five to a thousand a second is found, whatever the burst."""
    run = simulate(limiter, calls, 100)
    assert (run.done, run.lost) == (calls, 0)
    assert run.seconds <= 1.25 * at_best


@pytest.mark.parametrize("latency", [0.001, 0.05, 0.2], ids="{} s".format)
def test_a_slow_wire_does_not_matter(latency: float) -> None:
    """With high latency the calls in flight at the first refusal cannot be recalled, but no others are refused."""
    run = simulate(Bucket(200, 50), 4_000, 100, latency=latency)
    assert (run.done, run.lost) == (4_000, 0)
    assert run.refused <= 0.05 * 4_000
    assert run.seconds <= 1.25 * (4_000 - 50) / 200


@_IN_FLIGHT
def test_the_limit_is_halved_in_mid_flight(in_flight: int) -> None:
    """The rate follows a change from 200 to 100 a second after five seconds."""
    run = simulate(Bucket(200, 50, (5.0, 100)), 3_000, in_flight)
    assert (run.done, run.lost) == (3_000, 0)
    assert run.refused <= 0.05 * 3_000
    assert run.seconds <= 1.4 * (5 + (3_000 - 1_050) / 100)


@_IN_FLIGHT
def test_the_limit_is_doubled_in_mid_flight(in_flight: int) -> None:
    """The rate follows a change from 200 to 400 a second after five seconds."""
    run = simulate(Bucket(200, 50, (5.0, 400)), 3_000, in_flight)
    assert (run.done, run.lost) == (3_000, 0)
    assert run.refused <= 0.05 * 3_000
    assert run.seconds <= 1.4 * (5 + (3_000 - 1_050) / 400)


@_IN_FLIGHT
@pytest.mark.parametrize("advises", [False, True], ids=["silent", "with Retry-After"])
def test_a_window_instead_of_a_bucket(in_flight: int, *, advises: bool) -> None:
    """No call is lost at a limit of 200 in each second of the clock, which refuses the rest of that second."""
    run = simulate(Window(200, 1.0, advises=advises), 2_000, in_flight)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.05 * 2_000
    assert run.seconds <= 1.4 * 2_000 / 200


def test_a_window_of_a_minute() -> None:
    """At 600 a minute the first 600 are sent at once, the others wait most of a minute, and none is lost."""
    run = simulate(Window(600, 60.0, advises=True), 2_000, 100)
    assert (run.done, run.lost) == (2_000, 0)
    assert run.refused <= 0.1 * 2_000


@_IN_FLIGHT
def test_a_door_that_stays_shut_is_met_by_a_trickle(in_flight: int) -> None:
    """After the first second one to three calls are sent every eight seconds, however many are waiting."""
    run = Simulation(Shut(), latency=0.005, seed=1).run(2_000, in_flight, until=120.0)
    assert run.done == 0
    assert len(run.sent_at) <= 120
    assert sum(60 <= sent < 120 for sent in run.sent_at) <= 25


@pytest.mark.unmeasured
@pytest.mark.parametrize("in_flight", [100, 400], ids="{} in flight".format)
@pytest.mark.parametrize("latency", [0.0005, 0.001, 0.002, 0.005], ids="{} s".format)
def test_a_service_at_hand_is_at_full_speed_in_a_tenth_of_a_second(latency: float, in_flight: int) -> None:
    """A bulk without refusals takes at most a tenth of a second longer than the minimum."""
    run = simulate(Open(), 20_000, in_flight, latency=latency)
    assert (run.done, run.refused) == (20_000, 0)
    assert run.seconds <= 20_000 / in_flight * latency + 0.1


@pytest.mark.parametrize("latency", [0.02, 0.05, 0.2], ids="{} s".format)
def test_a_service_that_is_far_away_is_at_full_speed_after_some_answers(latency: float) -> None:
    """A bulk of a distant service takes at most 14 round trips longer: a faster start would be refused more."""
    run = simulate(Open(), 20_000, 100, latency=latency)
    assert (run.done, run.refused) == (20_000, 0)
    assert run.seconds <= 20_000 / 100 * latency + 14 * latency


@pytest.mark.unmeasured
@pytest.mark.parametrize("in_flight", [100, 400, 2_000], ids="{} in flight".format)
@pytest.mark.parametrize("latency", [0.001, 0.005, 0.02], ids="{} s".format)
@pytest.mark.parametrize(("rate", "calls", "most"), [(5, 200, 5), (20, 1_000, 20), (50, 1_000, 20), (200, 2_000, 40)])
def test_a_limit_with_a_burst_survives_the_start(
    rate: float, calls: int, most: int, latency: float, in_flight: int
) -> None:
    """A burst of fifty is soon used up: two in a hundred are refused, or five at a limit of five a second."""
    runs = [simulate(Bucket(rate, 50), calls, in_flight, latency=latency, seed=seed) for seed in range(3)]
    assert [(run.done, run.lost) for run in runs] == 3 * [(calls, 0)]
    assert max(run.refused for run in runs) <= most


def test_a_high_limit_is_no_flood_either() -> None:
    """With 2,000 in flight against 1,000 a second no call skips the permit before that is proven safe."""
    run = simulate(Bucket(1_000, 100), 5_000, 2_000)
    assert (run.done, run.lost) == (5_000, 0)
    assert run.refused <= 0.05 * 5_000
    assert run.seconds <= 1.25 * 4.9


# --- permits -------------------------------------------------------------------------------------------------------


def test_a_permit_without_an_answer_makes_room() -> None:
    """A call that raises, or ends without a record, makes room for another one, and says nothing about the rate."""
    limiter = AdaptiveRateLimiter()
    while limiter.try_acquire(0.0) == 0:
        pass
    for error in 45 * [ConnectionError, KeyboardInterrupt]:
        with contextlib.suppress(error), Permit(limiter, 0.0):
            raise error
    assert limiter.try_acquire(0.0) == 0
    assert limiter.rate is None


def test_a_permit_is_ended_once() -> None:
    """A recorded answer is not undone by the end of the block."""
    limiter = AdaptiveRateLimiter()
    limiter.try_acquire(0.0)
    with Permit(limiter, 0.0) as permit:
        permit.refused(1.0, retry_after=3.0, limit=None)
    assert limiter.blocked_for(1.0) > 0
    limiter.try_acquire(4.0)
    with Permit(limiter, 4.0) as permit:
        permit.accepted(4.1)
    assert limiter.blocked_for(4.1) == 0
    assert limiter.rate is not None
