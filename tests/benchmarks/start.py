"""The start of a bulk, simulated: how soon it is at full speed, and how many calls a limit refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests._http.rate_limits import Bucket, Open, Simulation
from tests.benchmarks._measure import Bar, Case, Line, Plan, Sample, Samples, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS_OF_AN_ANSWER = (0.001, 0.005, 0.02, 0.05)
_AT_ONCE = 100
_BURST = 50
_LIMITS = ((5, 200), (20, 1_000), (50, 1_000), (200, 2_000))
"""Calls a second that are allowed, and calls in all."""


def _at_full_speed(latency: float, seed: int) -> float:
    """Return the seconds that a bulk without refusals takes longer than one that is at full speed at once."""
    calls = 20_000
    run = Simulation(Open(), latency=latency, seed=seed).run(calls, _AT_ONCE)
    return run.seconds - calls / _AT_ONCE * latency


def _measure(plan: Plan) -> Iterator[Sample]:
    for seed in range(plan.rounds):
        for latency in _SECONDS_OF_AN_ANSWER:
            figures = {"lost": _at_full_speed(latency, seed)}
            for rate, calls in _LIMITS:
                run = Simulation(Bucket(rate, _BURST), latency=latency, seed=seed).run(calls, _AT_ONCE)
                figures[f"refused {rate}"] = run.refused / calls * 100 if rate > 5 else run.refused
            yield Sample("ours", {"latency": latency}, figures)


def _judge(samples: Samples) -> list[Line]:
    judged: list[Line] = []
    for latency in samples.settings("latency"):
        of = samples.of("ours", latency=latency).values
        is_near, what = latency <= 0.005, f"{latency * 1e3:.0f} ms away"
        few = Bar("≤", 2) if latency <= 0.02 else None
        judged += lines(
            (f"{what}: seconds lost by the start", of("lost"), "s", Bar("≤", 0.1) if is_near else None),
            (f"{what}: refused of 200 calls at 5/s", of("refused 5"), "calls", Bar("≤", 5) if few else None),
            *(
                (f"{what}: refused of {calls:,} calls at {rate}/s", of(f"refused {rate}"), "%", few)
                for rate, calls in _LIMITS[1:]
            ),
        )
    return judged


CASE = Case("start", "the start of a bulk, simulated", _measure, _judge)
