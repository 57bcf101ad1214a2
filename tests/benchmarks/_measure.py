"""Cases, their samples, and the lines that judge them.

A case measures (:class:`Sample`, one for each run of each candidate), and judges the samples (:class:`Line`).
The two are separate, so that lines, tables and plots can be made again from recorded figures.
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
    """One run of one candidate: its settings, its figures, and optionally series over time."""

    candidate: str
    setting: Setting
    figures: Figures
    series: Mapping[str, Sequence[float]] = {}


@attrs.frozen
class Samples:
    """All runs of one case, in order."""

    all: Sequence[Sample]

    def of(self, candidate: str, **setting: float | str) -> Samples:
        """Return the runs of one candidate with these settings."""
        return Samples(
            [
                sample
                for sample in self.all
                if sample.candidate == candidate and setting.items() <= sample.setting.items()
            ]
        )

    def values(self, figure: str) -> list[float]:
        """Return one figure of each run that has it."""
        return [sample.figures[figure] for sample in self.all if figure in sample.figures]

    def settings(self, name: str) -> list[float]:
        """Return the distinct numeric values of a setting, in order."""
        return sorted({value for sample in self.all if isinstance(value := sample.setting.get(name), (int, float))})

    def candidates(self) -> list[str]:
        """Return the distinct candidates, in the order of their first runs."""
        return list(dict.fromkeys(sample.candidate for sample in self.all))


@attrs.frozen
class Bar:
    """The limit for a figure: for its median or, with ``each``, for each of its values."""

    sign: Literal["≤", "≥"]
    limit: float
    each: bool = False

    def met(self, values: Sequence[float]) -> bool:
        """Return whether these values meet the bar."""
        judged = values if self.each else [statistics.median(values)]
        return all(value <= self.limit if self.sign == "≤" else value >= self.limit for value in judged)


@attrs.frozen
class Line:
    """One figure of a case with its label: a value for each round."""

    what: str
    values: Sequence[float] = attrs.field(validator=attrs.validators.min_len(1))
    unit: str = "×"
    bar: Bar | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """Return the label, the median with the lowest and the highest value, the bar, and whether the bar is met."""
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
    """The thoroughness of a measurement."""

    rounds: int = 3
    quick: bool = False

    @property
    def few(self) -> int:
        """Return the number of rounds for a case that takes minutes."""
        return max(1, self.rounds // 3)


@attrs.frozen
class Need:
    """A requirement that has to be installed."""

    name: str
    is_there: Callable[[], bool]
    how: str

    def missing(self) -> str | None:
        """Return what to do if the requirement is missing, otherwise None."""
        return None if self.is_there() else f"{self.name} is not installed ({self.how})"


NGINX = Need("nginx", lambda: nginx() is not None, "Debian: apt-get install nginx-light")
LUA = Need(
    "nginx with its Lua module",
    lambda: bool(lua_modules()),
    "Debian: apt-get install nginx-light libnginx-mod-http-lua",
)
TOGETHER = Need("the official SDK", lambda: find_spec("together") is not None, "pip install together")
OPENAI = Need("the SDK of OpenAI", lambda: find_spec("openai") is not None, "pip install openai")
PYDANTIC = Need("pydantic", lambda: find_spec("pydantic") is not None, "pip install pydantic")
ARRO3 = Need("arro3", lambda: find_spec("arro3") is not None, "pip install arro3-core arro3-io")
POLARS = Need("polars", lambda: find_spec("polars") is not None, "pip install polars")
PYARROW = Need("pyarrow", lambda: find_spec("pyarrow") is not None, "pip install pyarrow")
_PEERS = {"pydantic": PYDANTIC, "together": TOGETHER, "openai": OPENAI, "polars": POLARS, "pyarrow": PYARROW}


@attrs.frozen
class Case:
    """One case: its name and needs, its functions that measure and judge, and its plot, as SVG.

    The plot also shows the runs of the cases in ``drawn_with``. A case ends within three minutes at three rounds, so
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
    """Return the installed candidates, and print how to install the others."""
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
    """Yield all items once a round, so that noise that lasts a round affects all alike."""
    for _ in range(rounds):
        yield from items


def ratios(samples: Samples, ours: str, theirs: str, figure: str, **setting: float | str) -> list[float]:
    """Return the ratios of a figure within each round; none if a candidate was omitted."""
    mine, others = (samples.of(name, **setting).values(figure) for name in (ours, theirs))
    return [a / b for a, b in zip(mine, others, strict=False)]


def lines(*given: tuple[str, Sequence[float], str, Bar | None]) -> list[Line]:
    """Return the lines of those figures that were measured."""
    return [Line(*parts) for parts in given if parts[1]]


def run_module(module: str, *arguments: object) -> Figures:
    """Run ``python -m module arguments``, which prints its figures as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def number(value: float) -> str:
    """Format a number with three digits, or with all digits before the point; a whole number unchanged."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 0.1:
        return f"{value:.{1 if abs(value) >= 10 else 2}f}"
    return f"{value:.2g}"
