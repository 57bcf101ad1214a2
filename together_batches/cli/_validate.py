"""The command ``together-batches validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from together_batches.cli._command import command, endpoint_option, json_option, requests_argument
from together_batches.cli._exits import Exit
from together_batches.cli._requests import requests_in
from together_batches.cli._signals import raised_by_signals
from together_batches.cli._text import as_json, columns, format_count, print_err, print_lines

if TYPE_CHECKING:
    from together_batches.jsonl import Problem

__all__ = ["validate"]


@command("validate")
@requests_argument
@endpoint_option
@json_option
def validate(source: str, endpoint: str, json: bool) -> Exit:
    """Find every problem of a file of requests before it is sent. It needs no key and
    no network.

    examples:
      together-batches validate requests.jsonl
      together-batches validate clips.jsonl --endpoint /v1/audio/transcriptions
      together-batches validate - < requests.jsonl
    """
    from together_batches import jsonl

    with raised_by_signals():
        found = jsonl.validate(requests_in(source), endpoint=endpoint)
    if json:
        print(as_json({**attrs.asdict(found), "ok": found.ok}))
    else:
        print_lines(map(_line, found.problems))
        left_out = found.problem_count - len(found.problems)
        print_err(f"{found}; the first {format_count(len(found.problems))} are listed" if left_out else str(found))
    return Exit.DONE if found.ok else Exit.FAILED


def _line(problem: Problem) -> str:
    """Return the columns that the reference names."""
    line = None if problem.line is None else str(problem.line)
    return "\t".join(columns((line, problem.custom_id, problem.message)))
