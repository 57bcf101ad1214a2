"""Measured cases, printed and recorded."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from tests.benchmarks._measure import Sample, Samples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks._measure import Case

_VERSIONS_OF = ("aiohttp", "msgspec", "together", "openai")
_DIGITS = 5


@attrs.frozen
class Measured:
    """The samples of one case, and the machine that they were measured on."""

    samples: Samples
    machine: Sequence[str]


def machine() -> list[str]:
    """Return the machine and versions that the figures depend on, in general words."""
    system = f"{os.cpu_count()} cores, {platform.system()} ({platform.machine()}), Python {platform.python_version()}"
    return [*system.split(", "), *(shown for name in _VERSIONS_OF if (shown := _version(name)))]


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def printed(case: Case, samples: Samples) -> str:
    """Return the lines of a case in aligned columns."""
    rows = [line.cells() for line in case.judge(samples)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_table(case: Case, samples: Samples) -> str:
    """Return the lines of a case as a table in Markdown."""
    rows = [("", "median (lowest to highest)", "bar", ""), *(line.cells() for line in case.judge(samples))]
    header, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([header, "|---|---|---|---|", *body])


def read(path: Path) -> dict[str, Measured]:
    """Return the cases in a file of figures, by name; none if the file does not exist."""
    if not path.exists():
        return {}
    return {
        name: Measured(Samples([Sample(**sample) for sample in case["samples"]]), case["machine"])
        for name, case in json.loads(path.read_text("utf-8")).items()
    }


def write(path: Path, cases: Mapping[str, Measured]) -> None:
    """Write the figures of all runs to a file, one run a line."""
    seen = []
    for name, measured in cases.items():
        runs = ",\n  ".join(
            json.dumps(_rounded(attrs.asdict(sample)), ensure_ascii=False) for sample in measured.samples.all
        )
        about = json.dumps(measured.machine, ensure_ascii=False)
        seen.append(f'"{name}": {{"machine": {about}, "samples": [\n  {runs}\n ]}}')
    path.write_text("{\n " + ",\n ".join(seen) + "\n}\n", "utf-8")


def _rounded(value: object) -> object:
    """Return the value with its floats rounded, because further digits are noise."""
    match value:
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case _:
            return value
