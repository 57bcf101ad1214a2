"""Start-up cost: the import of the package, and the help of the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks._measure import (
    TOGETHER,
    Bar,
    Case,
    Line,
    Need,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    ratios,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CLIENT = "from together_batches import AsyncBatches; AsyncBatches('key')"
_IMPORTS = "import aiohttp, attrs, cattrs, anyio"
_THEIR_CLIENT = "from together import AsyncTogether; AsyncTogether(api_key='key')"


def _command(name: str) -> str | None:
    return shutil.which(name, path=Path(sys.executable).parent)


_COMMANDS = Need("the command of the official SDK", lambda: _command("tg") is not None, "pip install together")


def _timed(commands: Mapping[str, Sequence[str]], rounds: int) -> Iterator[Sample]:
    environment = {**os.environ, "TOGETHER_API_KEY": "key"}
    # Installed packages were compiled at installation; this package, run from its sources, may be compiled too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for command in commands.values():
        subprocess.run(command, check=True, capture_output=True, env=environment)
    for name in in_turn(rounds, list(commands)):
        began = time.perf_counter()
        subprocess.run(commands[name], check=True, capture_output=True, env=environment)
        yield Sample(name, {}, {"wall": time.perf_counter() - began})


def _measure_import(plan: Plan) -> Iterator[Sample]:
    code = {"ours": _CLIENT, "what it builds on": _IMPORTS}
    if TOGETHER.missing() is None:
        code["together"] = _THEIR_CLIENT
    return _timed({name: (sys.executable, "-c", text) for name, text in code.items()}, 3 * plan.rounds)


def _judge_import(samples: Samples) -> list[Line]:
    return lines(
        ("import and a client, ours", samples.of("ours").values("wall"), "s", None),
        (
            "ours / the import of aiohttp, attrs, cattrs, anyio",
            ratios(samples, "ours", "what it builds on", "wall"),
            "×",
            Bar("≤", 1.15),
        ),
        ("ours / together", ratios(samples, "ours", "together", "wall"), "×", None),
    )


def _measure_help(plan: Plan) -> Iterator[Sample]:
    ours, theirs = _command("together-batches"), _command("tg")
    assert ours is not None
    assert theirs is not None
    return _timed({"ours": (ours, "--help"), "tg": (theirs, "--help")}, 3 * plan.rounds)


def _judge_help(samples: Samples) -> list[Line]:
    return lines(
        ("together-batches --help", samples.of("ours").values("wall"), "s", None),
        ("together-batches --help / tg --help", ratios(samples, "ours", "tg", "wall"), "×", Bar("≤", 0.25)),
    )


IMPORT = Case("import", "import the package and make a client", _measure_import, _judge_import)
HELP = Case("help", "the help of the command", _measure_help, _judge_help, [_COMMANDS])
