"""What it takes to begin: the import of the package, and the help of the command."""

from __future__ import annotations

import os
import shutil
import sys
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
    run_command,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLIENT = "from together_batches import AsyncBatches; AsyncBatches('key')"
_IMPORTS = "import aiohttp, attrs, cattrs, anyio"
_THEIR_CLIENT = "from together import AsyncTogether; AsyncTogether(api_key='key')"


def _command(name: str) -> str | None:
    return shutil.which(name, path=Path(sys.executable).parent)


_COMMANDS = Need("the command of the official SDK", lambda: _command("tg") is not None, "pip install together")


def _measure_import(plan: Plan) -> Iterator[Sample]:
    code = {"ours": _CLIENT, "what it builds on": _IMPORTS}
    if TOGETHER.missing() is None:
        code["together"] = _THEIR_CLIENT
    for name in in_turn(3 * plan.rounds, list(code)):
        yield Sample(name, {}, run_command(sys.executable, "-c", code[name], environment=os.environ))


def _judge_import(samples: Samples) -> list[Line]:
    return lines(
        ("import and a client, ours", samples.of("ours").values("wall"), "s", None),
        (
            "ours / the import of aiohttp, attrs, cattrs, anyio",
            ratios(samples, "ours", "what it builds on", "wall"),
            "×",
            Bar("≤", 1.20),
        ),
        ("ours / together", ratios(samples, "ours", "together", "wall"), "×", None),
    )


def _measure_help(plan: Plan) -> Iterator[Sample]:
    commands = {"ours": _command("together-batches"), "tg": _command("tg")}
    for name in in_turn(3 * plan.rounds, list(commands)):
        command = commands[name]
        assert command is not None
        environment = {**os.environ, "TOGETHER_API_KEY": "key"}
        yield Sample(name, {}, run_command(command, "--help", environment=environment))


def _judge_help(samples: Samples) -> list[Line]:
    return lines(
        ("together-batches --help", samples.of("ours").values("wall"), "s", None),
        ("together-batches --help / tg --help", ratios(samples, "ours", "tg", "wall"), "×", Bar("≤", 0.25)),
    )


IMPORT = Case("import", "import the package and make a client", _measure_import, _judge_import)
HELP = Case("help", "the help of the command", _measure_help, _judge_help, [_COMMANDS])
