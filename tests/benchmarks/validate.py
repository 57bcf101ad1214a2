"""Validation of a file of requests.

One run: ``python -m tests.benchmarks.validate CANDIDATE FILE``.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks._client import peak_mb, tell
from tests.benchmarks._measure import (
    TOGETHER,
    Bar,
    Case,
    Line,
    Plan,
    Sample,
    Samples,
    in_turn,
    lines,
    ratios,
    run_module,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 50_000
"""The maximum that the service accepts in a file."""
_MODULES = {"ours": "together_batches.jsonl", "together": "together.lib.utils.files"}


def write_chats(path: Path) -> None:
    """Write a file of 85 MB: English, with some of everything that JSON escapes, and 1 row in 20 in other scripts."""
    choose = random.Random(1)
    english = ["river", "the", "of", '"quoted"', "line\nline", "answer", "model", "and", "question", "which", "a"]
    others = [*english, "Straße", "北京", "naïve", "🙂", "\u2028"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            words = choose.choices(english if number % 20 else others, k=239)
            body = {
                "model": "openai/gpt-oss-20b",
                "messages": [
                    {"role": "system", "content": "You are a careful assistant."},
                    {"role": "user", "content": " ".join(words)},
                ],
                "max_tokens": 256,
                "temperature": 0.2,
            }
            file.write(json.dumps({"custom_id": f"row-{number:06}", "body": body}, ensure_ascii=False) + "\n")


def ours(path: str) -> None:
    """Run every check."""
    from together_batches import jsonl

    validation = jsonl.validate(path)
    assert validation.ok, validation
    assert validation.rows == ROWS


def together(path: str) -> None:
    """Run the official SDK's check of a batch file: each line is a JSON object, in UTF-8."""
    from together.lib.utils.files import check_file

    report = check_file(path, purpose="batch-api")
    assert report["is_check_passed"], report


def interpreter(_: str) -> None:
    """Do nothing, to measure Python itself."""


def _measure(plan: Plan) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "requests.jsonl")
        write_chats(path)
        for name in in_turn(plan.rounds, ["ours", "together", "interpreter"]):
            figures = run_module("tests.benchmarks.validate", name, path)
            yield Sample(name, {"megabytes": path.stat().st_size / 1e6}, figures)


def _judge(samples: Samples) -> list[Line]:
    idle = max(samples.of("interpreter").values("peak_mb"))
    peaks = {name: [peak - idle for peak in samples.of(name).values("peak_mb")] for name in ("ours", "together")}
    return lines(
        ("seconds, ours", samples.of("ours").values("wall"), "s", None),
        ("seconds, ours / together", ratios(samples, "ours", "together", "wall"), "×", Bar("≤", 0.35)),
        ("memory above the interpreter, ours", peaks["ours"], "MB", Bar("≤", 64, each=True)),
        ("memory above the interpreter, together", peaks["together"], "MB", None),
    )


CASE = Case("validate", f"check a file of {ROWS:,} chats (85 MB)", _measure, _judge, [TOGETHER])


def main() -> None:
    """Run one candidate and print its figures."""
    candidate = {"ours": ours, "together": together, "interpreter": interpreter}[sys.argv[1]]
    path = sys.argv[2]
    with Path(path).open("rb") as file:  # so that no figure includes the disk
        while file.read(1 << 20):
            pass
    # Another case measures the time to load the modules; their memory counts here.
    if sys.argv[1] in _MODULES:
        importlib.import_module(_MODULES[sys.argv[1]])
    cpu, wall = time.process_time(), time.perf_counter()
    candidate(path)
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak_mb": peak_mb()}
    tell(figures)


if __name__ == "__main__":
    main()
