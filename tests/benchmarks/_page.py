"""The performance page: its tables and plots, made from recorded figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.benchmarks._measure import Samples
from tests.benchmarks._report import as_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.benchmarks._measure import Case
    from tests.benchmarks._report import Measured

_MARKED = re.compile(r"(?<=<!-- figures: )([a-z0-9-]+)( -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
MACHINE = "machine"


def plots(cases: Mapping[str, Case], found: Mapping[str, Measured]) -> Iterator[tuple[str, str]]:
    """Yield the plots of all measured cases, as pairs of file name and content."""
    for name, measured in found.items():
        case = cases[name]
        if case.draw is not None:
            others = [found[other].samples for other in case.drawn_with if other in found]
            together = [sample for samples in (measured.samples, *others) for sample in samples.all]
            yield f"performance-{name}.svg", case.draw(Samples(together))


def draw(directory: Path, cases: Mapping[str, Case], found: Mapping[str, Measured]) -> None:
    """Write the plots of all measured cases."""
    directory.mkdir(parents=True, exist_ok=True)
    for file, drawing in plots(cases, found):
        (directory / file).write_text(drawing, "utf-8")


def renewed(page: str, cases: Mapping[str, Case], found: Mapping[str, Measured]) -> str:
    """Return the page with new figures between its marks; a case that was not measured stays unchanged."""

    def table(mark: re.Match[str]) -> str:
        name = mark[1]
        if name == MACHINE and found:
            text = _of_the_machine(found)
        elif name in found:
            text = as_table(cases[name], found[name].samples)
        else:
            return mark[0]
        return f"{name}{mark[2]}\n{text}\n\n"

    return _MARKED.sub(table, page)


def renew(path: Path, cases: Mapping[str, Case], found: Mapping[str, Measured]) -> None:
    """Update the figures of a page file."""
    path.write_text(renewed(path.read_text("utf-8"), cases, found), "utf-8")


def _of_the_machine(found: Mapping[str, Measured]) -> str:
    """Return a sentence about the machine of the figures; if cases differ, about all machines."""
    facts = dict.fromkeys(fact for measured in found.values() for fact in measured.machine)
    return f"Measured on a machine with {', '.join(facts)}."
