"""``together-batches validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches import jsonl
from together_batches.cli._exits import Exit
from together_batches.cli._requests import requests_in
from together_batches.cli._text import as_json, escape, number, print_lines, say

if TYPE_CHECKING:
    from together_batches.cli._parser import Arguments
    from together_batches.jsonl import Problem, Validation

__all__ = ["validate"]


def validate(arguments: Arguments) -> Exit:
    """Print every problem of a file of requests, and count its rows."""
    found = jsonl.validate(requests_in(arguments.path), endpoint=arguments.requests_endpoint)
    if arguments.json:
        print(as_json(_plain(found)))
    else:
        print_lines(map(_line, found.problems))
        left_out = found.problem_count - len(found.problems)
        say(f"{found}, of which the first {number(len(found.problems))} were told" if left_out else str(found))
    return Exit.DONE if found.ok else Exit.FAILED


def _line(problem: Problem) -> str:
    """The columns that the reference names; what is absent is ``-``."""
    line = "-" if problem.line is None else str(problem.line)
    return f"{line}\t{escape(problem.custom_id or '-')}\t{escape(problem.message)}"


def _plain(found: Validation) -> dict[str, object]:
    problems = [
        {
            "line": problem.line,
            "offset": problem.offset,
            "custom_id": problem.custom_id,
            "message": problem.message,
        }
        for problem in found.problems
    ]
    return {
        "source": found.source,
        "ok": found.ok,
        "rows": found.rows,
        "bytes": found.bytes,
        "models": dict(found.models),
        "problem_count": found.problem_count,
        "problems": problems,
    }
