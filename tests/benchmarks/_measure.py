"""Run candidates in turn, and compare them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import attrs

Run = Callable[[], Mapping[str, float]]
"""One run of one candidate: figures by name, in seconds."""


@attrs.frozen
class Comparison:
    """What the rounds of one case gave: for each candidate a list of figures, and which of them is the measure."""

    case: str
    figure: str
    unit_of: int
    rounds: Mapping[str, Sequence[float]]

    def ratio(self, ours: str, other: str) -> tuple[float, float, float]:
        """The median, lowest and highest of the rounds' own ratios: noise that lasts a round strikes both alike."""
        ratios = [mine / theirs for mine, theirs in zip(self.rounds[ours], self.rounds[other], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    def lines(self, ours: str, *, bar: Mapping[str, str]) -> list[str]:
        """The case as text, one line for each candidate."""
        told = [f"{self.case}: {self.figure} (medians of {len(self.rounds[ours])} rounds)"]
        for name, figures in self.rounds.items():
            each = statistics.median(figures) / self.unit_of
            line = f"  {name:28} {_seconds(each):>10}"
            if name != ours:
                median, low, high = self.ratio(ours, name)
                line += f"   {ours} / {name}: {median:.2f} ({low:.2f} to {high:.2f})   bar: {bar.get(name, 'none')}"
            told.append(line)
        return told


def compare(case: str, figure: str, candidates: Mapping[str, Run], *, rounds: int, unit_of: int = 1) -> Comparison:
    """Run each candidate once a round, in turn; ``unit_of`` is how many calls one figure stands for."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            found[name].append(run()[figure])
    return Comparison(case, figure, unit_of, found)


def in_process(module: str, *arguments: object) -> Run:
    """A run of ``python -m module arguments``, which prints its figures as JSON."""

    def run() -> Mapping[str, float]:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    return run


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} µs"
