"""What a case is, what its runs give, and what is said of that.

A case measures (:class:`Sample`, one for each run of each candidate), and judges what was measured (:class:`Line`).
The two are apart, so that lines, tables and plots can be made again of figures that were written down.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Literal, TypeVar

import attrs

from tests.benchmarks._server import lua_modules, nginx

Figures = Mapping[str, float]
Setting = Mapping[str, float | str]


@attrs.frozen
class Sample:
    """One run of one candidate: what it was set to do, what it took, and what happened over its time, if asked."""

    candidate: str
    setting: Setting
    figures: Figures
    series: Mapping[str, Sequence[float]] = {}


@attrs.frozen
class Samples:
    """All runs of one case, in the order they were made."""

    all: Sequence[Sample]

    def of(self, candidate: str, **setting: float | str) -> Samples:
        """The runs of one candidate, with these settings."""
        return Samples(
            [
                sample
                for sample in self.all
                if sample.candidate == candidate and setting.items() <= sample.setting.items()
            ]
        )

    def values(self, figure: str) -> list[float]:
        """One figure of each run that has it."""
        return [sample.figures[figure] for sample in self.all if figure in sample.figures]

    def settings(self, name: str) -> list[float]:
        """The numbers to which a setting was set, each once, in order."""
        return sorted({value for sample in self.all if isinstance(value := sample.setting.get(name), (int, float))})

    def candidates(self) -> list[str]:
        """Whose runs these are, each once, in the order of their first runs."""
        return list(dict.fromkeys(sample.candidate for sample in self.all))


@attrs.frozen
class Bar:
    """What a figure has to reach: its median, or, where a promise is made, each of its values."""

    sign: Literal["≤", "≥"]
    limit: float
    each: bool = False

    def met(self, values: Sequence[float]) -> bool:
        """Whether these values reach it."""
        judged = values if self.each else [statistics.median(values)]
        return all(value <= self.limit if self.sign == "≤" else value >= self.limit for value in judged)


@attrs.frozen
class Line:
    """One figure of a case in words: a value for each round."""

    what: str
    values: Sequence[float] = attrs.field(validator=attrs.validators.min_len(1))
    unit: str = "×"
    bar: Bar | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """What it is, its median with the lowest and the highest, the bar, and whether the bar is met."""
        middle = number(statistics.median(self.values))
        spread = f" ({number(min(self.values))} to {number(max(self.values))})" if len(self.values) > 1 else ""
        figure = f"{middle} {self.unit}{spread}"
        if self.bar is None:
            return self.what, figure, "", ""
        each = "each " if self.bar.each else ""
        shown = f"{each}{self.bar.sign} {number(self.bar.limit)} {self.unit}"
        return self.what, figure, shown, "met" if self.bar.met(self.values) else "missed"


@attrs.frozen
class Plan:
    """How thoroughly to measure."""

    rounds: int = 3
    quick: bool = False

    @property
    def few(self) -> int:
        """The rounds of what takes minutes."""
        return max(1, self.rounds // 3)


@attrs.frozen
class Need:
    """What has to be installed."""

    name: str
    is_there: Callable[[], bool]
    how: str

    def missing(self) -> str | None:
        """What to do, if it is not there."""
        return None if self.is_there() else f"{self.name} is not installed ({self.how})"


NGINX = Need("nginx", lambda: nginx() is not None, "Debian: apt-get install nginx-light")
LUA = Need(
    "nginx with its Lua module",
    lambda: bool(lua_modules()),
    "Debian: apt-get install nginx-light libnginx-mod-http-lua",
)
TOGETHER = Need("the official SDK", lambda: find_spec("together") is not None, "pip install together")
OPENAI = Need("the SDK of OpenAI", lambda: find_spec("openai") is not None, "pip install openai")
_PEERS = {"together": TOGETHER, "openai": OPENAI}


@attrs.frozen
class Case:
    """One case: what it is, what it needs, how it is measured and judged, and its plot, as SVG.

    The plot also shows the runs of the cases ``drawn_with`` it. A case ends within three minutes at three rounds, so
    that it can be measured in a quiet moment.
    """

    name: str
    summary: str
    measure: Callable[[Plan], Iterable[Sample]]
    judge: Callable[[Samples], Sequence[Line]]
    needs: Sequence[Need] = ()
    draw: Callable[[Samples], str] | None = None
    drawn_with: Sequence[str] = ()


def present(*candidates: str) -> list[str]:
    """Those of the candidates that are installed; of the others it is said how to install them."""
    found = []
    for candidate in candidates:
        missing = _PEERS[candidate].missing() if candidate in _PEERS else None
        if missing is None:
            found.append(candidate)
        else:
            print(f"  {candidate} is left out: {missing}")
    return found


_Item = TypeVar("_Item")


def in_turn(rounds: int, items: Sequence[_Item]) -> Iterator[_Item]:
    """All items, once a round: noise that lasts a round strikes all alike."""
    for _ in range(rounds):
        yield from items


def ratios(samples: Samples, ours: str, theirs: str, figure: str, **setting: float | str) -> list[float]:
    """The rounds' own ratios of a figure; none, if one of the two was left out."""
    mine, others = (samples.of(name, **setting).values(figure) for name in (ours, theirs))
    return [a / b for a, b in zip(mine, others, strict=False)]


def lines(*given: tuple[str, Sequence[float], str, Bar | None]) -> list[Line]:
    """The lines of those figures that were measured."""
    return [Line(*parts) for parts in given if parts[1]]


def run_module(module: str, *arguments: object) -> Figures:
    """Run ``python -m module arguments``, which prints its figures as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def number(value: float) -> str:
    """A number with three digits, or all that stand before the point; a whole one as it is."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 0.1:
        return f"{value:.{1 if abs(value) >= 10 else 2}f}"
    return f"{value:.2g}"
